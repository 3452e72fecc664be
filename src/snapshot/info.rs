//! What a snapshot is, for those who create, list and check it.

use std::path::PathBuf;

use bytes::Bytes;

use super::names::{ChunkName, SnapshotId};
use super::pace::Pace;
use crate::error::Error;
use crate::format::SnapshotIndex;
use crate::types::{EntryId, LogKey};

/// Where a snapshot came from. It decides what may be believed about the log beside it: see [`Snapshot::origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// A checkpoint of this machine's own state: the log reaches at least as far, or has lost its end.
    OwnCheckpoint,
    /// Received from elsewhere: it may be ahead of the log, which is then reset to it.
    Installed,
    /// Of a machine that persists itself, and may be ahead of the log by what was applied and not yet synced there.
    SelfPersisting,
}

impl Origin {
    pub(super) fn to_u8(self) -> u8 {
        match self {
            Origin::OwnCheckpoint => 1,
            Origin::Installed => 2,
            Origin::SelfPersisting => 3,
        }
    }

    fn from_u8(value: u8) -> Origin {
        match value {
            2 => Origin::Installed,
            3 => Origin::SelfPersisting,
            _ => Origin::OwnCheckpoint,
        }
    }
}

/// What a snapshot is to be of, before its bytes are known.
#[derive(Clone, Debug)]
#[must_use = "a draft is handed to Store::create"]
pub struct Draft {
    pub(super) log: LogKey,
    pub(super) covers: EntryId,
    pub(super) origin: Origin,
    pub(super) metadata: Bytes,
    pub(super) digest: Option<[u8; 32]>,
    pub(super) created_micros: Option<u64>,
    pub(super) pace: Option<Pace>,
}

impl Draft {
    /// A checkpoint of the state of `log` after the entry `covers`.
    pub fn new(log: LogKey, covers: EntryId) -> Draft {
        Draft {
            log,
            covers,
            origin: Origin::OwnCheckpoint,
            metadata: Bytes::new(),
            digest: None,
            created_micros: None,
            pace: None,
        }
    }

    /// Written, and what it shares read, at this pace.
    pub(crate) fn paced(mut self, pace: Option<Pace>) -> Draft {
        self.pace = pace;
        self
    }

    /// Where it comes from. Default [`Origin::OwnCheckpoint`].
    pub fn origin(mut self, origin: Origin) -> Draft {
        self.origin = origin;
        self
    }

    /// Bytes of the caller that are kept with it, at most 1 MiB (a membership, a schema version). Default none.
    pub fn metadata(mut self, metadata: impl Into<Bytes>) -> Draft {
        self.metadata = metadata.into();
        self
    }

    /// A digest of the state, by whatever the caller computes. Stored and returned, never interpreted. If it is known only at the
    /// end: [`Creation::set_digest`](super::Creation::set_digest).
    pub fn digest(mut self, digest: [u8; 32]) -> Draft {
        self.digest = Some(digest);
        self
    }

    /// When it was created, in microseconds since 1970; the clock, unless said otherwise. A copy of a snapshot needs the
    /// time of the original to have the same id.
    pub fn created_micros(mut self, micros: u64) -> Draft {
        self.created_micros = Some(micros);
        self
    }
}

/// A committed snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// The log whose effect it holds.
    pub log: LogKey,
    /// The last entry whose effect is in it.
    pub covers: EntryId,
    /// Where it came from. One [`Installed`](Origin::Installed) may be ahead of the log, which its owner then resets;
    /// [`OwnCheckpoint`](Origin::OwnCheckpoint) ahead of the log means that the log has lost its end.
    pub origin: Origin,
    /// When it was created, in microseconds since 1970.
    pub created_micros: u64,
    /// Bytes of the state.
    pub bytes: u64,
    /// Bytes that were stored for it when it was created; the rest it shares with snapshots before it.
    pub new_bytes: u64,
    /// Number of its chunks.
    pub chunks: u64,
    /// Bytes of the caller.
    pub metadata: Bytes,
    /// The caller's digest of the state.
    pub digest: Option<[u8; 32]>,
}

impl Snapshot {
    pub(super) fn of(index: &SnapshotIndex) -> Snapshot {
        Snapshot {
            id: SnapshotId(index.id),
            log: index.log,
            covers: index.covers,
            origin: Origin::from_u8(index.origin),
            created_micros: index.created,
            bytes: index.len,
            new_bytes: index.new_len,
            chunks: index.chunks.len() as u64,
            metadata: index.metadata.clone(),
            digest: index.digest,
        }
    }
}

/// Whether what was stored has been read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// The setting says no.
    No,
    /// From the device.
    PastCache,
    /// The system would not promise that the device was asked: it may have been memory.
    PerhapsCached,
}

/// What a creation did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Chunks that it shares with snapshots before it, and their uncompressed bytes.
    pub shared: Count,
    /// Chunks that another snapshot has, but that could not be read there as they should be: they were stored anew from
    /// the bytes in hand.
    pub healed: Count,
    /// Whether the new chunks and the index were read back.
    pub read_back: ReadBack,
}

/// A number of chunks, and the sum of their uncompressed bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub chunks: u64,
    /// Uncompressed bytes.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, len: usize) {
        self.chunks += 1;
        self.bytes += len as u64;
    }
}

/// A chunk of a snapshot in the order of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Its name.
    pub name: ChunkName,
    /// Where it begins in the state, in bytes.
    pub at: u64,
    /// Uncompressed bytes.
    pub bytes: u32,
}

/// A chunk, or a whole index, that is not there as it should be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Damage {
    /// The pack or index.
    pub path: PathBuf,
    /// Where in it the chunk stands; 0 for an index.
    pub offset: u64,
    /// The chunk; `None` if an index is damaged.
    pub chunk: Option<ChunkName>,
    /// The snapshots that need it.
    pub snapshots: Vec<SnapshotId>,
    /// What is wrong.
    pub error: Error,
}
