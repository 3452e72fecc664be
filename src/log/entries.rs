//! Reading a range of a log in order.

use std::collections::VecDeque;
use std::ops::Range;

use super::Log;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::read;
use crate::journal::state::Stretch;
use crate::segment::ahead::ReadAhead;
use crate::types::{Entry, LogKey};

/// How many entries are located under one lock.
const AT_ONCE: u64 = 256;

/// The entries of a range, in order; see [`Log::read`].
#[derive(Debug)]
pub struct Entries {
    log: Log,
    rest: Range<u64>,
    located: VecDeque<Stretch>,
    /// What ends the range, once the located entries are read.
    error: Option<Error>,
    /// How often the log had been cut when entries were located last; `None` before the first time.
    cuts: Option<u64>,
    ahead: ReadAhead,
    /// Entries, and bytes of payload, that are not counted yet: the counters are everybody's.
    read: (u64, u64),
}

impl Entries {
    pub(super) fn new(log: Log, range: Range<u64>, ahead: ReadAhead) -> Entries {
        Entries {
            log,
            rest: range,
            located: VecDeque::new(),
            error: None,
            cuts: None,
            ahead,
            read: (0, 0),
        }
    }

    /// Goes on with another range, as if it began there.
    pub(crate) fn move_to(&mut self, range: Range<u64>) {
        self.rest = range;
        self.located.clear();
        self.error = None;
        self.cuts = None;
    }

    /// Bytes that were read so far, between the entries, too.
    pub(crate) fn loaded(&self) -> u64 {
        self.ahead.loaded()
    }

    fn refill(&mut self) -> Result<()> {
        self.count();
        let (key, range) = (self.log.key, self.rest.clone());
        let seen = self.cuts;
        let (cuts, found, next, error) = self.log.with(|state| {
            if seen.is_some_and(|seen| state.cuts.took_below(range.start, seen)) {
                return (
                    seen,
                    VecDeque::new(),
                    range.start,
                    Some(cut_off(key, range.start)),
                );
            }
            let (found, next, error) = read::locate_some(state, key, range, AT_ONCE);
            (Some(state.cuts.count()), found, next, error)
        })?;
        self.cuts = cuts;
        self.rest.start = next;
        self.located = found;
        self.error = error;
        Ok(())
    }

    /// The next of the located entries.
    fn fetch(&mut self) -> Option<Result<Entry>> {
        let log = &self.log;
        let shared = &log.journal.shared;
        let stretch = self.located.front_mut()?;
        if let Err(error) = shared.check_readable() {
            return Some(Err(error));
        }
        let (cache, ahead) = (&shared.cache, &mut self.ahead);
        let entry = read::fetch_next(stretch, log.key, log.incarnation, cache, ahead)?;
        // At once: it keeps its segment.
        if stretch.len() == 0 {
            self.located.pop_front();
        }
        if let Ok(entry) = &entry {
            self.read.0 += 1;
            self.read.1 += entry.payload.len() as u64;
        }
        Some(entry)
    }

    fn count(&mut self) {
        let counters = &self.log.journal.shared.counters;
        let (entries, bytes) = std::mem::take(&mut self.read);
        counters.reads.add(entries);
        counters.read_bytes.add(bytes);
    }
}

/// The entries before `next` that were given out are not the log's any more, and what follows does not follow them.
fn cut_off(key: LogKey, next: u64) -> Error {
    let text = format!("log {key} was truncated below {next} while it was read");
    Error::new(ErrorKind::NotFound, text)
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.count();
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let mut item = self.fetch();
        if item.is_none() && self.error.is_none() && !self.rest.is_empty() {
            match self.refill() {
                Ok(()) => item = self.fetch(),
                Err(error) => self.error = Some(error),
            }
        }
        let item = item.or_else(|| self.error.take().map(Err))?;
        if item.is_err() {
            self.located.clear();
            self.error = None;
            self.rest = 0..0;
        }
        Some(item)
    }
}
