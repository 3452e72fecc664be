//! The bound under loom: room that is given back finds those who wait, and closing finds them too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use super::{Bound, Room};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::group::Group;
use crate::journal::ticket::Driver;
use crate::sync::{Arc, Instant, Signal, thread};

fn model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

struct Nobody;

impl Driver for Nobody {
    fn wait(&self, _: &Arc<Group>, _: Option<Instant>) -> Option<Result<()>> {
        None
    }

    fn nudge(&self) {}
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

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn("model", run).unwrap()
}

fn full() -> Arc<Bound> {
    let bound = Arc::new(Bound::new(2));
    assert!(bound.try_take(2).unwrap());
    bound
}

fn room(bound: &Arc<Bound>, bytes: u64) -> Room {
    Room::new(bound.clone(), Arc::new(Nobody), bytes)
}

#[test]
fn loom_a_thread_and_a_task_share_what_is_given_back() {
    model(3, || {
        let bound = full();
        let blocked = bound.clone();
        let blocked = spawn(move || blocked.take_blocking(1, &mut || {}).unwrap());
        let wanted = room(&bound, 1);
        let task = spawn(move || block_on(wanted).unwrap().redeem(1));
        bound.give_back(2);
        blocked.join().unwrap();
        task.join().unwrap();
        assert_eq!(bound.in_flight(), 2);
    });
}

#[test]
fn loom_a_permit_dropped_by_a_task_lets_a_thread_in() {
    model(3, || {
        let bound = full();
        let wanted = room(&bound, 2);
        let task = spawn(move || drop(block_on(wanted).unwrap()));
        let blocked = bound.clone();
        let blocked = spawn(move || {
            blocked.take_blocking(2, &mut || {}).unwrap();
            blocked.give_back(2);
        });
        bound.give_back(2);
        task.join().unwrap();
        blocked.join().unwrap();
        assert!(bound.try_take(2).unwrap());
    });
}

#[test]
fn loom_a_dropped_permit_goes_to_the_next_task() {
    model(3, || {
        let bound = full();
        let wanted = room(&bound, 2);
        let task = spawn(move || drop(block_on(wanted).unwrap()));
        let wanted = room(&bound, 2);
        bound.give_back(2);
        drop(block_on(wanted).unwrap());
        task.join().unwrap();
        assert!(bound.try_take(2).unwrap());
    });
}

#[test]
fn loom_closing_wakes_a_thread_and_a_task() {
    model(3, || {
        let bound = full();
        let blocked = bound.clone();
        let blocked = spawn(move || blocked.take_blocking(1, &mut || {}).unwrap_err().kind());
        let wanted = room(&bound, 1);
        let task = spawn(move || block_on(wanted).unwrap_err().kind());
        bound.close(Error::new(ErrorKind::Closed, "closed"));
        assert_eq!(blocked.join().unwrap(), ErrorKind::Closed);
        assert_eq!(task.join().unwrap(), ErrorKind::Closed);
        assert!(!bound.has_waiters());
    });
}

/// Dropped before it is polled, while it stands in the line, or with room that it was given and has not seen: never is that room
/// lost, nor the turn of whoever stands behind.
#[test]
fn loom_a_future_that_is_dropped_passes_its_room_on() {
    model(3, || {
        let bound = full();
        let mut leaver = room(&bound, 2);
        let _ = Pin::new(&mut leaver).poll(&mut Context::from_waker(Waker::noop()));
        let wanted = room(&bound, 2);
        let task = spawn(move || drop(block_on(wanted).unwrap()));
        let given = bound.clone();
        let giver = spawn(move || given.give_back(2));
        drop(leaver);
        giver.join().unwrap();
        task.join().unwrap();
        assert!(bound.try_take(2).unwrap());
    });
}
