//! Everything that power cuts may leave of everything that a few operations can do to an engine, and to a replica with its log: all
//! words of up to so many letters, at each sync of each word, every joint outcome of all sectors, sizes and names of journal and store
//! together; opened, compared with what was replied to, and cut short again while it is opened.
//!
//! `EVERLOG_ENGINE_LENGTH=4` sets the length, `EVERLOG_ENGINE_GROUND=Replica` who spells, `EVERLOG_SECONDS=60` how long all may take,
//! `EVERLOG_ENGINE_WORD=eci` one word and `EVERLOG_ENGINE_SCRIPT=3:0.1` one state of it. scripts/enumerate-engine runs it whole.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use everlog::fs::sim::{Coverage, Crashed, Enumerator, Ledger, Violation};
use everlog::fs::{Fault, FaultFs, Fs, Op, Profile, Rule, SimFs};

use book::{Between, Book, Standing};

use super::support::dynamic;

mod book;
mod engine;
mod replica;

/// One operation of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Execute,
    /// A command that takes the rest of a segment.
    Large,
    /// A command that takes effect once, and is repeated.
    Once,
    /// An entry that its owner never commits.
    Uncommitted,
    Checkpoint,
    /// A snapshot that came from elsewhere, and is ahead.
    Install,
    /// Packs that are not quite full are rewritten.
    Collect,
    /// What the background does: the next files are made, a mark is written, and what a purge frees goes. The owner of a replica purges.
    Work,
    /// The process ends, in order or not, and the next one opens.
    Reopen,
}

const SPELLED: [(Letter, char); 9] = [
    (Letter::Execute, 'e'),
    (Letter::Large, 'l'),
    (Letter::Once, 'o'),
    (Letter::Uncommitted, 'u'),
    (Letter::Checkpoint, 'c'),
    (Letter::Install, 'i'),
    (Letter::Collect, 'g'),
    (Letter::Work, 'w'),
    (Letter::Reopen, 'r'),
];

/// What every word begins with: two snapshots and an entry behind them, so that the next checkpoint removes one and purges.
const BEGINNING: [Letter; 5] = [
    Letter::Execute,
    Letter::Checkpoint,
    Letter::Execute,
    Letter::Checkpoint,
    Letter::Execute,
];

/// Who spells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    Engine,
    Replica,
}

/// Looks closely at few of those states that ended alike, and at some of the others.
struct Sampler(RefCell<HashMap<String, u32>>);

const ALIKE_MAX: u32 = 4;
const ALIKE_ONE_IN: u32 = 16;

impl Sampler {
    fn is_wanted(&self, at: usize, end: &dyn std::fmt::Debug) -> bool {
        let mut ends = self.0.borrow_mut();
        let count = ends.entry(format!("{at} {end:?}")).or_default();
        *count += 1;
        *count <= ALIKE_MAX || count.is_multiple_of(ALIKE_ONE_IN)
    }
}

/// After how many of the events `found` is what stands; at least those that were acknowledged.
fn position(crashed: &Crashed<'_, Standing>, found: &Book) -> Result<usize, String> {
    let issued = crashed.issued();
    let allowed = crashed.acknowledged().max(1)..=issued.len();
    let mut counts = allowed.clone().rev();
    counts
        .find(|count| issued[count - 1].book == *found)
        .ok_or_else(|| {
            let states: Vec<_> = allowed.map(|count| &issued[count - 1].book.0).collect();
            format!("found {:?}, and allowed are {states:?}", found.0)
        })
}

impl Ground {
    fn alphabet(self) -> Vec<Letter> {
        let other = match self {
            Ground::Engine => Letter::Uncommitted,
            Ground::Replica => Letter::Once,
        };
        let letters = SPELLED.iter().map(|(letter, _)| *letter);
        letters.filter(|letter| *letter != other).collect()
    }

    /// Spells `word`; the power is cut in its last letter.
    fn spell(self, word: &[Letter], between: Between, disk: &SimFs, ledger: &Ledger<Standing>) {
        let Some((last, before)) = word.split_last() else {
            match self {
                Ground::Engine => drop(engine::Life::begin(disk, between, ledger)),
                Ground::Replica => drop(replica::Life::begin(disk, between, ledger)),
            }
            return;
        };
        let letters = BEGINNING.iter().chain(before).copied().zip(0..);
        let at = BEGINNING.len() + before.len();
        ledger.pause();
        match self {
            Ground::Engine => {
                let mut life = engine::Life::begin(disk, between, ledger);
                letters.for_each(|(letter, position)| life.perform(letter, position));
                ledger.resume();
                life.perform(*last, at);
            }
            Ground::Replica => {
                let mut life = replica::Life::begin(disk, between, ledger);
                letters.for_each(|(letter, position)| life.perform(letter, position));
                ledger.resume();
                life.perform(*last, at);
            }
        }
    }

