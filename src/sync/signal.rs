//! A wake-up that is kept until somebody takes it.

use crate::sync::{Instant, Word};

/// Tells one thread that there is something to do. Sticky: a wake-up that comes while the thread is busy ends its next
/// wait at once; several of them are one.
#[derive(Debug)]
pub(crate) struct Signal(Word);

const QUIET: u32 = 0;
const WOKEN: u32 = 1;

impl Default for Signal {
    fn default() -> Signal {
        Signal::new()
    }
}

impl Signal {
    pub(crate) fn new() -> Signal {
        Signal(Word::new(QUIET))
    }

    /// Ends the current wait, or the next one. Free of system calls while an earlier wake-up has not been taken.
    pub(crate) fn wake(&self) {
        // A swap even when it is set: whoever takes it must see what was written before this call too.
        if self.0.swap(WOKEN) == QUIET {
            self.0.wake_one();
        }
    }

    /// Waits for a wake-up and takes it. False if the deadline came first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.0.compare_exchange(WOKEN, QUIET) {
                return true;
            }
            if !self.0.wait_until(QUIET, deadline) {
                return self.0.compare_exchange(WOKEN, QUIET);
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::time::{Duration, Instant};

    use super::Signal;

    #[test]
    fn a_wake_up_is_kept_for_the_next_wait_and_taken_once() {
        let signal = Signal::new();
        signal.wake();
        signal.wake();
        assert!(signal.wait(None));
        assert!(!signal.wait(Some(Instant::now() + Duration::from_millis(1))));
    }

    #[test]
    fn a_deadline_in_the_past_still_takes_a_wake_up() {
        let signal = Signal::new();
        let past = Instant::now();
        assert!(!signal.wait(Some(past)));
        signal.wake();
        assert!(signal.wait(Some(past)));
    }
}
