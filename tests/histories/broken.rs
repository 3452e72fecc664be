//! Histories that went wrong once, each found by reading rather than by search.

use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use everlog::fs::{Fault, FaultFs, Gate, Op, Rule, SimFs};
use everlog::{Background, Config, ErrorKind, Journal, Log, WriteBatch};

use super::recorder::Recorder;
use super::support::{
    A, batches_of, disk, dynamic, entry, keep_all, last_segment, one_log, open, payloads, segments, usage,
};

/// A handle that outlives `close` goes on working while the next life writes: it must touch nothing. Its pool would rename a
/// file of zeros over the segment to which that life writes.
#[test]
fn work_after_close_touches_nothing() {
    let disk = disk(1);
    let (journal, log) = one_log(&disk);
    let mut count = 0;
    while segments(&disk).len() < 2 {
        log.append(entry(count, 900)).unwrap();
        count += 1;
    }
    let old = journal.clone();
    drop(log);
    journal.close().unwrap();
    let journal = open(&disk, "the next life");
    let log = journal.log(A).unwrap();
    while segments(&disk).len() < 5 {
        log.append(entry(count, 900)).unwrap();
        count += 1;
    }
    let before = keep_all(&disk).dump();
    for _ in 0..4 {
        let _ = old.work();
    }
    assert!(
        keep_all(&disk).dump() == before,
        "the old handle changed the directory"
    );
    let again = open(&keep_all(&disk), "after all");
    assert_eq!(payloads(&again.log(A).unwrap()).len() as u64, count);
    drop((log, journal, old));
}

/// Operations that turn out to change nothing (a purge to where the log begins, a truncate at its end) take no room: else
/// each claims its bytes for good, and the journal prepares file after file for them.
#[test]
fn operations_without_effect_claim_no_files() {
    let disk = disk(2);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 100)).unwrap();
    while journal.work().unwrap() {}
    let before = usage(&disk);
    for _ in 0..1000 {
        log.purge_to(0).unwrap();
        log.truncate_from(1).unwrap();
        while journal.work().unwrap() {}
    }
    assert_eq!(usage(&disk), before);
    drop((log, journal));
}

