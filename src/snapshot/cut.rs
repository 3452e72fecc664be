//! Where a state is cut into chunks, and what these are called. Pure: the same bytes give the same chunks, whoever computes them.

use std::ops::Range;

use super::names::ChunkName;
use crate::sync::plain::{beside, channel};
use crate::sync::thread;

/// From so many bytes on a second thread pays: cutting costs as much as naming.
const PARALLEL_BYTES: usize = 2 << 20;

/// Least, average and largest size of a chunk.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) min: u32,
    pub(super) average: u32,
    pub(super) max: u32,
}

impl Sizes {
    /// The length of the chunk in front of `bytes`, which hold as many as the largest chunk, or end with the state.
    fn cut(self, bytes: &[u8]) -> usize {
        let chunker = fastcdc::v2020::FastCDC::new(bytes, self.min, self.average, self.max);
        chunker.cut(0, bytes.len()).1
    }
}

/// The chunks in front of `bytes`, as long as at least `least` bytes are left to look at, in order.
pub(super) fn chunks(bytes: &[u8], sizes: Sizes, least: usize) -> Vec<(Range<usize>, ChunkName)> {
    let mut at = 0;
    let mut next = || {
        let rest = &bytes[at..];
        if rest.is_empty() || rest.len() < least {
            return None;
        }
        let start = at;
        at += sizes.cut(rest);
        Some(start..at)
    };
    let name = |range: Range<usize>| {
        let name = ChunkName::of(&bytes[range.clone()]);
        (range, name)
    };
    if bytes.len() < PARALLEL_BYTES || thread::cores() == 1 {
        return std::iter::from_fn(next).map(name).collect();
    }
    let (cut, to_name) = channel::unbounded();
    let other = || to_name.iter().map(name).collect::<Vec<_>>();
    let own = || {
        while let Some(range) = next() {
            // Kept for whoever is free.
            let _ = cut.send(range);
        }
        drop(cut);
        to_name.try_iter().map(name).collect::<Vec<_>>()
    };
    let (mut all, others) = beside("everlog-name", own, other);
    all.extend(others);
    all.sort_unstable_by_key(|(range, _)| range.start);
    all
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        min: 4096,
        average: 16_384,
        max: 65_536,
    };

    /// Bytes that do not repeat.
    pub(in crate::snapshot) fn state(len: usize) -> Vec<u8> {
        let mut z = 7u64;
        let mut next = || {
            z = z.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            z.to_le_bytes()[7]
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn chunks_are_the_same_and_in_order_whether_two_threads_work_or_one() {
        let state = state(3 << 20);
        let mut at = 0;
        let chunks = chunks(&state, SIZES, 65_536);
        for (range, name) in &chunks {
            assert_eq!(range.clone(), at..at + SIZES.cut(&state[at..]));
            assert_eq!(*name, ChunkName::of(&state[range.clone()]));
            at = range.end;
        }
        assert!(state.len() - at < 65_536, "no more is left than was asked for");
        let last = super::chunks(&state[at..], SIZES, 0);
        assert_eq!(last.last().map(|(range, _)| range.end), Some(state.len() - at));
    }

    #[test]
    fn nothing_gives_no_chunk() {
        assert!(chunks(b"", SIZES, 0).is_empty());
        assert!(chunks(b"short", SIZES, 6).is_empty());
        assert_eq!(chunks(b"short", SIZES, 0).len(), 1);
    }
}
