//! Settings. Every default is meant for production; tests make things small with the same settings.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// What every batch on disk is aligned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// 8 bytes: dense. Needs a disk that, on a power cut, does not harm synced bytes in a sector it was rewriting
    /// (power-safe overwrite, as SQLite calls it; true of every disk that writes sectors atomically).
    Bytes8,
    /// 4096 bytes: a sector is never written twice, so not even that is needed; costs up to 4 KiB a batch.
    Bytes4096,
}

/// Who does the work that no caller waits for: preparing segments, marks, syncing relaxed writes, callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Threads of the journal.
    Threads,
    /// Nobody but the caller, in `Journal::work` and inside calls that wait: no thread is started, so that a
    /// simulation is deterministic. Callbacks run in `Journal::work`.
    Caller,
}

/// What `open` does about a log with damaged acknowledged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDamage {
    /// Refuses to open, naming the place.
    Refuse,
}

/// Settings of a journal. They may differ from one opening to the next; what is on disk describes itself.
///
/// ```
/// let config = everlog::Config::new().segment_bytes(16 << 20).max_entry_bytes(1 << 20);
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) segment_bytes: u64,
    pub(crate) alignment: Alignment,
    pub(crate) max_entry_bytes: u64,
    pub(crate) in_flight_bytes: u64,
    pub(crate) relaxed_delay: Duration,
    pub(crate) relaxed_bytes: u64,
    pub(crate) mark_delay: Duration,
    pub(crate) mark_sync_delay: Duration,
    pub(crate) segments_ahead: usize,
    pub(crate) index_cache_bytes: usize,
    pub(crate) background: Background,
    pub(crate) verify_on_open: bool,
    pub(crate) on_damage: OnDamage,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            segment_bytes: 64 << 20,
            alignment: Alignment::Bytes8,
            max_entry_bytes: 64 << 20,
            in_flight_bytes: 8 << 20,
            relaxed_delay: Duration::from_millis(100),
            relaxed_bytes: 8 << 20,
            mark_delay: Duration::from_millis(20),
            mark_sync_delay: Duration::from_secs(1),
            segments_ahead: 1,
            index_cache_bytes: 16 << 20,
            background: Background::Threads,
            verify_on_open: false,
            on_damage: OnDamage::Refuse,
        }
    }
}

/// The smallest segment: two opening blocks, one block of batches, one block for the closing mark.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// The index of a segment must fit 32 bits, and may be half as large again as the segment.
const SEGMENT_BYTES_MAX: u64 = 2 << 30;
const ENTRY_BYTES_MAX: u64 = 256 << 20;
const IN_FLIGHT_BYTES_MIN: u64 = 4 << 10;
const IN_FLIGHT_BYTES_MAX: u64 = 1 << 30;

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new() -> Config {
        Config::default()
    }

    /// Size of a segment file in bytes, a multiple of 4096 from 16 KiB to 2 GiB. Default 64 MiB. An entry that does not
    /// fit gets a segment of its own.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Config {
        self.segment_bytes = bytes;
        self
    }

    /// What batches are aligned to on disk. Default [`Alignment::Bytes8`].
    #[must_use]
    pub fn alignment(mut self, alignment: Alignment) -> Config {
        self.alignment = alignment;
        self
    }

    /// Largest entry in bytes, up to 256 MiB. Default 64 MiB. A larger one is `Invalid` before anything is written.
    #[must_use]
    pub fn max_entry_bytes(mut self, bytes: u64) -> Config {
        self.max_entry_bytes = bytes;
        self
    }

    /// Bound on bytes that were submitted and not yet synced, 4 KiB to 1 GiB. Default 8 MiB. `submit` waits for room below it;
    /// an entry above it goes alone. It bounds the journal's memory for entries, and the size of what a crash leaves to carry.
    #[must_use]
    pub fn in_flight_bytes(mut self, bytes: u64) -> Config {
        self.in_flight_bytes = bytes;
        self
    }

    /// How long a relaxed write may stay unsynced. Default 100 ms.
    #[must_use]
    pub fn relaxed_delay(mut self, delay: Duration) -> Config {
        self.relaxed_delay = delay;
        self
    }

    /// How many relaxed bytes may stay unsynced. Default 8 MiB; the in-flight bound applies as well.
    #[must_use]
    pub fn relaxed_bytes(mut self, bytes: u64) -> Config {
        self.relaxed_bytes = bytes;
        self
    }

    /// Idle time after which a mark is written, so that the last acknowledged batch has a witness, and after which the mark
    /// is synced. Default 20 ms and 1 s.
    #[must_use]
    pub fn mark_delays(mut self, write: Duration, sync: Duration) -> Config {
        self.mark_delay = write;
        self.mark_sync_delay = sync;
        self
    }

    /// How many zeroed segments are kept ready beside the reserve. Default 1, at least 1.
    #[must_use]
    pub fn segments_ahead(mut self, segments: usize) -> Config {
        self.segments_ahead = segments;
        self
    }

    /// Bound in bytes on the cached offsets of sealed segments. Default 16 MiB.
    #[must_use]
    pub fn index_cache_bytes(mut self, bytes: usize) -> Config {
        self.index_cache_bytes = bytes;
        self
    }

    /// Who does the work that nobody waits for. Default [`Background::Threads`].
    #[must_use]
    pub fn background(mut self, background: Background) -> Config {
        self.background = background;
        self
    }

    /// Whether `open` also reads and verifies every sealed payload. Default false: reads verify what they return.
    #[must_use]
    pub fn verify_on_open(mut self, verify: bool) -> Config {
        self.verify_on_open = verify;
        self
    }

    /// What to do about damage found by `open`. Default [`OnDamage::Refuse`].
    #[must_use]
    pub fn on_damage(mut self, on_damage: OnDamage) -> Config {
        self.on_damage = on_damage;
        self
    }

    /// `Invalid` with the setting and its limits, if one is out of them.
    pub(crate) fn validate(&self) -> Result<()> {
        let bad = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        let segment = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment) || !segment.is_multiple_of(4096) {
            return bad(format!(
                "segment_bytes is {segment}; it must be a multiple of 4096 from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            ));
        }
        if self.max_entry_bytes == 0 || self.max_entry_bytes > ENTRY_BYTES_MAX {
            return bad(format!(
                "max_entry_bytes is {}; it must be from 1 to {ENTRY_BYTES_MAX}",
                self.max_entry_bytes
            ));
        }
        if !(IN_FLIGHT_BYTES_MIN..=IN_FLIGHT_BYTES_MAX).contains(&self.in_flight_bytes) {
            return bad(format!(
                "in_flight_bytes is {}; it must be from {IN_FLIGHT_BYTES_MIN} to {IN_FLIGHT_BYTES_MAX}",
                self.in_flight_bytes
            ));
        }
        if self.segments_ahead == 0 {
            return bad("segments_ahead is 0; it must be at least 1".into());
        }
        Ok(())
    }
}
