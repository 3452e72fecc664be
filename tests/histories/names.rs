//! Names that a directory forgets: after a sync of it failed the next one says Ok, and what the first one covered may be
//! lost for good. A file can come back under a name that it had before, or stand under two.

use std::sync::Arc;

use everlog::fs::{Fault, FaultFs, Fs, Kept, Op, Rule, SimFs};
use everlog::{ErrorKind, Journal};

use super::support::{
    A, disk, dynamic, entry, keep_all, keep_synced, last_segment, one_log, open, payloads, segments, small,
    try_open, u64_at,
};

/// Entries that some life was told are durable, and that were handed in.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    acked: u64,
    issued: u64,
}

fn len(index: u64) -> usize {
    // Now and then one that needs a file of its own, whose id overtakes the one named ahead.
    if index % 6 == 4 { 18_000 } else { 700 }
}

/// Opens, checks that everything acknowledged is there, and goes on.
fn life(disk: &SimFs, told: Told, story: &str) -> Told {
    let journal = match Journal::open_on(dynamic(disk), small()) {
        Err(error) if error.kind() == ErrorKind::Io => return told,
        opened => opened.unwrap_or_else(|e| panic!("{story}: {e}")),
    };
    let log = journal.log(A).unwrap_or_else(|e| panic!("{story}: {e}"));
    let bounds = log.bounds().unwrap();
    assert!(
        (told.acked..=told.issued).contains(&bounds.end),
        "{story}: {told:?}, found {bounds:?}"
    );
    for (index, found) in (bounds.start..).zip(log.read(bounds.clone())) {
        let found = found.unwrap_or_else(|e| panic!("{story}: {index}: {e}"));
        assert!(
            found.payload[..] == entry(index, len(index)),
            "{story}: entry {index}"
        );
    }
    let mut told = Told {
        acked: bounds.end,
        issued: bounds.end,
    };
    for _ in 0..9 {
        told.issued += 1;
        match log.append(entry(told.acked, len(told.acked))) {
            Ok(_) => told.acked = told.issued,
            Err(error) if error.kind() == ErrorKind::Io => told.issued -= 1,
            Err(_) => break,
        }
        if told.acked % 4 == 3 {
            drop(journal.work());
        }
    }
    if log.purge_to(told.acked.saturating_sub(7)).is_ok() {
        drop(journal.reclaim());
    }
    told
}

/// Every sync of the directory of a life fails in turn, and is forgotten or not; the process is killed at any call around it; two
/// lives follow, each ended by a power cut. A file is one segment: nothing acknowledged is overwritten, and the journal opens.
#[test]
fn a_directory_that_forgets_names_costs_nothing_acknowledged() {
    for kept in [Kept::Nothing, Kept::Everything] {
        for nth in 0..10 {
            for stop in (4..130).step_by(6).chain([u64::MAX]) {
                let disk = disk(stop);
                let journal = super::support::create(&disk);
                journal.create_log(A, 0).unwrap();
                disk.fail_sync_dir("journal", nth, kept);
                if stop < u64::MAX {
                    disk.stop_after(stop);
                }
                drop(journal);
                let story =
                    format!("sync of the directory {nth} fails, {kept:?}, stopped after {stop} calls");
                let mut told = life(&disk, Told::default(), &story);
                let mut disk = disk.kill();
                for seed in 0..4 {
                    let story = format!("{story}, life {seed}");
                    told = life(&disk, told, &story);
                    disk = if seed == 2 { disk.kill() } else { disk.crash(seed) };
                }
                open(&disk, &story);
            }
        }
    }
}

