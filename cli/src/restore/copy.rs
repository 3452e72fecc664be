//! One log into a new journal: its snapshot, and the entries behind it.

use std::ops::Range;

use everlog::inspect::{LogView, View};
use everlog::snapshot::{Draft, Origin, Snapshot};
use everlog::{Entry, Error, ErrorKind, Log, LogKey, WriteBatch};

use super::{Restored, Restoring};
use crate::exit::{Exit, Failure};
use crate::journal;
use crate::progress::Progress;
use crate::snapshot::{described, refused};

/// Copies the log `key` with the newest of `snapshots` that verifies, or whole if there is none.
pub(super) fn copy(
    of: &Restoring<'_>,
    key: LogKey,
    snapshots: &[Snapshot],
    view: Option<&View>,
) -> Result<Restored, Failure> {
    let mut done = Restored::of(key);
    let snapshot = match snapshots {
        [] => None,
        some => Some(copy_newest(of, some, &mut done)?),
    };
    let log = match view.map(|view| view.log(key)) {
        None => None,
        Some(Err(e)) if e.kind() == ErrorKind::NotFound => None,
        Some(log) => Some(log.map_err(|e| journal::refused(of.dir, e))?),
    };
    if let (None, Some(log), [error, ..]) = (&snapshot, &log, of.unreadable)
        && log.purged().map_err(|e| journal::refused(of.dir, e))?.is_some()
    {
        let text = format!(
            "{}: the beginning of log {key} was purged, and the index of what may be its snapshot cannot be read: {error}",
            of.dir.display()
        );
        return Err(Failure::of(error.kind(), text));
    }
    let begun = begin(of, key, snapshot.as_ref(), log.as_ref())?;
    if let Some(log) = &log {
        cells(of, log, &mut done)?;
    }
    let range = match (&snapshot, &log) {
        _ if of.no_entries => None,
        (_, None) => None,
        (None, Some(log)) => Some(log.bounds().map_err(|e| journal::refused(of.dir, e))?),
        (Some(snapshot), Some(log)) => behind(of, snapshot, log, &mut done)?,
    };
    if let (Some(range), Some(log)) = (range, &log) {
        entries(of, log, range, &mut done)?;
    }
    done.last = begun.last().map_err(|e| journal::refused(of.target, e))?;
    done.snapshot = snapshot;
    Ok(done)
}

/// Copies the newest snapshot that can be read to its end; each chunk is verified as it is read.
fn copy_newest(of: &Restoring<'_>, snapshots: &[Snapshot], done: &mut Restored) -> Result<Snapshot, Failure> {
    for snapshot in snapshots {
        match copy_snapshot(of, snapshot) {
            Ok(()) => return Ok(snapshot.clone()),
            Err(NotCopied::Source(error)) => {
                let text = format!("{} does not verify: {error}", described(snapshot));
                done.findings.push(text);
            }
            Err(NotCopied::Target(error)) => return Err(refused(of.target, error)),
        }
    }
    let text = format!(
        "{}: none of the snapshots of log {} verifies: {}",
        of.dir.display(),
        done.key,
        done.findings.join("; ")
    );
    Err(Failure::new(Exit::Finding, text))
}

enum NotCopied {
    /// It cannot be read.
    Source(Error),
    /// It cannot be written.
    Target(Error),
}

fn copy_snapshot(of: &Restoring<'_>, snapshot: &Snapshot) -> Result<(), NotCopied> {
    let (Some(from), Some(to)) = (of.from, of.to) else {
        return Ok(());
    };
    let progress = Progress::bytes("restore snapshot", Some(snapshot.bytes));
    let mut reader = from.reader(snapshot.id).map_err(NotCopied::Source)?;
    // The log begins where it ends, so that it is one of the new journal's own.
    let origin = match snapshot.origin {
        Origin::Installed => Origin::OwnCheckpoint,
        other => other,
    };
    let mut draft = Draft::new(snapshot.log, snapshot.covers)
        .origin(origin)
        .metadata(snapshot.metadata.clone())
        .created_micros(snapshot.created_micros);
    if let Some(digest) = snapshot.digest {
        draft = draft.digest(digest);
    }
    let mut creation = to.create(draft).map_err(NotCopied::Target)?;
    let chunks: Vec<_> = reader.chunks().collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let bytes = reader.chunk(number).map_err(NotCopied::Source)?;
        creation
            .append_chunk(&chunk.name, &bytes)
            .map_err(NotCopied::Target)?;
        progress.set(chunk.at + bytes.len() as u64);
    }
    creation.commit().map(drop).map_err(NotCopied::Target)
}

