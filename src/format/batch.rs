//! Batch: what one flush makes durable. A header that verifies alone, the frame headers and their terms under a second
//! crc, then the payloads, each under the crc in its frame header.
//!
//! ```text
//! offset  size  field
//!      0     4  crc              over bytes 4..96
//!      4     4  magic            "BTCH"
//!      8     8  segment          id of the segment
//!     16     8  salt             of the segment
//!     24     8  offset           own file offset
//!     32     8  sequence         one more than that of the batch, or the opening, before
//!     40     8  durable_through  a sequence of this segment below the own one; 0: nothing of it is proven
//!     48     8  time             microseconds since 1970; never falls
//!     56     4  len              of the whole batch with its padding, a multiple of the alignment
//!     60     4  frames           number of frames
//!     64     4  chain            crc of the batch header before, or of the opening: chains all headers
//!     68     4  frames_crc       over the frame headers and the term table
//!     72     2  terms            entries of the term table
//!     74     1  flags            see `Flags`; others refused
//!     75     1  codec            0 = plain, others refused
//!     76     4  payload_len      sum of the payloads' lengths
//!     80    16  key_id           zero (reserved for encryption), refused otherwise
//!     96        frame headers, 48 bytes each (module `frame`)
//!               term table, 16 bytes each: a term, never 0
//!               payloads in the order of their frames, without gaps
//!               zeros up to a multiple of the alignment; in a SKIP, up to the next multiple of 4096
//! ```

use core::ops::{BitOr, Range};

use crate::mutant::{Rule, removed};
use crate::types::Term;

use super::field::{field, get_u16, get_u32, get_u64, get_u128, is_zero, put};
use super::frame::{SLOT_NONE, Seed, set_slot, slot};
use super::{BATCHES_AT, Bad, FRAME_HEADER_LEN, Frame, FrameSpec, NUMBER_MAX, SEGMENT_LEN_MAX, require};

const CRC: Range<usize> = field(0, 4);
const MAGIC: Range<usize> = field(CRC.end, 4);
const SEGMENT: Range<usize> = field(MAGIC.end, 8);
const SALT: Range<usize> = field(SEGMENT.end, 8);
const OFFSET: Range<usize> = field(SALT.end, 8);
const SEQUENCE: Range<usize> = field(OFFSET.end, 8);
const DURABLE_THROUGH: Range<usize> = field(SEQUENCE.end, 8);
const TIME: Range<usize> = field(DURABLE_THROUGH.end, 8);
const LEN: Range<usize> = field(TIME.end, 4);
const FRAMES: Range<usize> = field(LEN.end, 4);
const CHAIN: Range<usize> = field(FRAMES.end, 4);
const FRAMES_CRC: Range<usize> = field(CHAIN.end, 4);
const TERMS: Range<usize> = field(FRAMES_CRC.end, 2);
const FLAGS: Range<usize> = field(TERMS.end, 1);
const CODEC: Range<usize> = field(FLAGS.end, 1);
const PAYLOAD_LEN: Range<usize> = field(CODEC.end, 4);
const KEY_ID: Range<usize> = field(PAYLOAD_LEN.end, 16);

/// Bytes of a batch header.
pub(crate) const BATCH_HEADER_LEN: usize = KEY_ID.end;
const _: () = assert!(BATCH_HEADER_LEN == 96 && LEN.start == 56 && KEY_ID.start == 80); // the table above
const _: () = assert!(BATCH_HEADER_LEN.is_multiple_of(8)); // positions of frame headers are kept divided by 8

/// Bytes of an entry of the term table.
pub(crate) const TERM_LEN: usize = 16;
/// Most entries of a term table: slot 0xffff stands for term 0.
pub(crate) const TERMS_MAX: usize = SLOT_NONE as usize;
/// Longest batch, with its padding.
pub(crate) const BATCH_LEN_MAX: u64 = (1 << 32) - 4096;

/// A mark that shall not share a sector with what it bears witness to begins at a multiple of this.
const BLOCK: u64 = 4096;
const MAGIC_BYTES: [u8; 4] = *b"BTCH";

/// What is special about a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub u8);

