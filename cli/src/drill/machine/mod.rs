//! `drill --machine`: the lines feed a state machine, a map, while checkpoints of it are taken; and kills come also in the midst of
//! a checkpoint, of a collection, and of an opening that restores and replays.
//!
//! The child says when it enters a stage, and is killed a drawn part of the time later that such a stage took when it was seen
//! last. After each restart the next child says what the machine has come to, and [`model`] knows whether that is right. How long
//! the restart took, and of what, is measured against the budget that the engine was given.

pub(crate) mod args;
pub(crate) mod child;

mod brief;
mod digest;
mod map;
mod model;
mod plan;
mod report;
mod stages;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use everlog::{Journal, inspect};

use super::check::{Kind, Violation};
use super::entries::{Entries, Random};
use super::life::{End, KillAt, Life};
use super::medium::Ground;
use super::protocol::{self, Record, Stage};
use super::workplace::Workplace;
use super::{Stop, is_verdict, refused, report as common};
use crate::args::DrillArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::journal;
use crate::output::{self, Output};
use crate::progress::Progress;
use brief::{Brief, Settings};
use model::Model;
use plan::Plan;
use report::{Drilled, Hit, Tally};
use stages::Stages;
use world::{Restart, World};

/// Runs a drill of a machine in `workplace`.
pub(crate) fn drill(
    args: &DrillArgs,
    seed: u64,
    random: Random,
    entries: &Entries,
    workplace: &Workplace,
    interrupted: Arc<AtomicBool>,
) -> Outcome {
    let ground = Ground::measure(workplace.dir())?;
    let mut out = Output::new();
    if !args.format.json {
        report::print_head(&mut out, args, seed)?;
        common::print_place(&mut out, workplace, &ground)?;
        out.flush()?;
    }
    let plan = Plan::new(seed, args.writers, args.machine.keys, entries);
    let mut drill = Drill {
        dir: workplace.dir(),
        args,
        seed,
        entries,
        model: Model::new(plan, entries),
        random,
        interrupted,
        tally: Tally::default(),
        spans: [FIRST_SPAN; Stage::ALL.len()],
        hit: None,
        restart: Restart::default(),
        late: Vec::new(),
    };
    let start = Instant::now();
    let violations = match drill.run() {
        Ok(()) => std::mem::take(&mut drill.late),
        Err(Stop::Violated(violations)) => [violations, std::mem::take(&mut drill.late)].concat(),
        Err(Stop::Failed(failure)) => return Err(failure),
    };
    drill.tally.elapsed = start.elapsed();
    let drilled = Drilled {
        args,
        seed,
        workplace,
        ground: &ground,
        tally: &drill.tally,
        violations: &violations,
    };
    let printed = drilled.print(&mut out).and_then(|()| out.flush());
    common::exit(printed, &violations)
}

struct Drill<'a> {
    dir: &'a Path,
    args: &'a DrillArgs,
    seed: u64,
    entries: &'a Entries,
    model: Model<'a>,
    random: Random,
    interrupted: Arc<AtomicBool>,
    tally: Tally,
    /// How long each stage took when it was seen last.
    spans: [Duration; Stage::ALL.len()],
    /// Where the last kill came, after which nothing has restarted yet.
    hit: Option<Hit>,
    /// A restart that is being told.
    restart: Restart,
    /// Restarts beyond a strict budget.
    late: Vec<Violation>,
}

