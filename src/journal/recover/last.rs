//! The last segment: which one it is, how far it is proven, and what stands behind that.
//!
//! The last segment is the one of highest id whose *unit* - the opening with the batch it carries - verifies, or is
//! witnessed: a valid header in the same segment names a durable-through, so the unit's sync returned, whatever became
//! of its bytes since. Everything above is void: written, if at all, by a life that was never told that it is durable.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{BATCHES_AT, End, Flags, Frame, Kind, header_at};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::segment::scan::{Identity, Scanned, WINDOW_WHOLE, Window, scan};
use crate::segment::verdict::{Decision, Found, decide};
use crate::segment::walk::{BadPlace, Batch, Depth, Step, Walk};
use crate::sync::Arc;

use super::super::report::{Cut, Finding, FindingKind};
use super::candidates::{Candidate, Candidates};
use super::{Context, TailFrame};

/// What stands above the last segment.
#[derive(Default)]
pub(super) struct Above {
    pub(super) cut: Vec<Cut>,
    /// Highest sequence and time seen there.
    pub(super) sequence: u64,
    pub(super) time: u64,
    /// Ids of files full of zeros: named ahead of need and never written.
    pub(super) blank: Vec<u64>,
}

/// Finds the last segment and looks at everything above it.
pub(super) fn find(context: &mut Context<'_>, candidates: &Candidates) -> Result<(Arc<Segment>, Above)> {
    let mut above = Above::default();
    for candidate in candidates.all.values().rev() {
        match judge_unit(context, candidate)? {
            Unit::Counts(segment) => return Ok((segment, above)),
            Unit::Void { why, seen } => {
                above.sequence = above.sequence.max(seen.sequence);
                above.time = above.time.max(seen.time);
                if seen.end == 0 {
                    above.blank.push(candidate.id);
                }
                if seen.end > 0 && !context.live() && !removed(Rule::VoidIsReported) {
                    let cut = Cut {
                        path: candidate.path.clone(),
                        offset: 0,
                        bytes: seen.end,
                        batches: seen.headers,
                        why,
                    };
                    above.cut.push(cut);
                }
            }
            Unit::Lost => {}
        }
    }
    let path = context.fs.display(crate::segment::JOURNAL_DIR);
    // What the system does not give is not damaged for all that anybody knows.
    let unreadable = context
        .findings
        .iter()
        .find(|finding| finding.kind == FindingKind::Unreadable);
    if let Some(finding) = unreadable {
        let what = format!("there are segments, and no opening can be read: {}", finding.what);
        return Err(context.refusal(FindingKind::Unreadable, path, 0..0, &what));
    }
    let what = "there are segments, and no opening of any of them verifies";
    Err(context.refusal(FindingKind::Damaged, path, 0..0, what))
}

enum Unit {
    /// It belongs to the journal.
    Counts(Arc<Segment>),
    /// Nobody was told of it.
    Void { why: String, seen: Scanned },
    /// It was acknowledged and is lost; said so already.
    Lost,
}

fn judge_unit(context: &mut Context<'_>, candidate: &Candidate) -> Result<Unit> {
    let Some(segment) = &candidate.segment else {
        return judge_without_opening(context, candidate);
    };
    check_len(context, candidate, segment)?;
    let tolerant = context.lenient();
    let Some(why) = carry_fault(segment, tolerant)? else {
        return Ok(Unit::Counts(Arc::clone(segment)));
    };
    let len = segment.readable_len()?;
    let mut walk = Walk::new(segment, len, Depth::Tables, tolerant)?;
    let mut seen = walk.scan(BATCHES_AT, None)?;
    let found = Found {
        readable: true,
        valid: false,
        witnessed: seen.durable_through != 0 && !removed(Rule::UnitWitness),
        blank: false,
    };
    if decide(found) == Decision::Damaged {
        // Its bytes are judged where the segment is walked.
        return Ok(Unit::Counts(Arc::clone(segment)));
    }
    if let Some(hole) = walk.window().hole_in(BATCHES_AT..len) {
        let what = format!("{why}, and whether that was acknowledged cannot be read");
        let path = candidate.path.clone();
        context.damage(Finding::new(FindingKind::Unreadable, path, hole, what))?;
        return Ok(Unit::Lost);
    }
    seen.sequence = seen.sequence.max(segment.opening.sequence);
    seen.time = seen.time.max(segment.opening.time);
    Ok(Unit::Void { why, seen })
}

