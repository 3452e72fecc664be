//! Opening, second half: the entries behind the snapshot, read and verified on one thread while they are applied on another.

use std::collections::VecDeque;
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

/// Entries are handed over in bundles of so many, or of so many bytes.
const BUNDLE_ENTRIES: usize = 256;
const BUNDLE_BYTES: usize = 1 << 20;
/// So many bundles are read ahead.
const BUNDLES: usize = 4;

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
        false => log.read(range).try_for_each(|entry| pass.one(&entry?)),
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

type Bundle = Result<Vec<Entry>>;

/// Reads on a thread of its own.
fn ahead(log: &Log, range: Range<u64>, pass: &mut Pass<'_>) -> Result<()> {
    let pipe = Arc::new(Pipe::default());
    let (log, into) = (log.clone(), Arc::clone(&pipe));
    let reader = thread::spawn("everlog-verify", move || {
        let _end = EndOnDrop(&into);
        read(&log, range, &into);
    });
    let reader = reader.map_err(|e| Error::io("", "start a thread to verify entries", e))?;
    let mut reader = Reader {
        pipe: &pipe,
        thread: Some(reader),
    };
    let mut done = Ok(());
    while done.is_ok() {
        let (bundle, waited) = pipe.pop();
        pass.report.replay_waited += waited;
        done = match bundle {
            None => break,
            Some(Err(error)) => Err(error),
            Some(Ok(entries)) => entries.iter().try_for_each(|entry| pass.one(entry)),
        };
    }
    match reader.end() {
        true => done,
        false => done.and(Err(Error::new(
            ErrorKind::Io,
            "the thread that verifies entries panicked",
        ))),
    }
}

/// The thread that reads; whoever panics while entries are applied does not leave it behind, with a handle of the journal.
struct Reader<'a> {
    pipe: &'a Pipe,
    thread: Option<thread::JoinHandle<()>>,
}

impl Reader<'_> {
    /// False if it panicked.
    fn end(&mut self) -> bool {
        self.pipe.end();
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

fn read(log: &Log, range: Range<u64>, into: &Pipe) {
    let mut bundle = Vec::new();
    let mut bytes = 0;
    for entry in log.read(range) {
        match entry {
            Ok(entry) => {
                bytes += entry.payload.len();
                bundle.push(entry);
            }
            Err(error) => {
                let _ = into.push(Ok(bundle)) && into.push(Err(error));
                return;
            }
        }
        if bundle.len() == BUNDLE_ENTRIES || bytes >= BUNDLE_BYTES {
            bytes = 0;
            if !into.push(Ok(std::mem::take(&mut bundle))) {
                return;
            }
        }
    }
    let _ = into.push(Ok(bundle));
}

/// A bounded queue between two threads.
#[derive(Default)]
struct Pipe {
    state: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Default)]
struct Flow {
    bundles: VecDeque<Bundle>,
    /// Nothing more comes, or nobody takes it.
    ended: bool,
}

impl Pipe {
    /// False if nobody takes it any more.
    fn push(&self, bundle: Bundle) -> bool {
        let mut flow = self.state.lock();
        while flow.bundles.len() >= BUNDLES && !flow.ended {
            self.changed.wait(&mut flow);
        }
        if flow.ended {
            return false;
        }
        flow.bundles.push_back(bundle);
        self.changed.notify_all();
        true
    }

    /// The next one, or `None` behind the last; and how long it did not come.
    fn pop(&self) -> (Option<Bundle>, Duration) {
        let mut waited = Duration::ZERO;
        let mut flow = self.state.lock();
        while flow.bundles.is_empty() && !flow.ended {
            let since = Instant::now();
            self.changed.wait(&mut flow);
            waited += since.elapsed();
        }
        let bundle = flow.bundles.pop_front();
        self.changed.notify_all();
        (bundle, waited)
    }

    fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }
}

/// Whoever waits for the reader must not wait for ever, whatever became of it.
struct EndOnDrop<'a>(&'a Pipe);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
