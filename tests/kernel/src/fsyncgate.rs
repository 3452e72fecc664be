//! Blocks and flushes that fail under a real file system. The kernel tells such an error once, calls the pages clean and says
//! Ok from then on; a journal on it must not believe that.

use std::fmt;

use everlog::fs::{Access, File, Fs, RealFs};
use everlog::{Error, ErrorKind};

use crate::budget::Budget;
use crate::cuts::{Width, epochs};
use crate::disk::{Event, Fault, Image, Leaves, Target};
use crate::images::{Case, Tally};
use crate::machine::{Kind, Machine};
use crate::model::Model;
use crate::random::Random;
use crate::workload::{History, Workload};

#[derive(Default)]
struct Outcome {
    workloads: u64,
    /// Workloads in which a block or a flush failed.
    fired: u64,
    faults: u64,
    /// Workloads that told nothing to their callers, because the writes went into another file.
    rehomed: u64,
    /// Workloads whose callers were told.
    told: u64,
}

/// A journal's life on a disk that failed.
struct Life {
    story: String,
    start: Image,
    trace: Vec<Event>,
    /// Length of the trace when the fault was planned.
    from: usize,
    fired: u64,
    rehomings: u64,
    /// What it showed at the end.
    shown: Option<Model>,
    history: History,
    error: Option<Error>,
}

pub(crate) fn prove(machine: &Machine, budget: &mut Budget) -> Vec<String> {
    show(machine);
    let mut tally = Tally::default();
    let mut outcome = Outcome::default();
    while let Some(seed) = budget.next(tally.images) {
        workload(machine, seed, &mut outcome, &mut tally, budget);
        if tally.is_enough() {
            break;
        }
    }
    println!(
        "figure: kernel: fsyncgate: {}: {outcome}, {} images, {} false acknowledgements, {budget}",
        machine.kind.name(),
        tally.images,
        tally.violations.len()
    );
    tally.violations
}

/// The raw effect, without which the rest would prove nothing.
fn show(machine: &Machine) {
    let mounted = machine
        .mount(machine.blank.clone(), options(machine.kind))
        .expect("a blank disk mounts");
    let fs = RealFs::open(&mounted.root).expect("a mounted directory");
    let file = fs.create("f").expect("a new file");
    file.write_all_at(&[b'a'; 4096], 0).expect("a healthy write");
    file.sync_data().expect("a healthy sync");
    fs.sync_dir("").expect("a healthy sync");
    let fault = Fault {
        of: Target::WriteOf("bbbbbbbb"),
        spare: 0,
        times: 1,
        leaves: Leaves::Nothing,
    };
    machine.disk.lock().plan(fault);
    file.write_all_at(&[b'b'; 4096], 0).expect("a write into memory");
    let first = file.sync_data().expect_err("the device failed").raw_os_error();
    assert_eq!(first, Some(5), "the first sync says EIO");
    file.sync_data().expect("the second sync says Ok");
    let byte = |file: &dyn File| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4000).expect("a healthy read");
        byte[0]
    };
    assert_eq!(byte(&*file), b'b', "memory has the new data");
    file.evict().expect("pages are dropped");
    assert_eq!(byte(&*file), b'a', "the disk does not");
    drop(file);
    let again = fs.open("f", Access::Read).expect("the file is there");
    assert_eq!(byte(&*again), b'a');
    println!(
        "figure: kernel: fsyncgate: {}: one failed block: 1st fdatasync EIO, 2nd Ok, new data in memory, old data after eviction",
        machine.kind.name()
    );
}

/// Makes one life of a journal on a disk that fails, and judges what it told and what it left.
fn workload(machine: &Machine, seed: u64, outcome: &mut Outcome, tally: &mut Tally, budget: &Budget) {
    let mut random = Random::new(seed ^ 0xfa17);
    let life = Life::new(machine, seed, &mut random);
    if budget.is_single() {
        println!("{life}");
    }
    outcome.count(&life);
    if let Some(what) = life.complaint() {
        tally.complain(format!("{life}: {what}"));
    }
    let mut epochs = epochs(life.start, &life.trace);
    epochs.retain(|epoch| epoch.end >= life.from && !epoch.pieces.is_empty());
    while epochs.len() > EPOCHS_MAX {
        // The last one is what the end of it all leaves.
        epochs.remove(random.index(epochs.len() - 1));
    }
    let mut case = Case::new(machine, seed, options(machine.kind), life.story, random);
    case.part = match machine.kind {
        Kind::Ext4 => "fsyncgate",
        Kind::Xfs => "fsyncgate-xfs",
    };
    case.crashes(&epochs, WIDTH, &life.history, tally, budget);
}

