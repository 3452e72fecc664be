//! Progress with an estimate, on standard error when a person watches it there, and nothing otherwise.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A line that shows how far a command is. Cheap where nobody watches.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Progress through `total` bytes; `None` where the end is not known, as with a pipe.
    pub(crate) fn bytes(what: &'static str, total: Option<u64>) -> Progress {
        match total {
            Some(total) => Progress::new(ProgressBar::new(total), what, BYTES),
            None => Progress::new(ProgressBar::no_length(), what, BYTES_WITHOUT_END),
        }
    }

    /// Progress through `total` steps.
    pub(crate) fn steps(what: &'static str, total: u64) -> Progress {
        Progress::new(ProgressBar::new(total), what, STEPS)
    }

    /// No progress at all.
    pub(crate) fn none() -> Progress {
        Progress(ProgressBar::hidden())
    }

    /// `done` of the total.
    pub(crate) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Sets the total, where it was not known at the start.
    pub(crate) fn total(&self, total: u64) {
        if self.0.length() != Some(total) {
            self.0.set_length(total);
        }
    }

    /// Removes the line, so that what is printed next stands alone.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }

    fn new(bar: ProgressBar, what: &'static str, template: &str) -> Progress {
        if !io::stderr().is_terminal() {
            return Progress::none();
        }
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress(bar)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

const BYTES: &str = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
const BYTES_WITHOUT_END: &str = "{msg} {spinner} {bytes}, {bytes_per_sec}, {elapsed}";
const STEPS: &str = "{msg} {wide_bar} {pos} of {len}, {eta} left";
