//! One log: what changes it, and what is asked of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::{Cuts, DiskPlace, LogState, Pending, Piece, Place, Places, Stretch};
use crate::format::{Facts, Frame, Kind};
use crate::mutant::{Rule, removed};
use crate::segment::{BlockRef, Segment, Slots};
use crate::sync::Arc;
use crate::types::{EntryId, Term, TermRun};

impl LogState {
    /// An empty log whose next entry is `first`.
    pub(crate) fn new(incarnation: u64, first: u64) -> LogState {
        LogState {
            incarnation,
            start: first,
            end: first,
            durable_end: first,
            purged: None,
            terms: VecDeque::new(),
            pieces: VecDeque::new(),
            pending: VecDeque::new(),
            cells: BTreeMap::new(),
            identity_at: 0,
            purged_at: 0,
            lost: Vec::new(),
            cuts: Cuts::default(),
            unseen: false,
        }
    }

    pub(super) fn move_to(&mut self, index: u64) {
        self.start = index;
        self.end = index;
        self.durable_end = index;
    }

    /// While replaying: the next item shows that the log reaches up to `index`. Nothing is said if that is known. Behind a
    /// purge that left entries below the floor, those stand as lost until another purge or a truncate takes them.
    pub(super) fn see_end(&mut self, index: u64) {
        if !std::mem::take(&mut self.unseen) || index <= self.end {
            return;
        }
        if self.purged_at == 0 {
            self.move_to(index);
        } else {
            self.lose(self.end..index, self.purged.map_or(Term(0), |id| id.term));
        }
    }

    /// Adds an entry that is in memory only.
    pub(crate) fn append(&mut self, term: Term, payload: Bytes, serial: u64) {
        self.push_term(self.end, term);
        self.pending.push_back(Pending { serial, payload });
        self.end += 1;
    }

    /// A sync covered the entry `index`: it is found at `header_at` of `segment` from now on. Does nothing if a truncate or a
    /// purge took it meanwhile.
    pub(crate) fn settle(&mut self, index: u64, serial: u64, segment: &Arc<Segment>, header_at: u64) {
        let front = self.end - self.pending.len() as u64;
        let found = index == front
            && self
                .pending
                .front()
                .is_some_and(|p| p.serial == serial || removed(Rule::SettleItsEntry));
        if found {
            self.pending.pop_front();
            self.push_slots(segment, index..index + 1, Slots::one(index, header_at));
            self.durable_end = self.durable_end.max(index + 1);
        }
    }

    pub(super) fn take_run(
        &mut self,
        segment: &Arc<Segment>,
        range: Range<u64>,
        terms: &[TermRun],
        slots: Slots,
    ) {
        for run in terms {
            self.push_term(run.first.max(range.start), run.term);
        }
        self.end = range.end;
        self.durable_end = range.end;
        self.push_slots(segment, range, slots);
    }

    fn push_term(&mut self, first: u64, term: Term) {
        if self.terms.back().is_none_or(|run| run.term != term) {
            self.terms.push_back(TermRun { first, term });
        }
    }

    fn push_slots(&mut self, segment: &Arc<Segment>, range: Range<u64>, slots: Slots) {
        if let Some(last) = self.pieces.back_mut() {
            let joins = last.segment.id == segment.id && last.range.end == range.start;
            if joins && last.slots.try_join(&slots) {
                last.range.end = range.end;
                return;
            }
        }
        self.pieces.push_back(Piece {
            segment: Arc::clone(segment),
            range,
            slots,
        });
    }

    /// See [`Logs::adopt_blocks`]: a piece in memory that the blocks cover wholly is replaced by them.
    pub(super) fn adopt_blocks(&mut self, segment: u64, covered: &[(Range<u64>, BlockRef)]) {
        let pieces = std::mem::take(&mut self.pieces);
        for piece in pieces {
            if piece.segment.id != segment || !matches!(piece.slots, Slots::Memory { .. }) {
                self.pieces.push_back(piece);
                continue;
            }
            let parts: Vec<Piece> = covered
                .iter()
                .filter_map(|(range, block)| {
                    let range = range.start.max(piece.range.start)..range.end.min(piece.range.end);
                    let segment = Arc::clone(&piece.segment);
                    (!range.is_empty()).then(|| Piece {
                        segment,
                        range,
                        slots: Slots::Block(*block),
                    })
                })
                .collect();
            let all = parts.iter().map(|p| p.range.end - p.range.start).sum::<u64>();
            if all == piece.range.end - piece.range.start {
                self.pieces.extend(parts);
            } else {
                self.pieces.push_back(piece);
            }
        }
    }

