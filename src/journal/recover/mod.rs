//! Recovery: reads a directory and says what the journal is. Changes nothing on disk, ever.
//!
//! 1. *Candidates*: every segment file with its opening. Foreign files and newer versions end it here.
//! 2. *Last*: the segment of highest id whose unit verifies or is witnessed; what stands above it is void. It is walked
//!    in full and its first bad place is judged: end, torn, or damage.
//! 3. *Chain*: from there back to the floor. Each segment must reach the end that its successor recorded.
//! 4. *Replay*: what the logs hold, up to the proven end. Behind it stands the *tail*, which the next life writes again.
//!
//! A writer refuses damage with the place; a view reads on and lists it. Bytes that the system does not give are never
//! taken for a tear.

mod candidates;
mod chain;
mod last;
mod lenient;
mod replay;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{End, Frame, Kind, OPENING_LEN};
use crate::fs::Fs;
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::sync::{Arc, Instant};

use self::candidates::Candidates;
use self::chain::Chain;
use self::last::{Above, Survey};
use super::report::{Cut, Finding, FindingKind, OpenReport, Verdict};
use super::state::Logs;

pub(crate) use self::chain::Counted;
pub(crate) use self::replay::read_cell;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The process that holds the lock and will write: damage is refused.
    Writer,
    /// Somebody who only looks: damage is listed and read around. `live`: beside a writer, whose unproven bytes are
    /// neither torn nor damaged but not there yet; otherwise they are shown as a writer would find them.
    View { live: bool },
}

/// What a directory holds.
pub(crate) struct Recovered {
    pub(crate) uuid: [u8; 16],
    /// The segments of the journal, ascending from the floor. The last one is that of `pred`: a last segment of which
    /// nothing is proven is not among them (in a view, if it shows the tail, it is).
    pub(crate) chain: Vec<Arc<Segment>>,
    /// The logs up to `pred`; in a view without a writer, with the tail.
    pub(crate) logs: Logs,
    /// What stands behind `pred`, in order, marks left out. Empty in a view.
    pub(crate) tail: Vec<TailFrame>,
    /// The last segment is an opening of which nothing is proven, with nothing behind it, and it ends the segment before it. What
    /// may still stand there, written and cut off by a re-homing, comes back if a power cut takes the opening.
    pub(crate) hollow: bool,
    /// Where the proven part ends: what the next opening names as its predecessor. `None` if nothing was ever proven.
    pub(crate) pred: Option<End>,
    /// Lowest segment that the journal needs; 0 or 1: all.
    pub(crate) floor: u64,
    /// Whether that floor is proven, without what this life may write.
    pub(crate) floor_proven: bool,
    /// Files (paths below the root) that the journal does not need. They may be removed once this life has synced an
    /// opening, and not before.
    pub(crate) discard: Vec<String>,
    /// Names that hold a segment which nobody needs, under a wrong name.
    left_over: Vec<u64>,
    /// Ids above the last segment whose files are full of zeros, ascending: they were named ahead of need.
    pub(crate) blank: Vec<u64>,
    /// The identities of all files that hold, or held, a segment. Empty in a view.
    pub(crate) in_use: BTreeSet<u64>,
    /// Sequence of the next opening or batch.
    pub(crate) next_sequence: u64,
    /// Id of the next segment.
    pub(crate) next_segment: u64,
    /// Lowest incarnation never given to a log.
    pub(crate) incarnation_next: u64,
    /// Highest time in any valid header, in microseconds since 1970.
    pub(crate) last_time: u64,
    /// The last thing in the journal is a closing mark that covers everything.
    pub(crate) clean: bool,
    /// The last segment, proven or not.
    pub(crate) last: Arc<Segment>,
    /// What is wrong. Of a writer: torn ends only, since all else is refused.
    pub(crate) findings: Vec<Finding>,
    pub(crate) report: OpenReport,
    /// Segments whose index is missing or bad, with the bytes it should have. They serve from memory meanwhile; see
    /// [`Segment::seal`]. The part of the last segment that is proven is one of them.
    pub(crate) missing_indexes: Vec<MissingIndex>,
    /// What the segments hold. Batches only of those that were walked.
    pub(crate) counted: Counted,
}

