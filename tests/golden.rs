//! Journals that format version 1 wrote once, for ever: each is copied and opened, and must hold what it held then.
//!
//! A new set is written only with a new version of the format, into a directory of its own:
//! `cargo test --test golden -- --ignored` writes `tests/golden/new`.

use std::fs;
use std::path::{Path, PathBuf};

use everlog::inspect::{self, View};
use everlog::{Alignment, Background, Config, EntryId, Journal, LogKey, Term, TermRun, Verdict, WriteBatch};

const RAFT: LogKey = LogKey(7);
const PLAIN: LogKey = LogKey(u64::MAX);
const AGAIN: LogKey = LogKey(3);

fn config(alignment: Alignment) -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .alignment(alignment)
        .background(Background::Caller)
}

fn payload(index: u64) -> Vec<u8> {
    let len = usize::try_from(index * 37 % 1500).unwrap();
    (0..len)
        .map(|i| u8::try_from((i as u64 * 31 + index) % 251).unwrap())
        .collect()
}

/// A term as openraft has it: a number and a node.
fn term(index: u64) -> u128 {
    (u128::from(index / 10) << 64) + 3
}

/// Everything that format version 1 can say, over several segments.
fn fill(journal: &Journal) {
    let raft = journal.create_log(RAFT, 1).unwrap();
    let plain = journal.create_log(PLAIN, 0).unwrap();
    let doomed = journal.create_log(AGAIN, 0).unwrap();
    doomed.append(b"of the first incarnation").unwrap();
    for index in 1..=30 {
        raft.append_at(EntryId::new(term(index), index), payload(index))
            .unwrap();
        plain.append(payload(index)).unwrap();
        raft.set(0, format!("vote {index}")).unwrap();
    }
    raft.set(255, b"").unwrap();
    raft.truncate_from(28).unwrap();
    raft.append_at(EntryId::new(term(100), 28), payload(128)).unwrap();
    raft.purge_through(EntryId::new(term(12), 12)).unwrap();
    journal.delete_log(AGAIN).unwrap();
    journal
        .create_log(AGAIN, 5)
        .unwrap()
        .append(b"of the second")
        .unwrap();
    plain.purge_to(20).unwrap();
    while journal.work().unwrap() {}
    journal.reclaim().unwrap();
    let mut batch = WriteBatch::new();
    batch
        .append(PLAIN, b"across")
        .append(AGAIN, b"logs")
        .set(PLAIN, 1, b"one");
    journal.write(batch).unwrap();
}

/// What [`fill`] leaves.
fn check(journal: &Journal, name: &str) {
    assert_eq!(journal.logs(), [AGAIN, RAFT, PLAIN], "{name}");
    let raft = journal.log(RAFT).unwrap();
    assert_eq!(raft.bounds().unwrap(), 13..29, "{name}");
    assert_eq!(raft.purged().unwrap(), Some(EntryId::new(term(12), 12)), "{name}");
    assert_eq!(raft.last().unwrap(), Some(EntryId::new(term(100), 28)), "{name}");
    let runs = [(13, 10), (20, 20), (28, 100)].map(|(first, at)| TermRun {
        first,
        term: Term(term(at)),
    });
    assert_eq!(raft.terms(0..99).unwrap(), runs, "{name}");
    for entry in raft.read(13..28) {
        let entry = entry.unwrap();
        assert_eq!(entry.payload, payload(entry.id.index), "{name} {}", entry.id);
        assert_eq!(entry.id.term, Term(term(entry.id.index)), "{name} {}", entry.id);
    }
    assert_eq!(raft.get(28).unwrap(), payload(128), "{name}");
    assert_eq!(raft.cells().unwrap(), [0, 255], "{name}");
    assert_eq!(raft.cell(0).unwrap().unwrap(), "vote 30", "{name}");
    let plain = journal.log(PLAIN).unwrap();
    assert_eq!(plain.bounds().unwrap(), 20..31, "{name}");
    assert_eq!(plain.get(20).unwrap(), payload(21), "{name}");
    assert_eq!(plain.get(30).unwrap(), "across", "{name}");
    assert_eq!(plain.cell(1).unwrap().unwrap(), "one", "{name}");
    let again = journal.log(AGAIN).unwrap();
    assert_eq!(again.bounds().unwrap(), 5..7, "{name}");
    assert_eq!(again.get(5).unwrap(), "of the second", "{name}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("journal")).unwrap();
    for file in fs::read_dir(from.join("journal")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "seg" || e == "idx") {
            fs::copy(&path, to.join("journal").join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn golden(set: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(set)
        .join(name)
}

/// The file as it was closed, without its indexes, and beside a copy of a process that was killed.
#[test]
fn journals_of_version_1_open_for_ever() {
    for (name, verdict) in [
        ("closed", Verdict::Clean),
        ("blocks", Verdict::Clean),
        ("killed", Verdict::Unclean),
    ] {
        for indexed in [true, false] {
            let root = tempfile::tempdir().unwrap();
            copy(&golden("v1", name), root.path());
            if !indexed {
                for file in fs::read_dir(root.path().join("journal")).unwrap() {
                    let path = file.unwrap().path();
                    if path.extension().is_some_and(|e| e == "idx") {
                        fs::remove_file(path).unwrap();
                    }
                }
            }
            let view = View::open(root.path(), Config::new()).unwrap();
            assert_eq!(view.clean(), verdict == Verdict::Clean, "{name}");
            let found = inspect::verify(root.path(), Config::new(), &mut |_| {}).unwrap();
            assert!(found.findings.is_empty(), "{name}: {:?}", found.findings);
            let journal = Journal::open(root.path(), config(Alignment::Bytes8)).unwrap();
            assert_eq!(journal.report().verdict, verdict, "{name}");
            check(&journal, name);
            journal.log(PLAIN).unwrap().append(b"and on it goes").unwrap();
            journal.close().unwrap();
            let journal = Journal::open(root.path(), config(Alignment::Bytes4096)).unwrap();
            assert_eq!(
                journal.log(PLAIN).unwrap().get(31).unwrap(),
                "and on it goes",
                "{name}"
            );
        }
    }
}

#[test]
#[ignore = "writes a set of golden files, for a new version of the format: run it by name"]
fn write_golden_journals() {
    for (name, alignment) in [
        ("closed", Alignment::Bytes8),
        ("blocks", Alignment::Bytes4096),
        ("killed", Alignment::Bytes8),
    ] {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::create(root.path(), config(alignment)).unwrap();
        fill(&journal);
        check(&journal, name);
        if name == "killed" {
            copy(root.path(), &golden("new", name));
        }
        journal.close().unwrap();
        if name != "killed" {
            copy(root.path(), &golden("new", name));
        }
    }
}
