//! A checkpoint: the state becomes a snapshot, and the log behind the oldest one that is kept goes.
//!
//! ```text
//! capture (nothing is applied)  ->  write  ->  commit: pack, names, index, each synced  ->  read back, past the cache
//!    ->  snapshots beyond the retention removed  ->  the log purged to the oldest that is kept
//! ```
//!
//! The order is the safety argument. Before the commit has returned, a crash leaves the snapshots and the log as they were. Between it and the
//! purge there is more than is needed. Nothing is purged that no snapshot holds which was read back, and with `retain` of 2 nothing
//! that two do not hold: whichever of them rots, the log begins where the other ends, or before.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::core::Image;
use super::handle::Shared;
use super::machine::{Persistence, StateMachine};
use super::report::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::format::EngineHeader;
use crate::journal::WriteBatch;
use crate::log::Log;
use crate::mutant::{Rule, removed};
use crate::snapshot::{Draft, ReadBack, Retention, Snapshot, SnapshotId, Store};
use crate::sync::Instant;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::{EntryId, LogKey};

impl<M: StateMachine> Shared<M> {
    /// Takes a checkpoint; one at a time.
    pub(super) fn checkpoint(&self) -> Result<Checkpoint> {
        let _one = self.checkpointing.lock();
        let started = Instant::now();
        let mut done = Checkpoint::default();
        // The machine writes its state here: a panic is a checkpoint that failed, and the next one becomes due like after any other.
        let taken = catch_unwind(AssertUnwindSafe(|| self.take_and_purge(&mut done)));
        done.total = started.elapsed();
        if !matches!(taken, Ok(Ok(()))) {
            self.counters.checkpoints_failed.add(1);
            self.cadence.lock().fail(self.opened.elapsed(), done.total);
        }
        match taken.unwrap_or_else(|panic| resume_unwind(panic)) {
            Ok(()) => {
                self.counters.checkpoints.add(1);
                Ok(done)
            }
            Err(error) => {
                tracing::warn!(key = %self.log.key(), %error, "a checkpoint failed");
                Err(error)
            }
        }
    }

    fn take_and_purge(&self, done: &mut Checkpoint) -> Result<()> {
        let started = Instant::now();
        let (image, persistence, covered) = {
            let core = self.core.lock();
            let persistence = core.machine.persistence();
            let image = match (persistence, &core.closed) {
                (Persistence::Itself(_), Some(error)) => return Err(error.clone()),
                (Persistence::Itself(_), None) => None,
                (Persistence::Snapshots, _) => core.image()?,
            };
            (image, persistence, self.cadence.lock().begin())
        };
        done.capture = started.elapsed();
        let refused: Vec<SnapshotId> = self
            .report
            .refused
            .iter()
            .map(|(snapshot, _)| snapshot.id)
            .collect();
        let mut newest = self.store.list_of(self.log.key())?;
        newest.retain(|snapshot| !refused.contains(&snapshot.id));
        let newest = newest.into_iter().next();
        let mut bytes = newest.as_ref().map_or(0, |newest| newest.bytes);
        if let Some(image) = image
            && newest.is_none_or(|newest| newest.covers != image.covers)
        {
            let purge_first = removed(Rule::CheckpointBeforePurge).then_some(image.covers);
            if let Some(covers) = purge_first {
                purge(&self.log, covers)?;
            }
            let snapshot = write(&self.store, self.log.key(), image, &[], Some(&self.stop))?;
            bytes = snapshot.bytes;
            done.snapshot = Some(snapshot);
        }
        self.cadence
            .lock()
            .succeed(covered, bytes, self.opened.elapsed(), started.elapsed());
        let purge_to = match persistence {
            Persistence::Itself(durable) => durable,
            Persistence::Snapshots => {
                let (oldest, removed) = thin_out(&self.store, self.log.key(), self.config.retain, &refused)?;
                done.removed = removed;
                match crate::mutant::removed(Rule::PurgeToRetained) {
                    true => done.snapshot.as_ref().map(|snapshot| snapshot.covers),
                    false => oldest,
                }
            }
        };
        if let Some(through) = purge_to.filter(|id| self.log.bounds().is_ok_and(|b| b.start <= id.index)) {
            purge(&self.log, through)?;
            done.purged_through = Some(through);
        }
        Ok(())
    }
}

