//! Failed writes and syncs: nothing is retried on the file, everything unsynced goes once into a fresh one, and nobody is told
//! more than what a fresh sync covered.

use std::sync::Arc;

use everlog::fs::{Access, Fault, FaultFs, Fs, Kept, Op, Profile, Rule, SimFs};
use everlog::{Error, ErrorKind, Journal, Log, WriteBatch};

use super::support::{
    A, batches_of, disk, dynamic, each_outcome, entry, keep_all, last_segment, one_log, open, payloads,
    segments, small, try_open, usage,
};

const SEG: &str = ".seg";

/// A journal on a disk behind a [`FaultFs`]. Its files are known by the name they were opened with, so a rule for `spare`
/// and `tmp` names is one for segments, too.
fn faulty(seed: u64) -> (SimFs, FaultFs, Journal, Log) {
    let disk = disk(seed);
    let faults = FaultFs::new(Arc::new(disk.clone()));
    let journal = Journal::create_on(Arc::new(faults.clone()), small()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    (disk, faults, journal, log)
}

/// Table: "a sync error consumed by an overlapping sync, the later sync says Ok - no acknowledgement by the later one". On the
/// simulated disk: the first of two overlapping syncs fails and is told; the second says Ok, and the bytes are gone.
#[test]
fn an_overlapping_sync_consumes_the_error_of_another() {
    let disk = disk(1);
    let file = disk.create("f").unwrap();
    disk.sync_dir("").unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    let (one, other) = (disk.begin_sync("f").unwrap(), disk.begin_sync("f").unwrap());
    drop(one.fail(Kept::Nothing));
    other.finish().unwrap();
    assert_eq!(
        disk.open("f", Access::Read).unwrap().len().unwrap(),
        5,
        "readers still see it"
    );
    assert!(
        disk.crash(0).read_raw("f").unwrap().iter().all(|byte| *byte == 0),
        "and it is lost"
    );
}

/// The same in the journal: after a failed sync no later sync of that file acknowledges anything that the failed one
/// covered. Whatever the failed sync kept, a power cut right after the acknowledgement keeps the entry.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_by_a_later_one_on_that_file() {
    for kept in [Kept::Nothing, Kept::Undecided, Kept::Everything] {
        for relaxed in 0..3 {
            let disk = disk(2);
            let (journal, log) = one_log(&disk);
            log.append(entry(0, 100)).unwrap();
            let old = last_segment(&disk);
            for i in 0..relaxed {
                log.append_relaxed(entry(1 + i, 100)).unwrap();
            }
            disk.fail_sync("", 0, kept);
            log.append(entry(1 + relaxed, 100)).unwrap();
            log.append(entry(2 + relaxed, 100)).unwrap();
            assert_ne!(last_segment(&disk), old, "the entries were re-homed");
            assert_eq!(journal.metrics().rehomings, 1);
            let story = format!("{kept:?}, {relaxed} relaxed");
            let check = &mut |after: SimFs, outcome: &str| {
                let found = payloads(&open(&after, &format!("{story}, {outcome}")).log(A).unwrap());
                let expected: Vec<_> = (0..3 + relaxed).map(|i| entry(i, 100)).collect();
                assert_eq!(found, expected, "{story}, {outcome}");
            };
            each_outcome(&disk, 600, 150, check);
            drop((log, journal));
        }
    }
}

/// A late write-back error (the system wrote on its own and failed) is told by the next sync: the same rule.
#[test]
fn a_late_write_back_error_is_a_failed_sync() {
    for seed in 0..60 {
        let disk = disk(seed);
        let (journal, log) = one_log(&disk);
        log.append(entry(0, 100)).unwrap();
        log.append_relaxed(entry(1, 600)).unwrap();
        disk.fail_writeback(&last_segment(&disk), Kept::Nothing).unwrap();
        log.append(entry(2, 100)).unwrap();
        let again = open(&disk.crash(seed), &format!("seed {seed}"));
        assert_eq!(payloads(&again.log(A).unwrap()).len(), 3, "seed {seed}");
        drop((log, journal));
    }
}

