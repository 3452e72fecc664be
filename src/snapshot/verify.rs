//! Reading everything, to say what is wrong: all at once, or a little at a time for ever.

use std::collections::BTreeMap;
use std::io;

use super::info::Damage;
use super::names::{self, ChunkName, SnapshotId};
use super::pace::Pace;
use super::packs::Packs;
use super::state::packs_of;
use super::store::{Shared, Store, read_all};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChunkPlace, SnapshotIndex};
use crate::mutant::{Rule, removed};
use crate::sync::Arc;

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Chunks that were read, each once however many snapshots share it.
    pub chunks: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// What is not as it should be, in the order of the packs.
    pub damage: Vec<Damage>,
    /// Whether the system promised that all reads came from the device.
    pub past_cache: bool,
}

/// Where a scrub goes on. Keep it across restarts with [`to_bytes`](ScrubPosition::to_bytes); one that is lost, or older than a collection,
/// costs reading some chunks earlier or later, nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScrubPosition {
    pack: u64,
    offset: u64,
}

/// What [`Store::scrub`] did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Scrubbed {
    /// Where the next one goes on.
    pub next: ScrubPosition,
    /// The end was reached: `next` is the beginning.
    pub wrapped: bool,
    /// Chunks that were read, their stored bytes, and what was wrong.
    pub found: Verified,
}

impl ScrubPosition {
    /// 16 bytes that [`from_bytes`](ScrubPosition::from_bytes) reads.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.pack) << 64 | u128::from(self.offset)).to_le_bytes()
    }

    /// The position that gave the bytes. Any bytes are a position.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> ScrubPosition {
        let [offset, pack] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        });
        ScrubPosition { pack, offset }
    }
}

impl Store {
    /// Reads every chunk of the snapshot `id`, past the cache, and says what is wrong. Damage is not an error but a finding, and so is a
    /// chunk that the system refuses to read; it is remembered, so that nothing new shares a damaged chunk.
    ///
    /// Errors: `NotFound` if there is no such snapshot.
    pub fn verify(&self, id: SnapshotId) -> Result<Verified> {
        self.verify_watched(Some(id), &mut |_, _| {})
    }

    /// Reads the index of the snapshot `id` and every chunk, past the cache, and gently if told so: what is wrong with it first, if anything
    /// is.
    pub(crate) fn check(&self, id: SnapshotId, pace: Option<Pace>) -> Result<Option<Error>> {
        let (held, read) = {
            // No rewriting comes between: the index is the one that counts, and its packs stay.
            let _changing = self.shared.changing.lock();
            let index = self.shared.find(id)?;
            let held = Held::new(&self.shared, |of| *of == id);
            (held, self.shared.check_index(&index))
        };
        if let Err(error) = read
            && !removed(Rule::CheckReadsIndex)
        {
            return Ok(Some(error));
        }
        let found = held.verify(pace, &mut |_, _| {});
        Ok(found.damage.into_iter().next().map(|damage| damage.error))
    }

    /// The same of all snapshots together; indexes that cannot be read are findings, too.
    pub fn verify_all(&self) -> Result<Verified> {
        self.verify_watched(None, &mut |_, _| {})
    }

