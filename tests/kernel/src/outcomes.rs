//! What a crash of the kernel's ext4 or XFS leaves of files is in the set of outcomes that the simulator gives for the same calls.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;

use everlog::fs::{Access, Fs, Profile, RealFs, SimFs};

use crate::budget::Budget;
use crate::calls::{Story, random_story, stories};
use crate::cuts::{Width, epochs};
use crate::disk::{BLOCK, Event, Image, SECTOR};
use crate::machine::{Kind, Machine};
use crate::random::Random;

/// All files with their contents.
type Files = BTreeMap<String, Vec<u8>>;

/// The kernel on one side, the simulator on the other.
struct Comparison<'m> {
    machine: &'m Machine,
    profile: Profile,
    width: Width,
    counts: Counts,
    violations: Vec<String>,
}

#[derive(Default)]
struct Counts {
    stories: u64,
    images: u64,
    real: u64,
    simulated: u64,
    /// Stories with more outcomes in the simulator than are enumerated.
    too_large: u64,
}

/// What the simulator may leave after so many calls, by digest.
struct Simulated(Vec<HashSet<u64>>);

/// Calls on a mounted file system, each with the length of the trace before and after it.
struct Run {
    start: Image,
    trace: Vec<Event>,
    spans: Vec<(usize, usize)>,
}

/// The stories of the table, and then random ones. Ext4 is compared with the profile of that name, XFS with `PosixWeak`.
pub(crate) fn compare(machine: &Machine, budget: &mut Budget) -> Vec<String> {
    let profile = match machine.kind {
        Kind::Ext4 => Profile::Ext4,
        Kind::Xfs => Profile::PosixWeak,
    };
    let mut comparison = Comparison {
        machine,
        profile,
        width: if budget.is_short() { NARROW } else { WIDE },
        counts: Counts::default(),
        violations: Vec::new(),
    };
    for (n, mut story) in stories().into_iter().enumerate() {
        if machine.kind == Kind::Xfs {
            story.options = &["nouuid"];
        } else if budget.is_short() {
            story.options = &story.options[n % story.options.len()..][..1];
        }
        if !budget.is_half_over() {
            println!("outcomes: {}: {}", story.name, comparison.check(&story));
        }
    }
    comparison.figure("known sequences of calls", "");
    if !budget.is_short() {
        comparison.width = MEDIUM;
    }
    while let Some(seed) = budget.next(comparison.counts.images) {
        let mut story = random_story(seed);
        if machine.kind == Kind::Xfs {
            story.options = &["nouuid"];
        }
        comparison.check(&story);
        if comparison.violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    comparison.figure("random sequences of calls", &format!(", {budget}"));
    comparison.violations
}

impl Comparison<'_> {
    /// What the story gave, on one line.
    fn check(&mut self, story: &Story) -> String {
        let Some(simulated) = Simulated::of(story, self.profile) else {
            self.counts.too_large += 1;
            return "too large".to_owned();
        };
        let (before, known) = (self.counts.images, self.violations.len());
        let mut real = BTreeSet::new();
        for options in story.options {
            self.images(story, options, &simulated, &mut real);
        }
        let all: HashSet<u64> = simulated.0.iter().flatten().copied().collect();
        self.counts.stories += 1;
        self.counts.real += real.len() as u64;
        self.counts.simulated += all.len() as u64;
        let outside = &self.violations[known..];
        for what in outside.iter().take(3) {
            println!("violation: {what}");
        }
        format!(
            "{} images, {} outcomes, {} simulated, {} outside",
            self.counts.images - before,
            real.len(),
            all.len(),
            outside.len()
        )
    }

    /// Mounts the crash images of one run of the calls, and collects what is on them.
    fn images(&mut self, story: &Story, options: &str, simulated: &Simulated, real: &mut BTreeSet<u64>) {
        let run = Run::of(self.machine, story, options);
        let mut random = Random::new(story.seed);
        let torn = if story.sector_bytes == SECTOR as u64 {
            TORN
        } else {
            0
        };
        let width = Width { torn, ..self.width };
        for epoch in epochs(run.start.clone(), &run.trace) {
            let calls = run.calls_at(epoch.end);
            for cut in epoch.cuts(width, &mut random) {
                self.counts.images += 1;
                let mounted = self.machine.mount(epoch.image(&cut), options);
                let mounted = mounted.unwrap_or_else(|e| panic!("{}: does not mount: {e}", story.name));
                let files = files(&mounted.root).expect("the files can be read");
                drop(mounted);
                real.insert(digest(&files));
                if !simulated.contains(calls.clone(), &files) {
                    self.violations.push(format!(
                        "{}, mounted with {options:?}, calls {calls:?} of {:?}, pieces {cut}: {}",
                        story.name,
                        story.calls,
                        brief(&files)
                    ));
                }
            }
        }
    }

    /// Prints the counts, and begins new ones.
    fn figure(&mut self, what: &str, more: &str) {
        let counts = std::mem::take(&mut self.counts);
        println!(
            "figure: kernel: outcomes: {} in Profile::{:?}, {what}: {} sequences, {} images, {} distinct outcomes, {} simulated \
             ones, {} sequences too large to enumerate, {} outcomes outside so far{more}",
            self.machine.kind.name(),
            self.profile,
            counts.stories,
            counts.images,
            counts.real,
            counts.simulated,
            counts.too_large,
            self.violations.len()
        );
    }
}

