//! A long log is read by some threads, part by part, while it is applied in order.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, StateMachine};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Config, EntryId, ErrorKind, Journal, Result};

use super::support::A;

/// What it was given, in order: the index, and the length and the sum of the bytes of the command.
type Given = Vec<(u64, usize, u64)>;

#[derive(Default)]
struct Watched {
    given: Arc<Mutex<Given>>,
    fails_at: Option<u64>,
}

fn about(index: u64, command: &[u8]) -> (u64, usize, u64) {
    let sum = command.iter().map(|byte| u64::from(*byte)).sum();
    (index, command.len(), sum)
}

impl StateMachine for Watched {
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes {
        assert_ne!(self.fails_at, Some(id.index), "this machine cannot apply it");
        self.given.lock().unwrap().push(about(id.index, command));
        Bytes::new()
    }

    fn capture(&self) -> Capture {
        Capture::new(|_| Ok(()))
    }

    fn restore(&mut self, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }

    fn clear(&mut self) {}
}

fn config() -> Config {
    Config::new().segment_bytes(4 << 20).in_flight_bytes(1 << 20)
}

/// The commands of a life: small ones for the most part, some that fill a window by themselves, and a row of large ones, which one reader
/// alone may not hold all at a time.
fn command(number: u64) -> Vec<u8> {
    let len = match number {
        1000..1040 => 200_000,
        _ if number.is_multiple_of(97) => 70_000,
        _ => usize::try_from(number * 37 % 900).unwrap(),
    };
    vec![u8::try_from(number % 251).unwrap(); len]
}

const COUNT: u64 = 2600;

fn fill(dir: &Path) {
    let journal = Journal::create(dir, config()).unwrap();
    let engine = open(dir, &journal, Watched::default()).unwrap();
    for first in (0..COUNT).step_by(20) {
        engine.execute_batch((first..first + 20).map(command)).unwrap();
    }
    engine.close().unwrap();
    journal.close().unwrap();
}

fn open(dir: &Path, journal: &Journal, machine: Watched) -> Result<Engine<Watched>> {
    let store = Store::open(dir, StoreConfig::new()).unwrap();
    let config = EngineConfig::new().checkpoint_bytes(None);
    Engine::open(journal, A, &store, machine, config)
}

fn wanted(count: u64) -> Given {
    (0..count).map(|index| about(index, &command(index))).collect()
}

#[test]
fn every_entry_is_applied_once_and_in_order_whatever_its_size() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let journal = Journal::open(dir.path(), config()).unwrap();
    let given = Arc::default();
    let watched = Watched {
        given: Arc::clone(&given),
        fails_at: None,
    };
    let engine = open(dir.path(), &journal, watched).unwrap();
    assert_eq!(*given.lock().unwrap(), wanted(COUNT));
    let bytes: u64 = wanted(COUNT).iter().map(|(_, len, _)| *len as u64).sum();
    let report = engine.report();
    assert_eq!(report.replayed_entries, COUNT);
    assert!(report.replayed_bytes >= bytes, "with the head of each command");
}

/// Entries behind a damaged one may have been read by another thread, and are not applied.
#[test]
fn what_stands_before_a_damaged_entry_is_applied_and_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let bad = 1030;
    let path = spoil(dir.path(), &command(bad));
    let journal = Journal::open(dir.path(), config().verify_on_open(false)).unwrap();
    let given = Arc::default();
    let watched = Watched {
        given: Arc::clone(&given),
        fails_at: None,
    };
    let error = open(dir.path(), &journal, watched).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Damaged, Some(&*path)));
    assert_eq!(*given.lock().unwrap(), wanted(bad));
    let log = journal.log(A).unwrap();
    assert_eq!(
        log.get(bad - 1).unwrap().len(),
        200_000 + 1,
        "the log stays readable"
    );
}

/// Flips a bit in the middle of the only place that holds so many bytes of this command.
fn spoil(dir: &Path, command: &[u8]) -> PathBuf {
    let files = fs::read_dir(dir.join("journal")).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(command.len()).position(|window| window == command);
        if let Some(at) = at {
            let middle = at + command.len() / 2;
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[middle] ^ 1], middle as u64).unwrap();
            return path;
        }
    }
    panic!("no segment holds the command");
}

#[test]
fn a_machine_that_fails_leaves_no_reader_behind() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let journal = Journal::open(dir.path(), config()).unwrap();
    let given = Arc::default();
    let watched = Watched {
        given: Arc::clone(&given),
        fails_at: Some(700),
    };
    let error = open(dir.path(), &journal, watched).map(drop).unwrap_err();
    assert_eq!(
        (error.kind(), error.entry().map(|id| id.index)),
        (ErrorKind::ApplyFailed, Some(700))
    );
    assert_eq!(*given.lock().unwrap(), wanted(700));
    journal.close().unwrap();
    Journal::open(dir.path(), config()).expect("nobody holds the old one");
}
