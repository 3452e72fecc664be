//! The caller's end of a command that was handed in.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::journal::Ticket;
use crate::sync::{Arc, Mutex};
use crate::types::EntryId;

/// Where the answers to the commands of one write are put.
#[derive(Default)]
pub(super) struct Slot(Mutex<Answer>);

#[derive(Default)]
struct Answer {
    outcome: Option<Result<Vec<Result<Bytes>>>>,
    /// It was given to somebody.
    taken: bool,
    waker: Option<Waker>,
}

impl Answer {
    /// Whoever asks again must not wait for what has been: nobody puts it there a second time.
    fn take(&mut self) -> Option<Result<Vec<Result<Bytes>>>> {
        if self.taken {
            let text = "the reply to this command was given already";
            return Some(Err(Error::new(ErrorKind::Invalid, text)));
        }
        self.taken = self.outcome.is_some();
        self.outcome.take()
    }
}

impl Slot {
    /// Puts the answer there; the waker is woken by the caller, without any lock.
    pub(super) fn fill(&self, outcome: Result<Vec<Result<Bytes>>>) -> Option<Waker> {
        let mut answer = self.0.lock();
        answer.outcome = Some(outcome);
        answer.waker.take()
    }

    pub(super) fn take(&self) -> Option<Result<Vec<Result<Bytes>>>> {
        self.0.lock().take()
    }

    fn poll(&self, waker: &Waker) -> Option<Result<Vec<Result<Bytes>>>> {
        let mut answer = self.0.lock();
        let outcome = answer.take();
        let old = match outcome {
            Some(_) => None,
            None => answer.waker.replace(waker.clone()),
        };
        drop(answer);
        drop(old); // without the lock: this may drop a task
        outcome
    }
}

/// What a reply asks of its engine.
pub(super) trait Settle: Send + Sync {
    /// Applies what has become durable.
    fn settle(&self);

    /// Waits for the oldest write that was not applied yet.
    fn wait_oldest(&self);
}

/// The reply to a command that was [submitted](super::Engine::submit): wait for it, or poll it. Dropping it cancels nothing.
///
/// It comes once the command is durable and applied, in the order of the log.
#[must_use = "a command that nobody waits for may fail unseen"]
pub struct Reply {
    pub(super) id: EntryId,
    pub(super) slot: Arc<Slot>,
    pub(super) ticket: Ticket<()>,
    pub(super) engine: Arc<dyn Settle>,
}

impl Reply {
    /// The entry of the command, known at once. It may never become durable: trust it only once the reply has come.
    #[must_use]
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// Blocks until the reply comes. The calling thread writes, syncs and applies itself if nobody else does.
    ///
    /// # Errors
    /// `Unknown`: the command may or may not be durable, and takes effect at the next opening if it is. `ApplyFailed`: it is durable, and the
    /// machine could not apply it. `Invalid` inside a completion callback, where nothing may block; the command goes on. `Invalid`, too, if polling
    /// gave the reply already.
    pub fn wait(self) -> Result<Bytes> {
        let outcome = wait(&self.slot, self.ticket, &*self.engine);
        outcome.and_then(only)
    }
}

/// Waits for the answers of one write.
pub(super) fn wait(slot: &Slot, ticket: Ticket<()>, engine: &dyn Settle) -> Result<Vec<Result<Bytes>>> {
    let again = ticket.also(());
    let waited = ticket.wait();
    if again.outcome().is_none() {
        // Nothing may block here.
        waited?;
    }
    loop {
        engine.settle();
        if let Some(outcome) = slot.take() {
            return outcome;
        }
        // A write before this one is not known to have ended yet, though it has.
        engine.wait_oldest();
    }
}

pub(super) fn only(mut answers: Vec<Result<Bytes>>) -> Result<Bytes> {
    answers.pop().expect("one answer for each command")
}

impl Future for Reply {
    type Output = Result<Bytes>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Bytes>> {
        match self.slot.poll(context.waker()) {
            Some(outcome) => Poll::Ready(outcome.and_then(only)),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
