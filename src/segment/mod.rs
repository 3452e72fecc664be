//! One segment file as readers see it: its name, its opening, where its frames stand, and how its bytes are judged.
//!
//! * [`verdict`]: what to make of a place where a batch should be, as a table.
//! * [`scan`]: reading a file in windows, and looking for batch headers behind a bad place.
//! * [`walk`]: the batches of a segment, one after another.
//! * [`index`]: the derived index of a sealed segment.
//! * [`cache`]: the offsets of sealed entries through a bounded cache.
//! * [`read`]: one frame alone, verified.
//! * [`ahead`]: frame after frame, through windows of the file.
//! * [`run`]: entries that follow each other, in a row.
//!
//! Nothing here writes.

pub(crate) mod ahead;
pub(crate) mod cache;
pub(crate) mod index;
#[cfg(test)]
pub(crate) mod made;
pub(crate) mod read;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod verdict;
pub(crate) mod walk;

use std::collections::VecDeque;
use std::path::PathBuf;

use bytes::Bytes;

use crate::error::Result;
use crate::format::{End, NUMBER_MAX, Opening};
use crate::fs::File;
use crate::sync::{Arc, Mutex};

/// The directory of the segments, below the root.
pub(crate) const JOURNAL_DIR: &str = "journal";

/// A segment that recovery found, or that this life writes. Shared by readers and the writer.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) file: Arc<dyn File>,
    /// As a person would type it.
    pub(crate) path: PathBuf,
    pub(crate) opening: Opening,
    /// Where the offsets of its frames can be had, once it is sealed. A leaf lock: nothing is taken under it.
    sealed: Mutex<Sealed>,
}

/// What is known of a segment to which nothing is added any more.
#[derive(Debug, Default)]
struct Sealed {
    end: Option<End>,
    index: Option<IndexBytes>,
}

/// Where the bytes of a segment's index are.
#[derive(Clone, Debug)]
pub(crate) enum IndexBytes {
    File(Arc<dyn File>),
    /// Built by this process and perhaps not written yet.
    Memory(Bytes),
}

impl Segment {
    pub(crate) fn new(id: u64, file: Arc<dyn File>, path: PathBuf, opening: Opening) -> Segment {
        Segment {
            id,
            file,
            path,
            opening,
            sealed: Mutex::new(Sealed::default()),
        }
    }

    /// Says where the segment ends and where its index is; a later call replaces an earlier one.
    pub(crate) fn seal(&self, end: End, index: IndexBytes) {
        *self.sealed.lock() = Sealed {
            end: Some(end),
            index: Some(index),
        };
    }

    /// Where the segment ends, once it is sealed.
    pub(crate) fn end(&self) -> Option<End> {
        self.sealed.lock().end
    }

    /// Where its index is, once it is sealed.
    pub(crate) fn index(&self) -> Option<IndexBytes> {
        self.sealed.lock().index.clone()
    }

    /// Size in bytes, as far as readers may go: a file is never longer than its opening says.
    pub(crate) fn readable_len(&self) -> Result<u64> {
        let len = self
            .file
            .len()
            .map_err(|e| crate::Error::io(&self.path, "read its size", e))?;
        Ok(len.min(self.opening.len))
    }

    /// Path of the segment `id` below the root.
    pub(crate) fn name(id: u64) -> String {
        format!("{JOURNAL_DIR}/{id:016x}.seg")
    }

    /// Path of the index of the segment `id` below the root.
    pub(crate) fn index_name(id: u64) -> String {
        format!("{JOURNAL_DIR}/{id:016x}.idx")
    }

    /// The id in a file name of the journal's directory (without the directory); `None` if it is not a segment's name,
    /// just as this module writes it.
    pub(crate) fn parse_name(name: &str) -> Option<u64> {
        parse(name, ".seg")
    }

    /// The same of an index's name.
    pub(crate) fn parse_index_name(name: &str) -> Option<u64> {
        parse(name, ".idx")
    }
}

fn parse(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let written = digits.len() == 16
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let id = u64::from_str_radix(digits, 16).ok()?;
    (written && (1..=NUMBER_MAX).contains(&id)).then_some(id)
}

