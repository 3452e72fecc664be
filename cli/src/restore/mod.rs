//! `restore`: a new journal out of another one's snapshots and the entries behind them.
//!
//! Each log begins with the newest snapshot of it that verifies, or the one that was named, and goes on with the entries that follow, up to
//! the end, so that an engine finds what it would find in the old directory. A log that never had a snapshot is copied as it is. The old
//! directory is only read. What is damaged there ends the copy of its log, and is a finding.

mod copy;
mod target;

use std::collections::BTreeSet;
use std::path::Path;

use everlog::inspect::{self, View};
use everlog::snapshot::{Snapshot, Store, StoreConfig};
use everlog::{Config, EntryId, Error, ErrorKind, Journal, LogKey};
use serde::Serialize;

use crate::exit::{Exit, Failure, Outcome};
use crate::journal;
use crate::output::{self, Output, word};
use crate::snapshot::args::RestoreArgs;
use crate::snapshot::{choose, described, refused};

use self::target::Target;

/// What a log is copied from, and into.
struct Restoring<'a> {
    dir: &'a Path,
    target: &'a Path,
    journal: &'a Journal,
    /// The stores of both sides, if there are snapshots.
    from: Option<&'a Store>,
    to: Option<&'a Store>,
    no_entries: bool,
    unreadable: &'a [Error],
}

/// A log that was copied.
struct Restored {
    key: LogKey,
    snapshot: Option<Snapshot>,
    entries: u64,
    last: Option<EntryId>,
    findings: Vec<String>,
}

