//! Settings of a store, and what is kept of its snapshots.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::CHUNK_LEN_MAX;

/// How new chunks are stored. What is stored already stays as it is, and is read whatever the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    None,
    /// With zstd at this level, where that makes them smaller. Needs the cargo feature `zstd`.
    Zstd(i32),
}

/// Settings of a store. They may differ from one opening to the next; what is stored describes itself. Chunks that were cut
/// by other sizes are not found again, though, so that the first snapshot after such a change is stored whole.
///
/// ```
/// let config = everlog::snapshot::StoreConfig::new().chunk_bytes(64 << 10, 256 << 10, 1 << 20);
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    pub(super) chunk_min: u32,
    pub(super) chunk_average: u32,
    pub(super) chunk_max: u32,
    pub(super) compression: Compression,
    pub(super) read_back: bool,
    pub(super) trusted_for: Duration,
    pub(super) rewrite_below_percent: u8,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            chunk_min: 64 << 10,
            chunk_average: 256 << 10,
            chunk_max: 4 << 20,
            compression: Compression::None,
            read_back: true,
            trusted_for: Duration::from_secs(7 * 24 * 3600),
            rewrite_below_percent: 50,
        }
    }
}

impl StoreConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> StoreConfig {
        StoreConfig::default()
    }

    /// Sizes of chunks in bytes: none is smaller than `min` (64 B to 1 MiB; the last one may be), most are around `average` (256 B
    /// to 4 MiB), none is larger than `max` (1 KiB to 16 MiB). Default 64 KiB, 256 KiB, 4 MiB. Smaller ones store less when a
    /// state changes in scattered places; each costs 64 bytes in every index and some 200 in memory.
    #[must_use]
    pub fn chunk_bytes(mut self, min: u32, average: u32, max: u32) -> StoreConfig {
        (self.chunk_min, self.chunk_average, self.chunk_max) = (min, average, max);
        self
    }

    /// How new chunks are stored. Default [`Compression::None`].
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> StoreConfig {
        self.compression = compression;
        self
    }

    /// Whether a creation reads back what it stored, past the cache, before it commits. Default true: whoever deletes a log
    /// because a snapshot holds its effect should know that the medium has the snapshot. Costs a read of the new bytes.
    /// What a collection copies it always reads back, before the original goes.
    #[must_use]
    pub fn read_back(mut self, read_back: bool) -> StoreConfig {
        self.read_back = read_back;
        self
    }

    /// For how long a chunk that was read and verified counts as good when another snapshot wants to share it. Only what was
    /// verified since the store was opened counts at all. Default 7 days; with zero, each creation reads every chunk that it shares.
    #[must_use]
    pub fn trusted_for(mut self, time: Duration) -> StoreConfig {
        self.trusted_for = time;
        self
    }

    /// A collection rewrites packs of whose bytes less than so many percent are still needed (at most 100). Default 50: a store takes at most
    /// about twice the bytes that its snapshots need. With 0 nothing is rewritten.
    #[must_use]
    pub fn rewrite_below_percent(mut self, percent: u8) -> StoreConfig {
        self.rewrite_below_percent = percent;
        self
    }

    /// `Invalid` or `Unsupported` with the setting and its limits, if one is out of them.
    pub(super) fn validate(&self) -> Result<()> {
        let (min, average, max) = (self.chunk_min, self.chunk_average, self.chunk_max);
        let sizes = (64..=1 << 20).contains(&min)
            && (256..=4 << 20).contains(&average)
            && (1024..=CHUNK_LEN_MAX).contains(&max)
            && min <= average
            && average <= max;
        if !sizes {
            let text = format!(
                "chunk_bytes are {min}, {average}, {max}; they must rise, and be from 64 to 1 MiB, 256 to 4 MiB, 1 KiB to 16 MiB"
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if self.rewrite_below_percent > 100 {
            let text = format!(
                "rewrite_below_percent is {}, above 100",
                self.rewrite_below_percent
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if cfg!(not(feature = "zstd")) && self.compression != Compression::None {
            let text = "compression needs the cargo feature `zstd`, which this build does not have";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(())
    }
}

/// Which snapshots stay when a store is [collected](super::Store::collect). A snapshot stays if it is among the newest `newest` of its
/// log, or pinned, or being read. Of the others those go that are older than `max_age`, and the oldest ones until the rest takes at
/// most `max_bytes`; without either limit all others go.
///
/// Snapshots that share chunks are not independent copies: damage of a shared chunk befalls all of them, and keeping many of
/// them protects against mistakes of the owner, not of the disk. A second copy is one on another disk.
///
/// A snapshot that is known to be damaged does not count among the newest, so that it never takes the place of one that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    pub(super) newest: usize,
    pub(super) max_age: Option<Duration>,
    pub(super) max_bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            newest: 2,
            max_age: None,
            max_bytes: None,
        }
    }
}

impl Retention {
    /// The newest 2 of each log, and nothing else.
    #[must_use]
    pub fn new() -> Retention {
        Retention::default()
    }

    /// How many of each log stay whatever the other limits say: at least 1 (0 counts as 1). Default 2.
    #[must_use]
    pub fn newest(mut self, count: usize) -> Retention {
        self.newest = count.max(1);
        self
    }

    /// How old the others may be.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Retention {
        self.max_age = Some(age);
        self
    }

    /// How many bytes all snapshots together may take on disk, shared chunks counted once.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Retention {
        self.max_bytes = Some(bytes);
        self
    }
}
