//! The index of a segment: read if it can be trusted, built from the segment otherwise. It is derived, so losing it
//! costs time and nothing else.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{End, INDEX_HEADER_LEN, Index, IndexBuilder, IndexOp, IndexRun, Kind, header_at};
use crate::fs::File;
use crate::mutant::{Rule, removed};
use crate::segment::walk::{BadPlace, Batch, Depth, Step, Walk};
use crate::segment::{BlockRef, IndexBytes, Segment};
use crate::types::LogKey;

/// Largest index that is believed: 16 bytes for each 8 of the largest segment would be more.
const INDEX_LEN_MAX: u64 = 1 << 33;

/// What a walk to the end of a segment gave.
pub(crate) struct Built {
    /// The whole index file.
    pub(crate) bytes: Bytes,
    pub(crate) batches: u64,
}

/// Walks `segment` up to `end` and builds its index. A segment that does not reach just that end, batch by batch, is
/// bad, and so is one whose payloads do not verify if `depth` asks for them. Facts and floors are always verified.
pub(crate) fn build(
    segment: &Segment,
    end: End,
    depth: Depth,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<std::result::Result<Built, BadPlace>> {
    let mut walk = Walk::new(segment, end.offset, depth, false)?;
    let mut builder = IndexBuilder::new(segment.id, segment.opening.salt);
    let mut batches = 0;
    while walk.end().offset < end.offset {
        let before = walk.end();
        let bad = |what: String| BadPlace {
            at: before.offset,
            sequence: before.sequence + 1,
            what,
            rest: None,
        };
        let batch = match walk.step()? {
            Step::Batch(batch) => batch,
            Step::Bad(bad) => return Ok(Err(bad)),
            Step::Full => {
                return Ok(Err(bad(format!(
                    "the segment is stated to end at {}",
                    end.offset
                ))));
            }
        };
        if let Some(what) = push_batch(&mut builder, &mut walk, &batch)? {
            return Ok(Err(bad(what)));
        }
        batches += 1;
        on_bytes(u64::from(batch.header.len));
    }
    if walk.end() != end && !removed(Rule::SealedEnd) {
        let (at, sequence) = (walk.end().offset, end.sequence);
        let what = format!(
            "the segment does not end as its successor states: {:?}, not {end:?}",
            walk.end()
        );
        return Ok(Err(BadPlace {
            at,
            sequence,
            what,
            rest: None,
        }));
    }
    let bytes = Bytes::from(builder.finish(end));
    Ok(Ok(Built { bytes, batches }))
}

/// Adds the frames of a batch; says what is wrong if facts or a floor do not verify.
fn push_batch(builder: &mut IndexBuilder, walk: &mut Walk<'_>, batch: &Batch) -> Result<Option<String>> {
    for (i, frame) in batch.frames.iter().enumerate() {
        let at = header_at(batch.header.offset, i);
        let inline = matches!(frame.kind, Kind::Facts | Kind::Floor);
        let payload = if inline { walk.payload(frame, at)? } else { None };
        if inline && payload.is_none() {
            return Ok(Some(format!(
                "the payload of the {:?} frame at {at} does not match its checksum",
                frame.kind
            )));
        }
        builder.push(frame, at, payload);
    }
    Ok(None)
}

/// The summary of the index in `file`, if it is that of `segment` up to `end`. Anything wrong with it, a read error
/// included, means that there is none: it is derived.
pub(crate) fn read_trusted(file: &dyn File, segment: &Segment, end: End) -> Option<Index> {
    let len = file.len().ok().filter(|len| *len <= INDEX_LEN_MAX)?;
    let mut head = [0; INDEX_HEADER_LEN];
    file.read_exact_at(&mut head, 0).ok()?;
    let whole = Index::summary_end(&head).ok().filter(|whole| *whole <= len)?;
    let mut bytes = vec![0; usize::try_from(whole).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    trusted(&bytes, segment, end).filter(|index| index.file_len <= len)
}

/// The same of bytes in memory.
pub(crate) fn trusted(bytes: &[u8], segment: &Segment, end: End) -> Option<Index> {
    let index = Index::decode_summary(bytes).ok()?;
    let ours = index.segment == segment.id
        && index.salt == segment.opening.salt
        && (index.end == end || removed(Rule::IndexEnd));
    ours.then_some(index)
}

/// `len` bytes of the index at `at`.
pub(crate) fn read_block(index: &IndexBytes, at: u64, len: usize) -> Option<Bytes> {
    match index {
        IndexBytes::Memory(bytes) => {
            let from = usize::try_from(at).ok()?;
            let to = from.checked_add(len)?;
            (to <= bytes.len()).then(|| bytes.slice(from..to))
        }
        IndexBytes::File(file) => {
            let fits = at
                .checked_add(len as u64)
                .is_some_and(|to| file.len().is_ok_and(|size| to <= size));
            let mut bytes = vec![0; if fits { len } else { 0 }];
            (fits && file.read_exact_at(&mut bytes, at).is_ok()).then(|| Bytes::from(bytes))
        }
    }
}

/// The block of a run.
pub(crate) fn block_of(run: &IndexRun) -> BlockRef {
    BlockRef {
        base: run.first,
        at: run.block_at,
        count: run.count,
        crc: run.block_crc,
    }
}

/// Builds the index of a sealed segment anew and keeps it in memory from now on.
pub(crate) fn rebuild(segment: &Segment) -> Result<IndexBytes> {
    let Some(end) = segment.end() else {
        return Err(Error::at(
            ErrorKind::Damaged,
            &segment.path,
            "the segment has no index and no known end",
        ));
    };
    match build(segment, end, Depth::Tables, &mut |_| {})? {
        Ok(built) => {
            let index = IndexBytes::Memory(built.bytes);
            segment.seal(end, index.clone());
            Ok(index)
        }
        Err(bad) => Err(Error::at_offset(
            ErrorKind::Damaged,
            &segment.path,
            bad.at,
            bad.what,
        )),
    }
}

/// The blocks that hold the entries of each log as they were when the segment was sealed, ascending and without overlap.
pub(crate) type Coverage = BTreeMap<(LogKey, u64), Vec<(Range<u64>, BlockRef)>>;

/// What the index in `bytes` covers; `None` if it does not decode.
pub(crate) fn coverage(bytes: &[u8]) -> Option<Coverage> {
    let index = Index::decode_summary(bytes).ok()?;
    let mut covered = Coverage::new();
    for op in &index.ops {
        match op {
            IndexOp::Run(run) => {
                let blocks = covered.entry((run.log, run.incarnation)).or_default();
                clip(blocks, run.first);
                blocks.push((
                    run.first..run.first.saturating_add(u64::from(run.count)),
                    block_of(run),
                ));
            }
            IndexOp::Frame { frame, .. } => {
                let blocks = covered.entry((frame.log, frame.incarnation)).or_default();
                match frame.kind {
                    Kind::Truncate => clip(blocks, frame.index),
                    Kind::Reset | Kind::Create | Kind::Delete => blocks.clear(),
                    _ => {}
                }
            }
        }
    }
    Some(covered)
}

/// Drops everything from `from` on.
fn clip(blocks: &mut Vec<(Range<u64>, BlockRef)>, from: u64) {
    for (range, _) in blocks.iter_mut() {
        range.end = range.end.min(from.max(range.start));
    }
    blocks.retain(|(range, _)| !range.is_empty());
}
