//! The bound: who gets room, in which order, and that nobody is forgotten.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use super::{Bound, Permit, Room};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::completions::Completions;
use crate::journal::group::Group;
use crate::journal::ticket::Driver;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, thread};

#[derive(Default)]
struct Counts {
    nudges: AtomicUsize,
    wakes: AtomicUsize,
}

impl Driver for Counts {
    fn wait(&self, _: &Arc<Group>, _: Option<Instant>) -> Option<Result<()>> {
        None
    }

    fn nudge(&self) {
        self.nudges.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

struct Bench {
    bound: Arc<Bound>,
    counts: Arc<Counts>,
}

impl Bench {
    fn new(limit: u64) -> Bench {
        Bench {
            bound: Arc::new(Bound::new(limit)),
            counts: Arc::default(),
        }
    }

    fn room(&self, bytes: u64) -> Room {
        Room::new(self.bound.clone(), self.counts.clone(), bytes)
    }

    fn poll(&self, room: &mut Room) -> Poll<Result<Permit>> {
        let waker = Waker::from(self.counts.clone());
        Pin::new(room).poll(&mut Context::from_waker(&waker))
    }

    fn permit(&self, room: &mut Room) -> Permit {
        match self.poll(room) {
            Poll::Ready(permit) => permit.unwrap(),
            Poll::Pending => panic!("there is room for {room:?}"),
        }
    }

    fn take(&self, bytes: u64) -> bool {
        self.bound.try_take(bytes).unwrap()
    }

    /// A thread that blocks for room; returns once it stands in the line.
    fn blocked(&self, bytes: u64) -> thread::JoinHandle<Result<()>> {
        let (tell, told) = mpsc::channel();
        let bound = self.bound.clone();
        let run = move || bound.take_blocking(bytes, &mut || tell.send(()).unwrap());
        let blocked = thread::spawn("submit", run).unwrap();
        told.recv().unwrap();
        blocked
    }
}

#[test]
fn room_is_taken_up_to_the_limit_and_given_back() {
    let bench = Bench::new(10);
    assert!(bench.take(6));
    assert!(!bench.take(5));
    assert!(bench.take(4));
    bench.bound.give_back(6);
    assert!(bench.take(5));
    assert_eq!(bench.bound.in_flight(), 9);
}

#[test]
fn what_is_larger_than_the_limit_goes_alone() {
    let bench = Bench::new(10);
    assert!(bench.take(1));
    assert!(!bench.take(50));
    bench.bound.give_back(1);
    assert!(bench.take(50));
    assert!(!bench.take(1));
}

#[test]
fn control_writes_never_queue() {
    let bench = Bench::new(10);
    assert!(bench.take(10));
    bench.bound.force(7);
    assert_eq!(bench.bound.in_flight(), 17);
    bench.bound.give_back(10);
    assert!(!bench.take(4));
    assert!(bench.take(3));
}

#[test]
fn the_line_is_served_in_order_and_nobody_overtakes() {
    let bench = Bench::new(10);
    assert!(bench.take(10));
    let (mut first, mut second) = (bench.room(8), bench.room(1));
    assert!(
        bench.poll(&mut second).is_pending(),
        "the one polled first stands first"
    );
    assert!(bench.poll(&mut first).is_pending());
    assert_eq!(bench.counts.nudges.load(Ordering::SeqCst), 2);
    assert!(bench.bound.has_waiters());
    bench.bound.give_back(4);
    assert_eq!(bench.counts.wakes.load(Ordering::SeqCst), 1);
    assert!(
        !bench.take(1),
        "room behind somebody who waits is not for those who come"
    );
    assert!(bench.poll(&mut first).is_pending());
    let small = bench.permit(&mut second);
    bench.bound.give_back(3);
    assert!(bench.poll(&mut first).is_pending());
    bench.bound.give_back(3);
    let large = bench.permit(&mut first);
    assert_eq!((small.bytes(), large.bytes()), (1, 8));
    assert!(bench.take(1));
    assert!(!bench.take(1));
}

#[test]
fn a_dropped_permit_or_room_passes_its_bytes_on() {
    let bench = Bench::new(10);
    let permit = bench.permit(&mut bench.room(10));
    let (mut granted, mut waits, mut last) = (bench.room(10), bench.room(10), bench.room(10));
    assert!(bench.poll(&mut granted).is_pending());
    assert!(bench.poll(&mut waits).is_pending());
    assert!(bench.poll(&mut last).is_pending());
    drop(permit);
    drop(waits);
    drop(granted); // granted, never polled again
    let permit = bench.permit(&mut last);
    assert!(!bench.take(1));
    drop(permit);
    assert!(bench.take(10));
}

#[test]
fn a_room_dropped_at_the_head_lets_the_next_one_in() {
    let bench = Bench::new(10);
    assert!(bench.take(5));
    let (mut large, mut small) = (bench.room(6), bench.room(5));
    assert!(bench.poll(&mut large).is_pending());
    assert!(bench.poll(&mut small).is_pending());
    drop(large);
    assert_eq!(bench.counts.wakes.load(Ordering::SeqCst), 1);
    drop(bench.permit(&mut small));
}

#[test]
fn a_permit_becomes_bytes_in_flight() {
    let bench = Bench::new(10);
    let permit = bench.permit(&mut bench.room(8));
    assert!(permit.is_of(&bench.bound));
    assert_eq!(bench.bound.in_flight(), 0);
    permit.redeem(6);
    assert_eq!(bench.bound.in_flight(), 6);
    assert!(bench.take(4), "what was not used is free");
}

/// One byte stays in flight, so the disk always owes something and nobody is let through over the bound.
#[test]
fn blocked_threads_and_tasks_stand_in_one_line() {
    let bench = Bench::new(11);
    assert!(bench.take(11));
    let first = bench.blocked(10);
    let mut second = bench.room(10);
    assert!(bench.poll(&mut second).is_pending());
    let third = bench.blocked(10);
    bench.bound.give_back(10);
    first.join().unwrap().unwrap();
    assert!(bench.poll(&mut second).is_pending());
    bench.bound.give_back(10);
    bench.permit(&mut second).redeem(10);
    assert!(!third.is_finished());
    bench.bound.give_back(10);
    third.join().unwrap().unwrap();
}

/// A task holds all the room in a permit and blocks in `submit` behind another task's room: only it could give room back.
#[test]
fn permits_never_block_a_thread_for_ever() {
    let bench = Bench::new(10);
    let permit = bench.permit(&mut bench.room(10));
    let mut head = bench.room(10);
    assert!(bench.poll(&mut head).is_pending());
    bench.bound.take_blocking(3, &mut || {}).unwrap();
    let next = bench.blocked(3);
    assert!(!next.is_finished(), "over the bound, one at a time");
    bench.bound.give_back(3);
    next.join().unwrap().unwrap();
    bench.bound.give_back(3);
    assert!(bench.poll(&mut head).is_pending());
    drop(permit);
    drop(bench.permit(&mut head));
}

/// With no other thread: what frees the room runs in `on_wait`.
#[test]
fn whoever_waits_may_free_the_room_itself() {
    let bench = Bench::new(10);
    assert!(bench.take(10));
    let mut waits = 0;
    let mut sync = || {
        waits += 1;
        bench.bound.give_back(10);
    };
    bench.bound.take_blocking(7, &mut sync).unwrap();
    bench.bound.take_blocking(3, &mut sync).unwrap();
    assert_eq!(waits, 1);
}

#[test]
fn a_callback_does_not_wait_for_room() {
    let bench = Bench::new(10);
    assert!(bench.take(10));
    let completions = Completions::inline();
    let (tell, told) = mpsc::channel();
    let bound = bench.bound.clone();
    let callback = move |_| {
        tell.send(bound.take_blocking(1, &mut || {}).unwrap_err().kind())
            .unwrap()
    };
    completions.hand_over(vec![Box::new(callback)], &Ok(()));
    assert!(completions.run_pending());
    assert_eq!(told.recv().unwrap(), ErrorKind::Busy);
    assert!(!bench.bound.has_waiters());
}

#[test]
fn closing_wakes_everybody_with_the_error() {
    let bench = Bench::new(10);
    assert!(bench.take(10));
    let blocked = bench.blocked(1);
    let mut room = bench.room(1);
    assert!(bench.poll(&mut room).is_pending());
    bench.bound.close(Error::new(ErrorKind::Closed, "closed"));
    assert_eq!(blocked.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    let Poll::Ready(Err(error)) = bench.poll(&mut room) else {
        panic!("closed")
    };
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(bench.bound.try_take(1).unwrap_err().kind(), ErrorKind::Closed);
    drop(room);
    bench.bound.give_back(10);
    assert!(!bench.bound.has_waiters());
}

/// Threads and tasks of all sizes; what is taken is given back by a thread that stands for the disk.
#[test]
fn nobody_starves_under_load() {
    const EACH: u64 = 2_000;
    let bound = Arc::new(Bound::new(64));
    let (disk, synced) = mpsc::channel::<u64>();
    let giver = {
        let bound = bound.clone();
        thread::spawn("disk", move || {
            synced.iter().for_each(|bytes| bound.give_back(bytes))
        })
        .unwrap()
    };
    let takers: Vec<_> = (0..6u64)
        .map(|taker| {
            let (bound, disk) = (bound.clone(), disk.clone());
            let run = move || {
                for n in 0..EACH {
                    let bytes = 1 + (taker * 31 + n * 17) % 80;
                    if taker % 2 == 0 {
                        bound.take_blocking(bytes, &mut || {}).unwrap();
                    } else {
                        let counts = Arc::new(Counts::default());
                        let mut room = Room::new(bound.clone(), counts, bytes);
                        block_on(&mut room).unwrap().redeem(bytes);
                    }
                    disk.send(bytes).unwrap();
                }
            };
            thread::spawn("taker", run).unwrap()
        })
        .collect();
    takers.into_iter().for_each(|taker| taker.join().unwrap());
    drop(disk);
    giver.join().unwrap();
    assert_eq!(bound.in_flight(), 0);
    assert!(bound.try_take(64).unwrap(), "nothing stayed reserved");
}

fn block_on(room: &mut Room) -> Result<Permit> {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(permit) = Pin::new(&mut *room).poll(&mut Context::from_waker(&waker)) {
            return permit;
        }
        std::thread::park();
    }
}
