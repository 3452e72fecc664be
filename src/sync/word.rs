//! A 32-bit word that threads can sleep on: a futex where the system has one that can be called safely (Linux), a lock and
//! a condition variable elsewhere and in models. One word per batch wakes exactly the writers of that batch with one
//! system call; a condition variable shared by all batches would wake the others too, or queue them on its lock.

use crate::sync::Instant;
use crate::sync::atomic::{AtomicU32, Ordering};
#[cfg(any(loom, shuttle, not(target_os = "linux")))]
use crate::sync::{Condvar, Mutex};

/// What is stored before [`wake_one`](Word::wake_one) or [`wake_all`](Word::wake_all) is seen by those who wake, with all
/// that was written before it. A wait may end for no reason: callers look at the word and wait again.
#[derive(Debug)]
pub(crate) struct Word {
    value: AtomicU32,
    /// Held by a sleeper from its look at `value` until it sleeps, and by whoever wakes: no wake-up falls between.
    #[cfg(any(loom, shuttle, not(target_os = "linux")))]
    lock: Mutex<()>,
    #[cfg(any(loom, shuttle, not(target_os = "linux")))]
    woken: Condvar,
}

impl Word {
    pub(crate) fn new(value: u32) -> Word {
        Word {
            value: AtomicU32::new(value),
            #[cfg(any(loom, shuttle, not(target_os = "linux")))]
            lock: Mutex::new(()),
            #[cfg(any(loom, shuttle, not(target_os = "linux")))]
            woken: Condvar::new(),
        }
    }

    pub(crate) fn load(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }

    pub(crate) fn store(&self, value: u32) {
        self.value.store(value, Ordering::Release);
    }

    /// Changes `from` to `to`; false if the word was something else.
    pub(crate) fn compare_exchange(&self, from: u32, to: u32) -> bool {
        self.value
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Stores `value` and returns what stood there. Unlike a `compare_exchange` that fails, it publishes even when nothing
    /// changes.
    pub(crate) fn swap(&self, value: u32) -> u32 {
        self.value.swap(value, Ordering::AcqRel)
    }

    /// Sleeps while the word is `expected`, or until `deadline`. False if the deadline has passed.
    pub(crate) fn wait_until(&self, expected: u32, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            self.wait(expected);
            return true;
        };
        let now = Instant::now();
        if now >= deadline {
            return false;
        }
        self.sleep(expected, Some(deadline - now));
        Instant::now() < deadline
    }

    /// Sleeps while the word is `expected`.
    pub(crate) fn wait(&self, expected: u32) {
        self.sleep(expected, None);
    }
}

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod futex {
    use std::time::Duration;

    use rustix::thread::futex::{self, Flags, Timespec};

    use super::Word;

    impl Word {
        pub(crate) fn wake_one(&self) {
            self.wake(1);
        }

        pub(crate) fn wake_all(&self) {
            self.wake(MANY);
        }

        fn wake(&self, threads: u32) {
            let woken = futex::wake(&self.value, Flags::PRIVATE, threads);
            debug_assert!(woken.is_ok(), "{woken:?}");
        }

        /// The errors are `EAGAIN` (the word was another), `EINTR` and `ETIMEDOUT`; each means: look at the word.
        pub(super) fn sleep(&self, expected: u32, time: Option<Duration>) {
            let time = time.map(|time| Timespec {
                tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            });
            let _ = futex::wait(&self.value, Flags::PRIVATE, expected, time.as_ref());
        }
    }

    /// The kernel reads the count as a signed int.
    const MANY: u32 = u32::MAX >> 1;
}

#[cfg(any(loom, shuttle, not(target_os = "linux")))]
mod portable {
    use std::time::Duration;

    use super::{Ordering, Word};

    impl Word {
        pub(crate) fn wake_one(&self) {
            drop(self.lock.lock());
            self.woken.notify_one();
        }

        pub(crate) fn wake_all(&self) {
            drop(self.lock.lock());
            self.woken.notify_all();
        }

        pub(super) fn sleep(&self, expected: u32, time: Option<Duration>) {
            let mut held = self.lock.lock();
            if self.value.load(Ordering::Acquire) != expected {
                return;
            }
            match time {
                Some(time) => drop(self.woken.wait_for(&mut held, time)),
                None => self.woken.wait(&mut held),
            }
        }
    }
}
