//! Index file of a sealed segment: what its frames do, so that open reads this and not the segment, and where its
//! entries stand. Derived: whoever finds it missing or bad walks the segment instead, and may write it again.
//!
//! ```text
//! offset  size  field
//!      0     8  magic         "EVERLOGI"
//!      8     4  crc           over bytes 12.. to the end of the summary
//!     12     2  version       1
//!     14     2  zero          refused otherwise
//!     16     8  segment       id of the segment
//!     24     8  salt          of the segment
//!     32     8  end_offset    where the segment ends; offset, sequence and chain must agree with what its successor
//!     40     8  end_sequence  says, or the index is not believed
//!     48     4  end_chain
//!     52     4  summary_len
//!     56     4  ops           number of operations in the summary
//!     60     4  zero          refused otherwise
//!     64        summary: operations in journal order, packed
//!               blocks of the runs, packed, in the order of their runs
//!
//! Run: consecutive entries of one log. Stands in the order where its first frame stands. Frames of other logs and
//! cells may lie between its frames; any other frame of its log, or an entry that is not the next one, ends it.
//! offset  size  field
//!      0     1  op            1
//!      1     3  zero          refused otherwise
//!      4     4  count         entries, at least 1
//!      8     8  log
//!     16     8  incarnation
//!     24     8  first         index of the first entry
//!     32     8  digest        sum of the entries' digests (see `digest`)
//!     40     8  block_at      offset in this file of the run's block
//!     48     4  block_crc
//!     52     4  terms         number of term runs, at least 1
//!     56        term runs, 24 each: index of the first entry, 8; term, 16
//!
//! Frame: any other frame. Of several values of one cell only the last is here, in the place of the first.
//! offset  size  field
//!      0     1  op            2
//!      1     1  kind          as in the frame header, like the other fields of the same name
//!      2     1  cell
//!      3     1  zero          refused otherwise
//!      4     4  len           of the payload
//!      8     8  log
//!     16     8  incarnation
//!     24     8  index
//!     32    16  term
//!     48     8  header_at     offset of the frame header in the segment
//!     56     4  payload_crc
//!     60     4  payload_at
//!     64     4  inline        bytes of the payload that follow: `len` of them for Facts and Floor, otherwise 0
//!     68     4  zero          refused otherwise
//!     72        payload
//!
//! Block: 4 bytes for each entry of the run, in order: offset of its frame header in the segment, divided by 8.
//! ```

mod build;

use core::ops::Range;

use bytes::Bytes;

use crate::mutant::{Rule, removed};
use crate::types::{LogKey, Term, TermRun};

pub(crate) use build::IndexBuilder;

use super::field::{field, get_u16, get_u32, get_u64, get_u128, is_zero};
use super::{BATCHES_AT, Bad, End, Frame, Kind, NUMBER_MAX, SEGMENT_LEN_MAX, header_at, require};

const MAGIC: Range<usize> = field(0, 8);
const CRC: Range<usize> = field(MAGIC.end, 4);
const VERSION_AT: Range<usize> = field(CRC.end, 2);
const ZERO_1: Range<usize> = field(VERSION_AT.end, 2);
const SEGMENT: Range<usize> = field(ZERO_1.end, 8);
const SALT: Range<usize> = field(SEGMENT.end, 8);
const END_OFFSET: Range<usize> = field(SALT.end, 8);
const END_SEQUENCE: Range<usize> = field(END_OFFSET.end, 8);
const END_CHAIN: Range<usize> = field(END_SEQUENCE.end, 4);
const SUMMARY_LEN: Range<usize> = field(END_CHAIN.end, 4);
const OPS: Range<usize> = field(SUMMARY_LEN.end, 4);
const ZERO_2: Range<usize> = field(OPS.end, 4);

/// Bytes of the header of an index file.
pub(crate) const INDEX_HEADER_LEN: usize = ZERO_2.end;
const _: () = assert!(INDEX_HEADER_LEN == 64 && SUMMARY_LEN.start == 52); // the table above
const MAGIC_BYTES: [u8; 8] = *b"EVERLOGI";
const INDEX_VERSION: u16 = 1;

/// The fields of a run.
mod run {
    use super::{Range, field};