impl Life {
    fn new(machine: &Machine, seed: u64, random: &mut Random) -> Life {
        let mounted = machine.mount(machine.blank.clone(), options(machine.kind));
        let mounted = mounted.expect("a blank disk mounts");
        mounted.sync().expect("a healthy file system syncs");
        let start = {
            let mut disk = machine.disk.lock();
            disk.record();
            disk.image()
        };
        let mut workload = Workload::new(&machine.disk, &mounted.root, seed);
        workload.marker = MARKER.as_bytes().to_vec();
        workload.create();
        let fault = fault(random);
        let from = {
            let mut disk = machine.disk.lock();
            disk.plan(fault.clone());
            disk.position()
        };
        workload.run(4 + random.index(12), &mut |random| {
            // It may fail: then the error is told here as well.
            if random % 6 == 0 {
                let _ = mounted.sync();
            }
        });
        let shown = workload.shown().and_then(Result::ok);
        if random.one_in(2) {
            workload.end();
        }
        let _ = mounted.sync();
        let mut disk = machine.disk.lock();
        disk.heal();
        let (trace, fired) = (disk.take_trace(), disk.fired);
        drop(disk);
        Life {
            story: format!(
                "{} seed {seed}, {fault:?}, letters {}",
                machine.kind.name(),
                workload.letters
            ),
            start,
            trace,
            from,
            fired,
            rehomings: workload.rehomings(),
            shown,
            history: workload.history.clone(),
            error: workload.error.take(),
        }
    }

    /// What the journal must not do, whatever fails: refuse for no reason, or show what it was not told.
    fn complaint(&self) -> Option<String> {
        match &self.error {
            None => {
                let right = self
                    .shown
                    .as_ref()
                    .is_none_or(|shown| shown == self.history.now());
                (!right).then(|| "the journal does not show what was issued".to_owned())
            }
            Some(error) => {
                let told = matches!(
                    error.kind(),
                    ErrorKind::Unknown | ErrorKind::Io | ErrorKind::Closed
                );
                (!told || self.fired == 0).then(|| "not an error that a failed block gives".to_owned())
            }
        }
    }
}

impl Outcome {
    fn count(&mut self, life: &Life) {
        self.workloads += 1;
        self.faults += life.fired;
        self.fired += u64::from(life.fired > 0);
        self.told += u64::from(life.error.is_some());
        self.rehomed += u64::from(life.error.is_none() && life.fired > 0 && life.rehomings > 0);
    }
}

fn fault(random: &mut Random) -> Fault {
    let (of, spare) = match random.below(6) {
        0..=3 => (Target::WriteOf(MARKER), 6),
        4 => (Target::Flush, 24),
        _ => (Target::Write, 24),
    };
    Fault {
        of,
        spare: random.below(spare),
        times: random.pick(&[1, 1, 1, 2, u64::MAX]),
        leaves: Leaves::Some(random.next()),
    }
}

fn options(kind: Kind) -> &'static str {
    match kind {
        Kind::Ext4 => "",
        Kind::Xfs => "nouuid",
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Life {
            story,
            fired,
            rehomings,
            error,
            ..
        } = self;
        write!(
            f,
            "{story}: {fired} faults, {rehomings} re-homings, error {error:?}"
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} workloads, {} met {} failed blocks or flushes; {} re-homed without a word, {} told their callers",
            self.workloads, self.fired, self.faults, self.rehomed, self.told
        )
    }
}

/// At the beginning of each payload, so that a fault can meet entries and nothing of the file system.
const MARKER: &str = "=everlog-kernel-entry=";
const EPOCHS_MAX: usize = 6;
const WIDTH: Width = Width {
    all: 1,
    sampled: 4,
    torn: 0,
};
