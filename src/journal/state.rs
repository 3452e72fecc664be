//! What every log holds, in memory: the same functions replay it from disk and change it for a caller.
//!
//! An entry is first *pending* (its bytes in memory, until a sync covered them) and then in a *piece*: a stretch of one log in
//! one segment, with the offset of each frame header (4 bytes an entry while the segment is open, a block of its index file
//! afterwards). Pieces and pending entries together are gapless from `start` to `end`, except for ranges listed as lost.
//!
//! Memory: about 200 bytes a log, 64 bytes a piece, 32 bytes a term run, 4 bytes an unsealed entry, and the bytes of pending
//! entries and of cells.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use crate::format::{Facts, Frame, Kind};
use crate::segment::{BlockRef, Segment, Slot, Slots};
use crate::sync::Arc;
use crate::types::{EntryId, LogKey, Term, TermRun};

/// Every log of a journal, and what the journal knows about itself.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    map: BTreeMap<LogKey, LogState>,
    /// Lowest incarnation never given to a log.
    pub(crate) incarnation_next: u64,
    /// Lowest segment that the journal needs, as far as stated by what was replayed.
    pub(crate) floor: u64,
}

/// One log.
#[derive(Debug)]
pub(crate) struct LogState {
    pub(crate) incarnation: u64,
    /// First index kept.
    pub(crate) start: u64,
    /// Next index.
    pub(crate) end: u64,
    /// End of the entries that a sync covered. Invariant: `durable_end <= end`.
    pub(crate) durable_end: u64,
    /// Id of the last purged entry.
    pub(crate) purged: Option<EntryId>,
    /// Runs of `start..end`; the first may begin before `start`.
    terms: VecDeque<TermRun>,
    /// Synced entries, ascending.
    pieces: VecDeque<Piece>,
    /// The last entries, up to `end`.
    pending: VecDeque<Pending>,
    pub(crate) cells: BTreeMap<u8, Cell>,
    /// Where the latest durable statement of existence, first index and last id stands, and of the purged id: segment ids. Zero: not yet durable.
    pub(crate) identity_at: u64,
    pub(crate) purged_at: u64,
    /// Acknowledged entries that damage took.
    pub(crate) lost: Vec<Range<u64>>,
}

/// An entry that no sync covered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Tells it from another entry that had the same index before a truncate.
    pub(crate) serial: u64,
    pub(crate) payload: Bytes,
}

/// A stretch of one log in one segment.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) segment: Arc<Segment>,
    pub(crate) range: Range<u64>,
    pub(crate) slots: Slots,
}

/// A cell's value and where its latest durable statement stands.
#[derive(Debug)]
pub(crate) struct Cell {
    /// `None` while replaying a sealed segment: the payload is read at the end, if the cell still lives there.
    pub(crate) value: Option<Bytes>,
    /// Segment and frame header of the latest durable statement; `None` while it is pending.
    pub(crate) place: Option<(Arc<Segment>, u64)>,
    /// Tells a statement from a later one of the same cell.
    pub(crate) serial: u64,
}

/// Where the bytes of an entry are.
#[derive(Debug)]
pub(crate) enum Place {
    Memory(Bytes),
    Disk(DiskPlace),
}

/// An entry on disk: read it with `segment::read`.
#[derive(Debug)]
pub(crate) struct DiskPlace {
    pub(crate) segment: Arc<Segment>,
    pub(crate) slot: Slot,
}

/// One thing read from a segment, in journal order.
pub(crate) enum Replayed<'a> {
    /// Consecutive entries of one log.
    Run {
        log: LogKey,
        incarnation: u64,
        range: Range<u64>,
        terms: &'a [TermRun],
        slots: Slots,
    },
    /// Anything else. The payload is there for facts and floors, and for cells unless they are read later.
    Frame {
        frame: &'a Frame,
        header_at: u64,
        payload: Option<Bytes>,
    },
}

/// What is on disk contradicts itself, although every checksum holds.
#[derive(Debug)]
pub(crate) struct ReplayBad {
    pub(crate) log: LogKey,
    /// Indexes that should be there and are not.
    pub(crate) missing: Option<Range<u64>>,
    pub(crate) what: String,
}

impl Logs {
    pub(crate) fn get(&self, key: LogKey) -> Option<&LogState> {
        self.map.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: LogKey) -> Option<&mut LogState> {
        self.map.get_mut(&key)
    }

