//! A machine whose entries somebody else orders.

use std::fmt;

use bytes::Bytes;

use super::checkpoint::write;
use super::config::EngineConfig;
use super::core::{Core, about};
use super::machine::{Persistence, StateMachine};
use super::replay::replay;
use super::report::{Checkpoint, EngineReport};
use super::restore::{Source, header, reset};
use super::retain::{Retention, Unsound};
use crate::error::{Error, ErrorKind, Result};
use crate::format::ENGINE_HEADER_LEN;
use crate::journal::{Holder, Holding};
use crate::log::Log;
use crate::mutant::{Rule, removed};
use crate::segment::run::LentEntry;
use crate::snapshot::{Origin, Snapshot, SnapshotId, Store};
use crate::sync::{Arc, Instant, Mutex};
use crate::types::{Entry, EntryId, LogKey};

/// A state machine with its snapshots and its position, fed by whoever orders its entries: a consensus engine, or catching up. Cheap to
/// clone.
///
/// Durable is not committed: a log may hold entries that a new leader will take back. So a replica applies nothing by itself. On opening it
/// has what its newest snapshot has, and if its owner [passes](Replica::open_on_log) a bound up to which the log is committed, the
/// entries up to there. It never purges the log; its owner does, up to what a snapshot [covers](Checkpoint::snapshot).
///
/// ```
/// use everlog::engine::{Capture, EngineConfig, Replica, StateMachine};
/// use everlog::snapshot::{Store, StoreConfig};
/// use everlog::{EntryId, LogKey};
/// # #[derive(Default)]
/// # struct Sum(u64);
/// # impl StateMachine for Sum {
/// #    fn apply(&mut self, _: EntryId, command: &[u8]) -> bytes::Bytes { self.0 += command.len() as u64; self.0.to_string().into() }
/// #    fn capture(&self) -> Capture { let n = self.0; Capture::new(move |into| into.write_all(&n.to_le_bytes())) }
/// #    fn restore(&mut self, from: &mut dyn std::io::Read) -> std::io::Result<()> {
/// #        let mut n = [0; 8];
/// #        from.read_exact(&mut n)?;
/// #        self.0 = u64::from_le_bytes(n);
/// #        Ok(())
/// #    }
/// #    fn clear(&mut self) { self.0 = 0; }
/// # }
///
/// # let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path(), StoreConfig::new())?;
/// let replica = Replica::open(&store, LogKey(1), Sum::default(), EngineConfig::new())?;
/// replica.apply(EntryId::new(3, 1), None)?; // a blank entry of the consensus
/// assert_eq!(replica.apply(EntryId::new(3, 2), Some(b"four"))?, "4");
/// let taken = replica.checkpoint(b"members 1, 2, 3")?.snapshot.expect("there is something to keep");
/// assert_eq!(taken.covers, EntryId::new(3, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Replica<M: StateMachine>(Arc<Inner<M>>);

impl<M: StateMachine> Clone for Replica<M> {
    fn clone(&self) -> Replica<M> {
        Replica(Arc::clone(&self.0))
    }
}

/// Lock order: `changing`, then `core`.
struct Inner<M> {
    key: LogKey,
    store: Store,
    config: EngineConfig,
    report: EngineReport,
    /// The log that it stands on, if the owner keeps it here.
    log: Option<(Log, Holding)>,
    core: Mutex<Core<M>>,
    /// One checkpoint or install at a time.
    changing: Mutex<()>,
    unsound: Unsound,
}

impl<M: StateMachine> Replica<M> {
    /// Opens a replica whose owner keeps its log, if any, by itself: restores the newest snapshot of `key` that verifies, and applies nothing.
    /// `machine` is as it was before the first entry, or as it persisted itself.
    ///
    /// # Errors
    /// `Damaged` if there were snapshots and none verifies. `Unsupported` if one is not of an engine or a replica, or of a newer one, or the
    /// machine refuses its bytes. Otherwise those of reading.
    pub fn open(store: &Store, key: LogKey, machine: M, config: EngineConfig) -> Result<Replica<M>> {
        Replica::open_with(store, key, None, machine, config)
    }

