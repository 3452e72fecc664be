//! Handles, threads and callbacks: who flushes when nobody waits, what may be called where, and what a closed journal says.
//! Real threads on a real directory where the history is one of threads; a watchdog ends a test that hangs.

use std::future::Future;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use everlog::fs::{Fs, RealFs};
use everlog::{Config, ErrorKind, Journal, Log, LogKey, WriteBatch};

use super::support::{A, B, disk, dynamic, entry, one_log, open, payloads, small};

const HOUR: Duration = Duration::from_secs(3600);

/// Threads, and nothing that comes by itself within the life of a test.
fn threaded() -> Config {
    Config::new()
        .segment_bytes(64 << 10)
        .in_flight_bytes(16 << 10)
        .relaxed_delay(HOUR)
        .mark_delays(HOUR, HOUR)
}

/// Runs `test` on a thread of its own and fails if that does not end.
fn within_a_minute(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}

fn got<T>(receiver: &Receiver<T>) -> T {
    receiver
        .recv_timeout(Duration::from_secs(30))
        .expect("it never comes")
}

fn real(config: Config) -> (tempfile::TempDir, Journal, Log) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::create(dir.path().join("j"), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    (dir, journal, log)
}

fn one(payload: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.append(A, payload);
    batch
}

/// Table: "one thread, `try_submit` with a callback, then sleep - the callback comes" (rule 25). Nobody else flushes, no timer is
/// near; relaxed tickets and plain submits as well.
#[test]
fn a_callback_comes_although_nobody_waits() {
    within_a_minute(|| {
        let (_dir, journal, log) = real(threaded());
        let (told, answers) = channel();
        for i in 0..60_u64 {
            let batch = one(&entry(i, 200));
            let ticket = match i % 3 {
                0 => journal.try_submit(batch).map_err(|refused| refused.error),
                1 => journal.submit_relaxed(batch),
                _ => journal.submit(batch),
            };
            let ticket = match ticket {
                Ok(ticket) => ticket,
                // The next segment is being prepared.
                Err(error) if error.kind() == ErrorKind::Busy => journal.submit(one(&entry(i, 200))).unwrap(),
                Err(error) => panic!("{error}"),
            };
            let told = told.clone();
            ticket.on_done(move |result| told.send(result.unwrap().ids[0].index).unwrap());
            assert_eq!(got(&answers), i, "then sleeps until it is told");
        }
        assert_eq!(log.bounds().unwrap(), 0..60);
    });
}

/// Rule 25: "`submit` wakes it when no flush runs": nobody waits, polls or is called back.
#[test]
fn a_submitted_write_becomes_durable_although_its_ticket_is_dropped() {
    within_a_minute(|| {
        let (_dir, journal, log) = real(threaded());
        for i in 0..30 {
            drop(journal.submit(one(&entry(i, 100))).unwrap());
            while log.durable_end().unwrap() == i {
                std::thread::yield_now();
            }
        }
    });
}

/// The same for a future on a thread that parks: its waker is called.
#[test]
fn a_future_resolves_although_nobody_waits() {
    within_a_minute(|| {
        let (_dir, journal, _log) = real(threaded());
        for i in 0..30 {
            let ticket = journal.submit(one(&entry(i, 100))).unwrap();
            assert_eq!(block_on(ticket).unwrap().ids[0].index, i);
        }
    });
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match std::pin::Pin::new(&mut future).poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Rule 25: "Reaching the in-flight bound starts a sync": relaxed writes alone, many times the bound, by several threads, with no
/// timer near.
#[test]
fn relaxed_writes_beyond_the_bound_go_on() {
    within_a_minute(|| {
        let (_dir, journal, log) = real(threaded());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..60 {
                        log.append_relaxed(entry(i, 1500)).unwrap();
                    }
                });
            }
        });
        assert_eq!(log.bounds().unwrap(), 0..240);
        journal.close().unwrap();
    });
}

/// Relaxed writes are synced after their delay, by nobody's call.
#[test]
fn relaxed_writes_are_synced_after_their_delay() {
    within_a_minute(|| {
        let (_dir, _journal, log) = real(threaded().relaxed_delay(Duration::from_millis(5)));
        log.append_relaxed(b"soon durable").unwrap();
        while log.durable_end().unwrap() == 0 {
            std::thread::yield_now();
        }
    });
}

