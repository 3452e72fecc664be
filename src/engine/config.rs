//! Settings of an engine or a replica.

use std::fmt;
use std::time::Duration;

use super::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// How far opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Bytes of the snapshot that were read, and all of them. Begins anew if an older one is fallen back to.
    Restore {
        /// Bytes so far.
        bytes: u64,
        /// Bytes of the snapshot.
        of: u64,
    },
    /// Entries of the log that were applied, and all of them.
    Replay {
        /// Entries so far.
        entries: u64,
        /// Entries behind the snapshot.
        of: u64,
    },
}

/// Settings of an engine or a replica. They may differ from one opening to the next.
///
/// ```
/// use std::time::Duration;
/// let config = everlog::engine::EngineConfig::new().restart_within(Duration::from_secs(2)).retain(3);
/// # let _ = config;
/// ```
#[derive(Clone)]
pub struct EngineConfig {
    pub(super) retain: usize,
    pub(super) restart_within: Option<Duration>,
    pub(super) checkpoint_bytes: Option<u64>,
    pub(super) checkpoint_entries: Option<u64>,
    pub(super) checkpoint_rests: bool,
    pub(super) clients: usize,
    pub(super) progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    pub(super) clock: Clock,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            retain: 2,
            restart_within: None,
            checkpoint_bytes: Some(256 << 20),
            checkpoint_entries: None,
            checkpoint_rests: true,
            clients: 10_000,
            progress: None,
            clock: Clock::system(),
        }
    }
}

impl EngineConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> EngineConfig {
        EngineConfig::default()
    }

    /// How many snapshots are kept, at least 1. Default 2. The log is purged only to the oldest of them, which each checkpoint reads as a whole before,
    /// and not at all while there are fewer that are sound: if the newest one turns out to be damaged, opening falls back to the next and
    /// replays more. With 1 there is nothing to fall back to. They share chunks, and are no copies of one another.
    #[must_use]
    pub fn retain(mut self, snapshots: usize) -> EngineConfig {
        self.retain = snapshots;
        self
    }

    /// How long a restart may take, as [predicted](super::Engine::predicted_restart): restoring the newest snapshot and replaying what came
    /// after it. Checkpoints are taken so that it stays below, though they are at work for a quarter of the time at most, rests not counted; a
    /// budget that cannot be kept is a warning and a metric. Default none.
    #[must_use]
    pub fn restart_within(mut self, time: Duration) -> EngineConfig {
        self.restart_within = Some(time);
        self
    }

    /// A checkpoint is due when commands of so many bytes were applied since the last one. Default 256 MiB; `None`: never for that.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: impl Into<Option<u64>>) -> EngineConfig {
        self.checkpoint_bytes = bytes.into();
        self
    }

    /// A checkpoint is due when so many commands were applied since the last one. Default `None`: never for that.
    #[must_use]
    pub fn checkpoint_entries(mut self, entries: impl Into<Option<u64>>) -> EngineConfig {
        self.checkpoint_entries = entries.into();
        self
    }

    /// Whether a checkpoint leaves the disk to commands most of the time: [how](super::Engine::checkpoint). A machine whose capture is O(1) holds
    /// what is overwritten while it is written, at most its state once more; without rests that is less, and commands wait longer for the disk. Default true.
    #[must_use]
    pub fn checkpoint_rests(mut self, rests: bool) -> EngineConfig {
        self.checkpoint_rests = rests;
        self
    }

    /// How many clients [`execute_once`](super::Engine::execute_once) remembers, at least 1; the one that was silent longest is forgotten first, and
    /// a command that it repeats afterwards takes effect again. Each such command carries the number into the log, so that replay forgets whom it
    /// forgot then. Default 10,000. Memory: about 150 bytes each, and its last reply.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> EngineConfig {
        self.clients = clients;
        self
    }

    /// Is told how far opening has come, on the thread that opens; some hundred times at most for each part.
    #[must_use]
    pub fn progress(mut self, told: impl Fn(Progress) + Send + Sync + 'static) -> EngineConfig {
        self.progress = Some(Arc::new(told));
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        let zero = |name: &str| Err(Error::new(ErrorKind::Invalid, format!("{name} is 0")));
        if self.retain == 0 {
            return zero("retain");
        }
        if self.clients == 0 {
            return zero("clients");
        }
        if self.checkpoint_bytes == Some(0) || self.checkpoint_entries == Some(0) {
            return zero("checkpoint_bytes or checkpoint_entries");
        }
        Ok(())
    }

    pub(super) fn tell(&self, progress: Progress) {
        if let Some(told) = &self.progress {
            told(progress);
        }
    }
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineConfig")
            .field("retain", &self.retain)
            .field("restart_within", &self.restart_within)
            .field("checkpoint_bytes", &self.checkpoint_bytes)
            .field("checkpoint_entries", &self.checkpoint_entries)
            .field("checkpoint_rests", &self.checkpoint_rests)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}
