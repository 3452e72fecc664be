//! Reading a damaged segment as far as it goes, for a view: what verifies is served, what does not is a finding.

use crate::error::Result;
use crate::format::{BATCH_HEADER_LEN, Kind, header_at};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::segment::verdict::{Decision, Found, decide};
use crate::segment::walk::{BadPlace, Batch, Depth, Rest, Step, Walk};

use super::super::report::{Finding, FindingKind};
use super::Context;
use super::chain::LooseFrame;
use super::last::extent;

/// What could be read.
pub(super) struct Read {
    pub(super) frames: Vec<LooseFrame>,
    pub(super) batches: u64,
}

/// Reads `segment` up to the offset `to`. Everything up to the sequence `witnessed` was acknowledged; behind it the first
/// bad place ends the reading, and is judged by others.
pub(super) fn read(
    context: &mut Context<'_>,
    segment: &Segment,
    to: u64,
    witnessed: u64,
    depth: Depth,
) -> Result<Read> {
    let mut walk = Walk::new(segment, to, depth, true)?;
    let mut out = Read {
        frames: Vec::new(),
        batches: 0,
    };
    loop {
        match walk.step()? {
            Step::Full => break,
            Step::Batch(batch) => {
                if batch.header.sequence > witnessed && context.live() {
                    break;
                }
                out.batches += 1;
                context.progress(u64::from(batch.header.len));
                take_batch(context, segment, &mut walk, &mut out, &batch)?;
            }
            Step::Bad(bad) => {
                let known = extent(&bad);
                let header = known.start + BATCH_HEADER_LEN as u64;
                let hole = walk.window().hole_in(known.start..known.end.max(header));
                let found = Found {
                    readable: hole.is_none(),
                    valid: false,
                    witnessed: bad.sequence <= witnessed,
                    blank: false,
                };
                let kind = match decide(found) {
                    Decision::Unreadable => FindingKind::Unreadable,
                    Decision::Damaged => FindingKind::Damaged,
                    Decision::Keep | Decision::End | Decision::Torn => break,
                };
                if !pass(context, segment, &mut walk, &mut out, bad, kind, to)? {
                    break;
                }
            }
        }
    }
    if walk.end().sequence < witnessed && walk.end().offset >= to {
        let what = "the segment ends before everything that was acknowledged";
        context.damage(Finding::new(
            FindingKind::Damaged,
            segment.path.clone(),
            to..to,
            what,
        ))?;
    }
    Ok(out)
}

/// Reports a bad place and goes on behind it; false if there is nothing behind it.
fn pass(
    context: &mut Context<'_>,
    segment: &Segment,
    walk: &mut Walk<'_>,
    out: &mut Read,
    bad: BadPlace,
    kind: FindingKind,
    to: u64,
) -> Result<bool> {
    if let Some(rest) = bad.rest.filter(|_| !removed(Rule::DamageOfItsLog)) {
        let place = Finding::new(
            kind,
            segment.path.clone(),
            rest.header.offset..rest.header.end(),
            bad.what,
        );
        take_rest(context, walk, out, &rest, &place)?;
        walk.skip(&rest.header);
        return Ok(true);
    }
    let next = walk.scan(bad.at + 1, Some(bad.sequence))?;
    // Without a header behind it everything is lost, up to where the segment ends.
    let end = next.stop.as_ref().map_or(to, |header| header.offset);
    context.damage(Finding::new(kind, segment.path.clone(), bad.at..end, bad.what))?;
    if let Some(header) = &next.stop {
        walk.resume(header);
    }
    Ok(next.stop.is_some())
}

fn take_batch(
    context: &mut Context<'_>,
    segment: &Segment,
    walk: &mut Walk<'_>,
    out: &mut Read,
    batch: &Batch,
) -> Result<()> {
    for (i, frame) in batch.frames.iter().enumerate() {
        let at = header_at(batch.header.offset, i);
        let mut payload = None;
        if matches!(frame.kind, Kind::Facts | Kind::Floor) {
            payload = walk.payload(frame, at)?.map(bytes::Bytes::copy_from_slice);
            if payload.is_none() {
                let from = frame.payload_offset(at);
                let place = from..from + u64::from(frame.len);
                let what = "a restatement does not match its checksum";
                let finding = Finding::new(FindingKind::Damaged, segment.path.clone(), place, what);
                context.damage(finding.about(frame.log, None))?;
                continue;
            }
        }
        out.frames.push(LooseFrame {
            frame: *frame,
            header_at: at,
            payload,
        });
    }
    Ok(())
}

/// The frames of a batch that is damaged in part. An entry whose payload is bad keeps its place, so that the ones
/// behind it are found, and reading it says `Damaged`; so does a cell.
fn take_rest(
    context: &mut Context<'_>,
    walk: &mut Walk<'_>,
    out: &mut Read,
    rest: &Rest,
    place: &Finding,
) -> Result<()> {
    out.batches += 1;
    if rest.unknown {
        context.damage(place.clone())?;
    }
    for (i, frame, sound) in &rest.frames {
        let at = header_at(rest.header.offset, usize::try_from(*i).unwrap_or(usize::MAX));
        if !sound {
            let range = (frame.kind == Kind::Append).then(|| frame.index..frame.index.saturating_add(1));
            let mut finding = place.clone().about(frame.log, range);
            finding.offset = frame.payload_offset(at);
            finding.bytes = u64::from(frame.len);
            finding.what = format!("the payload of this {:?} does not match its checksum", frame.kind);
            context.damage(finding)?;
        }
        let mut payload = None;
        if matches!(frame.kind, Kind::Facts | Kind::Floor) {
            payload = walk.payload(frame, at)?.map(bytes::Bytes::copy_from_slice);
            if payload.is_none() {
                continue;
            }
        }
        out.frames.push(LooseFrame {
            frame: *frame,
            header_at: at,
            payload,
        });
    }
    Ok(())
}
