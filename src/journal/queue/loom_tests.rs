//! The queue under loom: every interleaving of two or three threads, up to a bound on preemptions where there are three.
//! A lost wake-up shows as a deadlock, which loom reports.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --lib loom
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::{Flush, Queue};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::completions::Completions;
use crate::journal::group::Group;
use crate::journal::room::Bound;
use crate::journal::ticket::{Driver, Ticket};
use crate::sync::atomic::AtomicU64;
use crate::sync::{Arc, Instant, Mutex, Signal, thread};

/// Explores with at most `preemptions` switches away from a thread that could go on.
fn model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

/// Records the items; its own lock is where loom may switch threads in the middle of a flush.
struct Recorder {
    items: Mutex<Vec<u64>>,
    /// A bit for each item, set and read without ordering: whoever was told of the end must see it nevertheless.
    effect: AtomicU64,
    /// A bit for each item whose group was flushed as durable.
    synced: AtomicU64,
    busy: AtomicBool,
    end: End,
}

/// How flushes end.
#[derive(Clone, Copy)]
enum End {
    Well,
    Failed,
    /// The first panics; there must be no second.
    Panics,
}

impl Flush<u64> for Recorder {
    fn flush(&self, items: Vec<u64>, sync: bool) -> Result<()> {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "two flushes at once");
        if matches!(self.end, End::Panics) {
            // Not told by the panic hook, in every one of the interleavings. The flush stays busy: a second one would see it.
            std::panic::resume_unwind(Box::new("told to panic"));
        }
        for item in &items {
            self.effect.fetch_or(1 << item, Ordering::Relaxed);
            self.synced.fetch_or(u64::from(sync) << item, Ordering::Relaxed);
        }
        self.items.lock().extend(items);
        assert!(self.busy.swap(false, Ordering::SeqCst));
        match self.end {
            End::Failed => Err(Error::new(ErrorKind::Unknown, "told to fail")),
            End::Well | End::Panics => Ok(()),
        }
    }
}

struct Bench {
    queue: Queue<u64>,
    flush: Recorder,
    signal: Arc<Signal>,
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
    fn new(completions: &Completions, end: End) -> Arc<Bench> {
        let signal = Arc::new(Signal::new());
        Arc::new(Bench {
            queue: Queue::new(completions.clone(), signal.clone()),
            flush: Recorder {
                items: Mutex::new(Vec::new()),
                effect: AtomicU64::new(0),
                synced: AtomicU64::new(0),
                busy: AtomicBool::new(false),
                end,
            },
            signal,
        })
    }

    fn write(&self, item: u64) -> Result<()> {
        let pushed = self.queue.push(item, true);
        let outcome = self.queue.wait(&pushed.group, &self.flush, None).unwrap();
        assert!(self.flush.effect.load(Ordering::Relaxed) & (1 << item) != 0);
        outcome
    }

    fn submit(self: &Arc<Bench>, item: u64) -> Ticket<u64> {
        let pushed = self.queue.push(item, true);
        if pushed.idle {
            self.queue.nudge();
        }
        Ticket::new(item, pushed.group, self.clone())
    }

    /// A committer until `count` items were flushed, where nobody else leads.
    fn commit(&self, count: usize) {
        while self.flush.items.lock().len() < count {
            self.signal.wait(None);
            while self.queue.lead(&self.flush) {}
        }
    }

    /// A committer until `threads` have said that they are done.
    fn commit_until(&self, threads: usize, done: &AtomicUsize) {
        while done.load(Ordering::SeqCst) < threads {
            self.signal.wait(None);
            while self.queue.lead(&self.flush) {}
        }
    }

    fn say(&self, done: &AtomicUsize) {
        done.fetch_add(1, Ordering::SeqCst);
        self.signal.wake();
    }
}

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn("model", run).unwrap()
}

struct Wakes(Signal);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }
}

fn block_on<T>(mut future: impl Future<Output = T> + Unpin) -> T {
    let wakes = Arc::new(Wakes(Signal::new()));
    let waker = Waker::from(wakes.clone());
    loop {
        if let Poll::Ready(value) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        wakes.0.wait(None);
    }
}

#[test]
fn loom_a_signal_is_never_lost_and_shows_what_came_before_it() {
    model(4, || {
        let signal = Arc::new(Signal::new());
        let seen = Arc::new(crate::sync::atomic::AtomicUsize::new(0));
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let (signal, seen) = (signal.clone(), seen.clone());
                spawn(move || {
                    seen.fetch_add(1, Ordering::Relaxed);
                    signal.wake();
                })
            })
            .collect();
        while seen.load(Ordering::Relaxed) < 2 {
            signal.wait(None);
        }
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
    });
}

