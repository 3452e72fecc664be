//! Everything that power cuts may leave of everything that a few operations can do: all words of up to so many letters, at
//! each sync of each word, every joint outcome of all sectors, sizes and names; recovered, compared with a model, and
//! cut short again while it is recovered from.
//!
//! Words that begin the same share what their beginning has shown: only the last letter of each is looked at.
//!
//! `EVERLOG_ENUMERATE_LENGTH=4` sets the length, `EVERLOG_ENUMERATE_GROUND=PosixWeak-3` (or several, with commas) where,
//! `EVERLOG_SECONDS=60` how long all may take, `EVERLOG_ENUMERATE_WORD=abr` one word and `EVERLOG_ENUMERATE_SCRIPT=3:0.1` one
//! state of it. scripts/enumerate runs it whole.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alphabet::{ALPHABET, Between, Letter, Life};
use everlog::fs::sim::{Coverage, Enumerator, Ledger, Violation};
use everlog::fs::{Fault, FaultFs, Op, Profile, Rule, SimFs};
use everlog::{Alignment, Background, Config};
use model::Model;
use oracle::Oracle;

mod alphabet;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../support/model.rs"]
mod model;
mod oracle;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../support/random.rs"]
mod random;

/// A kind of disk, and what stands on it.
#[derive(Clone, Copy, Debug)]
struct Ground {
    profile: Profile,
    logs: u64,
    /// What stands between the journal and the disk while a word is spelled.
    between: Between,
}

const GROUNDS: [Ground; 4] = [
    Ground::new(Profile::PosixWeak, 1),
    Ground::new(Profile::PosixWeak, 3),
    Ground::new(Profile::Ext4, 3),
    Ground::new(Profile::Hostile, 3),
];

/// What `cargo test` visits.
const SLICE: (usize, Ground) = (2, Ground::new(Profile::PosixWeak, 3));

impl Ground {
    const fn new(profile: Profile, logs: u64) -> Ground {
        Ground {
            profile,
            logs,
            between: alphabet::dynamic,
        }
    }

    fn name(self) -> String {
        format!("{:?}-{}", self.profile, self.logs)
    }

    fn is_hostile(self) -> bool {
        self.profile == Profile::Hostile
    }

    /// On a hostile disk there are so many states that words are one letter shorter.
    fn length(self, length: usize) -> usize {
        length.saturating_sub(usize::from(self.is_hostile()))
    }

    fn config(self) -> Config {
        let config = Config::new()
            .segment_bytes(16 << 10)
            .in_flight_bytes(8 << 10)
            .background(Background::Caller);
        if self.is_hostile() {
            // It tears sectors, so that batches must not share one.
            config.alignment(Alignment::Bytes4096)
        } else {
            config.alignment(Alignment::Bytes8)
        }
    }

    fn enumerator(self) -> Enumerator {
        // On a hostile disk each sector has five states, and a block is its sector.
        let (sector_bytes, limit) = match self.profile {
            Profile::Hostile => (4096, 1 << 6),
            _ if is_slice() => (512, 1 << 9),
            _ => (512, 1 << 13),
        };
        Enumerator::new(self.profile)
            .sector_bytes(sector_bytes)
            .limit(setting("EVERLOG_ENUMERATE_LIMIT").unwrap_or(limit), 40)
            .nested(2, setting("EVERLOG_ENUMERATE_NESTED").unwrap_or(12), 8)
            .nested_every(64)
    }

    fn oracle(self) -> Oracle {
        Oracle::new(self.config(), self.is_hostile())
    }

    /// Spells `word`; the moments are those of its last letter. `to_end`: that after it, too.
    fn spell(self, word: &[Letter], to_end: bool, disk: &SimFs, ledger: &Ledger<Model>) {
        let Some((last, before)) = word.split_last() else {
            Life::create(disk, self.between, ledger, &self.config(), self.logs);
            return;
        };
        ledger.pause();
        let mut life = Life::create(disk, self.between, ledger, &self.config(), self.logs);
        for (position, letter) in before.iter().enumerate() {
            life.perform(*letter, position);
        }
        ledger.resume();
        life.perform(*last, before.len());
        if !to_end {
            ledger.pause();
        }
    }