/// The same when the committer sleeps already, until something that is due much later: the mark that is synced after a long idle time.
#[test]
fn a_relaxed_write_wakes_a_committer_that_would_sleep_longer() {
    within_a_minute(|| {
        let delays = threaded().relaxed_delay(Duration::from_millis(2));
        let (_dir, journal, log) = real(delays.mark_delays(Duration::from_millis(1), HOUR));
        for _ in 0..20 {
            let marks = journal.metrics().marks;
            log.append(b"durable").unwrap();
            while journal.metrics().marks == marks {
                std::thread::yield_now();
            }
            // It goes to sleep soon.
            (0..10).for_each(|_| std::thread::yield_now());
            let id = log.append_relaxed(b"soon durable").unwrap();
            while log.durable_end().unwrap() <= id.index {
                std::thread::yield_now();
            }
        }
    });
}

/// "Space is freed in the background": a purge alone wakes whoever frees, though nothing else has anything for it to do.
#[test]
fn a_purge_frees_space_although_nobody_asks_for_it() {
    within_a_minute(|| {
        let (dir, journal, log) = real(threaded());
        while journal.metrics().rotations < 3 {
            log.append(entry(0, 9000)).unwrap();
        }
        let indexes = || {
            let names = std::fs::read_dir(dir.path().join("j/journal")).unwrap();
            let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.ends_with(".idx")).count()
        };
        while indexes() < 3 {
            std::thread::yield_now();
        }
        (0..10).for_each(|_| std::thread::yield_now());
        log.purge_to(log.bounds().unwrap().end).unwrap();
        while journal.metrics().segments_freed == 0 {
            std::thread::yield_now();
        }
    });
}

/// Rule 32: "Last handle dropped inside a callback: must not join its own thread." The directory is free afterwards.
#[test]
fn the_last_handle_may_be_dropped_inside_a_callback() {
    within_a_minute(|| {
        for _ in 0..10 {
            let (dir, journal, log) = real(threaded());
            let ticket = journal.submit(one(b"x")).unwrap();
            let (told, answer) = channel();
            drop(log);
            ticket.on_done(move |_| {
                drop(journal);
                told.send(()).unwrap();
            });
            got(&answer);
            let again = Journal::open(dir.path().join("j"), threaded()).unwrap();
            assert_eq!(again.log(A).unwrap().bounds().unwrap(), 0..1);
        }
    });
}

/// The same without threads, where callbacks run in `work`.
#[test]
fn a_handle_may_be_dropped_or_closed_inside_a_callback_without_threads() {
    let disk = disk(1);
    let (journal, log) = one_log(&disk);
    let clone = journal.clone();
    let (told, answer) = channel();
    journal.submit(one(b"x")).unwrap().on_done(move |result| {
        drop(clone);
        told.send(result.map(|_| ())).unwrap();
    });
    assert!(journal.work().unwrap());
    answer.try_recv().unwrap().unwrap();
    drop((log, journal));
    assert_eq!(payloads(&open(&disk, "again").log(A).unwrap()).len(), 1);
}

/// The same of callbacks that are due when it is closed.
#[test]
fn a_close_without_threads_runs_the_callbacks_that_are_due() {
    let (journal, log) = one_log(&disk(7));
    let (told, answer) = channel();
    let ticket = log.submit(b"x").unwrap();
    ticket.on_done(move |result| told.send(result.is_ok()).unwrap());
    journal.close().unwrap();
    assert!(answer.try_recv().unwrap());
}

/// A waker may own the last handle: a task that nobody holds any more is dropped by whoever wakes it, here the thread that flushes.
#[test]
fn the_last_handle_may_be_dropped_by_a_waker() {
    struct Task(Mutex<Option<Journal>>, Mutex<Option<std::sync::mpsc::Sender<()>>>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
            let told = self.1.lock().unwrap().take();
            told.map(|told| told.send(()));
        }
    }
    within_a_minute(|| {
        for _ in 0..10 {
            let (dir, journal, log) = real(threaded());
            drop(log);
            let mut ticket = journal.submit(one(b"x")).unwrap();
            let (told, answer) = channel();
            let task = Arc::new(Task(Mutex::new(Some(journal)), Mutex::new(Some(told))));
            let waker = Waker::from(task);
            let polled = std::pin::Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker));
            drop((ticket, waker));
            if polled.is_pending() {
                got(&answer);
            }
            // Whoever shuts down may still be at it.
            let again = loop {
                match Journal::open(dir.path().join("j"), threaded()) {
                    Err(error) if error.kind() == ErrorKind::Locked => std::thread::yield_now(),
                    opened => break opened.unwrap(),
                }
            };
            assert_eq!(again.log(A).unwrap().bounds().unwrap(), 0..1);
        }
    });
}