/// A relaxed write is synced within its delay, although the committer sleeps towards a mark that is due much later.
#[test]
fn a_relaxed_write_is_synced_in_time_while_the_synced_mark_is_far() {
    let disk = disk(3);
    let config = Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .relaxed_delay(Duration::from_millis(50))
        .mark_delays(Duration::from_millis(10), Duration::from_secs(30));
    let journal = Journal::create_on(dynamic(&disk), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    log.append(entry(0, 100)).unwrap();
    until("the mark is written, and the committer sleeps for 30 s", || {
        journal.metrics().marks > 0
    });
    log.append_relaxed(entry(1, 100)).unwrap();
    until("the relaxed write is synced", || log.durable_end().unwrap() == 2);
    drop((log, journal));
}

/// "Never" is a delay, too.
#[test]
fn delays_without_end_do_not_kill_the_committer() {
    let disk = disk(4);
    let config = Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .relaxed_delay(Duration::MAX)
        .mark_delays(Duration::MAX, Duration::MAX);
    let journal = Journal::create_on(dynamic(&disk), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    log.append_relaxed(entry(0, 100)).unwrap();
    let (told, hears) = mpsc::channel();
    log.submit(entry(1, 100))
        .unwrap()
        .on_done(move |outcome| told.send(outcome.is_ok()).unwrap());
    assert_eq!(hears.recv_timeout(Duration::from_secs(5)), Ok(true));
    drop(log);
    journal.close().unwrap();
}

/// All room is held by a permit, which only its owner can give back: without threads an append goes over the bound, as it does
/// with them, rather than spin for ever.
#[test]
fn a_permit_does_not_hang_an_append_of_its_own_thread() {
    let (told, hears) = mpsc::channel();
    thread::spawn(move || {
        let disk = disk(7);
        let (journal, log) = one_log(&disk);
        let mut room = Box::pin(journal.room(4 << 10));
        let polled = room.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let std::task::Poll::Ready(Ok(permit)) = polled else {
            panic!("there is room")
        };
        log.append(entry(0, 100)).unwrap();
        drop(permit);
        told.send(()).unwrap();
    });
    assert!(hears.recv_timeout(Duration::from_secs(10)).is_ok());
}

/// A permit for all the bytes that there are, beside a cell, which takes what it needs: the sum of both is no number, and no panic.
#[test]
fn a_permit_for_everything_overflows_nothing() {
    let disk = disk(8);
    let (journal, log) = one_log(&disk);
    let mut room = Box::pin(journal.room(u64::MAX));
    let polled = room.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let std::task::Poll::Ready(Ok(permit)) = polled else {
        panic!("nothing else is held")
    };
    let mut batch = WriteBatch::new();
    batch.set(A, 0, b"vote");
    let vote = journal.submit(batch).unwrap();
    let mut batch = WriteBatch::new();
    batch.append(A, entry(0, 100));
    let refused = journal.try_submit(batch).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Busy, "all room is held");
    drop(permit);
    vote.wait().unwrap();
    log.append(entry(0, 100)).unwrap();
}

/// A journal on a full disk whose reserve is used up, with room for a purge; `None` unless what freeing says again has none.
fn purged_on_a_full_disk(last: usize) -> Option<(SimFs, Journal, Log, u64)> {
    let disk = disk(9);
    let (journal, log) = one_log(&disk);
    disk.set_capacity(usage(&disk).0.div_ceil(4096) * 4096 + (160 << 10));
    let refused = |at: &u64| log.append(entry(*at, 900)).is_err();
    let count = (0..10_000).find(refused).expect("the disk is full at some time");
    disk.set_capacity(usage(&disk).0);
    for len in [3000, 900, last] {
        let refused = (0..50).find_map(|n: u8| log.set(n % 4, vec![n; len]).err());
        let refused = refused.expect("the reserve has an end");
        assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
    }
    log.purge_to(count - 1).ok()?;
    while journal.work().unwrap() {}
    (journal.metrics().segments_freed == 0).then_some((disk, journal, log, count))
}

/// "It goes on when there is room for a segment more": whoever purged does not ask a second time, and is refused each append until
/// what was purged is freed.
#[test]
fn what_a_full_disk_kept_from_being_freed_goes_when_there_is_room() {
    let mut met = 0;
    for last in (100..500).step_by(20) {
        let Some((disk, journal, log, count)) = purged_on_a_full_disk(last) else {
            continue;
        };
        met += 1;
        disk.set_capacity(usage(&disk).0.div_ceil(4096) * 4096 + (20 << 10));
        while journal.work().unwrap() {}
        let freed = journal.metrics().segments_freed;
        assert!(freed > 0, "cells of {last} bytes: nothing was freed");
        log.append(entry(count, 900))
            .unwrap_or_else(|e| panic!("cells of {last} bytes: {e}"));
        let again = open(&disk.crash(last as u64), "after");
        assert_eq!(again.log(A).unwrap().bounds().unwrap(), count - 1..count + 1);
    }
    assert!(met > 0, "the disk was never that full");
}

struct Holds {
    _journal: Journal,
}

impl Wake for Holds {
    fn wake(self: Arc<Self>) {}
}

/// The last handle is held by a task that its executor gave up: the waker drops it, on the thread that leads the flush.
#[test]
fn a_waker_that_drops_the_last_handle_does_not_hang() {
    for background in [Background::Threads, Background::Caller] {
        let (told, hears) = mpsc::channel();
        let disk = disk(5);
        let on = disk.clone();
        thread::spawn(move || {
            let config = Config::new()
                .segment_bytes(16 << 10)
                .in_flight_bytes(4 << 10)
                .background(background);
            let journal = Journal::create_on(dynamic(&on), config).unwrap();
            let log = journal.create_log(A, 0).unwrap();
            let mut ticket = log.submit(entry(0, 100)).unwrap();
            let other = log.submit(entry(1, 100)).unwrap();
            drop(log);
            let waker = Waker::from(Arc::new(Holds { _journal: journal }));
            let polled = std::pin::Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker));
            drop(waker);
            let _ = polled;
            let _ = other.wait();
            drop(ticket);
            told.send(()).unwrap();
        });
        assert!(
            hears.recv_timeout(Duration::from_secs(10)).is_ok(),
            "{background:?}: the flush never ended"
        );
        // What was let go of is released, at once or soon.
        let mut opened = Journal::open_on(dynamic(&disk), super::support::small());
        until("the directory is let go", || {
            if opened.is_err() {
                opened = Journal::open_on(dynamic(&disk), super::support::small());
            }
            opened.is_ok()
        });
        assert_eq!(payloads(&opened.unwrap().log(A).unwrap()).len(), 2);
    }
}

