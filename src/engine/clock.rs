//! The time by which checkpoints are planned: that of the system, or in tests one that a machine moves by as much as its work is to take.

use std::time::Duration;

use crate::sync::Instant;
#[cfg(test)]
use crate::sync::{Arc, plain};

/// Counts from some moment before the engine was opened. Clones are the same clock.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    begun: Instant,
    #[cfg(test)]
    simulated: Option<Simulated>,
}

/// A clock that stands still until it is moved.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(super) struct Simulated(Arc<plain::AtomicU64>);

impl Clock {
    pub(super) fn system() -> Clock {
        Clock {
            begun: Instant::now(),
            #[cfg(test)]
            simulated: None,
        }
    }

    #[cfg(test)]
    pub(super) fn simulated(by: &Simulated) -> Clock {
        Clock {
            simulated: Some(by.clone()),
            ..Clock::system()
        }
    }

    pub(super) fn now(&self) -> Duration {
        #[cfg(test)]
        if let Some(simulated) = &self.simulated {
            return simulated.now();
        }
        self.begun.elapsed()
    }

    pub(super) fn since(&self, earlier: Duration) -> Duration {
        self.now().saturating_sub(earlier)
    }

    /// When it is `then` on this clock, for whoever waits until then.
    pub(super) fn at(&self, then: Duration) -> Option<Instant> {
        self.begun.checked_add(then)
    }
}

#[cfg(test)]
impl Simulated {
    pub(super) fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(plain::Ordering::Relaxed))
    }

    pub(super) fn advance(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).expect("a short time");
        self.0.fetch_add(nanos, plain::Ordering::Relaxed);
    }
}
