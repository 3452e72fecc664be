//! What a store knows: its snapshots, which chunks they have and where, and who holds what. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::names::{self, ChunkName, SnapshotId};
use crate::error::Error;
use crate::format::{ChunkPlace, SnapshotIndex, SnapshotPin};
use crate::mutant::{Rule, removed};
use crate::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Committed snapshots, each by its index of the highest generation that can be read.
    pub(super) snapshots: BTreeMap<SnapshotId, Arc<SnapshotIndex>>,
    /// The chunks of those snapshots. A chunk that is stored twice is known at its last place.
    chunks: HashMap<ChunkName, Known>,
    /// How many creations, readers and checks need a pack, whatever the indexes say.
    held: HashMap<u64, usize>,
    /// How many readers a snapshot has.
    read: HashMap<SnapshotId, usize>,
    /// Pins that end with this process.
    pins: Vec<PinnedBy>,
    /// Pins that are files, of each owner the one that counts.
    pin_files: Vec<PinFile>,
    /// The highest generation of any pin so far, be it one that failed.
    last_pin: u64,
    /// How many pins there ever were: each has its number.
    pinned: u64,
    /// Index objects that cannot be read, with the reason: what they name is not known.
    pub(super) unreadable: BTreeMap<String, Error>,
    /// Older generations, indexes whose removal failed, and pins that are over: to be removed.
    pub(super) stale: Vec<String>,
    /// Chunks that were found not to be as they should be.
    damaged: HashSet<ChunkName>,
    /// Set when a removal failed: names that it took may come back, so no pack goes before the store is opened again.
    pub(super) stuck: Option<Error>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) place: ChunkPlace,
    /// When it was last read past the cache and verified, in this life.
    pub(super) verified_micros: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct PinnedBy {
    pub(super) id: SnapshotId,
    pub(super) owner: String,
    number: u64,
    pub(super) expires_micros: u64,
}

/// A pin that is a file.
#[derive(Clone, Debug)]
pub(super) struct PinFile {
    /// Of the object.
    pub(super) name: String,
    pub(super) id: SnapshotId,
    /// What stands in it, or why that cannot be read.
    pub(super) found: Result<SnapshotPin, Error>,
}

impl PinFile {
    /// Whether it keeps its snapshot. One that cannot be read does: nobody knows until when.
    pub(super) fn holds(&self, now_micros: u64) -> bool {
        match &self.found {
            Ok(pin) => pin.expires > now_micros,
            Err(_) => !removed(Rule::UnreadablePinHolds),
        }
    }
}

impl State {
    /// Takes in an index that an opening found, the older snapshots first: of a chunk that stands twice the last place counts, where it
    /// was perhaps stored anew because it had rotted at the first.
    pub(super) fn insert_found(&mut self, index: Arc<SnapshotIndex>) {
        for place in &index.chunks {
            self.learn(place, true);
        }
        self.snapshots.insert(SnapshotId(index.id), index);
    }

    /// Takes in a committed index, whose chunks in the pack `own` have just been stored; returns the index that it replaces. A chunk
    /// that it has elsewhere stays known where it is known: it may have rotted there meanwhile, and been stored anew.
    pub(super) fn insert(
        &mut self,
        index: Arc<SnapshotIndex>,
        own: Option<u64>,
    ) -> Option<Arc<SnapshotIndex>> {
        for place in &index.chunks {
            self.learn(place, Some(place.pack) == own);
        }
        let replaced = self.snapshots.insert(SnapshotId(index.id), Arc::clone(&index));
        if let Some(old) = &replaced {
            let places: HashSet<(u64, u64)> = index.chunks.iter().map(place_of).collect();
            let mut gone = old
                .chunks
                .iter()
                .filter(|place| !places.contains(&place_of(place)));
            let is_known = |place: &ChunkPlace| {
                let known = self.chunks.get(&ChunkName(place.name));
                known.is_some_and(|known| known.place == *place)
            };
            if gone.any(is_known) {
                self.leave_places();
            }
        }
        replaced
    }