/// Cells grow between the estimate of their restatement and its place in the order: it must not be written beyond the end of its
/// segment, where no reader goes.
#[test]
fn cells_that_grow_while_they_are_restated_stay_within_the_segment() {
    for fill in (0..8).map(|n| 1000 * n) {
        let disk = disk(6);
        let faults = FaultFs::new(Arc::new(disk.clone()));
        let config = Config::new()
            .segment_bytes(36 << 10)
            .in_flight_bytes(8 << 10)
            .background(Background::Caller);
        let journal = Journal::create_on(Arc::new(faults.clone()), config.clone()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        for from in (0..140).step_by(35) {
            let mut batch = WriteBatch::new();
            for cell in from..from + 35 {
                batch.set(A, cell, [7; 8]);
            }
            journal.write(batch).unwrap();
        }
        let mut count = 0;
        while segments(&disk).len() < 2 {
            log.append(entry(count, 700)).unwrap();
            count += 1;
        }
        let used = || batches_of(&disk, &last_segment(&disk)).last().unwrap().end() - 8192;
        while used() < fill {
            log.append(entry(count, 100)).unwrap();
            count += 1;
        }
        log.purge_to(count).unwrap();
        let gate = Gate::default();
        faults.add(Rule::on(Op::Create, Fault::Delay(gate.clone())).path(".tmp"));
        let reclaiming = {
            let journal = journal.clone();
            thread::spawn(move || journal.reclaim().unwrap())
        };
        gate.wait_for_arrivals(1);
        log.set(0, [8; 7900]).unwrap();
        gate.release();
        let freed = reclaiming.join().unwrap();
        assert!(freed.segments > 0, "fill {fill}");
        for path in segments(&disk) {
            assert!(disk.files()[&path] <= 36 << 10, "fill {fill}: {path} grew");
        }
        log.append(entry(count, 100)).unwrap();
        let again = Journal::open_on(dynamic(&keep_all(&disk)), config)
            .unwrap_or_else(|e| panic!("fill {fill}: {e}"));
        let found = again.log(A).unwrap();
        assert_eq!(found.cell(0).unwrap().unwrap().len(), 7900, "fill {fill}");
        assert_eq!(found.cell(139).unwrap().unwrap().len(), 8, "fill {fill}");
        assert_eq!(found.bounds().unwrap(), count..count + 1, "fill {fill}");
        drop((log, journal));
    }
}

/// A file system that panics in the middle of a flush ends the journal like one that fails twice: whoever waits is told, nobody waits
/// for ever, and nothing more is written where it stopped.
#[test]
fn a_panic_in_a_flush_closes_the_journal_and_hangs_nobody() {
    for background in [Background::Threads, Background::Caller] {
        let (told, hears) = mpsc::channel();
        thread::spawn(move || {
            let disk = disk(8);
            let recorder = Recorder::new(dynamic(&disk));
            let config = Config::new()
                .segment_bytes(16 << 10)
                .in_flight_bytes(4 << 10)
                .background(background);
            let journal = Journal::create_on(Arc::new(recorder.clone()), config).unwrap();
            let log = journal.create_log(A, 0).unwrap();
            log.append(entry(0, 900)).unwrap();
            log.append_relaxed(entry(1, 900)).unwrap();
            recorder.panic();
            let error = log.append(entry(2, 900)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unknown);
            assert!(error.to_string().contains("told to panic"), "{error}");
            for _ in 0..10 {
                let error = log.append_relaxed(entry(3, 900)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            }
            assert_eq!(log.get(0).unwrap(), entry(0, 900));
            let writes = recorder.events().len();
            drop(log);
            assert_eq!(journal.close().unwrap_err().kind(), ErrorKind::Unknown);
            assert_eq!(recorder.events().len(), writes);
            assert!(payloads(&open(&disk, "after all").log(A).unwrap()).len() >= 2);
            told.send(()).unwrap();
        });
        assert!(
            hears.recv_timeout(Duration::from_secs(10)).is_ok(),
            "{background:?}: somebody hangs, or see above"
        );
    }
}

/// Waits for what must come long before half a minute is over.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}: not yet");
        thread::yield_now();
    }
}
