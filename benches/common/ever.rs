//! everlog as a contender: a journal with the default settings and one log.

use std::path::Path;

use everlog::{Config, Journal, Log, LogKey};
use tempfile::TempDir;

use super::{Appender, Payloads, area};

pub(crate) const KEY: LogKey = LogKey(1);

/// How appends are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    Durable,
    Relaxed,
}

pub(crate) struct Ever {
    pub(crate) log: Log,
    journal: Journal,
    promise: Promise,
    _dir: TempDir,
}

impl Ever {
    pub(crate) fn new(promise: Promise) -> Ever {
        let dir = area();
        let journal = Journal::create(dir.path(), Config::new()).expect("a journal is created");
        Ever {
            log: journal.create_log(KEY, 0).expect("a log is created"),
            journal,
            promise,
            _dir: dir,
        }
    }
}

impl Appender for Ever {
    fn append(&self, payload: &[u8]) {
        let done = match self.promise {
            Promise::Durable => self.log.append(payload),
            Promise::Relaxed => self.log.append_relaxed(payload),
        };
        done.expect("the journal takes an append");
    }

    fn settle(&self) {
        let end = self.log.bounds().expect("the log has bounds").end;
        self.log.purge_to(end).expect("the log is purged");
        self.journal.reclaim().expect("space is reclaimed");
    }
}

/// Fills a new journal at `dir` with `bytes` of payloads, and closes it.
pub(crate) fn fill(dir: &Path, config: Config, bytes: u64, payloads: &Payloads) -> u64 {
    let journal = Journal::create(dir, config).expect("a journal is created");
    let log = journal.create_log(KEY, 0).expect("a log is created");
    let size = payloads.get(0).len() as u64;
    let count = bytes / size;
    for number in 0..usize::try_from(count).expect("a count that fits") {
        log.append_relaxed(payloads.get(number))
            .expect("the journal takes an append");
    }
    journal.close().expect("the journal closes");
    count
}
