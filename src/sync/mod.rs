//! Locks, atomics, condition variables and threads: the one seam through which all of the crate takes them.
//!
//! Under `--cfg loom` or `--cfg shuttle` the same names are the instrumented ones, so that a model checker decides every
//! interleaving. That works only for what goes through here: parking_lot, crossbeam and futexes are invisible to both
//! checkers, and a lock taken from elsewhere would make a model prove nothing. The shape is parking_lot's: `lock()`
//! returns the guard, a condition variable takes `&mut` of it.
//!
//! Three limits follow. Nothing here is `const`-constructible in a model, so no lock or atomic stands in a `static`. A
//! model's clock does not run: a wait with a deadline ends only by a wake-up there. And `Arc` is always the standard one,
//! because loom's cannot hold a `dyn` trait; reference counts decide nothing in this crate but when memory is freed.

#[cfg(any(loom, shuttle))]
mod modelled;
mod signal;
mod word;

pub(crate) use self::signal::Signal;
pub(crate) use self::word::Word;
pub(crate) use std::sync::Arc;
#[cfg(everlog_mutants)]
pub(crate) use std::sync::OnceLock;

/// Not shimmed: a queue of background work, and padding. No model depends on when they are seen to change.
pub(crate) use crossbeam::{queue::SegQueue, utils::CachePadded};

#[cfg(any(loom, shuttle))]
pub(crate) use self::modelled::{Condvar, Mutex, MutexGuard, atomic, thread, thread_local};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use self::real::{Condvar, Mutex, MutexGuard, atomic, thread, thread_local};

#[cfg(not(any(loom, shuttle)))]
mod real {
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread_local;

    pub(crate) mod thread {
        use std::io;

        pub(crate) use std::thread::{JoinHandle, sleep};

        /// Starts a thread that debuggers and `top` show as `name` (at most 15 bytes of it).
        pub(crate) fn spawn<T: Send + 'static>(
            name: &str,
            run: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            std::thread::Builder::new().name(name.into()).spawn(run)
        }
    }
}
