//! The queue with real threads and a flush that records what it was given.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::{Flush, Queue};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::completions::{Completions, inside_callback};
use crate::journal::group::Group;
use crate::journal::ticket::{Driver, Ticket};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex, Signal, thread};

type Item = u64;

/// Remembers the groups it was given; fails, panics or blocks when told to.
#[derive(Default)]
struct Recorder {
    groups: Mutex<Vec<(Vec<Item>, bool)>>,
    busy: AtomicBool,
    overlapped: AtomicBool,
    fail: AtomicBool,
    panic: AtomicBool,
    gate: Gate,
}

/// While shut, a flush that has begun does not end.
#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
    inside: AtomicUsize,
}

impl Gate {
    fn shut(&self) {
        *self.shut.lock() = true;
    }

    fn open(&self) {
        *self.shut.lock() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.shut.lock();
        self.inside.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_all();
        while *shut {
            self.changed.wait(&mut shut);
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns when a flush stands at the gate.
    fn await_one(&self) {
        let mut shut = self.shut.lock();
        while self.inside.load(Ordering::SeqCst) == 0 {
            self.changed.wait(&mut shut);
        }
    }
}

impl Flush<Item> for Recorder {
    fn flush(&self, items: Vec<Item>, sync: bool) -> Result<()> {
        if self.busy.swap(true, Ordering::SeqCst) {
            self.overlapped.store(true, Ordering::SeqCst);
        }
        self.groups.lock().push((items, sync));
        self.gate.pass();
        self.busy.store(false, Ordering::SeqCst);
        assert!(!self.panic.load(Ordering::SeqCst), "told to panic");
        match self.fail.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unknown, "told to fail")),
            false => Ok(()),
        }
    }
}

impl Recorder {
    fn items(&self) -> Vec<Item> {
        self.groups
            .lock()
            .iter()
            .flat_map(|(items, _)| items.clone())
            .collect()
    }
}

/// A queue, its flush, and a committer thread if asked for.
struct Bench {
    queue: Queue<Item>,
    flush: Recorder,
    signal: Arc<Signal>,
    stop: AtomicBool,
    completions: Completions,
}

impl Driver for Bench {
    fn wait(&self, group: &Arc<Group>, deadline: Option<Instant>) -> Option<Result<()>> {
        self.queue.wait(group, &self.flush, deadline)
    }

    fn nudge(&self) {
        self.queue.nudge();
    }
}

impl Bench {
    fn new(completions: Completions) -> Arc<Bench> {
        let signal = Arc::new(Signal::new());
        Arc::new(Bench {
            queue: Queue::new(completions.clone(), signal.clone()),
            flush: Recorder::default(),
            signal,
            stop: AtomicBool::new(false),
            completions,
        })
    }

    fn committer(self: &Arc<Bench>) -> thread::JoinHandle<()> {
        let bench = self.clone();
        thread::spawn("committer", move || {
            while !bench.stop.load(Ordering::SeqCst) {
                bench.signal.wait(None);
                while bench.queue.lead(&bench.flush) {}
            }
        })
        .unwrap()
    }

    fn stop(&self, committer: thread::JoinHandle<()>) {
        self.stop.store(true, Ordering::SeqCst);
        self.signal.wake();
        committer.join().unwrap();
    }

    fn submit(self: &Arc<Bench>, item: Item) -> Ticket<Item> {
        let pushed = self.queue.push(item, true);
        if pushed.idle {
            self.queue.nudge();
        }
        Ticket::new(item, pushed.group, self.clone())
    }

    fn wait(&self, group: &Arc<Group>) -> Result<()> {
        self.queue.wait(group, &self.flush, None).unwrap()
    }
}

struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counted() -> (Arc<Counted>, Waker) {
    let counted = Arc::new(Counted(AtomicUsize::new(0)));
    (counted.clone(), Waker::from(counted))
}

