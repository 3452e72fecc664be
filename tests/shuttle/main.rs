//! The whole journal under shuttle: its threads, several writers, callbacks, permits, purges and readers, on the simulated disk,
//! in schedules that are chosen by a seed. A schedule goes wrong if somebody waits for ever, if locks are taken in two
//! orders, if a promise is broken while the journal is open, or if what a power cut leaves, in the middle or at the end, is not
//! what some prefix of the writes, in the order in which they were sequenced, would leave.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --release --test shuttle -- --nocapture      (scripts/shuttle does)
//! ```
//!
//! `EVERLOG_SECONDS=n` runs schedules for so long (default 30), `EVERLOG_SCHEDULES=n` at most so many, `EVERLOG_SEED=n` one.
#![cfg(shuttle)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scheduler::{Seeded, Told};
use talk::{Tail, Talk};

mod actor;
mod judge;
#[path = "../support/model.rs"]
mod model;
#[path = "../support/random.rs"]
mod random;
mod scheduler;
mod story;
mod talk;
mod world;

const SECONDS: u64 = 30;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}; it should be a number")),
    )
}

/// Runs a schedule for each seed that `next` gives; false if one failed, and then it says which.
fn schedules(told: &Arc<Told>, next: Box<dyn FnMut() -> Option<u64> + Send>) -> bool {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 << 10;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    config.silence_warnings = true;
    let runner = shuttle::Runner::new(Seeded::new(next, told.clone()), config);
    let current = told.clone();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || story::run(current.seed.load(Ordering::Relaxed)));
    }));
    if ran.is_err() {
        let seed = told.seed.load(Ordering::Relaxed);
        println!("the schedule of seed {seed} failed; rerun: EVERLOG_SEED={seed} scripts/shuttle");
    }
    ran.is_ok()
}

/// Runs the schedule of `seed`, and tells what happens.
fn one(seed: u64) {
    let tail = Tail::default();
    let told = Told {
        tail: Some(tail.clone()),
        ..Told::default()
    };
    let mut seeds = std::iter::once(seed);
    let kept = tracing::subscriber::with_default(Talk, || {
        schedules(&Arc::new(told), Box::new(move || seeds.next()))
    });
    if !kept {
        tail.print();
    }
    assert!(kept, "seed {seed}");
}

#[test]
fn every_schedule_keeps_its_promises() {
    if let Some(seed) = setting("EVERLOG_SEED") {
        one(seed);
        return;
    }
    let limit = setting("EVERLOG_SCHEDULES").unwrap_or(u64::MAX);
    let seconds = Duration::from_secs(setting("EVERLOG_SECONDS").unwrap_or(SECONDS));
    let first = setting("EVERLOG_FIRST_SEED").unwrap_or(1);
    let (next, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let run = || {
        let (next, ends) = (next.clone(), failed.clone());
        let told = Arc::new(Told::default());
        let seeds = move || {
            let more = started.elapsed() < seconds && !ends.load(Ordering::Relaxed);
            let number = more.then(|| next.fetch_add(1, Ordering::Relaxed))?;
            (number < limit).then_some(first + number)
        };
        if !schedules(&told, Box::new(seeds)) {
            failed.store(true, Ordering::Relaxed);
        }
        told.steps.load(Ordering::Relaxed)
    };
    let steps: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("caught above"))
            .sum()
    });
    let count = next.load(Ordering::Relaxed).min(limit);
    assert!(!failed.load(Ordering::Relaxed), "see above");
    println!(
        "figure: shuttle: {count} schedules, {steps} steps, 0 failures, {} threads, {} s, seeds from {first} on",
        threads,
        started.elapsed().as_secs()
    );
}

/// Otherwise a seed would not bring a failure back.
#[test]
fn a_seed_always_gives_the_same_schedule() {
    for seed in 1..20 {
        let traces = [0, 1].map(|_| {
            let told = Arc::new(Told::default());
            let mut seeds = std::iter::once(seed);
            assert!(schedules(&told, Box::new(move || seeds.next())), "seed {seed}");
            (
                told.steps.load(Ordering::Relaxed),
                told.trace.load(Ordering::Relaxed),
            )
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
