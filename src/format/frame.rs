//! Frame header: one operation of one log, or a fact about it. Stands in the frame headers of its batch; its payload
//! stands further on in the same batch. It can be verified alone, given the segment's salt and its term.
//!
//! ```text
//! offset  size  field
//!      0     4  crc          of [salt, 8 bytes][term, 16 bytes] and then bytes 4..48
//!      4     1  kind         see `Kind`
//!      5     1  cell         which cell; 0 where the kind has none
//!      6     2  term         slot in the batch's term table; 0xffff: the term is 0
//!      8     8  log
//!     16     8  incarnation  tells a log from a deleted one of the same key
//!     24     8  index        Append: of the entry, below u64::MAX. Truncate: first index dropped. Purge, Reset: first
//!                            index kept, so the purged id is (term, index - 1). Create: first index. Facts: next
//!                            index. Floor: segment id of the new floor. Otherwise unused
//!     32     4  len          of the payload: 64 for Facts, 16 for Floor, 0 for Truncate, Purge, Reset, Create, Delete
//!     36     4  payload_crc  of the payload, unsalted: the same on every replica
//!     40     4  payload_at   position of the payload, relative to the start of this header
//!     44     1  codec        0 = plain, others refused
//!     45     3  zero         refused otherwise
//! ```

use core::ops::Range;

use crate::mutant::{Rule, removed};
use crate::types::{LogKey, Term};

use super::field::{field, get_u16, get_u32, get_u64, is_zero, put};
use super::{BATCH_LEN_MAX, Bad, FACTS_LEN, FLOOR_LEN, NUMBER_MAX, require};

const CRC: Range<usize> = field(0, 4);
const KIND: Range<usize> = field(CRC.end, 1);
const CELL: Range<usize> = field(KIND.end, 1);
const TERM: Range<usize> = field(CELL.end, 2);
const LOG: Range<usize> = field(TERM.end, 8);
const INCARNATION: Range<usize> = field(LOG.end, 8);
const INDEX: Range<usize> = field(INCARNATION.end, 8);
const LEN: Range<usize> = field(INDEX.end, 4);
const PAYLOAD_CRC: Range<usize> = field(LEN.end, 4);
const PAYLOAD_AT: Range<usize> = field(PAYLOAD_CRC.end, 4);
const CODEC: Range<usize> = field(PAYLOAD_AT.end, 1);
const ZERO: Range<usize> = field(CODEC.end, 3);

/// Bytes of a frame header.
pub(crate) const FRAME_HEADER_LEN: usize = ZERO.end;
const _: () = assert!(FRAME_HEADER_LEN == 48 && INDEX.start == 24); // the table above
const _: () = assert!(FRAME_HEADER_LEN.is_multiple_of(8)); // positions of frame headers are kept divided by 8

/// The slot that stands for term 0, which is not in the table.
pub(super) const SLOT_NONE: u16 = 0xffff;

/// What a frame does. Numbers 10 to 12 are known and not yet written by this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An entry.
    Append = 1,
    /// Drops entries from `index` on.
    Truncate = 2,
    /// Drops entries below `index`.
    Purge = 3,
    /// Drops every entry; the next one is `index`.
    Reset = 4,
    /// A new value of a cell.
    Cell = 5,
    /// A new log.
    Create = 6,
    /// Ends a log.
    Delete = 7,
    /// Restates the bounds of a log.
    Facts = 8,
    /// Segments below `index` are no longer needed.
    Floor = 9,
    /// The value of a cell was lost.
    CellUnknown = 10,
    /// Entries were lost.
    Lost = 11,
    /// An entry that stood in an older segment.
    Relocated = 12,
}

impl Kind {
    /// The kind of a number on disk.
    pub(crate) fn from_u8(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Append,
            2 => Kind::Truncate,
            3 => Kind::Purge,
            4 => Kind::Reset,
            5 => Kind::Cell,
            6 => Kind::Create,
            7 => Kind::Delete,
            8 => Kind::Facts,
            9 => Kind::Floor,
            10 => Kind::CellUnknown,
            11 => Kind::Lost,
            12 => Kind::Relocated,
            _ => return None,
        })
    }
}