/// Section 4: "blocking calls from a callback return `Invalid`"; what does not block works.
#[test]
fn a_blocking_call_inside_a_callback_is_invalid() {
    within_a_minute(|| {
        let (_dir, journal, log) = real(threaded());
        let (told, answers) = channel();
        let (inner, inner_log) = (journal.clone(), log.clone());
        journal.submit(one(b"x")).unwrap().on_done(move |_| {
            let blocking = [
                inner.write(one(b"y")).map(drop),
                inner_log.append(b"y").map(drop),
                inner_log.set(0, b"y"),
                inner_log.truncate_from(0),
                inner.create_log(B, 0).map(drop),
                inner.delete_log(A),
                inner.sync(),
                inner.reclaim().map(drop),
                inner
                    .submit(one(b"submitted inside"))
                    .and_then(|ticket| ticket.wait())
                    .map(drop),
                inner.clone().close(),
            ];
            let kinds: Vec<_> = blocking
                .into_iter()
                .map(|result| result.err().map(|error| error.kind()))
                .collect();
            let reading = inner_log.get(0).is_ok();
            told.send((kinds, reading)).unwrap();
        });
        let (kinds, reading) = got(&answers);
        assert!(
            kinds.iter().all(|kind| *kind == Some(ErrorKind::Invalid)),
            "{kinds:?}"
        );
        assert!(reading);
        journal.sync().unwrap();
        let expected = [b"x".to_vec(), b"submitted inside".to_vec()];
        assert_eq!(
            payloads(&log),
            expected,
            "a refused call does nothing; a refused wait cancels nothing"
        );
    });
}

/// A callback that panics ends nothing.
#[test]
fn a_panicking_callback_ends_nothing() {
    within_a_minute(|| {
        let (_dir, journal, log) = real(threaded());
        journal
            .submit(one(b"x"))
            .unwrap()
            .on_done(|_| panic!("this one is on purpose"));
        let (told, answer) = channel();
        journal
            .submit(one(b"y"))
            .unwrap()
            .on_done(move |result| told.send(result.is_ok()).unwrap());
        assert!(got(&answer));
        log.append(b"z").unwrap();
    });
}

/// "closed journal: later calls Closed", for every call and every clone; tickets taken before are kept.
#[test]
fn a_closed_journal_says_closed() {
    let disk = disk(2);
    let (journal, log) = one_log(&disk);
    let (clone, reader) = (journal.clone(), log.clone());
    let ticket = journal.submit(one(b"before")).unwrap();
    let late = journal.submit_relaxed(one(b"relaxed")).unwrap();
    journal.close().unwrap();
    ticket.wait().unwrap();
    late.wait().unwrap();
    let results = [
        clone.write(one(b"x")).map(drop),
        clone.write_relaxed(one(b"x")).map(drop),
        clone.submit(one(b"x")).map(drop),
        clone
            .try_submit(one(b"x"))
            .map(drop)
            .map_err(|refused| refused.error),
        clone.sync(),
        clone.reclaim().map(drop),
        clone.create_log(B, 0).map(drop),
        clone.delete_log(A),
        clone.log(A).map(drop),
        block_on(clone.room(10)).map(drop),
        reader.append(b"x").map(drop),
        reader.set(0, b"x"),
        reader.get(0).map(drop),
        reader.bounds().map(drop),
        reader.cell(0).map(drop),
        reader.read(0..1).next().unwrap().map(drop),
    ];
    for (n, result) in results.into_iter().enumerate() {
        assert_eq!(
            result.expect_err(&format!("call {n}")).kind(),
            ErrorKind::Closed,
            "call {n}"
        );
    }
    clone.close().unwrap();
    drop((log, reader));
    assert_eq!(
        payloads(&open(&disk, "again").log(A).unwrap()).len(),
        2,
        "close drained what was submitted"
    );
}

/// "Two opens: `Locked` naming the holder", on the simulated disk and on a real one; a clone of the handle is no second open.
#[test]
fn a_second_open_is_locked_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let real: Arc<dyn Fs> = Arc::new(RealFs::create(dir.path().join("j")).unwrap());
    for fs in [dynamic(&disk(3)), real] {
        let journal = Journal::create_on(Arc::clone(&fs), small()).unwrap();
        let errors = [
            Journal::open_on(Arc::clone(&fs), small()).unwrap_err(),
            Journal::create_on(Arc::clone(&fs), small()).unwrap_err(),
            Journal::open_or_create_on(Arc::clone(&fs), small()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
            assert!(
                error.to_string().contains(&format!("pid {}", std::process::id())),
                "{error}"
            );
        }
        journal.write(WriteBatch::new()).unwrap();
        drop(journal);
        drop(Journal::open_on(Arc::clone(&fs), small()).unwrap());
    }
}