    /// All crash states of a word that those of its beginning do not have.
    fn visit(self, word: &[Letter], to_end: bool) -> Result<Coverage, Box<Violation>> {
        let oracle = self.oracle();
        self.enumerator().run(
            |disk, ledger| self.spell(word, to_end, disk, ledger),
            |crashed| oracle.check(crashed),
        )
    }

    fn rerun(self, word: &[Letter], violation: &Violation) -> String {
        format!(
            "{}, word {:?} ({word:?}): {violation}\nrerun: EVERLOG_ENUMERATE_GROUND={} EVERLOG_ENUMERATE_WORD={} \
             EVERLOG_ENUMERATE_SCRIPT={} cargo test --test enumerate -- --nocapture",
            self.name(),
            alphabet::spell(word),
            self.name(),
            alphabet::spell(word),
            violation.script
        )
    }
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, which is not one")),
    )
}

/// Nothing in particular is asked for.
fn is_slice() -> bool {
    ["LENGTH", "GROUND", "WORD"]
        .iter()
        .all(|name| std::env::var_os(format!("EVERLOG_ENUMERATE_{name}")).is_none())
}

fn grounds() -> Vec<Ground> {
    let Some(wanted) = setting::<String>("EVERLOG_ENUMERATE_GROUND") else {
        return if is_slice() {
            vec![SLICE.1]
        } else {
            GROUNDS.to_vec()
        };
    };
    let find = |name: &str| {
        let found = GROUNDS.into_iter().find(|ground| ground.name() == name);
        found.unwrap_or_else(|| panic!("no ground {name:?}; there are {:?}", GROUNDS.map(Ground::name)))
    };
    wanted.split(',').map(find).collect()
}

/// Visits all words of up to `length` letters, shortest first, until the first violation or `deadline`.
fn visit_all(ground: Ground, length: usize, deadline: Option<Instant>) -> (Coverage, usize, Option<String>) {
    let counts: Vec<usize> = (0..=length)
        .map(|len| ALPHABET.len().pow(u32::try_from(len).expect("a short word")))
        .collect();
    let total: usize = counts.iter().sum();
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Coverage::default(), 0));
    // Of several threads that find something, the one with the shortest word tells.
    let worst: Mutex<Option<(usize, String)>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let late = deadline.is_some_and(|deadline| Instant::now() > deadline);
                    if number >= total || late || worst.lock().expect("a thread panicked").is_some() {
                        return;
                    }
                    let (mut len, mut n) = (0, number);
                    while n >= counts[len] {
                        n -= counts[len];
                        len += 1;
                    }
                    let word = alphabet::word(len, n);
                    // What a word leaves at its end is a part of what the next letter leaves at its first sync; but a missing sync shows
                    // sooner.
                    let visited = ground.visit(&word, len == length || len <= 2);
                    let coverage = match &visited {
                        Ok(coverage) => coverage,
                        Err(violation) => {
                            let story = ground.rerun(&word, violation);
                            let mut worst = worst.lock().expect("a thread panicked");
                            if worst.as_ref().is_none_or(|(known, _)| number < *known) {
                                *worst = Some((number, story));
                            }
                            &violation.coverage
                        }
                    };
                    let mut done = done.lock().expect("a thread panicked");
                    done.0 += coverage;
                    done.1 += 1;
                }
            });
        }
    });
    let (coverage, words) = done.into_inner().expect("a thread panicked");
    let worst = worst.into_inner().expect("a thread panicked");
    (coverage, total - words, worst.map(|(_, story)| story))
}

