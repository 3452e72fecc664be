//! Reading a range of a log in order.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::Log;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::read;
use crate::journal::state::Stretch;
use crate::segment::ahead::ReadAhead;
use crate::segment::read::part_of;
use crate::segment::run::{EntryRun, Limit, Take};
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
    /// Where the range ends.
    end: u64,
    /// Entries, and bytes of payload, that are not counted yet: the counters are everybody's.
    read: (u64, u64),
}

impl Entries {
    pub(super) fn new(log: Log, range: Range<u64>) -> Entries {
        Entries {
            log,
            end: range.end,
            rest: range,
            located: VecDeque::new(),
            error: None,
            cuts: None,
            ahead: ReadAhead::new(),
            read: (0, 0),
        }
    }

    /// Goes on with another range, as if it began there.
    pub(crate) fn move_to(&mut self, range: Range<u64>) {
        self.end = range.end;
        self.rest = range;
        self.located.clear();
        self.error = None;
        self.cuts = None;
    }

    /// Bytes that were read so far, between the entries, too; and the memory that windows had for them.
    pub(crate) fn loaded(&self) -> (u64, u64) {
        (self.ahead.loaded(), self.ahead.taken())
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

    /// Reads on for those who drop entries soon: the next ones, at most until the windows for them had `memory` bytes. If there are none
    /// nothing is left. After an error, behind which there is nothing either, those before it are in `into`.
    pub(crate) fn read_on(&mut self, memory: u64, into: &mut EntryRun) -> Result<()> {
        let limit = Limit {
            entries: usize::MAX,
            taken: self.ahead.taken().saturating_add(memory),
            left: 0,
        };
        let before = into.len();
        let mut done = Ok(());
        while done.is_ok() && into.len() == before && !self.is_over() {
            done = self.fetch(limit, &mut |id, window: &Bytes, part: &Range<usize>| {
                into.push(id, window, part);
            });
        }
        done
    }

    fn is_over(&self) -> bool {
        self.located.is_empty() && self.error.is_none() && self.rest.is_empty()
    }

    /// The next of the located entries, or what comes behind them: nothing if more was located.
    fn fetch(&mut self, limit: Limit, take: &mut impl Take) -> Result<()> {
        let done = self.try_fetch(limit, take);
        if done.is_err() {
            self.located.clear();
            self.error = None;
            self.rest = 0..0;
        }
        done
    }

    fn try_fetch(&mut self, limit: Limit, take: &mut impl Take) -> Result<()> {
        let log = &self.log;
        let shared = &log.journal.shared;
        let Some(stretch) = self.located.front_mut() else {
            return match self.error.take() {
                Some(error) => Err(error),
                None => self.refill(),
            };
        };
        shared.check_readable()?;
        let limit = Limit {
            left: self.end - stretch.next.index,
            ..limit
        };
        let read = &mut self.read;
        let mut take = |id, window: &Bytes, part: &Range<usize>| {
            read.0 += 1;
            read.1 += part.len() as u64;
            take(id, window, part);
        };
        let (cache, ahead) = (&shared.cache, &mut self.ahead);
        let done = read::fetch_some(stretch, log.key, log.incarnation, cache, ahead, limit, &mut take);
        // At once: it keeps its segment.
        if stretch.len() == 0 {
            self.located.pop_front();
        }
        done
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
        let limit = Limit {
            entries: 1,
            taken: u64::MAX,
            left: u64::MAX,
        };
        let mut one = None;
        let mut done = Ok(());
        while done.is_ok() && one.is_none() && !self.is_over() {
            done = self.fetch(limit, &mut |id, window: &Bytes, part: &Range<usize>| {
                let payload = part_of(window, part);
                one = Some(Entry { id, payload });
            });
        }
        done.map(|()| one).transpose()
    }
}
