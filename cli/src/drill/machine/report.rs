//! What a drill of a machine tells: for people, or as one JSON object and one more for each violation.

use std::time::Duration;

use serde::Serialize;

use super::super::check::Violation;
use super::super::medium::Ground;
use super::super::protocol::{Record, Stage};
use super::super::report::{self as common, Opens, PROVES};
use super::super::workplace::Workplace;
use super::model::Settled;
use super::world::Restart;
use crate::args::DrillArgs;
use crate::exit::Failure;
use crate::output::{self, Output, bytes, counted, grouped, time};

/// Where a kill came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hit {
    /// Between stages: commands were executed.
    Working,
    /// Within this stage.
    In(Stage),
}

impl Hit {
    const ALL: [Hit; 6] = [
        Hit::Working,
        Hit::In(Stage::Checkpoint),
        Hit::In(Stage::Collection),
        Hit::In(Stage::Opening),
        Hit::In(Stage::Restore),
        Hit::In(Stage::Replay),
    ];

    /// Where the one came that ended a life with these reports: in the stage that was entered last and is not over.
    pub(crate) fn of(records: &[Record]) -> Hit {
        let mut within: Vec<Stage> = Vec::new();
        for record in records {
            match record {
                Record::Begins { stage } => within.push(*stage),
                Record::Ends { stage, .. } => within.retain(|other| other != stage),
                _ => {}
            }
        }
        within.last().map_or(Hit::Working, |stage| Hit::In(*stage))
    }

    /// As in "a kill at work".
    pub(crate) fn name(self) -> &'static str {
        match self {
            Hit::Working => "at work",
            Hit::In(Stage::Checkpoint) => "in a checkpoint",
            Hit::In(Stage::Collection) => "in a collection",
            Hit::In(Stage::Opening) => "while opening",
            Hit::In(Stage::Restore) => "in a restore",
            Hit::In(Stage::Replay) => "in a replay",
        }
    }
}

/// What is counted along the way.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) cycles: u64,
    /// Where each kill came.
    pub(crate) hits: Vec<Hit>,
    /// Restarts after a kill, and where that came.
    pub(crate) restarts: Vec<(Hit, Restart)>,
    /// How long children worked.
    pub(crate) working: Duration,
    pub(crate) elapsed: Duration,
    acknowledged: u64,
    in_flight: Settled,
    /// Restarts whose digest was that of the model.
    equal: u64,
    applied: u64,
    keys: usize,
    checkpoints: u64,
    collections: u64,
    /// What the engine predicted at worst.
    predicted: Duration,
    /// How often it said that the budget cannot be kept.
    unattainable: u64,
    opens: Opens,
}

impl Tally {
    /// A child reported something.
    pub(crate) fn count(&mut self, record: &Record) {
        match *record {
            Record::Opened(opened) => self.opens.child_opened(opened),
            Record::Ack { .. } => self.acknowledged += 1,
            Record::Ends { stage, .. } => {
                self.checkpoints += u64::from(stage == Stage::Checkpoint);
                self.collections += u64::from(stage == Stage::Collection);
            }
            Record::Predicted { micros, unattainable } => {
                self.predicted = self.predicted.max(Duration::from_micros(micros));
                self.unattainable += u64::from(unattainable);
            }
            _ => {}
        }
    }

    /// A machine came back, with so many commands and keys, and with the digest that the model has.
    pub(crate) fn settled(&mut self, settled: Settled, applied: u64, keys: usize) {
        self.equal += 1;
        (self.applied, self.keys) = (applied, keys);
        self.in_flight.survived += settled.survived;
        self.in_flight.vanished += settled.vanished;
    }

    fn kills(&self, hit: Hit) -> usize {
        self.hits.iter().filter(|other| **other == hit).count()
    }

    /// Those after a kill there, or after any.
    fn times(&self, hit: Option<Hit>) -> Times {
        let of = self
            .restarts
            .iter()
            .filter(|(other, _)| hit.is_none_or(|hit| hit == *other));
        let mut all: Vec<Duration> = of.map(|(_, restart)| restart.total).collect();
        all.sort();
        Times {
            count: all.len(),
            median: all.get(all.len() / 2).copied().unwrap_or_default(),
            max: all.last().copied().unwrap_or_default(),
        }
    }