#[test]
fn loom_two_writers_hand_the_lead_over() {
    model(4, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let other = bench.clone();
        let writer = spawn(move || {
            other.write(1).unwrap();
            other.write(2).unwrap();
        });
        bench.write(3).unwrap();
        writer.join().unwrap();
        let items = bench.flush.items.lock();
        assert_eq!(items.len(), 3);
        assert!(bench.queue.is_idle());
    });
}

/// No committer: an invitation that went to nobody would leave a writer asleep.
#[test]
fn loom_three_writers_need_no_committer() {
    model(2, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let writers: Vec<_> = (0..2)
            .map(|n| {
                let bench = bench.clone();
                spawn(move || bench.write(n).unwrap())
            })
            .collect();
        bench.write(2).unwrap();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(bench.flush.items.lock().len(), 3);
    });
}

/// The invited writer comes too late and sleeps again; the end of its group must wake both.
#[test]
fn loom_two_writers_are_overtaken_by_the_committer() {
    model(3, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        bench.queue.push(0, true);
        let writers: Vec<_> = (1..3)
            .map(|n| {
                let bench = bench.clone();
                spawn(move || bench.write(n).unwrap())
            })
            .collect();
        bench.queue.lead(&bench.flush);
        bench.queue.lead(&bench.flush);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
}

#[test]
fn loom_submit_only_brings_the_committer() {
    model(4, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let other = bench.clone();
        let submitter = spawn(move || {
            drop(other.submit(1));
            drop(other.submit(2));
        });
        bench.commit(2);
        submitter.join().unwrap();
        assert_eq!(*bench.flush.items.lock(), [1, 2]);
    });
}

#[test]
fn loom_a_dropped_ticket_beside_a_writer_and_the_committer() {
    model(2, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let done = Arc::new(AtomicUsize::new(0));
        let (committer, said) = (bench.clone(), done.clone());
        let committer = spawn(move || committer.commit_until(1, &said));
        let other = bench.clone();
        let writer = spawn(move || other.write(1).unwrap());
        drop(bench.submit(2));
        writer.join().unwrap();
        bench.queue.drain(&bench.flush);
        bench.say(&done);
        committer.join().unwrap();
        assert_eq!(bench.flush.items.lock().len(), 2);
    });
}

#[test]
fn loom_a_failure_reaches_every_waiter() {
    model(4, || {
        let bench = Bench::new(&Completions::inline(), End::Failed);
        let other = bench.clone();
        let writer = spawn(move || other.write(1).unwrap_err().kind());
        assert_eq!(bench.write(2).unwrap_err().kind(), ErrorKind::Unknown);
        assert_eq!(writer.join().unwrap(), ErrorKind::Unknown);
    });
}

#[test]
fn loom_a_task_is_woken() {
    model(4, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let other = bench.clone();
        let task = spawn(move || block_on(other.submit(1)).unwrap());
        bench.commit(1);
        assert_eq!(task.join().unwrap(), 1);
    });
}

#[test]
fn loom_a_task_beside_a_writer() {
    model(2, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let done = Arc::new(AtomicUsize::new(0));
        let (other, said) = (bench.clone(), done.clone());
        let task = spawn(move || {
            block_on(other.submit(1)).unwrap();
            other.say(&said);
        });
        let (other, said) = (bench.clone(), done.clone());
        let writer = spawn(move || {
            other.write(2).unwrap();
            other.say(&said);
        });
        bench.commit_until(2, &done);
        task.join().unwrap();
        writer.join().unwrap();
    });
}

/// Registered before, during or after the end: it runs, once, after the one registered before it.
#[test]
fn loom_callbacks_of_one_group_keep_their_order() {
    model(4, || {
        let completions = Completions::inline();
        let bench = Bench::new(&completions, End::Well);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (first, second) = (bench.submit(1), bench.submit(2));
        let notes = order.clone();
        let other = spawn(move || {
            let (a, b) = (notes.clone(), notes);
            first.on_done(move |_| a.lock().unwrap().push(1));
            second.on_done(move |_| b.lock().unwrap().push(2));
        });
        bench.commit(2);
        other.join().unwrap();
        while completions.run_pending() {}
        assert_eq!(*order.lock().unwrap(), [1, 2]);
    });
}

#[test]
fn loom_a_callback_that_submits() {
    model(2, || {
        let completions = Completions::threaded();
        let bench = Bench::new(&completions, End::Well);
        let inner = bench.clone();
        bench.submit(1).on_done(move |_| drop(inner.submit(2)));
        bench.commit(2);
        completions.shutdown();
        assert_eq!(*bench.flush.items.lock(), [1, 2]);
    });
}

#[test]
fn loom_drain_waits_for_the_flush_of_another() {
    model(3, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let other = bench.clone();
        let writer = spawn(move || other.write(1).unwrap());
        bench.queue.push(2, true);
        bench.queue.drain(&bench.flush);
        assert!(bench.flush.items.lock().contains(&2));
        writer.join().unwrap();
    });
}

