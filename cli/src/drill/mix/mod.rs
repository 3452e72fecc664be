//! `drill --mix`: every operation of the library at once, from several workers on several logs, killed again and again.
//!
//! Each worker owns some of the logs and does what [`plan`] decides; [`history`] knows what it was heard to do, and
//! [`found`] whether what a kill left is right. A kill is followed by a look that changes nothing, now and then by a
//! second kill while the next child recovers, and by an opening. With `--faults` some system calls of the child's
//! journal fail: files are given up and their bytes saved into fresh ones while the kill comes.

pub(crate) mod child;

mod brief;
mod found;
mod history;
mod model;
mod plan;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use everlog::inspect::{self, Finding, View};
use everlog::{Config, Journal, LogKey};

use super::check::Violation;
use super::entries::Random;
use super::life::{End, KillAt, Life};
use super::medium::Ground;
use super::protocol::{self, Record};
use super::workplace::Workplace;
use super::{Stop, is_verdict, refused, report as common};
use crate::args::DrillArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::journal;
use crate::output::Output;
use crate::progress::Progress;
use brief::Brief;
use found::Found;
use history::{Bound, History};
use report::{Drilled, Tally};

/// Runs a mixed drill in `workplace`.
pub(crate) fn drill(
    args: &DrillArgs,
    seed: u64,
    workplace: &Workplace,
    interrupted: Arc<AtomicBool>,
) -> Outcome {
    let ground = Ground::measure(workplace.dir())?;
    let mut out = Output::new();
    let workers = args.logs_and_workers().1;
    if !args.format.json {
        report::print_head(&mut out, args, seed)?;
        common::print_place(&mut out, workplace, &ground)?;
        out.flush()?;
    }
    let mut mix = Mix {
        dir: workplace.dir(),
        args,
        seed,
        history: History::new(seed, workers, args.logs_and_workers().0),
        random: Random::new(seed),
        interrupted,
        tally: Tally::default(),
    };
    let start = Instant::now();
    let violations = match mix.run() {
        Ok(()) => Vec::new(),
        Err(Stop::Violated(violations)) => violations,
        Err(Stop::Failed(failure)) => return Err(failure),
    };
    mix.tally.elapsed = start.elapsed();
    let drilled = Drilled {
        args,
        seed,
        workplace,
        ground: &ground,
        tally: &mix.tally,
        violations: &violations,
    };
    let printed = drilled.print(&mut out).and_then(|()| out.flush());
    common::exit(printed, &violations)
}

struct Mix<'a> {
    dir: &'a Path,
    args: &'a DrillArgs,
    seed: u64,
    history: History,
    random: Random,
    interrupted: Arc<AtomicBool>,
    tally: Tally,
}