    pub(crate) fn insert(&mut self, key: LogKey, log: LogState) {
        self.map.insert(key, log);
    }

    pub(crate) fn remove(&mut self, key: LogKey) {
        self.map.remove(&key);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LogKey, &LogState)> {
        self.map.iter().map(|(key, log)| (*key, log))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (LogKey, &mut LogState)> {
        self.map.iter_mut().map(|(key, log)| (*key, log))
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Applies one thing read from disk. Items come in journal order, from the floor on; a log whose beginning lies below
    /// the floor is taken from its first item, and its facts follow before the end.
    pub(crate) fn replay(&mut self, item: Replayed<'_>, segment: &Arc<Segment>) -> Result<(), ReplayBad> {
        match item {
            Replayed::Run {
                log,
                incarnation,
                range,
                terms,
                slots,
            } => {
                let state = self.provisional(log, incarnation, range.start);
                if state.start == state.end
                    && state.identity_at == 0
                    && state.purged_at == 0
                    && state.pieces.is_empty()
                {
                    state.move_to(range.start);
                }
                if range.start != state.end {
                    return Err(ReplayBad {
                        log,
                        missing: (range.start > state.end).then_some(state.end..range.start),
                        what: format!("entry {} of log {log} follows entry {}", range.start, state.end),
                    });
                }
                state.take_run(segment, range, terms, slots);
                Ok(())
            }
            Replayed::Frame {
                frame,
                header_at,
                payload,
            } => self.replay_frame(frame, header_at, payload, segment),
        }
    }

    fn replay_frame(
        &mut self,
        frame: &Frame,
        header_at: u64,
        payload: Option<Bytes>,
        segment: &Arc<Segment>,
    ) -> Result<(), ReplayBad> {
        let key = frame.log;
        let at = segment.id;
        let bad = |what: String| ReplayBad {
            log: key,
            missing: None,
            what,
        };
        self.incarnation_next = self.incarnation_next.max(frame.incarnation + 1);
        match frame.kind {
            Kind::Append => {
                let terms = [TermRun {
                    first: frame.index,
                    term: frame.term,
                }];
                let slots = Slots::one(frame.index, header_at);
                let range = frame.index..frame.index + 1;
                let run = Replayed::Run {
                    log: key,
                    incarnation: frame.incarnation,
                    range,
                    terms: &terms,
                    slots,
                };
                return self.replay(run, segment);
            }
            Kind::Create => {
                let mut log = LogState::new(frame.incarnation, frame.index);
                log.identity_at = at;
                self.map.insert(key, log);
            }
            Kind::Delete => {
                if self
                    .map
                    .get(&key)
                    .is_some_and(|log| log.incarnation == frame.incarnation)
                {
                    self.map.remove(&key);
                }
            }
            Kind::Truncate => self
                .provisional(key, frame.incarnation, frame.index)
                .truncate(frame.index),
            Kind::Purge => {
                let log = self.provisional(key, frame.incarnation, frame.index);
                log.purge(frame.index, frame.term);
                log.purged_at = at;
            }
            Kind::Reset => {
                let log = self.provisional(key, frame.incarnation, frame.index);
                log.reset(frame.index, frame.term);
                log.lost.clear();
                log.identity_at = at;
                log.purged_at = at;
            }
            Kind::Cell => {
                let log = self.provisional(key, frame.incarnation, 0);
                let place = Some((Arc::clone(segment), header_at));
                log.cells.insert(
                    frame.cell,
                    Cell {
                        value: payload,
                        place,
                        serial: 0,
                    },
                );
            }
            Kind::Facts => {
                let facts = payload.as_deref().and_then(|p| Facts::decode(p).ok());
                let facts = facts.ok_or_else(|| bad(format!("the facts of log {key} do not decode")))?;
                let log = self.provisional(key, frame.incarnation, frame.index);
                log.restate(&facts, frame.index).map_err(bad)?;
                log.identity_at = at;
                log.purged_at = at;
            }
            Kind::Floor => self.floor = self.floor.max(frame.index),
            Kind::CellUnknown | Kind::Lost | Kind::Relocated => {
                return Err(bad(format!(
                    "a frame of kind {:?} needs a newer everlog",
                    frame.kind
                )));
            }
        }
        Ok(())
    }

    /// The log `key` of that incarnation; one whose creation lies below the floor begins at `start`.
    fn provisional(&mut self, key: LogKey, incarnation: u64, start: u64) -> &mut LogState {
        self.incarnation_next = self.incarnation_next.max(incarnation + 1);
        let log = self
            .map
            .entry(key)
            .or_insert_with(|| LogState::new(incarnation, start));
        if log.incarnation < incarnation {
            *log = LogState::new(incarnation, start);
        }
        log
    }

    /// Replaces the in-memory offsets of a sealed segment by the blocks of its index file. `covered` is what each log had in
    /// the segment when it was sealed: what a later truncate or purge took is clipped here.
    pub(crate) fn adopt_blocks(
        &mut self,
        segment: u64,
        covered: &BTreeMap<(LogKey, u64), Vec<(Range<u64>, BlockRef)>>,
    ) {
        for ((key, incarnation), blocks) in covered {
            if let Some(log) = self
                .map
                .get_mut(key)
                .filter(|log| log.incarnation == *incarnation)
            {
                log.adopt_blocks(segment, blocks);
            }
        }
    }

    /// The lowest segment that holds an entry that is still there.
    pub(crate) fn lowest_live(&self) -> Option<u64> {
        self.map
            .values()
            .filter_map(|log| log.pieces.front())
            .map(|piece| piece.segment.id)
            .min()
    }
}

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
        }
    }

    fn move_to(&mut self, index: u64) {
        self.start = index;
        self.end = index;
        self.durable_end = index;
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
        let found = index == front && self.pending.front().is_some_and(|p| p.serial == serial);
        if found {
            self.pending.pop_front();
            self.push_slots(segment, index..index + 1, Slots::one(index, header_at));
            self.durable_end = self.durable_end.max(index + 1);
        }
    }

    fn take_run(&mut self, segment: &Arc<Segment>, range: Range<u64>, terms: &[TermRun], slots: Slots) {
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
    fn adopt_blocks(&mut self, segment: u64, covered: &[(Range<u64>, BlockRef)]) {
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
                        slots: Slots::Block(block.clone()),
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
        if from < self.start {
            self.start = from;
        }
        let kept = from.saturating_sub(self.end - self.pending.len() as u64);
        self.pending.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.end = self.end.min(from);
        if self.start == from {
            self.end = from;
        }
        self.durable_end = self.durable_end.min(self.end);
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
        self.clear_entries();
        self.move_to(next);
        self.purged = next.checked_sub(1).map(|index| EntryId { term, index });
    }

    fn clear_entries(&mut self) {
        self.pending.clear();
        self.pieces.clear();
        self.terms.clear();
        self.lost.clear();
    }

    /// Takes over what a restatement says; its end must be ours, if we saw any entry.
    fn restate(&mut self, facts: &Facts, next: u64) -> Result<(), String> {
        self.purged = facts.purged;
        if self.start == self.end {
            self.clear_entries();
            self.move_to(next);
            self.start = facts.first.min(next);
            if self.start != self.end {
                return Err(format!(
                    "entries {}..{next} are stated and not there",
                    facts.first
                ));
            }
            return Ok(());
        }
        if self.end != next {
            return Err(format!(
                "the log is stated to end at {next} and ends at {}",
                self.end
            ));
        }
        if facts.first > self.start {
            let purged = self.purged;
            self.purge(facts.first, purged.map_or(Term(0), |id| id.term));
            self.purged = purged;
        } else if facts.first < self.start {
            return Err(format!(
                "the log is stated to begin at {} and begins at {}",
                facts.first, self.start
            ));
        }
        Ok(())
    }

    /// What a restatement of this log says.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            first: self.start,
            purged: self.purged,
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

    /// Damage took acknowledged entries: the log goes on at `range.end`, and reading `range` says `Damaged`.
    pub(crate) fn lose(&mut self, range: Range<u64>, term: Term) {
        self.push_term(range.start, term);
        self.end = self.end.max(range.end);
        self.durable_end = self.end;
        self.lost.push(range);
    }

    /// The segments that hold entries of this log, lowest first, with how many entries.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pieces
            .iter()
            .map(|piece| (piece.segment.id, piece.range.end - piece.range.start))
    }
}