/// A segment is written with zeros to its full length, and synced, before it gets its name: a file that is shorter than
/// its opening says was cut by somebody, and with it perhaps every trace of what was acknowledged.
fn check_len(context: &mut Context<'_>, candidate: &Candidate, segment: &Segment) -> Result<()> {
    let (len, full) = (candidate.len, segment.opening.len);
    if len >= full || removed(Rule::FileLength) {
        return Ok(());
    }
    let what = format!("the file was cut short: it has {len} bytes and was written with {full}");
    context.damage(Finding::new(
        FindingKind::Damaged,
        candidate.path.clone(),
        len..full,
        what,
    ))
}

/// Why the batch that the opening carries does not verify; `None` if it does, or nothing is carried.
fn carry_fault(segment: &Segment, tolerant: bool) -> Result<Option<String>> {
    let (len, crc) = (segment.opening.carry_len, segment.opening.carry_crc);
    if len == 0 || removed(Rule::UnitIsWhole) {
        return Ok(None);
    }
    let to = segment.readable_len()?.min(BATCHES_AT + len);
    let mut walk = Walk::new(segment, to, Depth::Payloads, tolerant)?;
    Ok(match walk.step()? {
        Step::Batch(Batch { header, .. }) => {
            let named = header.crc == crc && u64::from(header.len) == len && header.flags.has(Flags::CARRY);
            (!named && !removed(Rule::UnitIsNamed))
                .then(|| "the first batch is not the one that the opening carries".to_owned())
        }
        Step::Bad(bad) => Some(format!("the batch that the opening carries is bad: {}", bad.what)),
        Step::Full => Some("the file ends before the batch that the opening carries".to_owned()),
    })
}

/// No copy of the opening verifies: was anybody told of it?
fn judge_without_opening(context: &mut Context<'_>, candidate: &Candidate) -> Result<Unit> {
    if candidate.len < BATCHES_AT && !removed(Rule::FileLength) {
        return cut_short(context, candidate);
    }
    let identity = Identity::unknown(candidate.id);
    let tolerant = context.lenient();
    let mut window = Window::new(
        &*candidate.file,
        &candidate.path,
        candidate.len,
        WINDOW_WHOLE,
        tolerant,
    );
    // The head is no place for a header, and what it holds is not zero says whether the file was ever used.
    let head = scan(&mut window, identity, 0..BATCHES_AT.min(candidate.len), None)?;
    let mut seen = scan(
        &mut window,
        identity,
        BATCHES_AT..candidate.len.max(BATCHES_AT),
        None,
    )?;
    let hole = window.hole_in(0..candidate.len);
    if seen.headers == 0 && seen.end == BATCHES_AT {
        seen.end = head.end;
    }
    let found = Found {
        readable: hole.is_none(),
        valid: false,
        witnessed: seen.durable_through != 0 && !removed(Rule::LostOpeningWitness),
        blank: seen.end == 0,
    };
    match decide(found) {
        Decision::Damaged => {
            let what = format!(
                "no copy of the opening verifies ({}), and a later batch shows that it was synced",
                candidate.why
            );
            context.damage(Finding::new(
                FindingKind::Damaged,
                candidate.path.clone(),
                0..seen.end,
                what,
            ))?;
            Ok(Unit::Lost)
        }
        Decision::Unreadable => {
            let what = "no copy of the opening verifies, and what stands behind it cannot be read";
            context.damage(Finding::new(
                FindingKind::Unreadable,
                candidate.path.clone(),
                hole.unwrap_or_default(),
                what,
            ))?;
            Ok(Unit::Lost)
        }
        Decision::Keep | Decision::End | Decision::Torn => {
            let why = format!("no copy of the opening verifies ({})", candidate.why);
            Ok(Unit::Void { why, seen })
        }
    }
}

