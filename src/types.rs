//! The words of the log: keys, terms, ids, entries.

use std::fmt;

use bytes::Bytes;

use crate::error::Error;

/// Names one log of a journal. Any number; the owner chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey(pub u64);

/// An ordered, opaque number that a consensus engine gives to entries (Raft's term, a ballot, an epoch with a node).
/// everlog compares it and never interprets it. Terms come in runs and cost nothing per entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u128);

/// Which entry: its term and its index. Ordered by term, then index, as consensus engines compare logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The term of the entry. Zero for owners who never set one.
    pub term: Term,
    /// The index of the entry in its log.
    pub index: u64,
}

impl EntryId {
    /// The id of the entry at `index` of `term`.
    #[must_use]
    pub fn new(term: u128, index: u64) -> EntryId {
        EntryId {
            term: Term(term),
            index,
        }
    }
}

impl Error {
    /// The entry that the error is about, where there is one: always with [`ApplyFailed`](crate::ErrorKind::ApplyFailed).
    #[must_use]
    pub fn entry(&self) -> Option<EntryId> {
        self.entry_parts().map(|(term, index)| EntryId::new(term, index))
    }
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// An entry as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Its bytes, verified against their checksum on the way here.
    pub payload: Bytes,
}

/// A run of entries of one term: from `first` up to the start of the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// Index of the first entry of the run.
    pub first: u64,
    /// The term of every entry of the run.
    pub term: Term,
}
