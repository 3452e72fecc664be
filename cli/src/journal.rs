//! What every command needs of a journal: its settings, an opening that explains itself, and the choice of a log.

use std::fs;
use std::io;
use std::path::Path;

use everlog::inspect::{self, View};
use everlog::{Config, Error, ErrorKind, Journal, LogKey};

use crate::exit::Failure;
use crate::output::word;

/// The largest entry that any setting allows: a tool takes what an owner could have written.
pub(crate) const ENTRY_BYTES_MAX: u64 = 256 << 20;

/// The settings of every command but `drill`.
pub(crate) fn config() -> Config {
    Config::new().max_entry_bytes(ENTRY_BYTES_MAX)
}

/// Looks into the journal at `dir` without changing it, damaged or in use as it may be.
pub(crate) fn view(dir: &Path) -> Result<View, Failure> {
    View::open(dir, config()).map_err(|e| refused(dir, e))
}

/// Opens the journal at `dir` for writing, and makes one where nothing is in the way.
pub(crate) fn open_or_create(dir: &Path) -> Result<Journal, Failure> {
    match inspect::find(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(refused(dir, e)),
        Err(_) if !is_vacant(dir)? => {
            return Err(Failure::usage(format!(
                "{}: is no journal, and a new one is made only in a directory that is absent or empty",
                dir.display()
            )));
        }
        Ok(_) | Err(_) => {}
    }
    Journal::open_or_create(dir, config()).map_err(|e| refused(dir, e))
}

/// The failure that `error` is for somebody who named `dir`.
pub(crate) fn refused(dir: &Path, error: Error) -> Failure {
    let kind = error.kind();
    let failure = match error.path() {
        Some(_) => Failure::from(error),
        None => Failure::of(kind, format!("{}: {error}", dir.display())),
    };
    match kind {
        ErrorKind::Damaged => failure.next(format!("everlog verify {}", word(dir))),
        ErrorKind::Locked => failure.next(format!("everlog stat {}", word(dir))),
        _ => failure,
    }
}

/// The log that is meant: `wanted`, or the only one. `None` if there is none at all.
pub(crate) fn choose(dir: &Path, logs: &[LogKey], wanted: Option<u64>) -> Result<Option<LogKey>, Failure> {
    match (wanted, logs) {
        (Some(key), _) => Ok(Some(LogKey(key))),
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(*only)),
        (None, many) => Err(Failure::usage(format!(
            "{}: has {} logs, choose one with --log: {}",
            dir.display(),
            many.len(),
            listed(many)
        ))),
    }
}

/// The log that is meant, which must be there.
pub(crate) fn choose_existing(dir: &Path, logs: &[LogKey], wanted: Option<u64>) -> Result<LogKey, Failure> {
    let missing = match choose(dir, logs, wanted)? {
        Some(key) if logs.contains(&key) => return Ok(key),
        Some(key) => format!("log {key}"),
        None => "log".into(),
    };
    let has = match logs {
        [] => String::new(),
        logs => format!(", it has {}", listed(logs)),
    };
    Err(Failure::usage(format!(
        "{}: has no {missing}{has}",
        dir.display()
    )))
}

fn listed(logs: &[LogKey]) -> String {
    let keys: Vec<String> = logs.iter().map(LogKey::to_string).collect();
    keys.join(", ")
}

/// Whether a journal can be made at `dir`: nothing is there, or what a creation that was cut short leaves.
fn is_vacant(dir: &Path) -> Result<bool, Failure> {
    let names = match fs::read_dir(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(Failure::io(&format!("read the directory {}", dir.display()), &e)),
    };
    for name in names {
        let name = name.map_err(|e| Failure::io(&format!("read the directory {}", dir.display()), &e))?;
        if name.file_name() != "lock" && name.file_name() != "journal" {
            return Ok(false);
        }
    }
    Ok(true)
}