    /// The most that restoring and replaying took, which is what the engine predicts.
    fn engine_max(&self) -> Duration {
        let engine = |(_, restart): &(Hit, Restart)| restart.restore + restart.replay;
        self.restarts.iter().map(engine).max().unwrap_or_default()
    }

    fn longest(&self) -> Restart {
        let restarts = self.restarts.iter().map(|(_, restart)| *restart);
        restarts.max_by_key(|restart| restart.total).unwrap_or_default()
    }

    fn beyond(&self, budget: Duration) -> usize {
        let beyond = |(_, restart): &&(Hit, Restart)| restart.total > budget;
        self.restarts.iter().filter(beyond).count()
    }
}

struct Times {
    count: usize,
    median: Duration,
    max: Duration,
}

/// What a restart was made of, in words.
pub(crate) fn parts(restart: &Restart) -> String {
    let known = restart.journal + restart.store + restart.restore + restart.replay;
    format!(
        "journal {}, store {}, restore {} ({}), replay {} ({}, {}), the rest {}",
        time(restart.journal),
        time(restart.store),
        time(restart.restore),
        bytes(restart.snapshot_bytes),
        time(restart.replay),
        counted(restart.entries, "entry", "entries"),
        bytes(restart.bytes),
        time(restart.total.saturating_sub(known)),
    )
}

/// Everything about a drill that ended.
pub(crate) struct Drilled<'a> {
    pub(crate) args: &'a DrillArgs,
    pub(crate) seed: u64,
    pub(crate) workplace: &'a Workplace,
    pub(crate) ground: &'a Ground,
    pub(crate) tally: &'a Tally,
    pub(crate) violations: &'a [Violation],
}

/// What a person wants to know while the drill runs.
pub(crate) fn print_head(out: &mut Output, args: &DrillArgs, seed: u64) -> Result<(), Failure> {
    let what = match &args.file {
        Some(file) => format!("the lines of {}", file.display()),
        None => "made-up entries".into(),
    };
    out.line(format!(
        "drill: {} put {what} into a map of {} while checkpoints are taken, and are killed {}, seed {seed}",
        counted(u64::from(args.writers), "writer", "writers"),
        counted(args.machine.keys, "key", "keys"),
        common::times(args),
    ))
}

