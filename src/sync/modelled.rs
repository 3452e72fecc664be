//! loom's and shuttle's locks in the shape of parking_lot's. Deadlines never pass: both checkers leave time out.

#[cfg(loom)]
use loom::sync as checker;
#[cfg(shuttle)]
use shuttle::sync as checker;

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

pub(crate) use checker::atomic;
#[cfg(loom)]
pub(crate) use loom::thread_local;
#[cfg(shuttle)]
pub(crate) use shuttle::thread_local;

/// A lock without poisoning.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(checker::Mutex<T>);

/// Holds the checker's guard, which a condition variable takes out while it waits.
pub(crate) struct MutexGuard<'a, T>(Option<checker::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(checker::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
        ))
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard(Some(self.0.try_lock().ok()?)))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("held")
    }
}

/// What a timed wait says; it never timed out.
pub(crate) struct WaitTimeoutResult;

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(checker::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(checker::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("held");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _deadline: Instant,
    ) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _time: Duration) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
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

    /// As the real one.
    pub(crate) fn spawn<T: Send + 'static>(
        name: &str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        checker::Builder::new().name(name.into()).spawn(run)
    }
}
