//! The commit queue: gathers items into groups and sees to it that each group is flushed, one after the other. No I/O.
//!
//! ```text
//!  push -> open group --- a leader takes it --> being flushed --> ended: waiters woken, callbacks handed over
//!             ^                                      |
//!             '------- a new open group -------------'  at the end one waiter of the open group is invited to lead,
//!                                                       or the committer if none of its waiters is blocked
//! ```
//!
//! It promises: items are flushed in the order of `push`; at most one flush runs; every group ends, if whoever pushed into
//! an idle queue waits or nudges; each group costs one wake-up of its waiters. Leading is open to everybody who comes:
//! whoever finds no flush running takes the open group. An invitation only says who is sure to come, so that
//! nobody needs to be woken twice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind, Result};
use crate::journal::completions::{Completions, inside_callback, panic_text};
use crate::journal::group::Group;
use crate::mutant::{Rule, removed};
use crate::sync::{Arc, Condvar, Instant, Mutex, MutexGuard, Signal};

/// Makes items durable, or written.
pub(crate) trait Flush<T>: Send + Sync {
    /// Runs without the queue's lock, never beside itself. `sync`: an item needs to be durable; otherwise written is
    /// enough. The outcome goes to all items. A panic is an outcome too (`Unknown`), and the queue's last: later groups
    /// end as `Closed` without a flush.
    fn flush(&self, items: Vec<T>, sync: bool) -> Result<()>;
}

/// See the module.
pub(crate) struct Queue<T> {
    /// Held for a few instructions, never over a flush or a wake-up. Taken after the journal's state, before no other.
    state: Mutex<State<T>>,
    /// A flush ended. Only `drain` sleeps on it.
    ended: Condvar,
    completions: Completions,
    committer: Arc<Signal>,
}

struct State<T> {
    open: Open<T>,
    /// Somebody leads. Whoever sets it clears it, after the group's callbacks were handed over.
    flushing: bool,
    /// Somebody was told to lead the open group: one of its waiters (its word says so), or the committer.
    invited: bool,
    /// A flush panicked; nothing is flushed any more.
    broken: bool,
}

struct Open<T> {
    group: Arc<Group>,
    items: Vec<T>,
    sync: bool,
    /// Threads that sleep on the group's word, or are about to.
    waiters: usize,
}

/// What [`Queue::push`] returns.
pub(crate) struct Pushed {
    /// The group whose end is the item's.
    pub(crate) group: Arc<Group>,
    /// Nobody flushes and nobody was told to: the caller must wait, or nudge.
    pub(crate) idle: bool,
}

impl<T: Send> Queue<T> {
    /// `committer` is woken when a group has nobody blocked to lead it; it calls [`lead`](Queue::lead).
    pub(crate) fn new(completions: Completions, committer: Arc<Signal>) -> Queue<T> {
        Queue {
            state: Mutex::new(State {
                open: Open::new(&completions),
                flushing: false,
                invited: false,
                broken: false,
            }),
            ended: Condvar::new(),
            completions,
            committer,
        }
    }

    /// Adds `item` to the open group. Called under the journal's state lock, so that the order here is that of
    /// sequencing.
    pub(crate) fn push(&self, item: T, sync: bool) -> Pushed {
        let mut state = self.state.lock();
        state.open.items.push(item);
        state.open.sync = sync || state.open.sync && !removed(Rule::GroupSync);
        Pushed {
            group: state.open.group.clone(),
            idle: !state.flushing && !state.invited,
        }
    }

    /// A group that has ended well without an item.
    pub(crate) fn ended_group(&self) -> Arc<Group> {
        Arc::new(Group::ended(self.completions.clone()))
    }

    /// Makes sure that somebody leads the open group: wakes the committer unless somebody leads or is on the way.
    pub(crate) fn nudge(&self) {
        let state = self.state.lock();
        if !state.flushing && !state.invited {
            self.invite(state);
        }
    }

    /// Flushes the open group unless it is empty or a flush runs. Returns whether it did.
    pub(crate) fn lead(&self, flush: &dyn Flush<T>) -> bool {
        let state = self.state.lock();
        if state.flushing || state.open.items.is_empty() {
            return false;
        }
        self.flush_open(state, flush);
        true
    }

