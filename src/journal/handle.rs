//! The handle: `Journal`, and what keeps the journal open.

use std::path::Path;

use super::admit::{Manner, check_open};
use super::batch::{Refused, What, WriteBatch, Written};
use super::completions::inside_waker;
use super::open::{self, Want};
use super::report::OpenReport;
use super::room::{Permit, Room};
use super::ticket::{Driver, Ticket};
use super::{Reclaimed, Shared, Uuid};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Fs, RealFs};
use crate::metrics::Metrics;
use crate::sync::{Arc, thread};
use crate::types::{EntryId, LogKey};

/// An open journal: one writer, any number of logs, one fsync for all of them. Cheap to clone; all clones are the same journal.
///
/// Dropping the last handle (of the journal and of its logs) drains what was submitted, syncs, marks the journal as closed and
/// releases the directory; [`close`](Journal::close) does the same and tells how it went.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().join("j");
/// use everlog::{Config, Journal, LogKey};
/// let journal = Journal::open_or_create(&dir, Config::new().segment_bytes(1 << 20))?;
/// let log = journal.open_or_create_log(LogKey(7), 0)?;
/// let id = log.append(b"on disk when this returns")?;
/// assert_eq!(&log.get(id.index)?[..], b"on disk when this returns");
/// journal.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
    /// Held, and dropped with the last handle.
    _alive: Arc<Alive>,
}

/// Shuts the journal down when the last handle goes.
pub(crate) struct Alive(Arc<Shared>);

impl Drop for Alive {
    /// A task's waker may be what held the last handle. Whoever wakes it is in the middle of a flush, which shutting down waits
    /// for: another thread does it then, and the directory is free a little later.
    fn drop(&mut self) {
        if !inside_waker() {
            return shut(&self.0);
        }
        let shared = Arc::clone(&self.0);
        if let Err(error) = thread::spawn("everlog-close", move || shut(&shared)) {
            tracing::error!(%error, "the journal was dropped by a waker and could not be closed");
        }
    }
}

fn shut(shared: &Shared) {
    if let Err(error) = shared.shut() {
        tracing::error!(%error, "the journal was dropped and its last writes failed");
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("dir", &self.shared.fs.display(""))
            .finish_non_exhaustive()
    }
}

impl Journal {
    fn with(fs: &Arc<dyn Fs>, config: Config, want: Want) -> Result<Journal> {
        let shared = open::open(fs, config, want)?;
        let alive = Arc::new(Alive(Arc::clone(&shared)));
        Ok(Journal {
            shared,
            _alive: alive,
        })
    }

    /// Creates a journal in `dir`, which is made if need be. `Invalid` if there is one already. The journal and its directory
    /// entry are durable on return. Writes its first segment and the reserve full of zeros: a few times
    /// [`segment_bytes`](Config::segment_bytes).
    pub fn create(dir: impl AsRef<Path>, config: Config) -> Result<Journal> {
        let fs =
            RealFs::create(dir.as_ref()).map_err(|e| Error::io(dir.as_ref(), "create the directory", e))?;
        Journal::create_on(Arc::new(fs), config)
    }

