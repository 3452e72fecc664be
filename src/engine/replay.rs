//! Opening, second half: the entries behind the snapshot, read and verified on some threads while they are applied on another.

use std::collections::BTreeMap;
use std::ops::Range;

use super::config::{EngineConfig, Progress};
use super::report::EngineReport;
use super::restore::TOLD;
use crate::config::Background;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Entries, Log};
use crate::segment::run::{EntryRun, LentEntry};
use crate::sync::{Arc, Condvar, Instant, Mutex, thread};

/// Entries are read in parts of about so many bytes: what is handed over seldom, and yet stays in the caches until it is applied.
const PART_BYTES: u64 = 1 << 20;
/// How many entries the first part has, and any other at least and at most.
const PART_ENTRIES: u64 = 128;
const PART_ENTRIES_MIN: u64 = 16;
const PART_ENTRIES_MAX: u64 = 8192;
/// Of one that turns out to have more than so many bytes the rest is not read ahead.
const BUNDLE_BYTES: u64 = 4 << 20;
/// So many parts are read and not applied, at most.
const PARTS_MAX: u64 = 4;
const READERS_MAX: usize = 3;
/// So many payloads are fetched into the cache of the processor that applies them before the first of them is.
const PREFETCH: usize = 16;

/// Applies an entry.
type Apply<'a> = &'a mut dyn FnMut(&LentEntry<'_>) -> Result<()>;

/// Hands each entry of `range` to `apply`, in order, verified.
pub(super) fn replay(
    log: &Log,
    range: Range<u64>,
    config: &EngineConfig,
    report: &mut EngineReport,
    apply: Apply<'_>,
) -> Result<()> {
    let started = config.clock.now();
    let mut pass = Pass {
        of: range.end.saturating_sub(range.start),
        tell_at: 1,
        config,
        report,
        apply,
    };
    let threads = log.journal().shared.config.background == Background::Threads;
    let done = match threads && !range.is_empty() {
        true => ahead(log, range, &mut pass, read),
        false => one_by_one(log, range, &mut pass),
    };
    report.replay = config.clock.since(started);
    done
}

struct Pass<'a> {
    of: u64,
    /// The number of the entry behind which progress is told next.
    tell_at: u64,
    config: &'a EngineConfig,
    report: &'a mut EngineReport,
    apply: Apply<'a>,
}

impl Pass<'_> {
    fn all(&mut self, run: &EntryRun) -> Result<()> {
        for (number, entry) in run.iter().enumerate() {
            if number.is_multiple_of(PREFETCH) {
                run.prefetch(number..number + PREFETCH);
            }
            self.one(&entry)?;
        }
        Ok(())
    }

    fn one(&mut self, entry: &LentEntry<'_>) -> Result<()> {
        (self.apply)(entry)?;
        self.report.replayed_entries += 1;
        self.report.replayed_bytes += entry.payload().len() as u64;
        let (entries, of) = (self.report.replayed_entries, self.of);
        if entries >= self.tell_at {
            self.tell_at = of.min(entries + (of / TOLD).max(1));
            self.config.tell(Progress::Replay { entries, of });
        }
        Ok(())
    }
}

/// What became of one part of the range.
#[derive(Default)]
struct Bundle {
    entries: EntryRun,
    /// What was read for them.
    bytes: u64,
    /// What they keep in memory.
    memory: u64,
    /// Entries behind them that would have been too much to hold.
    rest: Range<u64>,
    error: Option<Error>,
}

