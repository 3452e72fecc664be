//! A checkpoint: the state becomes a snapshot, and the log behind the oldest one that is kept goes.
//!
//! ```text
//! capture (nothing is applied)  ->  write  ->  commit: pack, names, index, each synced  ->  read back, past the cache
//!    ->  the oldest that is kept read as a whole  ->  older snapshots removed  ->  the log purged to the oldest that is kept
//! ```
//!
//! The order is the safety argument. Before the commit has returned, a crash leaves the snapshots and the log as they were. Between it and the
//! purge there is more than is needed. Nothing goes before the snapshot to which the log is purged was read past the cache, index
//! and chunks: it and the log are the state. With `retain` of 2 the newer one may rot, or the older one after it was read,
//! and the log begins where the other ends, or before; what they share they lose together.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::core::Image;
use super::handle::Shared;
use super::machine::{Persistence, StateMachine};
use super::report::Checkpoint;
use super::retain::Retention;
use crate::error::{Error, ErrorKind, Result};
use crate::format::EngineHeader;
use crate::journal::WriteBatch;
use crate::log::Log;
use crate::mutant::{Rule, removed};
use crate::snapshot::{Draft, Pace, ReadBack, Snapshot, Store};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::{EntryId, LogKey};

impl<M: StateMachine> Shared<M> {
    /// Takes a checkpoint; one at a time.
    pub(super) fn checkpoint(&self) -> Result<Checkpoint> {
        let _one = self.checkpointing.lock();
        let started = self.config.clock.now();
        let mut done = Checkpoint::default();
        let pace = self.pace();
        // The machine writes its state here: a panic is a checkpoint that failed, and the next one becomes due like after any other.
        let taken = catch_unwind(AssertUnwindSafe(|| self.take_and_purge(&pace, &mut done)));
        done.total = self.config.clock.since(started);
        done.rested = pace.rested();
        if !matches!(taken, Ok(Ok(()))) {
            self.counters.checkpoints_failed.add(1);
            let took = done.total.saturating_sub(done.rested);
            self.cadence.lock().fail(self.config.clock.now(), took);
        }
        match taken.unwrap_or_else(|panic| resume_unwind(panic)) {
            Ok(()) => {
                self.cadence.lock().end();
                self.counters.checkpoints.add(1);
                Ok(done)
            }
            Err(error) => {
                tracing::warn!(key = %self.log.key(), %error, "a checkpoint failed");
                Err(error)
            }
        }
    }

    /// Leaves room at the disk for the syncs of the journal, for which whoever executes a command waits; as long as the budget allows it, and
    /// nobody waits for the checkpoint to end.
    pub(super) fn pace(&self) -> Pace {
        let journal = self.log.journal().clone();
        let (cadence, stop) = (Arc::clone(&self.cadence), Arc::clone(&self.stop));
        let seen = AtomicU64::new(journal.syncs());
        let rests = self.config.checkpoint_rests;
        Pace::yielding(move || {
            let now = journal.syncs();
            let others = seen.swap(now, Ordering::Relaxed) != now;
            rests && others && !stop.load(Ordering::Acquire) && !cadence.lock().hurries()
        })
    }

    fn take_and_purge(&self, pace: &Pace, done: &mut Checkpoint) -> Result<()> {
        let started = self.config.clock.now();
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
        done.capture = self.config.clock.since(started);
        let retention = Retention {
            store: &self.store,
            key: self.log.key(),
            retain: self.config.retain,
            unsound: &self.unsound,
            pace: Some(pace.clone()),
        };
        let reached = image.as_ref().map(|image| image.covers);
        let newest = match reached {
            Some(reached) => retention.newest(reached)?,
            None => None,
        };
        let mut bytes = newest.as_ref().map_or(0, |newest| newest.bytes);
        if let Some(image) = image
            && newest.is_none_or(|newest| newest.covers != image.covers)
        {
            let purge_first = removed(Rule::CheckpointBeforePurge).then_some(image.covers);
            if let Some(covers) = purge_first {
                purge(&self.log, covers)?;
            }
            let snapshot = write(
                &self.store,
                self.log.key(),
                image,
                &[],
                Some(&self.stop),
                Some(pace.clone()),
            )?;
            self.unsound.forget(snapshot.id);
            bytes = snapshot.bytes;
            done.snapshot = Some(snapshot);
        }
        let (now, took) = (self.config.clock.now(), self.config.clock.since(started));
        // Rests are for others: the next one need not wait longer for them.
        let took = took.saturating_sub(pace.rested());
        self.cadence.lock().succeed(covered, bytes, now, took);
        let purge_to = match (persistence, reached) {
            (Persistence::Itself(durable), _) => durable,
            (Persistence::Snapshots, None) => None,
            (Persistence::Snapshots, Some(reached)) => {
                let thinned = retention.thin_out(reached)?;
                done.removed = thinned.removed;
                done.not_freed = thinned.not_freed;
                match removed(Rule::PurgeToRetained) {
                    true => done.snapshot.as_ref().map(|snapshot| snapshot.covers),
                    false => thinned.oldest,
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
    pace: Option<Pace>,
) -> Result<Snapshot> {
    let failed = |error: io::Error| match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => Error::new(
            ErrorKind::Io,
            format!("the machine cannot write its state: {error}"),
        ),
    };
    let mut creation = store.create(Draft::new(key, image.covers).paced(pace.clone()))?;
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
        if let Some(error) = store.check(snapshot.id, pace)? {
            if let Err(error) = store.remove(snapshot.id) {
                tracing::warn!(%error, "a snapshot that does not read back could not be removed");
            }
            return Err(error.recast(ErrorKind::Damaged, "the new snapshot does not read back"));
        }
    }
    Ok(snapshot)
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
