//! Crashes a disk in several ways, opens what each leaves, and compares it with the states that a crash may leave.

use std::sync::Arc;

use everlog::fs::{Fs, SimFs};
use everlog::{Config, Error, ErrorKind, Journal, LogKey};

use super::harm::{Harm, Plan, Span};
use super::model::{Model, Step};
use super::random::{bytes, mix};
use super::saboteur::Saboteur;
use super::tally::Tally;
use super::window::Window;

/// How far the judge looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// One crash state behind the fault, one outcome each.
    Slice,
    /// Several states, several outcomes, faults while each is recovered.
    Whole,
}

/// What a crash does with what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A power cut that takes all of it.
    Nothing,
    /// A power cut that takes none of it.
    Everything,
    /// A power cut with the outcome of this seed.
    Seed(u64),
    /// The process dies, the system lives.
    Kill,
}

#[derive(Clone)]
pub(crate) struct Judge<'a> {
    pub(crate) config: Config,
    pub(crate) depth: Depth,
    /// Everything that is drawn is drawn from it.
    pub(crate) seed: u64,
    pub(crate) tally: &'a Tally,
}

impl Cut {
    fn of(self, disk: &SimFs) -> SimFs {
        match self {
            Cut::Nothing => disk.crash_with(&mut |_| 0),
            Cut::Everything => disk.crash_with(&mut |choice| choice.newest()),
            Cut::Seed(seed) => disk.crash(seed),
            Cut::Kill => disk.fork(),
        }
    }
}

impl Judge<'_> {
    /// Judges what crashes of `disk` leave.
    pub(crate) fn crashes(&self, disk: &SimFs, window: &Window, story: &str) {
        let drawn = mix(self.seed ^ disk.ops());
        let all = [
            Cut::Nothing,
            Cut::Everything,
            Cut::Kill,
            Cut::Seed(drawn % 1000),
            Cut::Seed(drawn % 997 + 1000),
        ];
        let one = usize::try_from(drawn % 4).expect("small");
        let cuts = match self.depth {
            Depth::Slice => &all[one..=one],
            Depth::Whole => &all[..],
        };
        for cut in cuts {
            let from = match cut {
                Cut::Kill => window.written,
                _ => window.base,
            };
            let left = cut.of(disk);
            let story = format!("{story}, then {cut:?}");
            self.tally.crashes.add(1);
            self.recovered(&left, window, from, &story);
            if self.depth == Depth::Whole {
                self.faults_within(disk, *cut, window, from, &story);
            }
        }
    }

    /// Opens what a crash left; and then another crash finds the same, and the journal goes on.
    fn recovered(&self, left: &SimFs, window: &Window, from: usize, story: &str) {
        let journal = match self.open(left) {
            Ok(journal) => journal,
            Err(error) if window.unborn && error.kind() == ErrorKind::NotFound => {
                let create = || Journal::open_or_create_on(shared(left), self.config.clone());
                // What a killed process wrote may fail to be written back, and its successor is told.
                let journal = create().or_else(|_| create());
                let journal = journal.unwrap_or_else(|e| panic!("{story}: creating again failed: {e:?}"));
                assert!(journal.logs().is_empty(), "{story}: a new journal is not empty");
                return;
            }
            // Three failures in a row, before anything was acknowledged: section 8 of DESIGN.md.
            Err(error) if is_stillborn(&error, left, window) => {
                self.tally.stillborn.add(1);
                return;
            }
            Err(error) => panic!("{story}: opening failed: {error:?}"),
        };
        let found = self.matches(&journal, window, from, story);
        let drawn = mix(self.seed ^ 7 ^ left.ops());
        if self.depth == Depth::Slice && !drawn.is_multiple_of(4) {
            return;
        }
        if drawn.is_multiple_of(2) {
            let again = left.crash(drawn);
            let journal = self
                .open(&again)
                .unwrap_or_else(|e| panic!("{story}: opening again failed: {e:?}"));
            assert_same(&journal, &found, &format!("{story}, opened and cut again"));
            return;
        }
        loosen(left);
        let step = goes_on(&found, drawn);
        let after = found.after(std::slice::from_ref(&step)).expect("it fits");
        write(&journal, &step).unwrap_or_else(|e| panic!("{story}: {step:?} is refused: {e:?}"));
        let again = Cut::Nothing.of(left);
        let journal = self
            .open(&again)
            .unwrap_or_else(|e| panic!("{story}: opening after {step:?} failed: {e:?}"));
        assert_same(&journal, &after, &format!("{story}, then {step:?}"));
    }

    /// Calls of the opening fail, one at a time; whatever it says, the next opening finds everything.
    fn faults_within(&self, disk: &SimFs, cut: Cut, window: &Window, from: usize, story: &str) {
        let drawn = mix(self.seed ^ 99 ^ disk.ops());
        let harms = [Harm::Io, Harm::Lost, Harm::Full, Harm::Torn, Harm::After];
        let harm = harms[usize::try_from(drawn % 5).expect("small")];
        let span = if drawn.is_multiple_of(3) {
            Span::All
        } else {
            Span::Once
        };
        let plan = Plan {
            at: 1 + drawn / 5 % 60,
            harm,
            span,
        };
        let saboteur = Saboteur::new(cut.of(disk), &[plan], 0);
        let story = format!("{story}, opened with {plan}");
        let fs: Arc<dyn Fs> = Arc::new(saboteur.clone());
        let opened = Journal::open_on(fs, self.config.clone());
        self.tally.struck(&saboteur);
        self.tally.nested.add(1);
        let mut window = window.clone();
        let mut from = from;
        let story = match &opened {
            Ok(_) => format!("{story}, which went well"),
            Err(error) => format!("{story}, which failed ({error})"),
        };
        match opened {
            Ok(journal) => {
                let found = saboteur.aside(|| Model::read(&journal));
                let found = found.unwrap_or_else(|e| panic!("{story}: reading failed: {e:?}"));
                let position = self.position(&found, &window, from, &story);
                window.found(position);
                from = position;
            }
            Err(error) if window.unborn && error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                check_refused_opening(&error, &saboteur, &story);
                // What the kill left to the system may go with the power now.
                from = window.base;
            }
        }
        let left = saboteur.disk.crash(drawn);
        self.tally.crashes.add(1);
        self.recovered(&left, &window, from, &format!("{story}, then cut again"));
    }

    /// Opens it; what failed before may have cost the reserve with which a full disk opens.
    fn open(&self, disk: &SimFs) -> everlog::Result<Journal> {
        let open = || Journal::open_on(shared(disk), self.config.clone());
        open().or_else(|error| {
            let full = error.kind() == ErrorKind::NoSpace && is_tight(disk);
            if !full {
                return Err(error);
            }
            loosen(disk);
            open()
        })
    }

    fn matches(&self, journal: &Journal, window: &Window, from: usize, story: &str) -> Model {
        let found = Model::read(journal).unwrap_or_else(|e| panic!("{story}: reading failed: {e:?}"));
        self.position(&found, window, from, story);
        found
    }

    /// The position of what was found, which must be one that a crash may leave.
    pub(crate) fn position(&self, found: &Model, window: &Window, from: usize, story: &str) -> usize {
        window.find(found, from).unwrap_or_else(|| {
            panic!(
                "{story}: what was found is not a state that a crash may leave.\nfound:\n{found}allowed:\n{}",
                window.describe(from)
            )
        })
    }
}