/// Offsets of the frame headers of consecutive entries of one log in one segment.
#[derive(Debug)]
pub(crate) enum Slots {
    /// `at[i]` is the offset, divided by 8, of entry `base + i`.
    Memory { base: u64, at: VecDeque<u32> },
    /// In the segment's index.
    Block(BlockRef),
}

/// A block of offsets in the index of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRef {
    /// Index of the block's first entry.
    pub(crate) base: u64,
    /// Offset of the block in the index.
    pub(crate) at: u64,
    /// How many entries.
    pub(crate) count: u32,
    pub(crate) crc: u32,
}

/// Where the offset of one frame header is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The offset itself.
    At(u64),
    /// The n-th of a block.
    InBlock(BlockRef, usize),
}

/// Where the offsets of consecutive entries are to be had, each taken once.
#[derive(Debug)]
pub(crate) enum SlotRun {
    /// The offsets themselves, divided by 8.
    At(std::vec::IntoIter<u32>),
    /// These of a block.
    InBlock(BlockRef, std::ops::Range<usize>),
}

impl SlotRun {
    pub(crate) fn len(&self) -> usize {
        match self {
            SlotRun::At(eighths) => eighths.len(),
            SlotRun::InBlock(_, numbers) => numbers.len(),
        }
    }

    /// The first `count` were taken.
    pub(crate) fn advance(&mut self, count: u64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match self {
            SlotRun::At(eighths) => eighths.by_ref().take(count).for_each(drop),
            SlotRun::InBlock(_, numbers) => numbers.start += count.min(numbers.len()),
        }
    }
}

impl Slots {
    /// One entry, whose frame header is at `header_at`.
    pub(crate) fn one(index: u64, header_at: u64) -> Slots {
        // A segment is at most SEGMENT_LEN_MAX long, so that an eighth of any offset fits; a larger one reads nothing.
        let eighth = u32::try_from(header_at / 8).unwrap_or(u32::MAX);
        Slots::Memory {
            base: index,
            at: VecDeque::from([eighth]),
        }
    }

    /// Appends `next`, which begins where these end; false (and nothing done) unless both are in memory.
    pub(crate) fn try_join(&mut self, next: &Slots) -> bool {
        match (self, next) {
            (Slots::Memory { at, .. }, Slots::Memory { at: more, .. }) => {
                at.extend(more);
                true
            }
            _ => false,
        }
    }

    /// Forgets the entries from `from` on. A block is left as it is: its owner's range says how far it counts.
    pub(crate) fn truncate(&mut self, from: u64) {
        if let Slots::Memory { base, at } = self {
            at.truncate(usize::try_from(from.saturating_sub(*base)).unwrap_or(usize::MAX));
        }
    }

    /// Where the offsets of the entries of `range` are, from its start on as far as they are here.
    pub(crate) fn run(&self, range: std::ops::Range<u64>) -> SlotRun {
        let numbers = |base: u64, count: usize| {
            let number = |index: u64| usize::try_from(index.checked_sub(base)?).ok();
            let end = number(range.end).map_or(0, |end| end.min(count));
            number(range.start).map_or(0..0, |start| start.min(end)..end)
        };
        match self {
            Slots::Memory { base, at } => {
                let eighths: Vec<u32> = at.range(numbers(*base, at.len())).copied().collect();
                SlotRun::At(eighths.into_iter())
            }
            Slots::Block(block) => SlotRun::InBlock(*block, numbers(block.base, block.count as usize)),
        }
    }

    /// Where the offset of the entry `index` is.
    pub(crate) fn slot(&self, index: u64) -> Option<Slot> {
        match self {
            Slots::Memory { base, at } => {
                let n = usize::try_from(index.checked_sub(*base)?).ok()?;
                at.get(n).map(|eighth| Slot::At(u64::from(*eighth) * 8))
            }
            Slots::Block(block) => {
                let n = index
                    .checked_sub(block.base)
                    .filter(|n| *n < u64::from(block.count))?;
                Some(Slot::InBlock(*block, usize::try_from(n).ok()?))
            }
        }
    }
}

#[cfg(test)]
mod tests;
