//! One log of a journal, as its owner uses it.

mod entries;

use std::ops::Range;

use bytes::Bytes;

pub use self::entries::Entries;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::read;
use crate::journal::state::LogState;
use crate::journal::{Journal, Ticket, What, WriteBatch, Written};
use crate::mutant::{Rule, removed};
use crate::types::{Entry, EntryId, LogKey, Term, TermRun};

/// A gapless sequence of entries, and some small cells, in a [`Journal`]. Cheap to clone, usable from any thread.
///
/// A handle belongs to the log it was made for: after [`Journal::delete_log`] it says `NotFound`, also when a new log has
/// the key.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().join("j");
/// use everlog::{Config, EntryId, Journal, LogKey};
/// let journal = Journal::create(&dir, Config::new().segment_bytes(1 << 20))?;
/// let log = journal.create_log(LogKey(1), 0)?;
/// log.append_at(EntryId::new(3, 0), b"zero")?;
/// log.append(b"one")?;
/// log.set(0, b"voted for 4 in term 3")?;
/// assert_eq!(log.last()?, Some(EntryId::new(3, 1)));
/// assert_eq!(log.read(0..2).count(), 2);
/// log.truncate_from(1)?;
/// log.purge_to(1)?;
/// assert_eq!((log.bounds()?, log.purged()?), (1..1, Some(EntryId::new(3, 0))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Log {
    journal: Journal,
    key: LogKey,
    incarnation: u64,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("key", &self.key)
            .field("journal", &self.journal)
            .finish()
    }
}

impl Journal {
    /// Creates a log whose first entry will have index `first`; durable on return. `Invalid` if it exists.
    pub fn create_log(&self, key: LogKey, first: u64) -> Result<Log> {
        let mut batch = WriteBatch::new();
        batch.push(key, What::Create(first), &[]);
        self.write(batch)?;
        self.log(key)
    }

    /// The log `key`; `NotFound` if there is none.
    pub fn log(&self, key: LogKey) -> Result<Log> {
        self.shared.check_readable()?;
        let core = self.shared.core.lock();
        let state = core.logs.get(key).ok_or_else(|| not_found(key))?;
        Ok(Log {
            journal: self.clone(),
            key,
            incarnation: state.incarnation,
        })
    }

    /// The log `key`, created if there is none, and then `first` is the index of its first entry; durable on return either way.
    ///
    /// Errors: `Closed`; those of a write if it has to be created, or synced because it is there.
    pub fn open_or_create_log(&self, key: LogKey, first: u64) -> Result<Log> {
        match self.log(key) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // It may have been created by another thread an instant ago.
            found => return self.sync().and(found),
        }
        self.create_log(key, first).or_else(|error| match self.log(key) {
            // By another thread, between the two.
            Ok(log) => self.sync().map(|()| log),
            Err(_) => Err(error),
        })
    }
}

fn not_found(key: LogKey) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no log {key}"))
}

impl Log {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> LogKey {
        self.key
    }

    /// The journal it is in.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Appends an entry with the next index and the last term; durable on return.
    pub fn append(&self, payload: impl AsRef<[u8]>) -> Result<EntryId> {
        let written = self.journal.write(self.one(What::Append, payload.as_ref())?)?;
        only(&written)
    }

    /// Appends the entry `id`, whose index must be the next and whose term no lower than the last; durable on return.
    pub fn append_at(&self, id: EntryId, payload: impl AsRef<[u8]>) -> Result<EntryId> {
        let written = self
            .journal
            .write(self.one(What::AppendAt(id), payload.as_ref())?)?;
        only(&written)
    }

    /// Appends an entry; given to the system on return, durable a little later. See [`Journal::write_relaxed`].
    pub fn append_relaxed(&self, payload: impl AsRef<[u8]>) -> Result<EntryId> {
        let written = self
            .journal
            .write_relaxed(self.one(What::Append, payload.as_ref())?)?;
        only(&written)
    }

    /// Appends an entry and returns at once; its id is known, the ticket tells when it is durable. See [`Journal::submit`].
    pub fn submit(&self, payload: impl AsRef<[u8]>) -> Result<Ticket<EntryId>> {
        let ticket = self.journal.submit(self.one(What::Append, payload.as_ref())?)?;
        let id = only(ticket.value())?;
        Ok(ticket.map(|_| id))
    }

    /// Sets a cell; durable on return.
    pub fn set(&self, cell: u8, value: impl AsRef<[u8]>) -> Result<()> {
        self.journal
            .write(self.one(What::Set(cell), value.as_ref())?)
            .map(drop)
    }

    /// Sets a cell; given to the system on return, durable a little later, and no later than anything written after it.
    pub fn set_relaxed(&self, cell: u8, value: impl AsRef<[u8]>) -> Result<()> {
        self.journal
            .write_relaxed(self.one(What::Set(cell), value.as_ref())?)
            .map(drop)
    }

