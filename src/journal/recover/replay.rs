//! From what the segments hold to what every log holds.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Frame, Index, IndexOp, Kind};
use crate::mutant::{Rule, removed};
use crate::segment::read::{Wanted, read_payload};
use crate::segment::walk::Batch;
use crate::segment::{IndexBytes, Segment, Slots, index};
use crate::sync::Arc;
use crate::types::{LogKey, Term};

use super::super::report::{Finding, FindingKind};
use super::super::state::{Logs, ReplayBad, Replayed};
use super::chain::{Content, Link, LooseFrame};
use super::{Context, Mode};

/// Applies one segment of the journal to `logs`.
pub(super) fn link(context: &mut Context<'_>, logs: &mut Logs, link: &Link) -> Result<()> {
    match &link.content {
        Content::Index(held) => ops(context, logs, &link.segment, &held.ops),
        Content::Indexed => {
            let again = reread(&link.segment, link)?;
            ops(context, logs, &link.segment, &again.ops)
        }
        Content::Frames(frames) => {
            for LooseFrame {
                frame,
                header_at,
                payload,
            } in frames
            {
                let item = || Replayed::Frame {
                    frame,
                    header_at: *header_at,
                    payload: payload.clone(),
                };
                apply(context, logs, &link.segment, *header_at, &item)?;
            }
            Ok(())
        }
    }
}

fn reread(segment: &Segment, link: &Link) -> Result<Index> {
    let found = match segment.index() {
        Some(IndexBytes::File(file)) => index::read_trusted(&*file, segment, link.end),
        Some(IndexBytes::Memory(bytes)) => index::trusted(&bytes, segment, link.end),
        None => None,
    };
    found.ok_or_else(|| {
        let what =
            "the index of the segment was good a moment ago and is not: the disk or the memory is failing";
        Error::at(ErrorKind::Damaged, &segment.path, what)
    })
}

fn ops(context: &mut Context<'_>, logs: &mut Logs, segment: &Arc<Segment>, ops: &[IndexOp]) -> Result<()> {
    for op in ops {
        match op {
            IndexOp::Run(run) => {
                let item = || Replayed::Run {
                    log: run.log,
                    incarnation: run.incarnation,
                    range: run.first..run.first.saturating_add(u64::from(run.count)),
                    terms: &run.terms,
                    slots: Slots::Block(index::block_of(run)),
                };
                apply(context, logs, segment, 0, &item)?;
            }
            IndexOp::Frame {
                frame,
                header_at,
                payload,
            } => {
                let item = || Replayed::Frame {
                    frame,
                    header_at: *header_at,
                    payload: payload.clone(),
                };
                apply(context, logs, segment, *header_at, &item)?;
            }
        }
    }
    Ok(())
}

/// Applies one item. What contradicts the items before it is damage; a lenient reading notes what is missing, makes
/// room, and tries once more.
pub(super) fn apply<'a>(
    context: &mut Context<'_>,
    logs: &mut Logs,
    segment: &Arc<Segment>,
    at: u64,
    item: &dyn Fn() -> Replayed<'a>,
) -> Result<()> {
    let Err(bad) = logs.replay(item(), segment) else {
        return Ok(());
    };
    let what = format!("{}, although every checksum holds", bad.what);
    let place = Finding::new(FindingKind::Damaged, segment.path.clone(), at..at, what);
    if !removed(Rule::GapIsDamage) {
        context.damage(place.about(bad.log, bad.missing.clone()))?;
    }
    if make_room(logs, &bad, &item()) && logs.replay(item(), segment).is_err() {
        tracing::debug!(log = bad.log.0, "an item of a damaged log was left out");
    }
    Ok(())
}

/// Moves the end of a damaged log to where the next item begins; false if the item is to be left out.
fn make_room(logs: &mut Logs, bad: &ReplayBad, item: &Replayed<'_>) -> bool {
    let start = match item {
        Replayed::Run { range, .. } => range.start,
        Replayed::Frame { frame, .. } if frame.kind == Kind::Append => frame.index,
        Replayed::Frame { .. } => return false,
    };
    let Some(log) = logs.get_mut(bad.log) else {
        return false;
    };
    match &bad.missing {
        Some(missing) => log.lose(missing.clone(), log.last().map_or(Term(0), |id| id.term)),
        None => log.truncate(start),
    }
    true
}