impl Drilled<'_> {
    /// Prints violations and summary.
    pub(crate) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        if self.args.format.json {
            common::print_violations_json(out, self.violations, self.workplace)?;
            return out.json(&self.summary());
        }
        for (name, value) in self.rows() {
            out.line(format!("  {name:<15} {value}"))?;
        }
        common::print_violations(out, self.violations, self.seed, self.workplace, FINE)?;
        for warning in self.ground.warnings() {
            out.line(format!("warning: {warning}"))?;
        }
        out.line(PROVES)
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let tally = self.tally;
        let in_flight = tally.in_flight;
        let kills = Hit::ALL.map(|hit| format!("{} {}", tally.kills(hit), hit.name()));
        let mut rows = vec![
            (
                "cycles",
                format!(
                    "{} ({} kills: {})",
                    grouped(tally.cycles),
                    grouped(tally.hits.len() as u64),
                    kills.join(", ")
                ),
            ),
            ("acknowledged", counted(tally.acknowledged, "command", "commands")),
            ("violations", grouped(self.violations.len() as u64)),
            (
                "in flight",
                format!(
                    "{} killed before their acknowledgement, {} of them there afterwards (either is right)",
                    grouped(in_flight.survived + in_flight.vanished),
                    grouped(in_flight.survived)
                ),
            ),
            (
                "machine",
                format!(
                    "{} after {}; its digest was the model's at {}",
                    counted(tally.keys as u64, "key", "keys"),
                    counted(tally.applied, "command", "commands"),
                    counted(tally.equal, "opening", "openings")
                ),
            ),
            (
                "checkpoints",
                format!(
                    "{} to their end, and {}",
                    grouped(tally.checkpoints),
                    counted(tally.collections, "collection", "collections")
                ),
            ),
        ];
        rows.extend(self.restart_rows());
        let [torn, carried, _] = tally.opens.rows();
        rows.extend([torn, carried]);
        rows.push((
            "speed",
            format!(
                "{} durable commands/s (a flush takes {})",
                grouped(output::rate(tally.acknowledged, tally.working)),
                time(self.ground.flush)
            ),
        ));
        rows
    }

    fn restart_rows(&self) -> Vec<(&'static str, String)> {
        let tally = self.tally;
        let budget = self.args.machine.restart_within;
        let all = tally.times(None);
        let kept = match tally.beyond(budget) {
            0 => "all of them within it".to_owned(),
            beyond => format!("{beyond} of {} beyond it", all.count),
        };
        let mut rows = vec![(
            "restart",
            format!(
                "median {}, max {}; budget {}: {kept}",
                time(all.median),
                time(all.max),
                time(budget)
            ),
        )];
        let said = match tally.unattainable {
            0 => "",
            _ => ", and said that the budget cannot be kept",
        };
        rows.push((
            "",
            format!(
                "restore and replay alone: max {}; the engine predicted {} at most{said}",
                time(tally.engine_max()),
                time(tally.predicted)
            ),
        ));
        for hit in Hit::ALL {
            let times = tally.times(Some(hit));
            if times.count > 0 {
                let text = format!(
                    "killed {}: median {}, max {} of {}",
                    hit.name(),
                    time(times.median),
                    time(times.max),
                    times.count
                );
                rows.push(("", text));
            }
        }
        rows.push(("", format!("the longest: {}", parts(&tally.longest()))));
        rows
    }

    fn summary(&self) -> Summary<'_> {
        let tally = self.tally;
        let budget = self.args.machine.restart_within;
        let (all, longest) = (tally.times(None), tally.longest());
        Summary {
            machine: true,
            seed: self.seed,
            writers: self.args.writers,
            keys_most: self.args.machine.keys,
            cycles: tally.cycles,
            kills: tally.hits.len(),
            acknowledged: tally.acknowledged,
            violations: self.violations.len(),
            unacknowledged_kept: tally.in_flight.survived,
            unacknowledged_gone: tally.in_flight.vanished,
            digests_equal: tally.equal,
            applied: tally.applied,
            keys: tally.keys,
            checkpoints: tally.checkpoints,
            collections: tally.collections,
            restarts: all.count,
            restart_median_seconds: all.median.as_secs_f64(),
            restart_max_seconds: all.max.as_secs_f64(),
            budget_seconds: budget.as_secs_f64(),
            budget_strict: self.args.machine.strict_budget,
            restarts_beyond_budget: tally.beyond(budget),
            restore_and_replay_max_seconds: tally.engine_max().as_secs_f64(),
            restart_predicted_max_seconds: tally.predicted.as_secs_f64(),
            budget_said_unattainable: tally.unattainable > 0,
            longest_restart: Longest {
                seconds: longest.total.as_secs_f64(),
                journal_seconds: longest.journal.as_secs_f64(),
                store_seconds: longest.store.as_secs_f64(),
                restore_seconds: longest.restore.as_secs_f64(),
                replay_seconds: longest.replay.as_secs_f64(),
                snapshot_bytes: longest.snapshot_bytes,
                replayed_entries: longest.entries,
                replayed_bytes: longest.bytes,
            },
            torn_tails_cut: tally.opens.torn,
            torn_bytes_cut: tally.opens.torn_bytes,
            tails_carried: tally.opens.carried,
            bytes_carried: tally.opens.carried_bytes,
            durable_commands_per_second: output::rate(tally.acknowledged, tally.working),
            seconds: tally.elapsed.as_secs_f64(),
            flush_median_seconds: self.ground.flush.as_secs_f64(),
            dir: self.workplace.dir().display().to_string(),
            dir_kept: !self.violations.is_empty(),
            file_system: &self.ground.medium.kind,
            device: &self.ground.medium.device,
            mount: self.ground.medium.mount.display().to_string(),
            warnings: self.ground.warnings(),
            proves: PROVES,
            stages: Hit::ALL.map(|hit| PerStage::of(tally, hit)).into(),
        }
    }
}

