//! Visits what power cuts may leave of a workload, all of it where that is possible, and checks each.

use super::coverage::{Coverage, Violation};
use super::crash::crash;
use super::lazy::crash_lazily;
use super::plan::{Plan, plans};
use super::random::mix;
use super::script::{Cut, Script, Sheet};
use super::state::State;
use super::watch::{Marks, Moment, Watch, Watched};
use super::{Profile, SimFs};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex};
use std::any::Any;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Checks a store in every state that a power cut may leave.
///
/// A *workload* writes to a simulated disk and notes in a [`Ledger`] what it issues and what it was told is durable. Before
/// each sync takes effect, and at its end, the power is cut on copies of the disk: these are the *moments*. No others are
/// needed: what could be left a call earlier is a part of what can be left now, and what a sync that is interrupted leaves, too.
/// A moment has as many crash states as there are joint outcomes of its *atoms*: the contents of each sector, the size of each
/// file, each change of a directory, and with [`Profile::Hostile`] torn sectors, garbage and bytes of removed files. A *check*
/// opens what is there and compares.
///
/// An atom is decided only when the check looks at it; what it never sees is not multiplied with. So recovery of a
/// store with a hundred unsynced sectors, which stops at the first bad one, has about a hundred states and not 2^100. A moment
/// that has more than [`limit`](Enumerator::limit) states all the same is sampled: nothing and everything, every prefix and
/// suffix of the calls, each atom alone lost and alone kept, an array in which any three atoms meet in all ways, and seeded
/// samples. [`Coverage`] says how many moments were.
///
/// Workload and check must be deterministic: they run again for each state.
///
/// # A store of one's own
///
/// A counter that is replaced by renaming. The rename is not synced, so an acknowledged value may be lost, and the
/// enumerator finds that; with the sync of the directory nothing is found.
///
/// ```
/// use everlog::fs::sim::{Crashed, Enumerator, Ledger};
/// use everlog::fs::{Access, File, Fs, Profile, SimFs};
///
/// fn store(disk: &SimFs, value: u8, sync_dir: bool) -> std::io::Result<()> {
///     let file = disk.create("new")?;
///     file.write_all_at(&[value], 0)?;
///     file.sync_data()?;
///     disk.rename("new", "counter")?;
///     if sync_dir { disk.sync_dir("") } else { Ok(()) }
/// }
///
/// fn load(disk: &SimFs) -> Option<u8> {
///     let file = disk.open("counter", Access::Read).ok()?;
///     let mut value = [0];
///     file.read_exact_at(&mut value, 0).ok()?;
///     Some(value[0])
/// }
///
/// let workload = |sync_dir| move |disk: &SimFs, ledger: &Ledger<u8>| {
///     for value in 1..=3 {
///         ledger.issue(value);
///         store(disk, value, sync_dir).expect("the disk is fine");
///         ledger.acknowledge();
///     }
/// };
/// let check = |crashed: &Crashed<'_, u8>| {
///     let found = usize::from(load(&crashed.disk()).unwrap_or(0));
///     let allowed = crashed.acknowledged()..=crashed.issued().len();
///     if allowed.contains(&found) { Ok(()) } else { Err(format!("found {found}, not {allowed:?}")) }
/// };
///
/// let enumerator = Enumerator::new(Profile::PosixWeak);
/// let coverage = enumerator.run(workload(true), check).expect("nothing is lost");
/// assert_eq!(coverage.sampled, 0);
///
/// let violation = enumerator.run(workload(false), check).expect_err("the value may be lost");
/// println!("{violation}");
/// let again = enumerator.replay(&violation.script, workload(false), check);
/// assert_eq!(again.expect_err("the same").what, violation.what);
/// ```
#[derive(Clone, Debug)]
pub struct Enumerator {
    profile: Profile,
    sector_bytes: u64,
    seed: u64,
    limit: u64,
    samples: usize,
    every_call: bool,
    nested: Nested,
}

/// How far power cuts during a check go.
#[derive(Clone, Copy, Debug)]
struct Nested {
    depth: usize,
    budget: u64,
    limit: u64,
    /// One state in so many.
    every: u64,
}

/// What a workload has issued, and how much of it was acknowledged.
#[derive(Debug)]
pub struct Ledger<T> {
    items: Mutex<Vec<T>>,
    marks: Arc<Marks>,
}

/// A disk as a power cut left it, and what must be on it.
#[derive(Debug)]
pub struct Crashed<'a, T> {
    disk: SimFs,
    issued: &'a [T],
    acknowledged: usize,
    marks: Arc<Marks>,
    watch: Watch,
    exactly: Cell<Option<usize>>,
}