    /// At the place where a chunk is known it is as good as it was.
    fn learn(&mut self, place: &ChunkPlace, counts: bool) {
        let known = Known {
            place: *place,
            verified_micros: None,
        };
        let name = ChunkName(place.name);
        let entry = self.chunks.entry(name).or_insert(known);
        if entry.place != *place && counts {
            *entry = known;
            self.damaged.remove(&name);
        }
    }

    /// Takes over what a view found when it looked again.
    pub(super) fn look_again(&mut self, found: State) {
        let State {
            snapshots,
            chunks,
            unreadable,
            pin_files,
            ..
        } = found;
        let before = std::mem::replace(&mut self.chunks, chunks);
        let place = |known: Option<&Known>| known.map(|known| known.place);
        self.damaged
            .retain(|name| place(self.chunks.get(name)) == place(before.get(name)));
        (self.snapshots, self.unreadable, self.pin_files) = (snapshots, unreadable, pin_files);
    }

    /// A chunk that is being written counts for others at once only where that rule is removed.
    pub(super) fn learn_early(&mut self, place: &ChunkPlace, now_micros: u64) {
        if removed(Rule::SharesCommitted) {
            let known = Known {
                place: *place,
                verified_micros: Some(now_micros),
            };
            self.chunks.insert(ChunkName(place.name), known);
        }
    }

    /// The generation that the next index of the snapshot gets: above all that there are, readable or not.
    pub(super) fn next_generation(&self, id: SnapshotId) -> u64 {
        let objects = self.unreadable.keys().chain(&self.stale);
        let others = objects
            .filter_map(|name| names::parse_index(name))
            .filter(|(of, _)| *of == id);
        let known = self.snapshots.get(&id).map(|index| index.generation);
        let highest = others.map(|(_, generation)| generation).chain(known).max();
        highest.map_or(0, |highest| highest + 1)
    }

    /// A readable index of a higher generation makes up for those that cannot be read.
    pub(super) fn supersede_unreadable(&mut self, id: SnapshotId) {
        let State {
            unreadable, stale, ..
        } = self;
        unreadable.retain(|name, _| {
            let superseded = names::parse_index(name).is_some_and(|(of, _)| of == id);
            if superseded {
                stale.push(name.clone());
            }
            !superseded
        });
    }

    /// Forgets snapshots, and the chunks that only they had.
    pub(super) fn remove(&mut self, ids: &[SnapshotId]) {
        for id in ids {
            self.snapshots.remove(id);
            self.pins.retain(|pin| pin.id != *id);
        }
        let mut needed = HashSet::new();
        for index in self.snapshots.values() {
            needed.extend(index.chunks.iter().map(|place| ChunkName(place.name)));
        }
        self.chunks.retain(|name, _| needed.contains(name));
        self.damaged.retain(|name| needed.contains(name));
        self.leave_places();
    }

    /// No chunk is known at a place that no index names. It stands elsewhere, too, or it would be gone.
    fn leave_places(&mut self) {
        let places = self.places();
        for index in self.snapshots.values() {
            for place in &index.chunks {
                if let Some(known) = self.chunks.get_mut(&ChunkName(place.name))
                    && !places.contains(&place_of(&known.place))
                {
                    *known = Known {
                        place: *place,
                        verified_micros: None,
                    };
                }
            }
        }
    }

    /// Where any snapshot has a chunk.
    fn places(&self) -> HashSet<(u64, u64)> {
        let chunks = self.snapshots.values().flat_map(|index| &index.chunks);
        chunks.map(place_of).collect()
    }

    /// Where the chunk is; its pack is held from now on, if the second is true.
    pub(super) fn hold_chunk(&mut self, name: &ChunkName) -> Option<(Known, bool)> {
        let known = *self.chunks.get(name)?;
        Some((known, self.hold(known.place.pack)))
    }

