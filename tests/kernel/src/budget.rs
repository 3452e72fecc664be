//! How long a campaign goes on, and where: seeds in a row, until enough was seen or the time is up.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Which seeds, and how many images or how long.
pub(crate) struct Budget {
    first: u64,
    next: u64,
    /// Only the first seed.
    one: bool,
    images: u64,
    started: Instant,
    time: Option<Duration>,
    /// A signal asked to stop.
    stopped: Arc<AtomicBool>,
}

impl Budget {
    /// From the environment; without EVERLOG_IMAGES, `images`. A signal ends it: a process that dies while the kernel waits for its
    /// answer as a file system leaves both stuck.
    pub(crate) fn new(images: u64) -> io::Result<Budget> {
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, stopped.clone())?;
        }
        let one = number("EVERLOG_SEED");
        let first = one.or(number("EVERLOG_FIRST_SEED")).unwrap_or(1);
        Ok(Budget {
            first,
            next: first,
            one: one.is_some(),
            images: number("EVERLOG_IMAGES").unwrap_or(images),
            started: Instant::now(),
            time: number("EVERLOG_SECONDS").map(Duration::from_secs),
            stopped,
        })
    }

    /// The next seed, unless `done` images are enough.
    pub(crate) fn next(&mut self, done: u64) -> Option<u64> {
        let over = self.one && self.next > self.first;
        if over || self.is_over() || done >= self.images {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Whether one seed is run again, of which everything is told.
    pub(crate) fn is_single(&self) -> bool {
        self.one
    }

    /// Whether there is time for a look only, and not for all.
    pub(crate) fn is_short(&self) -> bool {
        self.time.is_some_and(|time| time < Duration::from_secs(120))
    }

    /// Whether half of the time is up.
    pub(crate) fn is_half_over(&self) -> bool {
        self.is_over() || self.time.is_some_and(|time| self.started.elapsed() >= time / 2)
    }

    /// Whether the time is up.
    pub(crate) fn is_over(&self) -> bool {
        let late = self.time.is_some_and(|time| self.started.elapsed() >= time);
        late || self.stopped.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.started.elapsed().as_secs();
        write!(f, "seeds {}..{}, {seconds} s", self.first, self.next)
    }
}

/// A number from the environment; anything else there is a mistake.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}
