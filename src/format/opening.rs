//! Opening: the first bytes of a segment. Says whose segment it is, what stood before it, and what it carries.
//!
//! Stored twice, at 0 and at [`COPY_AT`], in blocks of 4096 that are otherwise zero; batches begin at [`BATCHES_AT`].
//! It is itself a sequenced item: the first batch behind it has the next sequence and names its crc as chain value.
//! Magic, crc and version stand where they stand in every version, so that a newer one is recognised as such.
//!
//! ```text
//! offset  size  field
//!      0     8  magic             "EVERLOGS"
//!      8     4  crc               over bytes 12..256, in every version
//!     12     2  version           1
//!     14     2  align_shift       batches are aligned to 1 << align_shift: 3 or 12
//!     16     8  features          features a reader must know; an unknown one is refused
//!     24     8  compat            features a reader may ignore
//!     32    16  uuid              of the journal
//!     48     8  segment           id of this segment, at least 1
//!     56     8  salt              random, not zero; differs from what stood in the file's place before
//!     64     8  sequence          of the opening itself, at least 1
//!     72     8  time              microseconds since 1970
//!     80     8  pred_segment      id of the predecessor, below `segment`; 0 in the journal's first segment, and then
//!                                 the next three fields are 0 too
//!     88     8  pred_offset       where the predecessor ends: behind its last batch that belongs to the journal,
//!                                 8192 if it has none
//!     96     8  pred_sequence     of that batch, or of the predecessor's opening
//!    104     4  pred_chain        crc of that batch header, or of the predecessor's opening
//!    108     4  carry_crc         header crc of the carry batch at 8192; 0 without one
//!    112     8  carry_len         bytes of the carry batch with its padding; 0 = nothing is carried
//!    120     8  floor             lowest segment id that the journal needed then; 0 or 1: all
//!    128     8  len               of the segment file in bytes
//!    136    16  key_id            zero (reserved for encryption), refused otherwise
//!    152     8  incarnation_next  lowest incarnation not yet given to a log then
//!    160    96  zero              refused otherwise
//! ```

use core::ops::Range;

use crate::mutant::{Rule, removed};

use super::field::{array, field, get_u16, get_u32, get_u64, is_zero, put};
use super::{BATCH_HEADER_LEN, BATCH_LEN_MAX, Bad, NUMBER_MAX, SEGMENT_LEN_MAX, require};

const MAGIC: Range<usize> = field(0, 8);
const CRC: Range<usize> = field(MAGIC.end, 4);
const VERSION_AT: Range<usize> = field(CRC.end, 2);
const ALIGN_SHIFT: Range<usize> = field(VERSION_AT.end, 2);
const FEATURES: Range<usize> = field(ALIGN_SHIFT.end, 8);
const COMPAT: Range<usize> = field(FEATURES.end, 8);
const UUID: Range<usize> = field(COMPAT.end, 16);
const SEGMENT: Range<usize> = field(UUID.end, 8);
const SALT: Range<usize> = field(SEGMENT.end, 8);
const SEQUENCE: Range<usize> = field(SALT.end, 8);
const TIME: Range<usize> = field(SEQUENCE.end, 8);
const PRED_SEGMENT: Range<usize> = field(TIME.end, 8);
const PRED_OFFSET: Range<usize> = field(PRED_SEGMENT.end, 8);
const PRED_SEQUENCE: Range<usize> = field(PRED_OFFSET.end, 8);
const PRED_CHAIN: Range<usize> = field(PRED_SEQUENCE.end, 4);
const CARRY_CRC: Range<usize> = field(PRED_CHAIN.end, 4);
const CARRY_LEN: Range<usize> = field(CARRY_CRC.end, 8);
const FLOOR: Range<usize> = field(CARRY_LEN.end, 8);
const LEN: Range<usize> = field(FLOOR.end, 8);
const KEY_ID: Range<usize> = field(LEN.end, 16);
const INCARNATION_NEXT: Range<usize> = field(KEY_ID.end, 8);
const ZERO: Range<usize> = field(INCARNATION_NEXT.end, 96);