impl Flags {
    /// An ordinary batch.
    pub(crate) const NONE: Flags = Flags(0);
    /// No frames: a witness, for its durable-through only.
    pub(crate) const MARK: Flags = Flags(1);
    /// A mark written by close.
    pub(crate) const CLOSING: Flags = Flags(1 << 1);
    /// No frames: fills up to the next block of 4096, so that a mark has its own.
    pub(crate) const SKIP: Flags = Flags(1 << 2);
    /// The frames that an opening carries; stands at [`BATCHES_AT`].
    pub(crate) const CARRY: Flags = Flags(1 << 3);

    const KNOWN: u8 = 0b1111;

    /// Whether every flag of `other` is set.
    pub(crate) fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a batch with these flags has no frames.
    pub(crate) fn is_empty_batch(self) -> bool {
        self.has(Flags::MARK) || self.has(Flags::SKIP)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A decoded batch header; the fields are those of the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub crc: u32,
    pub segment: u64,
    pub salt: u64,
    pub offset: u64,
    pub sequence: u64,
    pub durable_through: u64,
    pub time: u64,
    pub len: u32,
    pub frames: u32,
    pub chain: u32,
    pub frames_crc: u32,
    pub terms: u16,
    pub flags: Flags,
    pub payload_len: u32,
}

impl BatchHeader {
    /// Reads and checks the header at the start of `bytes`. Whether id, salt, offset, sequence, chain and alignment
    /// are the expected ones is for the caller to say.
    pub(crate) fn decode(bytes: &[u8]) -> Result<BatchHeader, Bad> {
        let bytes: &[u8; BATCH_HEADER_LEN] = bytes.first_chunk().ok_or(Bad::Short)?;
        if bytes[MAGIC] != MAGIC_BYTES {
            return Err(if is_zero(bytes) { Bad::Blank } else { Bad::Magic });
        }
        let crc = get_u32(bytes, CRC);
        if crc32fast::hash(&bytes[CRC.end..]) != crc && !removed(Rule::HeaderCrc) {
            return Err(Bad::Crc);
        }
        require(bytes[CODEC.start] == 0, "codec")?;
        require(is_zero(&bytes[KEY_ID]), "key_id")?;
        let header = BatchHeader {
            crc,
            segment: get_u64(bytes, SEGMENT),
            salt: get_u64(bytes, SALT),
            offset: get_u64(bytes, OFFSET),
            sequence: get_u64(bytes, SEQUENCE),
            durable_through: get_u64(bytes, DURABLE_THROUGH),
            time: get_u64(bytes, TIME),
            len: get_u32(bytes, LEN),
            frames: get_u32(bytes, FRAMES),
            chain: get_u32(bytes, CHAIN),
            frames_crc: get_u32(bytes, FRAMES_CRC),
            terms: get_u16(bytes, TERMS),
            flags: Flags(bytes[FLAGS.start]),
            payload_len: get_u32(bytes, PAYLOAD_LEN),
        };
        header.check()?;
        Ok(header)
    }

    /// The header's bytes with a fresh crc; the field `crc` is not looked at.
    pub(crate) fn encode(&self) -> [u8; BATCH_HEADER_LEN] {
        debug_assert_eq!(self.check(), Ok(()), "{self:?}");
        let mut out = [0; BATCH_HEADER_LEN];
        put(&mut out, MAGIC, MAGIC_BYTES);
        put(&mut out, SEGMENT, self.segment.to_le_bytes());
        put(&mut out, SALT, self.salt.to_le_bytes());
        put(&mut out, OFFSET, self.offset.to_le_bytes());
        put(&mut out, SEQUENCE, self.sequence.to_le_bytes());
        put(&mut out, DURABLE_THROUGH, self.durable_through.to_le_bytes());
        put(&mut out, TIME, self.time.to_le_bytes());
        put(&mut out, LEN, self.len.to_le_bytes());
        put(&mut out, FRAMES, self.frames.to_le_bytes());
        put(&mut out, CHAIN, self.chain.to_le_bytes());
        put(&mut out, FRAMES_CRC, self.frames_crc.to_le_bytes());
        put(&mut out, TERMS, self.terms.to_le_bytes());
        put(&mut out, FLAGS, [self.flags.0]);
        put(&mut out, PAYLOAD_LEN, self.payload_len.to_le_bytes());
        let crc = crc32fast::hash(&out[CRC.end..]);
        put(&mut out, CRC, crc.to_le_bytes());
        out
    }

    /// File offset behind the batch and its padding.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }

