//! Files that stand ready before anybody needs them: their names, their lengths, and what becomes of them in the next life.

use std::sync::Arc;

use everlog::Journal;
use everlog::fs::{Atom, Fault, FaultFs, Fs, Op, Rule, SimFs};

use super::support::{
    A, copy_of, disk, entry, fill_with, keep_all, keep_synced, lose, one_log, open, payloads, segments,
    small, usage,
};

/// "`open`: everything that it found is durable": the directory of a journal that another program put there, and did not
/// sync, stays once the journal is open.
#[test]
fn a_journal_that_was_copied_here_stays_once_it_is_open() {
    let origin = disk(1);
    let (journal, log) = one_log(&origin);
    for i in 0..10 {
        log.append(entry(i, 900)).unwrap();
    }
    let copy = copy_of(&origin, false);
    drop((log, journal));
    let journal = open(&copy, "copied");
    for seed in 0..20 {
        let again = open(&copy.crash(seed), &format!("seed {seed}"));
        assert_eq!(payloads(&again.log(A).unwrap()).len(), 10, "seed {seed}");
    }
    drop(journal);
}

/// The reserve stands as soon as the journal does: its files keep their names through a power cut. Were they lost, and
/// somebody else took the space, the next life could not carry its tail.
#[test]
fn the_reserve_keeps_its_names() {
    let disk = disk(2);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 900)).unwrap();
    let after = lose(&disk, &|choice| matches!(choice.atom, Atom::Entry { .. }));
    drop((log, journal));
    after.set_capacity(usage(&after).0);
    let journal = open(&after, "a full disk with a tail");
    let log = journal.log(A).unwrap();
    assert!(journal.report().carried_batches > 0);
    log.set(0, b"vote").unwrap();
    assert_eq!(payloads(&log), [entry(0, 900)]);
}

/// A larger entry makes the file for a tail larger before it is taken in: acknowledged on a disk that is full since, it can be
/// carried.
#[test]
fn a_large_entry_can_be_carried_on_a_full_disk() {
    let disk = disk(7);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 60_000)).unwrap();
    let after = keep_synced(&disk);
    drop((log, journal));
    after.set_capacity(usage(&after).0);
    let journal = open(&after, "a full disk with a large tail");
    assert!(journal.report().carried_batches > 0);
    assert_eq!(payloads(&journal.log(A).unwrap()), [entry(0, 60_000)]);
}

/// A file of zeros has its whole length, synced, before it gets a name: else a power cut leaves an opening that was kept in a
/// file that is shorter than it says, which looks like damage.
#[test]
fn a_segment_has_its_length_before_it_has_its_name() {
    let disk = disk(3);
    let config = small().segment_bytes(200 << 10);
    let journal = everlog::Journal::create_on(super::support::dynamic(&disk), config.clone()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    let mut count = 0;
    while segments(&disk).len() < 2 {
        log.append_relaxed(entry(count, 3000)).unwrap();
        count += 1;
    }
    let mut sizes = 0;
    for older in 0..4 {
        let after = disk.crash_with(&mut |choice| match choice.atom {
            Atom::Size { .. } => {
                sizes += 1;
                older.min(choice.newest())
            }
            _ => choice.newest(),
        });
        let again = everlog::Journal::open_on(super::support::dynamic(&after), config.clone())
            .unwrap_or_else(|e| panic!("size {older}: {e}"));
        let found = payloads(&again.log(A).unwrap()).len() as u64;
        assert!(found + 1 >= count, "size {older}: {found} of {count}");
    }
    assert_eq!(sizes, 0, "no size of a segment is left to a power cut");
    drop((log, journal));
}

/// Files that were named ahead of need, and hold nothing, are what the next life writes to; they are not removed under it.
#[test]
fn a_file_that_was_named_ahead_of_need_serves_the_next_life() {
    let mut disk = disk(5);
    let (journal, log) = one_log(&disk);
    while journal.work().unwrap() {} // a spare gets the name of the next segment
    drop((log, journal));
    let mut count = 0;
    for life in 0..4 {
        disk = keep_all(&disk);
        let journal = open(&disk, &format!("life {life}"));
        let log = journal.log(A).unwrap();
        assert_eq!(log.bounds().unwrap(), 0..count, "life {life}");
        for _ in 0..15 {
            log.append(entry(count, 900))
                .unwrap_or_else(|e| panic!("life {life}: {e}"));
            count += 1;
        }
        while journal.work().unwrap() {}
    }
}

/// A spare of an earlier life that turns out to hold a segment is left alone, whatever a later write needs.
#[test]
fn a_spare_that_holds_a_segment_is_not_written_to() {
    let disk = disk(6);
    let (journal, log) = one_log(&disk);
    fill_with(&log, 30, 900);
    drop(log);
    journal.close().unwrap();
    let disk = keep_all(&disk);
    let held = disk.read_raw(&segments(&disk)[0]).unwrap();
    put(&disk, "journal/900.spare", &held);
    let journal = open(&disk, "a spare that is none");
    fill_with(&journal.log(A).unwrap(), 60, 900);
    assert!(disk.read_raw("journal/900.spare").unwrap() == held);
}

/// What has the name of a spare and cannot be opened, a directory or the file of another owner, keeps no journal from being opened: nobody
/// looks for data under such a name. It is left alone, and its number is not given again.
#[test]
fn a_spare_that_cannot_be_opened_is_left_alone() {
    let disk = disk(8);
    let (journal, log) = one_log(&disk);
    fill_with(&log, 3, 900);
    drop(log);
    journal.close().unwrap();
    let disk = keep_all(&disk);
    disk.create_dir("journal/901.spare").unwrap();
    put(&disk, "journal/900.spare", &[0; 16 << 10]);
    let faults = FaultFs::new(Arc::new(disk.clone()));
    faults.add(Rule::on(Op::Open, Fault::io_error()).path("900.spare").forever());
    let journal = Journal::open_on(Arc::new(faults), small()).unwrap();
    let log = journal.log(A).unwrap();
    for i in 3..40 {
        log.append(entry(i, 900)).unwrap();
    }
    drop(log);
    journal.close().unwrap();
    assert!(disk.list("journal/901.spare").unwrap().is_empty());
    assert_eq!(disk.read_raw("journal/900.spare").unwrap(), [0; 16 << 10]);
}

fn put(disk: &SimFs, path: &str, bytes: &[u8]) {
    disk.create(path).unwrap();
    disk.write_raw(path, 0, bytes).unwrap();
}