    /// Drops the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.cuts.add(from);
        if from < self.start {
            self.start = from;
        }
        let kept = from.saturating_sub(self.end - self.pending.len() as u64);
        self.pending.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.end = self.end.min(from);
        if !removed(Rule::DurableEndFalls) {
            self.durable_end = self.durable_end.min(self.end);
        }
        while self.pieces.back().is_some_and(|p| p.range.start >= self.end) {
            self.pieces.pop_back();
        }
        if let Some(last) = self.pieces.back_mut().filter(|p| p.range.end > from) {
            last.range.end = from;
            last.slots.truncate(from);
        }
        while self.terms.back().is_some_and(|run| run.first >= self.end) {
            self.terms.pop_back();
        }
        for lost in &mut self.lost {
            lost.end = lost.end.min(from);
        }
        self.lost.retain(|lost| !lost.is_empty());
    }

    /// Drops the entries before `to`; beyond the end, the log goes on at `to`. `term` is that of entry `to - 1`.
    pub(crate) fn purge(&mut self, to: u64, term: Term) {
        if let Some(index) = to.checked_sub(1) {
            self.purged = Some(EntryId { term, index });
        }
        if to >= self.end {
            self.clear_entries();
            self.move_to(to);
            return;
        }
        self.start = self.start.max(to);
        let front = self.end - self.pending.len() as u64;
        let gone = usize::try_from(to.saturating_sub(front))
            .unwrap_or(usize::MAX)
            .min(self.pending.len());
        self.pending.drain(..gone);
        self.durable_end = self.durable_end.max(self.start);
        while self.pieces.front().is_some_and(|p| p.range.end <= to) {
            self.pieces.pop_front();
        }
        if let Some(first) = self.pieces.front_mut() {
            first.range.start = first.range.start.max(to);
        }
        while self.terms.get(1).is_some_and(|run| run.first <= to) {
            self.terms.pop_front();
        }
        for lost in &mut self.lost {
            lost.start = lost.start.max(to);
        }
        self.lost.retain(|lost| !lost.is_empty());
    }

    /// Empties the log; the next entry is `next`, and the entry before it, of `term`, counts as purged.
    pub(crate) fn reset(&mut self, next: u64, term: Term) {
        self.cuts.add(self.start);
        self.clear_entries();
        self.move_to(next);
        self.purged = next.checked_sub(1).map(|index| EntryId { term, index });
    }

    pub(super) fn clear_entries(&mut self) {
        self.pending.clear();
        self.pieces.clear();
        self.terms.clear();
        self.lost.clear();
    }

    /// Applies a frame that changes the log's bounds and stands in `segment`.
    pub(super) fn replay(
        &mut self,
        frame: &Frame,
        payload: Option<&[u8]>,
        segment: u64,
    ) -> Result<(), String> {
        match frame.kind {
            Kind::Truncate => {
                self.see_end(frame.index);
                self.truncate(frame.index);
            }
            Kind::Purge => {
                self.purge(frame.index, frame.term);
                self.purged_at = segment;
            }
            Kind::Reset => {
                self.reset(frame.index, frame.term);
                self.unseen = false;
                self.identity_at = segment;
                self.purged_at = segment;
            }
            _ => {
                let facts = payload.and_then(|p| Facts::decode(p).ok());
                let facts = facts.ok_or("the facts do not decode")?;
                self.restate(&facts, frame.index)?;
                self.identity_at = segment;
                self.purged_at = segment;
            }
        }
        Ok(())
    }

    /// Takes over what a restatement says; its end must be ours, if we saw any entry. It may be older than the floor
    /// and count entries below it. Those stand as lost until a purge or a truncate behind it takes them; what is left at
    /// the end of the replay is missing.
    pub(super) fn restate(&mut self, facts: &Facts, next: u64) -> Result<(), String> {
        self.purged = facts.purged;
        self.unseen = false;
        let first = facts.first.min(next);
        if self.start == self.end {
            self.clear_entries();
            self.move_to(first);
            if first < next {
                self.lose(first..next, facts.last.unwrap_or_default());
            }
            return Ok(());
        }
        if self.end != next {
            return Err(format!(
                "the log is stated to end at {next} and ends at {}",
                self.end
            ));
        }
        if first > self.start {
            let purged = self.purged;
            self.purge(first, purged.map_or(Term(0), |id| id.term));
            self.purged = purged;
        } else if first < self.start {
            self.lost.insert(0, first..self.start);
            self.start = first;
            if let Some(run) = self.terms.front_mut() {
                run.first = run.first.min(first);
            }
        }
        Ok(())
    }

    /// What a restatement of this log says.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            first: if removed(Rule::RestateFirst) {
                self.end
            } else {
                self.start
            },
            purged: self.purged.filter(|_| !removed(Rule::RestatePurged)),
            last: self.last().map(|id| id.term),
        }
    }

    /// Id of the last entry; of the last purged one if the log is empty.
    pub(crate) fn last(&self) -> Option<EntryId> {
        match self.terms.back() {
            Some(run) if self.end > self.start => Some(EntryId {
                term: run.term,
                index: self.end - 1,
            }),
            _ => self.purged,
        }
    }

    /// Term of the entry `index`, which must be in `start..end` or the last purged one.
    pub(crate) fn term_at(&self, index: u64) -> Option<Term> {
        if let Some(purged) = self.purged.filter(|id| id.index == index && index < self.start) {
            return Some(purged.term);
        }
        if index < self.start || index >= self.end {
            return None;
        }
        let after = self.terms.partition_point(|run| run.first <= index);
        after
            .checked_sub(1)
            .and_then(|at| self.terms.get(at))
            .map(|run| run.term)
    }

    /// The runs of terms in `range`, which must lie within the log; the first begins at `range.start`.
    pub(crate) fn terms(&self, range: Range<u64>) -> Vec<TermRun> {
        if range.is_empty() {
            return Vec::new();
        }
        let from = self
            .terms
            .partition_point(|run| run.first <= range.start)
            .saturating_sub(1);
        let runs = self
            .terms
            .iter()
            .skip(from)
            .take_while(|run| run.first < range.end);
        runs.map(|run| TermRun {
            first: run.first.max(range.start),
            term: run.term,
        })
        .collect()
    }

    /// Where the entry `index` of `start..end` is; `None` if it is lost.
    pub(crate) fn place(&self, index: u64) -> Option<Place> {
        let front = self.end - self.pending.len() as u64;
        if index >= front {
            let at = usize::try_from(index - front).ok()?;
            return self.pending.get(at).map(|p| Place::Memory(p.payload.clone()));
        }
        let at = self.pieces.partition_point(|piece| piece.range.end <= index);
        let piece = self.pieces.get(at).filter(|piece| piece.range.contains(&index))?;
        let slot = piece.slots.slot(index)?;
        Some(Place::Disk(DiskPlace {
            segment: Arc::clone(&piece.segment),
            slot,
        }))
    }

    /// The entries from `range.start`, which lies in `start..end`, as far as they are of one term and in one place; `None` if the first is
    /// lost.
    pub(crate) fn stretch(&self, range: Range<u64>) -> Option<Stretch> {
        let behind = self.terms.partition_point(|run| run.first <= range.start);
        let term = self.terms.get(behind.checked_sub(1)?)?.term;
        let end = self.terms.get(behind).map_or(self.end, |run| run.first);
        let (start, end) = (range.start, range.end.min(end));
        let front = self.end - self.pending.len() as u64;
        let places = if start >= front {
            let from = usize::try_from(start - front).ok()?;
            let to = usize::try_from(end - front).ok()?;
            let payloads: Vec<Bytes> = self.pending.range(from..to).map(|p| p.payload.clone()).collect();
            Places::Memory(payloads.into_iter())
        } else {
            let at = self.pieces.partition_point(|piece| piece.range.end <= start);
            let piece = self.pieces.get(at).filter(|piece| piece.range.contains(&start))?;
            let here = start..end.min(piece.range.end);
            Places::Disk(Arc::clone(&piece.segment), piece.slots.run(here))
        };
        let next = EntryId { term, index: start };
        Some(Stretch { next, places }).filter(|stretch| stretch.len() > 0)
    }

    /// Damage took acknowledged entries: the log goes on at `range.end`, and reading `range` says `Damaged`.
    pub(crate) fn lose(&mut self, range: Range<u64>, term: Term) {
        self.push_term(range.start, term);
        self.end = self.end.max(range.end);
        self.durable_end = self.end;
        self.lost.push(range);
    }
}