    /// Opens a replica on its log, and applies the entries below `committed_end`, which the owner knows to be committed (0: none). `command` takes
    /// the machine's command out of an entry; `None` for entries that are the consensus' own.
    ///
    /// As long as the replica lives, the log refuses to take back what was applied (`Invalid`), and to be deleted (`Busy`). If the process
    /// ended while a snapshot was [installed](Replica::install), the log is reset to it.
    ///
    /// The payloads that `command` sees are parts of windows of up to 512 KiB, or as long as the longest of them: copy what is to be kept.
    ///
    /// # Errors
    /// As for [`open`](Replica::open). `Damaged` too if the log ends before what a checkpoint or the machine has seen, or begins behind all snapshots.
    /// `Invalid` if `committed_end` lies beyond the end of the log. `ApplyFailed` as [there](super#when-apply-panics). `Busy` if somebody stands on the log.
    pub fn open_on_log(
        store: &Store,
        log: &Log,
        committed_end: u64,
        mut command: impl FnMut(&Entry) -> Option<Bytes>,
        machine: M,
        config: EngineConfig,
    ) -> Result<Replica<M>> {
        let started = Instant::now();
        let holding = log.journal().hold(log.key(), Holder::Replica)?;
        let mut replica =
            Replica::open_with(store, log.key(), Some((log.clone(), holding)), machine, config)?;
        let inner = Arc::get_mut(&mut replica.0).expect("nobody else has it yet");
        let mut core = inner.core.lock();
        let bounds = log.bounds()?;
        let start = core.applied.map_or(bounds.start, |applied| applied.index + 1);
        if committed_end > bounds.end {
            let text = format!(
                "log {} ends at {}, and cannot be committed up to {committed_end}",
                log.key(),
                bounds.end
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if let Some((_, holding)) = &inner.log {
            holding.applied_to(committed_end.max(start));
        }
        if start < committed_end {
            let mut one = |lent: &LentEntry<'_>| {
                let entry = lent.to_entry();
                apply(&mut core, entry.id, command(&entry).as_deref()).map(drop)
            };
            replay(
                log,
                start..committed_end,
                &inner.config,
                &mut inner.report,
                &mut one,
            )?;
        }
        drop(core);
        inner.report.total = started.elapsed();
        Ok(replica)
    }

    fn open_with(
        store: &Store,
        key: LogKey,
        log: Option<(Log, Holding)>,
        machine: M,
        config: EngineConfig,
    ) -> Result<Replica<M>> {
        config.validate()?;
        let started = Instant::now();
        let mut report = EngineReport::default();
        let mut core = Core::new(machine);
        let source = Source {
            store,
            key,
            log: log.as_ref().map(|(log, _)| log),
            config: &config,
        };
        source.restore(&mut core, &mut report)?;
        report.total = started.elapsed();
        let unsound = Unsound::new(&report);
        Ok(Replica(Arc::new(Inner {
            key,
            store: store.clone(),
            config,
            report,
            log,
            core: Mutex::new(core),
            changing: Mutex::new(()),
            unsound,
        })))
    }

    /// Applies the entry `id`, which the owner knows to be committed, and returns the machine's reply; without a command only the position moves,
    /// and the reply is empty. Nothing is durable by this: the log is, and snapshots are.
    ///
    /// # Errors
    /// `Invalid` if `id` does not follow the last one that was applied, or, before any was, is not the first of the log. `ApplyFailed` if the machine could not: then the replica is closed.
    pub fn apply(&self, id: EntryId, command: Option<&[u8]>) -> Result<Bytes> {
        let mut core = self.0.core.lock();
        open_for_more(&core)?;
        if let Some(applied) = core.applied.filter(|applied| !follows(*applied, id)) {
            let text = format!("entry {id} does not follow {applied}, the last one that was applied");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if let Some((log, holding)) = &self.0.log {
            let first = log.bounds()?.start;
            if core.applied.is_none() && id.index != first {
                let text = format!("entry {id} is not the first one of its log, which begins at {first}");
                return Err(Error::new(ErrorKind::Invalid, text));
            }
            holding.applied_to(id.index.saturating_add(1));
        }
        apply(&mut core, id, command)
    }

    /// Replaces the state by a snapshot that came from elsewhere, and is ahead of it. The snapshot is verified before anything is changed. If the
    /// replica stands on its log and that does not have the entry which the snapshot covers, the log is reset to it. Durable on
    /// return: the next opening finds it.
    ///
    /// # Errors
    /// `NotFound` if the store has no such snapshot. `Invalid` if it is of another log, not [installed](Origin::Installed), or not ahead. `Damaged` if it does not verify.
    /// After any other error open the replica again, which takes up where this ended.
    pub fn install(&self, id: SnapshotId) -> Result<Snapshot> {
        let inner = &*self.0;
        let _one = inner.changing.lock();
        // Nobody removes it while it is being read.
        let _reader = inner.store.reader(id)?;
        let snapshot = inner.store.get(id)?;
        let refuse = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("snapshot {id} {why}")));
        if snapshot.log != inner.key {
            return refuse("is of another log");
        }
        if snapshot.origin != Origin::Installed {
            return refuse("was not installed from elsewhere");
        }
        if let Some(damage) = inner.store.verify(id)?.damage.into_iter().next()
            && !removed(Rule::InstallIsVerified)
        {
            return Err(damage
                .error
                .recast(ErrorKind::Damaged, "the snapshot does not verify"));
        }
        let header = header(&snapshot)?;
        let mut core = inner.core.lock();
        if core
            .applied
            .is_some_and(|applied| snapshot.covers.index <= applied.index)
        {
            return refuse("is not ahead of what was applied");
        }
        let source = Source {
            store: &inner.store,
            key: inner.key,
            log: None,
            config: &inner.config,
        };
        if let Err(error) = source.restore_from(&mut core, &snapshot, &header) {
            core.closed = Some(error.clone());
            return Err(error);
        }
        if let Some((log, holding)) = &inner.log {
            let reached = log.journal().expect_at_least(inner.key, snapshot.covers);
            if let Err(error) = reached.or_else(|_| reset(log, snapshot.covers)) {
                // The state is ahead of its log: only an opening brings them together.
                core.closed = Some(error.clone());
                return Err(error);
            }
            holding.applied_to(snapshot.covers.index + 1);
        }
        Ok(snapshot)
    }

