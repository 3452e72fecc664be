//! A store of snapshots and the engine that wrote it, by format version 1, for ever: copied and opened, they must hold what they held then.
//!
//! A new set is written only with a new version of the format, into a directory of its own:
//! `cargo test --test golden_engine -- --ignored` writes `tests/golden/new`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, StateMachine, skip};
use everlog::snapshot::{Import, Origin, Snapshot, Store, StoreConfig};
use everlog::{Background, Config, EntryId, ErrorKind, Journal, LogKey};

const KEY: LogKey = LogKey(9);
const CLIENT: u64 = 5;
const OWNER: &str = "an upgrade";

/// Lists what it applied, and cannot apply "boom".
#[derive(Default)]
struct List(Vec<String>);

impl StateMachine for List {
    fn apply(&mut self, _: EntryId, command: &[u8]) -> Bytes {
        let command = String::from_utf8(command.to_vec()).expect("text");
        assert!(command != "boom", "this machine cannot apply it");
        self.0.push(command);
        self.0.len().to_string().into()
    }

    fn capture(&self) -> Capture {
        let all = self.0.join("\n");
        Capture::new(move |into| into.write_all(all.as_bytes()))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.0 = io::read_to_string(from)?.lines().map(str::to_owned).collect();
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn command(number: usize) -> String {
    format!("command {number} {}", "of many ".repeat(number % 11))
}

/// What is applied in all.
fn expected() -> Vec<String> {
    let mut all: Vec<String> = (0..40).map(command).collect();
    all.push("once".into());
    all.extend((40..70).map(command));
    all
}

fn open(dir: &Path) -> (Journal, Store, Engine<List>) {
    let config = Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .background(Background::Caller);
    let journal = Journal::open_or_create(dir, config).unwrap();
    let store = Store::open(dir, StoreConfig::new().chunk_bytes(64, 256, 1024)).unwrap();
    let engine = Engine::open(&journal, KEY, &store, List::default(), EngineConfig::new()).unwrap();
    (journal, store, engine)
}

fn execute(engine: &Engine<List>, numbers: std::ops::Range<usize>) {
    for number in numbers {
        engine.execute(command(number)).unwrap();
    }
}

/// Two snapshots that share chunks, one of them pinned, a client that is remembered, an entry that is skipped, and entries behind it all.
fn fill(dir: &Path) -> (Snapshot, Vec<u8>) {
    let (journal, store, engine) = open(dir);
    execute(&engine, 0..40);
    assert_eq!(engine.execute_once(CLIENT, 1, "once").unwrap(), "41");
    let first = engine.checkpoint().unwrap().snapshot.unwrap();
    store.pin_durably(first.id, OWNER, None).unwrap();
    execute(&engine, 40..60);
    let failed = engine.execute("boom").unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::ApplyFailed);
    drop(engine);
    skip(&journal, &store, KEY, failed.entry().unwrap()).unwrap();
    journal.close().unwrap();
    drop(store);
    let (journal, store, engine) = open(dir);
    let second = engine.checkpoint().unwrap().snapshot.unwrap();
    execute(&engine, 60..70);
    let mut export = Vec::new();
    store.export(second.id, &mut export, &mut |_, _| {}).unwrap();
    engine.close().unwrap();
    journal.close().unwrap();
    (second, export)
}

fn golden(set: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(set)
}

fn copy(from: &Path, to: &Path) {
    for part in ["journal", "snapshots"] {
        fs::create_dir_all(to.join(part)).unwrap();
        for file in fs::read_dir(from.join(part)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e != "tmp" && e != "spare") {
                fs::copy(&path, to.join(part).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
}

#[test]
fn an_engine_of_version_1_opens_for_ever() {
    let root = tempfile::tempdir().unwrap();
    copy(&golden("v1/engine"), root.path());
    let view = Store::view(root.path()).unwrap();
    let covered: Vec<u64> = view.list().unwrap().iter().map(|one| one.covers.index).collect();
    assert_eq!(covered, [61, 40], "the newest first");
    let verified = view.verify_all().unwrap();
    assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    let pins = view.pins().unwrap();
    assert_eq!(
        pins.iter().map(|pin| pin.owner.as_deref()).collect::<Vec<_>>(),
        [Some(OWNER)]
    );
    drop(view);

    let (journal, store, engine) = open(root.path());
    let report = engine.report();
    assert_eq!(report.snapshot.as_ref().unwrap().covers.index, 61);
    assert_eq!(report.skipped.iter().map(|id| id.index).collect::<Vec<_>>(), [61]);
    assert_eq!((report.replayed_entries, report.refused.len()), (10, 0));
    assert!(engine.read(|list| list.0 == expected()).unwrap());
    assert_eq!(
        engine.execute_once(CLIENT, 1, "once").unwrap(),
        "41",
        "it was remembered"
    );
    assert_eq!(engine.execute("and on it goes").unwrap(), "72");
    engine.checkpoint().unwrap();
    engine.close().unwrap();
    journal.close().unwrap();
    drop(store);

    let (_journal, store, engine) = open(root.path());
    assert_eq!(engine.read(|list| list.0.len()).unwrap(), 72);
    assert_eq!(store.list().unwrap().len(), 3, "the pinned one stays");
}

#[test]
fn an_export_of_version_1_is_taken_in_for_ever() {
    let bytes = fs::read(golden("v1/engine.export")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreConfig::new()).unwrap();
    let import = Import::open(&bytes[..], "engine.export").unwrap();
    let exported = import.snapshot();
    let taken = import
        .into_store(&store, Origin::Installed, &mut |_, _| {})
        .unwrap()
        .snapshot;
    assert_eq!((taken.id, taken.covers.index), (exported.id, 61));
    let mut state = Vec::new();
    store.reader(taken.id).unwrap().read_to_end(&mut state).unwrap();
    let machine = expected()[..61].join("\n");
    assert!(state.starts_with(machine.as_bytes()));
}

#[test]
#[ignore = "writes a set of golden files, for a new version of the format: run it by name"]
fn write_golden_engine() {
    let root = tempfile::tempdir().unwrap();
    let (_, export) = fill(root.path());
    copy(root.path(), &golden("new/engine"));
    fs::write(golden("new/engine.export"), export).unwrap();
}