/// Threads read parts ahead, and so does whoever applies them while the next one is not there: it need not be woken then, and on few cores
/// nobody is to spare. Applied in order.
fn ahead(
    log: &Log,
    range: Range<u64>,
    pass: &mut Pass<'_>,
    read: impl Fn(&mut Entries, Range<u64>) -> Bundle + Clone + Send + 'static,
) -> Result<()> {
    let parts = Arc::new(Parts::new(range));
    let mut readers = Readers {
        parts: &parts,
        threads: Vec::new(),
    };
    for _ in 0..thread::cores().saturating_sub(1).clamp(1, READERS_MAX) {
        let (log, into, read) = (log.clone(), Arc::clone(&parts), read.clone());
        let reader = thread::spawn("everlog-verify", move || {
            let mut end = EndOnDrop {
                parts: &into,
                read: false,
            };
            let mut from = log.read(0..0);
            while let Some((number, range)) = end.parts.claim() {
                end.parts.push(number, read(&mut from, range));
            }
            end.read = true;
        });
        match reader {
            Ok(reader) => readers.threads.push(reader),
            Err(error) => {
                tracing::warn!(%error, "no thread to verify entries ahead could be started");
                break;
            }
        }
    }
    let mut from = log.read(0..0);
    let mut done = Ok(());
    while done.is_ok() {
        let asked = Instant::now();
        let next = match parts.next() {
            Next::Ready(bundle) => Some(bundle),
            Next::Read(number, range) => {
                parts.push(number, read(&mut from, range));
                None
            }
            Next::End => break,
        };
        pass.report.replay_waited += asked.elapsed();
        if let Some(bundle) = next {
            done = apply(bundle, log, pass);
        }
    }
    match readers.end() {
        true => done,
        false => done.and(Err(Error::new(
            ErrorKind::Io,
            "a thread that verifies entries panicked",
        ))),
    }
}

fn apply(bundle: Bundle, log: &Log, pass: &mut Pass<'_>) -> Result<()> {
    pass.all(&bundle.entries)?;
    drop(bundle.entries);
    if let Some(error) = bundle.error {
        return Err(error);
    }
    one_by_one(log, bundle.rest, pass)
}

/// Reads and applies in turns.
fn one_by_one(log: &Log, range: Range<u64>, pass: &mut Pass<'_>) -> Result<()> {
    let mut from = log.read(range);
    loop {
        let mut run = EntryRun::default();
        let done = from.read_on(PART_BYTES, &mut run);
        pass.all(&run)?;
        done?;
        if run.len() == 0 {
            return Ok(());
        }
    }
}

fn read(from: &mut Entries, range: Range<u64>) -> Bundle {
    let mut bundle = Bundle::default();
    let before = from.loaded();
    from.move_to(range.clone());
    while bundle.memory < BUNDLE_BYTES {
        let count = bundle.entries.len();
        let done = from.read_on(BUNDLE_BYTES - bundle.memory, &mut bundle.entries);
        // Payloads keep what was read with them: between the entries of one log may stand much of others.
        let (loaded, payloads) = (from.loaded(), bundle.entries.payload_bytes());
        bundle.bytes = payloads.max(loaded.0 - before.0);
        bundle.memory = payloads.max(loaded.1 - before.1);
        if done.is_err() || bundle.entries.len() == count {
            bundle.error = done.err();
            break;
        }
    }
    bundle.rest = range.start + bundle.entries.len()..range.end;
    bundle
}

/// The threads that read; whoever panics while entries are applied does not leave them behind, with handles of the journal.
struct Readers<'a> {
    parts: &'a Parts,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Readers<'_> {
    /// False if one of them panicked.
    fn end(&mut self) -> bool {
        self.parts.end();
        // All of them, whatever became of the first.
        let joined: Vec<_> = self.threads.drain(..).map(thread::JoinHandle::join).collect();
        joined.iter().all(Result::is_ok)
    }
}

impl Drop for Readers<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The parts of a range, handed to readers and taken from them in order.
struct Parts {
    state: Mutex<Flow>,
    changed: Condvar,
}

struct Flow {
    /// What nobody has claimed.
    rest: Range<u64>,
    /// How many entries the next part has.
    part: u64,
    claimed: u64,
    taken: u64,
    ready: BTreeMap<u64, Bundle>,
    /// Nothing more comes, or nobody takes it.
    ended: bool,
}

impl Flow {
    fn claim(&mut self) -> Option<(u64, Range<u64>)> {
        if self.ended || self.rest.is_empty() || self.claimed - self.taken >= PARTS_MAX {
            return None;
        }
        let number = self.claimed;
        let start = self.rest.start;
        let end = self.rest.end.min(start.saturating_add(self.part));
        self.claimed += 1;
        self.rest.start = end;
        Some((number, start..end))
    }
}

/// What whoever applies has to do.
enum Next {
    Ready(Bundle),
    /// A part that nobody has read yet.
    Read(u64, Range<u64>),
    End,
}

impl Parts {
    fn new(range: Range<u64>) -> Parts {
        Parts {
            state: Mutex::new(Flow {
                rest: range,
                part: PART_ENTRIES,
                claimed: 0,
                taken: 0,
                ready: BTreeMap::new(),
                ended: false,
            }),
            changed: Condvar::default(),
        }
    }