    /// The same of the snapshot `id`, or with `None` of all; `progress` is told how many stored bytes were read, and of how many.
    pub fn verify_watched(
        &self,
        id: Option<SnapshotId>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Verified> {
        if let Some(id) = id {
            self.shared.find(id)?;
            let held = Held::new(&self.shared, |of| *of == id);
            return match held.indexes.is_empty() {
                true => Err(self.shared.no_snapshot(id)),
                false => Ok(held.verify(None, progress)),
            };
        }
        self.shared.look_again()?;
        let mut found = Held::new(&self.shared, |_| true).verify(None, progress);
        found.damage.extend(self.damage());
        Ok(found)
    }

    /// Reads chunks from `from` on, past the cache, until at least `budget_bytes` were read or all were: a little of what
    /// [`verify_all`](Store::verify_all) does, for a thread that does it slowly and for ever. Begin with the default position. Reads
    /// at least one chunk if there is any.
    ///
    /// Errors: none in a store; in a view those of [`list`](Store::list).
    pub fn scrub(&self, from: ScrubPosition, budget_bytes: u64) -> Result<Scrubbed> {
        self.shared.look_again()?;
        let held = Held::new(&self.shared, |_| true);
        let places = distinct(&held.indexes);
        let mut rest = places.range((from.pack, from.offset)..);
        let mut check = Check::new(&self.shared, None);
        let mut next = rest.next();
        while let Some((_, place)) = next {
            check.one(place);
            next = rest.next();
            if check.found.bytes >= budget_bytes {
                break;
            }
        }
        drop(held);
        let next = next.map(|((pack, offset), _)| ScrubPosition {
            pack: *pack,
            offset: *offset,
        });
        Ok(Scrubbed {
            wrapped: next.is_none(),
            next: next.unwrap_or_default(),
            found: check.found,
        })
    }
}

impl Shared {
    /// Reads the index past the cache, which must be as it is known. `changing` is held.
    fn check_index(&self, index: &SnapshotIndex) -> Result<()> {
        let name = names::index(SnapshotId(index.id), index.generation);
        let path = self.objects.display(&name);
        let read = self.objects.get(&name).and_then(|object| {
            object.evict()?;
            read_all(&*object)
        });
        let found = match read {
            Ok(bytes) => bytes.and_then(|bytes| SnapshotIndex::decode(&bytes).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io(path, "read the index", e)),
        };
        if found.as_ref() == Some(index) {
            return Ok(());
        }
        let text = "the index of a snapshot is damaged or lost";
        Err(Error::at_offset(ErrorKind::Damaged, path, 0, text))
    }
}

/// Keeps the packs of snapshots from being collected while they are read.
struct Held {
    shared: Arc<Shared>,
    indexes: Vec<Arc<SnapshotIndex>>,
    packs: Vec<u64>,
}

impl Held {
    /// Chosen and held in one step: a rewriting between them would leave places of packs that are gone, and they would be called damaged.
    fn new(shared: &Arc<Shared>, is_wanted: impl Fn(&SnapshotId) -> bool) -> Held {
        let mut state = shared.state.lock();
        let wanted = state.snapshots.iter().filter(|(id, _)| is_wanted(id));
        let indexes: Vec<_> = wanted.map(|(_, index)| Arc::clone(index)).collect();
        let mut packs: Vec<u64> = indexes.iter().flat_map(|index| packs_of(index)).collect();
        packs.retain(|pack| state.hold(*pack));
        Held {
            shared: Arc::clone(shared),
            indexes,
            packs,
        }
    }

    fn verify(&self, pace: Option<Pace>, progress: &mut dyn FnMut(u64, u64)) -> Verified {
        let mut check = Check::new(&self.shared, pace);
        let places = distinct(&self.indexes);
        let total = places.values().map(|place| u64::from(place.stored_len)).sum();
        for place in places.values() {
            check.one(place);
            progress(check.found.bytes, total);
        }
        check.found
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.state.lock().release(self.packs.drain(..));
    }
}

/// One pass over chunks.
struct Check<'a> {
    shared: &'a Shared,
    packs: Packs,
    bytes: Vec<u8>,
    found: Verified,
}

impl Check<'_> {
    fn new(shared: &Shared, pace: Option<Pace>) -> Check<'_> {
        Check {
            shared,
            packs: Packs::past_cache(&shared.objects).paced(pace),
            bytes: Vec::new(),
            found: Verified {
                past_cache: true,
                ..Verified::default()
            },
        }
    }

    /// A chunk that the device refuses to read is as lost as one that rotted, and no reason to leave the others unread.
    fn one(&mut self, place: &ChunkPlace) {
        let now = self.shared.objects.now_micros();
        self.found.chunks += 1;
        self.found.bytes += u64::from(place.stored_len);
        match self.packs.read(place, &mut self.bytes) {
            Ok(past_cache) => {
                self.found.past_cache &= past_cache;
                self.shared.state.lock().judge(place, Some(now));
            }
            Err(error) => self.add(place, error),
        }
    }

    fn add(&mut self, place: &ChunkPlace, error: Error) {
        let error = match error.kind() {
            ErrorKind::NotFound => error.recast(ErrorKind::Damaged, "a pack that snapshots need is lost"),
            _ => error,
        };
        tracing::warn!(%error, "a chunk of a snapshot is damaged");
        let mut state = self.shared.state.lock();
        state.judge(place, None);
        self.found.damage.push(Damage {
            path: error.path().map(Into::into).unwrap_or_default(),
            offset: place.offset,
            chunk: Some(ChunkName(place.name)),
            snapshots: state.users(place),
            error,
        });
    }
}

/// The chunks of the indexes, each place once, in the order of the medium.
fn distinct(indexes: &[Arc<SnapshotIndex>]) -> BTreeMap<(u64, u64), ChunkPlace> {
    let chunks = indexes.iter().flat_map(|index| &index.chunks);
    chunks.map(|place| ((place.pack, place.offset), *place)).collect()
}