/// A file that is shorter than any segment. Its full length was synced before it got its name, whatever became of it since: no crash
/// leaves this.
fn cut_short(context: &mut Context<'_>, candidate: &Candidate) -> Result<Unit> {
    let what = format!(
        "the file was cut short: it has {} bytes, and no segment is so small",
        candidate.len
    );
    context.damage(Finding::new(
        FindingKind::Damaged,
        candidate.path.clone(),
        candidate.len..BATCHES_AT,
        what,
    ))?;
    Ok(Unit::Lost)
}

/// The last segment, walked in full.
pub(super) struct Survey {
    /// Highest sequence of the segment that a returned sync covered; 0 if not even the opening is proven.
    pub(super) durable_through: u64,
    /// Where the proven part ends.
    pub(super) proven: End,
    /// Where the valid part ends.
    pub(super) valid: End,
    /// The valid batches behind the proven part.
    pub(super) unproven: VecDeque<Batch>,
    /// The highest floor that its opening, or a proven batch of it, states.
    floor: u64,
    /// The last valid batch is a closing mark.
    pub(super) closed: bool,
    /// Highest sequence and time in any valid header.
    pub(super) sequence: u64,
    pub(super) time: u64,
    pub(super) cut: Option<Cut>,
    /// The place where acknowledged bytes are missing.
    pub(super) damage: Option<BadPlace>,
}

/// Walks `segment` from its opening to the first place that does not verify, and judges that place.
pub(super) fn survey(context: &mut Context<'_>, segment: &Segment, tolerant: bool) -> Result<Survey> {
    let opening = &segment.opening;
    let len = segment.readable_len()?;
    let depth = if removed(Rule::LastPayloads) {
        Depth::Tables
    } else {
        Depth::Payloads
    };
    let mut walk = Walk::new(segment, len, depth, tolerant)?;
    let mut seen = Scanned {
        sequence: opening.sequence,
        time: opening.time,
        ..Scanned::default()
    };
    let start = walk.end();
    let mut found = Survey {
        durable_through: 0,
        proven: start,
        valid: start,
        unproven: VecDeque::new(),
        floor: opening.floor,
        closed: false,
        sequence: 0,
        time: 0,
        cut: None,
        damage: None,
    };
    let bad = loop {
        match walk.step()? {
            Step::Full => break None,
            Step::Bad(bad) => break Some(bad),
            Step::Batch(batch) => {
                let len_of_last = u64::from(batch.header.len);
                seen.take(&batch.header);
                found.closed = batch.header.flags.has(Flags::CLOSING);
                found.valid = walk.end();
                found.unproven.push_back(batch);
                found.settle(segment, seen.durable_through);
                context.progress(len_of_last);
            }
        }
    };
    let at = bad.as_ref().map_or(len, |bad| bad.at);
    let behind = walk.scan(at, None)?;
    found.sequence = seen.sequence.max(behind.sequence);
    found.time = seen.time.max(behind.time);
    let named_behind = if removed(Rule::WitnessesBehind) {
        0
    } else {
        behind.durable_through
    };
    found.settle(segment, seen.durable_through.max(named_behind));
    if let Some(bad) = bad {
        let readable = walk.window().hole_in(bad.at..len).is_none();
        found.judge(segment, bad, &behind, readable);
    }
    Ok(found)
}

impl Survey {
    /// A sync covered everything up to `durable_through`.
    fn settle(&mut self, segment: &Segment, mut durable_through: u64) {
        let opening = &segment.opening;
        if opening.carry_len != 0 && durable_through == opening.sequence {
            // The opening and what it carries stand under one sync.
            durable_through += 1;
        }
        if removed(Rule::TailIsUnproven) {
            durable_through = self.valid.sequence;
        }
        self.durable_through = durable_through;
        let proven = self
            .unproven
            .partition_point(|batch| batch.header.sequence <= durable_through);
        for batch in self.unproven.drain(..proven) {
            self.floor = self.floor.max(floor_in(&batch));
            let header = batch.header;
            self.proven = End {
                segment: segment.id,
                offset: header.end(),
                sequence: header.sequence,
                chain: header.crc,
            };
        }
    }