    /// The next part for a reader, and its number; `None` if there is none, or nobody takes it any more.
    fn claim(&self) -> Option<(u64, Range<u64>)> {
        let mut flow = self.state.lock();
        loop {
            let claimed = flow.claim();
            if claimed.is_some() || flow.ended || flow.rest.is_empty() {
                return claimed;
            }
            self.changed.wait(&mut flow);
        }
    }

    fn push(&self, number: u64, bundle: Bundle) {
        let mut flow = self.state.lock();
        if let Some(each) = bundle.bytes.checked_div(bundle.entries.len()) {
            flow.part = (PART_BYTES / each.max(1)).clamp(PART_ENTRIES_MIN, PART_ENTRIES_MAX);
        }
        flow.ready.insert(number, bundle);
        if number == flow.taken {
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Next {
        let mut flow = self.state.lock();
        loop {
            let next = flow.taken;
            if let Some(bundle) = flow.ready.remove(&next) {
                flow.taken += 1;
                // Not for each one: a reader that was far ahead sleeps until it has something to do for a while.
                if flow.claimed - flow.taken <= PARTS_MAX / 2 {
                    self.changed.notify_all();
                }
                return Next::Ready(bundle);
            }
            if flow.ended || flow.rest.is_empty() && flow.taken == flow.claimed {
                return Next::End;
            }
            if let Some((number, range)) = flow.claim() {
                return Next::Read(number, range);
            }
            self.changed.wait(&mut flow);
        }
    }

    fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }
}

/// Whoever waits for a reader that panicked must not wait for ever.
struct EndOnDrop<'a> {
    parts: &'a Parts,
    read: bool,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        if !self.read {
            self.parts.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::fs::{Profile, SimFs};
    use crate::journal::Journal;
    use crate::types::LogKey;

    /// Each payload is a part of a window in which there is little else of this log.
    #[test]
    fn a_part_ends_where_it_keeps_much_in_memory_although_its_entries_are_small() {
        let disk = Arc::new(SimFs::new(1, Profile::PosixWeak));
        let config = Config::new()
            .segment_bytes(64 << 20)
            .background(Background::Caller);
        let journal = Journal::create_on(disk, config).unwrap();
        let [log, other] = [1, 2].map(|key| journal.create_log(LogKey(key), 0).unwrap());
        for _ in 0..400 {
            log.append([1; 100]).unwrap();
            other.append(vec![2; 100_000]).unwrap();
        }
        let sparse = read(&mut log.read(0..0), 0..400);
        let count = sparse.entries.len();
        assert!((1..400).contains(&count), "{count} entries are held");
        assert_eq!(sparse.rest, count..400);
        let large = read(&mut other.read(0..0), 0..20);
        assert_eq!((large.entries.len(), large.rest), (20, 20..20));
    }

    #[test]
    fn a_thread_that_panics_ends_the_replay_with_an_error_and_passes_over_nothing() {
        let disk = Arc::new(SimFs::new(1, Profile::PosixWeak));
        let journal = Journal::create_on(disk, Config::new().segment_bytes(1 << 20)).unwrap();
        let log = journal.create_log(LogKey(1), 0).unwrap();
        let mut batch = crate::journal::WriteBatch::new();
        let count = 15_000;
        for _ in 0..count {
            batch.append(log.key(), b"x");
        }
        journal.write(batch).unwrap();
        // Whoever applies reads nothing before the other thread has claimed a part.
        let claimed = Arc::new((Mutex::new(false), Condvar::default()));
        let read = move |from: &mut Entries, range: Range<u64>| {
            let (claimed, changed) = &*claimed;
            let ahead = std::thread::current().name() == Some("everlog-verify");
            *claimed.lock() |= ahead;
            changed.notify_all();
            assert!(!ahead, "a thread that panics");
            let mut claimed = claimed.lock();
            while !*claimed {
                changed.wait(&mut claimed);
            }
            super::read(from, range)
        };
        let mut applied = Vec::new();
        let mut pass = Pass {
            of: count,
            tell_at: 1,
            config: &EngineConfig::new(),
            report: &mut EngineReport::default(),
            apply: &mut |entry| {
                applied.push(entry.id.index);
                Ok(())
            },
        };
        let error = ahead(&log, 0..count, &mut pass, read).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(applied.len() < usize::try_from(count).unwrap());
        assert!(applied.iter().copied().eq(0..applied.len() as u64));
    }
}
