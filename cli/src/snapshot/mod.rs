//! `snapshot`: the snapshots of a journal, looked at, checked, carried elsewhere, pinned and freed.

pub(crate) mod args;
mod carry;
mod gc;
mod list;
mod pin;
mod verify;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use everlog::snapshot::{Snapshot, SnapshotId, Store, StoreConfig};
use everlog::{Error, ErrorKind};
use serde::Serialize;

use crate::exit::{Exit, Failure, Outcome};
use crate::output::word;

use self::args::SnapshotCommand;

/// Runs the command.
pub(crate) fn run(command: &SnapshotCommand) -> Outcome {
    match command {
        SnapshotCommand::List(args) => list::run(args),
        SnapshotCommand::Verify(args) => verify::run(args),
        SnapshotCommand::Export(args) => carry::export(args),
        SnapshotCommand::Import(args) => carry::import(args),
        SnapshotCommand::Pin(args) => pin::pin(args),
        SnapshotCommand::Unpin(args) => pin::unpin(args),
        SnapshotCommand::Gc(args) => gc::run(args),
    }
}

/// A snapshot for a program.
#[derive(Serialize)]
pub(crate) struct Printed {
    snapshot: String,
    log: u64,
    /// `term.index`
    covers: String,
    bytes: u64,
    new_bytes: u64,
    chunks: u64,
    /// UTC
    created: String,
    origin: String,
    metadata_bytes: usize,
    /// Hexadecimal
    digest: Option<String>,
}

impl Printed {
    pub(crate) fn of(snapshot: &Snapshot) -> Printed {
        let hex = |digest: [u8; 32]| SnapshotId(digest).to_string();
        Printed {
            snapshot: snapshot.id.to_string(),
            log: snapshot.log.0,
            covers: snapshot.covers.to_string(),
            bytes: snapshot.bytes,
            new_bytes: snapshot.new_bytes,
            chunks: snapshot.chunks,
            created: date(snapshot.created_micros),
            origin: format!("{:?}", snapshot.origin),
            metadata_bytes: snapshot.metadata.len(),
            digest: snapshot.digest.map(hex),
        }
    }
}

/// Looks at the store of `dir` without changing it.
pub(crate) fn view(dir: &Path) -> Result<Store, Failure> {
    Store::view(dir).map_err(|e| refused(dir, e))
}

/// Opens the store of `dir`, which must be there, to change it.
fn open(dir: &Path) -> Result<Store, Failure> {
    view(dir)?;
    Store::open(dir, StoreConfig::new()).map_err(|e| refused(dir, e))
}

/// The failure that `error` of the store is for somebody who named `dir`.
pub(crate) fn refused(dir: &Path, error: Error) -> Failure {
    let kind = error.kind();
    let failure = match error.path() {
        Some(_) => Failure::from(error),
        None => Failure::of(kind, format!("{}: {error}", dir.display())),
    };
    match kind {
        ErrorKind::Damaged => failure.next(format!("everlog snapshot verify {}", word(dir))),
        ErrorKind::NotFound if dir.ends_with("snapshots") => failure.next(format!(
            "name the directory around it: everlog snapshot list {}",
            word(
                dir.parent()
                    .filter(|parent| *parent != Path::new(""))
                    .unwrap_or(Path::new("."))
            )
        )),
        _ => failure,
    }
}

/// The snapshot of `dir` whose name begins with `digits`.
pub(crate) fn choose(dir: &Path, store: &Store, digits: &str) -> Result<Snapshot, Failure> {
    let list = store.list().map_err(|e| refused(dir, e))?;
    let ids: Vec<SnapshotId> = list.iter().map(|snapshot| snapshot.id).collect();
    let id = choose_id(dir, &ids, digits)?;
    let found = list.into_iter().find(|snapshot| snapshot.id == id);
    found.ok_or_else(|| {
        Failure::new(
            Exit::CouldNotRun,
            format!("{}: has no snapshot {id}", dir.display()),
        )
    })
}

/// The only one of `ids` that begins with `digits`.
fn choose_id(dir: &Path, ids: &[SnapshotId], digits: &str) -> Result<SnapshotId, Failure> {
    let digits = digits.to_ascii_lowercase();
    if digits.len() < DIGITS_MIN || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!(
            "{digits:?} is no name of a snapshot: give at least {DIGITS_MIN} hexadecimal digits of it"
        ))
        .next(format!("everlog snapshot list {}", word(dir))));
    }
    let mut found: Vec<SnapshotId> = ids.to_vec();
    found.retain(|id| id.to_string().starts_with(&digits));
    found.sort();
    found.dedup();
    match found[..] {
        [id] => Ok(id),
        [] => Err(Failure::usage(format!(
            "{}: has no snapshot whose name begins with {digits}",
            dir.display()
        ))
        .next(format!("everlog snapshot list {}", word(dir)))),
        _ => {
            let names: Vec<String> = found.iter().map(SnapshotId::to_string).collect();
            Err(Failure::usage(format!(
                "{}: more than one snapshot begins with {digits}, give more digits: {}",
                dir.display(),
                names.join(", ")
            )))
        }
    }
}

/// The first digits of a name, which tell it from all others that anybody meets.
pub(crate) fn short(id: SnapshotId) -> String {
    id.to_string()[..SHOWN].to_owned()
}

/// A snapshot in a sentence.
pub(crate) fn described(snapshot: &Snapshot) -> String {
    format!(
        "snapshot {} (log {}, entry {}, {})",
        short(snapshot.id),
        snapshot.log,
        snapshot.covers,
        crate::output::bytes(snapshot.bytes)
    )
}

/// A moment, in microseconds since 1970, as UTC to the second.
fn date(micros: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_micros(micros));
    // Later than the year 9999 there are no dates.
    match time.filter(|_| micros < LAST_DATE) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => "never".into(),
    }
}

/// How long ago that was, in its two largest units.
fn ago(micros: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = Duration::from_secs(now.saturating_sub(Duration::from_micros(micros)).as_secs());
    let text = humantime::format_duration(age).to_string();
    let units: Vec<&str> = text.split(' ').take(2).collect();
    units.join(" ")
}

const DIGITS_MIN: usize = 4;
const SHOWN: usize = 12;
const LAST_DATE: u64 = 253_402_300_799_000_000;