/// Entries that a restatement counted and that nothing behind it took must have been seen. `unproven` are the batches
/// behind those that `logs` has: the purge that let the floor rise past the entries may be one of them.
pub(super) fn complete(
    context: &mut Context<'_>,
    logs: &Logs,
    floor: &Segment,
    unproven: &VecDeque<Batch>,
) -> Result<()> {
    for (key, log) in logs.iter() {
        for lost in &log.lost {
            let mut left = lost.clone();
            let later = unproven.iter().flat_map(|batch| &batch.frames);
            for frame in later.filter(|frame| frame.log == key && frame.incarnation == log.incarnation) {
                take_from(&mut left, frame);
            }
            if left.is_empty() {
                continue;
            }
            let told = |finding: &Finding| finding.log == Some(key) && finding.range.as_ref() == Some(lost);
            if context.findings.iter().any(told) {
                continue;
            }
            let what = format!(
                "entries {}..{} of log {key} are stated and not there",
                lost.start, lost.end
            );
            let place = Finding::new(FindingKind::Damaged, floor.path.clone(), 0..0, what);
            context.damage(place.about(key, Some(lost.clone())))?;
        }
    }
    Ok(())
}

/// Takes out of `range` what `frame` drops of its log.
fn take_from(range: &mut Range<u64>, frame: &Frame) {
    match frame.kind {
        Kind::Purge => range.start = range.start.max(frame.index),
        Kind::Truncate => range.end = range.end.min(frame.index),
        // A reset takes every entry, also those above where it goes on.
        Kind::Reset | Kind::Delete => range.end = range.start,
        _ => {}
    }
}

/// Reads the cells that live in sealed segments. Bad ones keep no value, and reading them says `Damaged`. One that the tail
/// supersedes is not read: a writer carries the tail before anybody can ask.
pub(super) fn cells(context: &mut Context<'_>, logs: &mut Logs, tail: &VecDeque<Batch>) -> Result<()> {
    let carries = context.mode == Mode::Writer;
    let frames = tail.iter().flat_map(|batch| &batch.frames).filter(|_| carries);
    // Of which log, and of which of its cells if not of all: either may be many.
    let superseded: HashSet<(LogKey, u64, Option<u8>)> = frames
        .filter_map(|frame| match frame.kind {
            Kind::Cell => Some((frame.log, frame.incarnation, Some(frame.cell))),
            Kind::Delete => Some((frame.log, frame.incarnation, None)),
            _ => None,
        })
        .collect();
    for (key, log) in logs.iter_mut() {
        let incarnation = log.incarnation;
        for (id, cell) in &mut log.cells {
            let (None, Some((segment, header_at))) = (&cell.value, &cell.place) else {
                continue;
            };
            if [Some(*id), None]
                .iter()
                .any(|cell| superseded.contains(&(key, incarnation, *cell)))
            {
                continue;
            }
            match read_cell(segment, *header_at, key, incarnation, *id) {
                Ok(value) => cell.value = Some(value),
                Err(e) => {
                    let kind = match e.kind() {
                        ErrorKind::Damaged => FindingKind::Damaged,
                        _ if !context.lenient() => return Err(e),
                        _ => FindingKind::Unreadable,
                    };
                    let place =
                        Finding::new(kind, segment.path.clone(), *header_at..*header_at, e.to_string());
                    context.damage(place.about(key, None))?;
                }
            }
        }
    }
    Ok(())
}

/// The value of a cell whose frame header stands at `header_at`.
pub(crate) fn read_cell(
    segment: &Segment,
    header_at: u64,
    log: LogKey,
    incarnation: u64,
    cell: u8,
) -> Result<Bytes> {
    let wanted = Wanted {
        kind: Kind::Cell,
        cell,
        log,
        incarnation,
        index: 0,
        term: Term(0),
    };
    read_payload(segment, header_at, &wanted)
}
