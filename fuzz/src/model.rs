//! What the API promises, as the simplest thing that keeps the promises: maps in memory.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use everlog::inspect::View;
use everlog::{EntryId, Journal, LogKey, Term, TermRun};

/// All logs of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub logs: BTreeMap<LogKey, LogState>,
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Index of the first entry.
    pub start: u64,
    /// The entries from `start` on.
    pub entries: VecDeque<(Term, Payload)>,
    /// The last entry that was purged.
    pub purged: Option<EntryId>,
    pub cells: BTreeMap<u8, Payload>,
}

/// A payload, or a cell's value; shown as its length and checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {:08x}", self.0.len(), crc32fast::hash(&self.0))
    }
}

impl LogState {
    pub fn new(first: u64) -> LogState {
        LogState {
            start: first,
            entries: VecDeque::new(),
            purged: None,
            cells: BTreeMap::new(),
        }
    }

    pub fn append(&mut self, term: Term, payload: Payload) -> EntryId {
        let index = self.end();
        self.entries.push_back((term, payload));
        EntryId { term, index }
    }

    /// Drops entries from `index` on.
    pub fn truncate_from(&mut self, index: u64) {
        let keep = index.saturating_sub(self.start).min(self.entries.len() as u64);
        self.entries.truncate(usize::try_from(keep).expect("it fits"));
    }

    /// Drops entries up to and with `through`, which may lie beyond the end.
    pub fn purge_through(&mut self, through: EntryId) {
        while self.start <= through.index && self.entries.pop_front().is_some() {
            self.start += 1;
        }
        self.start = through.index + 1;
        self.purged = Some(through);
    }

    /// Empties the log behind `last`.
    pub fn reset(&mut self, last: EntryId) {
        self.entries.clear();
        self.start = last.index + 1;
        self.purged = Some(last);
    }

    pub fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    /// The last entry, or the last one that was purged.
    pub fn last(&self) -> Option<EntryId> {
        match self.entries.back() {
            Some((term, _)) => Some(EntryId {
                term: *term,
                index: self.end() - 1,
            }),
            None => self.purged,
        }
    }

    /// The term that the next entry has unless it is given another.
    pub fn term(&self) -> Term {
        self.last().map_or(Term(0), |last| last.term)
    }

    /// The id of the entry at `index`.
    pub fn id(&self, index: u64) -> Option<EntryId> {
        let slot = usize::try_from(index.checked_sub(self.start)?).ok()?;
        let (term, _) = self.entries.get(slot)?;
        Some(EntryId { term: *term, index })
    }
}

/// Reads every log, be the journal open or in a view: both have the same methods.
macro_rules! read {
    ($of:expr) => {{
        let mut state = State::default();
        for key in $of.logs() {
            let log = $of.log(key).expect("a listed log is there");
            let bounds = log.bounds().expect("a log has bounds");
            let mut found = LogState::new(bounds.start);
            for (entry, index) in log.read(bounds.clone()).zip(bounds.clone()) {
                let entry = entry.unwrap_or_else(|e| panic!("log {key}, entry {index}: {e}"));
                assert_eq!(entry.id.index, index, "log {key}: out of order");
                found
                    .entries
                    .push_back((entry.id.term, Payload(entry.payload.to_vec())));
            }
            assert_eq!(found.end(), bounds.end, "log {key}: entries are missing");
            found.purged = log.purged().expect("a log says what was purged");
            for id in log.cells().expect("a log lists its cells") {
                let value = log.cell(id).expect("a cell reads");
                let value = value.expect("a listed cell is there");
                found.cells.insert(id, Payload(value.to_vec()));
            }
            let last = log.last().expect("a log says what is last");
            assert_eq!(last, found.last(), "log {key}: the last entry");
            found.check_terms(key, &|range| log.terms(range), &|index| log.term_at(index));
            state.logs.insert(key, found);
        }
        state
    }};
}

impl State {
    /// What `journal` says through its public API.
    ///
    /// # Panics
    ///
    /// If a read fails, or two of its answers contradict each other.
    pub fn read(journal: &Journal) -> State {
        read!(journal)
    }

    /// The same of a view.
    ///
    /// # Panics
    ///
    /// As for [`State::read`].
    pub fn view(view: &View) -> State {
        read!(view)
    }
}

impl LogState {
    /// The runs of terms, and the terms of both ends, are those of the entries.
    fn check_terms(
        &self,
        key: LogKey,
        terms: &dyn Fn(Range<u64>) -> everlog::Result<Vec<TermRun>>,
        term_at: &dyn Fn(u64) -> everlog::Result<Term>,
    ) {
        let mut runs: Vec<TermRun> = Vec::new();
        for (first, (term, _)) in (self.start..).zip(&self.entries) {
            if runs.last().is_none_or(|run| run.term != *term) {
                runs.push(TermRun { first, term: *term });
            }
        }
        let said = terms(0..u64::MAX).expect("a log says its terms");
        assert_eq!(said, runs, "log {key}: runs of terms");
        for id in self.purged.into_iter().chain(self.last()) {
            let said = term_at(id.index).expect("the term of an end");
            assert_eq!(said, id.term, "log {key}: term of entry {}", id.index);
        }
        assert!(term_at(self.end()).is_err(), "log {key}: a term beyond the end");
    }
}