    pub(super) const OP: Range<usize> = field(0, 1);
    pub(super) const ZERO: Range<usize> = field(OP.end, 3);
    pub(super) const COUNT: Range<usize> = field(ZERO.end, 4);
    pub(super) const LOG: Range<usize> = field(COUNT.end, 8);
    pub(super) const INCARNATION: Range<usize> = field(LOG.end, 8);
    pub(super) const FIRST: Range<usize> = field(INCARNATION.end, 8);
    pub(super) const DIGEST: Range<usize> = field(FIRST.end, 8);
    pub(super) const BLOCK_AT: Range<usize> = field(DIGEST.end, 8);
    pub(super) const BLOCK_CRC: Range<usize> = field(BLOCK_AT.end, 4);
    pub(super) const TERMS: Range<usize> = field(BLOCK_CRC.end, 4);
    pub(super) const LEN: usize = TERMS.end;
    const _: () = assert!(LEN == 56); // the table above

    pub(super) const TERM_FIRST: Range<usize> = field(0, 8);
    pub(super) const TERM: Range<usize> = field(TERM_FIRST.end, 16);
    pub(super) const TERM_LEN: usize = TERM.end;
    const _: () = assert!(TERM_LEN == 24); // the table above
}

/// The fields of any other frame.
mod other {
    use super::{Range, field};

    pub(super) const OP: Range<usize> = field(0, 1);
    pub(super) const KIND: Range<usize> = field(OP.end, 1);
    pub(super) const CELL: Range<usize> = field(KIND.end, 1);
    pub(super) const ZERO_1: Range<usize> = field(CELL.end, 1);
    pub(super) const PAYLOAD_LEN: Range<usize> = field(ZERO_1.end, 4);
    pub(super) const LOG: Range<usize> = field(PAYLOAD_LEN.end, 8);
    pub(super) const INCARNATION: Range<usize> = field(LOG.end, 8);
    pub(super) const INDEX: Range<usize> = field(INCARNATION.end, 8);
    pub(super) const TERM: Range<usize> = field(INDEX.end, 16);
    pub(super) const HEADER_AT: Range<usize> = field(TERM.end, 8);
    pub(super) const PAYLOAD_CRC: Range<usize> = field(HEADER_AT.end, 4);
    pub(super) const PAYLOAD_AT: Range<usize> = field(PAYLOAD_CRC.end, 4);
    pub(super) const INLINE: Range<usize> = field(PAYLOAD_AT.end, 4);
    pub(super) const ZERO_2: Range<usize> = field(INLINE.end, 4);
    pub(super) const LEN: usize = ZERO_2.end;
    const _: () = assert!(LEN == 72 && HEADER_AT.start == 48); // the table above
}

const OP_RUN: u8 = 1;
const OP_FRAME: u8 = 2;
const PLACE_LEN: usize = 4;

/// A verified summary of a segment's index file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub segment: u64,
    pub salt: u64,
    /// Where the segment ended for whoever wrote the index.
    pub end: End,
    /// Length of the whole file, blocks included.
    pub file_len: u64,
    pub ops: Vec<IndexOp>,
}

/// An operation of a summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IndexOp {
    Run(IndexRun),
    Frame {
        frame: Frame,
        header_at: u64,
        /// Of Facts and Floor.
        payload: Option<Bytes>,
    },
}

/// Consecutive entries of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexRun {
    pub log: LogKey,
    pub incarnation: u64,
    pub first: u64,
    pub count: u32,
    pub digest: u64,
    /// At least one; the first begins at `first`, all below `first + count`, neighbours differ.
    pub terms: Vec<TermRun>,
    /// Offset in the index file of the block, which is `4 * count` bytes long.
    pub block_at: u64,
    pub block_crc: u32,
}

impl IndexRun {
    /// Bytes of the run's block.
    pub(crate) fn block_len(&self) -> u64 {
        u64::from(self.count) * PLACE_LEN as u64
    }
}