/// A frame behind the proven end, with its payload.
#[derive(Clone, Debug)]
pub(crate) struct TailFrame {
    pub(crate) frame: Frame,
    pub(crate) payload: Bytes,
    pub(crate) segment: Arc<Segment>,
    pub(crate) header_at: u64,
}

/// An index to be written.
pub(crate) struct MissingIndex {
    pub(crate) segment: Arc<Segment>,
    pub(crate) bytes: Bytes,
}

/// Reads the journal below the root of `fs`.
///
/// Errors: `NotFound` if there is none. `Invalid`, `Unsupported`: files that are not this journal's, or of a newer
/// version. `Damaged`: acknowledged bytes are missing (a writer only, or if nothing at all is left). `Io`: bytes that
/// are needed could not be read. Nothing was changed in any case.
pub(crate) fn recover(fs: &Arc<dyn Fs>, config: &Config, mode: Mode) -> Result<Recovered> {
    recover_observed(fs, config, mode, &mut |_| {})
}

/// The same; `progress` is told how many more bytes were walked.
pub(crate) fn recover_observed(
    fs: &Arc<dyn Fs>,
    config: &Config,
    mode: Mode,
    progress: &mut dyn FnMut(u64),
) -> Result<Recovered> {
    let mut found = attempt(fs, config, mode, progress);
    if mode == Mode::Writer {
        return found;
    }
    // Without the lock a writer may be there, or come and go, and files go and bytes appear between one read and the next: a finding
    // is what is seen twice.
    for _again in 0..VIEW_ATTEMPTS {
        let sound = matches!(&found, Ok(recovered) if recovered.findings.is_empty());
        if sound || removed(Rule::ViewLooksAgain) {
            break;
        }
        let next = attempt(fs, config, mode, progress);
        let same = complaint(&found) == complaint(&next);
        found = next;
        if same {
            break;
        }
    }
    found
}

/// How often a view looks again.
const VIEW_ATTEMPTS: usize = 8;

/// More findings than this are not listed.
const FINDINGS_MAX: usize = 10_000;

/// What is wrong, for comparison: the floor and the places.
fn complaint(found: &Result<Recovered>) -> (u64, Vec<(PathBuf, u64)>) {
    match found {
        Ok(recovered) => {
            let places = recovered.findings.iter();
            let places = places.map(|finding| (finding.path.clone(), finding.offset));
            (recovered.floor, places.collect())
        }
        Err(e) => {
            let path = e.path().map(PathBuf::from).unwrap_or_default();
            (u64::MAX, vec![(path, e.offset().unwrap_or(0))])
        }
    }
}

fn attempt(
    fs: &Arc<dyn Fs>,
    config: &Config,
    mode: Mode,
    progress: &mut dyn FnMut(u64),
) -> Result<Recovered> {
    let mut context = Context {
        fs: &**fs,
        mode,
        verify: config.verify_on_open,
        findings: Vec::new(),
        warnings: Vec::new(),
        progress,
    };
    let started = Instant::now();
    let candidates = candidates::read(&mut context)?;
    let listed = Instant::now();
    let judged = judge(&mut context, &candidates, listed);
    // What a file under a wrong name makes of the rest is no matter, unless it is a left-over.
    candidates.refuse_misnamed(judged.as_ref().map_or(&[], |recovered| &recovered.left_over))?;
    let mut recovered = judged?;
    recovered.report.list = listed - started;
    recovered.report.total = started.elapsed();
    tell(&recovered);
    Ok(recovered)
}

/// What the candidates make.
fn judge(context: &mut Context<'_>, candidates: &Candidates, listed: Instant) -> Result<Recovered> {
    let (last, above) = last::find(context, candidates)?;
    let mut survey = survey(context, &last)?;
    if context.live() {
        survey.believe_what_is_gone(candidates, &last);
    }
    let chain = walk(context, candidates, &last, &survey)?;
    let proven = Instant::now();
    let mut recovered = assemble(context, candidates, &last, above, survey, chain)?;
    recovered.report.structure = proven - listed;
    recovered.report.replay = proven.elapsed();
    Ok(recovered)
}

