//! The caller's end of a submitted write.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::Result;
use crate::journal::group::Group;
use crate::sync::{Arc, Instant};

/// What a ticket or a [`Room`](crate::Room) asks of its journal.
pub(crate) trait Driver: Send + Sync {
    /// As [`Queue::wait`](crate::journal::queue::Queue::wait).
    fn wait(&self, group: &Arc<Group>, deadline: Option<Instant>) -> Option<Result<()>>;

    /// Somebody waits who will not lead: makes sure that the committer looks at the queue, and at the bound on bytes in
    /// flight. Called under no lock, often; must be cheap and must not block.
    fn nudge(&self);
}

/// The promise of a submitted write: wait for it, poll it, or have a callback told. Dropping it cancels nothing.
///
/// It resolves when the write is durable, or, for a relaxed write, when it was given to the system. An error of kind
/// [`Unknown`](crate::ErrorKind::Unknown) means that the write may or may not be found by the next opening.
#[must_use = "a submitted write that nobody waits for may fail unseen"]
pub struct Ticket<T> {
    /// Taken by the poll that is ready.
    value: Option<T>,
    group: Arc<Group>,
    driver: Arc<dyn Driver>,
    /// Where this ticket's waker stands in the group, once polled.
    slot: Option<usize>,
}

/// Nothing in it is ever pinned.
impl<T> Unpin for Ticket<T> {}

impl<T> Ticket<T> {
    pub(crate) fn new(value: T, group: Arc<Group>, driver: Arc<dyn Driver>) -> Ticket<T> {
        Ticket {
            value: Some(value),
            group,
            driver,
            slot: None,
        }
    }

    /// The promise once more, of another value.
    #[cfg(feature = "snapshot")]
    pub(crate) fn also<U>(&self, value: U) -> Ticket<U> {
        Ticket::new(value, Arc::clone(&self.group), Arc::clone(&self.driver))
    }

    /// How it ended; `None` while it has not.
    #[cfg(feature = "snapshot")]
    pub(crate) fn outcome(&self) -> Option<Result<()>> {
        self.group.outcome()
    }

    /// The same promise of another value.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Ticket<U> {
        Ticket {
            value: self.value.map(change),
            group: self.group,
            driver: self.driver,
            slot: self.slot,
        }
    }

    /// What the write was given, known before it is durable: trust it only once the ticket has resolved.
    ///
    /// # Panics
    /// After the ticket was polled to its end, which took the value.
    #[must_use]
    pub fn value(&self) -> &T {
        self.value.as_ref().expect("the ticket was polled to its end")
    }

    /// Whether it has resolved, well or not.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.group.is_done()
    }

    /// Blocks until it resolves. The calling thread does the flush itself if nobody else does.
    ///
    /// # Errors
    /// That of the write. `Invalid` inside a completion callback, where nothing may block; the write goes on.
    pub fn wait(mut self) -> Result<T> {
        let outcome = self.driver.wait(&self.group, None);
        self.settle(outcome.expect("no deadline, no timeout"))
    }

    /// As [`wait`](Ticket::wait), for about `timeout` at most; gives the ticket back if that was not enough. The deadline
    /// is looked at between flushes: one that this thread runs itself is finished first.
    ///
    /// # Errors
    /// The outer one is this ticket, not yet resolved; the inner one as for `wait`.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<T>, Ticket<T>> {
        let deadline = Instant::now().checked_add(timeout);
        match self.driver.wait(&self.group, deadline) {
            Some(outcome) => Ok(self.settle(outcome)),
            None => Err(self),
        }
    }

    /// Has `callback` told the result, on the journal's completion thread (or in `Journal::work`): never on this thread
    /// from within this call, unless the journal is closed and has no threads. Callbacks run one at a time, in the order of
    /// their writes, after the blocked waiters were woken. Blocking calls are refused inside one; submitting is fine.
    pub fn on_done(mut self, callback: impl FnOnce(Result<T>) + Send + 'static)
    where
        T: Send + 'static,
    {
        let value = self.take();
        self.group
            .on_done(Box::new(move |outcome| callback(outcome.map(|()| value))));
        if !self.group.is_done() {
            self.driver.nudge();
        }
    }

    fn take(&mut self) -> T {
        self.value.take().expect("the ticket was polled to its end")
    }

    fn settle(&mut self, outcome: Result<()>) -> Result<T> {
        outcome.map(|()| self.take())
    }
}

/// A task never runs the flush: that would block its executor. The journal's committer does.
impl<T> Future for Ticket<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        let first = this.slot.is_none();
        if let Poll::Ready(outcome) = this.group.poll(&mut this.slot, context.waker()) {
            return Poll::Ready(this.settle(outcome));
        }
        if first {
            this.driver.nudge();
        }
        Poll::Pending
    }
}

impl<T: fmt::Debug> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("value", &self.value)
            .field("done", &self.is_done())
            .finish()
    }
}
