//! Reading a range of a log in order.

use std::collections::VecDeque;
use std::ops::Range;

use super::Log;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::read::{self, Located};
use crate::segment::read::ReadAhead;
use crate::types::{Entry, LogKey};

/// How many entries are located under one lock.
const AT_ONCE: usize = 256;

/// The entries of a range, in order; see [`Log::read`].
#[derive(Debug)]
pub struct Entries {
    log: Log,
    rest: Range<u64>,
    located: VecDeque<Located>,
    /// What ends the range, once the located entries are read.
    error: Option<Error>,
    /// How often the log had been cut when entries were located last; `None` before the first time.
    cuts: Option<u64>,
    ahead: ReadAhead,
}

impl Entries {
    pub(super) fn new(log: Log, range: Range<u64>) -> Entries {
        Entries {
            log,
            rest: range,
            located: VecDeque::new(),
            error: None,
            cuts: None,
            ahead: ReadAhead::new(),
        }
    }

    fn refill(&mut self) -> Result<()> {
        let (key, range) = (self.log.key, self.rest.clone());
        let seen = self.cuts;
        let (cuts, found, error) = self.log.with(|state| {
            if seen.is_some_and(|seen| state.cuts.took_below(range.start, seen)) {
                return (seen, Vec::new(), Some(cut_off(key, range.start)));
            }
            let (found, error) = read::locate_some(state, key, range, AT_ONCE);
            (Some(state.cuts.count()), found, error)
        })?;
        self.cuts = cuts;
        self.rest.start += found.len() as u64;
        self.located.extend(found);
        self.error = error;
        Ok(())
    }

    fn fetch(&mut self, located: Located) -> Result<Entry> {
        let shared = &self.log.journal.shared;
        shared.check_readable()?;
        let entry = read::fetch(
            located,
            self.log.key,
            self.log.incarnation,
            &shared.cache,
            Some(&mut self.ahead),
        )?;
        shared.counters.reads.add(1);
        shared.counters.read_bytes.add(entry.payload.len() as u64);
        Ok(entry)
    }
}

/// The entries before `next` that were given out are not the log's any more, and what follows does not follow them.
fn cut_off(key: LogKey, next: u64) -> Error {
    let text = format!("log {key} was truncated below {next} while it was read");
    Error::new(ErrorKind::NotFound, text)
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let refill = self.located.is_empty() && self.error.is_none() && !self.rest.is_empty();
        if refill && let Err(error) = self.refill() {
            self.error = Some(error);
        }
        let item = match self.located.pop_front() {
            Some(located) => self.fetch(located),
            None => Err(self.error.take()?),
        };
        if item.is_err() {
            self.located.clear();
            self.error = None;
            self.rest = 0..0;
        }
        Some(item)
    }
}