impl Enumerator {
    /// One that plays by the rules of `profile`, with sectors of 512 bytes, the limits named at the methods, and no power cuts
    /// during checks.
    pub fn new(profile: Profile) -> Enumerator {
        Enumerator {
            profile,
            sector_bytes: 512,
            seed: 1,
            limit: 1 << 16,
            samples: 1000,
            every_call: false,
            nested: Nested {
                depth: 1,
                budget: 0,
                limit: 0,
                every: 16,
            },
        }
    }

    /// Sets the size of a sector: 512 to 4096.
    #[must_use]
    pub fn sector_bytes(mut self, bytes: u64) -> Enumerator {
        self.sector_bytes = bytes;
        self
    }

    /// Sets the seed of everything random: 1, unless said otherwise.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Enumerator {
        self.seed = seed;
        self
    }

    /// Sets how many states of one moment are visited one by one (2^16, unless said otherwise) before corners and `samples`
    /// seeded samples (1000) take over.
    #[must_use]
    pub fn limit(mut self, states: u64, samples: usize) -> Enumerator {
        self.limit = states.max(1);
        self.samples = samples;
        self
    }

    /// Cuts the power before every call, not only before syncs: slow, and finds nothing more.
    #[must_use]
    pub fn every_call(mut self) -> Enumerator {
        self.every_call = true;
        self
    }

    /// Cuts the power during checks, too, so that a state is left by at most `depth` power cuts. For each moment
    /// of the workload at most `budget` such states are visited, and at most `limit` one by one of each moment of a check.
    #[must_use]
    pub fn nested(mut self, depth: usize, budget: u64, limit: u64) -> Enumerator {
        self.nested = Nested {
            depth,
            budget,
            limit,
            ..self.nested
        };
        self
    }

    /// Sets of how many states of a moment one has power cuts in its check (16, unless said otherwise).
    #[must_use]
    pub fn nested_every(mut self, states: u64) -> Enumerator {
        self.nested.every = states.max(1);
        self
    }

    /// Runs `workload`, and `check` on everything that power cuts may leave of it; stops at the first state in which the check
    /// fails or panics.
    ///
    /// # Panics
    ///
    /// If the workload does.
    pub fn run<T>(
        &self,
        workload: impl FnOnce(&SimFs, &Ledger<T>),
        check: impl Fn(&Crashed<'_, T>) -> Result<(), String>,
    ) -> Result<Coverage, Box<Violation>> {
        let (issued, moments) = self.moments(workload);
        let mut explorer = Explorer {
            settings: self,
            issued: &issued,
            check: &check,
            coverage: Coverage {
                workloads: 1,
                ..Coverage::default()
            },
            seen: HashSet::new(),
            budget: 0,
        };
        for (number, moment) in moments.into_iter().enumerate() {
            explorer.budget = self.nested.budget;
            explorer.explore(&moment, number, &Above::default())?;
        }
        Ok(explorer.coverage)
    }

    /// Runs `workload`, and `check` on the one state that `script` leads to.
    ///
    /// # Panics
    ///
    /// If the script does not belong to this workload, or the workload panics.
    pub fn replay<T>(
        &self,
        script: &Script,
        workload: impl FnOnce(&SimFs, &Ledger<T>),
        check: impl Fn(&Crashed<'_, T>) -> Result<(), String>,
    ) -> Result<(), Box<Violation>> {
        let (issued, mut moments) = self.moments(workload);
        let explorer = Explorer {
            settings: self,
            issued: &issued,
            check: &check,
            coverage: Coverage::default(),
            seen: HashSet::new(),
            budget: 0,
        };
        let mut above = Above::default();
        for (depth, cut) in script.0.iter().enumerate() {
            assert!(
                cut.moment < moments.len(),
                "{script} does not belong to this workload"
            );
            let moment = moments.swap_remove(cut.moment);
            let answers = cut.answers.iter().map(|answer| (*answer, 0)).collect();
            let sheet = Sheet::new(answers, Some(Plan::Nothing), HashMap::new());
            let visit = explorer.visit(&moment, sheet, Watched::Keep);
            above = above.with(cut.moment, &moment, &visit.sheet);
            if depth + 1 == script.0.len() {
                return explorer.judge(&moment, &visit, &above);
            }
            moments = visit.nested();
        }
        Ok(())
    }

    fn moments<T>(&self, workload: impl FnOnce(&SimFs, &Ledger<T>)) -> (Vec<T>, Vec<Moment>) {
        let disk = SimFs::with_sector_bytes(self.seed, self.profile, self.sector_bytes);
        let ledger = Ledger {
            items: Mutex::new(Vec::new()),
            marks: Arc::default(),
        };
        let watch = Watch::new(ledger.marks.clone(), self.every_call, Watched::Keep);
        disk.state.lock().watch = Some(watch.clone());
        workload(&disk, &ledger);
        watch.add(&disk.state.lock(), &|| "the end".to_string());
        (std::mem::take(&mut ledger.items.lock()), watch.take())
    }
}

impl<T> Ledger<T> {
    /// Says that something is about to be written: from now on a power cut may leave it.
    pub fn issue(&self, item: T) {
        let mut items = self.items.lock();
        items.push(item);
        self.marks.issued.store(items.len(), Ordering::Relaxed);
    }

    /// Says that everything issued so far is durable: from now on no power cut may take it.
    pub fn acknowledge(&self) {
        self.acknowledge_first(self.marks.issued.load(Ordering::Relaxed));
    }

    /// Says so of the first `count` items.
    pub fn acknowledge_first(&self, count: usize) {
        self.marks.acknowledged.fetch_max(count, Ordering::Relaxed);
    }

    /// Power cuts from here on are left out: another workload begins the same way.
    pub fn pause(&self) {
        self.marks.paused.store(true, Ordering::Relaxed);
    }

    /// Power cuts are looked at again.
    pub fn resume(&self) {
        self.marks.paused.store(false, Ordering::Relaxed);
    }
}

impl<T> Crashed<'_, T> {
    /// The disk. Clones are the same one.
    pub fn disk(&self) -> SimFs {
        self.disk.clone()
    }

    /// Everything that was issued before the power cut.
    pub fn issued(&self) -> &[T] {
        self.issued
    }

    /// How many of the first items of [`issued`](Crashed::issued) must be there.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Says that recovery is over: what the check does now is its own, and no power is cut in it.
    pub fn recovered(&self) {
        self.watch
            .add(&self.disk.state.lock(), &|| "the end of recovery".to_string());
        self.marks.paused.store(true, Ordering::Relaxed);
    }

    /// The same, for a store that promises to find again what it has once found: a power cut during this recovery must leave
    /// exactly the first `count` items.
    pub fn recovered_exactly(&self, count: usize) {
        self.exactly.set(Some(count));
        self.recovered();
    }
}

