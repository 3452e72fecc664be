//! Opening a store, and what it says of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::config::StoreConfig;
use super::create::Creation;
use super::info::{Damage, Draft, Snapshot};
use super::names::{self, SnapshotId};
use super::objects::{Object, Objects};
use super::packs::refused;
use super::read::Reader;
use super::state::State;
use super::{Directory, pin::Pin};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Bad, INDEX_LEN_MAX, SnapshotIndex};
use crate::fs::{Fs, Lock, RealFs, holder_line};
use crate::sync::{Arc, Mutex};

/// A store of snapshots. Clones are the same store; the last one to go, with all that was made from it, gives the lock back.
///
/// See the [module](super) for what it promises.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) config: StoreConfig,
    /// Never held across I/O.
    pub(super) state: Mutex<State>,
    /// Held while indexes are put or removed and packs are removed. Taken before `state`.
    pub(super) changing: Mutex<()>,
    /// `None` in a view, which changes nothing.
    lock: Option<Box<dyn Lock>>,
}

impl Store {
    /// Opens the store in `dir`, which may be the directory of a journal; makes both if they are not there.
    ///
    /// Durable on return: everything that it then lists. Damage does not keep it from opening: see [`damage`](Store::damage).
    ///
    /// Errors: `Locked` if another process has it open, `Invalid` and `Unsupported` for the settings, `NoSpace` and `Io` from the system.
    pub fn open(dir: impl AsRef<Path>, config: StoreConfig) -> Result<Store> {
        let dir = dir.as_ref();
        let fs = RealFs::create(dir).map_err(|e| Error::io(dir, "make the directory", e))?;
        Store::open_on(Arc::new(fs), config)
    }

    /// The same in a given file system.
    pub fn open_on(fs: Arc<dyn Fs>, config: StoreConfig) -> Result<Store> {
        Store::open_in(Arc::new(Directory::new(fs)), config)
    }

    /// The same wherever objects can be kept.
    pub fn open_in(objects: Arc<dyn Objects>, config: StoreConfig) -> Result<Store> {
        config.validate()?;
        let lock = take_lock(&*objects)?;
        objects
            .settle()
            .map_err(|e| Error::io(objects.display(""), "make the store ready", e))?;
        let state = load(&*objects)?;
        tracing::debug!(place = %objects.display("").display(), snapshots = state.snapshots.len(), "a snapshot store was opened");
        Ok(Store::new(objects, config, state, Some(lock)))
    }