    /// Bytes of the frame headers and the term table, which stand behind the header; below `len` in a header that was
    /// decoded.
    pub(crate) fn tables_len(&self) -> usize {
        usize::try_from(self.tables()).unwrap_or(usize::MAX)
    }

    /// File offset of the first payload.
    pub(crate) fn payloads_at(&self) -> u64 {
        self.offset
            .saturating_add(BATCH_HEADER_LEN as u64 + self.tables())
    }

    fn tables(&self) -> u64 {
        u64::from(self.frames) * FRAME_HEADER_LEN as u64 + u64::from(self.terms) * TERM_LEN as u64
    }

    /// Everything that holds for every header that is written.
    fn check(&self) -> Result<(), Bad> {
        require((1..=NUMBER_MAX).contains(&self.segment), "segment")?;
        require(self.salt != 0, "salt")?;
        let placed = (BATCHES_AT..=SEGMENT_LEN_MAX).contains(&self.offset) && self.offset.is_multiple_of(8);
        require(placed && self.end() <= SEGMENT_LEN_MAX, "offset")?;
        require((2..=NUMBER_MAX).contains(&self.sequence), "sequence")?;
        require(self.durable_through < self.sequence, "durable_through")?;
        require(u32::from(self.terms) <= self.frames, "terms")?;
        self.check_flags()?;
        let used = BATCH_HEADER_LEN as u64 + self.tables() + u64::from(self.payload_len);
        let len = u64::from(self.len);
        let padded = if self.flags.has(Flags::SKIP) {
            len == skip_len(self.offset)
        } else {
            len == used.next_multiple_of(8) || len == used.next_multiple_of(BLOCK)
        };
        require(padded, "len")
    }

    fn check_flags(&self) -> Result<(), Bad> {
        let flags = self.flags;
        let known = flags.0 & !Flags::KNOWN == 0;
        let closing = !flags.has(Flags::CLOSING) || flags.has(Flags::MARK);
        let one_kind = [Flags::MARK, Flags::SKIP, Flags::CARRY]
            .iter()
            .filter(|flag| flags.has(**flag))
            .count()
            <= 1;
        let carry = !flags.has(Flags::CARRY) || self.offset == BATCHES_AT;
        require(known && closing && one_kind && carry, "flags")?;
        require(flags.is_empty_batch() == (self.frames == 0), "frames")?;
        require(self.frames != 0 || self.payload_len == 0, "payload_len")
    }
}

/// What the header of a batch to be written says beside its frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSpec {
    pub segment: u64,
    pub salt: u64,
    pub offset: u64,
    pub sequence: u64,
    pub durable_through: u64,
    pub time: u64,
    pub chain: u32,
    pub flags: Flags,
    pub align_shift: u16,
}

