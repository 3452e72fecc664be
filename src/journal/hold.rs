//! Logs that an engine or a replica stands on, and what nobody else may do to them meanwhile.

use std::collections::BTreeMap;

#[cfg(feature = "snapshot")]
use super::Shared;
use super::batch::{What, Wish, WriteBatch};
#[cfg(feature = "snapshot")]
use super::handle::Journal;
use crate::error::{Error, ErrorKind, Result};
use crate::mutant::{Rule, removed};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::LogKey;

/// The cell in which an engine keeps what it must not forget.
pub(crate) const HELD_CELL: u8 = 255;

/// Until it is known how far a replica has applied, nothing of its log is taken back.
const OPENING: u64 = u64::MAX;

/// Who stands on a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "snapshot"),
    expect(dead_code, reason = "nobody is there to hold a log")
)]
pub(crate) enum Holder {
    /// Orders its own entries: nobody else writes.
    Engine,
    /// Its owner writes the log, and must not take back what was applied.
    Replica,
}

/// A log that somebody stands on.
#[derive(Debug)]
pub(crate) struct Hold {
    holder: Holder,
    /// The index behind the last entry that was applied; raised before the machine sees the entry.
    applied_end: Arc<AtomicU64>,
}

/// Refuses what would pull a log from under whoever stands on it.
pub(super) fn check(held: &BTreeMap<LogKey, Hold>, batch: &WriteBatch) -> Result<()> {
    if batch.by_holder || removed(Rule::HeldLogRefuses) {
        return Ok(());
    }
    for op in &batch.ops {
        if let Some(hold) = held.get(&op.log) {
            check_one(hold, op)?;
        }
    }
    Ok(())
}

fn check_one(hold: &Hold, op: &Wish) -> Result<()> {
    let applied_end = hold.applied_end.load(Ordering::Acquire);
    let next = match op.what {
        What::TruncateFrom(from) => Some(from),
        What::Reset(last) => Some(last.index.saturating_add(1)),
        _ => None,
    };
    if let Some(next) = next.filter(|next| *next < applied_end)
        && !removed(Rule::AppliedIsNotTakenBack)
    {
        if applied_end == OPENING {
            let text = format!("a replica is being opened on log {}", op.log);
            return Err(Error::new(ErrorKind::Busy, text));
        }
        let text = format!(
            "entries of log {} below {applied_end} have been applied; it cannot go on at {next}",
            op.log
        );
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let harmless = match op.what {
        What::Set(cell) => cell != HELD_CELL || hold.holder == Holder::Replica,
        What::RestateFacts | What::RestateCell(_) | What::Floor(_) => true,
        What::Delete => false,
        _ => hold.holder == Holder::Replica,
    };
    if harmless {
        return Ok(());
    }
    let text = format!("log {} is in use by an engine or a replica", op.log);
    Err(Error::new(ErrorKind::Busy, text))
}

/// Keeps others from the log until it is dropped.
#[cfg(feature = "snapshot")]
pub(crate) struct Holding {
    shared: Arc<Shared>,
    key: LogKey,
    applied_end: Arc<AtomicU64>,
}

#[cfg(feature = "snapshot")]
impl Journal {
    /// Stands on the log `key`, which need not exist yet. `Busy` if somebody does already.
    pub(crate) fn hold(&self, key: LogKey, holder: Holder) -> Result<Holding> {
        let applied_end = match holder {
            Holder::Replica if !removed(Rule::OpeningHolds) => OPENING,
            Holder::Engine | Holder::Replica => 0,
        };
        let applied_end = Arc::new(AtomicU64::new(applied_end));
        let mut core = self.shared.core.lock();
        if core.logs.held.contains_key(&key) {
            let text = format!("another engine or replica stands on log {key}");
            return Err(Error::new(ErrorKind::Busy, text));
        }
        let hold = Hold {
            holder,
            applied_end: Arc::clone(&applied_end),
        };
        core.logs.held.insert(key, hold);
        drop(core);
        Ok(Holding {
            shared: Arc::clone(&self.shared),
            key,
            applied_end,
        })
    }
}

#[cfg(feature = "snapshot")]
impl Holding {
    /// The entries below `end` are applied, or about to be.
    pub(crate) fn applied_to(&self, end: u64) {
        self.applied_end.store(end, Ordering::Release);
    }
}

#[cfg(feature = "snapshot")]
impl Drop for Holding {
    fn drop(&mut self) {
        self.shared.core.lock().logs.held.remove(&self.key);
    }
}