impl Index {
    /// Bytes of header and summary together, as the header at the start of `bytes` says. It is not verified yet: see
    /// that the file is as long before reading so much.
    pub(crate) fn summary_end(bytes: &[u8]) -> Result<u64, Bad> {
        let header: &[u8; INDEX_HEADER_LEN] = bytes.first_chunk().ok_or(Bad::Short)?;
        if header[MAGIC] != MAGIC_BYTES {
            return Err(if is_zero(header) { Bad::Blank } else { Bad::Magic });
        }
        Ok(INDEX_HEADER_LEN as u64 + u64::from(get_u32(header, SUMMARY_LEN)))
    }

    /// Reads and checks header and summary; `bytes` may go on behind them.
    pub(crate) fn decode_summary(bytes: &[u8]) -> Result<Index, Bad> {
        let end = usize::try_from(Index::summary_end(bytes)?).map_err(|_| Bad::Short)?;
        let bytes = bytes.get(..end).ok_or(Bad::Short)?;
        let sound = crc32fast::hash(&bytes[CRC.end..]) == get_u32(bytes, CRC);
        if !sound && !removed(Rule::IndexCrc) {
            return Err(Bad::Crc);
        }
        let version = get_u16(bytes, VERSION_AT);
        if version != INDEX_VERSION {
            return Err(Bad::Version(version));
        }
        require(is_zero(&bytes[ZERO_1]) && is_zero(&bytes[ZERO_2]), "zero")?;
        let segment = get_u64(bytes, SEGMENT);
        let mut index = Index {
            segment,
            salt: get_u64(bytes, SALT),
            end: End {
                segment,
                offset: get_u64(bytes, END_OFFSET),
                sequence: get_u64(bytes, END_SEQUENCE),
                chain: get_u32(bytes, END_CHAIN),
            },
            file_len: end as u64,
            ops: Vec::new(),
        };
        require((1..=NUMBER_MAX).contains(&segment), "segment")?;
        require(index.salt != 0, "salt")?;
        require(
            (BATCHES_AT..=SEGMENT_LEN_MAX).contains(&index.end.offset),
            "end_offset",
        )?;
        require((1..=NUMBER_MAX).contains(&index.end.sequence), "end_sequence")?;
        index.decode_ops(get_u32(bytes, OPS), &bytes[INDEX_HEADER_LEN..])?;
        Ok(index)
    }

    fn decode_ops(&mut self, count: u32, mut rest: &[u8]) -> Result<(), Bad> {
        let count = usize::try_from(count).map_err(|_| Bad::Field("ops"))?;
        require(count <= rest.len() / run::LEN.min(other::LEN), "ops")?;
        self.ops.reserve_exact(count);
        for _ in 0..count {
            let op = match rest.first() {
                Some(&OP_RUN) => IndexOp::Run(self.decode_run(&mut rest)?),
                Some(&OP_FRAME) => self.decode_other(&mut rest)?,
                _ => return Err(Bad::Field("op")),
            };
            self.ops.push(op);
        }
        require(rest.is_empty(), "summary_len")
    }

    /// Takes a run off `rest`; its block is the next one of the file.
    fn decode_run(&mut self, rest: &mut &[u8]) -> Result<IndexRun, Bad> {
        let bytes = take(rest, run::LEN)?;
        require(is_zero(&bytes[run::ZERO]), "zero")?;
        let mut run = IndexRun {
            log: LogKey(get_u64(bytes, run::LOG)),
            incarnation: get_u64(bytes, run::INCARNATION),
            first: get_u64(bytes, run::FIRST),
            count: get_u32(bytes, run::COUNT),
            digest: get_u64(bytes, run::DIGEST),
            terms: Vec::new(),
            block_at: get_u64(bytes, run::BLOCK_AT),
            block_crc: get_u32(bytes, run::BLOCK_CRC),
        };
        let end = run
            .first
            .checked_add(u64::from(run.count))
            .ok_or(Bad::Field("count"))?;
        require(run.count > 0, "count")?;
        require(run.incarnation <= NUMBER_MAX, "incarnation")?;
        require(run.block_at == self.file_len, "block_at")?;
        self.file_len += run.block_len();

        let terms = usize::try_from(get_u32(bytes, run::TERMS)).map_err(|_| Bad::Field("terms"))?;
        let bytes = take(rest, terms.saturating_mul(run::TERM_LEN))?;
        run.terms.reserve_exact(terms);
        for bytes in bytes.chunks_exact(run::TERM_LEN) {
            let next = TermRun {
                first: get_u64(bytes, run::TERM_FIRST),
                term: Term(get_u128(bytes, run::TERM)),
            };
            let follows = match run.terms.last() {
                None => next.first == run.first,
                Some(last) => next.first > last.first && next.first < end && next.term != last.term,
            };
            require(follows, "terms")?;
            run.terms.push(next);
        }
        require(!run.terms.is_empty(), "terms")?;
        Ok(run)
    }