/// Rule 29 and rule 16: a sync or write fails in two fresh files running: `Unknown`, closed to writers, reads go on, and the
/// next opening tells what became of it.
#[test]
fn two_failures_running_close_the_journal_and_reads_go_on() {
    for op in [Op::SyncData, Op::Write] {
        for fault in [Fault::io_error(), Fault::no_space()] {
            let (disk, faults, journal, log) = faulty(3);
            log.append(entry(0, 100)).unwrap();
            let pending = log.append_relaxed(entry(1, 100)).unwrap();
            faults.add(Rule::on(op, fault.clone()).times(2));
            let story = format!("{op:?}, {fault:?}");
            let error = log.append(entry(2, 100)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unknown, "{story}: {error}");
            assert_eq!(
                log.append(b"later").unwrap_err().kind(),
                ErrorKind::Closed,
                "{story}"
            );
            assert_eq!(
                log.set(0, b"later").unwrap_err().kind(),
                ErrorKind::Closed,
                "{story}"
            );
            assert_eq!(journal.sync().unwrap_err().kind(), ErrorKind::Closed, "{story}");
            // With threads of its own it once tried to sync the relaxed write again and again, without a pause.
            while journal.work().expect("nothing of it is tried again") {}
            assert_eq!(log.get(0).unwrap()[..], entry(0, 100), "{story}: reads go on");
            assert_eq!(log.get(pending.index).unwrap()[..], entry(1, 100), "{story}");
            drop((log, journal));
            faults.clear();
            for seed in 0..20 {
                let again = open(&disk.crash(seed), &format!("{story}, seed {seed}"));
                let log = again.log(A).unwrap();
                let found = payloads(&log);
                assert!((1..=3).contains(&found.len()), "{story}, seed {seed}");
                log.append(b"goes on").unwrap();
            }
        }
    }
}

/// Rule 29: "ENOSPC inside a segment: like EIO": one is cured by a fresh file.
#[test]
fn one_enospc_inside_a_segment_is_cured_by_a_fresh_file() {
    for op in [Op::Write, Op::SyncData] {
        let (disk, faults, journal, log) = faulty(4);
        log.append(entry(0, 100)).unwrap();
        let watch = faults.add(Rule::on(op, Fault::no_space()));
        log.append(entry(1, 100)).unwrap();
        log.append(entry(2, 100)).unwrap();
        assert_eq!(watch.fired(), 1);
        assert_eq!(journal.metrics().rehomings, 1);
        for seed in 0..20 {
            let found = payloads(&open(&disk.crash(seed), "after").log(A).unwrap());
            assert_eq!(
                found,
                [entry(0, 100), entry(1, 100), entry(2, 100)],
                "{op:?}, seed {seed}"
            );
        }
        drop((log, journal));
    }
}

/// Rule 29: "A short write is continued, EINTR of a write repeated": nobody notices, at every write of a life.
#[test]
fn short_writes_are_continued_and_interrupted_ones_repeated() {
    for fault in [
        Fault::Short(1),
        Fault::Short(513),
        Fault::Short(4095),
        Fault::Interrupted,
    ] {
        for nth in 1..12 {
            let (disk, faults, journal, log) = faulty(nth);
            faults.add(Rule::on(Op::Write, fault.clone()).nth(nth).times(3));
            for i in 0..20 {
                log.append(entry(i, 900)).unwrap();
            }
            let story = format!("{fault:?} of write {nth}");
            assert_eq!(journal.metrics().rehomings, 0, "{story}");
            let found = payloads(&open(&disk.crash(nth), &story).log(A).unwrap());
            assert_eq!(
                found,
                (0..20).map(|i| entry(i, 900)).collect::<Vec<_>>(),
                "{story}"
            );
            drop((log, journal));
        }
    }
}

/// Rule 29: "any error of a sync is final", an interrupted one as well: not repeated on that file.
#[test]
fn an_interrupted_sync_is_not_repeated_on_that_file() {
    let (disk, faults, journal, log) = faulty(5);
    log.append(entry(0, 100)).unwrap();
    let old = last_segment(&disk);
    let before = batches_of(&disk, &old).len();
    faults.add(Rule::on(Op::SyncData, Fault::Interrupted));
    log.append(entry(1, 100)).unwrap();
    assert_eq!(journal.metrics().rehomings, 1);
    assert_ne!(last_segment(&disk), old);
    assert_eq!(
        batches_of(&disk, &old).len(),
        before + 1,
        "the old file is left as it is"
    );
    drop((log, journal));
}

