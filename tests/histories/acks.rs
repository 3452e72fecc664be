//! Who is told what, and when: nobody before the sync returned, and what was promised without one comes in time.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use everlog::fs::{Fault, FaultFs, Gate, Kept, Op, Rule};
use everlog::{ErrorKind, Journal, Verdict, WriteBatch};

use super::support::{
    A, batches_of, copy_of, disk, dynamic, entry, keep_synced, last_segment, one_log, open, payloads,
    segments, small, try_open, u64_at,
};

/// While the sync of its write still runs a ticket is not done, and its entry, which can be read, is not durable.
#[test]
fn nobody_is_told_before_the_sync_returned() {
    let faults = FaultFs::new(Arc::new(disk(1)));
    let journal = Journal::create_on(Arc::new(faults.clone()), small()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    let ticket = log.submit(entry(0, 100)).unwrap();
    let gate = Gate::default();
    faults.add(Rule::on(Op::SyncData, Fault::Delay(gate.clone())));
    let working = {
        let journal = journal.clone();
        thread::spawn(move || journal.work().unwrap())
    };
    gate.wait_for_arrivals(1);
    assert!(!ticket.is_done(), "its sync has not returned");
    assert_eq!(log.durable_end().unwrap(), 0);
    assert_eq!(log.get(0).unwrap()[..], entry(0, 100), "readable at once");
    gate.release();
    working.join().unwrap();
    ticket.wait().unwrap();
    assert_eq!(log.durable_end().unwrap(), 1);
}

/// An entry and the one that took its index, in one flush: the sync makes the new one durable, and it is the one that is read.
#[test]
fn a_sync_settles_the_entry_that_took_the_index() {
    let disk = disk(8);
    let (journal, log) = one_log(&disk);
    let old = log.submit(entry(0, 100)).unwrap();
    let mut batch = WriteBatch::new();
    batch.truncate_from(A, 0).append(A, entry(1, 100));
    let new = journal.submit(batch).unwrap();
    while journal.work().unwrap() {}
    old.wait().unwrap();
    new.wait().unwrap();
    assert_eq!(log.get(0).unwrap()[..], entry(1, 100));
    assert_eq!(log.durable_end().unwrap(), 1);
    drop((log, journal));
}

/// "`close`: everything is durable": relaxed writes as well, and the closing mark bears witness to them.
#[test]
fn close_makes_relaxed_writes_durable() {
    let disk = disk(2);
    let (journal, log) = one_log(&disk);
    for i in 0..3 {
        log.append_relaxed(entry(i, 100)).unwrap();
    }
    drop(log);
    journal.close().unwrap();
    let again = open(&keep_synced(&disk), "closed");
    assert_eq!(payloads(&again.log(A).unwrap()).len(), 3);
    assert_eq!(again.report().verdict, Verdict::Clean);
}

/// "Synced within 100 ms or 8 MiB": the write that reaches so many bytes syncs, without a thread and without a later write.
#[test]
fn so_many_relaxed_bytes_are_synced_at_once() {
    let disk = disk(3);
    let config = small().in_flight_bytes(64 << 10).relaxed_bytes(2000);
    let journal = Journal::create_on(dynamic(&disk), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    log.append_relaxed(entry(0, 900)).unwrap();
    assert_eq!(log.durable_end().unwrap(), 0);
    log.append_relaxed(entry(1, 900)).unwrap();
    assert_eq!(log.durable_end().unwrap(), 2);
    let again = open(&keep_synced(&disk), "cut");
    assert_eq!(payloads(&again.log(A).unwrap()).len(), 2);
    drop((log, journal));
}

/// An idle journal writes a mark and later one that is synced; from then on a power cut finds the last batch witnessed.
#[test]
fn an_idle_journal_is_witnessed_for_good() {
    let disk = disk(4);
    // The smallest segments have no room for it behind a batch.
    let config = small()
        .segment_bytes(64 << 10)
        .background(everlog::Background::Threads)
        .mark_delays(Duration::from_millis(1), Duration::from_millis(2));
    let journal = Journal::create_on(dynamic(&disk), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    log.append(entry(0, 100)).unwrap();
    let started = Instant::now();
    let witnessed = || {
        let after = keep_synced(&disk);
        let batches = batches_of(&after, &last_segment(&after));
        let data = batches.iter().rev().find(|batch| batch.frames > 0).unwrap();
        batches.iter().any(|batch| batch.durable_through >= data.sequence)
    };
    while !witnessed() {
        assert!(started.elapsed() < Duration::from_secs(20), "no synced mark");
        thread::yield_now();
    }
    assert!(journal.metrics().marks > 0);
    drop((log, journal));
}

/// A mark that fails leaves nobody knows what behind the last batch: nothing is written there any more.
#[test]
fn nothing_is_written_behind_a_mark_that_failed() {
    for fault in [Fault::io_error(), Fault::no_space()] {
        let disk = disk(5);
        let faults = FaultFs::new(Arc::new(disk.clone()));
        let journal = Journal::create_on(Arc::new(faults.clone()), small()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        while journal.work().unwrap() {} // a mark, and what the preparer has to do
        log.append(entry(0, 100)).unwrap();
        let old = last_segment(&disk);
        let watch = faults.add(Rule::on(Op::Write, fault.clone()));
        while journal.work().unwrap() {} // a mark again
        assert_eq!(watch.fired(), 1);
        log.append(entry(1, 100)).unwrap();
        assert_ne!(last_segment(&disk), old, "the segment takes nothing more");
        for seed in 0..10 {
            let again = open(&disk.crash(seed), &format!("{fault:?}, seed {seed}"));
            let found = payloads(&again.log(A).unwrap());
            assert_eq!(found, [entry(0, 100), entry(1, 100)], "{fault:?}, seed {seed}");
        }
        drop((log, journal));
    }
}

/// "Whoever carries tries once more": the first file of a carry may fail, and `open` succeeds all the same.
#[test]
fn a_carry_whose_first_file_fails_goes_into_a_second() {
    let before = disk(6);
    let (journal, log) = one_log(&before);
    log.append(entry(0, 100)).unwrap();
    let crashed = keep_synced(&before);
    drop((log, journal));
    crashed.fail_sync("", 0, Kept::Nothing);
    let again = open(&crashed, "the first sync fails");
    assert_eq!(again.metrics().rehomings, 1);
    assert!(again.report().carried_batches > 0);
    for seed in 0..10 {
        let later = open(&crashed.crash(seed), &format!("seed {seed}"));
        assert_eq!(payloads(&later.log(A).unwrap()), [entry(0, 100)], "seed {seed}");
    }
}

/// Time in headers and openings never falls, though the clock was put back between two lives.
#[test]
fn time_does_not_fall_when_the_clock_is_put_back() {
    let ahead = disk(7);
    ahead.advance(Duration::from_secs(86_400));
    let (journal, log) = one_log(&ahead);
    for i in 0..12 {
        log.append(entry(i, 900)).unwrap();
    }
    let back = copy_of(&ahead, true);
    drop((log, journal));
    let journal = open(&back, "the clock is a day behind");
    let log = journal.log(A).unwrap();
    for i in 12..24 {
        log.append(entry(i, 900)).unwrap();
    }
    let mut last = 0;
    for path in segments(&back) {
        let bytes = back.read_raw(&path).unwrap();
        let times = batches_of(&back, &path)
            .into_iter()
            .map(|batch| u64_at(&bytes, super::support::size(batch.offset) + 48));
        for time in std::iter::once(u64_at(&bytes, 72)).chain(times) {
            assert!(time >= last, "{path}: {time} after {last}");
            last = time;
        }
    }
}

/// A header says when it was written, by the clock.
#[test]
fn time_goes_on_with_the_clock() {
    let disk = disk(8);
    let (_journal, log) = one_log(&disk);
    for i in 0..6 {
        disk.advance(Duration::from_secs(10));
        log.append(entry(i, 100)).unwrap();
    }
    let path = super::support::last_segment(&disk);
    let bytes = disk.read_raw(&path).unwrap();
    let batches = batches_of(&disk, &path).into_iter();
    let times: Vec<u64> = batches
        .map(|batch| u64_at(&bytes, super::support::size(batch.offset) + 48))
        .collect();
    let second = 1_000_000;
    let steps = times.windows(2).map(|pair| (pair[1] - pair[0]) / second);
    assert_eq!(steps.collect::<Vec<_>>(), [10; 6], "{times:?}");
}

/// The same after an opening that carried a tail: rot in the carried batch is damage from then on. Without a synced witness it would
/// look like a unit that was never synced, and what stood before it in a segment of its own was removed.
#[test]
fn a_tail_that_was_carried_is_witnessed_for_good() {
    let disk = disk(16);
    let config = small().segment_bytes(64 << 10);
    let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    let mut count = 0;
    while segments(&disk).len() < 2 {
        log.append(entry(count, 900)).unwrap();
        count += 1;
    }
    let killed = disk.kill();
    drop((log, journal));
    let threads = config
        .background(everlog::Background::Threads)
        .mark_delays(Duration::from_millis(1), Duration::from_millis(2));
    let journal = Journal::open_on(dynamic(&killed), threads).unwrap();
    assert_eq!(journal.report().carried_batches, 1);
    let witnessed = || {
        let after = keep_synced(&killed);
        let batches = batches_of(&after, &last_segment(&after));
        let data = batches.iter().rev().find(|batch| batch.frames > 0).unwrap();
        batches.iter().any(|batch| batch.durable_through >= data.sequence)
    };
    let started = Instant::now();
    while !witnessed() {
        assert!(started.elapsed() < Duration::from_secs(20), "no synced mark");
        thread::yield_now();
    }
    let after = keep_synced(&killed);
    drop(journal);
    after.flip_bit(&last_segment(&after), 8192 + 400, 0).unwrap();
    let error = try_open(&after).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}
