//! Freeing space: snapshots go by retention or by name, then packs that nothing needs, and packs of which little is needed
//! are rewritten.
//!
//! ```text
//! (indexes put anew that would lose the good copy of a chunk)  ->  indexes removed, and synced  ->  (live chunks copied, pack synced, named and read back  ->  every index that names an old pack put
//! anew, under its next generation, synced and read back  ->  the old generations removed, and synced)  ->  packs removed
//! ```
//!
//! At each arrow a crash leaves more than is needed, never less. A pack goes only while no index names it, nobody holds it, and
//! every index can be read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use super::config::Retention;
use super::info::Snapshot;
use super::names::{self, ChunkName, SnapshotId};
use super::pack_upload::PackUpload;
use super::packs::Packs;
use super::pin::PinInfo;
use super::state::{State, place_of};
use super::store::{Shared, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChunkPlace, PACK_HEADER_LEN, SnapshotIndex};
use crate::mutant::{Rule, removed};
use crate::sync::Arc;

/// What a collection did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// Snapshots that were removed, the newest first.
    pub removed: Vec<SnapshotId>,
    /// Packs that were removed.
    pub packs_removed: u64,
    /// Of those, packs whose live chunks were copied into a new one.
    pub packs_rewritten: u64,
    /// Bytes of the packs that were removed, less those that were copied.
    pub freed_bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// Pins that had expired, and whose files were removed.
    pub expired: Vec<PinInfo>,
    /// Why packs or snapshots stay that could go, if they do: an index cannot be read, a removal failed, or there was no room to copy what
    /// is needed of them. The next collection tries again.
    pub kept_because: Option<Error>,
}

impl Store {
    /// Removes what `retention` does not keep, and frees its space: packs that no snapshot needs, and those of which less is needed than
    /// the setting says, after copying the rest. Safe beside creations, readers and other processes that look; one that is
    /// interrupted is taken up by the next.
    ///
    /// On return the snapshots in [`removed`](Collected::removed) are gone for good. That space could not be freed is no error but
    /// [`kept_because`](Collected::kept_because). A chunk that cannot be copied because it is damaged or cannot be read stays where it is.
    ///
    /// Errors: `Invalid` in a view; `Io` from the system: the snapshots may be gone or not.
    pub fn collect(&self, retention: &Retention) -> Result<Collected> {
        self.collect_watched(retention, &mut |_, _| {})
    }

    /// The same; `progress` is told how many stored bytes were copied out of packs that are mostly not needed, and of how many: what takes
    /// time.
    pub fn collect_watched(
        &self,
        retention: &Retention,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Collected> {
        self.shared.writable()?;
        let _changing = self.shared.changing.lock();
        let victims = self.shared.victims(retention)?;
        self.shared.remove_and_free(victims, progress)
    }

    /// Removes one snapshot, newest or not, and frees its space as [`collect`](Store::collect) does.
    ///
    /// Errors: `NotFound` if it is not there, `Busy` if it is pinned or being read; otherwise those of `collect`.
    pub fn remove(&self, id: SnapshotId) -> Result<Collected> {
        self.shared.writable()?;
        let _changing = self.shared.changing.lock();
        {
            let state = self.shared.state.lock();
            if !state.snapshots.contains_key(&id) {
                return Err(self.shared.no_snapshot(id));
            }
            let now = self.shared.objects.now_micros();
            if state.is_in_use(id, now) {
                return Err(in_use(&state, id, now));
            }
        }
        let done = self.shared.remove_and_free(vec![id], &mut |_, _| {})?;
        if !done.removed.is_empty() {
            return Ok(done);
        }
        // It stays: its good copies could not be kept otherwise, or somebody has come to read or to pin it meanwhile.
        let state = self.shared.state.lock();
        let now = self.shared.objects.now_micros();
        Err(match done.kept_because {
            Some(error) if !state.is_in_use(id, now) => error,
            _ => in_use(&state, id, now),
        })
    }

    /// Gives up the indexes that cannot be read, those of a newer version included, so that the packs that only they needed can be
    /// collected. What a newer everlog could still read is lost. Returns how many there were.
    ///
    /// Errors: `Invalid` in a view, `Io` from the system.
    pub fn remove_unreadable(&self) -> Result<usize> {
        self.shared.writable()?;
        let _changing = self.shared.changing.lock();
        let names: Vec<String> = self.shared.state.lock().unreadable.keys().cloned().collect();
        self.shared.delete(&names)?;
        self.shared.state.lock().unreadable.clear();
        Ok(names.len())
    }
}

impl Shared {
    /// What `retention` does not keep, the newest first.
    fn victims(&self, retention: &Retention) -> Result<Vec<SnapshotId>> {
        let now = self.objects.now_micros();
        let state = self.state.lock();
        let mut list: Vec<&Arc<SnapshotIndex>> = state.snapshots.values().collect();
        list.sort_by_key(|index| std::cmp::Reverse((index.covers, index.created, index.id)));
        let mut kept = HashMap::new();
        let mut others = Vec::new();
        for index in list {
            let count: &mut usize = kept.entry(index.log).or_default();
            let is_kept = *count < retention.newest;
            if !state.is_damaged(index) || removed(Rule::DamagedIsNotCounted) {
                *count += 1;
            }
            if !is_kept && !state.is_in_use(SnapshotId(index.id), now) {
                others.push(SnapshotId(index.id));
            }
        }
        Ok(beyond_limits(retention, &state, others, now))
    }

