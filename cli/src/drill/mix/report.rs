//! What a mixed drill tells: for people, or as one JSON object and one more for each violation.

use std::time::Duration;

use everlog::OpenReport;
use serde::Serialize;

use super::super::check::Violation;
use super::super::medium::Ground;
use super::super::protocol::{Opened, Record};
use super::super::report::{self as common, Opens, PROVES};
use super::super::workplace::Workplace;
use crate::args::DrillArgs;
use crate::exit::Failure;
use crate::output::{self, Output};

/// What is counted along the way.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cycles: u64,
    pub(crate) kills: u64,
    /// Kills that came before the child had opened the journal.
    pub(crate) kills_opening: u64,
    pub(crate) lives_with_faults: u64,
    /// Workers that a planned fault stopped before the kill did.
    pub(crate) stopped: u64,
    /// Operations that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Issued, not acknowledged, and there after the kill.
    pub(crate) survived: u64,
    /// Issued, not acknowledged, and not there.
    pub(crate) vanished: u64,
    // Of the operations that stand:
    pub(crate) appends: u64,
    pub(crate) relaxed: u64,
    pub(crate) submitted: u64,
    pub(crate) across: u64,
    pub(crate) truncates: u64,
    pub(crate) purges: u64,
    pub(crate) resets: u64,
    pub(crate) cells: u64,
    pub(crate) logs_made_or_deleted: u64,
    /// Looks at what a kill left.
    pub(crate) looks: u64,
    /// Looks at a journal while a child wrote it.
    pub(crate) peeks: u64,
    pub(crate) verified: u64,
    pub(crate) journal_bytes_max: u64,
    /// How long children worked.
    pub(crate) working: Duration,
    pub(crate) elapsed: Duration,
    // As far as children lived to tell:
    rehomings: u64,
    faults: u64,
    rotations: u64,
    freed: u64,
    opens: Opens,
}

impl Tally {
    /// The drill opened what a kill left, in `elapsed` all in all.
    pub(crate) fn opened(&mut self, report: &OpenReport, elapsed: Duration) {
        self.opens.opened(report, elapsed);
    }

    /// A child opened.
    pub(crate) fn child_opened(&mut self, opened: Opened) {
        self.opens.child_opened(opened);
        self.opens.took(Duration::from_micros(opened.micros));
    }

    /// The counters that a child told last.
    pub(crate) fn life(&mut self, records: &[Record]) {
        let last = records.iter().rev().find_map(|record| match record {
            Record::Counted(counted) => Some(*counted),
            _ => None,
        });
        let last = last.unwrap_or_default();
        self.rehomings += u64::from(last.rehomings);
        self.faults += last.faults;
        self.rotations += last.rotations;
        self.freed += last.freed;
    }
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
    out.line(format!(
        "drill: {} do everything to {}{} and are killed {}, seed {seed}",
        output::counted(u64::from(args.logs_and_workers().1), "worker", "workers"),
        output::counted(args.logs_and_workers().0, "log", "logs"),
        if args.faults {
            ", while system calls fail,"
        } else {
            ""
        },
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
        let grouped = output::grouped;
        let in_flight = format!(
            "{} killed before their acknowledgement, {} of them there afterwards (either is right)",
            grouped(tally.survived + tally.vanished),
            grouped(tally.survived)
        );
        let looked = format!(
            "{} after a kill, {} beside a living child, {} at every byte",
            grouped(tally.looks),
            grouped(tally.peeks),
            grouped(tally.verified)
        );
        let mut rows = vec![
            ("cycles", tally.cycles_row()),
            (
                "acknowledged",
                output::counted(tally.acknowledged, "operation", "operations"),
            ),
            ("lost", grouped(self.violations.len() as u64)),
            ("in flight", in_flight),
            ("writes", tally.writes_row()),
            ("segments", tally.segments_row()),
        ];
        if self.args.faults {
            rows.push(("faults", tally.faults_row()));
        }
        rows.extend(tally.opens.rows());
        rows.push(("looked", looked));
        rows
    }

    fn summary(&self) -> Summary<'_> {
        let tally = self.tally;
        Summary {
            mix: true,
            seed: self.seed,
            workers: self.args.logs_and_workers().1,
            logs: self.args.logs_and_workers().0,
            cycles: tally.cycles,
            kills: tally.kills,
            kills_while_opening: tally.kills_opening,
            acknowledged: tally.acknowledged,
            violations: self.violations.len(),
            unacknowledged_kept: tally.survived,
            unacknowledged_gone: tally.vanished,
            appends: tally.appends,
            relaxed: tally.relaxed,
            submitted: tally.submitted,
            across_logs: tally.across,
            cells: tally.cells,
            truncates: tally.truncates,
            purges: tally.purges,
            resets: tally.resets,
            logs_made_or_deleted: tally.logs_made_or_deleted,
            rotations: tally.rotations,
            segments_freed: tally.freed,
            lives_with_faults: tally.lives_with_faults,
            faults: tally.faults,
            rehomings: tally.rehomings,
            workers_stopped: tally.stopped,
            torn_tails_cut: tally.opens.torn,
            torn_bytes_cut: tally.opens.torn_bytes,
            tails_carried: tally.opens.carried,
            bytes_carried: tally.opens.carried_bytes,
            open_median_seconds: tally.opens.median().as_secs_f64(),
            open_max_seconds: tally.opens.max().as_secs_f64(),
            looks: tally.looks,
            looks_beside_a_writer: tally.peeks,
            verified: tally.verified,
            seconds: tally.elapsed.as_secs_f64(),
            cycles_per_second: tally.cycles_per_second(),
            flush_median_seconds: self.ground.flush.as_secs_f64(),
            dir: self.workplace.dir().display().to_string(),
            dir_kept: !self.violations.is_empty(),
            file_system: &self.ground.medium.kind,
            device: &self.ground.medium.device,
            mount: self.ground.medium.mount.display().to_string(),
            warnings: self.ground.warnings(),
            proves: PROVES,
        }
    }
}

