//! Faults on demand: a wrapper that makes chosen calls of any [`Fs`] fail, lie, stop short or wait.

use super::{Access, File, Fs, Lock, Space};
use crate::sync::{Arc, Condvar, Mutex};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Passes every call on to another [`Fs`], except those that a [`Rule`] names. Clones share rules and counters.
///
/// ```
/// use everlog::fs::{Fault, FaultFs, Fs, Op, Profile, Rule, SimFs};
/// use std::sync::Arc;
///
/// let fs = FaultFs::new(Arc::new(SimFs::new(1, Profile::PosixWeak)));
/// let second_sync = fs.add(Rule::on(Op::SyncData, Fault::io_error()).path("log").nth(2));
/// let file = fs.create("log")?;
/// assert!(file.sync_data().is_ok() && file.sync_data().is_err() && file.sync_data().is_ok());
/// assert_eq!((second_sync.matched(), second_sync.fired(), fs.count(Op::SyncData)), (3, 1, 3));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    plan: Arc<Mutex<Plan>>,
}

/// The calls of [`Fs`] and [`File`] that a rule can name. `evict`, `space`, `holder` and `len` are calls, too; `identity`,
/// `random`, `now_micros` and `display` are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Op {
    CreateDir,
    RemoveDir,
    List,
    Create,
    Open,
    Rename,
    Remove,
    SyncDir,
    Lock,
    Holder,
    Space,
    Read,
    Write,
    SyncData,
    Len,
    SetLen,
    Evict,
}

/// What happens to a call. Where a fault makes no sense (a short sync), the call is done as usual.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is done, and the call fails.
    Error(Failure),
    /// The call is done, and fails all the same.
    ErrorAfter(Failure),
    /// A read or write of at most so many bytes (at least one).
    Short(usize),
    /// Nothing is done, and the call fails with `Interrupted`.
    Interrupted,
    /// Nothing is done, and the call says Ok: a lost write, a sync that lies. For calls that return a handle or bytes the
    /// fault makes no sense.
    Skip,
    /// A read or write with one bit flipped: that of byte `byte` (modulo the length).
    FlipBit {
        /// Which byte of the buffer.
        byte: usize,
        /// Which bit of it, 0..8.
        bit: u32,
    },
    /// A read or write that goes so many bytes further on than it should.
    Misdirect(u64),
    /// Waits at the gate, then does the call.
    Delay(Gate),
    /// Does the call, then waits at the gate before it returns.
    DelayAfter(Gate),
}

/// The error of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error of this kind, without a number.
    Kind(io::ErrorKind),
    /// The error of the operating system with this number.
    Os(i32),
}

/// Which calls a fault befalls: by default the first of its operation on any path, once.
#[derive(Clone, Debug)]
pub struct Rule {
    op: Option<Op>,
    path: String,
    nth: u64,
    times: u64,
    fault: Fault,
}

/// Looks after one added rule.
#[derive(Clone, Debug)]
pub struct Watch {
    plan: Arc<Mutex<Plan>>,
    id: u64,
}

/// A barrier that a test opens. Clones are the same gate.
///
/// ```
/// use everlog::fs::{Fault, FaultFs, Fs, Gate, Op, Profile, Rule, SimFs};
/// use std::sync::Arc;
///
/// let fs = FaultFs::new(Arc::new(SimFs::new(1, Profile::PosixWeak)));
/// let gate = Gate::default();
/// fs.add(Rule::on(Op::SyncData, Fault::Delay(gate.clone())));
/// let file = fs.create("log")?;
/// let sync = std::thread::spawn(move || file.sync_data());
/// gate.wait_for_arrivals(1); // the sync has been called ...
/// gate.release(); // ... and now goes on
/// sync.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<GateShared>,
}

#[derive(Debug, Default)]
struct GateShared {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    arrivals: u64,
}

#[derive(Debug, Default)]
struct Plan {
    rules: Vec<Active>,
    counts: BTreeMap<Op, u64>,
    next_id: u64,
}

#[derive(Debug)]
struct Active {
    id: u64,
    rule: Rule,
    /// False once removed: it fires no more, and its counters stand still.
    armed: bool,
    matched: u64,
    fired: u64,
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn File>,
    fs: FaultFs,
    /// As it was opened; renames do not change it.
    path: String,
}

impl Fault {
    /// EIO; nothing is done.
    pub fn io_error() -> Fault {
        Fault::Error(Failure::Os(Errno::IO.raw_os_error()))
    }

    /// ENOSPC; nothing is done.
    pub fn no_space() -> Fault {
        Fault::Error(Failure::Os(Errno::NOSPC.raw_os_error()))
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        match failure {
            Failure::Kind(kind) => kind.into(),
            Failure::Os(number) => io::Error::from_raw_os_error(number),
        }
    }
}