    /// Blocks until `group` has ended and tells how; leads it if nobody does. `None` when `deadline` has passed, which is
    /// looked at between flushes: one that this call leads is finished. Refused (`Invalid`) inside a callback.
    pub(crate) fn wait(
        &self,
        group: &Arc<Group>,
        flush: &dyn Flush<T>,
        deadline: Option<Instant>,
    ) -> Option<Result<()>> {
        if inside_callback() {
            return Some(Err(blocking_in_callback()));
        }
        let mut counted = false;
        let mut in_time = true;
        loop {
            if let Some(outcome) = group.outcome() {
                return Some(outcome);
            }
            let mut state = self.state.lock();
            if Arc::ptr_eq(&state.open.group, group) {
                state.open.waiters -= usize::from(counted);
                if !in_time {
                    self.pass_on(state);
                    return None;
                }
                if !state.flushing {
                    self.flush_open(state, flush);
                    continue;
                }
                state.open.waiters += 1;
                counted = true;
            } else if !in_time {
                return None;
            }
            drop(state);
            in_time = group.sleep(deadline);
        }
    }

    /// Nothing is open and nothing is being flushed. A waiter may return an instant before this becomes true.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        !state.flushing && state.open.items.is_empty()
    }

    /// Leads or waits until the queue is idle. Ends only if pushes do.
    pub(crate) fn drain(&self, flush: &dyn Flush<T>) {
        let mut state = self.state.lock();
        loop {
            if state.flushing {
                self.ended.wait(&mut state);
            } else if state.open.items.is_empty() {
                return;
            } else {
                self.flush_open(state, flush);
                state = self.state.lock();
            }
        }
    }

    /// Takes the open group, flushes it, ends it and invites the next leader.
    fn flush_open(&self, mut state: MutexGuard<'_, State<T>>, flush: &dyn Flush<T>) {
        let next = Open::new(&self.completions);
        let Open {
            group, items, sync, ..
        } = std::mem::replace(&mut state.open, next);
        state.flushing = true;
        state.invited = false;
        group.uninvite();
        let broken = state.broken;
        drop(state);

        if removed(Rule::AckAfterFlush) {
            group.complete(&Ok(()));
        }
        let (outcome, panicked) = match broken {
            true => (Err(closed()), true),
            false => run(flush, items, sync),
        };
        group.complete(&outcome);

        let mut state = self.state.lock();
        state.broken = panicked && !removed(Rule::PanicIsLast);
        state.flushing = false;
        self.ended.notify_all();
        self.invite(state);
    }

    /// A waiter leaves before its group has ended: if it was the one invited, another must come.
    fn pass_on(&self, state: MutexGuard<'_, State<T>>) {
        if !state.flushing {
            self.invite(state);
        }
    }

    /// Tells one waiter of the open group to lead it, or the committer if none is blocked. The wake-up is sent without
    /// the lock: by then another may lead, and the one woken sleeps again.
    fn invite(&self, mut state: MutexGuard<'_, State<T>>) {
        if state.open.items.is_empty() {
            return;
        }
        state.invited = true;
        let group = state.open.group.clone();
        if state.open.waiters > 0 {
            group.invite();
            drop(state);
            group.wake_one();
        } else {
            group.uninvite();
            drop(state);
            self.committer.wake();
        }
    }
}

impl<T> Open<T> {
    fn new(completions: &Completions) -> Open<T> {
        Open {
            group: Arc::new(Group::new(completions.clone())),
            items: Vec::new(),
            sync: false,
            waiters: 0,
        }
    }
}

fn blocking_in_callback() -> Error {
    Error::new(ErrorKind::Invalid, "a blocking call inside a completion callback")
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "an earlier flush panicked")
}

/// The outcome, and whether it is a panic's.
fn run<T>(flush: &dyn Flush<T>, items: Vec<T>, sync: bool) -> (Result<()>, bool) {
    match catch_unwind(AssertUnwindSafe(|| flush.flush(items, sync))) {
        Ok(outcome) => (outcome, false),
        Err(panic) => {
            let text = format!("the flush panicked: {}", panic_text(panic.as_ref()));
            tracing::error!("{text}");
            (Err(Error::new(ErrorKind::Unknown, text)), true)
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
