//! Crashes at any point of random workloads, on the simulated disk, against a model.
//!
//! What recovery finds must be the model after some prefix of the writes that were issued, in the order in which they were
//! sequenced, each whole; at least as long as what was acknowledged; with exactly the right bytes, terms, bounds, purged ids, cells
//! and logs. It must be found again by the next opening, and the journal must go on from there. Crashes come between any two
//! calls to the disk, inside recovery too; calls fail; the disk fills up.
//!
//! `EVERLOG_CRASH_STATES=100000` runs so many states, `EVERLOG_SECONDS=600` as many as there is time for (scripts/crash-campaign sets
//! them), `EVERLOG_SEED=n` one workload.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use everlog::fs::SimFs;
use explore::Explorer;
use tally::Tally;

mod cases;
mod choose;
mod explore;
mod growth;
mod life;
#[path = "../support/model.rs"]
mod model;
mod probe;
#[path = "../support/random.rs"]
mod random;
mod tally;
mod timeline;

const STATES: u64 = 12_000;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}; it should be a number")),
    )
}

#[test]
fn what_a_crash_leaves_is_a_prefix_of_what_was_issued() {
    let tally = Tally::default();
    if let Some(seed) = setting("EVERLOG_SEED") {
        assert!(workload(seed, &tally), "seed {seed} failed");
        println!("{tally}");
        return;
    }
    let seconds = setting("EVERLOG_SECONDS");
    let unasked = if seconds.is_some() { u64::MAX } else { STATES };
    let states = setting("EVERLOG_CRASH_STATES").unwrap_or(unasked);
    let next = AtomicU64::new(setting("EVERLOG_FIRST_SEED").unwrap_or(1));
    let failed = AtomicBool::new(false);
    let started = Instant::now();
    let in_time = || seconds.is_none_or(|limit| started.elapsed().as_secs() < limit);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while tally.states.get() < states && in_time() && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !workload(seed, &tally) {
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!("{tally}in {:?} on {threads} threads", started.elapsed());
    assert!(!failed.load(Ordering::Relaxed), "see above");
    println!("{}", tally.figure());
    // Fewer states than the slice has cannot reach everything.
    if tally.states.get() >= STATES {
        assert!(tally.missing().is_empty(), "never reached: {:?}", tally.missing());
    }
}

/// Prints what stands on `disk`.
fn show(disk: &SimFs) {
    println!("the last crash left {:#?}", disk.files());
    let shown = everlog::inspect::dump_on(Arc::new(disk.clone()), None, &mut |item| {
        println!("  {item:?}");
        Ok(())
    });
    println!("{shown:?}");
}

/// Runs the workload of `seed`; false if it failed, and then it says how.
fn workload(seed: u64, tally: &Tally) -> bool {
    let mut explorer = Explorer::new(seed, tally);
    let outcome = catch_unwind(AssertUnwindSafe(|| explorer.run(seed)));
    if outcome.is_err() {
        let trace = explorer.trace.join("\n  ");
        println!("seed {seed} failed after\n  {trace}");
        if let Some(disk) = explorer.left {
            show(&disk);
        }
        println!("rerun: EVERLOG_SEED={seed} cargo test --test crash -- --nocapture");
    }
    outcome.is_ok()
}