/// Walks the last segment. What cannot be read ends a writer's attempt.
fn survey(context: &mut Context<'_>, last: &Arc<Segment>) -> Result<Survey> {
    last::survey(context, last, false).or_else(|e| {
        context.unreadable(e)?;
        last::survey(context, last, true)
    })
}

/// The journal's segments with what they do, from the floor on.
fn walk(
    context: &mut Context<'_>,
    candidates: &Candidates,
    last: &Arc<Segment>,
    survey: &Survey,
) -> Result<Chain> {
    let mut chain = Chain::new();
    chain.raise_floor(context, last, last.opening.floor, survey.durable_through != 0)?;
    // Beside a writer what is unproven is not there yet, and with it a floor.
    let unproven = if context.live() {
        None
    } else {
        Some(&survey.unproven)
    };
    for frame in unproven.into_iter().flatten().flat_map(|batch| &batch.frames) {
        if frame.kind == Kind::Floor {
            chain.raise_floor(context, last, frame.index, false)?;
        }
    }
    if let Some(bad) = &survey.damage {
        if !context.lenient() {
            let what = format!("{}; batch {} was acknowledged", bad.what, bad.sequence);
            return Err(context.refusal(FindingKind::Damaged, last.path.clone(), last::extent(bad), &what));
        }
        chain.take_damaged(context, last, survey)?;
        let from = chain.before(context, candidates, last)?;
        chain.descend(context, candidates, from)?;
        return Ok(chain);
    }
    let shown = match context.mode {
        Mode::View { live } if !live || removed(Rule::ViewShowsProven) => Some(survey.valid),
        _ if survey.durable_through != 0 => Some(survey.proven),
        _ => None,
    };
    let from = match shown {
        Some(end) => Some((Arc::clone(last), end)),
        None => chain.before(context, candidates, last)?,
    };
    chain.descend(context, candidates, from)?;
    Ok(chain)
}

fn assemble(
    context: &mut Context<'_>,
    candidates: &Candidates,
    last: &Arc<Segment>,
    above: Above,
    survey: Survey,
    chain: Chain,
) -> Result<Recovered> {
    let mut logs = replay(context, last, &survey, &chain)?;
    let tail = match context.mode {
        Mode::Writer => survey.tail(last)?,
        Mode::View { .. } => Vec::new(),
    };
    let carried = tail
        .iter()
        .map(|item| item.frame.incarnation + 1)
        .max()
        .unwrap_or(0);
    let incarnation_next = logs.incarnation_next.max(carried);
    logs.incarnation_next = incarnation_next;

    let proven_last = survey.durable_through != 0;
    let mut blank = above.blank;
    blank.sort_unstable();
    let mut report = report(context, &survey, &chain, above.cut);
    // After the verdict, which is the same for a writer, to whom a copy that the other one makes good is no damage.
    bad_copies(context, candidates, &chain, last, proven_last);
    report.warnings = std::mem::take(&mut context.warnings);
    report.logs = logs.len();
    let openings = || {
        let all = candidates.all.values();
        all.filter_map(|candidate| candidate.segment.as_ref().map(|segment| &segment.opening))
    };
    let sequences = openings().map(|opening| opening.sequence);
    let times = openings().map(|opening| opening.time);
    Ok(Recovered {
        uuid: last.opening.uuid,
        last: Arc::clone(last),
        in_use: match context.mode {
            Mode::Writer => candidates.identities(&blank)?,
            Mode::View { .. } => BTreeSet::new(),
        },
        left_over: candidates.left_over(&chain, last, chain.floor),
        discard: discard(candidates, &chain, last, &survey, &blank),
        blank,
        logs,
        hollow: survey.is_hollow(last),
        tail,
        pred: survey.pred(last),
        floor: chain.floor,
        floor_proven: chain.floor == chain.floor_proven,
        next_sequence: 1 + sequences.fold(survey.sequence.max(above.sequence), u64::max),
        // Not above those of indexes: what an index of the id may say of another segment is not believed.
        next_segment: 1 + if removed(Rule::IdsAreFresh) {
            last.id
        } else {
            candidates.highest()
        },
        incarnation_next,
        last_time: times.fold(survey.time.max(above.time), u64::max),
        clean: report.verdict == Verdict::Clean,
        findings: std::mem::take(&mut context.findings),
        report,
        counted: chain.counted,
        chain: chain.links.into_iter().map(|link| link.segment).collect(),
        missing_indexes: chain.missing_indexes,
    })
}