/// Appends one encoded batch to `out` and returns its header. The header of frame `i` stands at [`header_at`].
///
/// The caller has seen to the bounds, since nothing can be refused here: [`batch_len`] is at most [`BATCH_LEN_MAX`],
/// [`term_changes`] at most [`TERMS_MAX`].
pub(crate) fn encode_batch(spec: &BatchSpec, frames: &[FrameSpec<'_>], out: &mut Vec<u8>) -> BatchHeader {
    let start = out.len();
    let payload_bytes: u64 = frames.iter().map(|frame| frame.payload.len() as u64).sum();
    let changes = term_changes(frames.iter().map(|frame| frame.term));
    let bound = batch_len(frames.len(), changes, payload_bytes, spec.align_shift);
    assert!(bound <= BATCH_LEN_MAX, "a batch of {bound} bytes was let in");
    out.reserve(usize::try_from(bound).unwrap_or(0));

    out.resize(start + BATCH_HEADER_LEN + frames.len() * FRAME_HEADER_LEN, 0);
    let terms = write_terms(frames, start, out);
    let tables_end = out.len();
    write_frames(spec.salt, frames, start, out);
    let frames_crc = crc32fast::hash(&out[start + BATCH_HEADER_LEN..tables_end]);

    let used = (out.len() - start) as u64;
    let len = match spec.flags.has(Flags::SKIP) {
        true => skip_len(spec.offset),
        false => used.next_multiple_of(1 << spec.align_shift),
    };
    out.resize(out.len() + usize::from(small::<u16>(len - used)), 0);
    let mut header = BatchHeader {
        crc: 0,
        segment: spec.segment,
        salt: spec.salt,
        offset: spec.offset,
        sequence: spec.sequence,
        durable_through: spec.durable_through,
        time: spec.time,
        len: small(len),
        frames: small(frames.len() as u64),
        chain: spec.chain,
        frames_crc,
        terms,
        flags: spec.flags,
        payload_len: small(payload_bytes),
    };
    let bytes = header.encode();
    out[start..start + BATCH_HEADER_LEN].copy_from_slice(&bytes);
    header.crc = get_u32(&bytes, CRC);
    header
}

/// Appends the term table, and notes in each frame header, so far blank, the slot of its term. A term is looked for
/// among the last few only: enough for many logs with few terms, and never slower than the bytes that it would save.
fn write_terms(frames: &[FrameSpec<'_>], start: usize, out: &mut Vec<u8>) -> u16 {
    let table_at = out.len();
    let mut last = (Term(0), SLOT_NONE);
    for (i, frame) in frames.iter().enumerate() {
        if frame.term != last.0 {
            last = (frame.term, find_or_add(frame.term, table_at, out));
        }
        let header = start + BATCH_HEADER_LEN + i * FRAME_HEADER_LEN;
        set_slot(&mut out[header..header + FRAME_HEADER_LEN], last.1);
    }
    small(((out.len() - table_at) / TERM_LEN) as u64)
}

/// The slot of `term`, which is added to the table at the end of `out` if the last few entries do not have it.
fn find_or_add(term: Term, table_at: usize, out: &mut Vec<u8>) -> u16 {
    const LOOK_BACK: usize = 16;
    if term == Term(0) {
        return SLOT_NONE;
    }
    let bytes = term.0.to_le_bytes();
    let entries = (out.len() - table_at) / TERM_LEN;
    let mut recent = out[table_at..].rchunks_exact(TERM_LEN).take(LOOK_BACK);
    match recent.position(|entry| entry == bytes) {
        Some(back) => small((entries - 1 - back) as u64),
        None => {
            out.extend_from_slice(&bytes);
            small(entries as u64)
        }
    }
}

/// Writes the frame headers over the slots that [`write_terms`] left, and appends the payloads.
fn write_frames(salt: u64, frames: &[FrameSpec<'_>], start: usize, out: &mut Vec<u8>) {
    let mut seed = (Term(0), Seed::new(salt, Term(0)));
    for (i, spec) in frames.iter().enumerate() {
        if spec.term != seed.0 {
            seed = (spec.term, Seed::new(salt, spec.term));
        }
        let at = start + BATCH_HEADER_LEN + i * FRAME_HEADER_LEN;
        let frame = Frame {
            kind: spec.kind,
            cell: spec.cell,
            log: spec.log,
            incarnation: spec.incarnation,
            index: spec.index,
            term: spec.term,
            len: small(spec.payload.len() as u64),
            payload_crc: spec.payload_crc,
            payload_at: small((out.len() - at) as u64),
        };
        let header = &mut out[at..at + FRAME_HEADER_LEN];
        let slot = slot(header);
        header.copy_from_slice(&frame.encode(&seed.1, slot));
        out.extend_from_slice(spec.payload);
    }
}

/// A number that the bound on a batch keeps small.
fn small<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number)
        .ok()
        .expect("bounded by BATCH_LEN_MAX and TERMS_MAX")
}

/// Bytes of a batch with its padding: exact if `terms` is the number of table entries, an upper bound if it is
/// [`term_changes`]. Not for a SKIP.
pub(crate) fn batch_len(frames: usize, terms: usize, payload_bytes: u64, align_shift: u16) -> u64 {
    let headers = (frames as u64).saturating_mul(FRAME_HEADER_LEN as u64);
    let table = (terms as u64).saturating_mul(TERM_LEN as u64);
    let used = (BATCH_HEADER_LEN as u64)
        .saturating_add(headers)
        .saturating_add(table)
        .saturating_add(payload_bytes);
    used.checked_next_multiple_of(1 << align_shift)
        .unwrap_or(u64::MAX)
}

/// Bytes of a SKIP that begins at `offset`.
pub(crate) fn skip_len(offset: u64) -> u64 {
    offset
        .saturating_add(BATCH_HEADER_LEN as u64)
        .next_multiple_of(BLOCK)
        - offset
}

/// File offset of the header of frame `i` of the batch at `offset`.
pub(crate) fn header_at(offset: u64, i: usize) -> u64 {
    offset + (BATCH_HEADER_LEN + i * FRAME_HEADER_LEN) as u64
}

/// How often the term of a frame is not 0 and not that of the frame before: a bound on the entries of the term table.
/// It adds up over the parts of a batch.
pub(crate) fn term_changes(terms: impl IntoIterator<Item = Term>) -> usize {
    let mut last = Term(0);
    let mut changes = 0;
    for term in terms {
        changes += usize::from(term != last && term != Term(0));
        last = term;
    }
    changes
}

/// Decodes the frame headers of a batch; `tables` begins behind its header. Everything is checked but the payloads
/// themselves: both crcs, every field, and that the payloads lie packed in the batch in the order of their frames.
pub(crate) fn decode_tables(header: &BatchHeader, tables: &[u8]) -> Result<Vec<Frame>, Bad> {
    let tables = Tables::new(header, tables)?;
    tables.check_whole(header)?;
    let mut frames = Vec::with_capacity(tables.frames.len());
    let mut payload_at = header.payloads_at();
    for (i, frame) in tables.decode().enumerate() {
        let frame = frame?;
        require(
            frame.payload_offset(header_at(header.offset, i)) == payload_at,
            "payload_at",
        )?;
        payload_at += u64::from(frame.len);
        frames.push(frame);
    }
    let payload_len = payload_at - header.payloads_at();
    require(payload_len == u64::from(header.payload_len), "payload_len")?;
    Ok(frames)
}

/// The same for a batch whose tables are damaged: each frame header that verifies alone and has its payload in the
/// batch, and what is wrong with each of the others.
pub(crate) fn decode_each(header: &BatchHeader, tables: &[u8]) -> Result<Vec<Result<Frame, Bad>>, Bad> {
    let tables = Tables::new(header, tables)?;
    let first = header.payloads_at();
    let payloads = first..=first.saturating_add(u64::from(header.payload_len));
    let check = |(i, frame): (usize, Result<Frame, Bad>)| {
        let frame = frame?;
        let at = frame.payload_offset(header_at(header.offset, i));
        let inside = payloads.contains(&at) && payloads.contains(&(at + u64::from(frame.len)));
        require(inside, "payload_at")?;
        Ok(frame)
    };
    Ok(tables.decode().enumerate().map(check).collect())
}

/// The bytes between a batch header and the payloads.
struct Tables<'a> {
    salt: u64,
    whole: &'a [u8],
    frames: &'a [[u8; FRAME_HEADER_LEN]],
    terms: &'a [[u8; TERM_LEN]],
}