/// A decoded frame header; the fields are those of the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: Kind,
    pub cell: u8,
    pub log: LogKey,
    pub incarnation: u64,
    pub index: u64,
    pub term: Term,
    pub len: u32,
    pub payload_crc: u32,
    pub payload_at: u32,
}

impl Frame {
    /// File offset of the payload of a frame whose header stands at `header_at`.
    pub(crate) fn payload_offset(&self, header_at: u64) -> u64 {
        header_at.saturating_add(u64::from(self.payload_at))
    }

    /// Checks that `payload` is what was written.
    pub(crate) fn check_payload(&self, payload: &[u8]) -> Result<(), Bad> {
        if u32::try_from(payload.len()) != Ok(self.len) {
            return Err(Bad::Short);
        }
        if payload_crc(payload) != self.payload_crc && !removed(Rule::PayloadCrc) {
            return Err(Bad::Crc);
        }
        Ok(())
    }

    /// Everything that holds for every frame that is written.
    pub(super) fn check(&self) -> Result<(), Bad> {
        let facts_len = FACTS_LEN as u64;
        let floor_len = FLOOR_LEN as u64;
        let len = u64::from(self.len);
        match self.kind {
            Kind::Append => require(self.index < u64::MAX, "index")?,
            Kind::Truncate | Kind::Purge | Kind::Reset | Kind::Create | Kind::Delete => {
                require(len == 0, "len")?
            }
            Kind::Facts => require(len == facts_len, "len")?,
            Kind::Floor => require(len == floor_len && self.index <= NUMBER_MAX, "index")?,
            Kind::Cell | Kind::CellUnknown | Kind::Lost | Kind::Relocated => {}
        }
        let has_cell = matches!(
            self.kind,
            Kind::Cell | Kind::CellUnknown | Kind::Lost | Kind::Relocated
        );
        require(has_cell || self.cell == 0, "cell")?;
        require(self.incarnation <= NUMBER_MAX, "incarnation")?;
        let payload_at = u64::from(self.payload_at);
        require(payload_at >= FRAME_HEADER_LEN as u64, "payload_at")?;
        require(payload_at + len <= BATCH_LEN_MAX, "payload_at")
    }

    /// Writes the header with its crc; `seed` is that of the segment's salt and the frame's term.
    pub(super) fn encode(&self, seed: &Seed, slot: u16) -> [u8; FRAME_HEADER_LEN] {
        debug_assert_eq!(self.check(), Ok(()), "{self:?}");
        let mut out = [0; FRAME_HEADER_LEN];
        put(&mut out, KIND, [self.kind as u8]);
        put(&mut out, CELL, [self.cell]);
        put(&mut out, TERM, slot.to_le_bytes());
        put(&mut out, LOG, self.log.0.to_le_bytes());
        put(&mut out, INCARNATION, self.incarnation.to_le_bytes());
        put(&mut out, INDEX, self.index.to_le_bytes());
        put(&mut out, LEN, self.len.to_le_bytes());
        put(&mut out, PAYLOAD_CRC, self.payload_crc.to_le_bytes());
        put(&mut out, PAYLOAD_AT, self.payload_at.to_le_bytes());
        let crc = seed.crc(&out[CRC.end..]);
        put(&mut out, CRC, crc.to_le_bytes());
        out
    }