/// The whole of what is asked for by the environment.
#[test]
fn every_state_that_a_power_cut_may_leave_is_recovered() {
    if let Some(word) = setting::<String>("EVERLOG_ENUMERATE_WORD") {
        return one_word(&alphabet::read(&word));
    }
    let wanted = setting("EVERLOG_ENUMERATE_LENGTH").unwrap_or(SLICE.0);
    let begun = Instant::now();
    let seconds: Option<u32> = setting("EVERLOG_SECONDS");
    let grounds = grounds();
    for (n, ground) in (1..).zip(&grounds) {
        let length = ground.length(wanted);
        let started = Instant::now();
        // Each has an equal share of the time; what one does not need the next ones have.
        let share = u32::try_from(grounds.len()).expect("a few");
        let deadline = seconds.map(|all| begun + Duration::from_secs(all.into()) * n / share);
        let (coverage, left_out, violation) = visit_all(*ground, length, deadline);
        println!(
            "figure: enumerate: {}, words of up to {length} letters ({left_out} left out), {coverage}, {} violations, {:.1?}",
            ground.name(),
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
        let oracle = ground.oracle();
        let outcome = match setting("EVERLOG_ENUMERATE_SCRIPT") {
            Some(script) => ground.enumerator().replay(
                &script,
                |disk, ledger| ground.spell(word, true, disk, ledger),
                |crashed| oracle.check(crashed),
            ),
            None => ground
                .visit(word, true)
                .map(|coverage| println!("figure: enumerate: {}: {coverage}", ground.name())),
        };
        if let Err(violation) = outcome {
            panic!("{}", ground.rerun(word, &violation));
        }
    }
}

/// A journal all of whose syncs of one kind do nothing.
fn lying(op: Op, path: &str, disk: &SimFs) -> Arc<dyn everlog::fs::Fs> {
    let fs = FaultFs::new(alphabet::dynamic(disk));
    fs.add(Rule::on(op, Fault::Skip).path(path).forever());
    Arc::new(fs)
}

/// The enumeration is sharp: without syncs it finds something at once.
#[test]
fn a_journal_without_syncs_is_found_out() {
    let lies: [(&str, Between); 3] = [
        ("no file is synced", |disk| lying(Op::SyncData, "", disk)),
        ("no prepared file is synced", |disk| {
            lying(Op::SyncData, ".tmp", disk)
        }),
        ("no directory is synced", |disk| lying(Op::SyncDir, "", disk)),
    ];
    for (what, between) in lies {
        let ground = Ground { between, ..SLICE.1 };
        let (coverage, _, violation) = visit_all(ground, 2, None);
        let violation = violation.unwrap_or_else(|| panic!("{what}, and nothing is found"));
        let first = violation.lines().next().unwrap_or_default();
        println!(
            "figure: enumerate: {what}: found after {} states: {first}",
            coverage.canonical
        );
    }
}

/// Letters do what they are there for.
#[test]
fn short_words_rotate_carry_mark_and_free() {
    let reached = |word: &str, what: fn(&Life<'_>) -> bool| {
        let word = alphabet::read(word);
        let found = Cell::new(false);
        let workload = |disk: &SimFs, ledger: &Ledger<Model>| {
            ledger.pause();
            let ground = SLICE.1;
            let mut life = Life::create(disk, ground.between, ledger, &ground.config(), ground.logs);
            for (position, letter) in word.iter().enumerate() {
                life.perform(*letter, position);
            }
            found.set(what(&life));
        };
        let unvisited = SLICE.1.enumerator().run(workload, |_| Ok(()));
        assert_eq!(unvisited.expect("nothing is checked").canonical, 0);
        found.get()
    };
    let rotates = |life: &Life<'_>| life.metrics().rotations > 0;
    let marks = |life: &Life<'_>| life.metrics().marks > 0;
    let frees = |life: &Life<'_>| life.metrics().segments_freed > 0;
    let carries = |life: &Life<'_>| life.carried() > 0;
    assert!(reached("b", rotates), "a large entry takes the next segment");
    assert!(reached("sss", rotates), "three relaxed writes do");
    assert!(reached("s", marks), "background work writes a mark");
    assert!(
        reached("bbp", frees),
        "a purge of what two large entries filled frees it"
    );
    assert!(
        reached("ar", carries),
        "a process that is killed leaves something to be carried"
    );
    assert!(!reached("r", carries), "one that closes leaves nothing");
}