    /// Removes indexes, then what nothing needs any more. `changing` is held.
    fn remove_and_free(
        &self,
        mut victims: Vec<SnapshotId>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Collected> {
        let mut done = Collected::default();
        let stay_because = self.keep_good_copies(&mut victims);
        if removed(Rule::IndexGoesFirst) {
            let kept = self.state.lock().snapshots.clone();
            self.state.lock().remove(&victims);
            self.free(&mut done)?;
            self.state.lock().snapshots = kept;
        }
        let mut going: Vec<String> = Vec::new();
        {
            let mut state = self.state.lock();
            // Looked at again: a reader may have come since they were chosen, and none comes once they are forgotten.
            let now = self.objects.now_micros();
            let expired = state.expire_pins(now);
            done.expired = expired.iter().map(|file| self.pin_info(file, now)).collect();
            done.removed = victims;
            done.removed.retain(|id| !state.is_in_use(*id, now));
            for index in done.removed.iter().filter_map(|id| state.snapshots.get(id)) {
                going.push(names::index(SnapshotId(index.id), index.generation));
            }
            let removed_now = done.removed.clone();
            state.remove(&removed_now);
            state.stale.extend(going);
            // A later generation that cannot be read now would bring the snapshot back when it can.
            for id in &removed_now {
                state.supersede_unreadable(*id);
            }
        }
        self.remove_stale()?;
        for pin in &done.expired {
            tracing::info!(id = %pin.snapshot, owner = ?pin.owner, "a pin expired, and was removed");
        }
        for id in &done.removed {
            tracing::info!(%id, "a snapshot was removed");
        }
        self.free_what_can_go(&mut done, progress);
        done.kept_because = stay_because.or(done.kept_because);
        if let Some(error) = &done.kept_because {
            tracing::warn!(%error, "packs of snapshots stay that could go");
        }
        Ok(done)
    }

    /// First what needs no copy: on a full disk that makes the room for copying. Whatever fails, the snapshots are gone and their space is
    /// freed another time.
    fn free_what_can_go(&self, done: &mut Collected, progress: &mut dyn FnMut(u64, u64)) {
        let freed = self.free(done);
        let rewritten = self.rewrite(done, progress);
        // One that failed may have replaced some of the indexes, and left a copy that none names.
        let rewritten = rewritten.and(self.remove_stale());
        let freed = freed.and(self.free(done));
        done.freed_bytes = done.freed_bytes.saturating_sub(done.copied_bytes);
        done.kept_because = rewritten.and(freed).err().or_else(|| self.keeps_packs());
    }

    /// Removes the indexes and pins that do not count any more. `changing` is held.
    pub(super) fn remove_stale(&self) -> Result<()> {
        let stale = self.state.lock().stale.clone();
        if stale.is_empty() || removed(Rule::StaleGoesFirst) {
            return Ok(());
        }
        self.delete(&stale)?;
        self.state.lock().stale.clear();
        Ok(())
    }

    /// After a failure names may come back, although the next sync says Ok: then no pack goes in this life.
    fn delete(&self, names: &[String]) -> Result<()> {
        let deleted = self.objects.delete(names);
        deleted.map_err(|e| {
            let error = Error::io(self.objects.display(""), "remove indexes and packs", e);
            self.state.lock().stuck.get_or_insert(error.clone());
            error
        })
    }

    /// Why no pack may be removed.
    fn keeps_packs(&self) -> Option<Error> {
        let state = self.state.lock();
        if let Some(error) = &state.stuck {
            return Some(error.recast(
                ErrorKind::Closed,
                "a removal failed; open the store again to go on",
            ));
        }
        let unreadable = state.unreadable.values().next()?;
        (!removed(Rule::UnreadableKeepsPacks)).then(|| unreadable.clone())
    }

    /// Removes the packs that no snapshot needs and nobody holds.
    fn free(&self, done: &mut Collected) -> Result<()> {
        if self.keeps_packs().is_some() {
            return Ok(());
        }
        let listed = self.packs()?;
        let going: Vec<(u64, u64)> = {
            let state = self.state.lock();
            let live = state.live();
            let needed = |pack: &u64| live.contains_key(pack) || state.is_held(*pack);
            listed.into_iter().filter(|(pack, _)| !needed(pack)).collect()
        };
        // Nobody can come to hold one of them now: no index that is known names it.
        let names: Vec<String> = going.iter().map(|(pack, _)| names::pack(*pack)).collect();
        if names.is_empty() {
            return Ok(());
        }
        self.delete(&names)?;
        done.packs_removed += going.len() as u64;
        let freed: u64 = going.iter().map(|(_, len)| *len).sum();
        done.freed_bytes += freed;
        Ok(())
    }

    /// All packs with their sizes in bytes.
    fn packs(&self) -> Result<BTreeMap<u64, u64>> {
        let io = |e| Error::io(self.objects.display(""), "list the packs", e);
        let mut packs = BTreeMap::new();
        for name in self.objects.list().map_err(io)? {
            let Some(number) = names::parse_pack(&name) else {
                continue;
            };
            match self.objects.get(&name).and_then(|object| object.len()) {
                Ok(len) => drop(packs.insert(number, len)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io(e)),
            }
        }
        Ok(packs)
    }

    /// Copies what is needed of packs that are mostly not, and replaces the indexes that name them. The packs themselves are freed
    /// afterwards, like any other that nothing needs.
    fn rewrite(&self, done: &mut Collected, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        if self.keeps_packs().is_some() || self.config.rewrite_below_percent == 0 {
            return Ok(());
        }
        let listed = self.packs()?;
        let sparse: BTreeSet<u64> = {
            let state = self.state.lock();
            let live = state.live();
            let percent = u128::from(self.config.rewrite_below_percent);
            let is_sparse = |(pack, len): (&u64, &u64)| {
                let needed = live.get(pack).copied().unwrap_or(0);
                let whole = len.saturating_sub(PACK_HEADER_LEN as u64);
                let sparse = needed > 0 && u128::from(needed) * 100 < u128::from(whole) * percent;
                (sparse && !state.is_held(*pack)).then_some(*pack)
            };
            listed.iter().filter_map(is_sparse).collect()
        };
        if sparse.is_empty() {
            return Ok(());
        }
        let now = self.objects.now_micros();
        let needed = self.needed_of(&sparse);
        let (moved, copied) = self.copy(&needed, progress)?;
        done.copied_bytes = copied;
        let stays = |place: &&ChunkPlace| !moved.contains_key(&ChunkName(place.name));
        let stay: BTreeSet<u64> = needed.iter().filter(stays).map(|place| place.pack).collect();
        done.packs_rewritten = (sparse.len() - stay.len()) as u64;
        if removed(Rule::RewriteBeforeRemoval) {
            let names: Vec<String> = sparse.iter().map(|pack| names::pack(*pack)).collect();
            self.delete(&names)?;
        }
        self.replace_indexes(&sparse, &moved, now)
    }

    /// What snapshots need of the packs, each place once and in the order of the medium.
    fn needed_of(&self, packs: &BTreeSet<u64>) -> Vec<ChunkPlace> {
        let state = self.state.lock();
        let chunks = state.snapshots.values().flat_map(|index| &index.chunks);
        let needed = chunks.filter(|place| packs.contains(&place.pack));
        let places: BTreeMap<(u64, u64), ChunkPlace> =
            needed.map(|place| (place_of(place), *place)).collect();
        places.into_values().collect()
    }

    /// Copies the chunks into a new pack: where each went, and how many bytes that were. What is damaged, or cannot be read, stays
    /// where it is, and keeps its pack.
    fn copy(
        &self,
        needed: &[ChunkPlace],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(HashMap<ChunkName, ChunkPlace>, u64)> {
        let mut from = Packs::past_cache(&self.objects);
        let mut into: Option<PackUpload> = None;
        let mut moved = HashMap::new();
        let mut bytes = Vec::new();
        let total = needed.iter().map(|place| u64::from(place.stored_len)).sum();
        let mut read = 0;
        for place in needed {
            progress(read, total);
            read += u64::from(place.stored_len);
            match from.read(place, &mut bytes) {
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a chunk cannot be copied into a new pack");
                    self.state.lock().judge(place, None);
                    continue;
                }
            }
            let pack = match &mut into {
                Some(pack) => pack,
                None => into.insert(PackUpload::new(self, None)?),
            };
            let name = ChunkName(place.name);
            if let std::collections::hash_map::Entry::Vacant(slot) = moved.entry(name) {
                slot.insert(pack.append(self, name, &bytes)?);
            }
        }
        let copied = into.as_ref().map_or(0, |pack| pack.at - PACK_HEADER_LEN as u64);
        if let Some(pack) = &mut into {
            pack.finish(self)?;
        }
        self.read_copies_back(&moved)?;
        Ok((moved, copied))
    }

    /// What a copy was made of goes on the copy's word, so that is read past the cache first. One that does not read back
    /// is named by nothing, and freed like any other such pack.
    fn read_copies_back(&self, moved: &HashMap<ChunkName, ChunkPlace>) -> Result<()> {
        if removed(Rule::CopyIsReadBack) {
            return Ok(());
        }
        let mut packs = Packs::past_cache(&self.objects);
        let mut bytes = Vec::new();
        let mut copies: Vec<&ChunkPlace> = moved.values().collect();
        copies.sort_by_key(|place| place.offset);
        for place in copies {
            packs.read(place, &mut bytes).map_err(|e| match e.kind() {
                ErrorKind::NotFound => e.recast(ErrorKind::Damaged, "a copied chunk does not read back"),
                _ => e,
            })?;
        }
        Ok(())
    }

    /// Puts anew each index that names one of the packs, with the places where the chunks went. The copies were read back at `verified`
    /// or later.
    fn replace_indexes(
        &self,
        packs: &BTreeSet<u64>,
        moved: &HashMap<ChunkName, ChunkPlace>,
        verified: u64,
    ) -> Result<()> {
        let new = moved.values().next().map(|place| place.pack);
        let named: Vec<Arc<SnapshotIndex>> = {
            let state = self.state.lock();
            let names_one =
                |index: &&Arc<SnapshotIndex>| index.chunks.iter().any(|place| packs.contains(&place.pack));
            state.snapshots.values().filter(names_one).cloned().collect()
        };
        for old in named {
            let mut index = SnapshotIndex::clone(&old);
            for place in index
                .chunks
                .iter_mut()
                .filter(|place| packs.contains(&place.pack))
            {
                if let Some(new) = moved.get(&ChunkName(place.name)) {
                    *place = *new;
                }
            }
            if index == *old {
                continue;
            }
            self.replace_index(index, new, Some(verified))?;
        }
        Ok(())
    }

    /// Puts an index anew, as its next generation. The old one goes later, on the new one's word, so that is read back first.
    pub(super) fn replace_index(
        &self,
        index: SnapshotIndex,
        new: Option<u64>,
        verified: Option<u64>,
    ) -> Result<()> {
        let put = self.put_index(index).and_then(|index| {
            if !removed(Rule::CopyIsReadBack) {
                self.read_index_back(&index)?;
            }
            Ok(index)
        });
        let index = put.inspect_err(|error| {
            if error.kind() == ErrorKind::Unknown {
                // It may come to light at the next opening, and it names the new pack.
                self.state.lock().stuck.get_or_insert(error.clone());
            }
        })?;
        self.take_in(index, new, verified);
        Ok(())
    }
}

/// Why a snapshot is not removed that somebody needs.
fn in_use(state: &State, id: SnapshotId, now: u64) -> Error {
    let owners = state.owners(id, now);
    let by = match owners.is_empty() {
        true => "being read".to_owned(),
        false => format!("pinned by {}", owners.join(", ")),
    };
    Error::new(ErrorKind::Busy, format!("snapshot {id} is {by}"))
}

/// Of `others`, which are the newest first, those that are too old or too many.
fn beyond_limits(retention: &Retention, state: &State, others: Vec<SnapshotId>, now: u64) -> Vec<SnapshotId> {
    if retention.max_age.is_none() && retention.max_bytes.is_none() {
        return others;
    }
    let is_old = |id: &SnapshotId| {
        let created = state.snapshots.get(id).map_or(0, |index| index.created);
        retention
            .max_age
            .is_some_and(|age| super::store::later(created, age) < now)
    };
    let (old, mut rest): (Vec<_>, Vec<_>) = others.into_iter().partition(is_old);
    let mut victims = old;
    let Some(max_bytes) = retention.max_bytes else {
        return victims;
    };
    let mut stored = Stored::new(state);
    victims.iter().for_each(|id| stored.without(*id));
    let mut too_many = Vec::new();
    while stored.bytes > max_bytes
        && let Some(oldest) = rest.pop()
    {
        stored.without(oldest);
        too_many.push(oldest);
    }
    too_many.reverse();
    victims.splice(0..0, too_many);
    victims
}

/// The stored bytes of snapshots, each chunk counted once.
struct Stored<'a> {
    state: &'a State,
    /// How many snapshots have the chunk at a place.
    users: HashMap<(u64, u64), u32>,
    bytes: u64,
}

impl Stored<'_> {
    fn new(state: &State) -> Stored<'_> {
        let mut users = HashMap::new();
        let mut bytes = 0;
        for index in state.snapshots.values() {
            for place in places(index) {
                let count: &mut u32 = users.entry((place.pack, place.offset)).or_default();
                *count += 1;
                bytes += if *count == 1 {
                    u64::from(place.stored_len)
                } else {
                    0
                };
            }
        }
        Stored { state, users, bytes }
    }

    fn without(&mut self, id: SnapshotId) {
        let Some(index) = self.state.snapshots.get(&id) else {
            return;
        };
        for place in places(index) {
            if let Some(count) = self.users.get_mut(&(place.pack, place.offset)) {
                *count -= 1;
                self.bytes -= if *count == 0 {
                    u64::from(place.stored_len)
                } else {
                    0
                };
            }
        }
    }
}

/// The places of a snapshot's chunks, each once.
fn places(index: &SnapshotIndex) -> Vec<&ChunkPlace> {
    let mut places: Vec<&ChunkPlace> = index.chunks.iter().collect();
    places.sort_unstable_by_key(|place| (place.pack, place.offset));
    places.dedup_by_key(|place| (place.pack, place.offset));
    places
}

/// What is listed, for those who decide by hand.
impl Store {
    /// Snapshots that `retention` would remove now, the newest first; changes nothing.
    ///
    /// Errors: none in a store; in a view those of [`list`](Store::list).
    pub fn would_remove(&self, retention: &Retention) -> Result<Vec<Snapshot>> {
        self.shared.look_again()?;
        let victims = self.shared.victims(retention)?;
        let state = self.shared.state.lock();
        let found = victims.iter().filter_map(|id| state.snapshots.get(id));
        Ok(found.map(|index| Snapshot::of(index)).collect())
    }
}
