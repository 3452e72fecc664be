//! Reading a segment in windows, and looking for batch headers behind a bad place.
//!
//! A header counts only if its crc holds and its segment id, its salt and its *own file offset* agree with the place it
//! was found at: bytes of a payload that happen to be a batch, even one copied out of this very file, are none.

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::{BATCH_HEADER_LEN, BatchHeader, Opening};
use crate::fs::File;
use crate::mutant::{Rule, removed};

/// How much is read at once where everything is read, and where only headers are.
pub(crate) const WINDOW_WHOLE: usize = 1 << 20;
pub(crate) const WINDOW_TABLES: usize = 128 << 10;

/// What a read error is narrowed down to.
const BLOCK: u64 = 4096;

/// A file read front to back through one buffer, which grows to the longest piece asked for.
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    path: &'a Path,
    len: u64,
    ahead: usize,
    start: u64,
    bytes: Vec<u8>,
    tolerant: bool,
    holes: Vec<Range<u64>>,
}

impl<'a> Window<'a> {
    /// A window on the first `len` bytes of `file`, reading `ahead` bytes at once. A tolerant one takes what cannot be
    /// read for zeros and remembers where that was; otherwise a read error ends it.
    pub(crate) fn new(
        file: &'a dyn File,
        path: &'a Path,
        len: u64,
        ahead: usize,
        tolerant: bool,
    ) -> Window<'a> {
        Window {
            file,
            path,
            len,
            ahead,
            start: 0,
            bytes: Vec::new(),
            tolerant,
            holes: Vec::new(),
        }
    }

    /// The `len` bytes at `at`; fewer only where the file ends.
    pub(crate) fn get(&mut self, at: u64, len: u64) -> Result<&[u8]> {
        let len = usize::try_from(len.min(self.len.saturating_sub(at))).unwrap_or(usize::MAX);
        let held = self.start + self.bytes.len() as u64;
        if at < self.start || at + len as u64 > held {
            self.fill(at, len)?;
        }
        let from = usize::try_from(at - self.start)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        Ok(&self.bytes[from..(from + len).min(self.bytes.len())])
    }

    /// Where reading failed within `range`, if it did.
    pub(crate) fn hole_in(&self, range: Range<u64>) -> Option<Range<u64>> {
        let hit = |hole: &&Range<u64>| hole.start < range.end && range.start < hole.end;
        self.holes.iter().find(hit).cloned()
    }

    fn fill(&mut self, at: u64, len: usize) -> Result<()> {
        let rest = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        self.bytes.clear();
        self.bytes.resize(len.max(self.ahead).min(rest), 0);
        self.start = at;
        if self.file.read_exact_at(&mut self.bytes, at).is_ok() {
            return Ok(());
        }
        if !self.tolerant {
            // What is read ahead is perhaps never asked for: payloads, if only headers are walked.
            self.bytes.truncate(len);
        }
        self.fill_by_blocks(at)
    }

    /// After a failed read: block by block, so that an error names its place and spoils nothing else.
    fn fill_by_blocks(&mut self, at: u64) -> Result<()> {
        let mut done = 0;
        while done < self.bytes.len() {
            let from = at + done as u64;
            let to_edge = usize::try_from(BLOCK - from % BLOCK).unwrap_or(1);
            let end = (done + to_edge).min(self.bytes.len());
            let piece = &mut self.bytes[done..end];
            if let Err(e) = self.file.read_exact_at(piece, from) {
                piece.fill(0);
                match self.tolerant {
                    _ if removed(Rule::UnreadableIsNoTear) => {}
                    true => self.holes.push(from..at + end as u64),
                    false => return Err(Error::io_at(self.path, from, "read", e)),
                }
            }
            done = end;
        }
        Ok(())
    }
}

/// What a header must say to be one of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    segment: u64,
    /// `None` while unknown: then the first valid header decides.
    salt: Option<u64>,
    align: u64,
    /// Sequence of the opening; 0 while unknown.
    opening: u64,
}

impl Identity {
    pub(crate) fn of(opening: &Opening) -> Identity {
        Identity {
            segment: opening.segment,
            salt: Some(opening.salt),
            align: 1 << opening.align_shift,
            opening: opening.sequence,
        }
    }

