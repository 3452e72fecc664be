//! A disk that is really full: tmpfs of a few MiB, and ext4 in a loop device.
//!
//! The journal fills it until it refuses; then a ballast file takes what is left, to the last byte. Nothing acknowledged may be lost,
//! whether the process closes or is killed; cells, truncate, purge and delete go on; a purge frees; appends go on when there is space
//! again; and the journal opens on the full disk.
//!
//! Opt-in, for it mounts: `EVERLOG_ROOT=1` and root, as scripts/full-disk does.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use everlog::inspect::{View, verify};
use everlog::{Config, ErrorKind, Journal, Log, LogKey, WriteBatch};
use mount::{Kind, Mount, free, is_allowed};

#[path = "support/mount.rs"]
mod mount;

const A: LogKey = LogKey(1);
const B: LogKey = LogKey(2);
const C: LogKey = LogKey(3);
/// The disks, from one with room for little more than the reserve on.
const DISKS: [(Kind, u64); 5] = [
    (Kind::Tmpfs, 2 << 20),
    (Kind::Tmpfs, 8 << 20),
    (Kind::Ext4, 8 << 20),
    (Kind::Ext4, 16 << 20),
    (Kind::Ext4, 32 << 20),
];

fn config() -> Config {
    Config::new().segment_bytes(256 << 10).in_flight_bytes(64 << 10)
}

fn entry(index: u64) -> Vec<u8> {
    let mut bytes = format!("entry {index} ").into_bytes();
    let len = 20 + usize::try_from(index * 7919 % 9000).unwrap();
    bytes.resize(len.max(bytes.len()), b'a' + u8::try_from(index % 26).unwrap());
    bytes
}

/// Appends until the disk refuses; where the log ends then. All but every eighth entry are relaxed.
fn fill(log: &Log) -> u64 {
    loop {
        let at = log.bounds().unwrap().end;
        let appended = if at.is_multiple_of(8) {
            log.append(entry(at))
        } else {
            log.append_relaxed(entry(at))
        };
        match appended {
            Ok(id) => assert_eq!(id.index, at),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert!(
                    error.to_string().contains("space") || error.to_string().contains("full"),
                    "{error}"
                );
                assert_eq!(log.bounds().unwrap().end, at, "a refused append has no index");
                return at;
            }
        }
    }
}

/// Every entry of the log is what was appended; where it begins and ends.
fn check(log: &Log) -> std::ops::Range<u64> {
    let bounds = log.bounds().unwrap();
    for (index, found) in bounds.clone().zip(log.read(bounds.clone())) {
        assert!(found.unwrap().payload[..] == entry(index), "entry {index}");
    }
    bounds
}

fn sound(dir: &Path) {
    let found = verify(dir, config(), &mut |_| {}).unwrap();
    assert!(found.findings.is_empty(), "{:#?}", found.findings);
}

