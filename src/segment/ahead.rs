//! Entry after entry, through windows of the file.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::cache::{BlockCache, nth};
use super::read::{Wanted, part_of, verified};
use crate::error::{Error, ErrorKind, Result};
use crate::format::FrameDecoder;
use crate::mutant::{Rule, removed};
use crate::segment::{BlockRef, Segment, Slot};
use crate::sync::Arc;

/// Read at once by whoever wants one entry: a small one comes with its header.
const FIRST_READ: u64 = 4096;
/// Read at once by whoever reads on, at first.
const READ_AHEAD: u64 = 64 << 10;
/// A window that goes on where another ends is twice as large, up to so many times the first.
const GROWTH: u64 = 4;
/// However few bytes are expected.
const EXPECTED_MIN: u64 = 16 << 10;
/// Of so many lent windows the memory is waited for.
const LENT_MAX: usize = 32;

/// Reads entry after entry. The headers of a batch stand together in front of their payloads, which may be far: so there
/// are two windows, and what either of them holds is not read again.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    headers: Window,
    payloads: Window,
    /// Windows of which somebody held a part when others were read: their memory serves again once nobody holds it.
    lent: VecDeque<Bytes>,
    /// The block of offsets that was used last.
    pub(super) block: Option<Held>,
    /// Bytes that were read into all windows so far.
    loaded: u64,
    /// Memory of all windows so far.
    taken: u64,
    /// How many more bytes will be asked for, as far as that is known.
    pub(super) expected: u64,
    /// Those of the last entry.
    pub(super) usual_len: u64,
    /// That of the last run of entries.
    pub(super) decoder: Option<FrameDecoder>,
}

/// What is looked for, and so the window into which it is read.
#[derive(Clone, Copy)]
pub(super) enum Which {
    Headers,
    Payloads,
}

#[cfg(test)]
impl ReadAhead {
    /// How long the longer window is.
    pub(super) fn window(&self) -> usize {
        self.headers.filled.max(self.payloads.filled)
    }

    /// How many windows are kept because somebody held a part of them, and the memory of all.
    pub(super) fn kept(&self) -> (usize, usize) {
        let lent = self.lent.iter().map(Bytes::len);
        let bytes = lent.sum::<usize>() + self.headers.bytes.len() + self.payloads.bytes.len();
        (self.lent.len(), bytes)
    }
}

#[derive(Debug)]
pub(super) struct Held {
    segment: u64,
    block: BlockRef,
    pub(super) eighths: Arc<[u32]>,
}

impl ReadAhead {
    pub(crate) fn new() -> ReadAhead {
        ReadAhead::of(READ_AHEAD, READ_AHEAD)
    }

    pub(super) fn of_one() -> ReadAhead {
        ReadAhead::of(FIRST_READ, 0)
    }

    /// With windows of so many bytes.
    pub(super) fn of(headers: u64, payloads: u64) -> ReadAhead {
        ReadAhead {
            headers: Window::new(headers),
            payloads: Window::new(payloads),
            lent: VecDeque::new(),
            block: None,
            loaded: 0,
            taken: 0,
            expected: u64::MAX,
            usual_len: u64::MAX,
            decoder: None,
        }
    }

    /// How many bytes were read so far.
    pub(crate) fn loaded(&self) -> u64 {
        self.loaded
    }

    /// How much memory all windows so far had: payloads that are lent keep no more.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// As [`read_payload`].
    pub(crate) fn read_payload(
        &mut self,
        segment: &Segment,
        header_at: u64,
        wanted: &Wanted,
    ) -> Result<Bytes> {
        let decoder = FrameDecoder::new(segment.opening.salt, wanted.term);
        self.read_with(&decoder, segment, header_at, wanted, part_of)
    }

    /// The same, with the decoder of the segment's salt and the wanted term: what `take` makes of the part of a window that it is.
    #[inline]
    pub(super) fn read_with<T>(
        &mut self,
        decoder: &FrameDecoder,
        segment: &Segment,
        header_at: u64,
        wanted: &Wanted,
        mut take: impl FnMut(&Bytes, &Range<usize>) -> T,
    ) -> Result<T> {
        match verified(decoder, segment, header_at, wanted, self, &mut take) {
            // A window may be older than the entry: only the file itself is evidence.
            Err(error) if error.kind() == ErrorKind::Damaged && !removed(Rule::WindowIsNoEvidence) => {
                self.headers.forget();
                self.payloads.forget();
                verified(
                    decoder,
                    segment,
                    header_at,
                    wanted,
                    &mut ReadAhead::of_one(),
                    take,
                )
            }
            read => read,
        }
    }

    /// As [`BlockCache::offset`]; entries that follow each other do not ask the cache again.
    pub(crate) fn offset(&mut self, cache: &BlockCache, segment: &Arc<Segment>, slot: Slot) -> Result<u64> {
        let Slot::InBlock(block, n) = slot else {
            return cache.offset(segment, slot);
        };
        let held = self.hold(cache, segment, block)?;
        let at = nth(segment, &held.eighths, n);
        self.block = Some(held);
        at
    }