/// An opening may be refused because of what befell a call of it, and says so.
pub(crate) fn check_refused_opening(error: &Error, saboteur: &Saboteur, story: &str) {
    let struck = saboteur.struck();
    // What failed in an earlier life may have cost the reserve with which a full disk opens.
    let full = error.kind() == ErrorKind::NoSpace && is_tight(&saboteur.disk);
    assert!(
        struck.failed > 0 || full,
        "{story}: opening failed though no call did: {error:?}"
    );
    let fits = match error.kind() {
        ErrorKind::Io => true,
        ErrorKind::NoSpace => struck.full > 0 || full,
        _ => false,
    };
    assert!(fits, "{story}: opening failed with the wrong kind: {error:?}");
}

/// Whether the journal was perhaps never there, and what is there is nothing but segments full of zeros.
fn is_stillborn(error: &Error, left: &SimFs, window: &Window) -> bool {
    let files = left.dump().into_iter();
    let mut segments = files.filter(|(path, _)| path.ends_with(".seg"));
    window.unborn
        && error.kind() == ErrorKind::Damaged
        && segments.all(|(_, bytes)| bytes.iter().all(|byte| *byte == 0))
}

/// Whether the size of the disk is limited.
pub(crate) fn is_tight(disk: &SimFs) -> bool {
    disk.space().is_ok_and(|space| space.total < UNLIMITED)
}

pub(crate) fn loosen(disk: &SimFs) {
    disk.set_capacity(UNLIMITED);
}

fn assert_same(journal: &Journal, expected: &Model, story: &str) {
    let found = Model::read(journal).unwrap_or_else(|e| panic!("{story}: reading failed: {e:?}"));
    assert!(
        found == *expected,
        "{story}: found\n{found}instead of\n{expected}"
    );
}

/// A write that must be possible on a healthy disk.
pub(crate) fn goes_on(now: &Model, tag: u64) -> Step {
    let bytes = bytes(tag, 40 + tag % 3000);
    match now.0.keys().next() {
        Some(key) => Step::Append(*key, bytes),
        None => Step::Create(9, 0),
    }
}

/// Does one step as a write of its own.
pub(crate) fn write(journal: &Journal, step: &Step) -> everlog::Result<()> {
    match step {
        Step::Create(key, first) => journal.create_log(LogKey(*key), *first).map(drop),
        Step::Delete(key) => journal.delete_log(LogKey(*key)),
        step => {
            let mut batch = everlog::WriteBatch::new();
            step.push(&mut batch);
            journal.write(batch).map(drop)
        }
    }
}

fn shared(disk: &SimFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}

const UNLIMITED: u64 = 1 << 40;