    fn check(self, crashed: &Crashed<'_, Standing>, sampler: &Sampler) -> Result<(), String> {
        match self {
            Ground::Engine => engine::check(crashed, sampler),
            Ground::Replica => replica::check(crashed, sampler),
        }
    }

    fn visit(self, word: &[Letter], between: Between) -> Result<Coverage, Box<Violation>> {
        let sampler = Sampler(RefCell::default());
        enumerator().run(
            |disk, ledger| self.spell(word, between, disk, ledger),
            |crashed| self.check(crashed, &sampler),
        )
    }

    fn rerun(self, word: &[Letter], violation: &Violation) -> String {
        format!(
            "{self:?}, word {word:?}: {violation}\nrerun: EVERLOG_ENGINE_GROUND={self:?} EVERLOG_ENGINE_WORD={} \
             EVERLOG_ENGINE_SCRIPT={} cargo test --test engine -- --nocapture every_state",
            spelled(word),
            violation.script
        )
    }
}

fn enumerator() -> Enumerator {
    Enumerator::new(Profile::PosixWeak)
        .limit(setting("LIMIT").unwrap_or(1 << 9), 40)
        .nested(2, setting("NESTED").unwrap_or(12), 8)
        .nested_every(32)
}

fn spelled(word: &[Letter]) -> String {
    let of = |letter: &Letter| SPELLED.iter().find(|(one, _)| one == letter).expect("a letter").1;
    word.iter().map(of).collect()
}

fn read(word: &str) -> Vec<Letter> {
    let of = |spelled| {
        let found = SPELLED.iter().find(|(_, one)| *one == spelled);
        found
            .unwrap_or_else(|| panic!("no letter {spelled:?}; there are {SPELLED:?}"))
            .0
    };
    word.chars().map(of).collect()
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(format!("EVERLOG_ENGINE_{name}")).ok()?;
    let bad = || panic!("EVERLOG_ENGINE_{name} is {text:?}, which is not one");
    Some(text.parse().unwrap_or_else(|_| bad()))
}

fn grounds() -> Vec<Ground> {
    let all = [Ground::Engine, Ground::Replica];
    let wanted = setting::<String>("GROUND");
    let is_wanted = |ground: &Ground| {
        wanted
            .as_ref()
            .is_none_or(|wanted| format!("{ground:?}") == *wanted)
    };
    let found: Vec<Ground> = all.into_iter().filter(is_wanted).collect();
    assert!(!found.is_empty(), "no ground {wanted:?}; there are {all:?}");
    found
}

/// All words of up to `length` letters, shortest first.
fn words(ground: Ground, length: usize) -> Vec<Vec<Letter>> {
    let alphabet = ground.alphabet();
    let mut words = vec![Vec::new()];
    let mut longest: Vec<Vec<Letter>> = words.clone();
    for _ in 0..length {
        let longer = |word: &Vec<Letter>| -> Vec<Vec<Letter>> {
            let with = |letter: &Letter| [word.as_slice(), &[*letter]].concat();
            alphabet.iter().map(with).collect()
        };
        longest = longest.iter().flat_map(longer).collect();
        words.extend(longest.iter().cloned());
    }
    words
}

/// Visits the words, until the first violation or `deadline`; how many were left out, and what was found.
fn visit_all(
    ground: Ground,
    words: &[Vec<Letter>],
    between: Between,
    deadline: Option<Instant>,
) -> (Coverage, usize, Option<String>) {
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Coverage::default(), 0));
    // Of several threads that find something, the one with the shortest word tells.
    let worst: Mutex<Option<(usize, String)>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let visit_some = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let late = deadline.is_some_and(|deadline| Instant::now() > deadline);
            let found = worst.lock().expect("a thread panicked").is_some();
            let Some(word) = words.get(number).filter(|_| !late && !found) else {
                return;
            };
            let visited = ground.visit(word, between);
            let coverage = match &visited {
                Ok(coverage) => coverage,
                Err(violation) => {
                    let mut worst = worst.lock().expect("a thread panicked");
                    if worst.as_ref().is_none_or(|(known, _)| number < *known) {
                        *worst = Some((number, ground.rerun(word, violation)));
                    }
                    &violation.coverage
                }
            };
            let mut done = done.lock().expect("a thread panicked");
            done.0 += coverage;
            done.1 += 1;
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(visit_some))));
    let (coverage, visited) = done.into_inner().expect("a thread panicked");
    let worst = worst.into_inner().expect("a thread panicked");
    (coverage, words.len() - visited, worst.map(|(_, story)| story))
}

