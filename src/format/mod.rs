//! The bytes of a journal on disk, format version 1: slices into values and back. Opens nothing, reads nothing.
//!
//! What it promises: every decoder takes arbitrary bytes, never panics, and never believes (or allocates by) a length
//! that it has not bounded by the bytes at hand; whatever it does not know - a version, a feature, a flag, a codec, a
//! reserved byte that is not zero - is refused. What the encoders write, the decoders read back unchanged.
//!
//! All numbers are little-endian; every checksum is CRC-32 (IEEE). A segment is a file of zeros of known length, into
//! which each byte is written at most once:
//!
//! ```text
//! offset  what
//!      0  opening                     (module `opening`)
//!    256  zero
//!   4096  the same opening again
//!   4352  zero
//!   8192  batches, one behind the other, each padded with zeros to the segment's alignment (8 or 4096)
//!    ...  zero
//!
//! batch:  header (96) | frame headers (48 each) | term table (16 each) | payloads | zero
//!         (module `batch`)  (module `frame`)
//! ```
//!
//! The first batch of a segment continues from the opening: sequence + 1, and the opening's crc is the chain value
//! that the first batch header names. A sealed segment has a derived file beside it (module `index`).

mod batch;
#[cfg(feature = "snapshot")]
mod engine;
mod facts;
mod field;
mod frame;
mod index;
mod opening;
#[cfg(feature = "snapshot")]
mod snapshot;

use std::fmt;

pub(crate) use batch::{
    BATCH_HEADER_LEN, BATCH_LEN_MAX, BatchHeader, BatchSpec, Flags, TERMS_MAX, batch_len, decode_each,
    decode_tables, encode_batch, header_at, skip_len, term_changes,
};
#[cfg(feature = "snapshot")]
pub(crate) use engine::{
    COMMAND_HEAD_MAX, Command, ENGINE_HEADER_LEN, EngineHeader, SessionRecord, Tables, decode_skips,
    encode_skips,
};
pub(crate) use facts::{FACTS_LEN, FLOOR_LEN, Facts, Floor};
pub(crate) use frame::{
    FRAME_HEADER_LEN, Frame, FrameDecoder, FrameSpec, Kind, decode_frame, digest, payload_crc,
};
pub(crate) use index::{INDEX_HEADER_LEN, Index, IndexBuilder, IndexOp, IndexRun, decode_block};
pub(crate) use opening::{BATCHES_AT, COPY_AT, End, OPENING_LEN, Opening, VERSION, write_opening_blocks};
#[cfg(feature = "snapshot")]
pub(crate) use snapshot::{
    CHUNK_LEN_MAX, ChunkPlace, Codec, EXPORT_HEADER_LEN, ExportHeader, INDEX_LEN_MAX, METADATA_LEN_MAX,
    OWNER_LEN_MAX, PACK_HEADER_LEN, PIN_LEN_MAX, PackHeader, SnapshotIndex, SnapshotPin,
};

/// Bound on the length of a segment file, so that the position of any frame header, divided by 8, fits 32 bits.
pub(crate) const SEGMENT_LEN_MAX: u64 = (1 << 35) - 8;

/// Bound on ids, sequences and incarnations. No journal lives long enough to reach it, and below it a sum of two
/// cannot overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// Nothing but zeros: never written.
    Blank,
    /// Fewer bytes than the structure has.
    Short,
    /// Another kind of thing, or rot in its first bytes.
    Magic,
    /// The checksum does not match.
    Crc,
    /// The checksum matches, the format version is not ours.
    Version(u16),
    /// The checksum matches; these required features are unknown here.
    Features(u64),
    /// The checksum matches, and yet this field has a value that it cannot have.
    Field(&'static str),
}

impl Bad {
    /// Whether a newer build may be able to read it: no damage, and not ours to touch.
    pub(crate) fn is_newer(self) -> bool {
        match self {
            Bad::Version(version) => version > VERSION,
            Bad::Features(_) => true,
            Bad::Blank | Bad::Short | Bad::Magic | Bad::Crc | Bad::Field(_) => false,
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::Blank => f.write_str("nothing but zeros"),
            Bad::Short => f.write_str("ends too early"),
            Bad::Magic => f.write_str("does not begin as it should"),
            Bad::Crc => f.write_str("checksum does not match"),
            Bad::Version(version) if *version > VERSION => {
                write!(f, "format version {version} is newer than this build ({VERSION})")
            }
            Bad::Version(version) => write!(f, "format version {version} does not exist"),
            Bad::Features(bits) => write!(f, "needs features that this build does not have (bits {bits:#x})"),
            Bad::Field(name) => write!(f, "checksum matches, but the value of `{name}` is impossible"),
        }
    }
}

impl std::error::Error for Bad {}

/// `Ok` if `holds`, otherwise the field `name` is [`Bad`].
fn require(holds: bool, name: &'static str) -> Result<(), Bad> {
    if holds { Ok(()) } else { Err(Bad::Field(name)) }
}

#[cfg(test)]
mod tests;