    /// Reads and checks a header; `seed` is that of `term`.
    pub(super) fn decode(seed: &Seed, term: Term, bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Frame, Bad> {
        if seed.crc(&bytes[CRC.end..]) != get_u32(bytes, CRC) && !removed(Rule::FrameCrc) {
            return Err(if is_zero(bytes) { Bad::Blank } else { Bad::Crc });
        }
        require(bytes[CODEC.start] == 0, "codec")?;
        require(is_zero(&bytes[ZERO]), "zero")?;
        require((slot(bytes) == SLOT_NONE) == (term == Term(0)), "term")?;
        let frame = Frame {
            kind: Kind::from_u8(bytes[KIND.start]).ok_or(Bad::Field("kind"))?,
            cell: bytes[CELL.start],
            log: LogKey(get_u64(bytes, LOG)),
            incarnation: get_u64(bytes, INCARNATION),
            index: get_u64(bytes, INDEX),
            term,
            len: get_u32(bytes, LEN),
            payload_crc: get_u32(bytes, PAYLOAD_CRC),
            payload_at: get_u32(bytes, PAYLOAD_AT),
        };
        frame.check()?;
        Ok(frame)
    }
}

/// A frame to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameSpec<'a> {
    pub kind: Kind,
    pub cell: u8,
    pub log: LogKey,
    pub incarnation: u64,
    pub index: u64,
    pub term: Term,
    pub payload: &'a [u8],
    /// [`payload_crc`] of `payload`, computed by whoever had the bytes first.
    pub payload_crc: u32,
}

/// The state of a frame header's crc after the salt and the term, which most frames of a batch share.
#[derive(Clone, Debug)]
pub(super) struct Seed(crc32fast::Hasher);

impl Seed {
    pub(super) fn new(salt: u64, term: Term) -> Seed {
        let salt = if removed(Rule::FrameSalt) { 0 } else { salt };
        let mut bytes = [0; 24];
        put(&mut bytes, field(0, 8), salt.to_le_bytes());
        put(&mut bytes, field(8, 16), term.0.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes);
        Seed(hasher)
    }

    fn crc(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// Reads and checks frame headers that stand alone: of the segment with this salt, operations of this term.
#[derive(Clone, Debug)]
pub(crate) struct FrameDecoder {
    salt: u64,
    term: Term,
    seed: Seed,
}

impl FrameDecoder {
    pub(crate) fn new(salt: u64, term: Term) -> FrameDecoder {
        FrameDecoder {
            salt,
            term,
            seed: Seed::new(salt, term),
        }
    }

    /// Whether it is that of this salt and term.
    pub(crate) fn is_of(&self, salt: u64, term: Term) -> bool {
        self.salt == salt && self.term == term
    }

    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Frame, Bad> {
        let bytes = bytes.first_chunk().ok_or(Bad::Short)?;
        Frame::decode(&self.seed, self.term, bytes)
    }
}

/// Reads and checks one frame header alone; see [`FrameDecoder`].
pub(crate) fn decode_frame(salt: u64, term: Term, bytes: &[u8]) -> Result<Frame, Bad> {
    FrameDecoder::new(salt, term).decode(bytes)
}

/// The slot of the term table that a frame header names; not verified.
pub(super) fn slot(header: &[u8]) -> u16 {
    get_u16(header, TERM)
}

/// Notes a slot in a frame header that is not yet written.
pub(super) fn set_slot(header: &mut [u8], slot: u16) {
    put(header, TERM, slot.to_le_bytes());
}

/// The checksum of a payload: CRC-32, unsalted.
pub(crate) fn payload_crc(payload: &[u8]) -> u32 {
    crc32fast::hash(payload)
}

/// What one entry adds to the digest of its log. The digest of a range is the sum of these modulo 2^64, so ranges
/// subtract, and truncating or purging needs no history.
///
/// Exactly, over u64 with wrapping arithmetic, where `mix` is the finalizer of SplitMix64:
///
/// ```text
/// mix(z):  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;  z = (z ^ z >> 27) * 0x94d049bb133111eb;  z ^ z >> 31
/// h = 0; for word in [index, low half of term, high half of term, payload_crc]:  h = mix((h ^ word) + 0x9e3779b97f4a7c15)
/// ```
pub(crate) fn digest(index: u64, term: Term, payload_crc: u32) -> u64 {
    let term = term.0.to_le_bytes();
    let words = [
        index,
        get_u64(&term, field(0, 8)),
        get_u64(&term, field(8, 8)),
        u64::from(payload_crc),
    ];
    words.iter().fold(0, |h: u64, word| {
        mix((h ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15))
    })
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