    pub(super) fn chunk(&self, name: &ChunkName) -> Option<Known> {
        self.chunks.get(name).copied()
    }

    /// Keeps a pack from being collected until it is released. False if nobody needs to release it.
    pub(super) fn hold(&mut self, pack: u64) -> bool {
        if removed(Rule::CreationsHoldPacks) {
            return false;
        }
        *self.held.entry(pack).or_default() += 1;
        true
    }

    pub(super) fn release(&mut self, packs: impl IntoIterator<Item = u64>) {
        for pack in packs {
            release(&mut self.held, &pack);
        }
    }

    pub(super) fn is_held(&self, pack: u64) -> bool {
        self.held.contains_key(&pack)
    }

    /// A reader of the snapshot: it stays, and so do its packs.
    pub(super) fn read(&mut self, index: &SnapshotIndex) {
        if removed(Rule::ReadersHoldPacks) {
            return;
        }
        *self.read.entry(SnapshotId(index.id)).or_default() += 1;
        for pack in packs_of(index) {
            *self.held.entry(pack).or_default() += 1;
        }
    }

    pub(super) fn end_read(&mut self, index: &SnapshotIndex) {
        if removed(Rule::ReadersHoldPacks) {
            return;
        }
        release(&mut self.read, &SnapshotId(index.id));
        self.release(packs_of(index));
    }

    /// Says that the chunk was read at `place` past the cache and is what it should be, or is not.
    pub(super) fn judge(&mut self, place: &ChunkPlace, verified_micros: Option<u64>) {
        let name = ChunkName(place.name);
        if let Some(known) = self.chunks.get_mut(&name)
            && known.place == *place
        {
            known.verified_micros = verified_micros;
            match verified_micros {
                Some(_) => self.damaged.remove(&name),
                None => self.damaged.insert(name),
            };
        }
    }

    /// Says that the chunk is as it should be at `place`, where it is known from now on.
    pub(super) fn prefer(&mut self, place: &ChunkPlace, verified_micros: u64) {
        self.learn(place, true);
        self.judge(place, Some(verified_micros));
    }

    pub(super) fn is_damaged(&self, index: &SnapshotIndex) -> bool {
        !self.damaged.is_empty()
            && index
                .chunks
                .iter()
                .any(|place| self.damaged.contains(&ChunkName(place.name)))
    }

    /// Returns the number of the pin.
    pub(super) fn pin(&mut self, id: SnapshotId, owner: &str, expires_micros: u64) -> u64 {
        self.unpin(id, owner);
        self.pinned += 1;
        self.pins.push(PinnedBy {
            id,
            owner: owner.to_owned(),
            number: self.pinned,
            expires_micros,
        });
        self.pinned
    }

    /// Ends that pin, and not the one that its owner may have renewed it with.
    pub(super) fn unpin_number(&mut self, number: u64) {
        self.pins.retain(|pin| pin.number != number);
    }

    /// Whether there was such a pin of this process.
    pub(super) fn unpin(&mut self, id: SnapshotId, owner: &str) -> bool {
        let before = self.pins.len();
        self.pins.retain(|pin| pin.id != id || pin.owner != owner);
        self.pins.len() < before
    }

    pub(super) fn pins(&self) -> &[PinnedBy] {
        &self.pins
    }

    pub(super) fn pin_files(&self) -> &[PinFile] {
        &self.pin_files
    }

    /// The generation that the next pin gets: above all that there are, of whichever snapshot.
    pub(super) fn next_pin(&mut self) -> u64 {
        self.last_pin += 1;
        self.last_pin
    }

