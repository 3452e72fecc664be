//! What a worker's logs should hold, small enough to hand to every child: payloads are numbers, and their bytes are made
//! when somebody looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;

use everlog::{EntryId, Term};
use serde::{Deserialize, Serialize};

use super::super::entries::Random;
use super::plan::{Op, Step};

/// The logs that one worker owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group(pub(crate) BTreeMap<u64, LogState>);

/// One log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogState {
    /// Index of the first entry.
    pub(crate) start: u64,
    /// The entries from `start` on.
    pub(crate) entries: VecDeque<Stamp>,
    /// The last entry that was purged.
    pub(crate) purged: Option<Id>,
    pub(crate) cells: BTreeMap<u8, Payload>,
}

/// One entry, as far as its place does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) term: u64,
    pub(crate) payload: Payload,
}

/// An [`EntryId`] whose term fits into 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Id {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// Bytes that no other `tag` gives, if they are long enough to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) tag: u64,
    pub(crate) len: usize,
}

impl Group {
    /// Does `op`; the ids that its appends must be given.
    pub(crate) fn apply(&mut self, op: &Op) -> Vec<EntryId> {
        let mut ids = Vec::new();
        match op {
            Op::Write { steps, .. } => {
                for step in steps {
                    let log = self.0.get_mut(&step.log()).map(|log| log.apply(step));
                    ids.extend(log.flatten().map(EntryId::from));
                }
            }
            Op::Create { log, first } => {
                let state = LogState {
                    start: *first,
                    ..LogState::default()
                };
                self.0.insert(*log, state);
            }
            Op::Delete { log } => {
                self.0.remove(log);
            }
            Op::Sync | Op::Reclaim => {}
        }
        ids
    }
}

impl LogState {
    fn apply(&mut self, step: &Step) -> Option<Id> {
        match *step {
            Step::Append { payload, .. } => return Some(self.append(self.term(), payload)),
            Step::AppendAt { term, payload, .. } => return Some(self.append(term, payload)),
            Step::Truncate { from, .. } => {
                let keep = from.saturating_sub(self.start);
                self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            }
            Step::PurgeTo { to, .. } => {
                let last = Id {
                    term: self.id(to - 1).map_or(self.term(), |id| id.term),
                    index: to - 1,
                };
                self.purge_through(last);
            }
            Step::PurgeThrough { last, .. } => self.purge_through(last),
            Step::Reset { last, .. } => {
                self.entries.clear();
                self.start = last.index + 1;
                self.purged = Some(last);
            }
            Step::Set { cell, payload, .. } => {
                self.cells.insert(cell, payload);
            }
        }
        None
    }

    fn append(&mut self, term: u64, payload: Payload) -> Id {
        let index = self.end();
        self.entries.push_back(Stamp { term, payload });
        Id { term, index }
    }

    fn purge_through(&mut self, last: Id) {
        if last.index < self.start {
            return;
        }
        let gone = (last.index + 1).min(self.end()) - self.start;
        self.entries.drain(..usize::try_from(gone).unwrap_or(0));
        self.start = last.index + 1;
        self.purged = Some(last);
    }

    /// The next index.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    /// The id of the entry at `index`.
    pub(crate) fn id(&self, index: u64) -> Option<Id> {
        let at = usize::try_from(index.checked_sub(self.start)?).ok()?;
        let term = self.entries.get(at)?.term;
        Some(Id { term, index })
    }

    /// The term of the last entry, or of the last purged one.
    pub(crate) fn term(&self) -> u64 {
        let last = self.entries.back().map(|stamp| stamp.term);
        last.or(self.purged.map(|id| id.term)).unwrap_or(0)
    }
}

impl Payload {
    /// The bytes: the tag, and noise from a place that depends on it.
    pub(crate) fn bytes(self) -> Vec<u8> {
        static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
        let noise = NOISE.get_or_init(|| {
            let mut random = Random::new(0);
            (0..NOISE_BYTES / 8)
                .flat_map(|_| random.next().to_le_bytes())
                .collect()
        });
        let tag = self.tag.to_le_bytes();
        let behind = self.len.saturating_sub(tag.len());
        let at = Random::new(self.tag).between(0..(NOISE_BYTES - behind) as u64);
        let at = usize::try_from(at).unwrap_or(0);
        let mut bytes = Vec::with_capacity(self.len);
        bytes.extend_from_slice(&tag[..tag.len().min(self.len)]);
        bytes.extend_from_slice(&noise[at..at + behind]);
        bytes
    }
}

impl From<Id> for EntryId {
    fn from(id: Id) -> EntryId {
        EntryId {
            term: Term(u128::from(id.term)),
            index: id.index,
        }
    }
}

/// Longer than any payload.
const NOISE_BYTES: usize = 256 << 10;