impl Rule {
    /// `fault` for the calls of one operation.
    pub fn on(op: Op, fault: Fault) -> Rule {
        Rule {
            op: Some(op),
            path: String::new(),
            nth: 1,
            times: 1,
            fault,
        }
    }

    /// `fault` for calls of any operation.
    pub fn on_any(fault: Fault) -> Rule {
        Rule {
            op: None,
            ..Rule::on(Op::Read, fault)
        }
    }

    /// Only calls whose path contains `part`; of a rename either path counts. A file has the path that it was opened with.
    #[must_use]
    pub fn path(self, part: &str) -> Rule {
        Rule {
            path: part.to_string(),
            ..self
        }
    }

    /// Begins with the `nth` matching call after the rule was added, counted from 1.
    #[must_use]
    pub fn nth(self, nth: u64) -> Rule {
        Rule {
            nth: nth.max(1),
            ..self
        }
    }

    /// Goes on for `times` matching calls.
    #[must_use]
    pub fn times(self, times: u64) -> Rule {
        Rule { times, ..self }
    }

    /// Goes on until it is removed.
    #[must_use]
    pub fn forever(self) -> Rule {
        self.times(u64::MAX)
    }

    fn matches(&self, op: Op, paths: &[&str]) -> bool {
        self.op.is_none_or(|own| own == op) && paths.iter().any(|path| path.contains(&self.path))
    }

    fn is_due(&self, matched: u64) -> bool {
        matched
            .checked_sub(self.nth)
            .is_some_and(|since| since < self.times)
    }
}

impl Watch {
    /// How many calls matched the rule, whether it befell them or not.
    pub fn matched(&self) -> u64 {
        self.look(|active| active.matched)
    }

    /// How many calls it befell.
    pub fn fired(&self) -> u64 {
        self.look(|active| active.fired)
    }

    /// Takes the rule out; its counters stay as they are.
    pub fn remove(&self) {
        let mut plan = self.plan.lock();
        if let Some(active) = plan.rules.iter_mut().find(|active| active.id == self.id) {
            active.armed = false;
        }
    }

    fn look(&self, what: impl Fn(&Active) -> u64) -> u64 {
        let plan = self.plan.lock();
        plan.rules
            .iter()
            .find(|active| active.id == self.id)
            .map_or(0, what)
    }
}

impl Gate {
    /// Lets everybody through, now and from now on.
    pub fn release(&self) {
        self.shared.state.lock().open = true;
        self.shared.changed.notify_all();
    }

    /// Blocks until `count` calls have come to the gate, whether they have passed it or not.
    pub fn wait_for_arrivals(&self, count: u64) {
        let mut state = self.shared.state.lock();
        while state.arrivals < count {
            self.shared.changed.wait(&mut state);
        }
    }

    fn pass(&self) {
        let mut state = self.shared.state.lock();
        state.arrivals += 1;
        self.shared.changed.notify_all();
        while !state.open {
            self.shared.changed.wait(&mut state);
        }
    }
}

impl FaultFs {
    /// Without rules, it only counts.
    pub fn new(inner: Arc<dyn Fs>) -> FaultFs {
        FaultFs {
            inner,
            plan: Arc::new(Mutex::new(Plan::default())),
        }
    }

    /// Adds a rule. Where several are due at one call, the first added befalls it; each counts it.
    pub fn add(&self, rule: Rule) -> Watch {
        let mut plan = self.plan.lock();
        let id = plan.next_id;
        plan.next_id += 1;
        plan.rules.push(Active {
            id,
            rule,
            armed: true,
            matched: 0,
            fired: 0,
        });
        Watch {
            plan: self.plan.clone(),
            id,
        }
    }

    /// Takes all rules out. Calls that wait at a gate go on waiting.
    pub fn clear(&self) {
        self.plan
            .lock()
            .rules
            .iter_mut()
            .for_each(|active| active.armed = false);
    }

