//! `drill`: a recovery drill on the user's own disk.
//!
//! A child process appends entries from several threads and reports each acknowledgement; this process kills it with
//! SIGKILL at a random moment, opens the journal and checks it against what was reported, and goes on from there.
//! What is right says [`check`]; how the two processes talk says [`protocol`].
//!
//! With `--mix` the child does everything that the library offers, to several logs: see [`mix`]. With `--machine` the lines feed a
//! state machine, with checkpoints: see [`machine`].
//!
//! The seed decides every choice: the entries, the moments, which kills hit an opening. It does not decide how threads
//! and disk interleave, so a seed repeats a drill and not every byte of it.

pub(crate) mod machine;

mod check;
mod child;
mod entries;
mod life;
mod medium;
mod mix;
mod protocol;
mod report;
mod workplace;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use everlog::inspect;
use everlog::{Config, Error, ErrorKind, Journal, LogKey};

use crate::args::DrillArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::journal;
use crate::output::Output;
use crate::progress::Progress;
use check::{Model, Violation};
use entries::{Entries, Random};
use life::{End, KillAt, Life};
use medium::Ground;
use report::{Drilled, Tally};
use workplace::Workplace;

/// Runs the process that a drill kills.
pub(crate) fn run_child(dir: &Path, mix: bool, machine: bool) -> Outcome {
    match (mix, machine) {
        (true, _) => mix::child::run(dir),
        (_, true) => machine::child::run(dir),
        _ => child::run(dir),
    }
}

/// Runs the command.
pub(crate) fn run(args: &DrillArgs) -> Outcome {
    let seed = args.seed.unwrap_or_else(fresh_seed);
    if args.mix {
        let interrupted = catch_signals()?;
        let workplace = Workplace::take(args.dir.as_deref())?;
        return swept(&workplace, mix::drill(args, seed, &workplace, interrupted));
    }
    let mut random = Random::new(seed);
    let entries = match &args.file {
        Some(file) => Entries::of_file(file)?,
        None => Entries::made_up(&mut random),
    };
    let interrupted = catch_signals()?;
    let workplace = Workplace::take(args.dir.as_deref())?;
    let drilled = match args.machine.machine {
        true => machine::drill(args, seed, random, &entries, &workplace, interrupted),
        false => drill(args, seed, random, &entries, &workplace, interrupted),
    };
    swept(&workplace, drilled)
}

/// The workplace is kept only where there is something to look at.
fn swept(workplace: &Workplace, drilled: Outcome) -> Outcome {
    match drilled {
        Ok(Exit::Finding) => {}
        _ => workplace.remove()?,
    }
    drilled
}

fn drill(
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
        report::print_head(&mut out, args, seed, workplace, &ground)?;
        out.flush()?;
    }
    let mut drill = Drill {
        dir: workplace.dir(),
        model: Model::new(args.writers),
        entries,
        random,
        interrupted,
        tally: Tally::default(),
    };
    let violations = match drill.run(args.cycles()) {
        Ok(()) => Vec::new(),
        Err(Stop::Violated(violations)) => violations,
        Err(Stop::Failed(failure)) => return Err(failure),
    };
    let drilled = Drilled {
        args,
        seed,
        workplace,
        ground: &ground,
        tally: &drill.tally,
        violations: &violations,
    };
    let printed = drilled.print(&mut out).and_then(|()| out.flush());
    report::exit(printed, &violations)
}

/// Settings of the drilled journal: small segments, so that kills hit rotations as well.
fn config() -> Config {
    Config::new()
        .segment_bytes(1 << 20)
        .max_entry_bytes(journal::ENTRY_BYTES_MAX)
}

/// Why a drill ends before its last cycle.
enum Stop {
    /// The journal broke a promise.
    Violated(Vec<Violation>),
    /// The drill could not go on, which says nothing about the journal.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

struct Drill<'a> {
    dir: &'a Path,
    model: Model,
    entries: &'a Entries,
    random: Random,
    interrupted: Arc<AtomicBool>,
    tally: Tally,
}

