//! Pins: who wants a snapshot to stay, and until when. A guard lives in memory and ends with the process; a kept pin is a file
//! beside the index, and holds in every process until it expires or is taken back.
//!
//! A pin is put like an index: written, synced, named, its name synced. A later word of the same owner is put before the earlier one
//! is removed, so that a crash between leaves both, of which the later counts. A file that cannot be read holds its snapshot, which
//! its name says, until somebody gives it up: nobody knows for whom it speaks, or until when.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::names::{self, SnapshotId};
use super::objects::Objects;
use super::packs::refused;
use super::state::PinFile;
use super::store::{Shared, Store, later};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Bad, OWNER_LEN_MAX, PIN_LEN_MAX, SnapshotPin};
use crate::sync::Arc;

/// Keeps a snapshot from being collected until it expires or is dropped; see [`Store::pin`](super::Store::pin).
#[must_use = "a pin that is dropped holds nothing"]
pub struct Pin {
    shared: Arc<Shared>,
    id: SnapshotId,
    owner: String,
    number: u64,
    kept: bool,
}

/// Somebody's word that a snapshot stays.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PinInfo {
    /// The snapshot. It need not be there: somebody may have removed its files.
    pub snapshot: SnapshotId,
    /// Who wants it to stay; `None` if the file cannot be read.
    pub owner: Option<String>,
    /// When it was made, in microseconds since 1970; 0 where that is not known.
    pub created_micros: u64,
    /// Until when, in microseconds since 1970; `u64::MAX` for ever, or where it is not known.
    pub expires_micros: u64,
    /// Whether that is over: it holds nothing any more, and goes with the next collection.
    pub expired: bool,
    /// Its file; `None` for one that ends with its process.
    pub path: Option<PathBuf>,
    /// Why the file cannot be read, if it cannot. It holds all the same.
    pub error: Option<Error>,
}

impl Pin {
    fn new(shared: Arc<Shared>, id: SnapshotId, owner: &str, number: u64) -> Pin {
        Pin {
            shared,
            id,
            owner: owner.to_owned(),
            number,
            kept: false,
        }
    }

    /// Leaves the pin to its expiry.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin")
            .field("id", &self.id)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.kept {
            self.shared.state.lock().unpin_number(self.number);
        }
    }
}

impl Store {
    /// Keeps the snapshot from being collected for `time`, or until [`unpin`](Store::unpin), the drop of the guard, or the end of this process.
    /// An owner has one such pin on a snapshot: the last one counts, and the guard of an earlier one ends nothing any more.
    ///
    /// Errors: `NotFound` if there is no such snapshot, `Invalid` in a view, whose word another process does not hear.
    pub fn pin(&self, id: SnapshotId, owner: &str, time: Duration) -> Result<Pin> {
        self.shared.writable()?;
        let expires_micros = later(self.shared.objects.now_micros(), time);
        let mut state = self.shared.state.lock();
        if !state.snapshots.contains_key(&id) {
            return Err(self.shared.no_snapshot(id));
        }
        let number = state.pin(id, owner, expires_micros);
        Ok(Pin::new(Arc::clone(&self.shared), id, owner, number))
    }

    /// The same by a file, which outlives the process: the snapshot stays for `time`, or with `None` for ever, until
    /// [`unpin`](Store::unpin), whichever process collects. Durable on return. An owner has one such pin on a snapshot: the last one
    /// counts, also where it ends earlier.
    ///
    /// ```
    /// use std::time::Duration;
    /// use everlog::snapshot::{Draft, Retention, Store, StoreConfig};
    /// use everlog::{EntryId, LogKey};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Store::open(dir.path(), StoreConfig::new())?;
    /// let take = |index| store.create(Draft::new(LogKey(7), EntryId::new(1, index)))?.commit();
    /// let before = take(1)?.snapshot.id;
    /// store.pin_durably(before, "upgrade to 2.0", Duration::from_secs(7 * 24 * 3600))?;
    /// take(2)?;
    /// store.collect(&Retention::new().newest(1))?;
    /// assert_eq!(store.list()?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Errors: `NotFound` if there is no such snapshot; `Invalid` in a view, and for an owner of no or more than 255 bytes, or with control
    /// characters; `NoSpace` and `Io`: it is not pinned; `Unknown`: it may be when the store is opened again.
    pub fn pin_durably(
        &self,
        id: SnapshotId,
        owner: &str,
        time: impl Into<Option<Duration>>,
    ) -> Result<PinInfo> {
        self.shared.writable()?;
        check_owner(owner)?;
        let now = self.shared.objects.now_micros();
        // No collection runs meanwhile: a snapshot that is there now is there when it is pinned.
        let _changing = self.shared.changing.lock();
        let generation = {
            let mut state = self.shared.state.lock();
            if !state.snapshots.contains_key(&id) {
                return Err(self.shared.no_snapshot(id));
            }
            state.next_pin()
        };
        let pin = SnapshotPin {
            id: id.0,
            generation,
            created: now,
            expires: time.into().map_or(u64::MAX, |time| later(now, time)),
            owner: owner.to_owned(),
        };
        let name = names::pin(id, generation);
        self.shared.put_pin(&name, &pin)?;
        let file = PinFile {
            name,
            id,
            found: Ok(pin),
        };
        let info = self.shared.pin_info(&file, now);
        self.shared.state.lock().add_pin_file(file);
        tracing::info!(%id, owner, "a snapshot was pinned");
        // The earlier word of this owner holds nothing any more; if it cannot be removed now, the next collection does it.
        if let Err(error) = self.shared.remove_stale() {
            tracing::warn!(%error, "the file of an earlier pin could not be removed");
        }
        Ok(info)
    }