/// Every write, sync and sync of a directory of a life fails in turn, once: everything acknowledged is there after a power
/// cut, what failed is told, and the journal opens.
#[test]
fn any_single_failure_costs_nothing_that_was_acknowledged() {
    let story = |op: Op, nth: u64, seed: u64| format!("{op:?} {nth} fails, seed {seed}");
    for op in [
        Op::Write,
        Op::SyncData,
        Op::SyncDir,
        Op::Rename,
        Op::Create,
        Op::Remove,
    ] {
        for nth in 1..40 {
            let (disk, faults, journal, log) = faulty(nth);
            let watch = faults.add(Rule::on(op, Fault::io_error()).nth(nth));
            let (mut acked, mut issued, mut purged) = (0, 0, 0);
            for i in 0..25 {
                issued = i + 1;
                match log.append(entry(i, 800)) {
                    Ok(_) => acked = i + 1,
                    Err(error) => {
                        assert!(
                            matches!(error.kind(), ErrorKind::Io | ErrorKind::Unknown),
                            "{}: {error}",
                            story(op, nth, 0)
                        );
                        issued = if error.kind() == ErrorKind::Io { i } else { issued };
                        break;
                    }
                }
                if i == 18 && log.purge_to(10).is_ok() {
                    purged = 10;
                }
                drop(journal.work());
            }
            drop((log, journal));
            for seed in 0..4 {
                let again = open(&disk.crash(seed), &story(op, nth, seed));
                let bounds = again.log(A).unwrap().bounds().unwrap();
                assert!(
                    bounds.start >= purged && (acked..=issued).contains(&bounds.end),
                    "{}: {bounds:?}",
                    story(op, nth, seed)
                );
                for (i, payload) in (bounds.start..).zip(payloads(&again.log(A).unwrap())) {
                    assert_eq!(payload, entry(i, 800), "{}", story(op, nth, seed));
                }
            }
            if watch.fired() == 0 {
                break;
            }
        }
    }
}

/// The same for each call of an open that carries a tail: it is refused or done, and the next one finds everything.
#[test]
fn any_single_failure_of_an_open_costs_nothing() {
    let origin = disk(6);
    let (journal, log) = one_log(&origin);
    for i in 0..12 {
        log.append(entry(i, 800)).unwrap();
    }
    log.set(0, b"vote").unwrap();
    let origin = keep_all(&origin);
    drop((log, journal));
    for op in [
        Op::Read,
        Op::Write,
        Op::SyncData,
        Op::SyncDir,
        Op::Rename,
        Op::Create,
        Op::Open,
        Op::List,
        Op::Len,
        Op::Lock,
    ] {
        for nth in 1..200 {
            let disk = origin.crash(1);
            let faults = FaultFs::new(Arc::new(disk.clone()));
            let watch = faults.add(Rule::on(op, Fault::io_error()).nth(nth));
            let opened = Journal::open_on(Arc::new(faults.clone()), small());
            let story = format!("{op:?} {nth} fails");
            if let Err(error) = &opened {
                assert_eq!(error.kind(), ErrorKind::Io, "{story}: {error}");
            }
            drop(opened);
            for seed in [0, nth] {
                let log = open(&disk.crash(seed), &story).log(A).unwrap();
                assert_eq!(payloads(&log).len(), 12, "{story}");
                assert_eq!(log.cell(0).unwrap().as_deref(), Some(&b"vote"[..]), "{story}");
            }
            if watch.fired() == 0 {
                break;
            }
        }
    }
}

fn changed(before: &SimFs, after: &SimFs) -> Vec<String> {
    let (mut old, mut new) = (before.dump(), after.dump());
    old.remove("lock");
    new.remove("lock");
    let paths = old
        .keys()
        .chain(new.keys())
        .filter(|path| old.get(*path) != new.get(*path));
    paths.cloned().collect()
}