/// What the logs hold, up to where the chain ends.
fn replay(context: &mut Context<'_>, last: &Arc<Segment>, survey: &Survey, chain: &Chain) -> Result<Logs> {
    let mut logs = Logs::default();
    for link in &chain.links {
        replay::link(context, &mut logs, link)?;
    }
    let lowest = chain.links.first().map_or(last, |link| &link.segment);
    if !removed(Rule::StatedIsThere) {
        replay::complete(context, &logs, lowest, &survey.unproven)?;
    }
    if !removed(Rule::CellsAreRead) {
        replay::cells(context, &mut logs, &survey.unproven)?;
    }
    let stated = chain.incarnation_next.max(last.opening.incarnation_next);
    logs.incarnation_next = logs.incarnation_next.max(stated);
    Ok(logs)
}

/// The verdict with what was cut; times, warnings and the number of logs are filled in by others.
fn report(context: &mut Context<'_>, survey: &Survey, chain: &Chain, mut cut: Vec<Cut>) -> OpenReport {
    if !context.live() {
        cut.extend(survey.cut.clone());
    }
    for cut in &cut {
        let place = cut.offset..cut.offset + cut.bytes;
        let path = cut.path.clone();
        context.note(Finding::new(FindingKind::Torn, path, place, cut.to_string()));
    }
    let damaged = context.findings.iter().any(Finding::is_damage);
    let clean = survey.closed && !survey.has_tail() && cut.is_empty() && !damaged;
    let carried = || survey.unproven.iter().filter(|batch| !batch.frames.is_empty());
    let lens = chain.links.iter().map(|link| link.segment.readable_len());
    OpenReport {
        verdict: match (clean, cut.is_empty()) {
            (true, _) => Verdict::Clean,
            (false, true) => Verdict::Unclean,
            (false, false) => Verdict::Torn,
        },
        carried_bytes: carried().map(|batch| u64::from(batch.header.payload_len)).sum(),
        carried_batches: carried().count() as u64,
        segments: chain.links.len(),
        bytes: lens.filter_map(Result::ok).sum(),
        cut,
        ..OpenReport::default()
    }
}

/// Tells of openings of which one copy is bad: a power cut may leave that while the opening is not proven. Afterwards it
/// is rot, which the other copy makes good; a writer goes on, a view lists it.
fn bad_copies(
    context: &mut Context<'_>,
    candidates: &Candidates,
    chain: &Chain,
    last: &Segment,
    proven_last: bool,
) {
    for candidate in candidates.all.values() {
        let Some((at, kind)) = candidate.bad_copy else {
            continue;
        };
        let what = format!(
            "one of the two copies of the opening is bad ({}); the other one serves",
            candidate.why
        );
        context.warn(&candidate.path, at, &what);
        let proven = proven_last || candidate.id != last.id;
        if context.lenient() && proven && chain.links.iter().any(|link| link.segment.id == candidate.id) {
            let place = at..at + OPENING_LEN as u64;
            context.note(Finding::new(kind, candidate.path.clone(), place, what));
        }
    }
}

