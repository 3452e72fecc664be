//! The offsets of sealed entries, through a bounded cache of index blocks.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, ErrorKind, Result};
use crate::format::decode_block;
use crate::segment::{BlockRef, IndexBytes, Segment, Slot, index};
use crate::sync::{Arc, Mutex};

/// Blocks of offsets of sealed segments, the least recently used ones dropped first. Bounded by its size in bytes, or by
/// one block if that is larger.
#[derive(Debug)]
pub(crate) struct BlockCache {
    bytes_max: usize,
    /// A leaf lock; not held while reading.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    blocks: HashMap<(u64, u64), Block>,
    /// When each block was last used, oldest first.
    order: BTreeMap<u64, (u64, u64)>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Block {
    eighths: Arc<[u32]>,
    used: u64,
}

impl BlockCache {
    pub(crate) fn new(bytes_max: usize) -> BlockCache {
        BlockCache {
            bytes_max,
            held: Mutex::new(Held::default()),
        }
    }

    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.lock().bytes
    }

    /// File offset of the frame header at `slot` of `segment`.
    pub(crate) fn offset(&self, segment: &Arc<Segment>, slot: Slot) -> Result<u64> {
        match slot {
            Slot::At(at) => Ok(at),
            Slot::InBlock(block, n) => {
                let eighths = self.slots(segment, &block)?;
                nth(segment, &eighths, n)
            }
        }
    }

    /// The offsets in `block`, divided by 8. If the index lacks it, the segment itself is walked.
    pub(crate) fn slots(&self, segment: &Arc<Segment>, block: &BlockRef) -> Result<Arc<[u32]>> {
        let key = (segment.id, block.at);
        if let Some(found) = self.held.lock().touch(key) {
            return Ok(found);
        }
        let eighths: Arc<[u32]> = Arc::from(load(segment, block)?);
        self.held.lock().insert(key, &eighths, self.bytes_max);
        Ok(eighths)
    }
}

/// The n-th offset of a block of `segment`, whose offsets are divided by 8 in `eighths`.
pub(super) fn nth(segment: &Segment, eighths: &[u32], n: usize) -> Result<u64> {
    let eighth = eighths.get(n).ok_or_else(|| short(segment))?;
    Ok(u64::from(*eighth) * 8)
}

pub(super) fn short(segment: &Segment) -> Error {
    let what = "an index block is shorter than it was stated to be";
    Error::at(ErrorKind::Damaged, &segment.path, what)
}

impl Held {
    fn touch(&mut self, key: (u64, u64)) -> Option<Arc<[u32]>> {
        self.clock += 1;
        let block = self.blocks.get_mut(&key)?;
        self.order.remove(&block.used);
        block.used = self.clock;
        self.order.insert(self.clock, key);
        Some(Arc::clone(&block.eighths))
    }

    fn insert(&mut self, key: (u64, u64), eighths: &Arc<[u32]>, bytes_max: usize) {
        if self.touch(key).is_some() {
            return;
        }
        let used = self.clock;
        self.blocks.insert(
            key,
            Block {
                eighths: Arc::clone(eighths),
                used,
            },
        );
        self.order.insert(used, key);
        self.bytes += size_of_val(&eighths[..]);
        while self.bytes > bytes_max && self.order.len() > 1 {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some(block) = self.blocks.remove(&oldest) {
                self.bytes -= size_of_val(&block.eighths[..]);
            }
        }
    }
}

fn load(segment: &Arc<Segment>, block: &BlockRef) -> Result<Vec<u32>> {
    let held = segment.index().and_then(|index| load_from(&index, block));
    if let Some(eighths) = held {
        return Ok(eighths);
    }
    tracing::warn!(segment = %segment.path.display(), "an index block is missing or bad; walking the segment");
    let rebuilt = index::rebuild(segment)?;
    load_from(&rebuilt, block).ok_or_else(|| {
        let what = "the offsets of its entries can neither be read nor rebuilt; run `everlog verify`";
        Error::at(ErrorKind::Damaged, &segment.path, what)
    })
}

fn load_from(index: &IndexBytes, block: &BlockRef) -> Option<Vec<u32>> {
    let len = usize::try_from(block.count).ok()?.checked_mul(4)?;
    let bytes = index::read_block(index, block.at, len)?;
    decode_block(&bytes, block.crc, block.count).ok()
}
