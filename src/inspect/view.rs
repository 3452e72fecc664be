//! A journal as it is, to be read and not changed.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::format::VERSION;
use crate::fs::{Access, Fs};
use crate::journal::read::{fetch, locate, outside};
use crate::journal::recover::{Mode, Recovered, read_cell, recover};
use crate::journal::state::LogState;
use crate::journal::{Finding, OpenReport, Uuid};
use crate::segment::JOURNAL_DIR;
use crate::segment::ahead::ReadAhead;
use crate::segment::cache::BlockCache;
use crate::sync::Arc;
use crate::types::{Entry, EntryId, LogKey, Term, TermRun};

/// The lock file, below the root.
const LOCK: &str = "lock";
/// How the names of zeroed spares end.
const SPARE: &str = ".spare";

/// A read-only look at a journal: what it held when the view was opened. Cheap to clone, usable from any thread.
///
/// Works on a damaged journal as far as it goes: [`findings`](View::findings) says what is wrong, and reading a lost
/// entry says `Damaged`. Works beside a live writer, and shows what the writer had proven to be durable by then; if the
/// writer later frees a segment, its entries stay readable on Unix for as long as the view lives.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().join("j");
/// use everlog::inspect::View;
/// use everlog::{Config, Journal, LogKey};
/// let journal = Journal::create(&dir, Config::new().segment_bytes(1 << 20))?;
/// journal.create_log(LogKey(1), 0)?.append(b"zero")?;
/// journal.close()?;
///
/// let view = View::open(&dir, Config::new())?;
/// assert!(view.clean() && view.findings().is_empty());
/// assert_eq!(view.log(LogKey(1))?.get(0)?, "zero");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct View {
    inner: Arc<Inner>,
}

struct Inner {
    found: Recovered,
    cache: BlockCache,
    holder: Option<String>,
    segments: Vec<SegmentInfo>,
    reserve_bytes: u64,
}

/// A segment of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its id: rising, with gaps.
    pub id: u64,
    /// Its file.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// Whether a later segment continues the journal.
    pub sealed: bool,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("uuid", &self.uuid())
            .field("holder", &self.holder())
            .finish_non_exhaustive()
    }
}

impl View {
    /// Looks into the journal in `dir`. Of `config` only the size of the index cache and
    /// [`verify_on_open`](Config::verify_on_open) count.
    ///
    /// Errors: those of [`find`](super::find); `Unsupported` if a newer everlog wrote it; `Invalid` if it holds files of
    /// another journal; `Damaged` only if no opening at all verifies.
    pub fn open(dir: impl AsRef<Path>, config: Config) -> Result<View> {
        View::open_on(super::real(dir.as_ref())?, config)
    }

    /// [`open`](View::open) in a given file system.
    pub fn open_on(fs: Arc<dyn Fs>, config: Config) -> Result<View> {
        let (found, holder) = look(&fs, &config, &mut |_| {})?;
        let segments = segments(&found);
        let cache = BlockCache::new(config.index_cache_bytes);
        let reserve_bytes = reserve_bytes(&fs);
        let inner = Inner {
            found,
            cache,
            holder,
            segments,
            reserve_bytes,
        };
        Ok(View {
            inner: Arc::new(inner),
        })
    }

    /// The process that has the journal open for writing, as it described itself.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.inner.holder.as_deref()
    }

    /// Whether a writer had the journal open when the view was opened.
    #[must_use]
    pub fn live(&self) -> bool {
        self.inner.holder.is_some()
    }

    /// The journal's name.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        Uuid(self.inner.found.uuid)
    }

    /// The format version of its files.
    #[must_use]
    pub fn format(&self) -> u16 {
        VERSION
    }

    /// Whether it was closed, and nothing was written since.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.inner.found.clean && !self.live()
    }

    /// The logs, sorted.
    #[must_use]
    pub fn logs(&self) -> Vec<LogKey> {
        self.inner.found.logs.iter().map(|(key, _)| key).collect()
    }

    /// The log `key`; `NotFound` if there is none.
    pub fn log(&self, key: LogKey) -> Result<LogView> {
        let log = LogView {
            view: self.clone(),
            key,
        };
        log.state()?;
        Ok(log)
    }

    /// What is wrong: damage, unreadable and missing files, a torn end.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.inner.found.findings
    }

    /// The segments that the journal consists of, ascending.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.inner.segments.clone()
    }

    /// What the next open would report, but for what it would write.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.inner.found.report
    }

    /// Bytes of zeroed files that are kept ready: the reserve for a full disk among them.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.inner.reserve_bytes
    }
}