struct Explorer<'e, T, C> {
    settings: &'e Enumerator,
    issued: &'e [T],
    check: &'e C,
    coverage: Coverage,
    /// Fingerprints of moments.
    seen: HashSet<u64>,
    /// Nested states that may still be visited in the moment of the workload.
    budget: u64,
}

/// The power cuts before the one that is looked at.
#[derive(Clone, Default)]
struct Above {
    cuts: Vec<Cut>,
    moments: Vec<String>,
}

/// One check of one state.
struct Visit {
    sheet: Sheet,
    verdict: Result<(), String>,
    watch: Watch,
    exactly: Option<usize>,
}

impl<T, C: Fn(&Crashed<'_, T>) -> Result<(), String>> Explorer<'_, T, C> {
    /// Visits the states that a power cut at `moment` may leave.
    fn explore(&mut self, moment: &Moment, number: usize, above: &Above) -> Result<(), Box<Violation>> {
        let nested = !above.cuts.is_empty();
        if !self.seen.insert(moment.fingerprint()) {
            self.coverage.repeated += u64::from(!nested);
            return Ok(());
        }
        let limit = if nested {
            self.settings.nested.limit
        } else {
            self.coverage.raw += raw(&moment.state);
            self.settings.limit
        };
        let (mut script, mut numbers) = (Vec::new(), HashMap::new());
        let mut count = 0;
        let whole = loop {
            if count == limit || (nested && self.budget == 0) {
                break false;
            }
            let sheet = Sheet::new(std::mem::take(&mut script), Some(Plan::Nothing), numbers);
            let sheet = self.step(moment, number, sheet, above, count)?;
            count += 1;
            (script, numbers) = (sheet.script, sheet.numbers);
            script.truncate(sheet.asked);
            if !Sheet::advance(&mut script) {
                break true;
            }
        };
        if !whole && !nested {
            let seed = mix(self.settings.seed ^ number as u64);
            for plan in plans(&moment.state, numbers.len(), self.settings.samples, seed) {
                let sheet = Sheet::new(Vec::new(), Some(plan), std::mem::take(&mut numbers));
                numbers = self.step(moment, number, sheet, above, count)?.numbers;
                count += 1;
            }
        }
        self.visited(nested, whole, count);
        Ok(())
    }

    fn visited(&mut self, nested: bool, whole: bool, count: u64) {
        let coverage = &mut self.coverage;
        if nested {
            coverage.nested_visited += 1;
            coverage.nested_exhaustive += u64::from(whole);
            return;
        }
        coverage.moments += 1;
        coverage.exhaustive += u64::from(whole);
        coverage.sampled += u64::from(!whole);
        coverage.in_exhaustive += if whole { count } else { 0 };
        coverage.widest = coverage.widest.max(count);
    }

    /// Visits one state, the `count`-th of its moment, and the power cuts in its check.
    fn step(
        &mut self,
        moment: &Moment,
        number: usize,
        sheet: Sheet,
        above: &Above,
        count: u64,
    ) -> Result<Sheet, Box<Violation>> {
        let depth = above.cuts.len() + 1;
        if depth > 1 {
            self.budget = self.budget.saturating_sub(1);
            self.coverage.nested_states += 1;
        } else {
            self.coverage.canonical += 1;
        }
        let deeper = depth < self.settings.nested.depth;
        // Some early ones, and some from everywhere.
        let chosen = count.count_ones() < 2
            || mix(count ^ self.settings.seed).is_multiple_of(self.settings.nested.every);
        let watched = match (deeper, chosen && self.budget > 0) {
            (false, _) => Watched::Nothing,
            (true, false) => Watched::Count,
            (true, true) => Watched::Keep,
        };
        let visit = self.visit(moment, sheet, watched);
        let here = above.with(number, moment, &visit.sheet);
        self.judge(moment, &visit, &here)?;
        self.coverage.deepest = self.coverage.deepest.max(visit.sheet.asked as u64);
        self.coverage.nested_moments += visit.watch.count();
        for (number, moment) in visit.nested().iter().enumerate() {
            if self.budget > 0 {
                self.explore(moment, number, &here)?;
            }
        }
        Ok(visit.sheet)
    }

    fn visit(&self, moment: &Moment, sheet: Sheet, watched: Watched) -> Visit {
        let answers = Arc::new(Mutex::new(sheet));
        let mut state = crash_lazily(&moment.state, answers.clone());
        let marks = Arc::new(Marks::default());
        marks.issued.store(moment.issued, Ordering::Relaxed);
        marks.acknowledged.store(moment.acknowledged, Ordering::Relaxed);
        let watch = Watch::new(marks.clone(), self.settings.every_call, watched);
        state.watch = Some(watch.clone());
        let crashed = Crashed {
            disk: SimFs::from_state(state),
            issued: &self.issued[..moment.issued],
            acknowledged: moment.acknowledged,
            marks,
            watch: watch.clone(),
            exactly: Cell::new(None),
        };
        let verdict = catch_unwind(AssertUnwindSafe(|| (self.check)(&crashed)));
        let verdict = verdict.unwrap_or_else(|panic| Err(format!("the check panicked: {}", told(&*panic))));
        crashed.recovered();
        let exactly = crashed.exactly.get();
        let sheet = std::mem::take(&mut *answers.lock());
        Visit {
            sheet,
            verdict,
            watch,
            exactly,
        }
    }

    fn judge(&self, moment: &Moment, visit: &Visit, here: &Above) -> Result<(), Box<Violation>> {
        let what = match &visit.verdict {
            Err(what) => what.clone(),
            Ok(()) if visit.sheet.strayed => {
                "the workload or the check is not deterministic: the same answers led to another question"
                    .into()
            }
            Ok(()) => return Ok(()),
        };
        Err(Box::new(Violation {
            what,
            script: Script(here.cuts.clone()),
            moments: here.moments.clone(),
            decided: visit.sheet.describe(),
            issued: moment.issued,
            acknowledged: moment.acknowledged,
            coverage: self.coverage.clone(),
        }))
    }
}

impl Above {
    fn with(&self, number: usize, moment: &Moment, sheet: &Sheet) -> Above {
        let mut here = self.clone();
        here.cuts.push(Cut {
            moment: number,
            answers: sheet.answers(),
        });
        here.moments.push(moment.before.clone());
        here
    }
}

impl Visit {
    /// The moments of the check. What the whole check saw of the power cut before holds in them as well: it is the same one.
    fn nested(&self) -> Vec<Moment> {
        let mut moments = self.watch.take();
        for moment in &mut moments {
            moment.state.answers = Some(Arc::new(Mutex::new(self.sheet.as_given())));
            moment.state.look_at_all();
            moment.state.answers = None;
            if let Some(count) = self.exactly {
                (moment.issued, moment.acknowledged) = (count, count);
            }
        }
        moments
    }
}

/// All outcomes of all atoms.
fn raw(before: &State) -> f64 {
    let mut product = 1.0;
    crash(before, &mut |choice| {
        product *= u32::try_from(choice.options).map_or(f64::INFINITY, f64::from);
        choice.newest()
    });
    product
}

/// What a panic says.
fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words")
}