    /// Opens the journal in `dir`. `NotFound` if there is none: an unmounted disk must not become an empty journal. `Locked` if
    /// another process has it, `Damaged` if acknowledged bytes are, `Unsupported` if a newer everlog wrote it. Everything that was found
    /// is durable on return. Costs a read of every opening and index, and of the last segment.
    pub fn open(dir: impl AsRef<Path>, config: Config) -> Result<Journal> {
        let fs = RealFs::open(dir.as_ref()).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                let text = "there is no such directory; check that the disk is mounted, or create a journal";
                Error::at(ErrorKind::NotFound, dir.as_ref(), text)
            }
            _ => Error::io(dir.as_ref(), "open the directory", e),
        })?;
        Journal::open_on(Arc::new(fs), config)
    }

    /// Opens the journal in `dir`, or creates it.
    pub fn open_or_create(dir: impl AsRef<Path>, config: Config) -> Result<Journal> {
        let fs =
            RealFs::create(dir.as_ref()).map_err(|e| Error::io(dir.as_ref(), "create the directory", e))?;
        Journal::open_or_create_on(Arc::new(fs), config)
    }

    /// [`create`](Journal::create) in a given file system.
    pub fn create_on(fs: Arc<dyn Fs>, config: Config) -> Result<Journal> {
        Journal::with(&fs, config, Want::New)
    }

    /// [`open`](Journal::open) in a given file system.
    pub fn open_on(fs: Arc<dyn Fs>, config: Config) -> Result<Journal> {
        Journal::with(&fs, config, Want::Existing)
    }

    /// [`open_or_create`](Journal::open_or_create) in a given file system.
    pub fn open_or_create_on(fs: Arc<dyn Fs>, config: Config) -> Result<Journal> {
        Journal::with(&fs, config, Want::Either)
    }

    /// Deletes a log with all its entries and cells, durably. `NotFound` if there is none. A log created later under this key has
    /// nothing of it.
    pub fn delete_log(&self, key: LogKey) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.push(key, What::Delete, &[]);
        self.write(batch).map(drop)
    }

    /// The keys of all logs, sorted.
    #[must_use]
    pub fn logs(&self) -> Vec<LogKey> {
        self.shared.core.lock().logs.iter().map(|(key, _)| key).collect()
    }

    /// Writes a batch; durable on return. Costs one share of one fsync.
    pub fn write(&self, batch: WriteBatch) -> Result<Written> {
        self.write_as(batch, Manner::DURABLE)
    }

    /// Writes a batch; on return it is given to the system (it survives a kill of the process, not a power cut) and is synced within
    /// [`relaxed_delay`](Config::relaxed_delay). A later durable write makes it durable, too.
    pub fn write_relaxed(&self, batch: WriteBatch) -> Result<Written> {
        self.write_as(batch, Manner::RELAXED)
    }

    fn write_as(&self, batch: WriteBatch, manner: Manner) -> Result<Written> {
        Shared::may_block()?;
        let admitted = self
            .shared
            .admit(batch, manner)
            .map_err(|refused| refused.error)?;
        self.shared.wait(&admitted.group, None).unwrap_or(Ok(()))?;
        Ok(admitted.written)
    }

    /// Hands a batch in and returns at once (after waiting for in-flight room, if there is none); the ticket tells when it is
    /// durable. Readable at once. Never waits for the disk, except to prepare a missing segment.
    pub fn submit(&self, batch: WriteBatch) -> Result<Ticket<Written>> {
        self.submit_as(batch, Manner::DURABLE)
            .map_err(|refused| refused.error)
    }

    /// The same for a relaxed write: the ticket tells when it is given to the system.
    pub fn submit_relaxed(&self, batch: WriteBatch) -> Result<Ticket<Written>> {
        self.submit_as(batch, Manner::RELAXED)
            .map_err(|refused| refused.error)
    }

    /// [`submit`](Journal::submit) that never waits for room: gives the batch back (`Busy`) instead. For a batch larger than
    /// [`in_flight_bytes`](crate::Config::in_flight_bytes) a file of its own size may be made first, on this thread.
    pub fn try_submit(&self, batch: WriteBatch) -> Result<Ticket<Written>, Refused> {
        self.submit_as(
            batch,
            Manner {
                try_only: true,
                ..Manner::DURABLE
            },
        )
    }

    /// Waits for in-flight room of `bytes` and reserves it: a future that yields a [`Permit`] for
    /// [`submit_with`](Journal::submit_with), first come first served from the first poll on.
    pub fn room(&self, bytes: u64) -> Room {
        Room::new(
            Arc::clone(&self.shared.bound),
            Arc::<Shared>::clone(&self.shared),
            bytes,
        )
    }

    /// [`submit`](Journal::submit) with room reserved before; does not wait for room. A batch larger than
    /// [`in_flight_bytes`](crate::Config::in_flight_bytes) as in [`try_submit`](Journal::try_submit).
    pub fn submit_with(&self, permit: Permit, batch: WriteBatch) -> Result<Ticket<Written>> {
        let manner = Manner {
            permit: Some(permit),
            ..Manner::DURABLE
        };
        self.submit_as(batch, manner).map_err(|refused| refused.error)
    }

    fn submit_as(&self, batch: WriteBatch, manner: Manner) -> Result<Ticket<Written>, Refused> {
        let admitted = self.shared.admit(batch, manner)?;
        if admitted.idle {
            self.shared.nudge();
        }
        let driver: Arc<dyn Driver> = Arc::<Shared>::clone(&self.shared);
        Ok(Ticket::new(admitted.written, admitted.group, driver))
    }

    /// Everything submitted before this call, relaxed writes included, is durable on return.
    pub fn sync(&self) -> Result<()> {
        Shared::may_block()?;
        self.shared.sync()
    }

    /// Frees the segments that nothing needs any more. Happens in the background after every purge, too; this waits for it.
    pub fn reclaim(&self) -> Result<Reclaimed> {
        Shared::may_block()?;
        check_open(&self.shared.core.lock())?;
        self.shared.reclaim()
    }

    /// Turns a silent loss into damage: `Damaged` unless the log reaches `id` and has it. For an owner who knows from elsewhere (a
    /// peer, a snapshot) what must be there.
    pub fn expect_at_least(&self, key: LogKey, id: EntryId) -> Result<()> {
        let core = self.shared.core.lock();
        let dir = self.shared.fs.display("");
        let damaged = |text: String| Err(Error::at(ErrorKind::Damaged, dir.clone(), text));
        let Some(log) = core.logs.get(key) else {
            return damaged(format!("log {key} should hold entry {id} and is not there"));
        };
        if let Some(term) = log.term_at(id.index) {
            if term != id.term {
                return damaged(format!(
                    "entry {} of log {key} has term {term}, not {}",
                    id.index, id.term
                ));
            }
            return Ok(());
        }
        if id.index < log.start {
            return Ok(());
        }
        damaged(format!(
            "log {key} should hold entry {id} and ends at {}",
            log.end
        ))
    }

    /// What `open` found.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.shared.report
    }

    /// Counters and latencies of this life, as they are now.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.counters.snapshot(self.shared.bound.in_flight())
    }

    /// How many syncs there have been.
    pub(crate) fn syncs(&self) -> u64 {
        self.shared.counters.syncs.get()
    }

    /// Names the journal for ever.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.shared.uuid
    }

    /// Does the work that nobody waits for; true if there was any. Only with [`Background::Caller`](crate::Background::Caller), `Invalid`
    /// otherwise. Callbacks run in here.
    pub fn work(&self) -> Result<bool> {
        Shared::may_block()?;
        self.shared.work()
    }

    /// Closes the journal for all clones: finishes and syncs everything submitted, writes the closing mark, releases the
    /// directory. Later calls are `Closed`.
    pub fn close(self) -> Result<()> {
        Shared::may_block()?;
        self.shared.shut()
    }
}