    /// Ends the pins of `owner` on the snapshot, the guard and the file. Durable on return; false if there was none.
    ///
    /// Errors: `Invalid` in a view; `Io` from the system: the pin holds, or may hold again when the store is opened.
    pub fn unpin(&self, id: SnapshotId, owner: &str) -> Result<bool> {
        self.shared.writable()?;
        let _changing = self.shared.changing.lock();
        let of_owner =
            |file: &PinFile| file.id == id && file.found.as_ref().is_ok_and(|pin| pin.owner == owner);
        let removed = self.shared.remove_pins(&of_owner)?;
        Ok(self.shared.state.lock().unpin(id, owner) || removed > 0)
    }

    /// Gives up the pins on the snapshot whose files cannot be read, those of a newer version included. Returns how many there
    /// were.
    ///
    /// Errors: those of [`unpin`](Store::unpin).
    pub fn unpin_unreadable(&self, id: SnapshotId) -> Result<usize> {
        self.shared.writable()?;
        let _changing = self.shared.changing.lock();
        self.shared
            .remove_pins(&|file: &PinFile| file.id == id && file.found.is_err())
    }

    /// All pins, also those that expired and were not collected yet, sorted by snapshot. A view sees those that are files.
    ///
    /// Errors: none in a store; in a view those of [`list`](Store::list).
    pub fn pins(&self) -> Result<Vec<PinInfo>> {
        self.shared.look_again()?;
        let now = self.shared.objects.now_micros();
        let state = self.shared.state.lock();
        let files = state.pin_files().iter();
        let files = files.map(|file| self.shared.pin_info(file, now));
        let guards = state.pins().iter().map(|pin| PinInfo {
            snapshot: pin.id,
            owner: Some(pin.owner.clone()),
            created_micros: 0,
            expires_micros: pin.expires_micros,
            expired: pin.expires_micros <= now,
            path: None,
            error: None,
        });
        let mut pins: Vec<PinInfo> = files.chain(guards).collect();
        pins.sort_by(|a, b| (a.snapshot, &a.owner).cmp(&(b.snapshot, &b.owner)));
        Ok(pins)
    }
}

impl Shared {
    fn put_pin(&self, name: &str, pin: &SnapshotPin) -> Result<()> {
        let io = |doing: &'static str| move |e: io::Error| Error::io(self.objects.display(name), doing, e);
        let mut upload = self.objects.put(name).map_err(io("create the pin"))?;
        upload.write_all(&pin.encode()).map_err(io("write the pin"))?;
        upload.sync().map_err(io("sync the pin"))?;
        upload.publish().map_err(|e| {
            let perhaps = "the snapshot may or may not be pinned when the store is opened again";
            io("name the pin")(e).recast(ErrorKind::Unknown, perhaps)
        })
    }

    /// Removes the files that `chosen` chooses. While that is not known to have succeeded they hold.
    fn remove_pins(&self, chosen: &dyn Fn(&PinFile) -> bool) -> Result<usize> {
        let names: Vec<String> = {
            let state = self.state.lock();
            let files = state.pin_files().iter().filter(|file| chosen(file));
            files.map(|file| file.name.clone()).collect()
        };
        if names.is_empty() {
            return Ok(0);
        }
        let deleted = self.objects.delete(&names);
        deleted.map_err(|e| Error::io(self.objects.display(&names[0]), "remove the pin", e))?;
        self.state.lock().forget_pin_files(&names);
        Ok(names.len())
    }

    pub(super) fn pin_info(&self, file: &PinFile, now: u64) -> PinInfo {
        let pin = file.found.as_ref().ok();
        PinInfo {
            snapshot: file.id,
            owner: pin.map(|pin| pin.owner.clone()),
            created_micros: pin.map_or(0, |pin| pin.created),
            expires_micros: pin.map_or(u64::MAX, |pin| pin.expires),
            expired: !file.holds(now),
            path: Some(self.objects.display(&file.name)),
            error: file.found.as_ref().err().cloned(),
        }
    }
}

/// Reads the pin `name`. Whatever keeps it from being read is a part of what was found. `None` if it is not there.
pub(super) fn load(objects: &dyn Objects, name: &str) -> Option<PinFile> {
    let (id, generation) = names::parse_pin(name)?;
    let io = |e| Error::io(objects.display(name), "read the pin", e);
    let read = || -> io::Result<Result<SnapshotPin, Bad>> {
        let object = objects.get(name)?;
        let len = object.len()?;
        if len > PIN_LEN_MAX {
            return Ok(Err(Bad::Field("length")));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        object.read_exact_at(&mut bytes, 0)?;
        Ok(SnapshotPin::decode(&bytes))
    };
    let found = match read() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => Err(io(e)),
        Ok(Err(bad)) => Err(refused(bad, objects.display(name), "the pin")),
        Ok(Ok(pin)) if (pin.id, pin.generation) == (id.0, generation) => Ok(pin),
        Ok(Ok(pin)) => {
            let (of, generation) = (SnapshotId(pin.id), pin.generation);
            let text = format!("the pin is one of {of}, generation {generation}");
            Err(Error::at_offset(
                ErrorKind::Damaged,
                objects.display(name),
                0,
                text,
            ))
        }
    };
    if let Err(error) = &found {
        tracing::warn!(%error, "a pin cannot be read, and holds its snapshot");
    }
    Some(PinFile {
        name: name.to_owned(),
        id,
        found,
    })
}

fn check_owner(owner: &str) -> Result<()> {
    if (1..=OWNER_LEN_MAX).contains(&owner.len()) && !owner.contains(char::is_control) {
        return Ok(());
    }
    let text =
        format!("an owner has 1 to {OWNER_LEN_MAX} bytes and no control characters; this one is {owner:?}");
    Err(Error::new(ErrorKind::Invalid, text))
}
