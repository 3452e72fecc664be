//! Opening, second half: the entries behind the snapshot, read and verified on some threads while they are applied on another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::config::{EngineConfig, Progress};
use super::report::EngineReport;
use super::restore::TOLD;
use crate::config::Background;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::sync::{Arc, Condvar, Instant, Mutex, thread};
use crate::types::Entry;

/// Entries are read in parts of so many; of one that has more than so many bytes the rest is not read ahead.
const BUNDLE_ENTRIES: u64 = 512;
const BUNDLE_BYTES: usize = 4 << 20;
const READERS_MAX: usize = 4;

/// Hands each entry of `range` to `apply`, in order, verified.
pub(super) fn replay(
    log: &Log,
    range: Range<u64>,
    config: &EngineConfig,
    report: &mut EngineReport,
    apply: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let started = config.clock.now();
    let mut pass = Pass {
        of: range.end.saturating_sub(range.start),
        config,
        report,
        apply,
    };
    let threads = log.journal().shared.config.background == Background::Threads;
    let done = match threads && !range.is_empty() {
        true => ahead(log, range, &mut pass),
        false => log.lend(range).try_for_each(|entry| pass.one(&entry?)),
    };
    report.replay = config.clock.since(started);
    done
}

struct Pass<'a> {
    of: u64,
    config: &'a EngineConfig,
    report: &'a mut EngineReport,
    apply: &'a mut dyn FnMut(&Entry) -> Result<()>,
}

impl Pass<'_> {
    fn one(&mut self, entry: &Entry) -> Result<()> {
        (self.apply)(entry)?;
        self.report.replayed_entries += 1;
        self.report.replayed_bytes += entry.payload.len() as u64;
        let (entries, of) = (self.report.replayed_entries, self.of);
        if entries.is_multiple_of((of / TOLD).max(1)) || entries == of {
            self.config.tell(Progress::Replay { entries, of });
        }
        Ok(())
    }
}

/// What became of one part of the range.
#[derive(Default)]
struct Bundle {
    entries: Vec<Entry>,
    /// Entries behind them that would have been too much to hold.
    rest: Range<u64>,
    error: Option<Error>,
}

/// Reads on threads of their own, each one part after another; the parts are applied in order.
fn ahead(log: &Log, range: Range<u64>, pass: &mut Pass<'_>) -> Result<()> {
    let count = thread::cores().min(READERS_MAX);
    let parts = Arc::new(Parts::new(range, count));
    let mut readers = Readers {
        parts: &parts,
        threads: Vec::new(),
    };
    for _ in 0..count {
        let (log, into) = (log.clone(), Arc::clone(&parts));
        let reader = thread::spawn("everlog-verify", move || {
            let mut end = EndOnDrop {
                parts: &into,
                read: false,
            };
            read(&log, end.parts);
            end.read = true;
        });
        match reader {
            Ok(reader) => readers.threads.push(reader),
            // One is enough.
            Err(_) if !readers.threads.is_empty() => break,
            Err(e) => return Err(Error::io("", "start a thread to verify entries", e)),
        }
    }
    let mut done = Ok(());
    while done.is_ok() {
        let (bundle, waited) = parts.pop();
        pass.report.replay_waited += waited;
        let Some(bundle) = bundle else {
            break;
        };
        done = bundle.entries.iter().try_for_each(|entry| pass.one(entry));
        if let (Ok(()), Some(error)) = (&done, bundle.error) {
            done = Err(error);
        }
        if done.is_ok() {
            done = log.lend(bundle.rest).try_for_each(|entry| pass.one(&entry?));
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

fn read(log: &Log, parts: &Parts) {
    let mut from = log.lend(0..0);
    while let Some((number, range)) = parts.claim() {
        let mut bundle = Bundle::default();
        let (mut at, mut bytes) = (range.start, 0);
        from.move_to(range.clone());
        while at < range.end && bytes < BUNDLE_BYTES {
            match from.next() {
                Some(Ok(entry)) => {
                    bytes += entry.payload.len();
                    bundle.entries.push(entry);
                }
                Some(Err(error)) => {
                    bundle.error = Some(error);
                    break;
                }
                None => break,
            }
            at += 1;
        }
        bundle.rest = at..range.end;
        parts.push(number, bundle);
    }
}

/// The parts of a range, handed to readers and taken from them in order. So many are read ahead that each reader has one to read while
/// another waits to be applied.
struct Parts {
    most: u64,
    state: Mutex<Flow>,
    changed: Condvar,
}

struct Flow {
    /// What nobody has claimed.
    rest: Range<u64>,
    claimed: u64,
    taken: u64,
    ready: BTreeMap<u64, Bundle>,
    /// Nothing more comes, or nobody takes it.
    ended: bool,
}

impl Parts {
    fn new(range: Range<u64>, readers: usize) -> Parts {
        Parts {
            most: 2 * readers as u64,
            state: Mutex::new(Flow {
                rest: range,
                claimed: 0,
                taken: 0,
                ready: BTreeMap::new(),
                ended: false,
            }),
            changed: Condvar::default(),
        }
    }

    /// The next part and its number; `None` if there is none, or nobody takes it any more.
    fn claim(&self) -> Option<(u64, Range<u64>)> {
        let mut flow = self.state.lock();
        while !flow.ended && !flow.rest.is_empty() && flow.claimed - flow.taken >= self.most {
            self.changed.wait(&mut flow);
        }
        if flow.ended || flow.rest.is_empty() {
            return None;
        }
        let number = flow.claimed;
        let start = flow.rest.start;
        let end = flow.rest.end.min(start.saturating_add(BUNDLE_ENTRIES));
        flow.claimed += 1;
        flow.rest.start = end;
        Some((number, start..end))
    }

    fn push(&self, number: u64, bundle: Bundle) {
        let mut flow = self.state.lock();
        flow.ready.insert(number, bundle);
        if number == flow.taken {
            self.changed.notify_all();
        }
    }

    /// The next one, or `None` behind the last; and how long it did not come.
    fn pop(&self) -> (Option<Bundle>, Duration) {
        let mut waited = Duration::ZERO;
        let mut flow = self.state.lock();
        loop {
            let next = flow.taken;
            if let Some(bundle) = flow.ready.remove(&next) {
                flow.taken += 1;
                self.changed.notify_all();
                return (Some(bundle), waited);
            }
            if flow.ended || flow.rest.is_empty() && flow.taken == flow.claimed {
                return (None, waited);
            }
            let since = Instant::now();
            self.changed.wait(&mut flow);
            waited += since.elapsed();
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
