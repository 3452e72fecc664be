//! What a drill tells at its end.

use std::time::Duration;

use everlog::OpenReport;
use serde::Serialize;

use super::check::{Kind, Violation};
use super::medium::Ground;
use super::protocol::Opened;
use super::workplace::Workplace;
use crate::args::DrillArgs;
use crate::exit::{Exit, Failure};
use crate::output::{self, Output, word};

/// What is counted along the way.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) cycles: u64,
    pub(crate) kills: u64,
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    /// Issued, not acknowledged, and there after the kill.
    pub(crate) survived: u64,
    /// Issued, not acknowledged, and not there.
    pub(crate) vanished: u64,
    /// How long children appended.
    pub(crate) working: Duration,
    pub(crate) opens: Opens,
}

/// How a drill ends: what it found counts for more than that it could not be told.
pub(crate) fn exit(printed: Result<(), Failure>, violations: &[Violation]) -> Result<Exit, Failure> {
    match printed {
        _ if !violations.is_empty() => Ok(Exit::Finding),
        Err(failure) if !failure.is_quiet() => Err(failure),
        _ => Ok(Exit::Fine),
    }
}

/// What openings of what a kill left found and did.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    pub(crate) torn: u64,
    pub(crate) torn_bytes: u64,
    pub(crate) carried: u64,
    pub(crate) carried_bytes: u64,
    times: Vec<Duration>,
}

impl Opens {
    /// The drill opened what a kill left, in `elapsed` all in all.
    pub(crate) fn opened(&mut self, report: &OpenReport, elapsed: Duration) {
        let cut = report.cut.iter().map(|cut| cut.bytes).sum();
        self.recovered((!report.cut.is_empty()).then_some(cut), report.carried_bytes);
        self.took(elapsed);
    }

    /// An opening took so long.
    pub(crate) fn took(&mut self, elapsed: Duration) {
        self.times.push(elapsed);
    }

    /// A child opened.
    pub(crate) fn child_opened(&mut self, opened: Opened) {
        self.recovered(opened.cut, opened.carried_bytes);
    }

    fn recovered(&mut self, cut: Option<u64>, carried_bytes: u64) {
        self.torn += u64::from(cut.is_some());
        self.torn_bytes += cut.unwrap_or(0);
        self.carried += u64::from(carried_bytes > 0);
        self.carried_bytes += carried_bytes;
    }