impl Restored {
    fn of(key: LogKey) -> Restored {
        Restored {
            key,
            snapshot: None,
            entries: 0,
            last: None,
            findings: Vec::new(),
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &RestoreArgs) -> Outcome {
    let source = Source::look(args)?;
    let target = Target::claim(&args.target)?;
    let (restored, uuid) = fill(args, &source, target.work())?;
    target.finish()?;
    print(args, &restored, &source.unreadable, &uuid)
}

/// What is restored.
struct Source {
    /// `None` if only snapshots are left.
    view: Option<View>,
    store: Option<Store>,
    /// The newest first.
    snapshots: Vec<Snapshot>,
    /// Indexes that cannot be read: whose snapshots they are is not known.
    unreadable: Vec<Error>,
}

impl Source {
    fn look(args: &RestoreArgs) -> Result<Source, Failure> {
        let dir = &args.dir;
        let store = match Store::view(dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            store => Some(store.map_err(|e| refused(dir, e))?),
        };
        let mut snapshots = match &store {
            Some(store) => store.list().map_err(|e| refused(dir, e))?,
            None => Vec::new(),
        };
        let view = match inspect::find(dir) {
            Err(e) if e.kind() == ErrorKind::NotFound && !snapshots.is_empty() => None,
            found => {
                found.map_err(|e| journal::refused(dir, e))?;
                Some(journal::view(dir)?)
            }
        };
        if let Some(digits) = &args.snapshot {
            let Some(store) = &store else {
                return Err(Failure::usage(format!("{}: has no snapshots", dir.display())));
            };
            let chosen = choose(dir, store, digits)?;
            snapshots.retain(|snapshot| snapshot.log != chosen.log || snapshot.id == chosen.id);
        }
        let unreadable = store
            .iter()
            .flat_map(Store::damage)
            .map(|damage| damage.error)
            .collect();
        Ok(Source {
            view,
            store,
            snapshots,
            unreadable,
        })
    }

    /// Segments of the new journal are as large as the old one's, but for those of large entries.
    fn config(&self) -> Config {
        let segments = self.view.iter().flat_map(View::segments);
        let smallest = segments.map(|segment| segment.bytes).min();
        match smallest.filter(|bytes| bytes.is_multiple_of(4096) && *bytes < LARGE_BYTES) {
            Some(bytes) => journal::config().segment_bytes(bytes),
            None => journal::config(),
        }
    }

    fn logs(&self) -> BTreeSet<LogKey> {
        let of_journal = self.view.iter().flat_map(View::logs);
        of_journal
            .chain(self.snapshots.iter().map(|snapshot| snapshot.log))
            .collect()
    }
}

/// Writes everything into `work`, and closes it. Returns the logs, and the name of the new journal.
fn fill(args: &RestoreArgs, source: &Source, work: &Path) -> Result<(Vec<Restored>, String), Failure> {
    let failed = |e| journal::refused(&args.target, e);
    let journal = Journal::create(work, source.config()).map_err(failed)?;
    let to = match source.snapshots.is_empty() {
        true => None,
        false => Some(Store::open(work, StoreConfig::new()).map_err(|e| refused(&args.target, e))?),
    };
    let of = Restoring {
        dir: &args.dir,
        target: &args.target,
        journal: &journal,
        from: source.store.as_ref(),
        to: to.as_ref(),
        no_entries: args.no_entries,
        unreadable: &source.unreadable,
    };
    let mut restored = Vec::new();
    for key in source.logs() {
        let snapshots = source.snapshots.iter().filter(|snapshot| snapshot.log == key);
        let snapshots: Vec<Snapshot> = snapshots.cloned().collect();
        restored.push(copy::copy(&of, key, &snapshots, source.view.as_ref())?);
    }
    let uuid = journal.uuid().to_string();
    journal.close().map_err(failed)?;
    Ok((restored, uuid))
}

#[derive(Serialize)]
struct Printed {
    log: u64,
    snapshot: Option<String>,
    /// `term.index`
    covers: Option<String>,
    entries: u64,
    /// `term.index`
    last: Option<String>,
    findings: Vec<String>,
}

#[derive(Serialize)]
struct Summary {
    dir: String,
    uuid: String,
    logs: usize,
    entries: u64,
    findings: usize,
    unreadable: Vec<String>,
}

fn print(args: &RestoreArgs, restored: &[Restored], unreadable: &[Error], uuid: &str) -> Outcome {
    let mut out = Output::new();
    let of_logs: usize = restored.iter().map(|log| log.findings.len()).sum();
    let findings = of_logs + unreadable.len();
    for error in unreadable.iter().filter(|_| !args.format.json) {
        out.line(format!(
            "damaged: an index of a snapshot cannot be read, and was passed over: {error}"
        ))?;
    }
    for log in restored {
        if args.format.json {
            out.json(&Printed {
                log: log.key.0,
                snapshot: log.snapshot.as_ref().map(|snapshot| snapshot.id.to_string()),
                covers: log.snapshot.as_ref().map(|snapshot| snapshot.covers.to_string()),
                entries: log.entries,
                last: log.last.as_ref().map(EntryId::to_string),
                findings: log.findings.clone(),
            })?;
            continue;
        }
        log.findings
            .iter()
            .try_for_each(|finding| out.line(format!("damaged: {finding}")))?;
        let entries = output::counted(log.entries, "entry", "entries");
        let last = log
            .last
            .map_or("it has none yet".into(), |last| format!("the last is {last}"));
        let text = match &log.snapshot {
            Some(snapshot) => format!(
                "log {}: {}, and {entries} behind it, {last}",
                log.key,
                described(snapshot)
            ),
            None => format!("log {}: no snapshot, {entries}, {last}", log.key),
        };
        out.line(text)?;
    }
    if args.format.json {
        out.json(&Summary {
            dir: args.target.display().to_string(),
            uuid: uuid.to_owned(),
            logs: restored.len(),
            entries: restored.iter().map(|log| log.entries).sum(),
            findings,
            unreadable: unreadable.iter().map(ToString::to_string).collect(),
        })?;
    } else {
        let how = match findings {
            0 => "restored",
            _ => "restored as far as it goes, with the damage named above",
        };
        let next = format!("everlog verify {}", word(&args.target));
        out.line(format!(
            "{}: {how}, journal {uuid}; next: {next}",
            args.target.display()
        ))?;
    }
    out.flush()?;
    Ok(if findings == 0 { Exit::Fine } else { Exit::Finding })
}

/// Segments of this size, and larger ones, are those of the default settings.
const LARGE_BYTES: u64 = 64 << 20;
