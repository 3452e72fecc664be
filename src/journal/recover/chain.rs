//! The walk from the last segment back to the floor: which segments the journal consists of, where each ends, and that
//! each is there up to that end.

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{End, Floor, Frame, Index, IndexOp, Kind};
use crate::fs::Access;
use crate::mutant::{Rule, removed};
use crate::segment::walk::{BadPlace, Depth};
use crate::segment::{IndexBytes, Segment, index};
use crate::sync::Arc;

use super::super::report::{Finding, FindingKind};
use super::candidates::Candidates;
use super::last::{Survey, extent};
use super::{Context, MissingIndex, lenient};

/// Operations held between the walk back and the replay; what is above is read from the index once more.
const OPS_HELD_MAX: usize = 1 << 20;

/// A segment of the journal with its end and what its frames do.
pub(super) struct Link {
    pub(super) segment: Arc<Segment>,
    pub(super) end: End,
    pub(super) content: Content,
}

/// What the frames of a segment do.
pub(super) enum Content {
    Index(Index),
    /// The same as the first, to be read again.
    Indexed,
    /// What is left of a damaged segment, frame by frame: frame, offset of its header, payload if it was read.
    Frames(Vec<LooseFrame>),
}

/// A frame of a damaged segment.
pub(super) struct LooseFrame {
    pub(super) frame: Frame,
    pub(super) header_at: u64,
    pub(super) payload: Option<Bytes>,
}

/// The segments from the floor on, and what else the walk saw.
pub(super) struct Chain {
    /// Ascending.
    pub(super) links: Vec<Link>,
    /// Lowest segment that the journal needs; 0 or 1: all.
    pub(super) floor: u64,
    /// The same as far as it is proven, which is what permits deletion.
    pub(super) floor_proven: u64,
    /// Lowest incarnation that nothing here has.
    pub(super) incarnation_next: u64,
    pub(super) missing_indexes: Vec<MissingIndex>,
    pub(super) counted: Counted,
    held: usize,
}

/// What was walked, batch by batch, or taken from an index.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Only those that were walked.
    pub(crate) batches: u64,
    pub(crate) entries: u64,
}

impl Chain {
    /// Whether the journal can do without the segment `id`, below `last`: the walk went down to the floor without it. One that was
    /// lenient may have ended before, where something is missing.
    pub(super) fn spares(&self, id: u64, last: &Segment) -> bool {
        let lowest = self.links.first().map_or(last, |link| &*link.segment);
        let whole = lowest.opening.pred.is_none_or(|pred| pred.segment < self.floor);
        whole && id < last.id && self.links.iter().all(|link| link.segment.id != id)
    }

    pub(super) fn new() -> Chain {
        Chain {
            links: Vec::new(),
            floor: 0,
            floor_proven: 0,
            incarnation_next: 0,
            missing_indexes: Vec::new(),
            counted: Counted::default(),
            held: 0,
        }
    }

    /// Adds a segment up to its end and everything before it down to the floor. All of it is proven: bytes of a segment
    /// are not submitted before every byte of its predecessor up to the recorded end is synced.
    pub(super) fn descend(
        &mut self,
        context: &mut Context<'_>,
        candidates: &Candidates,
        from: Option<(Arc<Segment>, End)>,
    ) -> Result<()> {
        let mut next = from;
        while let Some((segment, end)) = next {
            self.load(context, candidates, &segment, end)?;
            next = self.before(context, candidates, &segment)?;
        }
        self.links.reverse();
        let floor = self.floor;
        self.links.retain(|link| link.segment.id >= floor);
        Ok(())
    }

    /// Adds what is left of the last segment.
    pub(super) fn take_damaged(
        &mut self,
        context: &mut Context<'_>,
        last: &Arc<Segment>,
        survey: &Survey,
    ) -> Result<()> {
        let to = last.readable_len()?;
        let read = lenient::read(context, last, to, survey.durable_through, Depth::Payloads)?;
        self.counted.batches += read.batches;
        self.take(context, last, survey.valid, Content::Frames(read.frames))
    }

