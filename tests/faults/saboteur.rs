//! Stands between the journal and the simulated disk: numbers every call, makes the planned ones fail, and takes the states
//! that a crash in the middle of what follows would leave.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use everlog::fs::{Access, File, Fs, Kept, Lock, Op, SimFs, Space};

use super::harm::{Harm, Plan, Sort, Span};

/// Where a call stands: what it does, and to which sort of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    pub(crate) op: Op,
    pub(crate) on: Sort,
}

/// One process's way to the disk. Clones are the same process; [`next_life`](Saboteur::next_life) begins the next one, which
/// goes on counting.
#[derive(Clone, Debug)]
pub(crate) struct Saboteur {
    pub(crate) disk: SimFs,
    /// False once the process was killed: what its handles still do is of no account.
    alive: Arc<AtomicBool>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    plans: Vec<Active>,
    /// The oracle looks: nothing is counted, nothing fails.
    paused: bool,
    trace: Vec<Site>,
    hit: BTreeSet<(Site, Harm)>,
    /// What open files are called now.
    names: BTreeMap<u64, String>,
    next_file: u64,
    struck: Struck,
    /// Calls that change something since the last one that was struck.
    since: u64,
    snaps: Vec<SimFs>,
    snaps_max: usize,
}

#[derive(Debug)]
struct Active {
    plan: Plan,
    /// The call that it struck first.
    site: Option<Site>,
    times: u64,
}

/// What befell calls so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Struck {
    /// Calls that failed, lied or stopped short.
    pub(crate) calls: u64,
    /// Of those: calls that the journal was told have failed, or will be told.
    pub(crate) failed: u64,
    /// Of those: because the disk is full.
    pub(crate) full: u64,
    /// Of those: syncs of a directory.
    pub(crate) dirs: u64,
}

/// After so many changing calls behind a struck one a crash state is taken.
const SNAPS_AFTER: [u64; 5] = [0, 1, 2, 4, 8];