impl Drill<'_> {
    fn run(&mut self) -> Result<(), Stop> {
        let settings = self.settings();
        Journal::create(self.dir, settings.journal())
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
        self.finish()
    }

    /// One life that works, and kills of those that open what it left.
    fn cycle(&mut self) -> Result<(), Stop> {
        match self.random.between(0..4) {
            0 => self.tended(Stage::Checkpoint)?,
            1 => self.tended(Stage::Collection)?,
            _ => {
                let most = u64::try_from(self.args.machine.life.as_micros()).unwrap_or(u64::MAX);
                let working = self.random.between(most / 100..most + 1);
                self.live(KillAt::Working(Duration::from_micros(working)), None)?;
            }
        }
        while self.random.between(0..NESTED_ONE_IN) == 0 {
            let stages = [Stage::Opening, Stage::Restore, Stage::Replay];
            let stage = stages[usize::try_from(self.random.between(0..3)).unwrap_or(0)];
            let kill_at = self.entering(stage, 1);
            self.live(kill_at, None)?;
        }
        Ok(())
    }

    /// A life in which snapshots are tended to all the time, and which is killed in `stage`.
    fn tended(&mut self, stage: Stage) -> Result<(), Stop> {
        let nth = u32::try_from(self.random.between(1..4)).unwrap_or(1);
        let kill_at = self.entering(stage, nth);
        let every = self.random.between(TENDED_EVERY);
        self.live(kill_at, Some(every))
    }

    /// A moment in `stage`, or a little behind it.
    fn entering(&mut self, stage: Stage, nth: u32) -> KillAt {
        let part = u32::try_from(self.random.between(0..110)).unwrap_or(0);
        let delay = self.spans[stage as usize] * part / 100;
        KillAt::Entering { stage, nth, delay }
    }

    fn settings(&mut self) -> Settings {
        Settings::draw(&mut self.random, self.args.machine.restart_within)
    }

    /// One life of the child, up to its death; the model hears what it reported.
    fn live(&mut self, kill_at: KillAt, tend_every: Option<u64>) -> Result<(), Stop> {
        let mut settings = self.settings();
        // Half of those that are tended to have the background do it as well.
        if self.random.between(0..2) == 0 {
            settings.checkpoint_entries = tend_every;
        }
        let brief = Brief {
            seed: self.seed,
            keys: self.args.machine.keys,
            next: self.model.next(),
            settings,
            tend_every,
            forgets: self.args.machine.forget,
        };
        let life = Life::start(self.dir, &["--machine"], |input| {
            protocol::write_line(&brief, input)?;
            self.entries.write(input)
        })?;
        let lived = life.until(kill_at, &self.interrupted)?;
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Stop::Failed(Failure::usage("the drill was interrupted")));
        }
        self.tally.working += lived.working;
        self.hear(&lived.records)?;
        match lived.end {
            End::Killed => {
                let hit = Hit::of(&lived.records);
                self.tally.hits.push(hit);
                self.hit = Some(hit);
                Ok(())
            }
            End::Refused { exit, said } if is_verdict(exit) => {
                Err(Stop::Violated(vec![Violation::child(&said)]))
            }
            End::Refused { exit, said } => {
                let message = format!("the process to kill stopped by itself: {said}");
                Err(Failure::new(exit.unwrap_or(Exit::CouldNotRun), message).into())
            }
        }
    }

    /// Takes in what a machine reported, and judges what it has come to.
    fn hear(&mut self, records: &[Record]) -> Result<(), Stop> {
        for record in records {
            match *record {
                Record::Restarted { part, words } => {
                    let whole = self.restart.hear(part, words);
                    self.restarted(whole);
                }
                Record::Ends { stage, micros } => {
                    self.spans[stage as usize] = Duration::from_micros(micros).max(SPAN_LEAST);
                }
                _ => {}
            }
            self.tally.count(record);
            let settled = self.model.hear(record).map_err(Stop::Violated)?;
            if let Some(settled) = settled {
                self.tally
                    .settled(settled, self.model.applied(), self.model.keys());
            }
        }
        Ok(())
    }

    /// A part of a restart was told; with the last one it is `whole`.
    fn restarted(&mut self, whole: bool) {
        if !whole {
            return;
        }
        let (budget, took) = (self.args.machine.restart_within, self.restart.total);
        // The first opening of all has nothing to recover.
        let Some(hit) = self.hit.take() else {
            return;
        };
        self.tally.restarts.push((hit, self.restart));
        if self.args.machine.strict_budget && took > budget {
            let what = format!(
                "a restart after a kill {} took {}, and was to take {} at most: {}",
                hit.name(),
                output::time(took),
                output::time(budget),
                report::parts(&self.restart)
            );
            self.late.push(Violation::new(Kind::Late, what));
        }
    }

    /// Restarts once more, in this process, and reads every byte of journal and snapshots.
    fn finish(&mut self) -> Result<(), Stop> {
        let dir = self.dir;
        let refused = |e| refused(dir, e);
        let settings = self.settings();
        let forgets = self.args.machine.forget;
        let world = World::open(dir, &settings, &Arc::new(Stages::default()), forgets).map_err(refused)?;
        if let Some(what) = world.surprise() {
            return Err(Stop::Violated(vec![Violation::new(Kind::Refused, what)]));
        }
        let records = world.state().map_err(refused)?;
        self.hear(&records)?;
        let World {
            journal,
            store,
            engine,
            ..
        } = world;
        let verified = store.verify_all().map_err(refused)?;
        engine.close().map_err(refused)?;
        journal.close().map_err(refused)?;
        let damaged = verified.damage.iter().map(|damage| {
            let what = format!("{} at {}: {}", damage.path.display(), damage.offset, damage.error);
            Violation::new(Kind::Refused, what)
        });
        let verified = inspect::verify(dir, settings.journal(), &mut |_| ()).map_err(refused)?;
        let damage = verified.findings.iter().filter(|finding| finding.is_damage());
        let violations: Vec<Violation> = damaged.chain(damage.map(Violation::finding)).collect();
        match violations.is_empty() {
            true => Ok(()),
            false => Err(Stop::Violated(violations)),
        }
    }
}

/// What a stage is taken to last before one was seen.
const FIRST_SPAN: Duration = Duration::from_millis(5);
/// What it is taken to last at least.
const SPAN_LEAST: Duration = Duration::from_micros(500);
/// One kill in so many is followed by another one, while the next child opens what the first kill left.
const NESTED_ONE_IN: u64 = 3;
/// After how many commands snapshots are tended to.
const TENDED_EVERY: std::ops::Range<u64> = 20..400;