    /// Drops the entries from `index` on, durably. Beyond the end nothing happens; below the first entry it is `Invalid`.
    pub fn truncate_from(&self, index: u64) -> Result<()> {
        self.journal
            .write(self.one(What::TruncateFrom(index), &[])?)
            .map(drop)
    }

    /// Drops the entries before `index`, durably; beyond the end too, and then the log goes on at `index`. Space is freed in
    /// the background.
    pub fn purge_to(&self, index: u64) -> Result<()> {
        self.journal.write(self.one(What::PurgeTo(index), &[])?).map(drop)
    }

    /// Drops the entries up to and including `id`, durably; `id` may lie beyond the end.
    pub fn purge_through(&self, id: EntryId) -> Result<()> {
        self.journal
            .write(self.one(What::PurgeThrough(id), &[])?)
            .map(drop)
    }

    /// Empties the log, durably: `last` counts as its last purged entry, and the next index is `last.index + 1`.
    pub fn reset(&self, last: EntryId) -> Result<()> {
        self.journal.write(self.one(What::Reset(last), &[])?).map(drop)
    }

    fn one(&self, what: What, payload: &[u8]) -> Result<WriteBatch> {
        self.with(|_| ())?;
        Ok(WriteBatch::bound(self.key, self.incarnation, what, payload))
    }

    /// The entry's payload, verified. `Purged` before the first, `NotFound` beyond the last, `Damaged` if its checksum does not hold.
    pub fn get(&self, index: u64) -> Result<Bytes> {
        self.entry(index).map(|entry| entry.payload)
    }

    /// The entry at `index`, verified.
    pub fn entry(&self, index: u64) -> Result<Entry> {
        let shared = &self.journal.shared;
        let found = self.with(|state| read::locate(state, self.key, index))??;
        let entry = read::fetch(found, self.key, self.incarnation, &shared.cache, None)?;
        shared.counters.reads.add(1);
        shared.counters.read_bytes.add(entry.payload.len() as u64);
        Ok(entry)
    }

    /// The entries of `range`, in order, each verified, read in windows. Ends at the first error. The iterator sees what is there
    /// when it gets to it, in stretches of up to 256 entries: those of a stretch that it has begun still come after a truncate,
    /// reset or purge took them. If entries that it gave out were truncated it ends with `NotFound` behind its stretch, and never
    /// goes on with others in their place. After [`Journal::close`] it gives nothing but `Closed`.
    #[must_use]
    pub fn read(&self, range: Range<u64>) -> Entries {
        Entries::new(self.clone(), range)
    }

    /// Entries of `range` from its start on, as many as fit into `bytes` of payload, but at least one if the range has one.
    pub fn read_limited(&self, range: Range<u64>, bytes: u64) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut total = 0;
        for entry in self.read(range) {
            let entry = entry?;
            total += entry.payload.len() as u64;
            if total > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// First index kept, and next index.
    pub fn bounds(&self) -> Result<Range<u64>> {
        self.with(|state| state.start..state.end)
    }

    /// Id of the last entry; of the last purged one if the log is empty.
    pub fn last(&self) -> Result<Option<EntryId>> {
        self.with(LogState::last)
    }

    /// Id of the last purged entry.
    pub fn purged(&self) -> Result<Option<EntryId>> {
        self.with(|state| state.purged)
    }

    /// Entries before this index are durable. Falls with a truncate, at once.
    pub fn durable_end(&self) -> Result<u64> {
        self.with(|state| state.durable_end)
    }

    /// The runs of terms in `range`, clipped to the log.
    pub fn terms(&self, range: Range<u64>) -> Result<Vec<TermRun>> {
        self.with(|state| state.terms(range.start.max(state.start)..range.end.min(state.end)))
    }

    /// Term of the entry at `index`, or of the last purged entry. `Purged` before that, `NotFound` beyond the end.
    pub fn term_at(&self, index: u64) -> Result<Term> {
        self.with(|state| {
            state
                .term_at(index)
                .ok_or_else(|| read::outside(state, self.key, index))
        })?
    }

    /// The value of a cell; `None` if it was never set.
    pub fn cell(&self, cell: u8) -> Result<Option<Bytes>> {
        self.with(|state| state.cells.get(&cell).and_then(|cell| cell.value.clone()))
    }

    /// The cells that were set.
    pub fn cells(&self) -> Result<Vec<u8>> {
        self.with(|state| state.cells.keys().copied().collect())
    }

    /// Looks at the log's state.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&LogState) -> T) -> Result<T> {
        self.journal.shared.check_readable()?;
        let core = self.journal.shared.core.lock();
        match core
            .logs
            .get(self.key)
            .filter(|log| log.incarnation == self.incarnation || removed(Rule::IncarnationOfHandle))
        {
            Some(state) => Ok(look(state)),
            None => Err(not_found(self.key)),
        }
    }
}

fn only(written: &Written) -> Result<EntryId> {
    written
        .ids
        .first()
        .copied()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "nothing was appended"))
}