/// Table: "the sector of the last acknowledged batch reads as EIO at open - `Io`, nothing written, nothing cut" (rule 6). Each
/// sector of each batch of every segment, with and without a witness.
#[test]
fn an_unreadable_sector_is_never_a_tear() {
    for closed in [false, true] {
        let origin = disk(7);
        let (journal, log) = one_log(&origin);
        for i in 0..14 {
            log.append(entry(i, 800)).unwrap();
        }
        drop(log);
        if closed {
            journal.close().unwrap();
        } else {
            std::mem::forget(journal);
        }
        let origin = keep_all(&origin);
        let mut io = 0;
        for path in segments(&origin) {
            for sector in batches_of(&origin, &path)
                .iter()
                .flat_map(|batch| batch.sectors())
            {
                let disk = keep_all(&origin);
                disk.set_unreadable(&path, sector..sector + 1, true).unwrap();
                let story = format!("closed {closed}, {path} sector {sector}");
                io += u64::from(read_or_refused(&disk, &origin, &story));
                disk.set_unreadable(&path, sector..sector + 1, false).unwrap();
                let log = open(&disk, &story).log(A).unwrap();
                assert_eq!(
                    payloads(&log).len(),
                    14,
                    "{story}: all is back when the sector can be read"
                );
            }
        }
        assert!(io > 5, "some of these sectors are needed by an open");
    }
}

/// Opens `disk`: `Io` and not a byte changed (then true), or opened with nothing cut and the entry unreadable.
fn read_or_refused(disk: &SimFs, origin: &SimFs, story: &str) -> bool {
    match try_open(disk) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Io, "{story}: {error}");
            assert!(
                changed(origin, disk).is_empty(),
                "{story}: {:?} changed",
                changed(origin, disk)
            );
            true
        }
        Ok(journal) => {
            assert!(
                journal.report().cut.is_empty(),
                "{story}: {:?}",
                journal.report().cut
            );
            let log = journal.log(A).unwrap();
            assert_eq!(log.bounds().unwrap(), 0..14, "{story}");
            let errors: Vec<Error> = (0..14).filter_map(|i| log.get(i).err()).collect();
            assert!(
                errors.iter().all(|error| error.kind() == ErrorKind::Io),
                "{story}: {errors:?}"
            );
            false
        }
    }
}