impl Mix<'_> {
    fn run(&mut self) -> Result<(), Stop> {
        Journal::create(self.dir, brief::config(self.seed))
            .and_then(Journal::close)
            .map_err(|e| journal::refused(self.dir, e))?;
        let cycles = self.args.cycles_at_most();
        let progress = Progress::steps("drill", u64::from(cycles.unwrap_or(0)));
        let start = Instant::now();
        let over = |done: u32| {
            let late = |seconds| start.elapsed() >= Duration::from_secs(seconds);
            cycles.is_some_and(|cycles| done >= cycles) || self.args.seconds.is_some_and(late)
        };
        let mut done = 0;
        while !over(done) {
            self.cycle()?;
            done += 1;
            self.tally.cycles += 1;
            progress.set(u64::from(done));
        }
        progress.clear();
        self.open()?;
        self.verify()
    }

    /// One life that works, and what comes of its death.
    fn cycle(&mut self) -> Result<(), Stop> {
        let faults = self.args.faults && self.one_in(2);
        let working = Duration::from_micros(self.random.between(WORKING_MICROS));
        self.live(KillAt::Working(working), false, faults)?;
        self.look(match faults {
            true => Bound::Faulty,
            false => Bound::Killed,
        })?;
        while self.one_in(NESTED_ONE_IN) {
            let faults = faults && self.one_in(2);
            let opening = Duration::from_micros(self.random.between(OPENING_MICROS));
            self.live(KillAt::Opening(opening), true, faults)?;
            // It was to change nothing.
            self.look(Bound::Killed)?;
        }
        if self.one_in(OPENED_ONE_IN) {
            self.open()?;
        }
        if self.one_in(VERIFIED_ONE_IN) {
            self.verify()?;
        }
        Ok(())
    }

    /// One life of the child, up to its death; the history hears what it reported.
    fn live(&mut self, kill_at: KillAt, idle: bool, faults: bool) -> Result<(), Stop> {
        let brief = Brief {
            seed: self.seed,
            life: self.random.next(),
            logs: self.args.logs_and_workers().0,
            idle,
            faults,
            workers: self.history.hands(),
        };
        let mut life = Life::start(self.dir, &["--mix"], |input| protocol::write_line(&brief, input))?;
        let peeked = match !idle && !faults && self.one_in(PEEKED_ONE_IN) && life.opens() {
            true => Some(self.read(true)?),
            false => None,
        };
        let lived = life.until(kill_at, &self.interrupted)?;
        self.tally.kills += 1;
        self.tally.kills_opening += u64::from(!lived.records.iter().any(is_opened));
        self.tally.lives_with_faults += u64::from(faults);
        self.tally.working += lived.working;
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Stop::Failed(Failure::usage("the drill was interrupted")));
        }
        let reported = self.history.hear(&lived.records, &mut self.tally);
        reported.map_err(|violation| Stop::Violated(vec![violation]))?;
        if let Some(found) = peeked {
            self.tally.peeks += 1;
            stop_if_any(self.history.judge(&found, Bound::Beside))?;
        }
        match lived.end {
            End::Killed => Ok(()),
            End::Refused { exit, said } if is_verdict(exit) => {
                Err(Stop::Violated(vec![Violation::child(&said)]))
            }
            End::Refused { exit, said } => {
                let message = format!("the process to kill stopped by itself: {said}");
                Err(Failure::new(exit.unwrap_or(Exit::CouldNotRun), message).into())
            }
        }
    }

    /// Looks at what a kill left, without changing it, and goes on from there.
    fn look(&mut self, bound: Bound) -> Result<(), Stop> {
        let found = self.read(false)?;
        stop_if_any(self.history.judge(&found, bound))?;
        self.history.settle(&found, bound, &mut self.tally);
        self.tally.looks += 1;
        Ok(())
    }

    /// What a view shows, which has no damage: beside the `living` child, or of a journal that nobody has open.
    fn read(&self, living: bool) -> Result<Found, Stop> {
        let refused = |e| refused(self.dir, e);
        let view = View::open(self.dir, Config::new()).map_err(refused)?;
        stop_if_any(damage(view.findings()))?;
        if !living && view.live() {
            let what = "somebody else has the journal of the drill open";
            return Err(Failure::usage(what).into());
        }
        found::view(&view).map_err(refused)
    }

    /// Opens what was looked at: the same must be there, durable.
    fn open(&mut self) -> Result<(), Stop> {
        let refused = |e| refused(self.dir, e);
        let start = Instant::now();
        let journal = Journal::open(self.dir, brief::config(self.random.next())).map_err(refused)?;
        self.tally.opened(journal.report(), start.elapsed());
        let found = found::journal(&journal).map_err(refused)?;
        let mut bad = self.history.judge(&found, Bound::Killed);
        for key in journal.logs() {
            bad.extend(not_durable(&journal, key).map_err(refused)?);
        }
        stop_if_any(bad)?;
        journal.close().map_err(refused)
    }

    /// Reads every byte once more, as `verify` does.
    fn verify(&mut self) -> Result<(), Stop> {
        let verified =
            inspect::verify(self.dir, Config::new(), &mut |_| ()).map_err(|e| refused(self.dir, e))?;
        self.tally.verified += 1;
        self.tally.journal_bytes_max = self.tally.journal_bytes_max.max(verified.bytes);
        stop_if_any(damage(&verified.findings))
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.random.between(0..times) == 0
    }
}

fn is_opened(record: &Record) -> bool {
    matches!(record, Record::Opened(_))
}

fn damage(findings: &[Finding]) -> Vec<Violation> {
    let damage = findings.iter().filter(|finding| finding.is_damage());
    damage.map(Violation::finding).collect()
}

/// Everything that an opening shows is durable when it returns.
fn not_durable(journal: &Journal, key: LogKey) -> everlog::Result<Option<Violation>> {
    let log = journal.log(key)?;
    let (durable, end) = (log.durable_end()?, log.bounds()?.end);
    let what = format!("log {key} was opened up to {end}, and is durable up to {durable}");
    Ok((durable < end).then(|| Violation::new(super::check::Kind::Changed, what)))
}

fn stop_if_any(violations: Vec<Violation>) -> Result<(), Stop> {
    match violations.is_empty() {
        true => Ok(()),
        false => Err(Stop::Violated(violations)),
    }
}

/// How long a child works before it is killed.
const WORKING_MICROS: std::ops::Range<u64> = 300..20_000;
/// One kill in so many is followed by another one, while the next child opens what the first kill left.
const NESTED_ONE_IN: u64 = 3;
/// How long after its start that next child is killed.
const OPENING_MICROS: std::ops::Range<u64> = 100..8_000;
/// One cycle in so many ends with an opening and a closing; after the others the next child finds what the kill left.
const OPENED_ONE_IN: u64 = 6;
/// One in so many reads every byte.
const VERIFIED_ONE_IN: u64 = 20;
/// One living child in so many is looked at while it works.
const PEEKED_ONE_IN: u64 = 6;
