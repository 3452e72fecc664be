//! Reading a range of a log in order.

use std::collections::VecDeque;
use std::ops::Range;

use super::Log;
use crate::error::{Error, Result};
use crate::journal::read::{self, Located};
use crate::segment::read::ReadAhead;
use crate::types::Entry;

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
    ahead: ReadAhead,
}

impl Entries {
    pub(super) fn new(log: Log, range: Range<u64>) -> Entries {
        Entries {
            log,
            rest: range,
            located: VecDeque::new(),
            error: None,
            ahead: ReadAhead::new(),
        }
    }

    fn refill(&mut self) -> Result<()> {
        let (key, range) = (self.log.key, self.rest.clone());
        let (found, error) = self
            .log
            .with(|state| read::locate_some(state, key, range, AT_ONCE))?;
        self.rest.start += found.len() as u64;
        self.located.extend(found);
        self.error = error;
        Ok(())
    }

    fn fetch(&mut self, located: Located) -> Result<Entry> {
        let shared = &self.log.journal.shared;
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
