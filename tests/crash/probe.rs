//! Stands between the journal and the simulated disk: takes crash states in the middle of operations, and makes calls fail.
//!
//! A crash state is a disk of its own, so that any number of them can be taken from one run without ending it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use everlog::fs::{Access, File, Fs, Kept, Lock, SimFs, Space};

use super::random::Random;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// What was not synced is lost, kept, or kept in part.
    Power,
    /// The process dies; the system keeps everything that was written.
    Kill,
}

/// A disk as a crash left it.
pub(crate) struct Moment {
    pub(crate) disk: SimFs,
    pub(crate) loss: Loss,
    /// Before which call it was taken, and the seed of a power cut.
    pub(crate) at: String,
    /// The journal had been closed, and nothing was written since.
    pub(crate) closed: bool,
}

/// What goes wrong once, after `spare` calls of its kind that do not.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The sync of a segment.
    Sync { spare: u32, kept: Kept },
    /// A write to a segment; a part of it is taken.
    Write { spare: u32, full: bool },
    /// Any call that changes something, without effect.
    Any { spare: u32 },
    /// The sync of the journal's directory.
    Dir { spare: u32, kept: Kept },
}

#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) disk: SimFs,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: Random,
    /// Chance, of 1000, that a crash state is taken at a call.
    chance: u64,
    /// How many may still be taken.
    room: usize,
    moments: Vec<Moment>,
    /// What open files are called now.
    names: BTreeMap<u64, String>,
    next_file: u64,
    faults: Vec<Fault>,
    fired: u32,
    dir_failed: bool,
    calls: u64,
    removed_segments: u64,
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.loss, self.at)
    }
}

