//! What one schedule says of itself when it is run alone: the journal's events, the thread that each comes from, and who ran last.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The last threads that were run, each with how often in a row.
#[derive(Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<Vec<(String, usize)>>>);

impl Tail {
    pub(crate) fn ran(&self, name: String) {
        let mut runs = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match runs.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => runs.push((name, 1)),
        }
    }

    pub(crate) fn print(&self) {
        let runs = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let tail = runs.iter().rev().take(SHOWN).rev();
        let tail: Vec<String> = tail.map(|(name, count)| format!("{name} x{count}")).collect();
        println!("ran last: {}", tail.join(", "));
    }
}

const SHOWN: usize = 60;

/// Prints the events of everlog, and nothing of the checker's.
pub(crate) struct Talk;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Talk {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("everlog")
    }

    fn event(&self, event: &Event<'_>) {
        let task = shuttle::current::get_current_task().map(shuttle::current::get_name_for_task);
        let mut line = Line(format!("{task:?}"));
        event.record(&mut line);
        println!("{}", line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
