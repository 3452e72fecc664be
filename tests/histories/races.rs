//! Calls that something overtakes: what was true when they were made is not when their turn comes.

use std::sync::Arc;
use std::thread;

use everlog::fs::{Fault, FaultFs, Fs, Gate, Op, Rule, SimFs};
use everlog::{Config, ErrorKind, Journal, Log, LogKey};

use super::support::{A, B, disk, entry, keep_all, open, payloads, segments, small};

fn faulty(seed: u64, config: Config) -> (SimFs, FaultFs, Journal, Log) {
    let disk = disk(seed);
    let faults = FaultFs::new(Arc::new(disk.clone()));
    let journal = Journal::create_on(Arc::new(faults.clone()), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    (disk, faults, journal, log)
}

/// A handle belongs to the log it was made for. Its append waits for a file; meanwhile the log is deleted and another one is
/// created under the key: the entry must not land there.
#[test]
fn an_append_that_waited_does_not_land_in_the_next_log_of_its_key() {
    let (disk, faults, journal, log) = faulty(1, small());
    let gate = Gate::default();
    faults.add(Rule::on(Op::Create, Fault::Delay(gate.clone())).path(".tmp"));
    let appending = thread::spawn(move || {
        (0..100)
            .map(|i| log.append(entry(i, 900)))
            .find_map(Result::err)
            .map(|error| error.kind())
    });
    gate.wait_for_arrivals(1);
    journal.delete_log(A).unwrap();
    let next = journal.create_log(A, 0).unwrap();
    gate.release();
    assert_eq!(appending.join().unwrap(), Some(ErrorKind::NotFound));
    assert_eq!(next.bounds().unwrap(), 0..0);
    let again = open(&keep_all(&disk), "after all");
    assert_eq!(again.log(A).unwrap().bounds().unwrap(), 0..0);
}

/// The same for everything else that a handle does, and for a batch that its owner built by key: that one means whatever log has
/// the key.
#[test]
fn a_handle_of_a_deleted_log_does_nothing_to_the_next_one() {
    let (_disk, _faults, journal, old) = faulty(2, small());
    journal.delete_log(A).unwrap();
    let next = journal.create_log(A, 0).unwrap();
    next.append(b"its own").unwrap();
    let refused = [
        old.append(b"x").map(drop),
        old.append_relaxed(b"x").map(drop),
        old.submit(b"x").map(drop),
        old.set(0, b"x"),
        old.set_relaxed(0, b"x"),
        old.truncate_from(0),
        old.purge_to(1),
        old.reset(everlog::EntryId::new(3, 3)),
    ];
    for (n, refused) in refused.into_iter().enumerate() {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound, "call {n}");
    }
    assert_eq!(next.bounds().unwrap(), 0..1);
    let mut batch = everlog::WriteBatch::new();
    batch.append(A, b"by key");
    journal.write(batch).unwrap();
    assert_eq!(next.bounds().unwrap(), 0..2);
}