/// "A directory that is not a journal: `NotFound`, and nothing is created in it"; nor is the directory itself.
#[test]
fn a_directory_without_a_journal_is_not_found_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data.txt"), b"x").unwrap();
    let missing = dir.path().join("missing");
    for path in [dir.path(), &missing] {
        let error = Journal::open(path, small()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    assert_eq!(
        Journal::open(dir.path(), small()).unwrap_err().kind(),
        ErrorKind::NotFound,
        "an empty `journal` is none"
    );
    let names = |path: &std::path::Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!(
        (
            names(dir.path()),
            names(&dir.path().join("journal")),
            missing.exists()
        ),
        (2, 0, false)
    );
    assert!(
        Journal::open(dir.path().join("data.txt"), small()).is_err(),
        "a file is no directory"
    );
}

/// Rule 26: room is a permit: nobody takes it away once it was given; dropping it, or a future in line, passes it on.
#[test]
fn room_is_kept_by_its_permit_and_passed_on_when_dropped() {
    within_a_minute(|| {
        let (_dir, journal, _log) = real(threaded());
        let whole = 16 << 10;
        let permit = block_on(journal.room(whole)).unwrap();
        let refused = journal.try_submit(one(&entry(0, 1000))).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::Busy, "the permit holds it all");
        let mut second = journal.room(whole);
        let mut third = journal.room(whole);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        assert!(std::pin::Pin::new(&mut second).poll(&mut context).is_pending());
        assert!(std::pin::Pin::new(&mut third).poll(&mut context).is_pending());
        journal
            .submit_with(permit, one(&entry(0, 1000)))
            .unwrap()
            .wait()
            .unwrap();
        drop(block_on(second).unwrap());
        let third = block_on(third).unwrap();
        journal
            .submit_with(third, one(&entry(1, 1000)))
            .unwrap()
            .wait()
            .unwrap();
    });
}

/// Rule 26: "Only `room` waiters queue on it; cells, truncate, purge, delete never do": a task that holds all room, and a second
/// one at the head of the line, keep no control write out; and a thread that submits is let through.
#[test]
fn held_room_keeps_no_control_write_and_no_thread_out() {
    within_a_minute(|| {
        let (_dir, journal, log) = real(threaded());
        log.append(b"x").unwrap();
        let held = block_on(journal.room(16 << 10)).unwrap();
        log.set(0, b"vote").unwrap();
        log.append(entry(1, 2000)).unwrap();
        log.truncate_from(1).unwrap();
        log.purge_to(1).unwrap();
        drop(held);
    });
}

/// The same without threads: a permit held by the caller's own thread does not stop its own append.
#[test]
fn held_room_does_not_stop_its_own_thread_without_threads() {
    within_a_minute(|| {
        let disk = disk(4);
        let (journal, log) = one_log(&disk);
        let held = block_on(journal.room(4 << 10)).unwrap();
        log.append(entry(0, 1000)).unwrap();
        log.set(0, b"vote").unwrap();
        journal
            .submit_with(held, one(&entry(1, 1000)))
            .unwrap()
            .wait()
            .unwrap();
    });
}

/// A permit of another journal is `Invalid`.
#[test]
fn a_permit_of_another_journal_is_invalid() {
    let (first, second) = (disk(5), disk(6));
    let ((one_journal, _a), (other, _b)) = (one_log(&first), one_log(&second));
    let permit = block_on(other.room(1000)).unwrap();
    assert_eq!(
        one_journal.submit_with(permit, one(b"x")).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

/// `work` belongs to journals without threads.
#[test]
fn work_is_invalid_with_threads() {
    let (_dir, journal, _log) = real(threaded());
    assert_eq!(journal.work().unwrap_err().kind(), ErrorKind::Invalid);
}

/// Many threads, one flush at a time: every acknowledged entry is there after reopening, in the order of its index.
#[test]
fn many_threads_share_flushes_and_lose_nothing() {
    within_a_minute(|| {
        let (dir, journal, log) = real(threaded());
        let ids: Mutex<Vec<(u64, Vec<u8>)>> = Mutex::default();
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (log, ids) = (log.clone(), &ids);
                scope.spawn(move || {
                    for i in 0..25 {
                        let payload = entry(thread * 1000 + i, 60);
                        let id = log.append(&payload).unwrap();
                        ids.lock().unwrap().push((id.index, payload));
                    }
                });
            }
        });
        let mut expected = ids.into_inner().unwrap();
        expected.sort();
        drop((log, journal));
        let again = Journal::open(dir.path().join("j"), threaded()).unwrap();
        let found = payloads(&again.log(A).unwrap());
        assert_eq!(found.len(), 200);
        for ((index, payload), found) in expected.iter().zip(&found) {
            assert_eq!(payload, found, "entry {index}");
        }
        assert_eq!(again.logs(), [LogKey(1)]);
    });
}