/// The files that the journal does not need. A last segment of which nothing is proven is one of them: what is valid of
/// it is the tail, which this life's first segment carries before anything is removed; with it goes a floor that stands in the
/// tail. Files below a floor that is valid and neither proven nor carried are left for a later life. Files that were named ahead of
/// need are used again.
fn discard(
    candidates: &Candidates,
    chain: &Chain,
    last: &Segment,
    survey: &Survey,
    blank: &[u64],
) -> Vec<String> {
    let proven_last = survey.durable_through != 0;
    let tail = survey.unproven.iter().flat_map(|batch| &batch.frames);
    let carried = tail
        .filter(|frame| frame.kind == Kind::Floor && !removed(Rule::CarriedFloor))
        .map(|frame| frame.index);
    let proven = if removed(Rule::DeleteOnProof) {
        chain.floor
    } else {
        chain.floor_proven
    };
    let floor = carried.max().unwrap_or(0).max(proven);
    let mut needed: BTreeSet<u64> = chain.links.iter().map(|link| link.segment.id).collect();
    if proven_last {
        needed.insert(last.id);
    } else {
        needed.remove(&last.id);
    }
    if !removed(Rule::NamedAheadIsKept) {
        needed.extend(blank);
    }
    let kept = |id: &u64| needed.contains(id) || (*id < chain.floor && *id >= floor);
    let segments = candidates
        .all
        .keys()
        .filter(|id| !kept(id))
        .map(|id| Segment::name(*id));
    let indexes = candidates
        .indexes
        .iter()
        .filter(|id| !kept(id))
        .map(|id| Segment::index_name(*id));
    let left_over = candidates.left_over(chain, last, floor);
    let misnamed = left_over.into_iter().map(Segment::name);
    segments.chain(indexes).chain(misnamed).collect()
}

fn tell(recovered: &Recovered) {
    let report = &recovered.report;
    tracing::info!(
        verdict = %report.verdict,
        segments = report.segments,
        bytes = report.bytes,
        logs = report.logs,
        clean = recovered.clean,
        unproven_batches = report.carried_batches,
        unproven_bytes = report.carried_bytes,
        micros = u64::try_from(report.total.as_micros()).unwrap_or(u64::MAX),
        "read the journal"
    );
    for cut in &report.cut {
        tracing::warn!(path = %cut.path.display(), offset = cut.offset, bytes = cut.bytes, batches = cut.batches, why = %cut.why, "cut a torn end");
    }
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    for finding in recovered.findings.iter().filter(|finding| finding.is_damage()) {
        tracing::warn!("{finding}");
    }
}

/// What every step needs.
struct Context<'a> {
    fs: &'a dyn Fs,
    mode: Mode,
    /// Read and verify every payload.
    verify: bool,
    findings: Vec<Finding>,
    warnings: Vec<String>,
    progress: &'a mut dyn FnMut(u64),
}

impl Context<'_> {
    /// Acknowledged bytes are missing: ends a writer's attempt.
    fn damage(&mut self, finding: Finding) -> Result<()> {
        if self.lenient() {
            self.note(finding);
            return Ok(());
        }
        let place = finding.offset..finding.offset.saturating_add(finding.bytes);
        let what = match finding.log {
            Some(log) => format!("{} (log {log})", finding.what),
            None => finding.what,
        };
        Err(self.refusal(finding.kind, finding.path, place, &what))
    }

    /// Bytes could not be read: ends a writer's attempt.
    fn unreadable(&mut self, error: Error) -> Result<()> {
        if !self.lenient() {
            return Err(error);
        }
        let at = error.offset().unwrap_or(0);
        let path = error.path().map(PathBuf::from).unwrap_or_default();
        self.note(Finding::new(
            FindingKind::Unreadable,
            path,
            at..at,
            error.to_string(),
        ));
        Ok(())
    }

    fn note(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Nothing is lost, and a person should know.
    fn warn(&mut self, path: &Path, at: u64, what: &str) {
        self.warnings.push(format!("{} at {at}: {what}", path.display()));
    }

    fn progress(&mut self, bytes: u64) {
        (self.progress)(bytes);
    }

    /// The error that refuses a damaged journal, with what to do next.
    fn refusal(&self, kind: FindingKind, path: PathBuf, place: Range<u64>, what: &str) -> Error {
        let root = self.fs.display("");
        let kind = if kind == FindingKind::Unreadable {
            ErrorKind::Io
        } else {
            ErrorKind::Damaged
        };
        let what = format!(
            "{what}. Nothing was changed; `everlog verify {}` lists all that is damaged",
            root.display()
        );
        Error::at_offset(kind, path, place.start, what)
    }

    fn lenient(&self) -> bool {
        self.mode != Mode::Writer
    }

    fn live(&self) -> bool {
        self.mode == Mode::View { live: true }
    }
}

#[cfg(test)]
mod tests;