/// The same for the openings, both copies, and for a file that cannot be opened at all (EACCES, EMFILE).
#[test]
fn an_unreadable_opening_or_file_is_io_and_nothing_is_written() {
    let origin = disk(8);
    let (journal, log) = one_log(&origin);
    for i in 0..20 {
        log.append(entry(i, 800)).unwrap();
    }
    let origin = keep_all(&origin);
    drop((log, journal));
    for path in segments(&origin) {
        let disk = keep_all(&origin);
        disk.set_unreadable(&path, 0..1, true).unwrap();
        disk.set_unreadable(&path, 8..9, true).unwrap();
        assert!(
            read_or_refused(&disk, &origin, &format!("{path}, both copies")),
            "{path}"
        );
        for failure in [std::io::ErrorKind::PermissionDenied, std::io::ErrorKind::Other] {
            let disk = keep_all(&origin);
            let faults = FaultFs::new(dynamic(&disk));
            faults.add(
                Rule::on(Op::Open, Fault::Error(everlog::fs::Failure::Kind(failure)))
                    .path(&path)
                    .forever(),
            );
            let error = Journal::open_on(Arc::new(faults), small()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{path}: {error}");
            assert!(changed(&origin, &disk).is_empty(), "{path}");
        }
    }
    assert_eq!(origin.profile(), Profile::PosixWeak);
    assert!(segments(&origin).iter().all(|path| path.ends_with(SEG)));
}

/// Relaxed writes are given to the system and survive a kill. The sync that comes for them fails, and the process is killed at any call of
/// the re-homing behind it: the fresh segment must not end the one in which they stand before it has them itself.
#[test]
fn relaxed_writes_survive_a_kill_in_the_middle_of_their_rehoming() {
    // The last ones stand in the segment of a large entry, and take more room than the usual ones have.
    for (first, count, len) in [(700, 3, 700), (700, 3, 1), (700, 2, 1_200), (6_000, 4, 850)] {
        for (seed, stop) in (0..16).flat_map(|seed| (0..6).map(move |stop| (seed, stop))) {
            let disk = disk(seed);
            let (journal, log) = one_log(&disk);
            log.append(entry(0, first)).unwrap();
            while journal.work().unwrap() {}
            for i in 1..=count {
                log.append_relaxed(entry(i, len)).unwrap();
            }
            disk.fail_sync("journal/", 0, Kept::Everything);
            disk.stop_after(stop);
            drop(journal.sync());
            let disk = disk.kill();
            let story = format!("{count} of {len} bytes, seed {seed}, stopped after {stop} calls");
            let again = open(&disk, &story);
            let bounds = again.log(A).unwrap().bounds().unwrap();
            assert_eq!(bounds, 0..count + 1, "{story}");
        }
    }
}

/// The same on a full disk after a restart that used up the file for carrying: what is written in the large segment that it became is
/// taken over by one of the usual size, or it would be in two for a moment, and a kill then takes what is not in the first.
#[test]
fn relaxed_cells_survive_a_kill_in_their_rehoming_without_a_file_for_carrying() {
    let config = || small().in_flight_bytes(16 << 10);
    let cases = [true, false]
        .into_iter()
        .flat_map(|full| (0..8).map(move |seed| (full, seed)));
    for (full, seed, stop) in cases.flat_map(|(full, seed)| (0..12).map(move |stop| (full, seed, stop))) {
        let story = format!("full: {full}, seed {seed}, stopped after {stop} calls");
        let disk = disk(seed);
        let journal = Journal::create_on(dynamic(&disk), config()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        log.append_relaxed(entry(0, 10_000)).unwrap();
        let disk = disk.kill();
        let journal = Journal::open_on(dynamic(&disk), config()).unwrap();
        let log = journal.log(A).unwrap();
        if full {
            disk.set_capacity(usage(&disk).0);
        } else {
            // With another file for the carrying more than a segment waits for one sync, and is then taken over together.
            while journal.work().unwrap() {}
        }
        let syncs = journal.metrics().syncs;
        let cell = |id: u8| entry(u64::from(id), 3_000);
        for id in 0..5 {
            log.set_relaxed(id, cell(id)).unwrap();
        }
        assert!(full || journal.metrics().syncs == syncs, "{story}");
        disk.fail_sync("journal/", 0, Kept::Everything);
        disk.stop_after(stop);
        drop(journal.sync());
        let disk = disk.kill();
        disk.set_capacity(1 << 30);
        let again = Journal::open_on(dynamic(&disk), config()).unwrap();
        let log = again.log(A).unwrap();
        for id in 0..5 {
            assert_eq!(
                log.cell(id).unwrap().as_deref(),
                Some(&cell(id)[..]),
                "cell {id}: {story}"
            );
        }
    }
}

/// A write larger than a segment fails, and there is no file for what is re-homed: it was used, and its place is not made yet. A disk that
/// is full for a moment costs the write nothing: it gets a file of its own. Any other failure is the second one.
#[test]
fn a_large_write_is_rehomed_without_a_file_for_carrying() {
    let config = || small().in_flight_bytes(16 << 10);
    for (fault, cured) in [(Fault::no_space(), true), (Fault::io_error(), false)] {
        let origin = disk(9);
        let journal = Journal::create_on(dynamic(&origin), config()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        log.append_relaxed(entry(0, 10_000)).unwrap();
        let disk = origin.kill();
        drop((log, journal));
        let faults = FaultFs::new(Arc::new(disk.clone()));
        let journal = Journal::open_on(Arc::new(faults.clone()), config()).unwrap();
        assert!(journal.report().carried_bytes > 0);
        let mut batch = WriteBatch::new();
        batch.set(A, 0, entry(1, 10_000));
        let written = journal.submit(batch).unwrap();
        let failing = [
            faults.add(Rule::on(Op::SyncData, Fault::io_error())),
            faults.add(Rule::on(Op::Create, fault.clone())),
        ];
        let outcome = written.wait().map(drop).map_err(|error| error.kind());
        let story = format!("{fault:?}");
        assert!(failing.iter().all(|watch| watch.fired() == 1), "{story}");
        if !cured {
            assert_eq!(outcome, Err(ErrorKind::Unknown), "{story}");
            continue;
        }
        assert_eq!(outcome, Ok(()), "{story}");
        for seed in 0..20 {
            let again = Journal::open_on(dynamic(&disk.crash(seed)), config()).unwrap();
            let log = again.log(A).unwrap();
            assert_eq!(payloads(&log), [entry(0, 10_000)], "{story}, seed {seed}");
            let cell = log.cell(0).unwrap();
            assert_eq!(
                cell.as_deref(),
                Some(&entry(1, 10_000)[..]),
                "{story}, seed {seed}"
            );
        }
    }
}