    /// Beside a writer, a file that is gone bears witness to the floor that let it go: files are removed only when that floor is
    /// synced. Without this a view would show neither what the file said nor what was said again of it.
    pub(super) fn believe_what_is_gone(&mut self, candidates: &Candidates, segment: &Segment) {
        let mut pred = segment.opening.pred;
        while let Some(end) = pred.filter(|end| end.segment >= self.floor) {
            let Some(candidate) = candidates.all.get(&end.segment) else {
                let states = |batch: &&Batch| floor_in(batch) > end.segment;
                let sequence = self
                    .unproven
                    .iter()
                    .find(states)
                    .map(|batch| batch.header.sequence);
                return sequence
                    .into_iter()
                    .for_each(|synced| self.settle(segment, synced));
            };
            pred = candidate.segment.as_ref().and_then(|before| before.opening.pred);
        }
    }

    fn judge(&mut self, segment: &Segment, bad: BadPlace, behind: &Scanned, readable: bool) {
        let found = Found {
            readable,
            valid: false,
            witnessed: self.durable_through >= bad.sequence,
            blank: behind.end == bad.at,
        };
        match decide(found) {
            Decision::Keep | Decision::End => {}
            Decision::Damaged | Decision::Unreadable => self.damage = Some(bad),
            Decision::Torn if removed(Rule::CutIsReported) => self.closed = false,
            Decision::Torn => {
                let own = u64::from(bad.rest.is_none());
                self.closed = false;
                self.cut = Some(Cut {
                    path: segment.path.clone(),
                    offset: bad.at,
                    bytes: behind.end - bad.at,
                    batches: behind.headers + own,
                    why: bad.what,
                });
            }
        }
    }

    /// Where the proven part of the journal ends: in this segment, or if nothing of it is proven where its opening says that
    /// its predecessor does, unchanged.
    pub(super) fn pred(&self, segment: &Segment) -> Option<End> {
        if self.durable_through != 0 || removed(Rule::PredecessorIsProven) {
            Some(self.proven)
        } else {
            segment.opening.pred
        }
    }

    /// An opening of which nothing is proven, with nothing behind it, ends its predecessor all the same.
    pub(super) fn is_hollow(&self, segment: &Segment) -> bool {
        self.durable_through == 0
            && !self.has_tail()
            && segment.opening.pred.is_some()
            && !removed(Rule::HollowOpening)
    }

    /// Whether frames stand behind the proven part.
    pub(super) fn has_tail(&self) -> bool {
        self.unproven.iter().any(|batch| !batch.frames.is_empty())
    }

    /// The frames behind the proven part, with their payloads, which are read and verified once more.
    pub(super) fn tail(&self, segment: &Arc<Segment>) -> Result<Vec<TailFrame>> {
        let mut walk = Walk::new(segment, segment.readable_len()?, Depth::Payloads, false)?;
        let mut tail = Vec::new();
        for batch in &self.unproven {
            for (i, frame) in batch.frames.iter().enumerate() {
                let header_at = header_at(batch.header.offset, i);
                let payload = tail_payload(&mut walk, segment, frame, header_at)?;
                tail.push(TailFrame {
                    frame: *frame,
                    payload,
                    segment: Arc::clone(segment),
                    header_at,
                });
            }
        }
        Ok(tail)
    }
}

/// The highest floor that the frames of `batch` state; 0 if none does.
fn floor_in(batch: &Batch) -> u64 {
    let floors = batch.frames.iter().filter(|frame| frame.kind == Kind::Floor);
    floors.map(|frame| frame.index).max().unwrap_or(0)
}

fn tail_payload(walk: &mut Walk<'_>, segment: &Segment, frame: &Frame, header_at: u64) -> Result<Bytes> {
    let at = frame.payload_offset(header_at);
    match walk.payload(frame, header_at)? {
        Some(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        None => {
            let what = "a payload that was sound a moment ago is not: the disk or the memory is failing";
            Err(Error::at_offset(ErrorKind::Damaged, &segment.path, at, what))
        }
    }
}

/// The bytes of a bad place, as far as its header says.
pub(super) fn extent(bad: &BadPlace) -> Range<u64> {
    bad.at..bad.rest.as_ref().map_or(bad.at, |rest| rest.header.end())
}