/// Bytes of an opening, without the zeros that fill its block.
pub(crate) const OPENING_LEN: usize = ZERO.end;
const _: () = assert!(OPENING_LEN == 256 && PRED_CHAIN.start == 104 && ZERO.start == 160); // the table above

/// Where the second copy stands.
pub(crate) const COPY_AT: u64 = 4096;
/// Where the first batch stands.
pub(crate) const BATCHES_AT: u64 = 8192;
const BLOCK: usize = 4096;
const _: () = assert!(COPY_AT == BLOCK as u64 && BATCHES_AT == 2 * COPY_AT && OPENING_LEN <= BLOCK);

/// The format version that this build writes, and the newest that it reads.
pub(crate) const VERSION: u16 = 1;
/// The required features that this build knows: none.
pub(crate) const FEATURES_KNOWN: u64 = 0;
const MAGIC_BYTES: [u8; 8] = *b"EVERLOGS";

/// Where the part of a segment that belongs to the journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Id of the segment.
    pub segment: u64,
    /// File offset behind its last batch, or [`BATCHES_AT`].
    pub offset: u64,
    /// Sequence of its last batch, or of its opening.
    pub sequence: u64,
    /// Crc of its last batch header, or of its opening.
    pub chain: u32,
}

/// A decoded opening; the fields are those of the table above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub uuid: [u8; 16],
    pub align_shift: u16,
    pub features: u64,
    pub compat: u64,
    pub segment: u64,
    pub salt: u64,
    pub sequence: u64,
    pub time: u64,
    /// Where the predecessor ends; `None` in the first segment of a journal.
    pub pred: Option<End>,
    pub carry_len: u64,
    pub carry_crc: u32,
    pub floor: u64,
    pub len: u64,
    pub incarnation_next: u64,
}