#[test]
fn every_state_that_a_power_cut_may_leave_is_opened() {
    if let Some(word) = setting::<String>("WORD") {
        return one_word(&read(&word));
    }
    let length = setting("LENGTH").unwrap_or(2);
    let begun = Instant::now();
    let seconds: Option<u32> = std::env::var("EVERLOG_SECONDS")
        .ok()
        .map(|text| text.parse().expect("a number of seconds"));
    let grounds = grounds();
    for (n, ground) in (1..).zip(&grounds) {
        let started = Instant::now();
        let share = u32::try_from(grounds.len()).expect("a few");
        let deadline = seconds.map(|all| begun + Duration::from_secs(all.into()) * n / share);
        let words = words(*ground, length);
        let (coverage, left_out, violation) = visit_all(*ground, &words, dynamic, deadline);
        println!(
            "figure: enumerate: {ground:?} with checkpoints, words of up to {length} letters ({left_out} left out), {coverage}, \
             {} violations, {:.1?}",
            u8::from(violation.is_some()),
            started.elapsed()
        );
        if let Some(violation) = violation {
            panic!("{violation}");
        }
        assert!(coverage.nested_states > 0, "no power was cut twice");
    }
}

/// One word, or one state of it.
fn one_word(word: &[Letter]) {
    for ground in grounds() {
        let sampler = Sampler(RefCell::default());
        let outcome = match setting("SCRIPT") {
            Some(script) => enumerator().replay(
                &script,
                |disk, ledger| ground.spell(word, dynamic, disk, ledger),
                |crashed| ground.check(crashed, &sampler),
            ),
            None => ground
                .visit(word, dynamic)
                .map(|coverage| println!("figure: enumerate: {ground:?}: {coverage}")),
        };
        if let Err(violation) = outcome {
            panic!("{}", ground.rerun(word, &violation));
        }
    }
}

/// A disk all of whose syncs of one kind do nothing.
fn lying(op: Op, path: &str, disk: &SimFs) -> Arc<dyn Fs> {
    let fs = FaultFs::new(dynamic(disk));
    fs.add(Rule::on(op, Fault::Skip).path(path).forever());
    Arc::new(fs)
}

/// The enumeration is sharp: without syncs it finds something at once.
#[test]
fn a_disk_that_lies_is_found_out() {
    let lies: [(&str, Between); 4] = [
        ("no segment is synced", |disk| {
            lying(Op::SyncData, "journal/", disk)
        }),
        ("no pack is synced", |disk| lying(Op::SyncData, ".pack", disk)),
        ("no index is synced", |disk| lying(Op::SyncData, ".snap", disk)),
        ("no name of a snapshot is synced", |disk| {
            lying(Op::SyncDir, "snapshots", disk)
        }),
    ];
    for (what, between) in lies {
        for ground in [Ground::Engine, Ground::Replica] {
            let (coverage, _, violation) = visit_all(ground, &words(ground, 2), between, None);
            let violation = violation.unwrap_or_else(|| panic!("{ground:?}: {what}, and nothing is found"));
            let first: String = violation
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(200)
                .collect();
            println!(
                "figure: enumerate: {ground:?}: {what}: found after {} states: {first}",
                coverage.canonical
            );
        }
    }
}

/// Letters do what they are there for.
#[test]
fn short_words_purge_install_and_remove() {
    let reached = |ground: Ground, word: &str| {
        let word: Vec<Letter> = BEGINNING.into_iter().chain(read(word)).collect();
        let found = Cell::new((0, 0));
        let workload = |disk: &SimFs, ledger: &Ledger<Standing>| {
            ledger.pause();
            let letters = word.iter().copied().zip(0..);
            found.set(match ground {
                Ground::Engine => {
                    let mut life = engine::Life::begin(disk, dynamic, ledger);
                    letters.for_each(|(letter, position)| life.perform(letter, position));
                    life.reached()
                }
                Ground::Replica => {
                    let mut life = replica::Life::begin(disk, dynamic, ledger);
                    letters.for_each(|(letter, position)| life.perform(letter, position));
                    life.reached()
                }
            });
        };
        let unvisited = enumerator().run(workload, |_| Ok(()));
        assert_eq!(unvisited.expect("nothing is checked").canonical, 0);
        found.get()
    };
    use Ground::{Engine, Replica};
    assert_eq!(
        reached(Engine, ""),
        (1, 2),
        "the second checkpoint purges to the first"
    );
    assert_eq!(reached(Engine, "c"), (2, 2), "the third removes the first");
    assert_eq!(
        reached(Engine, "i"),
        (9, 3),
        "an installed snapshot resets the log"
    );
    assert_eq!(reached(Engine, "ric"), (9, 2), "nothing was applied since");
    assert_eq!(reached(Replica, "c"), (0, 2), "a replica never purges");
    assert_eq!(reached(Replica, "cw"), (2, 2), "its owner does");
    assert_eq!(
        reached(Replica, "i"),
        (9, 3),
        "an installed snapshot resets the log"
    );
    assert_eq!(
        reached(Replica, "ui"),
        (0, 3),
        "a log that has its last entry stays"
    );
}
