//! Locks, atomics, condition variables and threads: the one seam through which all of the crate takes them.
//!
//! Under `--cfg loom` or `--cfg shuttle` the same names are the instrumented ones, so that a model checker decides every
//! interleaving. That works only for what goes through here: parking_lot, crossbeam and futexes are invisible to both
//! checkers, and a lock taken from elsewhere would make a model prove nothing. The shape is parking_lot's: `lock()`
//! returns the guard, a condition variable takes `&mut` of it.
//!
//! Three limits follow. Nothing here is `const`-constructible in a model, so no lock or atomic stands in a `static`. A
//! model has a clock of its own: loom's stands still, shuttle's jumps to the deadline of a sleeper that is run although
//! nobody woke it, so that no schedule depends on how fast the machine is. And `Arc` is always the standard one,
//! because loom's cannot hold a `dyn` trait; reference counts decide nothing in this crate but when memory is freed.

#[cfg(any(loom, shuttle))]
mod clock;
#[cfg(shuttle)]
mod lock_order;
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

/// Real atomics in every build, for counters: nothing is decided by them, so a model need not look at them.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

    #[cfg(feature = "snapshot")]
    pub(crate) use crossbeam::channel;

    /// Runs both, `other` on a thread of its own if one can be had, and otherwise behind `own`. For computations that touch nothing else: a
    /// model does not see them.
    #[cfg(feature = "snapshot")]
    pub(crate) fn beside<A, B: Send>(
        name: &str,
        own: impl FnOnce() -> A,
        other: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        // Whoever comes first takes it.
        let other = std::sync::Mutex::new(Some(other));
        let run = || {
            let other = other.lock().ok().and_then(|mut other| other.take());
            other.map(|other| other())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn_scoped(scope, run);
            let own = own();
            let other = match thread {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => run(),
            };
            (own, other.expect("one of the two runs it"))
        })
    }
}

#[cfg(any(loom, shuttle))]
pub(crate) use self::clock::Instant;
#[cfg(any(loom, shuttle))]
pub(crate) use self::modelled::{Condvar, Mutex, MutexGuard, atomic, thread, thread_local};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use self::real::{Condvar, Instant, Mutex, MutexGuard, atomic, thread, thread_local};

#[cfg(not(any(loom, shuttle)))]
mod real {
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread_local;
    pub(crate) use std::time::Instant;

    pub(crate) mod thread {
        use std::io;

        pub(crate) use std::thread::{JoinHandle, sleep};

        /// How many threads can run at a time, as far as that is known.
        pub(crate) fn cores() -> usize {
            std::thread::available_parallelism().map_or(1, usize::from)
        }

        /// Starts a thread that debuggers and `top` show as `name` (at most 15 bytes of it).
        pub(crate) fn spawn<T: Send + 'static>(
            name: &str,
            run: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            std::thread::Builder::new().name(name.into()).spawn(run)
        }
    }
}