    /// A block of offsets: the one that was used last, unless another is wanted. Whoever is through with it gives it back.
    pub(super) fn hold(
        &mut self,
        cache: &BlockCache,
        segment: &Arc<Segment>,
        block: BlockRef,
    ) -> Result<Held> {
        match self.block.take() {
            Some(held) if held.segment == segment.id && held.block == block => Ok(held),
            _ => Ok(Held {
                segment: segment.id,
                block,
                eighths: cache.slots(segment, &block)?,
            }),
        }
    }

    /// `len` bytes at `at`, as a part of a window; `None` if the file ends before them.
    #[inline]
    pub(super) fn find(
        &mut self,
        which: Which,
        segment: &Segment,
        at: u64,
        len: u64,
    ) -> Result<Option<(&Bytes, Range<usize>)>> {
        let (own, other) = match which {
            Which::Headers => (&mut self.headers, &self.payloads),
            Which::Payloads => (&mut self.payloads, &self.headers),
        };
        if let Some(range) = own.held(segment, at, len) {
            return Ok(Some((&own.bytes, range)));
        }
        if let Some(range) = other.held(segment, at, len) {
            return Ok(Some((&other.bytes, range)));
        }
        let continued = own.continued(segment, at).max(other.continued(segment, at));
        let most = own.ahead * GROWTH;
        let ahead = (2 * continued)
            .clamp(own.ahead, most)
            .min(self.expected.max(EXPECTED_MIN));
        if !own.load(segment, at, len, ahead.max(len), &mut self.lent)? {
            return Ok(None);
        }
        self.loaded += own.filled as u64;
        self.taken += own.bytes.len() as u64;
        let range = own.held(segment, at, len);
        Ok(range.map(|range| (&own.bytes, range)))
    }
}

/// Some bytes of a segment.
#[derive(Debug)]
struct Window {
    segment: u64,
    at: u64,
    /// Those behind the first `filled` are left from another window.
    bytes: Bytes,
    filled: usize,
    /// Bytes to read at once by whoever does not read on yet.
    ahead: u64,
}

impl Window {
    fn new(ahead: u64) -> Window {
        Window {
            segment: 0,
            at: 0,
            bytes: Bytes::new(),
            filled: 0,
            ahead,
        }
    }

    fn forget(&mut self) {
        *self = Window::new(self.ahead);
    }

    fn held(&self, segment: &Segment, at: u64, len: u64) -> Option<Range<usize>> {
        let from = usize::try_from(at.checked_sub(self.at)?).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        (self.segment == segment.id && to <= self.filled).then_some(from..to)
    }

    /// The length of the window, if `at` is in it or where it ends.
    fn continued(&self, segment: &Segment, at: u64) -> u64 {
        let len = self.filled as u64;
        let here = self.segment == segment.id && (self.at..=self.at + len).contains(&at);
        if here { len } else { 0 }
    }

    /// Reads `len` bytes at `at`, and what is behind them, `ahead` bytes in all; false if the file ends before the `len`.
    fn load(
        &mut self,
        segment: &Segment,
        at: u64,
        len: u64,
        ahead: u64,
        lent: &mut VecDeque<Bytes>,
    ) -> Result<bool> {
        let rest = segment.opening.len.saturating_sub(at);
        if rest < len {
            return Ok(false);
        }
        let ahead = ahead.min(rest);
        // Whatever comes of it, nothing of the old one is there any more.
        self.filled = 0;
        let mut buffer = free(std::mem::take(&mut self.bytes), ahead, self.ahead * GROWTH, lent);
        // A sector behind the entry that cannot be read is not this entry's trouble.
        let filled =
            read(segment, at, ahead, &mut buffer).or_else(|_| read(segment, at, len, &mut buffer))?;
        *self = Window {
            segment: segment.id,
            at,
            bytes: buffer.freeze(),
            filled,
            ahead: self.ahead,
        };
        Ok(filled as u64 >= len)
    }
}

/// Memory for `len` bytes of a window that is `kept` bytes long as a rule: the old window's unless somebody holds a part of it, or that of
/// one which was lent long ago. Larger ones are not kept: there may be many, and a small payload would keep all of one.
fn free(old: Bytes, len: u64, kept: u64, lent: &mut VecDeque<Bytes>) -> BytesMut {
    let usual = |buffer: &BytesMut| buffer.capacity() as u64 <= 2 * kept;
    match old.try_into_mut() {
        Ok(buffer) if len <= kept && usual(&buffer) => return buffer,
        Err(old) if !old.is_empty() && old.len() as u64 <= kept => lent.push_back(old),
        _ => {}
    }
    if len > kept {
        return BytesMut::new();
    }
    match lent.pop_front().map(Bytes::try_into_mut) {
        Some(Ok(buffer)) if usual(&buffer) => return buffer,
        Some(Err(still)) if lent.len() < LENT_MAX => lent.push_front(still),
        _ => {}
    }
    BytesMut::new()
}

/// Fills `buffer` with the `len` bytes at `at`, or with fewer where the file ends: how many.
fn read(segment: &Segment, at: u64, len: u64, buffer: &mut BytesMut) -> Result<usize> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if buffer.capacity() < len {
        // Not grown: what is in it is not worth a copy.
        *buffer = BytesMut::zeroed(len);
    } else if buffer.len() < len {
        buffer.resize(len, 0);
    }
    segment
        .file
        .read_up_to(&mut buffer[..len], at)
        .map_err(|e| Error::io_at(&segment.path, at, "read", e))
}