    /// Takes a snapshot of the state as it is now, with `metadata` of the owner, and removes those beyond the [retention](EngineConfig::retain). It is read back;
    /// durable on return. Of the log, if the replica stands on it, what was handed in is made durable first: no opening would succeed with a snapshot that
    /// its log does not reach. Otherwise it is left alone.
    ///
    /// # Errors
    /// `ApplyFailed` if the machine failed: its state is never kept. `NoSpace`, `Io` or `Damaged` from the store, those of [`Journal::sync`](crate::Journal::sync),
    /// and `Invalid` for nearly 1 MiB of metadata, or if an entry was applied that its log was not handed: nothing has changed.
    pub fn checkpoint(&self, metadata: &[u8]) -> Result<Checkpoint> {
        let inner = &*self.0;
        let _one = inner.changing.lock();
        let started = Instant::now();
        let mut done = Checkpoint::default();
        let image = {
            let core = inner.core.lock();
            match core.machine.persistence() {
                Persistence::Snapshots => core.image()?,
                Persistence::Itself(_) => None,
            }
        };
        done.capture = started.elapsed();
        if let Some(image) = image {
            let reached = image.covers;
            inner.log_reaches(reached)?;
            let snapshot = write(&inner.store, inner.key, image, metadata, None, None)?;
            inner.unsound.forget(snapshot.id);
            done.snapshot = Some(snapshot);
            let retention = Retention {
                store: &inner.store,
                key: inner.key,
                retain: inner.config.retain,
                unsound: &inner.unsound,
                pace: None,
            };
            let thinned = retention.thin_out(reached)?;
            done.removed = thinned.removed;
            done.not_freed = thinned.not_freed;
        }
        done.total = started.elapsed();
        Ok(done)
    }

    /// What the owner put beside a snapshot of a replica.
    #[must_use]
    pub fn metadata(snapshot: &Snapshot) -> Bytes {
        let from = ENGINE_HEADER_LEN.min(snapshot.metadata.len());
        snapshot.metadata.slice(from..)
    }

    /// Looks at the machine; nothing is applied meanwhile.
    ///
    /// # Errors
    /// `Closed` if the machine failed, whose state may be half of something.
    pub fn read<T>(&self, look: impl FnOnce(&M) -> T) -> Result<T> {
        let core = self.0.core.lock();
        match &core.closed {
            Some(error) => Err(error.recast(ErrorKind::Closed, "the replica is closed")),
            None => Ok(look(&core.machine)),
        }
    }

    /// The last entry that was applied; `None` before the first.
    #[must_use]
    pub fn applied(&self) -> Option<EntryId> {
        self.0.core.lock().applied
    }

    /// What opening found and did.
    #[must_use]
    pub fn report(&self) -> &EngineReport {
        &self.0.report
    }
}

impl<M> Inner<M> {
    /// Sees that the log has the entry, durably: others may have it, and this disk not yet.
    fn log_reaches(&self, reached: EntryId) -> Result<()> {
        let Some((log, _)) = &self.log else {
            return Ok(());
        };
        if removed(Rule::CheckpointBehindLog) {
            return Ok(());
        }
        if log.durable_end()? <= reached.index {
            log.journal().sync()?;
        }
        let end = log.durable_end()?;
        if end <= reached.index {
            let text = format!(
                "entry {reached} was applied, and its log {} ends at {end}: append it before a checkpoint",
                self.key
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if removed(Rule::CheckpointOfOwnLog) {
            return Ok(());
        }
        // It may have another one there, of a leader that is gone.
        log.journal().expect_at_least(self.key, reached).map_err(|error| {
            let text = format!("entry {reached} was applied, and its log has another one there: {error}");
            Error::new(ErrorKind::Invalid, text)
        })
    }
}

/// `Closed` if the machine failed.
fn open_for_more<M: StateMachine>(core: &Core<M>) -> Result<()> {
    let Some(error) = &core.closed else {
        return Ok(());
    };
    let text = format!("the replica is closed: {error}");
    Err(match error.entry() {
        Some(failed) => about(ErrorKind::Closed, failed, text),
        None => Error::new(ErrorKind::Closed, text),
    })
}

fn follows(applied: EntryId, id: EntryId) -> bool {
    applied.index.checked_add(1) == Some(id.index) && applied.term <= id.term
}

fn apply<M: StateMachine>(core: &mut Core<M>, id: EntryId, command: Option<&[u8]>) -> Result<Bytes> {
    match command {
        Some(command) => core.apply_bytes(id, command),
        None => {
            core.applied = Some(id);
            Ok(Bytes::new())
        }
    }
}

impl<M: StateMachine> fmt::Debug for Replica<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("log", &self.0.key)
            .finish_non_exhaustive()
    }
}