    /// Of a segment whose opening is lost.
    pub(crate) fn unknown(segment: u64) -> Identity {
        Identity {
            segment,
            salt: None,
            align: 8,
            opening: 0,
        }
    }

    /// What every batch is aligned to.
    pub(crate) fn align(&self) -> u64 {
        self.align
    }

    /// Whether `header`, found at `at`, belongs to the segment.
    pub(crate) fn accepts(&self, header: &BatchHeader, at: u64) -> bool {
        (header.segment == self.segment || removed(Rule::HeaderSegment))
            && (self.salt.is_none_or(|salt| salt == header.salt) || removed(Rule::HeaderSalt))
            && (header.offset == at || removed(Rule::HeaderOffset))
            && u64::from(header.len).is_multiple_of(self.align)
            && header.sequence > self.opening
            && (header.durable_through == 0
                || header.durable_through >= self.opening
                || removed(Rule::DurableThroughOfSegment))
    }
}

/// What a stretch of a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Valid headers.
    pub(crate) headers: u64,
    /// The highest durable-through, sequence and time that they name.
    pub(crate) durable_through: u64,
    pub(crate) sequence: u64,
    pub(crate) time: u64,
    /// Behind the last byte that is not zero; where the stretch begins if there is none.
    pub(crate) end: u64,
    /// The header that ended the search.
    pub(crate) stop: Option<BatchHeader>,
}

/// Looks through `range` of the window, which begins where a batch may begin, for headers of the segment. Ends early at
/// the first one whose sequence is `until` or more.
pub(crate) fn scan(
    window: &mut Window<'_>,
    mut identity: Identity,
    range: Range<u64>,
    until: Option<u64>,
) -> Result<Scanned> {
    let mut seen = Scanned {
        end: range.start,
        ..Scanned::default()
    };
    let mut at = range.start;
    while at < range.end && seen.stop.is_none() {
        let chunk = window.get(at, (WINDOW_WHOLE as u64).min(range.end - at))?;
        if chunk.is_empty() {
            break;
        }
        at = scan_chunk(chunk, at, &mut identity, until, &mut seen);
    }
    seen.end = seen.end.min(range.end.max(range.start));
    Ok(seen)
}

/// Looks through one chunk, at file offset `start`; returns the first offset that was not looked at.
fn scan_chunk(
    chunk: &[u8],
    start: u64,
    identity: &mut Identity,
    until: Option<u64>,
    seen: &mut Scanned,
) -> u64 {
    let after = start + chunk.len() as u64;
    if is_zero(chunk) {
        // Chunks begin and end at multiples of 8, and the first 8 bytes of a header are not all zero.
        return after;
    }
    let last = chunk.iter().rposition(|byte| *byte != 0).map_or(0, |n| n + 1);
    seen.end = seen.end.max(start + last as u64);
    let mut at = start;
    while at < after {
        let from = usize::try_from(at - start).unwrap_or(usize::MAX);
        let Some(bytes) = chunk.get(from..from + BATCH_HEADER_LEN) else {
            let whole = chunk.len() < WINDOW_WHOLE;
            return if whole || from == 0 { after } else { at };
        };
        at += match header_in(bytes, at, identity) {
            Some(header) => {
                seen.take(&header);
                if until.is_some_and(|until| header.sequence >= until) {
                    seen.stop = Some(header);
                    return at;
                }
                u64::from(header.len)
            }
            None => identity.align,
        };
    }
    at
}

/// The header of the segment that stands in `bytes`, which were read at `at`.
fn header_in(bytes: &[u8], at: u64, identity: &mut Identity) -> Option<BatchHeader> {
    if bytes[4..8] != *b"BTCH" {
        return None; // Only to be quick: decoding says the same.
    }
    let header = BatchHeader::decode(bytes)
        .ok()
        .filter(|header| identity.accepts(header, at))?;
    identity.salt = Some(header.salt);
    Some(header)
}

impl Scanned {
    /// Counts one more header.
    pub(crate) fn take(&mut self, header: &BatchHeader) {
        self.headers += 1;
        self.durable_through = self.durable_through.max(header.durable_through);
        self.sequence = self.sequence.max(header.sequence);
        self.time = self.time.max(header.time);
        self.end = self.end.max(header.end());
    }
}

/// Whether there is nothing but zeros; by folding, which compilers make fast.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(4096)
        .all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}