    /// The predecessor of `segment` and its recorded end; `None` at the floor.
    pub(super) fn before(
        &self,
        context: &mut Context<'_>,
        candidates: &Candidates,
        segment: &Segment,
    ) -> Result<Option<(Arc<Segment>, End)>> {
        let Some(pred) = segment.opening.pred else {
            return Ok(None);
        };
        if pred.segment < self.floor && !removed(Rule::FloorEndsTheWalk) {
            return Ok(None);
        }
        Ok(predecessor(context, candidates, segment, pred)?.map(|found| (found, pred)))
    }

    /// Proves the structure of one segment, from its index if that can be trusted.
    fn load(
        &mut self,
        context: &mut Context<'_>,
        candidates: &Candidates,
        segment: &Arc<Segment>,
        end: End,
    ) -> Result<()> {
        let file = open_index(context, candidates, segment.id);
        let trusted =
            file.and_then(|file| index::read_trusted(&*file, segment, end).map(|index| (file, index)));
        let content = match trusted {
            Some((file, index)) => {
                segment.seal(end, IndexBytes::File(file));
                if context.verify {
                    self.walk(context, segment, end, Some(index))?
                } else {
                    Content::Index(index)
                }
            }
            None => self.walk(context, segment, end, None)?,
        };
        self.take(context, segment, end, content)
    }

    /// Walks the segment: for want of an index, or to verify it.
    fn walk(
        &mut self,
        context: &mut Context<'_>,
        segment: &Arc<Segment>,
        end: End,
        trusted: Option<Index>,
    ) -> Result<Content> {
        let depth = if context.verify {
            Depth::Payloads
        } else {
            Depth::Tables
        };
        let built = index::build(segment, end, depth, &mut |bytes| context.progress(bytes));
        let bad = match built {
            Ok(Ok(built)) => {
                self.counted.batches += built.batches;
                return self.adopt(context, segment, end, trusted, built.bytes);
            }
            Ok(Err(bad)) => bad,
            Err(e) if context.lenient() => BadPlace {
                at: e.offset().unwrap_or(0),
                sequence: 0,
                what: e.to_string(),
                rest: None,
            },
            Err(e) => return Err(e),
        };
        if !context.lenient() {
            let what = format!("{}; this was acknowledged", bad.what);
            return Err(context.refusal(FindingKind::Damaged, segment.path.clone(), extent(&bad), &what));
        }
        let read = lenient::read(context, segment, end.offset, end.sequence, depth)?;
        self.counted.batches += read.batches;
        Ok(Content::Frames(read.frames))
    }

    /// An index was built: it serves from memory where there is none on disk.
    fn adopt(
        &mut self,
        context: &mut Context<'_>,
        segment: &Arc<Segment>,
        end: End,
        trusted: Option<Index>,
        bytes: Bytes,
    ) -> Result<Content> {
        let built = index::trusted(&bytes, segment, end).ok_or_else(|| {
            let what = "the index built from the segment does not decode; this is a defect, please report it";
            Error::at(ErrorKind::Damaged, &segment.path, what)
        })?;
        if trusted.as_ref() == Some(&built) {
            return Ok(Content::Index(built));
        }
        if trusted.is_some() {
            let path = context.fs.display(&Segment::index_name(segment.id));
            context.warn(
                &path,
                0,
                "the index verifies and differs from its segment; it is not used",
            );
        }
        segment.seal(end, IndexBytes::Memory(bytes.clone()));
        if end.offset > crate::format::BATCHES_AT {
            self.missing_indexes.push(MissingIndex {
                segment: Arc::clone(segment),
                bytes,
            });
        }
        Ok(Content::Index(built))
    }