impl Tally {
    fn cycles_row(&self) -> String {
        format!(
            "{} ({} kills, {} of them before the journal was open), {:.1} a second",
            output::grouped(self.cycles),
            output::grouped(self.kills),
            output::grouped(self.kills_opening),
            self.cycles_per_second(),
        )
    }

    fn writes_row(&self) -> String {
        let counts = [
            (self.appends, "appends"),
            (self.cells, "cells"),
            (self.truncates, "truncates"),
            (self.purges, "purges"),
            (self.resets, "resets"),
            (self.logs_made_or_deleted, "logs made or deleted"),
            (self.relaxed, "relaxed"),
            (self.submitted, "submitted"),
            (self.across, "across logs"),
        ];
        let parts: Vec<String> = counts
            .iter()
            .map(|(count, what)| format!("{} {what}", output::grouped(*count)))
            .collect();
        parts.join(", ")
    }

    fn segments_row(&self) -> String {
        format!(
            "{} filled, {} freed; the journal had up to {}",
            output::grouped(self.rotations),
            output::grouped(self.freed),
            output::bytes(self.journal_bytes_max)
        )
    }

    fn faults_row(&self) -> String {
        format!(
            "{} in {}: {}, {} stopped",
            output::grouped(self.faults),
            output::counted(self.lives_with_faults, "life", "lives"),
            output::counted(self.rehomings, "re-homing", "re-homings"),
            output::counted(self.stopped, "worker", "workers"),
        )
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact beyond 2^53")]
    fn cycles_per_second(&self) -> f64 {
        self.cycles as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    mix: bool,
    seed: u64,
    workers: u32,
    logs: u64,
    cycles: u64,
    kills: u64,
    kills_while_opening: u64,
    acknowledged: u64,
    violations: usize,
    unacknowledged_kept: u64,
    unacknowledged_gone: u64,
    appends: u64,
    relaxed: u64,
    submitted: u64,
    across_logs: u64,
    cells: u64,
    truncates: u64,
    purges: u64,
    resets: u64,
    logs_made_or_deleted: u64,
    rotations: u64,
    segments_freed: u64,
    lives_with_faults: u64,
    faults: u64,
    rehomings: u64,
    workers_stopped: u64,
    torn_tails_cut: u64,
    torn_bytes_cut: u64,
    tails_carried: u64,
    bytes_carried: u64,
    open_median_seconds: f64,
    open_max_seconds: f64,
    looks: u64,
    looks_beside_a_writer: u64,
    verified: u64,
    seconds: f64,
    cycles_per_second: f64,
    flush_median_seconds: f64,
    dir: String,
    dir_kept: bool,
    file_system: &'a str,
    device: &'a str,
    mount: String,
    warnings: Vec<String>,
    proves: &'static str,
}

const FINE: &str =
    "after every kill each log was as an operation had left it, none older than the last acknowledged one";