impl<'a> Tables<'a> {
    /// Nothing is longer than `bytes`, whatever `header` says.
    fn new(header: &BatchHeader, bytes: &'a [u8]) -> Result<Tables<'a>, Bad> {
        let whole = bytes.get(..header.tables_len()).ok_or(Bad::Short)?;
        let terms_len = usize::from(header.terms) * TERM_LEN;
        let (frames, terms) = whole.split_at(whole.len() - terms_len);
        Ok(Tables {
            salt: header.salt,
            whole,
            frames: frames.as_chunks().0,
            terms: terms.as_chunks().0,
        })
    }

    fn check_whole(&self, header: &BatchHeader) -> Result<(), Bad> {
        if crc32fast::hash(self.whole) != header.frames_crc && !removed(Rule::TablesCrc) {
            return Err(Bad::Crc);
        }
        require(self.terms.iter().all(|term| !is_zero(term)), "term table")
    }

    fn decode(&self) -> impl Iterator<Item = Result<Frame, Bad>> {
        let mut last = (SLOT_NONE, Term(0), Seed::new(self.salt, Term(0)));
        self.frames.iter().map(move |bytes| {
            let slot = slot(bytes);
            if slot != last.0 {
                let term = self.term(slot)?;
                last = (slot, term, Seed::new(self.salt, term));
            }
            Frame::decode(&last.2, last.1, bytes)
        })
    }

    fn term(&self, slot: u16) -> Result<Term, Bad> {
        if slot == SLOT_NONE {
            return Ok(Term(0));
        }
        let bytes = self.terms.get(usize::from(slot)).ok_or(Bad::Field("term"))?;
        Ok(Term(get_u128(bytes, field(0, TERM_LEN))))
    }
}
