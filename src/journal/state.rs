//! What every log holds, in memory: the same functions replay it from disk and change it for a caller.
//!
//! An entry is first *pending* (its bytes in memory, until a sync covered them) and then in a *piece*: a stretch of one log in
//! one segment, with the offset of each frame header (4 bytes an entry while the segment is open, a block of its index file
//! afterwards). Pieces and pending entries together are gapless from `start` to `end`, except for ranges listed as lost.
//!
//! Memory: about 200 bytes a log, 64 bytes a piece, 32 bytes a term run, 4 bytes an unsealed entry, and the bytes of pending
//! entries and of cells.

mod cuts;
mod log;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use self::cuts::Cuts;
use super::hold::Hold;
use crate::format::{Frame, Kind};
use crate::mutant::{Rule, removed};
use crate::segment::index::Coverage;
use crate::segment::{Segment, Slot, SlotRun, Slots};
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
    /// Logs that an engine or a replica stands on. Of this life only.
    pub(crate) held: BTreeMap<LogKey, Hold>,
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
    /// What truncates and resets took, for those who read meanwhile.
    pub(crate) cuts: Cuts,
    /// While replaying: nothing has said yet where the log ends, because what did stands below the floor.
    unseen: bool,
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

/// Entries that follow each other, of one term and in one place.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// The first that was not fetched yet.
    pub(crate) next: EntryId,
    pub(crate) places: Places,
}

#[derive(Debug)]
pub(crate) enum Places {
    Memory(std::vec::IntoIter<Bytes>),
    Disk(Arc<Segment>, SlotRun),
}

impl Stretch {
    /// How many were not fetched yet.
    pub(crate) fn len(&self) -> u64 {
        let len = match &self.places {
            Places::Memory(payloads) => payloads.len(),
            Places::Disk(_, slots) => slots.len(),
        };
        len as u64
    }
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
                state.see_end(range.start);
                if range.start > state.end && state.identity_at == 0 {
                    // Where the log ended when the floor was passed is not known yet: what lies between stood below the
                    // floor, and a purge, a truncate or facts that follow must take it.
                    state.lose(state.end..range.start, Term(0));
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
        self.incarnation_next = self.incarnation_next.max(frame.incarnation + 1);
        match frame.kind {
            Kind::Append => return self.replay_entry(frame, header_at, segment),
            Kind::Create => {
                let mut log = LogState::new(frame.incarnation, frame.index);
                log.identity_at = segment.id;
                self.map.insert(key, log);
            }
            Kind::Delete => {
                let log = self.map.get(&key);
                if log.is_some_and(|log| log.incarnation == frame.incarnation) {
                    self.map.remove(&key);
                }
            }
            Kind::Cell => {
                let log = self.provisional(key, frame.incarnation, 0);
                let place = Some((Arc::clone(segment), header_at));
                let (value, serial) = (payload, 0);
                let cell = Cell { value, place, serial };
                log.cells.insert(frame.cell, cell);
            }
            Kind::Floor => self.floor = self.floor.max(frame.index),
            Kind::Truncate | Kind::Purge | Kind::Reset | Kind::Facts => {
                let log = self.provisional(key, frame.incarnation, frame.index);
                log.replay(frame, payload.as_deref(), segment.id)
                    .map_err(|what| ReplayBad {
                        log: key,
                        missing: None,
                        what,
                    })?;
            }
            Kind::CellUnknown | Kind::Lost | Kind::Relocated => {
                let what = format!("a frame of kind {:?} needs a newer everlog", frame.kind);
                let missing = None;
                return Err(ReplayBad {
                    log: key,
                    missing,
                    what,
                });
            }
        }
        Ok(())
    }

    fn replay_entry(
        &mut self,
        frame: &Frame,
        header_at: u64,
        segment: &Arc<Segment>,
    ) -> Result<(), ReplayBad> {
        let (first, term) = (frame.index, frame.term);
        let run = Replayed::Run {
            log: frame.log,
            incarnation: frame.incarnation,
            range: first..first + 1,
            terms: &[TermRun { first, term }],
            slots: Slots::one(first, header_at),
        };
        self.replay(run, segment)
    }

    /// The log `key` of that incarnation; one whose creation lies below the floor begins at `start`.
    fn provisional(&mut self, key: LogKey, incarnation: u64, start: u64) -> &mut LogState {
        self.incarnation_next = self.incarnation_next.max(incarnation + 1);
        let unseen = || LogState {
            unseen: true,
            ..LogState::new(incarnation, start)
        };
        let log = self.map.entry(key).or_insert_with(unseen);
        if log.incarnation < incarnation && !removed(Rule::IncarnationOfReplay) {
            *log = unseen();
        }
        log
    }

    /// Replaces the in-memory offsets of a sealed segment by the blocks of its index file. `covered` is what each log had in
    /// the segment when it was sealed: what a later truncate or purge took is clipped here.
    pub(crate) fn adopt_blocks(&mut self, segment: u64, covered: &Coverage) {
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

    /// What openings and floors state as the lowest incarnation never given to a log.
    pub(crate) fn stated_incarnation(&self) -> u64 {
        if removed(Rule::CounterTravels) {
            0
        } else {
            self.incarnation_next
        }
    }

    /// The lowest segment that holds an entry that is still there.
    pub(crate) fn lowest_live(&self) -> Option<u64> {
        if removed(Rule::LiveHoldTheFloor) {
            return None;
        }
        self.map
            .values()
            .filter_map(|log| log.pieces.front())
            .map(|piece| piece.segment.id)
            .min()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
