//! Crash images of a file system that a journal worked on: each one is mounted, recovered and compared with what was issued
//! and what was acknowledged.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Instant;

use everlog::{ErrorKind, Journal};

use crate::budget::Budget;
use crate::cuts::{Cut, Epoch, Width, epochs};
use crate::disk::Event;
use crate::lazy::Skip;
use crate::machine::{Kind, Machine};
use crate::model::Model;
use crate::random::Random;
use crate::workload::{History, JOURNAL, Workload, config};

/// What a campaign reached.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) workloads: u64,
    /// Images mounted and judged.
    pub(crate) images: u64,
    /// Of those: images of a crash inside the recovery from a crash.
    nested: u64,
    /// Writes and flushes that reached the disk.
    writes: u64,
    flushes: u64,
    /// Epochs of which every subset was looked at.
    complete: u64,
    epochs: u64,
    /// Recovered journals that lacked something issued, or had something not acknowledged.
    behind: u64,
    unborn: u64,
    torn: u64,
    outcomes: HashSet<u64>,
    pub(crate) violations: Vec<String>,
    /// They are expected.
    quiet: bool,
}

/// One workload's crash images.
pub(crate) struct Case<'m> {
    machine: &'m Machine,
    seed: u64,
    options: &'static str,
    story: String,
    random: Random,
    /// One recovery in so many is crashed, too; 0: none.
    nest: u64,
    /// The part of `scripts/kernel` that runs it again.
    pub(crate) part: &'static str,
}

/// What was found on an image.
enum Found {
    Journal(Model),
    Nothing,
}

pub(crate) fn campaign(machine: &Machine, budget: &mut Budget) -> Tally {
    let mut tally = Tally::default();
    let started = Instant::now();
    while let Some(seed) = budget.next(tally.images) {
        workload(machine, seed, None, &mut tally, budget);
        if tally.is_enough() {
            break;
        }
    }
    let rate = tally.images as f64 / started.elapsed().as_secs_f64();
    println!(
        "figure: kernel: {}: {tally}, {rate:.0} images/s, {budget}",
        machine.kind.name()
    );
    tally
}

/// Shows that a missing sync would be noticed: the same with a journal whose syncs of files, or of directories, do nothing.
pub(crate) fn sharpness(machine: &Machine, budget: &mut Budget) -> Vec<String> {
    let mut uncaught = Vec::new();
    for skip in [Skip::Files, Skip::Directories] {
        let mut tally = Tally {
            quiet: true,
            ..Tally::default()
        };
        let mut seed = 0;
        while tally.violations.is_empty() && tally.images < SHARP_IMAGES_MAX && !budget.is_over() {
            seed += 1;
            workload(machine, seed, Some(skip), &mut tally, budget);
        }
        let Tally {
            images, violations, ..
        } = tally;
        let caught = if violations.is_empty() {
            "not caught yet"
        } else {
            "caught"
        };
        println!("figure: kernel: sharp: no syncs of {skip:?}: {caught} within {images} images, seed {seed}");
        if violations.is_empty() && !budget.is_over() {
            uncaught.push(format!("a journal without syncs of {skip:?} was not caught"));
        }
    }
    uncaught
}

fn workload(machine: &Machine, seed: u64, skip: Option<Skip>, tally: &mut Tally, budget: &Budget) {
    let mut random = Random::new(seed ^ 0x1ace);
    let options = random.pick(options(machine.kind));
    let mounted = machine.mount(machine.blank.clone(), options);
    let mounted = mounted.unwrap_or_else(|error| panic!("cannot mount with {options:?}: {error}"));
    mounted.sync().expect("a healthy file system syncs");
    let start = {
        let mut disk = machine.disk.lock();
        disk.record();
        disk.image()
    };
    let mut workload = Workload::new(&machine.disk, &mounted.root, seed);
    workload.skip = skip;
    workload.create();
    let letters = 4 + random.index(16);
    workload.run(letters, &mut |random| {
        // As the kernel does on its own now and then.
        if random % 8 == 0 {
            mounted.sync().expect("a healthy file system syncs");
        }
    });
    let shown = workload.shown();
    if random.one_in(2) {
        workload.end();
    }
    mounted.sync().expect("a healthy file system syncs");
    let trace = machine.disk.lock().take_trace();
    let story = format!(
        "{} seed {seed}, mounted with {options:?}, letters {}",
        machine.kind.name(),
        workload.letters
    );
    let history = workload.history.clone();
    if let Some(error) = &workload.error {
        tally.complain(format!("{story}: an error without a cause: {error:?}"));
    }
    if shown.is_some_and(|shown| shown.as_ref().ok() != Some(history.now())) {
        tally.complain(format!("{story}: the journal does not show what was issued"));
    }
    drop(workload);
    drop(mounted);
    tally.workloads += 1;
    tally.traced(&trace);
    let mut case = Case::new(machine, seed, options, story, random);
    case.nest = NEST;
    let mut epochs = epochs(start, &trace);
    if !is_close(seed) {
        // Every workload begins alike; and many workloads are worth more than all of one.
        epochs.retain(|epoch| history.is_born(epoch.end) && !epoch.pieces.is_empty());
        while epochs.len() > EPOCHS_MAX {
            epochs.remove(case.random.index(epochs.len()));
        }
    }
    let width = if budget.is_short() { NARROW } else { width(seed) };
    case.crashes(&epochs, width, &history, tally, budget);
}