    /// A view of the store in `dir`, beside the process that has it open or without one. It reads, and changes nothing: every other
    /// call is `Invalid`.
    ///
    /// Errors: `NotFound` if there is no store, `Io` from the system.
    pub fn view(dir: impl AsRef<Path>) -> Result<Store> {
        let dir = dir.as_ref();
        let fs = RealFs::open(dir).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::at(ErrorKind::NotFound, dir, "there is no such directory"),
            _ => Error::io(dir, "open the directory", e),
        })?;
        Store::view_on(Arc::new(fs))
    }

    /// The same in a given file system.
    pub fn view_on(fs: Arc<dyn Fs>) -> Result<Store> {
        Store::view_in(Arc::new(Directory::new(fs)))
    }

    /// The same wherever objects are kept.
    pub fn view_in(objects: Arc<dyn Objects>) -> Result<Store> {
        let state = load(&*objects)?;
        Ok(Store::new(objects, StoreConfig::new(), state, None))
    }

    fn new(
        objects: Arc<dyn Objects>,
        config: StoreConfig,
        state: State,
        lock: Option<Box<dyn Lock>>,
    ) -> Store {
        let shared = Shared {
            objects,
            config,
            state: Mutex::new(state),
            changing: Mutex::new(()),
            lock,
        };
        Store {
            shared: Arc::new(shared),
        }
    }

    /// Begins a snapshot; its bytes are written to what this returns. Nothing is durable or listed before its
    /// [`commit`](Creation::commit), and if it is dropped before that, it never was.
    ///
    /// Errors: `Invalid` in a view, or if the metadata is too long.
    pub fn create(&self, draft: Draft) -> Result<Creation> {
        self.shared.writable()?;
        Creation::new(Arc::clone(&self.shared), draft)
    }

    /// All snapshots, the newest first: by the entry that they cover, then by time. Those of damaged chunks are among them until
    /// somebody removes them; those whose index cannot be read are in [`damage`](Store::damage) instead. A view looks anew each time.
    pub fn list(&self) -> Result<Vec<Snapshot>> {
        self.shared.look_again()?;
        let state = self.shared.state.lock();
        let mut list: Vec<Snapshot> = state
            .snapshots
            .values()
            .map(|index| Snapshot::of(index))
            .collect();
        list.sort_by_key(|snapshot| {
            std::cmp::Reverse((snapshot.covers, snapshot.created_micros, snapshot.id))
        });
        Ok(list)
    }

    /// The same of one log.
    pub fn list_of(&self, log: crate::types::LogKey) -> Result<Vec<Snapshot>> {
        let mut list = self.list()?;
        list.retain(|snapshot| snapshot.log == log);
        Ok(list)
    }

    /// The snapshot `id`. `NotFound` if there is none.
    pub fn get(&self, id: SnapshotId) -> Result<Snapshot> {
        Ok(Snapshot::of(&*self.shared.find(id)?))
    }

    /// Reads the snapshot `id`, each chunk verified before a byte of it is returned. As long as the reader lives neither the
    /// snapshot nor its chunks are removed by this store.
    ///
    /// Errors: `NotFound` if there is no such snapshot.
    pub fn reader(&self, id: SnapshotId) -> Result<Reader> {
        Reader::open(Arc::clone(&self.shared), id)
    }

    /// Keeps the snapshot from being collected for `time`, or until [`unpin`](Store::unpin), the drop of the guard, or the end of this process.
    /// An owner has one pin on a snapshot: the last one counts.
    ///
    /// Errors: `NotFound` if there is no such snapshot, `Invalid` in a view, whose word another process does not hear.
    pub fn pin(&self, id: SnapshotId, owner: &str, time: Duration) -> Result<Pin> {
        self.shared.writable()?;
        let expires_micros = later(self.shared.objects.now_micros(), time);
        let mut state = self.shared.state.lock();
        if !state.snapshots.contains_key(&id) {
            return Err(self.shared.no_snapshot(id));
        }
        state.pin(id, owner, expires_micros);
        Ok(Pin::new(Arc::clone(&self.shared), id, owner))
    }

    /// Ends the pin of `owner` on the snapshot, if it has one.
    pub fn unpin(&self, id: SnapshotId, owner: &str) {
        self.shared.state.lock().unpin(id, owner);
    }

    /// Who has pinned the snapshot, and until when, in microseconds since 1970.
    #[must_use]
    pub fn pins(&self, id: SnapshotId) -> Vec<(String, u64)> {
        self.shared.state.lock().pins(id)
    }

    /// Whether a chunk of the snapshot is known to be damaged: it was read in this life and did not verify, and nobody has stored it anew
    /// since. False says that nobody has seen damage, not that there is none: see [`verify`](Store::verify).
    #[must_use]
    pub fn is_damaged(&self, id: SnapshotId) -> bool {
        let state = self.shared.state.lock();
        state
            .snapshots
            .get(&id)
            .is_some_and(|index| state.is_damaged(index))
    }

    /// Indexes that cannot be read: damaged, or of a newer version. What they need is not known, so while there is one no pack is
    /// removed; [`remove_unreadable`](Store::remove_unreadable) gives them up.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        let state = self.shared.state.lock();
        let unreadable = state.unreadable.iter();
        unreadable
            .map(|(name, error)| Damage {
                path: self.shared.objects.display(name),
                offset: 0,
                chunk: None,
                snapshots: names::parse_index(name).into_iter().map(|(id, _)| id).collect(),
                error: error.clone(),
            })
            .collect()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.shared.objects.display("");
        f.debug_struct("Store")
            .field("place", &place)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// `Invalid` in a view.
    pub(super) fn writable(&self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let text = "this is a view, which changes nothing; open the store instead";
        Err(Error::at(ErrorKind::Invalid, self.objects.display(""), text))
    }

    /// A view reads again what its writer may have changed; a store knows.
    pub(super) fn look_again(&self) -> Result<()> {
        if self.lock.is_none() {
            let found = load(&*self.objects)?;
            let mut state = self.state.lock();
            state.snapshots.clear();
            for index in found.snapshots.into_values() {
                state.insert(index, None);
            }
            state.unreadable = found.unreadable;
        }
        Ok(())
    }

    pub(super) fn find(&self, id: SnapshotId) -> Result<Arc<SnapshotIndex>> {
        if let Some(index) = self.state.lock().snapshots.get(&id) {
            return Ok(Arc::clone(index));
        }
        self.look_again()?;
        let state = self.state.lock();
        state
            .snapshots
            .get(&id)
            .cloned()
            .ok_or_else(|| self.no_snapshot(id))
    }

    pub(super) fn no_snapshot(&self, id: SnapshotId) -> Error {
        let text = format!("there is no snapshot {id}");
        Error::at(ErrorKind::NotFound, self.objects.display(""), text)
    }
}