/// Appends are refused in each manner, and have no effect.
fn refuses_appends(journal: &Journal, log: &Log) {
    let end = log.bounds().unwrap().end;
    for _ in 0..5 {
        for error in [
            log.append(entry(end)).unwrap_err(),
            log.append_relaxed(entry(end)).unwrap_err(),
            log.submit(entry(end)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        }
        let mut batch = WriteBatch::new();
        batch.append(A, entry(end)).set(A, 9, b"with an append");
        let refused = journal.try_submit(batch).unwrap_err();
        let kind = refused.error.kind();
        assert!(
            matches!(kind, ErrorKind::NoSpace | ErrorKind::Busy),
            "{}",
            refused.error
        );
    }
    assert_eq!(log.bounds().unwrap().end, end);
    assert_eq!(log.cell(9).unwrap(), None);
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else() {
    if !is_allowed() {
        return;
    }
    for (kind, bytes) in DISKS {
        println!("{kind:?} of {bytes} bytes");
        let mount = Mount::new(kind, bytes);
        let dir = mount.path().join("j");
        let journal = Journal::create(&dir, config()).unwrap();
        let [a, b, c] = [A, B, C].map(|key| journal.create_log(key, 0).unwrap());
        c.append(b"to be deleted").unwrap();
        let end = fill(&a);
        let ballast = mount.ballast();
        assert_eq!(free(&mount.path()), 0);
        refuses_appends(&journal, &a);
        assert_eq!(check(&a), 0..end, "reads go on");
        for vote in 0..50_u64 {
            b.set(0, vote.to_le_bytes()).unwrap();
        }
        a.truncate_from(end - 1).unwrap();
        journal.delete_log(C).unwrap();
        a.purge_to(end / 2).unwrap();
        journal.reclaim().unwrap();
        // Either the call frees, or the background does, which was told of the purge as well.
        let freed = journal.metrics().segments_freed;
        println!("  {end} entries; half of them purged freed {freed} segments");
        assert!(bytes < 4 << 20 || freed > 0 && free(&mount.path()) > 0);
        drop((b, c));
        // There is space again, whether from the purge or from others.
        fs::remove_file(&ballast).unwrap();
        a.append(entry(end - 1)).unwrap();
        let end = fill(&a);
        assert_eq!(check(&a), (end / 2).min(a.bounds().unwrap().start)..end);
        drop(a);
        journal.close().unwrap();
        sound(&dir);
        mount.ballast();
        reopens(&dir, end);
    }
}

/// Opens on the full disk, and does what must not be refused there.
fn reopens(dir: &Path, end: u64) {
    let journal = Journal::open(dir, config()).unwrap();
    assert_eq!(journal.logs(), [A, B]);
    let [a, b] = [A, B].map(|key| journal.log(key).unwrap());
    assert_eq!(check(&a).end, end);
    assert_eq!(b.cell(0).unwrap().unwrap()[..], 49_u64.to_le_bytes());
    b.set(0, b"again").unwrap();
    a.purge_to(end).unwrap();
    journal.reclaim().unwrap();
    drop((a, b));
    journal.close().unwrap();
    sound(dir);
}

#[test]
fn a_disk_that_fills_and_is_purged_again_and_again_loses_nothing() {
    if !is_allowed() {
        return;
    }
    for (kind, bytes) in [(Kind::Tmpfs, 4 << 20), (Kind::Ext4, 12 << 20)] {
        let mount = Mount::new(kind, bytes);
        let dir = mount.path().join("j");
        let mut journal = Journal::create(&dir, config()).unwrap();
        let mut log = journal.create_log(A, 0).unwrap();
        log.set(0, b"kept").unwrap();
        let mut before = 0;
        for round in 0..7 {
            let end = fill(&log);
            assert!(end > before, "{kind:?}, round {round}: a purge has freed nothing");
            before = end;
            if round % 3 == 1 {
                drop(log);
                journal.close().unwrap();
                journal = Journal::open(&dir, config()).unwrap();
                log = journal.log(A).unwrap();
            }
            assert_eq!(check(&log).end, end, "{kind:?}, round {round}");
            log.purge_to(end - 1).unwrap();
            journal.reclaim().unwrap();
            assert_eq!(log.cell(0).unwrap().as_deref(), Some(&b"kept"[..]));
        }
    }
}

/// A process of its own that fills the disk and then votes when it is asked to, until it is killed.
struct Voter {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

const CHILD: &str = "EVERLOG_FULL_DISK_CHILD";

impl Voter {
    fn start(dir: &Path) -> Voter {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_voter_fills_the_disk_and_votes", "--nocapture"])
            .env(CHILD, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Voter { child, lines }
    }

    /// Asks for one more vote; which one it was.
    fn vote(&mut self) -> u64 {
        let asked = self.child.stdin.as_mut().unwrap().write_all(b"\n");
        asked.unwrap();
        self.next("vote ")
    }

    /// The number behind the next line that begins with `word`.
    fn next(&mut self, word: &str) -> u64 {
        loop {
            let line = self.lines.next().expect("the child ended").unwrap();
            if let Some(number) = line.strip_prefix(word) {
                return number.trim().parse().unwrap();
            }
        }
    }
}

impl Drop for Voter {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Not a test of its own: what the killed process does.
#[test]
fn a_voter_fills_the_disk_and_votes() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let journal = Journal::open_or_create(&dir, config()).unwrap();
    let log = journal.open_or_create_log(A, 0).unwrap();
    println!("\nfull {}", fill(&log));
    for (vote, _asked) in (0_u64..).zip(std::io::stdin().lines()) {
        log.set(0, vote.to_le_bytes()).unwrap();
        println!("vote {vote}");
    }
}

#[test]
fn a_process_killed_on_a_full_disk_loses_nothing_and_opens_there() {
    if !is_allowed() {
        return;
    }
    for (kind, bytes) in [(Kind::Tmpfs, 4 << 20), (Kind::Ext4, 8 << 20)] {
        let mount = Mount::new(kind, bytes);
        let dir = mount.path().join("j");
        for round in 0..6 {
            let mut voter = Voter::start(&dir);
            let end = voter.next("full ");
            let ballast = mount.ballast();
            let vote = (0..=20 + 7 * round).map(|_| voter.vote()).last().unwrap();
            drop(voter);
            let journal = Journal::open(&dir, config()).unwrap();
            let log = journal.log(A).unwrap();
            let bounds = check(&log);
            // Relaxed entries that were given to the system survive a kill as well.
            assert_eq!(bounds.end, end, "{kind:?}, round {round}");
            let found = log.cell(0).unwrap().unwrap();
            let found = u64::from_le_bytes(found[..].try_into().unwrap());
            assert!(
                found >= vote,
                "{kind:?}, round {round}: vote {found}, and {vote} was acknowledged"
            );
            log.set(1, b"on a full disk").unwrap();
            log.truncate_from(end - 1).unwrap();
            log.purge_to(end - 1).unwrap();
            journal.reclaim().unwrap();
            drop(log);
            journal.close().unwrap();
            sound(&dir);
            fs::remove_file(ballast).unwrap();
        }
    }
}

#[test]
fn a_read_only_disk_is_told_and_can_be_looked_at() {
    if !is_allowed() {
        return;
    }
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let mount = Mount::new(kind, 8 << 20);
        let dir = mount.path().join("j");
        let journal = Journal::create(&dir, config()).unwrap();
        journal.create_log(A, 0).unwrap().append(entry(0)).unwrap();
        journal.close().unwrap();
        mount.remount("ro");
        for error in [
            Journal::open(&dir, config()).unwrap_err(),
            Journal::create(mount.path().join("new"), config()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            let said = error.to_string();
            let path = mount.path().display().to_string();
            assert!(said.contains("Read-only") && said.contains(&path), "{said}");
        }
        let view = View::open(&dir, config()).unwrap();
        assert!(
            view.clean() && view.findings().is_empty(),
            "{:?}",
            view.findings()
        );
        assert_eq!(view.log(A).unwrap().get(0).unwrap()[..], entry(0));
        sound(&dir);
        drop(view);
        mount.remount("rw");
        Journal::open(&dir, config()).unwrap().close().unwrap();
    }
}

/// There is not even room for the journal itself: `NoSpace`, and nothing in the way of the next attempt.
#[test]
fn a_journal_that_does_not_fit_is_created_once_it_does() {
    if !is_allowed() {
        return;
    }
    for bytes in [64 << 10, 200 << 10, 300 << 10, 600 << 10] {
        let mount = Mount::new(Kind::Tmpfs, bytes);
        let dir = mount.path().join("j");
        match Journal::create(&dir, config()) {
            Ok(journal) => {
                // It stands without its reserve: appends are refused until that is there.
                let log = journal.create_log(A, 0);
                assert!(bytes > 256 << 10, "{bytes}");
                if let Ok(log) = log {
                    assert_eq!(log.append(entry(0)).unwrap_err().kind(), ErrorKind::NoSpace);
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{bytes}: {error}"),
        }
        mount.remount("size=8m");
        let journal = Journal::open_or_create(&dir, config()).unwrap();
        let log = journal.open_or_create_log(A, 0).unwrap();
        log.append(entry(0)).unwrap();
        drop(log);
        journal.close().unwrap();
        sound(&dir);
    }
}