/// Without `broken` a later group would be flushed by a state that a panic left half changed.
#[test]
fn loom_a_panic_ends_those_who_wait_and_is_the_last_flush() {
    model(3, || {
        let bench = Bench::new(&Completions::inline(), End::Panics);
        let other = bench.clone();
        let write = |bench: &Bench, item| {
            let pushed = bench.queue.push(item, true);
            let ended = bench.queue.wait(&pushed.group, &bench.flush, None).unwrap();
            ended.unwrap_err().kind()
        };
        let writer = spawn(move || write(&other, 1));
        let kinds = [write(&bench, 2), writer.join().unwrap()];
        assert!(kinds.contains(&ErrorKind::Unknown), "{kinds:?}");
        assert_eq!(write(&bench, 3), ErrorKind::Closed);
    });
}

/// A group is flushed as durable if one of its items must be; a relaxed one that came first must not decide for it.
#[test]
fn loom_a_durable_item_makes_its_group_durable() {
    model(3, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let other = bench.clone();
        let relaxed = spawn(move || {
            let pushed = other.queue.push(1, false);
            other
                .queue
                .wait(&pushed.group, &other.flush, None)
                .unwrap()
                .unwrap();
            assert!(other.flush.effect.load(Ordering::Relaxed) & 2 != 0);
        });
        let other = bench.clone();
        let second = spawn(move || other.write(2).unwrap());
        bench.write(3).unwrap();
        assert!(bench.flush.synced.load(Ordering::Relaxed) & 8 != 0);
        relaxed.join().unwrap();
        second.join().unwrap();
        assert!(bench.flush.synced.load(Ordering::Relaxed) & 4 != 0);
    });
}

/// As `Journal::close` does it: nothing is taken in any more, what was taken in is flushed, then the committer stops. A commit may run
/// meanwhile, and a ticket may be held by somebody who waits for it.
#[test]
fn loom_closing_during_a_commit_leaves_nobody_waiting() {
    model(2, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let stopping = Arc::new(AtomicUsize::new(0));
        let (committer, said) = (bench.clone(), stopping.clone());
        let committer = spawn(move || committer.commit_until(1, &said));
        let first = bench.submit(1);
        let second = bench.submit(2);
        let waiter = spawn(move || first.wait().unwrap());
        bench.queue.drain(&bench.flush);
        bench.say(&stopping);
        committer.join().unwrap();
        assert_eq!(waiter.join().unwrap(), 1);
        assert!(second.is_done());
        assert!(bench.queue.is_idle());
    });
}

/// Whoever leaves because its time is over may be the one who was told to lead: somebody else must be told then. A deadline that is
/// over already is the only one that loom can model.
#[test]
fn loom_a_waiter_whose_time_is_over_passes_the_lead_on() {
    model(2, || {
        let bench = Bench::new(&Completions::inline(), End::Well);
        let other = bench.clone();
        let writer = spawn(move || other.write(1).unwrap());
        let (leaver, stayer) = (bench.clone(), bench.clone());
        let impatient = spawn(move || {
            let pushed = leaver.queue.push(2, true);
            drop(
                leaver
                    .queue
                    .wait(&pushed.group, &leaver.flush, Some(Instant::now())),
            );
        });
        stayer.write(3).unwrap();
        writer.join().unwrap();
        impatient.join().unwrap();
        // Nobody waits for what the impatient one may have left: the committer was told of it, then.
        bench.commit(3);
        assert_eq!(bench.flush.items.lock().len(), 3);
    });
}

/// The room is held by what is in the queue, and the completion thread must not wait for it: in the worst case it is itself what
/// would have to go on first.
#[test]
fn loom_a_callback_that_submits_while_the_bound_is_full_does_not_wait() {
    model(2, || {
        let completions = Completions::threaded();
        let bench = Bench::new(&completions, End::Well);
        let bound = Arc::new(Bound::new(1));
        assert!(bound.try_take(1).unwrap());
        let waited = Arc::new(AtomicBool::new(false));
        let submitted = Arc::new(AtomicUsize::new(0));
        let (inner, full) = (bench.clone(), bound.clone());
        let (noted, counted) = (waited.clone(), submitted.clone());
        bench.submit(1).on_done(move |_| {
            let taken = full.take_blocking(1, &mut || noted.store(true, Ordering::SeqCst));
            if taken.is_ok() {
                drop(inner.submit(2));
                counted.store(1, Ordering::SeqCst);
            }
        });
        let other = bound.clone();
        let releaser = spawn(move || other.give_back(1));
        bench.commit(1);
        releaser.join().unwrap();
        completions.shutdown();
        assert!(!waited.load(Ordering::SeqCst), "it stood in the line");
        assert_eq!(bound.in_flight(), submitted.load(Ordering::SeqCst) as u64);
    });
}