fn take_lock(objects: &dyn Objects) -> Result<Box<dyn Lock>> {
    objects.lock(&holder_line()).map_err(|e| {
        let path = objects.display("");
        if e.kind() != io::ErrorKind::WouldBlock {
            return Error::io(path, "take the lock of the store", e);
        }
        let holder = objects
            .holder()
            .ok()
            .flatten()
            .filter(|holder| !holder.is_empty());
        let holder = holder.unwrap_or_else(|| "another process".into());
        Error::at(
            ErrorKind::Locked,
            path,
            format!("the snapshot store is open in {holder}; close it there first, or look with a view"),
        )
    })
}

/// Reads every index. Beside a writer one may be gone when it is its turn: then it was replaced or removed, and what it was
/// replaced by was there before.
fn load(objects: &dyn Objects) -> Result<State> {
    let listed = objects.list().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::at(
            ErrorKind::NotFound,
            objects.display(""),
            "there is no snapshot store here",
        ),
        _ => Error::io(objects.display(""), "list the store", e),
    })?;
    let mut state = State::default();
    let mut by_age: BTreeMap<(u64, SnapshotId), SnapshotIndex> = BTreeMap::new();
    let mut last: Option<SnapshotId> = None;
    // Backwards: of one snapshot the highest generation comes first.
    for name in listed.iter().rev() {
        let Some((id, generation)) = names::parse_index(name) else {
            continue;
        };
        if last == Some(id) {
            state.stale.push(name.clone());
            continue;
        }
        match load_index(objects, name, id, generation) {
            Ok(Some(index)) => {
                last = Some(id);
                by_age.insert((index.created, id), index);
            }
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "an index of a snapshot cannot be read");
                state.unreadable.insert(name.clone(), error);
            }
        }
    }
    for index in by_age.into_values() {
        state.insert(Arc::new(index), None);
    }
    Ok(state)
}

/// `None` if it is not there.
fn load_index(
    objects: &dyn Objects,
    name: &str,
    id: SnapshotId,
    generation: u64,
) -> Result<Option<SnapshotIndex>> {
    let io = |e| Error::io(objects.display(name), "read the index", e);
    let object = match objects.get(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        object => object.map_err(io)?,
    };
    let bytes = read_all(&*object).map_err(io)?;
    let index = bytes
        .ok_or(Bad::Field("length"))
        .and_then(|bytes| SnapshotIndex::decode(&bytes));
    let index = index.map_err(|bad| refused(bad, objects.display(name), "the index"))?;
    if (index.id, index.generation) == (id.0, generation) {
        return Ok(Some(index));
    }
    let text = format!(
        "the index is that of {}, generation {}",
        SnapshotId(index.id),
        index.generation
    );
    Err(Error::at_offset(
        ErrorKind::Damaged,
        objects.display(name),
        0,
        text,
    ))
}

/// `None` if no index is as long.
pub(super) fn read_all(object: &dyn Object) -> io::Result<Option<Vec<u8>>> {
    let len = object.len()?;
    if len > INDEX_LEN_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    object.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

pub(super) fn later(now_micros: u64, time: Duration) -> u64 {
    now_micros.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