/// Order of pushes is order of flushing, and no two flushes overlap, however the threads race to lead.
#[test]
fn many_writers_keep_order_and_lose_nothing() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 3_000;
    let bench = Bench::new(Completions::inline());
    let order = Arc::new(Mutex::new(Vec::new()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (bench, order) = (bench.clone(), order.clone());
            thread::spawn("writer", move || {
                for n in 0..EACH {
                    let item = writer * EACH + n;
                    let pushed = {
                        let mut order = order.lock();
                        order.push(item);
                        bench.queue.push(item, true)
                    };
                    bench.wait(&pushed.group).unwrap();
                }
            })
            .unwrap()
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(bench.flush.items(), *order.lock());
    assert!(!bench.flush.overlapped.load(Ordering::SeqCst));
    assert!(bench.queue.is_idle());
    assert!(bench.flush.groups.lock().len() <= order.lock().len());
}

/// Waiters, timed waiters, tasks, callbacks and dropped tickets together, with a committer.
#[test]
fn every_kind_of_ticket_resolves_under_load() {
    const WRITERS: u64 = 6;
    const EACH: u64 = 1_000;
    let bench = Bench::new(Completions::threaded());
    let committer = bench.committer();
    let called = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (bench, called) = (bench.clone(), called.clone());
            thread::spawn("writer", move || {
                for n in 0..EACH {
                    let ticket = bench.submit(n);
                    match (writer + n) % 5 {
                        0 => assert_eq!(ticket.wait().unwrap(), n),
                        1 => match ticket.wait_timeout(Duration::from_micros(n % 50)) {
                            Ok(result) => assert_eq!(result.unwrap(), n),
                            Err(ticket) => assert_eq!(ticket.wait().unwrap(), n),
                        },
                        2 => drop(ticket),
                        3 => assert_eq!(block_on(ticket).unwrap(), n),
                        _ => {
                            let called = called.clone();
                            ticket.on_done(move |result| {
                                result.unwrap();
                                called.fetch_add(1, Ordering::SeqCst);
                            });
                        }
                    }
                }
            })
            .unwrap()
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    bench.queue.drain(&bench.flush);
    bench.completions.shutdown();
    bench.stop(committer);
    assert_eq!(bench.flush.items().len() as u64, WRITERS * EACH);
    assert_eq!(called.load(Ordering::SeqCst), WRITERS * EACH / 5);
    assert!(!bench.flush.overlapped.load(Ordering::SeqCst));
}

fn block_on<T>(mut future: impl Future<Output = T> + Unpin) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = Pin::new(&mut future).poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

#[test]
fn what_comes_during_a_flush_forms_one_group_led_by_one_of_its_waiters() {
    let bench = Bench::new(Completions::inline());
    bench.flush.gate.shut();
    let spawn = |item: Item| {
        let pushed = bench.queue.push(item, true);
        let bench = bench.clone();
        thread::spawn("writer", move || bench.wait(&pushed.group)).unwrap()
    };
    let first = spawn(0);
    bench.flush.gate.await_one();
    let others: Vec<_> = (1..6).map(spawn).collect();
    while bench.queue.state.lock().open.waiters < others.len() {
        std::thread::yield_now();
    }
    bench.flush.gate.open();
    first.join().unwrap().unwrap();
    others
        .into_iter()
        .for_each(|other| other.join().unwrap().unwrap());
    let groups = bench.flush.groups.lock();
    assert_eq!(*groups, [(vec![0], true), ((1..6).collect(), true)]);
    assert!(
        !bench.signal.wait(Some(Instant::now())),
        "the committer was not needed"
    );
}

#[test]
fn a_group_is_synced_if_one_of_its_items_asks_for_it() {
    let bench = Bench::new(Completions::inline());
    bench.queue.push(1, false);
    bench.queue.push(2, false);
    assert!(bench.queue.lead(&bench.flush));
    bench.queue.push(3, false);
    bench.queue.push(4, true);
    bench.queue.push(5, false);
    assert!(bench.queue.lead(&bench.flush));
    assert!(!bench.queue.lead(&bench.flush), "nothing is left");
    let groups = bench.flush.groups.lock();
    assert_eq!(*groups, [(vec![1, 2], false), (vec![3, 4, 5], true)]);
}

#[test]
fn submit_alone_brings_the_committer() {
    let bench = Bench::new(Completions::threaded());
    let committer = bench.committer();
    let (tell, told) = mpsc::channel();
    for n in 0..100 {
        let tell = tell.clone();
        bench
            .submit(n)
            .on_done(move |result| tell.send(result.unwrap()).unwrap());
        assert_eq!(told.recv().unwrap(), n);
    }
    bench.stop(committer);
}

#[test]
fn a_flush_that_fails_fails_its_group_and_no_other() {
    let bench = Bench::new(Completions::inline());
    bench.flush.fail.store(true, Ordering::SeqCst);
    let lost = bench.submit(1);
    let lost_too = bench.submit(2);
    assert_eq!(lost.wait().unwrap_err().kind(), ErrorKind::Unknown);
    bench.flush.fail.store(false, Ordering::SeqCst);
    assert_eq!(bench.submit(3).wait().unwrap(), 3);
    assert_eq!(lost_too.wait().unwrap_err().kind(), ErrorKind::Unknown);
}

#[test]
fn a_flush_that_panics_is_unknown_and_the_last() {
    let bench = Bench::new(Completions::inline());
    bench.flush.panic.store(true, Ordering::SeqCst);
    assert_eq!(bench.submit(1).wait().unwrap_err().kind(), ErrorKind::Unknown);
    bench.flush.panic.store(false, Ordering::SeqCst);
    assert_eq!(bench.submit(2).wait().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(bench.flush.items(), [1]);
}

/// A waiter that gives up after it was invited hands the invitation to another waiter, or to the committer.
#[test]
fn a_timeout_passes_the_invitation_on() {
    let bench = Bench::new(Completions::inline());
    bench.flush.gate.shut();
    let leader = {
        let (bench, pushed) = (bench.clone(), bench.queue.push(0, true));
        thread::spawn("leader", move || bench.wait(&pushed.group)).unwrap()
    };
    bench.flush.gate.await_one();
    let ticket = bench.submit(1);
    let Err(ticket) = ticket.wait_timeout(Duration::from_millis(1)) else {
        panic!("the gate is shut")
    };
    bench.flush.gate.open();
    leader.join().unwrap().unwrap();
    assert!(bench.signal.wait(None), "nobody waits, so the committer is asked");
    assert!(bench.queue.lead(&bench.flush));
    assert_eq!(ticket.wait().unwrap(), 1);
}

#[test]
fn timeouts_and_waits_race_without_a_committer() {
    let bench = Bench::new(Completions::inline());
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let bench = bench.clone();
            thread::spawn("writer", move || {
                for n in 0..3_000 {
                    let mut ticket = bench.submit(n);
                    let mut tries = 0;
                    loop {
                        match ticket.wait_timeout(Duration::from_nanos((n + writer) % 7 * 300)) {
                            Ok(result) => break assert_eq!(result.unwrap(), n),
                            Err(back) => ticket = back,
                        }
                        tries += 1;
                        assert!(tries < 1_000_000, "writer {writer} starves at {n}");
                    }
                }
            })
            .unwrap()
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn a_task_is_woken_once_however_often_it_was_polled() {
    let bench = Bench::new(Completions::inline());
    let (count, waker) = counted();
    let mut ticket = bench.submit(7);
    for _ in 0..3 {
        assert!(
            Pin::new(&mut ticket)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    assert!(bench.signal.wait(Some(Instant::now())), "a task does not lead");
    assert!(bench.queue.lead(&bench.flush));
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(result) = Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)) else {
        panic!("it has ended")
    };
    assert_eq!(result.unwrap(), 7);
}

#[test]
fn dropping_a_ticket_cancels_nothing() {
    let bench = Bench::new(Completions::inline());
    drop(bench.submit(1));
    bench.queue.drain(&bench.flush);
    assert_eq!(bench.flush.items(), [1]);
    assert!(bench.queue.is_idle());
}

#[test]
fn callbacks_run_in_order_and_late_ones_last() {
    let bench = Bench::new(Completions::inline());
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |n: u64| {
        let order = order.clone();
        move |result: Result<Item>| {
            result.unwrap();
            order.lock().push(n);
        }
    };
    let late = bench.submit(0);
    bench.submit(1).on_done(note(1));
    bench.submit(2).on_done(note(2));
    bench.queue.drain(&bench.flush);
    bench.submit(3).on_done(note(4));
    late.on_done(note(3));
    bench.queue.drain(&bench.flush);
    assert!(order.lock().is_empty(), "not before they are asked for");
    assert!(bench.completions.run_pending());
    assert!(!bench.completions.run_pending());
    assert_eq!(*order.lock(), [1, 2, 3, 4]);
}

/// Whoever asks while one runs, perhaps that one itself, does not run the next beside it.
#[test]
fn no_callback_runs_inside_another() {
    let completions = Completions::inline();
    let order = Arc::new(Mutex::new(Vec::new()));
    let callback = |n: u64| -> crate::journal::completions::Callback {
        let (order, completions) = (order.clone(), completions.clone());
        Box::new(move |_| {
            order.lock().push(n);
            assert!(!completions.run_pending());
            order.lock().push(n);
        })
    };
    completions.hand_over(vec![callback(1)], &Ok(()));
    completions.hand_over(vec![callback(2), callback(3)], &Ok(()));
    assert!(completions.run_pending());
    assert_eq!(*order.lock(), [1, 1, 2, 2, 3, 3]);
}

#[test]
fn a_callback_may_submit_but_not_wait_and_may_panic() {
    let bench = Bench::new(Completions::threaded());
    let committer = bench.committer();
    let (tell, told) = mpsc::channel();
    bench.submit(1).on_done(|_| panic!("a callback's own fault"));
    let inner = bench.clone();
    bench.submit(2).on_done(move |_| {
        assert!(inside_callback());
        let refused = inner.submit(3).wait().unwrap_err();
        inner
            .submit(4)
            .on_done(move |result| tell.send((refused.kind(), result.unwrap())).unwrap());
    });
    assert_eq!(told.recv().unwrap(), (ErrorKind::Invalid, 4));
    assert!(!inside_callback());
    bench.stop(committer);
    assert_eq!(bench.flush.items(), [1, 2, 3, 4]);
}

#[test]
fn shutdown_runs_what_is_due_and_a_later_callback_still_runs() {
    for completions in [Completions::threaded(), Completions::inline()] {
        let bench = Bench::new(completions);
        let (tell, told) = mpsc::channel();
        let send = |n: u64| {
            let tell = tell.clone();
            move |_: Result<Item>| tell.send(n).unwrap()
        };
        let late = bench.submit(0);
        bench.submit(1).on_done(send(1));
        bench.queue.drain(&bench.flush);
        bench.completions.shutdown();
        assert_eq!(told.try_recv(), Ok(1));
        late.on_done(send(2));
        assert_eq!(told.recv(), Ok(2));
        bench.completions.shutdown();
    }
}

/// The last handle may be dropped inside a callback; its thread cannot wait for itself.
#[test]
fn shutdown_inside_a_callback_returns() {
    let bench = Bench::new(Completions::threaded());
    let (tell, told) = mpsc::channel();
    let completions = bench.completions.clone();
    bench.submit(1).on_done(move |_| {
        completions.shutdown();
        tell.send(()).unwrap();
    });
    bench.queue.drain(&bench.flush);
    told.recv().unwrap();
}

#[test]
fn a_waker_that_panics_stops_nobody() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker's own fault");
        }
    }
    let bench = Bench::new(Completions::inline());
    let mut ticket = bench.submit(1);
    let waker = Waker::from(Arc::new(Bad));
    assert!(
        Pin::new(&mut ticket)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    let led = catch_unwind(AssertUnwindSafe(|| bench.queue.lead(&bench.flush)));
    assert!(led.unwrap());
    assert!(bench.queue.is_idle());
}

#[test]
fn a_ticket_without_work_is_done() {
    let bench = Bench::new(Completions::inline());
    let ticket = Ticket::new(5, bench.queue.ended_group(), bench.clone());
    assert!(ticket.is_done());
    assert_eq!(ticket.map(|n| n + 1).wait().unwrap(), 6);
}