impl<'m> Case<'m> {
    pub(crate) fn new(
        machine: &'m Machine,
        seed: u64,
        options: &'static str,
        story: String,
        random: Random,
    ) -> Case<'m> {
        Case {
            machine,
            seed,
            options,
            story,
            random,
            nest: 0,
            part: machine.kind.name(),
        }
    }

    /// Judges crash images of every epoch.
    pub(crate) fn crashes(
        &mut self,
        epochs: &[Epoch],
        width: Width,
        history: &History,
        tally: &mut Tally,
        budget: &Budget,
    ) {
        for epoch in epochs.iter().filter(|epoch| !epoch.pieces.is_empty()) {
            tally.epochs += 1;
            tally.complete += u64::from(epoch.pieces.len() <= width.all);
            for cut in epoch.cuts(width, &mut self.random) {
                if budget.is_over() || tally.is_enough() || (tally.quiet && !tally.violations.is_empty()) {
                    return;
                }
                tally.images += 1;
                if let Err(what) = self.judge(epoch, &cut, history, tally, budget) {
                    let image = format!("epoch that ends at {}, pieces {cut}", epoch.end);
                    let (seed, part) = (self.seed, self.part);
                    let rerun = format!("rerun: EVERLOG_ROOT=1 EVERLOG_SEED={seed} scripts/kernel {part}");
                    tally.complain(format!("{}; {image}: {what}\n  {rerun}", self.story));
                }
            }
        }
    }

    /// Mounts one image, recovers, compares; and now and then crashes the recovery, too.
    fn judge(
        &mut self,
        epoch: &Epoch,
        cut: &Cut,
        history: &History,
        tally: &mut Tally,
        budget: &Budget,
    ) -> Result<(), String> {
        let allowed = history.allowed(epoch.end);
        let image = epoch.image(cut);
        let mounted = self.machine.mount(image, self.options);
        let mounted = mounted.map_err(|error| format!("the file system does not mount: {error}"))?;
        let nest = self.nest > 0 && self.random.one_in(self.nest);
        let start = nest.then(|| {
            let mut disk = self.machine.disk.lock();
            disk.record();
            disk.image()
        });
        let found = recover(&mounted.root, &mut self.random, tally);
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(format!("recovery: {error:?}")),
        };
        let model = match found {
            Found::Nothing if allowed.unborn => {
                tally.unborn += 1;
                return Ok(());
            }
            Found::Nothing => return Err("there is no journal".to_owned()),
            Found::Journal(model) => model,
        };
        if !allowed.contains(&model) {
            return Err(format!("found\n{model}\nallowed\n{}", allowed.describe()));
        }
        tally.behind += u64::from(model != *history.now());
        let mut hasher = DefaultHasher::new();
        (self.seed, model.to_string()).hash(&mut hasher);
        tally.outcomes.insert(hasher.finish());
        let Some(start) = start else { return Ok(()) };
        let trace = self.machine.disk.lock().take_trace();
        drop(mounted);
        tally.traced(&trace);
        let before = tally.images;
        let deeper = std::mem::take(&mut self.nest);
        self.crashes(
            &epochs(start, &trace),
            NARROW,
            &History::settled(model),
            tally,
            budget,
        );
        self.nest = deeper;
        tally.nested += tally.images - before;
        Ok(())
    }
}

/// Every eighth workload is looked at closely, from its creation on.
fn is_close(seed: u64) -> bool {
    seed.is_multiple_of(8)
}

fn width(seed: u64) -> Width {
    if is_close(seed) {
        Width {
            all: 9,
            sampled: 120,
            torn: 8,
        }
    } else {
        Width {
            all: 4,
            sampled: 14,
            torn: 2,
        }
    }
}

/// Opens the journal as its owner would, and reads all of it.
fn recover(root: &Path, random: &mut Random, tally: &mut Tally) -> everlog::Result<Found> {
    let journal = match Journal::open(root.join(JOURNAL), config(random)) {
        Ok(journal) => journal,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    tally.torn += u64::from(!journal.report().cut.is_empty());
    Model::read(&journal).map(Found::Journal)
}

/// Every way to mount that changes what may be on the disk after a crash; `data=writeback` even shows bytes of removed files.
fn options(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Ext4 => &[
            "",
            "",
            "",
            "dioread_lock",
            "nodelalloc",
            "data=journal",
            "data=writeback",
            "data=writeback,nodelalloc",
        ],
        Kind::Xfs => &["nouuid"],
    }
}

impl Tally {
    /// A broken build need not be told about a thousand times.
    pub(crate) fn is_enough(&self) -> bool {
        self.violations.len() >= 10
    }

    /// Something is wrong.
    pub(crate) fn complain(&mut self, what: String) {
        if !self.quiet {
            println!("violation: {what}");
        }
        self.violations.push(what);
    }

    fn traced(&mut self, trace: &[Event]) {
        let flushes = trace.iter().filter(|event| matches!(event, Event::Flush)).count();
        self.flushes += flushes as u64;
        self.writes += (trace.len() - flushes) as u64;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} images of {} workloads mounted and recovered ({} nested), {} block writes and {} flushes traced, {} of {} epochs complete, \
             {} distinct outcomes, {} behind the last write, {} torn, {} before creation, {} violations",
            self.images,
            self.workloads,
            self.nested,
            self.writes,
            self.flushes,
            self.complete,
            self.epochs,
            self.outcomes.len(),
            self.behind,
            self.torn,
            self.unborn,
            self.violations.len()
        )
    }
}

const EPOCHS_MAX: usize = 12;
/// One recovery in so many is crashed, too.
const NEST: u64 = 60;
const SHARP_IMAGES_MAX: u64 = 3000;
const NARROW: Width = Width {
    all: 3,
    sampled: 6,
    torn: 1,
};