    /// Calls of one operation so far.
    pub fn count(&self, op: Op) -> u64 {
        self.plan.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// Calls of all operations so far.
    pub fn calls(&self) -> u64 {
        self.plan.lock().counts.values().sum()
    }

    /// Counts a call; the fault that befalls it.
    fn due(&self, op: Op, paths: &[&str]) -> Option<Fault> {
        let mut plan = self.plan.lock();
        *plan.counts.entry(op).or_default() += 1;
        let mut fault = None;
        for active in plan
            .rules
            .iter_mut()
            .filter(|active| active.armed && active.rule.matches(op, paths))
        {
            active.matched += 1;
            if fault.is_none() && active.rule.is_due(active.matched) {
                active.fired += 1;
                fault = Some(active.rule.fault.clone());
            }
        }
        fault
    }

    /// Does a call with its fault; `skipped` is what it returns when it is skipped, where it can be.
    fn run<T>(
        &self,
        op: Op,
        paths: &[&str],
        skipped: Option<T>,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        befall(self.due(op, paths), skipped, call)
    }

    fn file(&self, inner: Arc<dyn File>, path: &str) -> Arc<dyn File> {
        Arc::new(FaultFile {
            inner,
            fs: self.clone(),
            path: path.to_string(),
        })
    }
}

fn befall<T>(
    fault: Option<Fault>,
    skipped: Option<T>,
    call: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    match (fault, skipped) {
        (Some(Fault::Error(failure)), _) => Err(failure.into()),
        (Some(Fault::ErrorAfter(failure)), _) => call().and(Err(failure.into())),
        (Some(Fault::Interrupted), _) => Err(io::ErrorKind::Interrupted.into()),
        (Some(Fault::Skip), Some(value)) => Ok(value),
        (Some(Fault::Delay(gate)), _) => {
            gate.pass();
            call()
        }
        (Some(Fault::DelayAfter(gate)), _) => {
            let result = call();
            gate.pass();
            result
        }
        (None | Some(Fault::Skip | Fault::Short(_) | Fault::FlipBit { .. } | Fault::Misdirect(_)), _) => {
            call()
        }
    }
}

impl Fs for FaultFs {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.run(Op::CreateDir, &[path], Some(()), || self.inner.create_dir(path))
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.run(Op::RemoveDir, &[path], Some(()), || self.inner.remove_dir(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.run(Op::List, &[path], None, || self.inner.list(path))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.run(Op::Create, &[path], None, || {
            Ok(self.file(self.inner.create(path)?, path))
        })
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.run(Op::Open, &[path], None, || {
            Ok(self.file(self.inner.open(path, access)?, path))
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.run(Op::Rename, &[from, to], Some(()), || self.inner.rename(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.run(Op::Remove, &[path], Some(()), || self.inner.remove(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.run(Op::SyncDir, &[path], Some(()), || self.inner.sync_dir(path))
    }

    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.run(Op::Lock, &[path], None, || self.inner.lock(path, holder))
    }

    fn holder(&self, path: &str) -> io::Result<Option<String>> {
        self.run(Op::Holder, &[path], None, || self.inner.holder(path))
    }

    fn space(&self) -> io::Result<Space> {
        self.run(Op::Space, &[""], None, || self.inner.space())
    }

    fn display(&self, path: &str) -> PathBuf {
        self.inner.display(path)
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn now_micros(&self) -> u64 {
        self.inner.now_micros()
    }
}

impl FaultFile {
    fn run<T>(&self, op: Op, skipped: Option<T>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.fs.run(op, &[&self.path], skipped, call)
    }
}

impl File for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.fs.due(Op::Read, &[&self.path]) {
            Some(Fault::Short(bytes)) => {
                let len = buffer.len().min(bytes.max(1));
                self.inner.read_at(&mut buffer[..len], offset)
            }
            Some(Fault::FlipBit { byte, bit }) => {
                let count = self.inner.read_at(buffer, offset)?;
                flip(&mut buffer[..count], byte, bit);
                Ok(count)
            }
            Some(Fault::Misdirect(by)) => self.inner.read_at(buffer, offset.saturating_add(by)),
            fault => befall(fault, None, || self.inner.read_at(buffer, offset)),
        }
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        match self.fs.due(Op::Write, &[&self.path]) {
            Some(Fault::Short(bytes)) => {
                let len = buffer.len().min(bytes.max(1));
                self.inner.write_at(&buffer[..len], offset)
            }
            Some(Fault::FlipBit { byte, bit }) => {
                let mut damaged = buffer.to_vec();
                flip(&mut damaged, byte, bit);
                self.inner.write_at(&damaged, offset)
            }
            Some(Fault::Misdirect(by)) => self.inner.write_at(buffer, offset.saturating_add(by)),
            fault => befall(fault, Some(buffer.len()), || self.inner.write_at(buffer, offset)),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.run(Op::SyncData, Some(()), || self.inner.sync_data())
    }

    fn len(&self) -> io::Result<u64> {
        self.run(Op::Len, None, || self.inner.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.run(Op::SetLen, Some(()), || self.inner.set_len(len))
    }

    fn identity(&self) -> io::Result<Option<u64>> {
        self.inner.identity()
    }

    fn evict(&self) -> io::Result<bool> {
        self.run(Op::Evict, Some(true), || self.inner.evict())
    }

    fn read_nothing_ahead(&self) -> io::Result<()> {
        self.inner.read_nothing_ahead()
    }
}

fn flip(bytes: &mut [u8], byte: usize, bit: u32) {
    if let Some(at) = byte.checked_rem(bytes.len()) {
        bytes[at] ^= 1u8 << (bit % 8);
    }
}
