//! What the threads of a schedule share: the disk, and notes of what was issued and what was promised. The notes are kept under a
//! lock that the scheduler does not see, held over nothing that it does.

use std::sync::{Arc, Mutex, MutexGuard};

use everlog::fs::{FaultFs, SimFs};
use everlog::{EntryId, LogKey};

use super::model::Step;

/// Every write that appends also appends its number to this log: its index there is its place in the order of all writes.
pub(crate) const LEDGER: LogKey = LogKey(1);
/// Appended to, truncated and purged by all.
pub(crate) const SHARED: LogKey = LogKey(2);

/// The log that only the thread `actor` changes.
pub(crate) fn own_log(actor: usize) -> LogKey {
    LogKey(10 + actor as u64)
}

/// What is known of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// The call has not returned.
    Issued,
    /// Nothing has happened, and nothing will.
    Refused,
    /// It has its place; a crash may take it.
    Accepted,
    /// The call or the ticket said that nobody knows.
    Unknown,
    /// Given to the system.
    Written,
    Durable,
}

#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) actor: usize,
    pub(crate) steps: Vec<Step>,
    /// Its place in the order of all writes, if it is in the ledger and that is known.
    pub(crate) position: Option<u64>,
    pub(crate) in_ledger: bool,
    pub(crate) ids: Vec<EntryId>,
    pub(crate) fate: Fate,
}

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Power,
    Kill,
}

/// A disk as a crash left it, and what had been promised when it came.
pub(crate) struct Moment {
    pub(crate) disk: SimFs,
    pub(crate) loss: Loss,
    pub(crate) fates: Vec<Fate>,
    /// A call had failed: what was only written is as unsure as the file that it stands in.
    pub(crate) faulty: bool,
    pub(crate) what: &'static str,
}

/// An entry as a reader saw it.
pub(crate) struct Seen {
    pub(crate) log: LogKey,
    pub(crate) id: EntryId,
    pub(crate) payload: bytes::Bytes,
}

#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) ops: Vec<Op>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) moments: Vec<Moment>,
    /// What is wrong; said here by code whose panics the journal catches.
    pub(crate) wrong: Vec<String>,
    pub(crate) callbacks_due: usize,
    pub(crate) callbacks_run: usize,
    pub(crate) in_callback: bool,
}

pub(crate) struct World {
    pub(crate) disk: SimFs,
    pub(crate) fs: FaultFs,
    /// How many faults were planned. With two a journal may close itself.
    pub(crate) faults: u64,
    notes: Mutex<Notes>,
}

impl World {
    pub(crate) fn new(disk: SimFs) -> World {
        World {
            fs: FaultFs::new(Arc::new(disk.clone())),
            disk,
            faults: 0,
            notes: Mutex::default(),
        }
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A write is about to be handed in; returns its number. `steps` is told it, for the ledger.
    pub(crate) fn issue(&self, actor: usize, steps: impl FnOnce(u64) -> Vec<Step>) -> usize {
        let mut notes = self.notes();
        let number = notes.ops.len();
        let steps = steps(number as u64);
        let in_ledger = steps
            .iter()
            .any(|step| step.is_append() && step.key() == LEDGER.0);
        notes.ops.push(Op {
            actor,
            steps,
            position: None,
            in_ledger,
            ids: Vec::new(),
            fate: Fate::Issued,
        });
        number
    }

    pub(crate) fn steps(&self, number: usize) -> Vec<Step> {
        self.notes().ops[number].steps.clone()
    }

    /// The write was given these ids.
    pub(crate) fn accepted(&self, number: usize, ids: &[EntryId]) {
        let mut notes = self.notes();
        let op = &mut notes.ops[number];
        op.ids = ids.to_vec();
        op.position = ids.last().filter(|_| op.in_ledger).map(|id| id.index);
        op.fate = op.fate.max(Fate::Accepted);
    }

    pub(crate) fn ended(&self, number: usize, fate: Fate) {
        let mut notes = self.notes();
        let op = &mut notes.ops[number];
        op.fate = op.fate.max(fate);
    }

    pub(crate) fn wrong(&self, what: String) {
        self.notes().wrong.push(what);
    }

    /// Takes the state that a crash right now leaves.
    pub(crate) fn crash(&self, loss: Loss, seed: u64, what: &'static str) {
        // What was promised before the image is taken must be in it.
        let mut fates: Vec<Fate> = self.notes().ops.iter().map(|op| op.fate).collect();
        let disk = match loss {
            Loss::Power => self.disk.crash(seed),
            Loss::Kill => self.disk.fork(),
        };
        // What was issued while it was taken may be in it.
        fates.resize(self.notes().ops.len(), Fate::Issued);
        let moment = Moment {
            disk,
            loss,
            fates,
            faulty: self.faults > 0,
            what,
        };
        self.notes().moments.push(moment);
    }
}