    /// Adds what is in a segment.
    pub(super) fn take(
        &mut self,
        context: &mut Context<'_>,
        segment: &Arc<Segment>,
        end: End,
        content: Content,
    ) -> Result<()> {
        self.raise_floor(context, segment, segment.opening.floor, true)?;
        self.incarnation_next = self.incarnation_next.max(segment.opening.incarnation_next);
        let mut content = content;
        match &content {
            Content::Index(index) => {
                for op in &index.ops {
                    match op {
                        IndexOp::Run(run) => self.counted.entries += u64::from(run.count),
                        IndexOp::Frame { frame, payload, .. } => {
                            self.see(context, segment, frame, payload.as_deref())?;
                        }
                    }
                }
                self.held += index.ops.len();
                if self.held > OPS_HELD_MAX {
                    self.held -= index.ops.len();
                    content = Content::Indexed;
                }
            }
            Content::Frames(frames) => {
                for loose in frames {
                    self.see(context, segment, &loose.frame, loose.payload.as_deref())?;
                }
            }
            Content::Indexed => {}
        }
        self.links.push(Link {
            segment: Arc::clone(segment),
            end,
            content,
        });
        Ok(())
    }

    fn see(
        &mut self,
        context: &mut Context<'_>,
        segment: &Segment,
        frame: &Frame,
        payload: Option<&[u8]>,
    ) -> Result<()> {
        self.incarnation_next = self.incarnation_next.max(frame.incarnation + 1);
        if frame.kind == Kind::Append {
            self.counted.entries += 1;
        }
        if frame.kind == Kind::Floor {
            let stated = payload
                .and_then(|payload| Floor::decode(payload).ok())
                .map_or(0, |f| f.incarnation_next);
            self.incarnation_next = self.incarnation_next.max(stated);
            self.raise_floor(context, segment, frame.index, true)?;
        }
        Ok(())
    }

    /// A floor was stated in `segment`. One above its own segment would leave nothing of the statement itself.
    pub(super) fn raise_floor(
        &mut self,
        context: &mut Context<'_>,
        segment: &Segment,
        floor: u64,
        proven: bool,
    ) -> Result<()> {
        if floor > segment.id && !removed(Rule::FloorOfItself) {
            let what =
                format!("the floor is stated to be segment {floor:016x}, above the segment that says so");
            return context.damage(Finding::new(
                FindingKind::Damaged,
                segment.path.clone(),
                0..0,
                what,
            ));
        }
        self.floor = self.floor.max(floor);
        if proven {
            self.floor_proven = self.floor_proven.max(floor);
        }
        Ok(())
    }
}

fn open_index(context: &Context<'_>, candidates: &Candidates, id: u64) -> Option<Arc<dyn crate::fs::File>> {
    if !candidates.indexes.contains(&id) {
        return None;
    }
    context.fs.open(&Segment::index_name(id), Access::Read).ok()
}

/// The segment that `of` names as its predecessor. `None` if it is missing or lost, and the reading is lenient.
fn predecessor(
    context: &mut Context<'_>,
    candidates: &Candidates,
    of: &Segment,
    pred: End,
) -> Result<Option<Arc<Segment>>> {
    let path = context.fs.display(&Segment::name(pred.segment));
    let by = of.path.display();
    let Some(candidate) = candidates.all.get(&pred.segment) else {
        let what = format!("the segment is missing, and {by} continues it; put the file back");
        if !removed(Rule::MissingIsDamage) {
            context.damage(Finding::new(FindingKind::Missing, path, 0..pred.offset, what))?;
        }
        return Ok(None);
    };
    let Some(segment) = &candidate.segment else {
        let what = format!(
            "no copy of the opening verifies ({}), and {by} continues the segment",
            candidate.why
        );
        if !removed(Rule::LostIsDamage) {
            context.damage(Finding::new(FindingKind::Damaged, path, 0..pred.offset, what))?;
        }
        return Ok(None);
    };
    let reaches = pred.sequence >= segment.opening.sequence && pred.offset <= segment.readable_len()?;
    if !reaches && !removed(Rule::ReachesItsEnd) {
        let what = format!(
            "{by} states that the segment ends at {} with sequence {}; the file has {} bytes and begins with sequence {}",
            pred.offset, pred.sequence, candidate.len, segment.opening.sequence
        );
        context.damage(Finding::new(
            FindingKind::Damaged,
            path,
            candidate.len.min(pred.offset)..pred.offset,
            what,
        ))?;
    }
    Ok(Some(Arc::clone(segment)))
}