/// Reads the journal as somebody who does not hold it, and says who does.
pub(super) fn look(
    fs: &Arc<dyn Fs>,
    config: &Config,
    progress: &mut dyn FnMut(u64),
) -> Result<(Recovered, Option<String>)> {
    let holder = || match fs.holder(LOCK) {
        Ok(holder) => Ok(holder),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(fs.display(LOCK), "ask who holds the journal", e)),
    };
    let before = holder()?;
    let mode = Mode::View {
        live: before.is_some(),
    };
    let found = crate::journal::recover::recover_observed(fs, config, mode, progress);
    if before.is_some() {
        return Ok((found?, before));
    }
    // A writer that came meanwhile has written behind what was read, or removed it: look again as beside a writer.
    match holder()? {
        None => Ok((found?, None)),
        after => Ok((recover(fs, config, Mode::View { live: true })?, after)),
    }
}

fn segments(found: &Recovered) -> Vec<SegmentInfo> {
    let last = found.last.id;
    let shown = found
        .chain
        .iter()
        .filter(|segment| segment.id != last)
        .chain([&found.last]);
    shown
        .map(|segment| SegmentInfo {
            id: segment.id,
            path: segment.path.clone(),
            bytes: segment.file.len().unwrap_or(0),
            sealed: segment.id != last,
        })
        .collect()
}

fn reserve_bytes(fs: &Arc<dyn Fs>) -> u64 {
    let names = fs.list(JOURNAL_DIR).unwrap_or_default();
    let spares = names.iter().filter(|name| name.ends_with(SPARE));
    let len = |name: &String| fs.open(&format!("{JOURNAL_DIR}/{name}"), Access::Read)?.len();
    spares.filter_map(|name| len(name).ok()).sum()
}

/// One log of a [`View`]: the reading methods of [`Log`](crate::Log).
#[derive(Clone, Debug)]
pub struct LogView {
    view: View,
    key: LogKey,
}

impl LogView {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> LogKey {
        self.key
    }

    /// The entry's payload, verified. `Purged` before the first, `NotFound` beyond the last, `Damaged` if it is lost.
    pub fn get(&self, index: u64) -> Result<Bytes> {
        self.entry(index).map(|entry| entry.payload)
    }

    /// The entry at `index`, verified.
    pub fn entry(&self, index: u64) -> Result<Entry> {
        self.fetch(index, None)
    }

    /// The entries of `range`, in order, each verified. Ends at the first error.
    #[must_use]
    pub fn read(&self, range: Range<u64>) -> Entries {
        Entries {
            log: self.clone(),
            rest: range,
            ahead: ReadAhead::new(),
        }
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
        self.state().map(|state| state.start..state.end)
    }

    /// Id of the last entry; of the last purged one if the log is empty.
    pub fn last(&self) -> Result<Option<EntryId>> {
        self.state().map(LogState::last)
    }

    /// Id of the last purged entry.
    pub fn purged(&self) -> Result<Option<EntryId>> {
        self.state().map(|state| state.purged)
    }

    /// The runs of terms in `range`, clipped to the log.
    pub fn terms(&self, range: Range<u64>) -> Result<Vec<TermRun>> {
        let state = self.state()?;
        let clipped = range.start.max(state.start)..range.end.min(state.end);
        Ok(if clipped.start < clipped.end {
            state.terms(clipped)
        } else {
            Vec::new()
        })
    }

    /// Term of the entry at `index`, or of the last purged entry. `Purged` before that, `NotFound` beyond the end.
    pub fn term_at(&self, index: u64) -> Result<Term> {
        let state = self.state()?;
        state
            .term_at(index)
            .ok_or_else(|| outside(state, self.key, index))
    }

    /// The value of a cell; `None` if it was never set, `Damaged` if its value is lost.
    pub fn cell(&self, cell: u8) -> Result<Option<Bytes>> {
        let state = self.state()?;
        let Some(held) = state.cells.get(&cell) else {
            return Ok(None);
        };
        match (&held.value, &held.place) {
            (Some(value), _) => Ok(Some(value.clone())),
            (None, Some((segment, at))) => {
                read_cell(segment, *at, self.key, state.incarnation, cell).map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    /// The cells that were set.
    pub fn cells(&self) -> Result<Vec<u8>> {
        self.state().map(|state| state.cells.keys().copied().collect())
    }

    fn state(&self) -> Result<&LogState> {
        let logs = &self.view.inner.found.logs;
        logs.get(self.key)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no log {}", self.key)))
    }

    fn fetch(&self, index: u64, ahead: Option<&mut ReadAhead>) -> Result<Entry> {
        let state = self.state()?;
        let located = locate(state, self.key, index)?;
        fetch(
            located,
            self.key,
            state.incarnation,
            &self.view.inner.cache,
            ahead,
        )
    }
}

/// The entries of a range, in order; see [`LogView::read`].
#[derive(Debug)]
pub struct Entries {
    log: LogView,
    rest: Range<u64>,
    ahead: ReadAhead,
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let index = self.rest.next()?;
        let entry = self.log.fetch(index, Some(&mut self.ahead));
        if entry.is_err() {
            self.rest = 0..0;
        }
        Some(entry)
    }
}