impl Opening {
    /// Reads and checks the opening at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Opening, Bad> {
        let bytes: &[u8; OPENING_LEN] = bytes.first_chunk().ok_or(Bad::Short)?;
        if bytes[MAGIC] != MAGIC_BYTES {
            return Err(if is_zero(bytes) { Bad::Blank } else { Bad::Magic });
        }
        let sound = crc32fast::hash(&bytes[CRC.end..]) == get_u32(bytes, CRC);
        if !sound && !removed(Rule::OpeningCrc) {
            return Err(Bad::Crc);
        }
        let version = get_u16(bytes, VERSION_AT);
        if version != VERSION && !removed(Rule::NewerVersion) {
            return Err(Bad::Version(version));
        }
        let unknown = get_u64(bytes, FEATURES) & !FEATURES_KNOWN;
        if unknown != 0 && !removed(Rule::UnknownFeature) {
            return Err(Bad::Features(unknown));
        }
        require(is_zero(&bytes[KEY_ID]), "key_id")?;
        require(is_zero(&bytes[ZERO]), "zero")?;
        let opening = Opening {
            uuid: array(bytes, UUID),
            align_shift: get_u16(bytes, ALIGN_SHIFT),
            features: get_u64(bytes, FEATURES),
            compat: get_u64(bytes, COMPAT),
            segment: get_u64(bytes, SEGMENT),
            salt: get_u64(bytes, SALT),
            sequence: get_u64(bytes, SEQUENCE),
            time: get_u64(bytes, TIME),
            pred: decode_pred(bytes)?,
            carry_len: get_u64(bytes, CARRY_LEN),
            carry_crc: get_u32(bytes, CARRY_CRC),
            floor: get_u64(bytes, FLOOR),
            len: get_u64(bytes, LEN),
            incarnation_next: get_u64(bytes, INCARNATION_NEXT),
        };
        opening.check()?;
        Ok(opening)
    }

    /// The opening's bytes, crc included.
    pub(crate) fn encode(&self) -> [u8; OPENING_LEN] {
        debug_assert_eq!(self.check(), Ok(()), "{self:?}");
        let pred = self.pred.unwrap_or(NO_PRED);
        let mut out = [0; OPENING_LEN];
        put(&mut out, MAGIC, MAGIC_BYTES);
        put(&mut out, VERSION_AT, VERSION.to_le_bytes());
        put(&mut out, ALIGN_SHIFT, self.align_shift.to_le_bytes());
        put(&mut out, FEATURES, self.features.to_le_bytes());
        put(&mut out, COMPAT, self.compat.to_le_bytes());
        put(&mut out, UUID, self.uuid);
        put(&mut out, SEGMENT, self.segment.to_le_bytes());
        put(&mut out, SALT, self.salt.to_le_bytes());
        put(&mut out, SEQUENCE, self.sequence.to_le_bytes());
        put(&mut out, TIME, self.time.to_le_bytes());
        put(&mut out, PRED_SEGMENT, pred.segment.to_le_bytes());
        put(&mut out, PRED_OFFSET, pred.offset.to_le_bytes());
        put(&mut out, PRED_SEQUENCE, pred.sequence.to_le_bytes());
        put(&mut out, PRED_CHAIN, pred.chain.to_le_bytes());
        put(&mut out, CARRY_CRC, self.carry_crc.to_le_bytes());
        put(&mut out, CARRY_LEN, self.carry_len.to_le_bytes());
        put(&mut out, FLOOR, self.floor.to_le_bytes());
        put(&mut out, LEN, self.len.to_le_bytes());
        put(&mut out, INCARNATION_NEXT, self.incarnation_next.to_le_bytes());
        let crc = crc32fast::hash(&out[CRC.end..]);
        put(&mut out, CRC, crc.to_le_bytes());
        out
    }

    /// The chain value that the first batch header of the segment names: the opening's crc.
    pub(crate) fn chain(&self) -> u32 {
        get_u32(&self.encode(), CRC)
    }

    /// Everything that holds for every opening that is written.
    fn check(&self) -> Result<(), Bad> {
        require(self.align_shift == 3 || self.align_shift == 12, "align_shift")?;
        require((1..=NUMBER_MAX).contains(&self.segment), "segment")?;
        require(self.salt != 0, "salt")?;
        require((1..=NUMBER_MAX).contains(&self.sequence), "sequence")?;
        require(self.floor <= self.segment, "floor")?;
        require(self.incarnation_next <= NUMBER_MAX, "incarnation_next")?;
        require((BATCHES_AT..=SEGMENT_LEN_MAX).contains(&self.len), "len")?;
        if let Some(pred) = self.pred {
            require((1..self.segment).contains(&pred.segment), "pred_segment")?;
            require(
                (BATCHES_AT..=SEGMENT_LEN_MAX).contains(&pred.offset),
                "pred_offset",
            )?;
            require((1..self.sequence).contains(&pred.sequence), "pred_sequence")?;
        }
        if self.carry_len == 0 {
            return require(self.carry_crc == 0, "carry_crc");
        }
        let carry = BATCH_HEADER_LEN as u64..=BATCH_LEN_MAX.min(self.len - BATCHES_AT);
        require(carry.contains(&self.carry_len), "carry_len")
    }
}

/// Appends the two blocks that begin a segment file: [`BATCHES_AT`] bytes, the opening twice, zeros between.
pub(crate) fn write_opening_blocks(opening: &Opening, out: &mut Vec<u8>) {
    let bytes = opening.encode();
    for copy in 0..2 {
        let start = out.len();
        if copy == 0 || !removed(Rule::SecondCopyIsWritten) {
            out.extend_from_slice(&bytes);
        }
        out.resize(start + BLOCK, 0);
    }
}

/// What the fields of the predecessor hold in a segment that has none.
const NO_PRED: End = End {
    segment: 0,
    offset: 0,
    sequence: 0,
    chain: 0,
};

fn decode_pred(bytes: &[u8; OPENING_LEN]) -> Result<Option<End>, Bad> {
    let pred = End {
        segment: get_u64(bytes, PRED_SEGMENT),
        offset: get_u64(bytes, PRED_OFFSET),
        sequence: get_u64(bytes, PRED_SEQUENCE),
        chain: get_u32(bytes, PRED_CHAIN),
    };
    if pred.segment != 0 {
        return Ok(Some(pred));
    }
    require(pred == NO_PRED, "pred_segment")?;
    Ok(None)
}