impl Saboteur {
    pub(crate) fn new(disk: SimFs, plans: &[Plan], snaps_max: usize) -> Saboteur {
        let plans = plans.iter().map(|plan| Active {
            plan: *plan,
            site: None,
            times: 0,
        });
        let state = State {
            plans: plans.collect(),
            snaps_max,
            ..State::default()
        };
        Saboteur {
            disk,
            alive: Arc::new(AtomicBool::new(true)),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The process is gone, and `disk` is what the next one finds.
    pub(crate) fn next_life(&mut self, disk: SimFs) {
        self.alive.store(false, Ordering::Relaxed);
        self.alive = Arc::new(AtomicBool::new(true));
        self.disk = disk;
    }

    /// Lets the oracle look: its calls are not counted and do not fail.
    pub(crate) fn aside<T>(&self, look: impl FnOnce() -> T) -> T {
        self.held().paused = true;
        let seen = look();
        self.held().paused = false;
        seen
    }

    /// Nothing is planned any more.
    pub(crate) fn heal(&self) {
        self.held().plans.clear();
    }

    /// No plan will strike again.
    pub(crate) fn is_quiet(&self) -> bool {
        let over = |active: &Active| active.plan.span == Span::Once && active.site.is_some();
        self.held().plans.iter().all(over)
    }

    /// Where calls were made, and what befell which.
    pub(crate) fn reached(&self) -> (BTreeSet<Site>, BTreeSet<(Site, Harm)>) {
        let state = self.held();
        (state.trace.iter().copied().collect(), state.hit.clone())
    }

    pub(crate) fn struck(&self) -> Struck {
        self.held().struck
    }

    /// The calls so far, in order.
    pub(crate) fn trace(&self) -> Vec<Site> {
        self.held().trace.clone()
    }

    /// The crash states taken since the last time.
    pub(crate) fn take_snaps(&self) -> Vec<SimFs> {
        std::mem::take(&mut self.held().snaps)
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts a call; what befalls it.
    fn due(&self, op: Op, path: &str) -> Option<Harm> {
        let mut state = self.held();
        if state.paused || !self.alive.load(Ordering::Relaxed) {
            return None;
        }
        let site = Site {
            op,
            on: Sort::of(path),
        };
        state.calls += 1;
        state.trace.push(site);
        let call = state.calls;
        let harm = state
            .plans
            .iter_mut()
            .find_map(|active| active.strikes(call, site));
        if let Some(harm) = harm {
            state.struck.calls += 1;
            state.struck.failed += u64::from(harm.is_failure(op));
            state.struck.full += u64::from(harm.is_full());
            state.struck.dirs += u64::from(op == Op::SyncDir);
            state.since = 0;
            state.hit.insert((site, harm));
        } else if state.struck.calls > 0 && changes(op) {
            state.since += 1;
            self.snap(&mut state);
        }
        harm
    }

    /// Takes a crash state, if it is time for one.
    fn snap(&self, state: &mut State) {
        if state.snaps.len() < state.snaps_max && SNAPS_AFTER.contains(&state.since) {
            state.snaps.push(self.disk.fork());
        }
    }

    /// Does a call, with what befalls it.
    fn run<T>(&self, op: Op, path: &str, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(harm) = self.due(op, path) else {
            return call();
        };
        let result = match harm {
            Harm::After => call().and_then(|_| Err(os(EIO))),
            Harm::Interrupted => Err(io::ErrorKind::Interrupted.into()),
            Harm::Full => Err(os(ENOSPC)),
            _ => Err(os(EIO)),
        };
        self.snap(&mut self.held());
        result
    }

    fn file(&self, inner: Arc<dyn File>, path: &str) -> Arc<dyn File> {
        let mut state = self.held();
        let id = state.next_file;
        state.next_file += 1;
        state.names.insert(id, path.to_owned());
        Arc::new(SabotagedFile {
            inner,
            id,
            opened_as: path.to_owned(),
            saboteur: self.clone(),
        })
    }
}

impl Active {
    fn strikes(&mut self, call: u64, site: Site) -> Option<Harm> {
        let Plan { at, harm, span } = self.plan;
        if call < at || !harm.applies(site) {
            return None;
        }
        let due = match (self.site, span) {
            (None, _) => true,
            (Some(_), Span::Once) => false,
            (Some(first), Span::Site) => first == site,
            (Some(_), Span::All) => true,
        };
        if !due || self.times >= harm.times_max() {
            return None;
        }
        self.times += 1;
        self.site.get_or_insert(site);
        Some(harm)
    }
}

fn changes(op: Op) -> bool {
    !matches!(
        op,
        Op::List | Op::Open | Op::Read | Op::Len | Op::Holder | Op::Space | Op::Evict
    )
}

fn os(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl Fs for Saboteur {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.run(Op::CreateDir, path, || self.disk.create_dir(path))
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.run(Op::RemoveDir, path, || self.disk.remove_dir(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.run(Op::List, path, || self.disk.list(path))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.run(Op::Create, path, || Ok(self.file(self.disk.create(path)?, path)))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.run(Op::Open, path, || {
            Ok(self.file(self.disk.open(path, access)?, path))
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.run(Op::Rename, to, || {
            self.disk.rename(from, to)?;
            for name in self.held().names.values_mut().filter(|name| *name == from) {
                to.clone_into(name);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.run(Op::Remove, path, || self.disk.remove(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        match self.due(Op::SyncDir, path) {
            Some(harm) => {
                let told = match harm.kept() {
                    Some(kept) => {
                        self.disk.fail_sync_dir(path, 0, kept);
                        self.disk.sync_dir(path)
                    }
                    None => Err(harm.error()),
                };
                self.snap(&mut self.held());
                told
            }
            None => self.disk.sync_dir(path),
        }
    }

    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.run(Op::Lock, path, || self.disk.lock(path, holder))
    }

    fn holder(&self, path: &str) -> io::Result<Option<String>> {
        self.run(Op::Holder, path, || self.disk.holder(path))
    }

    fn space(&self) -> io::Result<Space> {
        self.run(Op::Space, "", || self.disk.space())
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
struct SabotagedFile {
    inner: Arc<dyn File>,
    id: u64,
    opened_as: String,
    saboteur: Saboteur,
}

impl SabotagedFile {
    fn name(&self) -> String {
        self.saboteur
            .held()
            .names
            .get(&self.id)
            .cloned()
            .unwrap_or_default()
    }

    fn due(&self, op: Op) -> Option<Harm> {
        self.saboteur.due(op, &self.name())
    }

    /// Tells the end of a call that was struck.
    fn told<T>(&self, result: io::Result<T>) -> io::Result<T> {
        self.saboteur.snap(&mut self.saboteur.held());
        result
    }
}

impl File for SabotagedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = buffer.len();
        match self.due(Op::Read) {
            None => self.inner.read_at(buffer, offset),
            Some(Harm::Half) => self.inner.read_at(&mut buffer[..len.div_ceil(2)], offset),
            Some(Harm::One) => self.inner.read_at(&mut buffer[..len.min(1)], offset),
            Some(harm) => self.told(Err(harm.error())),
        }
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        let harm = self.due(Op::Write);
        let half = buffer.len().div_ceil(2);
        match harm {
            None => self.inner.write_at(buffer, offset),
            Some(Harm::Half) => self.told(self.inner.write_at(&buffer[..half], offset)),
            Some(Harm::One) => self.told(self.inner.write_at(&buffer[..buffer.len().min(1)], offset)),
            Some(Harm::Late) => {
                self.saboteur.disk.fail_writeback(&self.name(), Kept::Nothing)?;
                self.told(self.inner.write_at(buffer, offset))
            }
            Some(harm) => {
                let taken = match harm {
                    Harm::After => buffer.len(),
                    Harm::Torn | Harm::TornFull => half,
                    _ => 0,
                };
                self.inner.write_all_at(&buffer[..taken], offset)?;
                self.told(Err(harm.error()))
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let disk = &self.saboteur.disk;
        match self.due(Op::SyncData) {
            None => self.inner.sync_data(),
            Some(Harm::Overlap) => {
                // Somebody else syncs the same file, and hears nothing of the error.
                let other = disk.begin_sync(&self.name())?;
                disk.fail_sync(&self.opened_as, 0, Kept::Nothing);
                let own = self.inner.sync_data();
                other.finish()?;
                self.told(own)
            }
            Some(harm) => {
                let told = match harm.kept() {
                    Some(kept) => {
                        disk.fail_sync(&self.opened_as, 0, kept);
                        self.inner.sync_data()
                    }
                    None => Err(harm.error()),
                };
                self.told(told)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.saboteur.run(Op::Len, &self.name(), || self.inner.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.saboteur
            .run(Op::SetLen, &self.name(), || self.inner.set_len(len))
    }

    fn identity(&self) -> io::Result<Option<u64>> {
        self.inner.identity()
    }

    fn evict(&self) -> io::Result<bool> {
        self.saboteur.run(Op::Evict, &self.name(), || self.inner.evict())
    }
}

impl Drop for SabotagedFile {
    fn drop(&mut self) {
        self.saboteur.held().names.remove(&self.id);
    }
}

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;
