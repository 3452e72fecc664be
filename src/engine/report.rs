//! What opening found, what a checkpoint did, and how an engine is doing.

use std::time::Duration;

use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::types::EntryId;

/// What opening an engine or a replica found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EngineReport {
    /// The snapshot that was restored; `None` if the machine began empty, or has kept its state itself.
    pub snapshot: Option<Snapshot>,
    /// Newer snapshots that could not be restored, the newest first, each with the reason.
    pub refused: Vec<(Snapshot, Error)>,
    /// The log was reset to the installed snapshot, because the process ended between the two.
    pub reset_to: Option<EntryId>,
    /// Entries that were replayed.
    pub replayed_entries: u64,
    /// Their bytes.
    pub replayed_bytes: u64,
    /// Entries that somebody [skipped](super::skip), ever: the state lacks their effect.
    pub skipped: Vec<EntryId>,
    /// Time to restore the snapshot, failed attempts included.
    pub restore: Duration,
    /// Time to replay the entries behind it.
    pub replay: Duration,
    /// Of that, how long the machine waited for entries to be read and verified.
    pub replay_waited: Duration,
    /// All of it.
    pub total: Duration,
    /// What a person should know although nothing is lost.
    pub warnings: Vec<String>,
}

impl EngineReport {
    pub(super) fn warn(&mut self, text: String) {
        tracing::warn!("{text}");
        self.warnings.push(text);
    }
}

/// What a checkpoint did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The snapshot that was taken; `None` if nothing was applied since the last one, or the machine persists itself.
    pub snapshot: Option<Snapshot>,
    /// The log no longer has this entry, nor those before it, because of this checkpoint.
    pub purged_through: Option<EntryId>,
    /// Older snapshots that were removed.
    pub removed: usize,
    /// Why the space of removed snapshots was not freed, if it was not. The store grows until that is mended; nothing else is wrong.
    pub not_freed: Option<Error>,
    /// How long nothing could be applied or read.
    pub capture: Duration,
    /// All of it.
    pub total: Duration,
    /// How long of it nothing was done, so that commands found the disk free.
    pub rested: Duration,
}

/// How an engine is doing, as of one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EngineMetrics {
    /// Entries applied since it was opened, those of the replay included.
    pub applied: u64,
    /// Checkpoints that succeeded.
    pub checkpoints: u64,
    /// Checkpoints that failed; each was an event, too.
    pub checkpoints_failed: u64,
    /// Entries behind the newest snapshot.
    pub tail_entries: u64,
    /// Bytes of their commands.
    pub tail_bytes: u64,
    /// How long a restart would take now, pessimistically.
    pub predicted_restart: Duration,
    /// Whether the budget cannot be kept: restoring alone takes longer, or the load outruns checkpoints.
    pub budget_unattainable: bool,
    /// How often that began; each was an event, too.
    pub budget_warnings: u64,
}
