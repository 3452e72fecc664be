//! The steps of a write, chosen so that the model says they are valid.

use arbitrary::Arbitrary;
use everlog::{EntryId, LogKey, Term, WriteBatch};

use crate::model::{LogState, Payload, State};

/// One operation of a write; numbers are taken modulo what exists.
#[derive(Arbitrary, Debug)]
pub enum Step {
    Append { log: u8, len: u16 },
    AppendAt { log: u8, term_up: u8, len: u16 },
    Truncate { log: u8, at: u8 },
    Purge { log: u8, at: u8 },
    PurgeThrough { log: u8, at: u8 },
    PurgeBeyond { log: u8, ahead: u8, term_up: u8 },
    Reset { log: u8, ahead: u8, term_up: u8 },
    Set { log: u8, cell: u8, len: u8 },
}

/// Largest payload in bytes: some are larger than a segment.
const PAYLOAD_BYTES_MAX: usize = 20_000;

/// The steps as a batch, done to `state` as well; the ids that its appends must get. `payloads` numbers payloads.
pub fn plan(steps: &[Step], state: &mut State, payloads: &mut u64) -> (WriteBatch, Vec<EntryId>) {
    let mut batch = WriteBatch::new();
    let mut ids = Vec::new();
    for step in steps {
        let key = step.key();
        if let Some(log) = state.logs.get_mut(&key) {
            *payloads += 1;
            ids.extend(step.apply(key, log, *payloads, &mut batch));
        }
    }
    (batch, ids)
}

impl Step {
    fn key(&self) -> LogKey {
        let (Step::Append { log, .. }
        | Step::AppendAt { log, .. }
        | Step::Truncate { log, .. }
        | Step::Purge { log, .. }
        | Step::PurgeThrough { log, .. }
        | Step::PurgeBeyond { log, .. }
        | Step::Reset { log, .. }
        | Step::Set { log, .. }) = *self;
        LogKey(u64::from(log % 4))
    }

    fn apply(&self, key: LogKey, log: &mut LogState, number: u64, batch: &mut WriteBatch) -> Option<EntryId> {
        match *self {
            Step::Append { len, .. } => {
                let payload = payload(number, usize::from(len));
                batch.append(key, &payload.0);
                return Some(log.append(log.term(), payload));
            }
            Step::AppendAt { term_up, len, .. } => {
                let payload = payload(number, usize::from(len));
                let id = next_id(log, term_up);
                batch.append_at(key, id, &payload.0);
                return Some(log.append(id.term, payload));
            }
            Step::Truncate { at, .. } => {
                let index = log.start + u64::from(at) % (log.end() - log.start + 1);
                batch.truncate_from(key, index);
                log.truncate_from(index);
            }
            Step::Purge { at, .. } => {
                let last = existing(log, at)?;
                batch.purge_to(key, last.index + 1);
                log.purge_through(last);
            }
            Step::PurgeThrough { at, .. } => {
                let last = existing(log, at)?;
                batch.purge_through(key, last);
                log.purge_through(last);
            }
            Step::PurgeBeyond { ahead, term_up, .. } => {
                let last = ahead_of(log, ahead, term_up);
                batch.purge_through(key, last);
                log.purge_through(last);
            }
            Step::Reset { ahead, term_up, .. } => {
                let last = ahead_of(log, ahead, term_up);
                batch.reset(key, last);
                log.reset(last);
            }
            Step::Set { cell, len, .. } => {
                let value = payload(number, usize::from(len));
                batch.set(key, cell % 4, &value.0);
                log.cells.insert(cell % 4, value);
            }
        }
        None
    }
}

/// The id of one of the entries that are there.
fn existing(log: &LogState, at: u8) -> Option<EntryId> {
    let count = log.end() - log.start;
    log.id(log.start + u64::from(at).checked_rem(count)?)
}

fn next_id(log: &LogState, term_up: u8) -> EntryId {
    ahead_of(log, 0, term_up)
}

/// An id that the log has not reached yet.
fn ahead_of(log: &LogState, ahead: u8, term_up: u8) -> EntryId {
    EntryId {
        term: Term(log.term().0 + u128::from(term_up)),
        index: log.end() + u64::from(ahead),
    }
}

/// Bytes that tell which payload they are, wherever they are cut.
fn payload(number: u64, len: usize) -> Payload {
    let pattern = number.to_le_bytes();
    let len = len % PAYLOAD_BYTES_MAX;
    let bytes = (0..len).map(|at| pattern[at % 8] ^ at.to_le_bytes()[0].rotate_left(3));
    Payload(bytes.collect())
}
