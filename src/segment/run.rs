//! Entries that follow each other in one segment, read in a row.

use std::ops::Range;

use bytes::Bytes;

use super::ahead::ReadAhead;
use super::cache::{BlockCache, short};
use super::read::Wanted;
use crate::error::Result;
use crate::format::{FRAME_HEADER_LEN, FrameDecoder};
use crate::segment::{Segment, SlotRun};
use crate::sync::Arc;
use crate::types::{Entry, EntryId, Term};

/// Entries in order, whose payloads are parts of windows of the file. For those who drop them soon: nothing is copied, and nothing is counted
/// for each payload, but all windows stay in memory.
#[derive(Debug, Default)]
pub(crate) struct EntryRun {
    /// The first of entries that follow each other, and the number of its place.
    starts: Vec<(usize, EntryId)>,
    places: Vec<Place>,
    windows: Vec<Bytes>,
    payload_bytes: u64,
}

/// A part of a window.
#[derive(Clone, Copy, Debug)]
struct Place {
    window: u32,
    from: u32,
    len: u32,
}

impl EntryRun {
    pub(crate) fn len(&self) -> u64 {
        self.places.len() as u64
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Adds an entry whose payload is this part of `window`.
    pub(crate) fn push(&mut self, id: EntryId, window: &Bytes, part: &Range<usize>) {
        let follows = self.starts.last().is_some_and(|(at, first)| {
            let next = first.index + (self.places.len() - at) as u64;
            id.term == first.term && id.index == next
        });
        if !follows {
            self.starts.push((self.places.len(), id));
        }
        // Nobody else gets the memory of a window that is held here.
        let held = |last: &Bytes| last.as_ptr() == window.as_ptr() && last.len() == window.len();
        if !self.windows.last().is_some_and(held) {
            self.windows.push(window.clone());
        }
        // A payload is shorter than 4 GiB, a window not longer than the longest, and more than 2^32 of them fit into no memory.
        let small = |number: usize| u32::try_from(number).expect("bounded by the size of a segment");
        self.places.push(Place {
            window: small(self.windows.len() - 1),
            from: small(part.start),
            len: small(part.len()),
        });
        self.payload_bytes += part.len() as u64;
    }

    /// Has the processor fetch where the payloads of `numbers` begin, all at once: one after the other it would wait for each, as another one
    /// has read them.
    pub(crate) fn prefetch(&self, numbers: Range<usize>) {
        let end = numbers.end.min(self.places.len());
        let places = self.places.get(numbers.start..end).unwrap_or_default();
        let first = |place: &Place| self.windows[place.window as usize].get(place.from as usize);
        let all = places.iter().filter_map(first).fold(0, |all, byte| all ^ byte);
        std::hint::black_box(all);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = LentEntry<'_>> {
        let ends = self.starts.iter().skip(1).map(|(at, _)| *at);
        let ends = ends.chain([self.places.len()]);
        self.starts.iter().zip(ends).flat_map(|((at, first), end)| {
            // The places first: behind the largest index there is none to ask for.
            self.places[*at..end]
                .iter()
                .zip(first.index..)
                .map(|(place, index)| {
                    let (from, len) = (place.from as usize, place.len as usize);
                    let id = EntryId {
                        term: first.term,
                        index,
                    };
                    LentEntry {
                        id,
                        window: &self.windows[place.window as usize],
                        part: from..from + len,
                    }
                })
        })
    }
}

/// An entry of an [`EntryRun`].
#[derive(Debug)]
pub(crate) struct LentEntry<'a> {
    pub(crate) id: EntryId,
    window: &'a Bytes,
    part: Range<usize>,
}

impl LentEntry<'_> {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.window[self.part.clone()]
    }

    /// As long as its payload is held, its window is.
    pub(crate) fn to_entry(&self) -> Entry {
        Entry {
            id: self.id,
            payload: self.window.slice(self.part.clone()),
        }
    }
}

/// How far to read in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// At most so many entries.
    pub(crate) entries: usize,
    /// Not beyond the entry for which the memory of all windows so far became as much.
    pub(crate) taken: u64,
    /// How many entries will be asked for, these included: no window is longer than they seem to be.
    pub(crate) left: u64,
}

/// Takes an entry: its id, and its payload as a part of a window.
pub(crate) trait Take: FnMut(EntryId, &Bytes, &Range<usize>) {}
impl<T: FnMut(EntryId, &Bytes, &Range<usize>)> Take for T {}

impl ReadAhead {
    /// Reads and verifies the next entries of `slots`, at least one; `wanted` is the first of them, and then the first that was not read. After
    /// an error those before it were taken.
    pub(crate) fn read_run(
        &mut self,
        cache: &BlockCache,
        segment: &Arc<Segment>,
        slots: &mut SlotRun,
        wanted: &mut Wanted,
        limit: Limit,
        take: &mut impl Take,
    ) -> Result<()> {
        let first = wanted.index;
        let decoder = self.decoder(segment.opening.salt, wanted.term);
        let done = match slots {
            SlotRun::At(eighths) => {
                self.read_each(&decoder, segment, eighths.as_slice(), wanted, limit, take)
            }
            SlotRun::InBlock(block, numbers) => {
                let held = self.hold(cache, segment, *block)?;
                let end = numbers.end.min(held.eighths.len());
                let there = held.eighths.get(numbers.start..end);
                let done = match there.filter(|there| !there.is_empty()) {
                    Some(eighths) => self.read_each(&decoder, segment, eighths, wanted, limit, take),
                    None => Err(short(segment)),
                };
                self.block = Some(held);
                done
            }
        };
        self.decoder = Some(decoder);
        slots.advance(wanted.index - first);
        done
    }

    fn read_each(
        &mut self,
        decoder: &FrameDecoder,
        segment: &Segment,
        eighths: &[u32],
        wanted: &mut Wanted,
        limit: Limit,
        take: &mut impl Take,
    ) -> Result<()> {
        let mut left = limit.left;
        for eighth in eighths.iter().take(limit.entries) {
            self.expected = self.usual_len.saturating_mul(left);
            let header_at = u64::from(*eighth) * 8;
            let id = EntryId {
                term: wanted.term,
                index: wanted.index,
            };
            let read = self.read_with(decoder, segment, header_at, wanted, |window, part| {
                take(id, window, part);
                part.len()
            });
            // Whoever reads one entry alone says nothing of what it will ask for.
            self.expected = u64::MAX;
            let len = read?;
            self.usual_len = (FRAME_HEADER_LEN + len) as u64;
            left = left.saturating_sub(1);
            wanted.index += 1;
            if self.taken() >= limit.taken {
                break;
            }
        }
        Ok(())
    }

    fn decoder(&mut self, salt: u64, term: Term) -> FrameDecoder {
        match self.decoder.take() {
            Some(decoder) if decoder.is_of(salt, term) => decoder,
            _ => FrameDecoder::new(salt, term),
        }
    }
}