impl Simulated {
    /// `None` if they are too many.
    fn of(story: &Story, profile: Profile) -> Option<Simulated> {
        let disk = SimFs::with_sector_bytes(story.seed, profile, story.sector_bytes);
        prepare(&disk, story).expect("a simulated disk takes every call");
        let mut after = Vec::new();
        for done in 0..=story.calls.len() {
            if let Some(call) = done.checked_sub(1).map(|last| &story.calls[last]) {
                call.make(&disk, None).expect("a simulated disk takes every call");
            }
            let mut seen = HashSet::new();
            let (_, all) = disk.each_crash(OUTCOMES_MAX, &mut |after| _ = seen.insert(digest(&after.dump())));
            if !all {
                return None;
            }
            after.push(seen);
        }
        Some(Simulated(after))
    }

    /// Whether a crash between those numbers of calls may leave `files`.
    fn contains(&self, calls: std::ops::RangeInclusive<usize>, files: &Files) -> bool {
        let digest = digest(files);
        self.0[calls].iter().any(|seen| seen.contains(&digest))
    }
}

impl Run {
    fn of(machine: &Machine, story: &Story, options: &str) -> Run {
        let mounted = machine
            .mount(machine.blank.clone(), options)
            .expect("a blank disk mounts");
        let real = RealFs::open(&mounted.root).expect("a mounted directory");
        prepare(&real, story).expect("a healthy file system takes every call");
        mounted.sync().expect("a healthy file system syncs");
        let start = {
            let mut disk = machine.disk.lock();
            disk.record();
            disk.image()
        };
        let position = || machine.disk.lock().position();
        let mut spans = Vec::new();
        for call in &story.calls {
            let before = position();
            call.make(&real, Some(&mounted.root))
                .expect("a healthy file system takes every call");
            spans.push((before, position()));
        }
        mounted.sync().expect("a healthy file system syncs");
        let trace = machine.disk.lock().take_trace();
        Run { start, trace, spans }
    }

    /// How many calls had returned, and how many begun, when so many events had reached the disk.
    fn calls_at(&self, position: usize) -> std::ops::RangeInclusive<usize> {
        let returned = self.spans.iter().filter(|(_, end)| *end <= position).count();
        let begun = self.spans.iter().filter(|(start, _)| *start <= position).count();
        returned..=begun
    }
}

/// Everything before the calls, durably.
fn prepare(fs: &dyn Fs, story: &Story) -> io::Result<()> {
    for call in &story.before {
        call.make(fs, None)?;
    }
    for name in fs.list("")?.into_iter().filter(|name| name != "lost+found") {
        fs.open(&name, Access::Write)?.sync_data()?;
    }
    fs.sync_dir("")
}

fn files(root: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "lost+found" {
            files.insert(name.clone(), fs::read(root.join(name))?);
        }
    }
    Ok(files)
}

fn digest(files: &Files) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

/// Each file as its size and the first byte of each sector, runs shortened.
fn brief(files: &Files) -> String {
    let one = |(name, bytes): (&String, &Vec<u8>)| {
        let mut text = format!("{name} ({}):", bytes.len());
        let mut last = None;
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let shown = (sector[0], sector[sector.len() - 1]);
            if last != Some(shown) || number % (BLOCK / SECTOR) == 0 {
                text += &format!(" {number}={:02x}..{:02x}", shown.0, shown.1);
            }
            last = Some(shown);
        }
        text
    };
    files.iter().map(one).collect::<Vec<_>>().join("; ")
}

const OUTCOMES_MAX: u64 = 60_000;
const WIDE: Width = Width {
    all: 8,
    sampled: 60,
    torn: 0,
};
const MEDIUM: Width = Width {
    all: 5,
    sampled: 24,
    torn: 0,
};
const NARROW: Width = Width {
    all: 3,
    sampled: 8,
    torn: 0,
};
/// So many of the 256 ways to tear a block.
const TORN: usize = 100;
const VIOLATIONS_MAX: usize = 20;
