//! Runs the callbacks of finished groups: one after the other in the order in which they were handed over, under no lock,
//! on a thread of their own (started by the first of them) or inside `Journal::work`. A callback that panics is reported
//! and ends nothing.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::error::Result;
use crate::sync::{Arc, Condvar, Mutex, thread};

/// What `Ticket::on_done` registers; told how its group ended.
pub(crate) type Callback = Box<dyn FnOnce(Result<()>) + Send>;

/// The queue of callbacks that are due. Clones share it.
#[derive(Clone)]
pub(crate) struct Completions(Arc<Shared>);

struct Shared {
    inline: bool,
    /// Never held while a callback runs.
    state: Mutex<State>,
    /// There are callbacks, or `stopped` was set. The thread sleeps on it.
    due: Condvar,
}

#[derive(Default)]
struct State {
    callbacks: VecDeque<(Callback, Result<()>)>,
    /// The thread lives, or somebody is in `run_pending`: no second one may run callbacks beside it.
    running: bool,
    stopped: bool,
    thread: Option<thread::JoinHandle<()>>,
}

/// Which foreign code the calling thread runs for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Nothing,
    Callback,
    /// In the middle of a flush.
    Waker,
}

crate::sync::thread_local! {
    #[cfg_attr(
        not(any(loom, shuttle)),
        expect(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const block")
    )]
    static INSIDE: Cell<Inside> = Cell::new(Inside::Nothing);
}

/// Whether the calling thread is running a callback, or a task's waker. A call that blocks must be refused there: what it
/// waits for may be waiting for the callback.
pub(crate) fn inside_callback() -> bool {
    INSIDE.with(Cell::get) != Inside::Nothing
}

/// Whether the calling thread is running a waker, perhaps in the middle of a flush: nothing there may wait for flushes to end.
pub(crate) fn inside_waker() -> bool {
    INSIDE.with(Cell::get) == Inside::Waker
}

/// Runs a waker: foreign code, in whatever thread leads a flush or gives room back. Its panic must not become theirs.
pub(crate) fn wake(waker: Waker) {
    let before = INSIDE.with(|inside| inside.replace(Inside::Waker));
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        tracing::error!(panic = panic_text(panic.as_ref()), "a waker panicked");
    }
    INSIDE.with(|inside| inside.set(before));
}

impl Completions {
    /// Callbacks run on a thread, which the first one starts.
    pub(crate) fn threaded() -> Completions {
        Completions::with(false)
    }

    /// Callbacks wait for [`run_pending`](Completions::run_pending); no thread is ever started.
    pub(crate) fn inline() -> Completions {
        Completions::with(true)
    }

    fn with(inline: bool) -> Completions {
        Completions(Arc::new(Shared {
            inline,
            state: Mutex::new(State::default()),
            due: Condvar::new(),
        }))
    }

    /// Queues `callbacks` behind all that were handed over before.
    pub(crate) fn hand_over(&self, callbacks: Vec<Callback>, outcome: &Result<()>) {
        if callbacks.is_empty() {
            return;
        }
        let mut state = self.0.state.lock();
        let due = callbacks.into_iter().map(|callback| (callback, outcome.clone()));
        state.callbacks.extend(due);
        if self.0.inline {
            return;
        }
        if !state.running {
            self.start(&mut state);
        }
        self.0.due.notify_one();
    }

    /// Runs what is due on this thread and returns whether there was anything. With a completion thread, or while another
    /// thread or a callback further down this stack runs them, it does nothing.
    pub(crate) fn run_pending(&self) -> bool {
        let mut ran = false;
        let mut state = self.0.state.lock();
        if !self.0.inline || state.running {
            return false;
        }
        state.running = true;
        while !state.callbacks.is_empty() {
            let due = std::mem::take(&mut state.callbacks);
            drop(state);
            run(due);
            ran = true;
            state = self.0.state.lock();
        }
        state.running = false;
        ran
    }

    /// Runs a callback that was handed over after [`shutdown`](Completions::shutdown), when nobody else will. Called under
    /// no lock.
    pub(crate) fn run_late(&self) {
        let stopped = self.0.inline && self.0.state.lock().stopped;
        if stopped {
            self.run_pending();
        }
    }

    /// Returns when every callback handed over before has run and the thread has ended. Called inside a callback it only
    /// asks for that: a thread cannot wait for itself. A later callback still runs.
    pub(crate) fn shutdown(&self) {
        let thread = {
            let mut state = self.0.state.lock();
            state.stopped = true;
            self.0.due.notify_one();
            state.thread.take()
        };
        if inside_callback() {
            return;
        }
        if let Some(thread) = thread {
            // An error is a panic of the thread; callbacks are caught, and Drop must not panic in turn.
            if thread.join().is_err() {
                tracing::error!("the completion thread panicked");
            }
        }
        self.run_pending();
    }

    /// How many share the queue: the thread is one of them while it lives.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn users(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    fn start(&self, state: &mut State) {
        let shared = self.clone();
        match thread::spawn("everlog-done", move || shared.serve()) {
            Ok(thread) => {
                state.running = true;
                // After a shutdown nobody will join; the thread ends by itself when it has run what is due.
                state.thread = (!state.stopped).then_some(thread);
            }
            // The callbacks stay queued; the next one tries again.
            Err(error) => tracing::error!(%error, "cannot start the completion thread"),
        }
    }

    fn serve(&self) {
        let mut state = self.0.state.lock();
        loop {
            if !state.callbacks.is_empty() {
                let due = std::mem::take(&mut state.callbacks);
                drop(state);
                run(due);
                state = self.0.state.lock();
            } else if state.stopped {
                state.running = false;
                return;
            } else {
                self.0.due.wait(&mut state);
            }
        }
    }
}

fn run(due: VecDeque<(Callback, Result<()>)>) {
    let before = INSIDE.with(|inside| inside.replace(Inside::Callback));
    for (callback, outcome) in due {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| callback(outcome))) {
            tracing::error!(
                panic = panic_text(panic.as_ref()),
                "a completion callback panicked"
            );
        }
    }
    INSIDE.with(|inside| inside.set(before));
}

/// What a caught panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// A callback may call `Journal::work`, which must not run what was handed over since before the callbacks that stand behind this one.
    #[test]
    fn a_callback_that_asks_for_callbacks_runs_none_before_its_turn() {
        let completions = Completions::inline();
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |number: u8| -> Callback {
            let order = Arc::clone(&order);
            Box::new(move |_| order.lock().push(number))
        };
        let (again, third, first) = (completions.clone(), note(3), note(1));
        let asks: Callback = Box::new(move |outcome| {
            first(outcome);
            again.hand_over(vec![third], &Ok(()));
            again.run_pending();
        });
        completions.hand_over(vec![asks, note(2)], &Ok(()));
        assert!(completions.run_pending());
        assert_eq!(*order.lock(), [1, 2, 3]);
        assert!(!completions.run_pending());
    }
}