impl Drill<'_> {
    fn run(&mut self, cycles: u32) -> Result<(), Stop> {
        self.prepare().map_err(|e| journal::refused(self.dir, e))?;
        let progress = Progress::steps("drill", u64::from(cycles));
        for cycle in 0..cycles {
            let working = Duration::from_micros(self.random.between(WORKING_MICROS));
            self.live(KillAt::Working(working))?;
            if self.random.between(0..NESTED_ONE_IN) == 0 {
                let opening = Duration::from_micros(self.random.between(OPENING_MICROS));
                self.live(KillAt::Opening(opening))?;
            }
            self.check(cycle + 1 == cycles)?;
            self.tally.cycles += 1;
            progress.set(u64::from(cycle + 1));
        }
        progress.clear();
        self.verify()
    }

    /// Makes the journal and its logs.
    fn prepare(&self) -> everlog::Result<()> {
        let journal = Journal::create(self.dir, config())?;
        for log in 0..self.model.logs() {
            journal.create_log(LogKey(log), 0)?;
        }
        journal.close()
    }

    /// One life of the child, up to its death; the model hears what it reported.
    fn live(&mut self, kill_at: KillAt) -> Result<(), Stop> {
        let life = Life::start(self.dir, &[], |input| {
            self.model.start().write(input)?;
            self.entries.write(input)
        })?;
        let lived = life.until(kill_at, &self.interrupted)?;
        self.tally.kills += 1;
        self.tally.working += lived.working;
        let reported = self.model.hear(&lived.records, &mut self.tally);
        match lived.end {
            _ if self.interrupted.load(Ordering::Relaxed) => {
                Err(Stop::Failed(Failure::usage("the drill was interrupted")))
            }
            _ if reported.is_err() => reported.map_err(|violation| Stop::Violated(vec![violation])),
            End::Killed => Ok(()),
            End::Refused { exit, said } if is_verdict(exit) => {
                Err(Stop::Violated(vec![Violation::child(&said)]))
            }
            End::Refused { exit, said } => {
                // What stopped it may be the first sign of a broken promise.
                self.check(false)?;
                let exit = exit.unwrap_or(Exit::CouldNotRun);
                let message = format!("the process to kill stopped by itself: {said}");
                Err(Stop::Failed(Failure::new(exit, message)))
            }
        }
    }

    /// Opens what the kill left, and checks it.
    fn check(&mut self, last: bool) -> Result<(), Stop> {
        let start = Instant::now();
        let journal = match Journal::open(self.dir, config()) {
            Ok(journal) => journal,
            Err(e) => return Err(refused(self.dir, e)),
        };
        self.tally.opens.opened(journal.report(), start.elapsed());
        let mut violations = Vec::new();
        for key in 0..self.model.logs() {
            let log = journal.log(LogKey(key)).map_err(|e| refused(self.dir, e))?;
            self.model
                .check(&log, self.entries, last, &mut self.tally, &mut violations)
                .map_err(|e| refused(self.dir, e))?;
        }
        if violations.is_empty() && journal.report().bytes > JOURNAL_BYTES_MAX {
            self.purge(&journal).map_err(|e| refused(self.dir, e))?;
        }
        journal.close().map_err(|e| refused(self.dir, e))?;
        match violations.is_empty() {
            true => Ok(()),
            false => Err(Stop::Violated(violations)),
        }
    }

    /// Drops what was checked, so that a long drill does not fill the disk.
    fn purge(&mut self, journal: &Journal) -> everlog::Result<()> {
        for key in 0..self.model.logs() {
            let keep = self.model.purge(key);
            journal.log(LogKey(key))?.purge_to(keep)?;
        }
        journal.reclaim()?;
        Ok(())
    }

    /// Reads every byte once more, as `verify` does.
    fn verify(&self) -> Result<(), Stop> {
        let verified = inspect::verify(self.dir, config(), &mut |_| ()).map_err(|e| refused(self.dir, e))?;
        let damage = verified.findings.iter().filter(|finding| finding.is_damage());
        let violations: Vec<Violation> = damage.map(Violation::finding).collect();
        match violations.is_empty() {
            true => Ok(()),
            false => Err(Stop::Violated(violations)),
        }
    }
}

/// An error of the journal after a kill: either the disk, or a broken promise.
fn refused(dir: &Path, error: Error) -> Stop {
    match error.kind() {
        ErrorKind::NoSpace | ErrorKind::Io | ErrorKind::Locked | ErrorKind::Unknown => {
            Stop::Failed(journal::refused(dir, error))
        }
        _ => Stop::Violated(vec![Violation::refused(&error)]),
    }
}

/// Whether an exit of the child says that the journal is wrong, and not that the disk is full or refuses calls. A
/// panic has no row in the table of exit codes.
fn is_verdict(exit: Option<Exit>) -> bool {
    matches!(exit, None | Some(Exit::Finding | Exit::Unsupported))
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Random::new(u64::from(now.subsec_nanos()) ^ now.as_secs() ^ (u64::from(std::process::id()) << 32)).next()
        >> 32
}

/// Ctrl-C and a polite kill end the drill, and the directory goes.
fn catch_signals() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .map_err(|e| Failure::io("catch signals", &e))?;
    }
    Ok(flag)
}

/// How long a child works before it is killed.
const WORKING_MICROS: std::ops::Range<u64> = 2_000..200_000;
/// One kill in so many is followed by a second one, while the next child opens what the first kill left.
const NESTED_ONE_IN: u64 = 3;
/// How long after its start that second child is killed.
const OPENING_MICROS: std::ops::Range<u64> = 200..12_000;
/// Above this size most of what was checked is purged.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