fn purge(log: &Log, through: EntryId) -> Result<()> {
    let mut batch = WriteBatch::of_holder();
    batch.purge_through(log.key(), through);
    log.journal().write(batch).map(drop)
}

/// Writes a state as a snapshot, and sees that it can be read. Given up when `stop` becomes true.
pub(super) fn write(
    store: &Store,
    key: LogKey,
    image: Image,
    metadata: &[u8],
    stop: Option<&AtomicBool>,
) -> Result<Snapshot> {
    let failed = |error: io::Error| match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => Error::new(
            ErrorKind::Io,
            format!("the machine cannot write its state: {error}"),
        ),
    };
    let mut creation = store.create(Draft::new(key, image.covers))?;
    let mut into = Stoppable {
        into: &mut creation,
        stop,
    };
    image.capture.write(&mut into).map_err(failed)?;
    // A machine need not pass on that it was told to stop: what it has written is then a part of the state, and must not become a snapshot.
    if !removed(Rule::GivenUpIsNotCommitted) {
        into.going().map_err(failed)?;
    }
    let machine_len = creation.bytes();
    creation.write_all(&image.tables.encode()).map_err(failed)?;
    let mut all = EngineHeader { machine_len }.encode().to_vec();
    all.extend_from_slice(metadata);
    creation.set_metadata(all);
    let committed = creation.commit()?;
    let snapshot = committed.snapshot;
    if committed.read_back == ReadBack::No {
        // The store does not look at what it wrote; whoever purges a log because of it must.
        let found = store.verify(snapshot.id)?;
        if let Some(damage) = found.damage.into_iter().next() {
            return Err(damage
                .error
                .recast(ErrorKind::Damaged, "the new snapshot does not read back"));
        }
    }
    Ok(snapshot)
}

/// Removes the snapshots of `key` beyond the newest `retain`. Returns what the oldest of those that stay covers, if they are so many,
/// and how many went. One that is pinned or being read stays, and keeps the log behind it; one of the `refused`, which opening could not
/// restore, is nothing to fall back to.
pub(super) fn thin_out(
    store: &Store,
    key: LogKey,
    retain: usize,
    refused: &[SnapshotId],
) -> Result<(Option<EntryId>, usize)> {
    let too_many = store.would_remove(&Retention::new().newest(retain))?;
    let mut kept = store.list_of(key)?;
    let mut removed = 0;
    for snapshot in too_many.iter().filter(|snapshot| snapshot.log == key) {
        match store.remove(snapshot.id) {
            Ok(_) => {
                kept.retain(|kept| kept.id != snapshot.id);
                removed += 1;
            }
            Err(error) if [ErrorKind::Busy, ErrorKind::NotFound].contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    kept.retain(|snapshot| !refused.contains(&snapshot.id));
    let oldest = kept.last().filter(|_| kept.len() >= retain);
    Ok((oldest.map(|oldest| oldest.covers), removed))
}

/// Ends a long write when nobody wants it any more.
struct Stoppable<'a, W> {
    into: &'a mut W,
    stop: Option<&'a AtomicBool>,
}

impl<W> Stoppable<'_, W> {
    fn going(&self) -> io::Result<()> {
        if self.stop.is_some_and(|stop| stop.load(Ordering::Acquire)) {
            let text = "the engine was closed while a checkpoint was written";
            return Err(Error::new(ErrorKind::Closed, text).into());
        }
        Ok(())
    }
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.going()?;
        self.into.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