    /// Takes any other frame off `rest`.
    fn decode_other(&self, rest: &mut &[u8]) -> Result<IndexOp, Bad> {
        let bytes = take(rest, other::LEN)?;
        require(
            is_zero(&bytes[other::ZERO_1]) && is_zero(&bytes[other::ZERO_2]),
            "zero",
        )?;
        let frame = Frame {
            kind: Kind::from_u8(bytes[other::KIND.start]).ok_or(Bad::Field("kind"))?,
            cell: bytes[other::CELL.start],
            log: LogKey(get_u64(bytes, other::LOG)),
            incarnation: get_u64(bytes, other::INCARNATION),
            index: get_u64(bytes, other::INDEX),
            term: Term(get_u128(bytes, other::TERM)),
            len: get_u32(bytes, other::PAYLOAD_LEN),
            payload_crc: get_u32(bytes, other::PAYLOAD_CRC),
            payload_at: get_u32(bytes, other::PAYLOAD_AT),
        };
        frame.check()?;
        require(frame.kind != Kind::Append, "kind")?;
        let at = get_u64(bytes, other::HEADER_AT);
        let first = header_at(BATCHES_AT, 0);
        require(
            (first..self.end.offset).contains(&at) && at.is_multiple_of(8),
            "header_at",
        )?;
        let inline = get_u32(bytes, other::INLINE);
        let expected = if is_inline(frame.kind) { frame.len } else { 0 };
        require(inline == expected, "inline")?;
        let mut payload = None;
        if is_inline(frame.kind) {
            let bytes = take(rest, usize::try_from(inline).map_err(|_| Bad::Field("inline"))?)?;
            frame.check_payload(bytes)?;
            payload = Some(Bytes::copy_from_slice(bytes));
        }
        Ok(IndexOp::Frame {
            frame,
            header_at: at,
            payload,
        })
    }
}

/// Reads and checks the block of a run: `bytes` are just those of the block, `crc` and `count` stand in the summary.
/// The places are those of [`header_of`], in rising order.
pub(crate) fn decode_block(bytes: &[u8], crc: u32, count: u32) -> Result<Vec<u32>, Bad> {
    if bytes.len() as u64 != u64::from(count) * PLACE_LEN as u64 {
        return Err(Bad::Short);
    }
    if crc32fast::hash(bytes) != crc && !removed(Rule::BlockCrc) {
        return Err(Bad::Crc);
    }
    let places: Vec<u32> = bytes
        .chunks_exact(PLACE_LEN)
        .map(|place| get_u32(place, field(0, PLACE_LEN)))
        .collect();
    require(
        places
            .first()
            .is_none_or(|place| header_of(*place) >= header_at(BATCHES_AT, 0)),
        "place",
    )?;
    require(places.is_sorted_by(|a, b| a < b), "place")?;
    Ok(places)
}

/// A position of a frame header in a segment in 4 bytes: its offset divided by 8.
pub(crate) fn place_of(header_at: u64) -> u32 {
    debug_assert!(header_at.is_multiple_of(8), "{header_at}");
    u32::try_from(header_at / 8).expect("no segment is longer than SEGMENT_LEN_MAX")
}

/// The offset of the frame header at `place`.
pub(crate) fn header_of(place: u32) -> u64 {
    u64::from(place) * 8
}

/// Whether the payload stands in the summary: it is small, and replay needs it.
fn is_inline(kind: Kind) -> bool {
    matches!(kind, Kind::Facts | Kind::Floor)
}

/// Takes `len` bytes off the front of `rest`.
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Bad> {
    let (taken, left) = rest.split_at_checked(len).ok_or(Bad::Field("summary_len"))?;
    *rest = left;
    Ok(taken)
}