/// A spare gets a segment's name, the sync of that fails, and the directory forgets the new name for good. The next life finds a blank
/// segment, and names it again, with success: on the medium the file now has the name of a spare and that of a segment. After a power cut
/// both are there and blank, and it must not become two segments: the second would be written over the first.
#[test]
fn a_blank_file_under_two_names_does_not_become_two_segments() {
    for nth in 0..4 {
        let story = format!("sync of the directory {nth} fails");
        let disk = disk(nth);
        let (journal, log) = super::support::one_log(&disk);
        disk.fail_sync_dir("journal", nth, Kept::Nothing);
        let mut count = 0;
        for _ in 0..=nth {
            let room = segments(&disk).len();
            while segments(&disk).len() == room {
                log.append(entry(count, 700)).unwrap();
                count += 1;
            }
            drop(journal.work());
        }
        drop((log, journal));

        let journal = open(&disk, &story);
        while journal.work().unwrap() {}
        drop(journal);

        let disk = keep_synced(&disk);
        let journal = open(&disk, &format!("{story}, after the power cut"));
        let log = journal.log(A).unwrap();
        for index in count..count + 40 {
            log.append(entry(index, 700)).unwrap();
            while journal.work().unwrap() {}
        }
        let whole: Vec<_> = (0..count + 40).map(|index| entry(index, 700)).collect();
        assert_eq!(payloads(&log), whole, "{story}, in that life");
        drop((log, journal));
        let again = open(&keep_all(&disk), &format!("{story}, at last"));
        assert_eq!(payloads(&again.log(A).unwrap()), whole, "{story}, at last");
    }
}

/// `create` fails because a sync of `journal/` or of its parent fails, and the directory forgets the name. The retry must not take the
/// name that it still sees for one that is there: what it acknowledges survives a power cut.
#[test]
fn a_create_that_is_tried_again_is_durable() {
    for dir in ["", "journal"] {
        for kept in [Kept::Nothing, Kept::Everything] {
            // The process goes on, or is killed at any call behind the failure.
            for stop in (0..8).map(Some).chain([None]) {
                let disk = disk(stop.unwrap_or(99));
                disk.fail_sync_dir(dir, 0, kept);
                let story = format!("sync of {dir:?} fails, {kept:?}, killed {stop:?} calls behind it");
                let calls = {
                    let probe = disk.fork();
                    assert!(Journal::create_on(dynamic(&probe), small()).is_err(), "{story}");
                    probe.ops()
                };
                let disk = match stop {
                    Some(calls_behind) => {
                        disk.stop_after(calls.saturating_sub(calls_behind));
                        drop(Journal::create_on(dynamic(&disk), small()));
                        disk.kill()
                    }
                    None => {
                        drop(Journal::create_on(dynamic(&disk), small()));
                        disk
                    }
                };
                // Killed before the failure, it meets the next life.
                let again = || Journal::open_or_create_on(dynamic(&disk), small());
                let journal = again().or_else(|_| again());
                let journal = journal.unwrap_or_else(|e| panic!("{story}: {e}"));
                let log = journal.create_log(A, 0).unwrap();
                log.append(b"acknowledged").unwrap();
                drop((log, journal));
                for seed in 0..6 {
                    let again = open(&disk.crash(seed), &format!("{story}, seed {seed}"));
                    let log = again
                        .log(A)
                        .unwrap_or_else(|e| panic!("{story}, seed {seed}: {e}"));
                    assert_eq!(payloads(&log), [b"acknowledged"], "{story}, seed {seed}");
                }
            }
        }
    }
}

/// Files of others in `journal/` are not in the way of that, and stay.
#[test]
fn a_create_leaves_the_files_of_others_in_its_directory() {
    let disk = disk(1);
    disk.create_dir("journal").unwrap();
    disk.create("journal/notes.txt").unwrap();
    disk.sync_dir("journal").and(disk.sync_dir("")).unwrap();
    drop(super::support::create(&disk));
    assert!(disk.files().contains_key("journal/notes.txt"));
    open(&disk.crash(1), "with notes");
}

/// The creator was killed before it synced the first segment's name, and the sync of the opening that found it fails: the name is
/// forgotten. The opening after that is told Ok; a journal that it returned is there after a power cut, written to or not.
#[test]
fn a_journal_that_was_opened_is_there_whatever_its_directory_forgot() {
    for stop in 0..40 {
        let disk = disk(stop);
        disk.stop_after(stop);
        drop(Journal::create_on(dynamic(&disk), small()));
        let disk = disk.kill();
        for spare in 0..2 {
            let disk = disk.fork();
            disk.fail_sync_dir("journal", spare, Kept::Nothing);
            let opened = Journal::open_on(dynamic(&disk), small());
            let Ok(journal) = opened.or_else(|_| Journal::open_on(dynamic(&disk), small())) else {
                continue;
            };
            let uuid = journal.uuid();
            for seed in 0..6 {
                let again = open(
                    &disk.crash(seed),
                    &format!("stop {stop}, spare {spare}, seed {seed}"),
                );
                assert_eq!(again.uuid(), uuid);
            }
            drop(journal);
        }
    }
}

