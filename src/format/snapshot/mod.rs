//! The bytes of the snapshot store: packs, which hold chunks, indexes, which say of which chunks a snapshot consists,
//! pins, which say who wants one to stay, and exports, which carry one elsewhere.
//!
//! All begin with magic, checksum, version and features in the same places, so that what a newer version wrote is
//! recognised as such and refused. A chunk needs no checksum beside its name, which is the blake3 hash of its bytes.

mod export;
mod index;
mod pack;
mod pin;

pub(crate) use export::{EXPORT_HEADER_LEN, ExportHeader};
pub(crate) use index::{ChunkPlace, INDEX_LEN_MAX, METADATA_LEN_MAX, SnapshotIndex};
pub(crate) use pack::{PACK_HEADER_LEN, PackHeader};
pub(crate) use pin::{OWNER_LEN_MAX, PIN_LEN_MAX, SnapshotPin};

use super::Bad;

/// The format version that this build writes, and the newest that it reads.
pub(crate) const SNAPSHOT_VERSION: u16 = 1;
/// [`Bad::is_newer`] measures every version by the journal's.
const _: () = assert!(SNAPSHOT_VERSION == super::VERSION);
/// The required features that this build knows: none.
const FEATURES_KNOWN: u64 = 0;

/// Bound on the uncompressed bytes of a chunk, whatever an index says: no read allocates more.
pub(crate) const CHUNK_LEN_MAX: u32 = 16 << 20;
/// Bound on offsets in a pack, so that a sum of two cannot overflow.
const PACK_LEN_MAX: u64 = 1 << 48;

/// How the bytes of a chunk are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    pub(crate) fn from_u8(value: u8) -> Option<Codec> {
        match value {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }

    pub(crate) fn to_u8(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        }
    }
}

/// Refuses a version or a feature that is not ours; the checksum has been found right.
fn check_version(version: u16, features: u64) -> Result<(), Bad> {
    use crate::mutant::{Rule, removed};
    if version != SNAPSHOT_VERSION && !removed(Rule::SnapshotVersion) {
        return Err(Bad::Version(version));
    }
    match features & !FEATURES_KNOWN {
        0 => Ok(()),
        unknown => Err(Bad::Features(unknown)),
    }
}
