//! The clock of a model: it moves by itself only as far as is needed to tell two moments apart, and otherwise when a
//! sleeper's deadline is reached. What a schedule does so never depends on how long it took.

use std::cell::Cell;
use std::ops::{Add, Sub};
use std::time::Duration;

/// As `std::time::Instant`, on the model's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

std::thread_local! {
    /// A model runs all of its threads on one thread of the system. Never set back: only differences count.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

impl Instant {
    pub(crate) fn now() -> Instant {
        let now = NOW.get() + Duration::from_nanos(u64::from(cfg!(shuttle)));
        NOW.set(now);
        Instant(now)
    }

    /// It is `self` now, if it was not later already.
    #[cfg(shuttle)]
    pub(crate) fn reach(self) {
        NOW.set(NOW.get().max(self.0));
    }

    pub(crate) fn elapsed(self) -> Duration {
        Instant::now().saturating_duration_since(self)
    }

    pub(crate) fn checked_add(self, time: Duration) -> Option<Instant> {
        self.0.checked_add(time).map(Instant)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, time: Duration) -> Instant {
        Instant(self.0 + time)
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}