/// On a disk without room for another opening the first one has to do: the opening syncs its name.
#[test]
fn a_journal_that_was_opened_on_a_full_disk_is_there_after_a_power_cut() {
    let mut opened = 0;
    for stop in 0..40 {
        let disk = disk(stop);
        disk.set_capacity(24 << 10);
        disk.stop_after(stop);
        drop(Journal::create_on(dynamic(&disk), small()));
        let disk = disk.kill();
        let Ok(journal) = Journal::open_on(dynamic(&disk), small()) else {
            continue;
        };
        opened += 1;
        for seed in 0..8 {
            let again = open(&disk.crash(seed), &format!("stop {stop}, seed {seed}"));
            assert_eq!(again.uuid(), journal.uuid());
        }
        drop(journal);
    }
    assert!(opened > 3);
}

/// The opening that would give a journal a name for sure fails for good: it is told, and nobody is given a journal that is closed already.
#[test]
fn an_open_that_cannot_make_the_name_sure_is_told_so() {
    let mut told = 0;
    for stop in 0..40 {
        let disk = disk(stop);
        disk.stop_after(stop);
        let created = Journal::create_on(dynamic(&disk), small()).is_ok();
        let disk = disk.kill();
        if created || Journal::open_on(dynamic(&disk.fork()), small()).is_err() {
            continue;
        }
        let faults = FaultFs::new(dynamic(&disk));
        faults.add(Rule::on(Op::SyncData, Fault::io_error()).forever());
        let error = Journal::open_on(Arc::new(faults), small()).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Io | ErrorKind::Unknown),
            "stop {stop}: {error}"
        );
        told += 1;
    }
    assert!(told > 0);
}

/// A blank segment is renamed to the next id, the process is killed before the sync of that, and the sync of the next opening fails and
/// forgets it: the file becomes a segment and has the name of an older one, too. The segment is superseded by a carry, and goes; the
/// old name is left, and says nothing.
#[test]
fn a_second_name_that_outlives_its_segment_refuses_no_journal() {
    for stop in 0..40 {
        let story = format!("stop {stop}");
        let disk = disk(stop);
        let (journal, log) = one_log(&disk);
        log.append(entry(0, 100)).unwrap();
        drop((log, journal));
        disk.stop_after(stop);
        if let Ok(journal) = try_open(&disk)
            && let Ok(log) = journal.log(A)
        {
            drop(log.append(entry(1, 100)));
        }
        let disk = disk.kill();
        disk.fail_sync_dir("journal", 0, Kept::Nothing);
        if try_open(&disk).is_ok() {
            continue;
        }
        let journal = open(&disk, &story);
        let log = journal.log(A).unwrap();
        let end = log.bounds().unwrap().end;
        log.append(entry(end, 100)).unwrap();
        let after = keep_synced(&disk);
        drop((log, journal));
        for life in 0..3 {
            let journal = open(&after, &format!("{story}, life {life}"));
            assert_eq!(journal.log(A).unwrap().bounds().unwrap().end, end + 1, "{story}");
        }
        // What goes with the first opening that is synced.
        let journal = open(&after, &story);
        journal.log(A).unwrap().append(entry(end + 1, 100)).unwrap();
        while journal.work().unwrap() {}
        for path in segments(&after) {
            let named = u64::from_str_radix(&path[8..24], 16).unwrap();
            let held = u64_at(&after.read_raw(&path).unwrap(), 48);
            assert_eq!(held, named, "{story}: {path}");
        }
    }
}

/// No room for the opening that makes the name sure, told by the sync: the file is left as it is, and nothing goes on in it.
#[test]
fn a_file_whose_sync_failed_is_not_written_again() {
    let config = small().segment_bytes(32 << 10);
    let disk = disk(1);
    let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
    let disk = disk.kill();
    drop(journal);
    let faults = FaultFs::new(Arc::new(disk.clone()));
    faults.add(Rule::on(Op::SyncData, Fault::no_space()).times(2));
    let journal = Journal::open_on(Arc::new(faults), config).unwrap();
    let failed = last_segment(&disk);
    journal.create_log(A, 0).unwrap().append(b"x").unwrap();
    assert_ne!(last_segment(&disk), failed);
}
