//! Locks, atomics and threads: the one place where they come from, so that a model checker can put its own in.

pub(crate) use parking_lot::{Condvar, Mutex};
pub(crate) use std::sync::Arc;
pub(crate) use std::thread;