/// A relaxed append that waits for room, and learns that what holds the room cannot be synced, was never given a place: it is
/// `Closed`, not `Unknown`.
#[test]
fn an_append_that_waited_for_room_in_vain_was_never_there() {
    let (disk, faults, journal, log) = faulty(3, small());
    faults.add(
        Rule::on(Op::SyncData, Fault::io_error())
            .path("journal/")
            .forever(),
    );
    for i in 0..3 {
        log.append_relaxed(entry(i, 900)).unwrap();
    }
    let error = log.append_relaxed(entry(3, 900)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert_eq!(log.bounds().unwrap(), 0..3);
    drop((log, journal));
    faults.clear();
    let found = payloads(&open(&keep_all(&disk), "after all").log(A).unwrap());
    assert!(found.len() <= 3);
}

/// A reclaim has chosen what to say again, and has said a part of it, when a log goes: nothing is to be said of that one.
#[test]
fn a_reclaim_goes_on_when_a_log_goes() {
    let (disk, faults, journal, log) = faulty(4, small());
    for key in 2..60 {
        journal.create_log(LogKey(key), 0).unwrap();
    }
    let mut count = 0;
    while segments(&disk).len() < 12 {
        log.append(entry(count, 900)).unwrap();
        count += 1;
    }
    log.purge_to(count).unwrap();
    let gate = Gate::default();
    faults.add(Rule::on(Op::Write, Fault::Delay(gate.clone())).path("journal/"));
    let reclaiming = {
        let journal = journal.clone();
        thread::spawn(move || journal.reclaim())
    };
    gate.wait_for_arrivals(1);
    // The first segment states about 23 logs, and a batch says 17 of them again.
    let gone = LogKey(22);
    let deleting = {
        let journal = journal.clone();
        thread::spawn(move || journal.delete_log(gone))
    };
    while journal.logs().contains(&gone) {
        thread::yield_now();
    }
    gate.release();
    deleting.join().unwrap().unwrap();
    assert!(reclaiming.join().unwrap().unwrap().segments > 0);
    assert!(journal.reclaim().unwrap().segments < 12);
    drop(log);
    let again = open(&keep_all(&disk), "after all");
    assert_eq!(again.logs().len(), 58);
    assert!(again.logs().contains(&B) && !again.logs().contains(&gone));
}

/// Many writes that may use the reserve need files at once: whoever finds that another has made the missing one takes it. The disk has
/// room; nobody is told `NoSpace`.
#[test]
fn a_file_that_another_thread_made_is_no_full_disk() {
    for round in 0..200 {
        let (_disk, faults, journal, log) = faulty(round, small());
        let gate = Gate::default();
        faults.add(Rule::on(Op::Create, Fault::Delay(gate.clone())).path(".tmp"));
        let setting: Vec<_> = (0..6)
            .map(|cell| {
                let log = log.clone();
                thread::spawn(move || (0..12).try_for_each(|n| log.set(cell, vec![n; 3000])))
            })
            .collect();
        gate.wait_for_arrivals(1);
        gate.release();
        for thread in setting {
            thread
                .join()
                .unwrap()
                .unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
        drop((log, journal));
    }
}

/// The preparer gives a spare the next segment's name: while the disk does that, the file is not missing. On a full disk a vote, which
/// may use the reserve, would be refused.
#[test]
fn a_file_that_is_being_named_is_there() {
    let disk = disk(5);
    let (journal, log) = super::support::one_log(&disk);
    disk.set_capacity(super::support::usage(&disk).0);
    // Until nothing but the reserve is left.
    while log.append(entry(0, 900)).is_ok() {}
    drop((journal, log));
    let faults = FaultFs::new(Arc::new(disk.clone()));
    let journal = Journal::open_on(Arc::new(faults.clone()), small()).unwrap();
    let gate = Gate::default();
    let naming = faults.add(Rule::on(Op::Rename, Fault::Delay(gate.clone())).path(".seg"));
    let working = {
        let journal = journal.clone();
        thread::spawn(move || drop(journal.work()))
    };
    gate.wait_for_arrivals(1);
    let mut batch = everlog::WriteBatch::new();
    batch.set(A, 0, b"vote");
    let ticket = journal.try_submit(batch);
    gate.release();
    working.join().unwrap();
    ticket.map_err(|refused| refused.error).unwrap().wait().unwrap();
    assert_eq!(naming.fired(), 1);
}

/// `open` sees a journal and waits for the lock; when it has the lock there is none, because whoever was creating it failed and took
/// it back, or its disk was unmounted. Nothing must be made in its place.
#[test]
fn an_open_makes_no_journal_where_one_went_while_it_waited_for_the_lock() {
    let (disk, faults, journal, log) = faulty(7, small());
    drop((log, journal));
    let gate = Gate::default();
    faults.add(Rule::on(Op::Lock, Fault::Delay(gate.clone())));
    let opening = thread::spawn(move || Journal::open_on(Arc::new(faults), small()).map(drop));
    gate.wait_for_arrivals(1);
    for path in disk.files().into_keys().filter(|path| path.ends_with(".seg")) {
        disk.remove(&path).unwrap();
    }
    gate.release();
    let opened = opening.join().unwrap().map_err(|error| error.kind());
    assert_eq!(opened, Err(ErrorKind::NotFound));
    assert_eq!(segments(&disk), [""; 0]);
}

/// The directory of an open journal is moved away, and another journal is made where it was. The first one goes on in its own
/// directory: it must not name, zero or remove files of the second, which by their names could be its own.
#[test]
fn a_journal_whose_directory_was_moved_leaves_the_one_in_its_place_alone() {
    let parent = tempfile::tempdir().unwrap();
    let (place, moved) = (parent.path().join("journal"), parent.path().join("moved"));
    let fill = |journal: &Journal, from: u64, to: u64| {
        let log = journal.log(A).unwrap();
        for index in from..to {
            log.append(entry(index, 700)).unwrap();
            while journal.work().unwrap() {}
        }
    };
    let one = Journal::create(&place, small()).unwrap();
    one.create_log(A, 0).unwrap();
    fill(&one, 0, 20);
    std::fs::rename(&place, &moved).unwrap();
    let other = Journal::create(&place, small()).unwrap();
    other.create_log(A, 0).unwrap();
    fill(&other, 0, 20);

    fill(&one, 20, 30);
    one.log(A).unwrap().purge_to(25).unwrap();
    assert!(one.reclaim().unwrap().segments > 0);
    fill(&one, 30, 40);
    drop(one);
    fill(&other, 20, 30);
    drop(other);

    for (dir, bounds) in [(&place, 0..30), (&moved, 25..40)] {
        let journal = Journal::open(dir, small()).unwrap();
        let log = journal.log(A).unwrap();
        assert_eq!(log.bounds().unwrap(), bounds, "{}", dir.display());
        let whole: Vec<_> = bounds.map(|index| entry(index, 700)).collect();
        assert_eq!(payloads(&log), whole, "{}", dir.display());
    }
}
