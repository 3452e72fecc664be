//! A group: the items that one flush makes durable together, and everybody who wants to know how that ended.

use std::task::{Poll, Waker};

use crate::error::Result;
use crate::journal::completions::{Callback, Completions, wake};
use crate::sync::{Instant, Mutex, Word};

/// Ends once, with one outcome for all its items.
pub(crate) struct Group {
    /// One of the constants below. Blocked waiters sleep on it while it is `PENDING`. `INVITED` and back is changed only
    /// under the queue's lock and only while the group is open; the end is stored once, after the outcome.
    word: Word,
    /// Taken before the lock of the completions, after no other.
    inner: Mutex<Inner>,
    completions: Completions,
}

#[derive(Default)]
struct Inner {
    outcome: Option<Result<()>>,
    finished: Option<Instant>,
    wakers: Vec<Waker>,
    callbacks: Vec<Callback>,
    /// The callbacks went to the completions: later ones follow them there.
    handed_over: bool,
}

const PENDING: u32 = 0;
const INVITED: u32 = 1;
const DONE: u32 = 2;
const FAILED: u32 = 3;

impl Group {
    pub(crate) fn new(completions: Completions) -> Group {
        Group {
            word: Word::new(PENDING),
            inner: Mutex::new(Inner::default()),
            completions,
        }
    }

    /// A group that has ended well: for tickets of writes that had nothing to do.
    pub(crate) fn ended(completions: Completions) -> Group {
        let group = Group::new(completions);
        group.complete(&Ok(()));
        group
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.word.load(), DONE | FAILED)
    }

    /// How it ended; `None` while it has not.
    pub(crate) fn outcome(&self) -> Option<Result<()>> {
        match self.word.load() {
            DONE => Some(Ok(())), // without the lock, for which all its waiters would queue
            FAILED => self.inner.lock().outcome.clone(),
            _ => None,
        }
    }

    /// When it ended: the start of the stage "wake".
    pub(crate) fn finished(&self) -> Option<Instant> {
        self.inner.lock().finished
    }

    /// The outcome, or `waker` is woken when there is one, in place of the one registered as `slot`.
    pub(crate) fn poll(&self, slot: &mut Option<usize>, waker: &Waker) -> Poll<Result<()>> {
        let mut inner = self.inner.lock();
        if let Some(outcome) = &inner.outcome {
            return Poll::Ready(outcome.clone());
        }
        let old = match *slot {
            Some(slot) => Some(std::mem::replace(&mut inner.wakers[slot], waker.clone())),
            None => {
                *slot = Some(inner.wakers.len());
                inner.wakers.push(waker.clone());
                None
            }
        };
        drop(inner);
        drop(old); // without the lock: this may drop a task, with whatever that holds
        Poll::Pending
    }

    /// Runs `callback` with the outcome where all callbacks run, after those registered before it.
    pub(crate) fn on_done(&self, callback: Callback) {
        let mut inner = self.inner.lock();
        match &inner.outcome {
            // Under the group's lock: two that come now stay in order.
            Some(outcome) if inner.handed_over => self.completions.hand_over(vec![callback], outcome),
            _ => inner.callbacks.push(callback),
        }
        drop(inner);
        self.completions.run_late();
    }

    /// Sleeps until the word changes or the deadline passes (then false).
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> bool {
        self.word.wait_until(PENDING, deadline)
    }

    /// Lets those who sleep see that one of them should lead; [`wake_one`](Group::wake_one) follows. Queue's lock held.
    pub(crate) fn invite(&self) {
        self.word.store(INVITED);
    }

    /// The group is led, or nobody of its waiters is left to lead it. Queue's lock held.
    pub(crate) fn uninvite(&self) {
        self.word.store(PENDING);
    }

    pub(crate) fn wake_one(&self) {
        self.word.wake_one();
    }

    /// Ends the group: wakes all blocked waiters by one call, then the tasks, then hands the callbacks over.
    pub(crate) fn complete(&self, outcome: &Result<()>) {
        let wakers = {
            let mut inner = self.inner.lock();
            inner.outcome = Some(outcome.clone());
            inner.finished = Some(Instant::now());
            std::mem::take(&mut inner.wakers)
        };
        self.word.store(if outcome.is_ok() { DONE } else { FAILED });
        self.word.wake_all();
        wakers.into_iter().for_each(wake);
        let mut inner = self.inner.lock();
        let callbacks = std::mem::take(&mut inner.callbacks);
        self.completions.hand_over(callbacks, outcome);
        inner.handed_over = true;
    }
}
