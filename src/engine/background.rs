//! The thread that takes checkpoints when they are due.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;

use super::cadence::Next;
use super::handle::Shared;
use super::machine::StateMachine;
use crate::error::{Error, Result};
use crate::journal::inside_callback;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Instant, Mutex, Signal, thread};

/// Ends its thread when it is dropped; a checkpoint that is being written is given up.
pub(super) struct Background {
    signal: Arc<Signal>,
    /// That of the engine: checkpoints look at it while they write.
    stop: Arc<AtomicBool>,
    /// The thread wakes by itself when the next checkpoint may begin.
    armed: Arc<AtomicBool>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Background {
    /// No thread: the caller works.
    pub(super) fn none<M>(engine: &Shared<M>) -> Background {
        Background {
            signal: Arc::new(Signal::new()),
            stop: Arc::clone(&engine.stop),
            armed: Arc::new(AtomicBool::new(false)),
            thread: Mutex::new(None),
        }
    }

    pub(super) fn start<M: StateMachine>(engine: &Arc<Shared<M>>) -> Result<Background> {
        let background = Background::none(engine);
        let (signal, stop) = (Arc::clone(&background.signal), Arc::clone(&background.stop));
        let armed = Arc::clone(&background.armed);
        let engine = Arc::downgrade(engine);
        let thread = thread::spawn("everlog-engine", move || run(&engine, &signal, &stop, &armed));
        let thread = thread.map_err(|e| Error::io("", "start a thread for checkpoints", e))?;
        *background.thread.lock() = Some(thread);
        Ok(background)
    }

    pub(super) fn wake(&self) {
        self.signal.wake();
    }

    /// Wakes the thread if there is a checkpoint to take, now or later.
    pub(super) fn wake_if_due<M: StateMachine>(&self, engine: &Shared<M>) {
        let next = engine.cadence.lock().next(engine.config.clock.now());
        let wanted = match next {
            Next::Nothing => false,
            Next::Checkpoint => true,
            Next::Wait(_) => !self.armed.load(Ordering::Acquire),
        };
        if wanted {
            self.signal.wake();
        }
    }

    /// Waits for the thread to end, but not in a callback or a waker: the thread may have the last handle of the journal, whose closing
    /// waits for them. It never waits for itself: what runs on it has no handle of the engine.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake();
        let thread = self.thread.lock().take();
        if inside_callback() {
            return;
        }
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that takes checkpoints panicked");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").finish_non_exhaustive()
    }
}

fn run<M: StateMachine>(engine: &Weak<Shared<M>>, signal: &Signal, stop: &AtomicBool, armed: &AtomicBool) {
    let mut deadline: Option<Instant> = None;
    loop {
        signal.wait(deadline);
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Some(engine) = engine.upgrade() else {
            return;
        };
        armed.store(false, Ordering::Release);
        deadline = step(&engine);
        armed.store(deadline.is_some(), Ordering::Release);
    }
}

/// Takes checkpoints until none is due; when to look again, if nobody wakes the thread before.
fn step<M: StateMachine>(engine: &Shared<M>) -> Option<Instant> {
    loop {
        // A panic of the machine was counted as a checkpoint that failed, and is no reason to take no more.
        match catch_unwind(AssertUnwindSafe(|| engine.checkpoint_if_due())) {
            Ok(Ok((true, _))) => {}
            Ok(Ok((false, again))) => return again,
            Ok(Err(error)) if error.entry().is_some() => return None,
            // It was counted and told, and the next one may not begin at once.
            Ok(Err(_)) => {}
            Err(_) => tracing::error!("the machine panicked while a checkpoint was taken"),
        }
    }
}