impl PerStage {
    fn of(tally: &Tally, hit: Hit) -> PerStage {
        let times = tally.times(Some(hit));
        PerStage {
            killed: hit.name(),
            kills: tally.kills(hit),
            restarts: times.count,
            restart_median_seconds: times.median.as_secs_f64(),
            restart_max_seconds: times.max.as_secs_f64(),
        }
    }
}

#[derive(Serialize)]
struct PerStage {
    killed: &'static str,
    kills: usize,
    restarts: usize,
    restart_median_seconds: f64,
    restart_max_seconds: f64,
}

#[derive(Serialize)]
struct Longest {
    seconds: f64,
    journal_seconds: f64,
    store_seconds: f64,
    restore_seconds: f64,
    replay_seconds: f64,
    snapshot_bytes: u64,
    replayed_entries: u64,
    replayed_bytes: u64,
}

#[derive(Serialize)]
struct Summary<'a> {
    machine: bool,
    seed: u64,
    writers: u32,
    keys_most: u64,
    cycles: u64,
    kills: usize,
    acknowledged: u64,
    violations: usize,
    unacknowledged_kept: u64,
    unacknowledged_gone: u64,
    digests_equal: u64,
    applied: u64,
    keys: usize,
    checkpoints: u64,
    collections: u64,
    restarts: usize,
    restart_median_seconds: f64,
    restart_max_seconds: f64,
    budget_seconds: f64,
    budget_strict: bool,
    restarts_beyond_budget: usize,
    restore_and_replay_max_seconds: f64,
    restart_predicted_max_seconds: f64,
    budget_said_unattainable: bool,
    longest_restart: Longest,
    torn_tails_cut: u64,
    torn_bytes_cut: u64,
    tails_carried: u64,
    bytes_carried: u64,
    durable_commands_per_second: u64,
    seconds: f64,
    flush_median_seconds: f64,
    dir: String,
    dir_kept: bool,
    file_system: &'a str,
    device: &'a str,
    mount: String,
    warnings: Vec<String>,
    proves: &'static str,
    /// Last: it has names of the same meaning as the whole.
    stages: Vec<PerStage>,
}

const FINE: &str = "after every kill the machine had every acknowledged command, in order, and the digest that the model had";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_came_in_the_stage_that_was_entered_last_and_is_not_over() {
        let begins = |stage| Record::Begins { stage };
        let ends = |stage| Record::Ends { stage, micros: 1 };
        let opening = [begins(Stage::Opening), begins(Stage::Restore)];
        assert_eq!(Hit::of(&opening), Hit::In(Stage::Restore));
        let restored = [&opening[..], &[ends(Stage::Restore)]].concat();
        assert_eq!(Hit::of(&restored), Hit::In(Stage::Opening));
        let working = [&restored[..], &[ends(Stage::Opening)]].concat();
        assert_eq!(Hit::of(&working), Hit::Working);
        let both = [
            &working[..],
            &[begins(Stage::Checkpoint), begins(Stage::Collection)],
        ]
        .concat();
        assert_eq!(Hit::of(&both), Hit::In(Stage::Collection));
        let one = [&both[..], &[ends(Stage::Collection)]].concat();
        assert_eq!(Hit::of(&one), Hit::In(Stage::Checkpoint));
    }

    #[test]
    fn restarts_are_told_apart_by_the_kill_before_them() {
        let restart = |millis| Restart {
            total: Duration::from_millis(millis),
            ..Restart::default()
        };
        let tally = Tally {
            restarts: vec![
                (Hit::Working, restart(5)),
                (Hit::In(Stage::Replay), restart(90)),
                (Hit::Working, restart(7)),
                (Hit::Working, restart(1)),
            ],
            ..Tally::default()
        };
        let of = |hit| {
            let times = tally.times(hit);
            (times.count, times.median.as_millis(), times.max.as_millis())
        };
        assert_eq!(of(None), (4, 7, 90));
        assert_eq!(of(Some(Hit::Working)), (3, 5, 7));
        assert_eq!(of(Some(Hit::In(Stage::Restore))), (0, 0, 0));
        assert_eq!(tally.longest(), restart(90));
        assert_eq!(tally.beyond(Duration::from_millis(7)), 1);
    }
}