impl Probe {
    pub(crate) fn new(disk: SimFs, seed: u64) -> Probe {
        let state = State {
            random: Random::new(seed),
            chance: 0,
            room: 0,
            moments: Vec::new(),
            names: BTreeMap::new(),
            next_file: 0,
            faults: Vec::new(),
            fired: 0,
            dir_failed: false,
            calls: 0,
            removed_segments: 0,
        };
        Probe {
            disk,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// From now on a call is a crash state with `chance` of 1000, until `room` are taken.
    pub(crate) fn arm(&self, chance: u64, room: usize) {
        let mut state = self.held();
        state.chance = chance;
        state.room = room;
    }

    /// The crash states taken since the last time.
    pub(crate) fn take(&self) -> Vec<Moment> {
        let mut state = self.held();
        state.room = 0;
        std::mem::take(&mut state.moments)
    }

    /// The state that a crash right now leaves.
    pub(crate) fn moment(&self, loss: Loss, at: &str) -> Moment {
        let seed = self.held().random.next();
        let disk = match loss {
            Loss::Power => self.disk.crash(seed),
            Loss::Kill => self.disk.fork(),
        };
        Moment {
            disk,
            loss,
            at: format!("{at}, seed {seed}"),
            closed: false,
        }
    }

    pub(crate) fn plan(&self, fault: Fault) {
        self.held().faults.push(fault);
    }

    /// Forgets the faults that are still planned.
    pub(crate) fn heal(&self) {
        self.held().faults.clear();
    }

    /// How many faults happened.
    pub(crate) fn fired(&self) -> u32 {
        self.held().fired
    }

    /// Whether a sync of the directory failed.
    pub(crate) fn dir_failed(&self) -> bool {
        self.held().dir_failed
    }

    /// How many segments were removed.
    pub(crate) fn removed_segments(&self) -> u64 {
        self.held().removed_segments
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Before a call that changes something. `write`: to which file and what.
    fn before(&self, call: &str, path: &str, write: Option<(&[u8], u64)>) -> io::Result<()> {
        let loss = {
            let mut state = self.held();
            state.calls += 1;
            let chance = state.chance;
            let take = state.room > 0 && state.random.below(1000) < chance;
            state.room -= usize::from(take);
            let kill = state.random.one_in(3);
            take.then_some(if kill { Loss::Kill } else { Loss::Power })
        };
        if let Some(loss) = loss {
            let at = format!("before {call} {path}, call {}", self.held().calls);
            let moment = self.moment(loss, &at);
            if let (Loss::Kill, Some((bytes, offset))) = (loss, write) {
                self.write_pages(&moment.disk, path, bytes, offset);
            }
            self.held().moments.push(moment);
        }
        match self.due(|fault| matches!(fault, Fault::Any { .. })) {
            Some(_) => Err(io::Error::from_raw_os_error(EIO)),
            None => Ok(()),
        }
    }

    /// A process that is killed in a write leaves whole pages from its beginning on.
    fn write_pages(&self, disk: &SimFs, path: &str, bytes: &[u8], offset: u64) {
        let pages = (bytes.len() as u64).div_ceil(PAGE);
        let end = (offset / PAGE + self.held().random.below(pages + 1)) * PAGE;
        let taken =
            usize::try_from(end.saturating_sub(offset)).map_or(bytes.len(), |taken| taken.min(bytes.len()));
        if let Ok(file) = disk.open(path, Access::Write) {
            // On a full disk even less is taken.
            let _full = file.write_all_at(&bytes[..taken], offset);
        }
    }

    /// The first planned fault of a kind, if it is due; the others of the kind come one call nearer.
    fn due(&self, of_kind: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut state = self.held();
        let at = state.faults.iter().position(of_kind)?;
        match &mut state.faults[at] {
            Fault::Sync { spare, .. }
            | Fault::Write { spare, .. }
            | Fault::Any { spare }
            | Fault::Dir { spare, .. }
                if *spare > 0 =>
            {
                *spare -= 1;
                None
            }
            _ => {
                state.fired += 1;
                Some(state.faults.remove(at))
            }
        }
    }

    fn file(&self, inner: Arc<dyn File>, path: &str) -> Arc<dyn File> {
        let mut state = self.held();
        let id = state.next_file;
        state.next_file += 1;
        state.names.insert(id, path.to_owned());
        Arc::new(ProbeFile {
            inner,
            id,
            opened_as: path.to_owned(),
            probe: self.clone(),
        })
    }
}

impl Fs for Probe {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.before("create_dir", path, None)?;
        self.disk.create_dir(path)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.before("remove_dir", path, None)?;
        self.disk.remove_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.before("create", path, None)?;
        Ok(self.file(self.disk.create(path)?, path))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.disk.open(path, access)?, path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.before("rename", from, None)?;
        self.disk.rename(from, to)?;
        for name in self.held().names.values_mut().filter(|name| *name == from) {
            to.clone_into(name);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.before("remove", path, None)?;
        self.disk.remove(path)?;
        self.held().removed_segments += u64::from(path.ends_with(".seg"));
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.before("sync_dir", path, None)?;
        if let Some(Fault::Dir { kept, .. }) = self.due(|fault| matches!(fault, Fault::Dir { .. })) {
            self.held().dir_failed = true;
            self.disk.fail_sync_dir(path, 0, kept);
        }
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path, holder)
    }

    fn holder(&self, path: &str) -> io::Result<Option<String>> {
        self.disk.holder(path)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.disk.display(path)
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }

    fn now_micros(&self) -> u64 {
        self.disk.now_micros()
    }
}

#[derive(Debug)]
struct ProbeFile {
    inner: Arc<dyn File>,
    id: u64,
    opened_as: String,
    probe: Probe,
}

impl ProbeFile {
    fn name(&self) -> String {
        self.probe.held().names.get(&self.id).cloned().unwrap_or_default()
    }
}

impl File for ProbeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        let name = self.name();
        self.probe.before("write", &name, Some((buffer, offset)))?;
        if name.ends_with(".seg")
            && let Some(Fault::Write { full, .. }) =
                self.probe.due(|fault| matches!(fault, Fault::Write { .. }))
        {
            let taken = self.probe.held().random.index(buffer.len() + 1);
            self.inner.write_all_at(&buffer[..taken], offset)?;
            return Err(io::Error::from_raw_os_error(if full { ENOSPC } else { EIO }));
        }
        // Now and then a call takes only a part, as a signal may cause.
        let short = self.probe.held().random.one_in(64) && buffer.len() > 1;
        let taken = if short {
            1 + self.probe.held().random.index(buffer.len() - 1)
        } else {
            buffer.len()
        };
        self.inner.write_at(&buffer[..taken], offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let name = self.name();
        self.probe.before("sync", &name, None)?;
        if name.ends_with(".seg")
            && let Some(Fault::Sync { kept, .. }) =
                self.probe.due(|fault| matches!(fault, Fault::Sync { .. }))
        {
            self.probe.disk.fail_sync(&self.opened_as, 0, kept);
        }
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.probe.before("set_len", &self.name(), None)?;
        self.inner.set_len(len)
    }

    fn identity(&self) -> io::Result<Option<u64>> {
        self.inner.identity()
    }

    fn evict(&self) -> io::Result<bool> {
        self.inner.evict()
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        self.probe.held().names.remove(&self.id);
    }
}

const PAGE: u64 = 4096;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
