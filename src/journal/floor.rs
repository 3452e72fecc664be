//! Freeing: a purge is logical; this is where files go.
//!
//! A segment may go when no entry in it is still there and everything else that only it says was said again above it: each fact judged
//! alone, each cell, the existence and bounds of each log. The restatements and then the new floor go through the log like any
//! write; the floor stands in the last batch of them, so that a floor that verifies implies its restatements. Only when it is synced are
//! files removed. A crash in between leaves files below the floor: they count for nothing, and go later.
//!
//! Facts that are restated fit into about as much space as the segment that stated them, so that a full disk can be emptied with the
//! reserve, one segment at a time.

use super::Shared;
use super::batch::{What, WriteBatch};
use super::commit::TERMS_MAX as OPS_MAX;
use crate::error::Result;
use crate::format::BATCHES_AT;
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::types::LogKey;

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reclaimed {
    /// Segment files removed.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One fact to say again.
struct Restatement {
    log: LogKey,
    what: What,
    bytes: u64,
    /// The segment that says it now.
    at: u64,
}

impl Shared {
    /// Raises the floor as far as it can go and removes the segments below it.
    pub(crate) fn reclaim(&self) -> Result<Reclaimed> {
        let _one = self.reclaiming.lock();
        let mut freed = Reclaimed::default();
        let Some(goal) = self.goal() else {
            return Ok(freed);
        };
        while let Some((floor, restatements)) = self.next_floor(goal) {
            if removed(Rule::FloorBeforeUnlink) {
                self.remove_below(floor, &mut freed);
            }
            self.raise_floor(floor, &restatements)?;
            self.remove_below(floor, &mut freed);
        }
        self.core.lock().look_again();
        Ok(freed)
    }

    /// How far the floor should rise: not past what is there now, and only where it frees twice the bytes that must be said
    /// again. Facts that fill segments would otherwise be written anew with each purge, to free what the last time wrote.
    fn goal(&self) -> Option<u64> {
        let core = self.core.lock();
        let newest = *core.chain.keys().next_back()?;
        let highest = core.logs.lowest_live().unwrap_or(newest).min(newest);
        let mut facts = restatements(&core.logs, highest);
        facts.sort_unstable_by_key(|fact| fact.at);
        let mut facts = facts.into_iter().peekable();
        let (mut freed, mut restated, mut goal) = (0, 0, None);
        for (id, segment) in core.chain.range(..=highest) {
            while let Some(fact) = facts.next_if(|fact| fact.at < *id) {
                restated += fact.bytes;
            }
            if freed > 0 && (restated * 2 <= freed || removed(Rule::FloorIsWorthIt)) {
                goal = Some(*id);
            }
            // What it can hold: an opening takes half of a small segment, and the next one has it as well.
            freed += segment.opening.len.saturating_sub(BATCHES_AT + self.mark_room);
        }
        goal
    }

    /// The highest floor up to `goal` whose restatements fit into one segment; at least the next segment, if it can go at all.
    fn next_floor(&self, goal: u64) -> Option<(u64, Vec<Restatement>)> {
        let core = self.core.lock();
        core.closed.is_none().then_some(())?;
        let goal = core.logs.lowest_live().unwrap_or(goal).min(goal);
        // The lowest segment of the chain frees nothing as a floor.
        let floors = core.chain.keys().copied().skip(1);
        let floors = floors.filter(|id| *id > core.floor && *id <= goal);
        let mut facts = restatements(&core.logs, goal);
        facts.sort_by_key(|fact| fact.at);
        let room = self.pool.usual_room() / 2;
        let (mut below, mut bytes, mut best) = (0, 0, None);
        // Each fact is looked at once for all floors: every log waits meanwhile.
        for floor in floors {
            while let Some(fact) = facts.get(below).filter(|fact| fact.at < floor) {
                bytes += fact.bytes;
                below += 1;
            }
            if best.is_some() && bytes > room {
                break;
            }
            best = Some((floor, below));
        }
        let (floor, below) = best?;
        facts.truncate(below);
        Some((floor, facts))
    }

    fn raise_floor(&self, floor: u64, restatements: &[Restatement]) -> Result<()> {
        let room = (self.pool.usual_room() / 2).min(self.config.in_flight_bytes);
        let mut batch = WriteBatch::new();
        let mut bytes = 0;
        if removed(Rule::FloorIsLast) {
            batch.push(LogKey(0), What::Floor(floor), &[]);
        }
        for fact in restatements {
            // The floor joins the last batch.
            let full = bytes + fact.bytes > room || batch.len() + 1 == OPS_MAX;
            if full && !batch.is_empty() {
                self.write_control(std::mem::take(&mut batch))?;
                bytes = 0;
            }
            bytes += fact.bytes;
            batch.push(fact.log, fact.what, &[]);
        }
        batch.push(LogKey(0), What::Floor(floor), &[]);
        self.write_control(batch)?;
        self.core.lock().floor = floor;
        tracing::info!(floor, restated = restatements.len(), "the floor rose");
        Ok(())
    }

    fn remove_below(&self, floor: u64, freed: &mut Reclaimed) {
        let gone = {
            let mut core = self.core.lock();
            let kept = core.chain.split_off(&floor);
            std::mem::replace(&mut core.chain, kept)
        };
        for (id, segment) in gone {
            let removed = self.remove_segment(id);
            freed.segments += u64::from(removed);
            self.counters.segments_freed.add(u64::from(removed));
            freed.bytes += if removed { segment.opening.len } else { 0 };
        }
    }

    /// Removes a segment's index. Fails where there is none; one without its segment is removed at a later open.
    pub(super) fn remove_index(&self, id: u64) {
        let _no_index = self.fs.remove(&Segment::index_name(id));
    }

    /// Removes a segment's file and its index; false if the file could not be removed (it counts for nothing all the same).
    pub(crate) fn remove_segment(&self, id: u64) -> bool {
        self.remove_index(id);
        match self.fs.remove(&Segment::name(id)) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(segment = id, %error, "a segment that is not needed could not be removed");
                false
            }
        }
    }
}

/// Everything whose latest durable statement lies below `floor`.
fn restatements(logs: &super::state::Logs, floor: u64) -> Vec<Restatement> {
    let mut facts = Vec::new();
    for (log, state) in logs.iter() {
        let places = || state.cells.values().filter_map(|cell| cell.place.as_ref());
        if removed(Rule::FactsAlone) && places().any(|(segment, _)| segment.id >= floor) {
            continue;
        }
        let stated = [state.identity_at, state.purged_at]
            .into_iter()
            .filter(|at| *at != 0);
        if let Some(at) = stated
            .min()
            .filter(|at| *at < floor && !removed(Rule::RestateLogs))
        {
            facts.push(Restatement {
                log,
                what: What::RestateFacts,
                bytes: 48 + 64,
                at,
            });
        }
        for (id, cell) in &state.cells {
            let place = cell.place.as_ref().map(|(segment, _)| segment.id);
            if let Some(at) = place.filter(|at| *at < floor && !removed(Rule::RestateCells)) {
                let bytes = 48 + cell.value.as_ref().map_or(0, |v| v.len() as u64);
                facts.push(Restatement {
                    log,
                    what: What::RestateCell(*id),
                    bytes,
                    at,
                });
            }
        }
    }
    facts
}