    /// Takes in a pin that is a file; of two of one owner on one snapshot the one of the higher generation counts.
    pub(super) fn add_pin_file(&mut self, file: PinFile) {
        let generation = names::parse_pin(&file.name).map_or(0, |(_, generation)| generation);
        self.last_pin = self.last_pin.max(generation);
        let same_owner = |other: &&mut PinFile| match (&other.found, &file.found) {
            (Ok(a), Ok(b)) => a.id == b.id && a.owner == b.owner,
            _ => false,
        };
        match self.pin_files.iter_mut().find(same_owner) {
            Some(other) if other.name < file.name => {
                let old = std::mem::replace(other, file);
                self.stale.push(old.name);
            }
            Some(_) => self.stale.push(file.name),
            None => self.pin_files.push(file),
        }
    }

    pub(super) fn forget_pin_files(&mut self, names: &[String]) {
        self.pin_files.retain(|file| !names.contains(&file.name));
    }

    /// Forgets the pins that are over, whose files are to be removed. Returns those that are files.
    pub(super) fn expire_pins(&mut self, now_micros: u64) -> Vec<PinFile> {
        self.pins.retain(|pin| pin.expires_micros > now_micros);
        let over = |file: &mut PinFile| !file.holds(now_micros);
        let expired: Vec<PinFile> = self.pin_files.extract_if(.., over).collect();
        self.stale.extend(expired.iter().map(|file| file.name.clone()));
        expired
    }

    /// Who has pinned the snapshot, for people.
    pub(super) fn owners(&self, id: SnapshotId, now_micros: u64) -> Vec<String> {
        let held = |file: &&PinFile| file.id == id && file.holds(now_micros);
        let of_files = self.pin_files.iter().filter(held).map(|file| match &file.found {
            Ok(pin) => format!("{:?}", pin.owner),
            Err(_) => "a pin that cannot be read".to_owned(),
        });
        let pinned = |pin: &&PinnedBy| pin.id == id && pin.expires_micros > now_micros;
        let of_process = self.pins.iter().filter(pinned);
        of_files
            .chain(of_process.map(|pin| format!("{:?}", pin.owner)))
            .collect()
    }

    /// Whether somebody reads the snapshot, or has pinned it.
    pub(super) fn is_in_use(&self, id: SnapshotId, now_micros: u64) -> bool {
        let pinned = |pin: &PinnedBy| pin.id == id && pin.expires_micros > now_micros;
        let held = |file: &PinFile| file.id == id && file.holds(now_micros);
        self.read.contains_key(&id) || self.pins.iter().any(pinned) || self.pin_files.iter().any(held)
    }

    /// The stored bytes of each pack that the snapshots need, each chunk once.
    pub(super) fn live(&self) -> BTreeMap<u64, u64> {
        let mut seen = HashSet::new();
        let mut live = BTreeMap::new();
        for place in self.snapshots.values().flat_map(|index| &index.chunks) {
            if seen.insert((place.pack, place.offset)) {
                *live.entry(place.pack).or_default() += u64::from(place.stored_len);
            }
        }
        live
    }

    /// Where snapshots have the chunk. Looks through all of them.
    pub(super) fn places_of(&self, name: &ChunkName) -> Vec<ChunkPlace> {
        let chunks = self.snapshots.values().flat_map(|index| &index.chunks);
        chunks.filter(|place| place.name == name.0).copied().collect()
    }

    /// The snapshots that have the chunk at that place.
    pub(super) fn users(&self, place: &ChunkPlace) -> Vec<SnapshotId> {
        let users = self
            .snapshots
            .iter()
            .filter(|(_, index)| index.chunks.contains(place));
        users.map(|(id, _)| *id).collect()
    }
}

pub(super) fn place_of(place: &ChunkPlace) -> (u64, u64) {
    (place.pack, place.offset)
}

/// The packs of an index, each once.
pub(super) fn packs_of(index: &SnapshotIndex) -> Vec<u64> {
    let mut packs: Vec<u64> = index.chunks.iter().map(|place| place.pack).collect();
    packs.sort_unstable();
    packs.dedup();
    packs
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