    pub(crate) fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    /// Rows of the summary for people.
    pub(crate) fn rows(&self) -> [(&'static str, String); 3] {
        let open = format!(
            "median {}, max {}",
            output::time(self.median()),
            output::time(self.max())
        );
        [
            ("torn tails cut", with_bytes(self.torn, self.torn_bytes)),
            ("tails carried", with_bytes(self.carried, self.carried_bytes)),
            ("open", open),
        ]
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
pub(crate) fn print_head(
    out: &mut Output,
    args: &DrillArgs,
    seed: u64,
    workplace: &Workplace,
    ground: &Ground,
) -> Result<(), Failure> {
    let what = match &args.file {
        Some(file) => format!("the lines of {}", file.display()),
        None => "made-up entries".into(),
    };
    out.line(format!(
        "drill: {} append {what} and are killed {}, seed {seed}",
        output::counted(u64::from(args.writers), "writer", "writers"),
        output::counted(u64::from(args.cycles()), "time", "times"),
    ))?;
    print_place(out, workplace, ground)
}

/// How often or how long a drill kills, which may end by the clock.
pub(crate) fn times(args: &DrillArgs) -> String {
    match (args.cycles_at_most(), args.seconds) {
        (Some(cycles), None) => output::counted(u64::from(cycles), "time", "times"),
        (None, Some(seconds)) => format!("for {seconds} s"),
        (cycles, seconds) => format!(
            "{} at most, for {} s at most",
            output::counted(u64::from(cycles.unwrap_or(0)), "time", "times"),
            seconds.unwrap_or(0)
        ),
    }
}

/// Where a drill runs.
pub(crate) fn print_place(out: &mut Output, workplace: &Workplace, ground: &Ground) -> Result<(), Failure> {
    out.line(format!("in {}: {}", workplace.dir().display(), ground.line()))
}

impl Drilled<'_> {
    /// Prints violations and summary.
    pub(crate) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        if self.args.format.json {
            return self.print_json(out);
        }
        self.print_summary(out)?;
        print_violations(out, self.violations, self.seed, self.workplace, FINE)?;
        for warning in self.ground.warnings() {
            out.line(format!("warning: {warning}"))?;
        }
        out.line(PROVES)
    }

    fn print_summary(&self, out: &mut Output) -> Result<(), Failure> {
        let tally = self.tally;
        let mut rows = vec![
            ("cycles", format!("{} ({} kills)", tally.cycles, tally.kills)),
            (
                "acknowledged",
                output::counted(tally.acknowledged, "entry", "entries"),
            ),
            ("lost", output::grouped(tally.lost)),
            (
                "in flight",
                format!(
                    "{} killed before their acknowledgement, {} of them there afterwards (either is right)",
                    output::grouped(tally.survived + tally.vanished),
                    output::grouped(tally.survived)
                ),
            ),
        ];
        rows.extend(tally.opens.rows());
        rows.push((
            "speed",
            format!(
                "{} durable appends/s (a flush takes {})",
                output::grouped(output::rate(tally.acknowledged, tally.working)),
                output::time(self.ground.flush)
            ),
        ));
        rows.iter()
            .try_for_each(|(name, value)| out.line(format!("  {name:<15} {value}")))
    }

    fn print_json(&self, out: &mut Output) -> Result<(), Failure> {
        print_violations_json(out, self.violations, self.workplace)?;
        let tally = self.tally;
        out.json(&Summary {
            seed: self.seed,
            writers: self.args.writers,
            cycles: tally.cycles,
            kills: tally.kills,
            acknowledged: tally.acknowledged,
            lost: tally.lost,
            violations: self.violations.len(),
            unacknowledged_kept: tally.survived,
            unacknowledged_gone: tally.vanished,
            torn_tails_cut: tally.opens.torn,
            torn_bytes_cut: tally.opens.torn_bytes,
            tails_carried: tally.opens.carried,
            bytes_carried: tally.opens.carried_bytes,
            open_median_seconds: tally.opens.median().as_secs_f64(),
            open_max_seconds: tally.opens.max().as_secs_f64(),
            durable_appends_per_second: output::rate(tally.acknowledged, tally.working),
            flush_median_seconds: self.ground.flush.as_secs_f64(),
            dir: self.workplace.dir().display().to_string(),
            dir_kept: !self.violations.is_empty(),
            file_system: &self.ground.medium.kind,
            device: &self.ground.medium.device,
            mount: self.ground.medium.mount.display().to_string(),
            warnings: self.ground.warnings(),
            proves: PROVES,
        })
    }
}

/// What was broken, and where to look; or `fine`.
pub(crate) fn print_violations(
    out: &mut Output,
    violations: &[Violation],
    seed: u64,
    workplace: &Workplace,
    fine: &str,
) -> Result<(), Failure> {
    if violations.is_empty() {
        return out.line(fine);
    }
    for violation in violations.iter().take(VIOLATIONS_PRINTED) {
        out.line(format!(
            "violation: {}: {}; next: {}",
            name(violation.kind),
            violation.what,
            next(workplace)
        ))?;
    }
    let more = violations.len().saturating_sub(VIOLATIONS_PRINTED);
    if more > 0 {
        out.line(format!(
            "and {}",
            output::counted(more as u64, "more violation", "more violations")
        ))?;
    }
    out.line(format!(
        "seed {seed}; the directory is kept: {}",
        workplace.dir().display()
    ))
}

/// The same for programs.
pub(crate) fn print_violations_json(
    out: &mut Output,
    violations: &[Violation],
    workplace: &Workplace,
) -> Result<(), Failure> {
    violations.iter().try_for_each(|violation| {
        out.json(&PrintedViolation {
            violation: name(violation.kind),
            what: &violation.what,
            next: next(workplace),
        })
    })
}

fn next(workplace: &Workplace) -> String {
    format!("everlog verify {}", word(workplace.dir()))
}

#[derive(Serialize)]
struct PrintedViolation<'a> {
    violation: &'static str,
    what: &'a str,
    next: String,
}

#[derive(Serialize)]
struct Summary<'a> {
    seed: u64,
    writers: u32,
    cycles: u64,
    kills: u64,
    acknowledged: u64,
    lost: u64,
    violations: usize,
    unacknowledged_kept: u64,
    unacknowledged_gone: u64,
    torn_tails_cut: u64,
    torn_bytes_cut: u64,
    tails_carried: u64,
    bytes_carried: u64,
    open_median_seconds: f64,
    open_max_seconds: f64,
    durable_appends_per_second: u64,
    flush_median_seconds: f64,
    dir: String,
    dir_kept: bool,
    file_system: &'a str,
    device: &'a str,
    mount: String,
    warnings: Vec<String>,
    proves: &'static str,
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Lost => "lost",
        Kind::Changed => "changed",
        Kind::Invented => "invented",
        Kind::Refused => "refused",
        Kind::Late => "late",
    }
}

fn with_bytes(count: u64, bytes: u64) -> String {
    match count {
        0 => "0".into(),
        count => format!("{} ({})", output::grouped(count), output::bytes(bytes)),
    }
}

pub(crate) const PROVES: &str = "This proves what a killed process leaves behind: the system kept everything it was given. It does not \
prove what a power loss leaves; for that, run the crash enumeration of the test suite (cargo test).";
const FINE: &str = "every acknowledged entry was there after every kill, in order, byte for byte";
const VIOLATIONS_PRINTED: usize = 10;
