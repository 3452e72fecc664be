//! loom's and shuttle's locks in the shape of parking_lot's. Neither knows time. Under loom a deadline never passes; under
//! shuttle it passes when the scheduler runs a sleeper that nobody woke, and [`Instant`] says so from then on.

#[cfg(loom)]
use loom::sync as checker;
#[cfg(shuttle)]
use shuttle::sync as checker;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

#[cfg(shuttle)]
use super::lock_order::{self, Site};

pub(crate) use checker::atomic;
#[cfg(loom)]
pub(crate) use loom::thread_local;
#[cfg(shuttle)]
pub(crate) use shuttle::thread_local;

/// A lock without poisoning.
#[derive(Debug)]
pub(crate) struct Mutex<T> {
    inner: checker::Mutex<T>,
    #[cfg(shuttle)]
    site: Site,
}

/// Holds the checker's guard, which a condition variable takes out while it waits.
pub(crate) struct MutexGuard<'a, T> {
    guard: Option<checker::MutexGuard<'a, T>>,
    #[cfg_attr(loom, expect(dead_code, reason = "only shuttle's timed waits lock again"))]
    of: &'a Mutex<T>,
}

impl<T: Default> Default for Mutex<T> {
    #[track_caller]
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> Mutex<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex {
            inner: checker::Mutex::new(value),
            #[cfg(shuttle)]
            site: std::panic::Location::caller(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(shuttle)]
        lock_order::waits(self.site);
        let guard = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.guard(guard)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(self.guard(self.inner.try_lock().ok()?))
    }

    fn guard<'a>(&'a self, guard: checker::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        #[cfg(shuttle)]
        lock_order::takes(self.site);
        MutexGuard {
            guard: Some(guard),
            of: self,
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.guard.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("held")
    }
}

#[cfg(shuttle)]
impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        lock_order::releases(self.of.site);
    }
}

/// What a timed wait says. Nobody asks it: callers look at what they wait for.
pub(crate) struct WaitTimeoutResult;

#[derive(Debug, Default)]
pub(crate) struct Condvar {
    inner: checker::Condvar,
    #[cfg(shuttle)]
    sleepers: timed::Sleepers,
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.guard.take().expect("held");
        #[cfg(shuttle)]
        lock_order::releases(guard.of.site);
        #[cfg(shuttle)]
        self.sleepers.enter();
        let held = self
            .inner
            .wait(held)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        #[cfg(shuttle)]
        lock_order::takes(guard.of.site);
        guard.guard = Some(held);
    }

    #[cfg(loom)]
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _time: Duration) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult
    }

    /// The sleeper stays runnable: whether its time passes before others go on is the scheduler's choice.
    #[cfg(shuttle)]
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> WaitTimeoutResult {
        let deadline = super::Instant::now().checked_add(time);
        self.sleepers.enter_timed();
        drop(guard.guard.take());
        lock_order::releases(guard.of.site);
        shuttle::thread::yield_now();
        let woken = self.sleepers.leave_timed();
        if let Some(deadline) = deadline.filter(|_| !woken) {
            deadline.reach();
        }
        *guard = guard.of.lock();
        WaitTimeoutResult
    }

    pub(crate) fn notify_one(&self) {
        #[cfg(shuttle)]
        if self.sleepers.wake_one_timed() {
            return;
        }
        self.inner.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        #[cfg(shuttle)]
        self.sleepers.wake_all();
        self.inner.notify_all();
    }
}

#[cfg(shuttle)]
mod timed {
    use std::sync::{Mutex, MutexGuard};

    use shuttle::rand::{RngCore, thread_rng};

    /// Who sleeps on a condition variable. The checker's own knows only those without a deadline.
    #[derive(Debug, Default)]
    pub(super) struct Sleepers(Mutex<Counts>);

    #[derive(Debug, Default)]
    struct Counts {
        untimed: usize,
        timed: usize,
        /// Wake-ups that timed sleepers have not noticed.
        woken: usize,
    }

    impl Sleepers {
        fn counts(&self) -> MutexGuard<'_, Counts> {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }

        pub(super) fn enter(&self) {
            self.counts().untimed += 1;
        }

        pub(super) fn enter_timed(&self) {
            self.counts().timed += 1;
        }

        /// True if a wake-up came, false if the time passed.
        pub(super) fn leave_timed(&self) -> bool {
            let mut counts = self.counts();
            let woken = counts.woken > 0;
            if woken {
                counts.woken -= 1;
            } else {
                counts.timed -= 1;
            }
            woken
        }

        /// Gives a wake-up to one sleeper: true if it is a timed one. Which one it is must not be relied on.
        pub(super) fn wake_one_timed(&self) -> bool {
            let (untimed, timed) = {
                let counts = self.counts();
                (counts.untimed, counts.timed)
            };
            let to_timed = timed > 0 && (untimed == 0 || thread_rng().next_u64() & 1 == 0);
            let mut counts = self.counts();
            if to_timed {
                counts.timed -= 1;
                counts.woken += 1;
            } else {
                counts.untimed = counts.untimed.saturating_sub(1);
            }
            to_timed
        }

        pub(super) fn wake_all(&self) {
            let mut counts = self.counts();
            counts.untimed = 0;
            counts.woken += std::mem::take(&mut counts.timed);
        }
    }
}

pub(crate) mod thread {
    use std::io;

    #[cfg(loom)]
    use loom::thread as checker;
    #[cfg(shuttle)]
    use shuttle::thread as checker;

    pub(crate) use checker::JoinHandle;
    pub(crate) use std::thread::sleep;

    /// Enough for two of a kind to meet.
    pub(crate) fn cores() -> usize {
        2
    }

    /// As the real one.
    pub(crate) fn spawn<T: Send + 'static>(
        name: &str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        checker::Builder::new().name(name.into()).spawn(run)
    }
}
