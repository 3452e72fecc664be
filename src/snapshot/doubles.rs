//! Chunks that stand twice, mostly because one rotted and was stored anew for a later snapshot. Before that one goes, with the pack of
//! the good copy, the indexes that stay are put anew with the place of the good copy.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::names::{ChunkName, SnapshotId};
use super::packs::Packs;
use super::state::{State, place_of};
use super::store::{Shared, later};
use crate::error::{Error, Result};
use crate::format::{ChunkPlace, SnapshotIndex};
use crate::mutant::{Rule, removed};
use crate::sync::Arc;

/// A chunk with its places, the one where it is known first.
type Places = HashMap<ChunkName, Vec<ChunkPlace>>;

impl Shared {
    /// Sees to it that what stays without the `victims` names the good copy of each chunk of which they have one. If that fails, those
    /// that have it stay, too, and the error is returned. `changing` is held.
    pub(super) fn keep_good_copies(&self, victims: &mut Vec<SnapshotId>) -> Option<Error> {
        if removed(Rule::GoodCopyStays) {
            return None;
        }
        let doubles = self.state.lock().doubles(victims);
        if doubles.is_empty() {
            return None;
        }
        let good = self.good_places(&doubles);
        let staying: Vec<Arc<SnapshotIndex>> = {
            let state = self.state.lock();
            let all = state.snapshots.iter();
            let staying = all.filter(|(id, _)| !victims.contains(id));
            staying.map(|(_, index)| Arc::clone(index)).collect()
        };
        let mut failed = None;
        for old in staying {
            if let Err(error) = self.name_good_places(&old, &good) {
                failed.get_or_insert(error);
            }
        }
        if failed.is_some() {
            let good: HashSet<(u64, u64)> = good.values().map(place_of).collect();
            let state = self.state.lock();
            let has_one =
                |index: &Arc<SnapshotIndex>| index.chunks.iter().any(|at| good.contains(&place_of(at)));
            victims.retain(|id| !state.snapshots.get(id).is_some_and(has_one));
        }
        failed
    }

    /// Where each chunk is as it should be, if it is anywhere.
    fn good_places(&self, doubles: &Places) -> HashMap<ChunkName, ChunkPlace> {
        let mut packs = Packs::past_cache(&self.objects);
        let mut bytes = Vec::new();
        let now = self.objects.now_micros();
        let mut is_good = |place: &ChunkPlace| {
            let known = self.state.lock().chunk(&ChunkName(place.name));
            let trusted = known
                .filter(|known| known.place == *place)
                .and_then(|known| known.verified_micros)
                .is_some_and(|verified| later(verified, self.config.trusted_for) > now);
            trusted || packs.read(place, &mut bytes).is_ok()
        };
        let mut good = HashMap::new();
        let by_place: BTreeMap<(u64, u64), (&ChunkName, &Vec<ChunkPlace>)> = doubles
            .iter()
            .map(|double| (place_of(&double.1[0]), double))
            .collect();
        for (name, places) in by_place.into_values() {
            match places.iter().find(|place| is_good(place)) {
                Some(place) => {
                    self.state.lock().prefer(place, now);
                    good.insert(*name, *place);
                }
                None => self.state.lock().judge(&places[0], None),
            }
        }
        good
    }

    /// Puts the index anew if it has one of the chunks elsewhere.
    fn name_good_places(
        &self,
        old: &Arc<SnapshotIndex>,
        good: &HashMap<ChunkName, ChunkPlace>,
    ) -> Result<()> {
        let mut index = SnapshotIndex::clone(old);
        for place in &mut index.chunks {
            if let Some(good) = good.get(&ChunkName(place.name)) {
                *place = *good;
            }
        }
        match index == **old {
            true => Ok(()),
            false => self.replace_index(index, None, None),
        }
    }
}

impl State {
    /// The chunks that a snapshot which stays has at one place, and one of the victims at another, which nothing else names.
    fn doubles(&self, victims: &[SnapshotId]) -> Places {
        let mut doubles = Places::new();
        for place in self.snapshots.values().flat_map(|index| &index.chunks) {
            let name = ChunkName(place.name);
            let known = self.chunk(&name).map_or(*place, |known| known.place);
            if known != *place {
                let places = doubles.entry(name).or_insert_with(|| vec![known]);
                if !places.contains(place) {
                    places.push(*place);
                }
            }
        }
        if doubles.is_empty() {
            return doubles;
        }
        let staying = self.snapshots.iter().filter(|(id, _)| !victims.contains(id));
        let chunks = staying.flat_map(|(_, index)| &index.chunks);
        let doubled = chunks.filter(|place| doubles.contains_key(&ChunkName(place.name)));
        let stay: HashSet<(u64, u64)> = doubled.map(place_of).collect();
        doubles.retain(|_, places| {
            let staying = places
                .iter()
                .filter(|place| stay.contains(&place_of(place)))
                .count();
            0 < staying && staying < places.len()
        });
        doubles
    }
}
