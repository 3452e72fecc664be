//! A machine on the disk: its journal, its store and its engine, opened, and how long that took.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use everlog::engine::{Engine, EngineReport, Progress};
use everlog::snapshot::Store;
use everlog::{Journal, LogKey};

use super::super::protocol::{Record, Stage};
use super::brief::Settings;
use super::map::Map;
use super::stages::Stages;

/// The log of the machine.
const KEY: LogKey = LogKey(1);

/// An opened machine.
pub(crate) struct World {
    pub(crate) journal: Journal,
    pub(crate) store: Store,
    pub(crate) engine: Engine<Map>,
    pub(crate) restart: Restart,
}

/// What a restart was made of. Whoever restarts waits for all of it: the time of the process to start alone is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restart {
    pub(crate) total: Duration,
    /// The journal: found, checked, and its tail carried.
    pub(crate) journal: Duration,
    pub(crate) store: Duration,
    pub(crate) restore: Duration,
    pub(crate) replay: Duration,
    pub(crate) snapshot_bytes: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

impl World {
    /// Opens what stands in `dir`.
    pub(crate) fn open(
        dir: &Path,
        settings: &Settings,
        stages: &Arc<Stages>,
        forgets: bool,
    ) -> everlog::Result<World> {
        let start = Instant::now();
        stages.begin(Stage::Opening);
        let journal = Journal::open(dir, settings.journal())?;
        let opened = start.elapsed();
        let store = Store::open(dir, Settings::store())?;
        let stored = start.elapsed();
        let told = Arc::clone(stages);
        let config = settings.engine().progress(move |progress| {
            if matches!(progress, Progress::Replay { .. }) && !told.is_in(Stage::Replay) {
                told.begin(Stage::Replay);
            }
        });
        let machine = Map::new(Arc::clone(stages), forgets);
        let engine = Engine::open(&journal, KEY, &store, machine, config)?;
        let total = start.elapsed();
        stages.end(Stage::Replay);
        stages.end(Stage::Opening);
        let report = engine.report();
        let restart = Restart {
            total,
            journal: opened,
            store: stored - opened,
            restore: report.restore,
            replay: report.replay,
            snapshot_bytes: report.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes),
            entries: report.replayed_entries,
            bytes: report.replayed_bytes,
        };
        Ok(World {
            journal,
            store,
            engine,
            restart,
        })
    }

    /// What nothing but a kill does not explain.
    pub(crate) fn surprise(&self) -> Option<String> {
        let EngineReport {
            refused,
            reset_to,
            skipped,
            ..
        } = self.engine.report();
        if let Some((snapshot, error)) = refused.first() {
            return Some(format!(
                "snapshot {} was refused after a mere kill: {error}",
                snapshot.id
            ));
        }
        if let Some(damage) = self.store.damage().first() {
            return Some(format!(
                "the store is damaged after a mere kill: {}",
                damage.error
            ));
        }
        let odd = reset_to.iter().chain(skipped).next();
        odd.map(|id| format!("the log was reset, or an entry skipped, and nobody did it: {id}"))
    }

    /// What it has come to, for the drill to judge.
    pub(crate) fn state(&self) -> everlog::Result<Vec<Record>> {
        let mut records = self.restart.records().to_vec();
        records.extend(self.engine.read(Map::state)?);
        Ok(records)
    }
}

impl Restart {
    fn records(&self) -> [Record; 3] {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let words = [
            [micros(self.total), micros(self.journal), micros(self.store)],
            [micros(self.restore), micros(self.replay), self.snapshot_bytes],
            [self.entries, self.bytes, 0],
        ];
        let record = |part: u32| Record::Restarted {
            part,
            words: words[part as usize],
        };
        [record(0), record(1), record(2)]
    }

    /// Takes in one of the records of [`World::state`]; true when it was the last.
    pub(crate) fn hear(&mut self, part: u32, words: [u64; 3]) -> bool {
        let times = words.map(Duration::from_micros);
        match part {
            0 => [self.total, self.journal, self.store] = times,
            1 => {
                [self.restore, self.replay, _] = times;
                self.snapshot_bytes = words[2];
            }
            _ => [self.entries, self.bytes, _] = words,
        }
        part == 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_whole() {
        let restart = Restart {
            total: Duration::from_micros(1),
            journal: Duration::from_micros(2),
            store: Duration::from_micros(3),
            restore: Duration::from_micros(4),
            replay: Duration::from_micros(5),
            snapshot_bytes: 6,
            entries: 7,
            bytes: 8,
        };
        let mut heard = Restart::default();
        let over = restart.records().map(|record| match record {
            Record::Restarted { part, words } => heard.hear(part, words),
            _ => unreachable!("those of a restart"),
        });
        assert_eq!((heard, over), (restart, [false, false, true]));
    }
}