/// Makes the log, with its next index where the copy goes on.
fn begin(
    of: &Restoring<'_>,
    key: LogKey,
    snapshot: Option<&Snapshot>,
    log: Option<&LogView>,
) -> Result<Log, Failure> {
    let from = |e| journal::refused(of.dir, e);
    let to = |e| journal::refused(of.target, e);
    let purged = match (snapshot, log) {
        (Some(snapshot), _) => Some(snapshot.covers),
        (None, Some(log)) => log.purged().map_err(from)?,
        (None, None) => None,
    };
    let first = match log {
        Some(log) if purged.is_none() => log.bounds().map_err(from)?.start,
        _ => 0,
    };
    let made = of.journal.create_log(key, first).map_err(to)?;
    if let Some(purged) = purged {
        made.reset(purged).map_err(to)?;
    }
    Ok(made)
}

/// The small values of the log; an engine keeps the entries that were skipped in one.
fn cells(of: &Restoring<'_>, log: &LogView, done: &mut Restored) -> Result<(), Failure> {
    let mut batch = WriteBatch::new();
    for cell in log.cells().map_err(|e| journal::refused(of.dir, e))? {
        match log.cell(cell) {
            Ok(Some(value)) => drop(batch.set(log.key(), cell, value)),
            Ok(None) => {}
            Err(e) if e.kind() == ErrorKind::Damaged => {
                done.findings
                    .push(format!("cell {cell} of log {} is lost: {e}", done.key));
            }
            Err(e) => return Err(journal::refused(of.dir, e)),
        }
    }
    match batch.is_empty() {
        true => Ok(()),
        false => of
            .journal
            .write(batch)
            .map(drop)
            .map_err(|e| journal::refused(of.target, e)),
    }
}

/// The entries behind the snapshot; `None` if the log does not go on from it.
fn behind(
    of: &Restoring<'_>,
    snapshot: &Snapshot,
    log: &LogView,
    done: &mut Restored,
) -> Result<Option<Range<u64>>, Failure> {
    let failed = |e| journal::refused(of.dir, e);
    let bounds = log.bounds().map_err(failed)?;
    let covers = snapshot.covers;
    if bounds.start > covers.index.saturating_add(1) {
        let text = format!(
            "{}: log {} begins at {}, and {} is the newest that can be used: what stood between them is gone; --no-entries restores the \
             snapshot alone",
            of.dir.display(),
            done.key,
            bounds.start,
            described(snapshot)
        );
        return Err(Failure::new(Exit::Finding, text));
    }
    match log.term_at(covers.index) {
        Ok(term) if term == covers.term => Ok(Some(covers.index + 1..bounds.end)),
        // The log begins right behind it, without a word on what went before.
        Err(e) if e.kind() == ErrorKind::Purged => Ok(Some(covers.index + 1..bounds.end)),
        Ok(term) => {
            let what = format!(
                "has term {term} at index {}, where the snapshot has {}",
                covers.index, covers.term
            );
            done.findings
                .push(format!("log {} {what}: no entry of it was copied", done.key));
            Ok(None)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let what = format!("ends at {}, before entry {covers} of the snapshot", bounds.end);
            done.findings.push(format!(
                "log {} {what}: it has lost its end, and none of it was copied",
                done.key
            ));
            Ok(None)
        }
        Err(e) => Err(failed(e)),
    }
}

/// Copies entries up to the end, or up to the first that is damaged: behind a gap none can be applied.
fn entries(of: &Restoring<'_>, log: &LogView, range: Range<u64>, done: &mut Restored) -> Result<(), Failure> {
    let progress = Progress::steps("restore entries", range.end.saturating_sub(range.start));
    let mut batch = WriteBatch::new();
    let mut next = range.start;
    for entry in log.read(range.clone()) {
        let Entry { id, payload, .. } = match entry {
            Ok(entry) => entry,
            Err(e) if e.kind() == ErrorKind::Damaged => {
                let left = range.end - next;
                done.findings.push(format!("entry {next} of log {} is damaged ({e}): it and what follows, {left} in all, were not copied", done.key));
                break;
            }
            Err(e) if [ErrorKind::Purged, ErrorKind::NotFound].contains(&e.kind()) => {
                return Err(journal::refused(of.dir, e)
                    .after("its owner changed the log while it was copied, so try again"));
            }
            Err(e) => return Err(journal::refused(of.dir, e)),
        };
        batch.append_at(log.key(), id, &payload);
        next = id.index + 1;
        done.entries += 1;
        if batch.len() >= BATCH_ENTRIES || batch.bytes() >= BATCH_BYTES {
            write(of, std::mem::take(&mut batch))?;
            progress.set(next - range.start);
        }
    }
    write(of, batch)
}

fn write(of: &Restoring<'_>, batch: WriteBatch) -> Result<(), Failure> {
    if batch.is_empty() {
        return Ok(());
    }
    // All of it is synced when the journal is closed, before it gets its name.
    let written = of.journal.write_relaxed(batch);
    written.map(drop).map_err(|e| journal::refused(of.target, e))
}

const BATCH_ENTRIES: usize = 1000;
const BATCH_BYTES: u64 = 4 << 20;
