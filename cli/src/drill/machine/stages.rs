//! The stages that a child goes through, told to the drill as they begin and end, so that it can kill inside them.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use everlog::engine::{Engine, EngineMetrics};

use super::super::child::report;
use super::super::protocol::{Record, Stage};
use super::map::Map;

/// Tells of stages; of none if there is nobody to tell.
#[derive(Default)]
pub(crate) struct Stages {
    reports: Option<Arc<File>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: [Option<Instant>; Stage::ALL.len()],
    /// Checkpoints that were seen to end.
    checkpoints: u64,
}

impl Stages {
    /// Tells the drill.
    pub(crate) fn told(reports: Arc<File>) -> Stages {
        Stages {
            reports: Some(reports),
            ..Stages::default()
        }
    }

    /// `stage` is entered.
    pub(crate) fn begin(&self, stage: Stage) {
        self.locked().begun[stage as usize] = Some(Instant::now());
        self.tell(Record::Begins { stage });
    }

    /// `stage` is over, if it was entered.
    pub(crate) fn end(&self, stage: Stage) {
        let begun = self.locked().begun[stage as usize].take();
        if let Some(begun) = begun {
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.tell(Record::Ends { stage, micros });
        }
    }

    /// Whether `stage` is under way.
    pub(crate) fn is_in(&self, stage: Stage) -> bool {
        self.locked().begun[stage as usize].is_some()
    }

    /// Looks whether a checkpoint has ended, be it one of the background; returns what the engine says.
    pub(crate) fn look(&self, engine: &Engine<Map>) -> EngineMetrics {
        let metrics = engine.metrics();
        let new = {
            let mut state = self.locked();
            let new = metrics.checkpoints > state.checkpoints;
            state.checkpoints = state.checkpoints.max(metrics.checkpoints);
            new
        };
        if new {
            self.end(Stage::Checkpoint);
        }
        metrics
    }

    fn tell(&self, record: Record) {
        if let Some(reports) = &self.reports {
            report(reports, &[record]);
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // A thread that panics ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
