//! The bytes of one file as a sparse map of blocks, shared until written: a copy costs nothing, and a write to a copy
//! copies only the blocks that it touches. Absent blocks read as zero.

use crate::sync::Arc;
use std::collections::BTreeMap;
use std::ops::Range;

/// A block is also the unit in which disk space is taken.
pub(super) const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;

pub(super) type Block = [u8; BLOCK_LEN];

static ZEROS: Block = [0; BLOCK_LEN];

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    blocks: Arc<BTreeMap<u64, Arc<Block>>>,
}

impl Content {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let blocks = Arc::make_mut(&mut self.blocks);
        for (block, at, range) in pieces(offset, bytes.len()) {
            let target = blocks.entry(block).or_insert_with(|| Arc::new([0; BLOCK_LEN]));
            Arc::make_mut(target)[at..at + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    /// Writes a range within one block, unless that is what it holds.
    pub(super) fn write_if_new(&mut self, offset: u64, bytes: &[u8]) {
        if *self.slice(offset..offset + bytes.len() as u64) != *bytes {
            self.write(offset, bytes);
        }
    }

    /// Makes everything from `offset` on absent.
    pub(super) fn clear_from(&mut self, offset: u64) {
        let first_whole = offset.div_ceil(BLOCK);
        if self.blocks.range(first_whole..).next().is_some() {
            Arc::make_mut(&mut self.blocks).split_off(&first_whole);
        }
        let within = as_len(offset % BLOCK);
        let straddled = offset / BLOCK;
        if within > 0 && self.has(straddled) {
            let block = Arc::make_mut(&mut self.blocks)
                .entry(straddled)
                .or_insert_with(|| Arc::new([0; BLOCK_LEN]));
            Arc::make_mut(block)[within..].fill(0);
        }
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (block, at, range) in pieces(offset, buffer.len()) {
            let target = &mut buffer[range];
            match self.blocks.get(&block) {
                Some(source) => target.copy_from_slice(&source[at..at + target.len()]),
                None => target.fill(0),
            }
        }
    }

    pub(super) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; as_len(range.end.saturating_sub(range.start))];
        self.read(range.start, &mut bytes);
        bytes
    }

    /// A range within one block, without copying.
    pub(super) fn slice(&self, range: Range<u64>) -> &[u8] {
        let at = as_len(range.start % BLOCK);
        let block = self
            .blocks
            .get(&(range.start / BLOCK))
            .map_or(&ZEROS, |block| &**block);
        &block[at..at + as_len(range.end - range.start)]
    }

    pub(super) fn has(&self, block: u64) -> bool {
        self.blocks.contains_key(&block)
    }

    /// How many blocks are present.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.blocks.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.blocks.values()
    }

    pub(super) fn numbered(&self) -> impl Iterator<Item = (u64, &Block)> {
        self.blocks.iter().map(|(number, block)| (*number, &**block))
    }
}

/// A length or offset of the simulation in memory, where it fits by construction.
pub(super) fn as_len(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Cuts `len` bytes at `offset` at block edges: block, position in it, range of the bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let from = offset + done as u64;
        let at = as_len(from % BLOCK);
        let range = done..done + (BLOCK_LEN - at).min(len - done);
        done = range.end;
        Some((from / BLOCK, at, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_independent_and_holes_read_zero() {
        let mut one = Content::default();
        one.write(BLOCK - 2, &[1, 2, 3, 4]);
        let mut two = one.clone();
        two.clear_from(BLOCK);
        two.write(3 * BLOCK, &[9]);
        assert_eq!(one.bytes(BLOCK - 3..BLOCK + 3), [0, 1, 2, 3, 4, 0]);
        assert_eq!(two.bytes(BLOCK - 3..BLOCK + 3), [0, 1, 2, 0, 0, 0]);
        assert_eq!((one.count(), two.count()), (2, 2));
        assert!(!two.has(1) && two.has(3));
    }
}
