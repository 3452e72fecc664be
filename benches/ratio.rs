//! The figures that are quoted: everlog as a ratio to a floor of the same run. Floor and everlog take turns in slices of
//! half a second, so that the noise of a shared machine hits both; each ratio is the median over the pairs of slices, with
//! the lowest and the highest beside it.
//!
//! `cargo bench --bench ratio`, or with a number of pairs per row: `cargo bench --bench ratio -- 20`.

use std::time::{Duration, Instant};

use common::ever::{self, Ever, Promise};
use common::floor::{Batcher, Serial};
use common::scan::{read_and_crc, time_open};
use common::{Appender, Payloads, SIZES, THREADS, area, rate_of};
use everlog::Config;

#[expect(dead_code, reason = "each bench needs a part of it")]
mod common;

const SLICE: Duration = Duration::from_millis(500);
const PAIRS_DEFAULT: usize = 6;
const RECOVERY_BYTES: u64 = 256 << 20;

fn main() {
    // Without --bench it was started by a run of tests, which has no use for figures.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let pairs = arguments.iter().find_map(|argument| argument.parse().ok());
    let pairs = pairs.unwrap_or(PAIRS_DEFAULT).max(1);

    println!("rates: per second; ratio: everlog / floor, median of {pairs} pairs (lowest to highest)\n");
    println!("{:<34} {:>12} {:>12}   ratio", "", "floor", "everlog");
    for size in SIZES {
        for threads in THREADS {
            durable(threads, size, pairs);
        }
    }
    for size in SIZES {
        relaxed(size, pairs);
    }
    recovery(pairs);
}

/// One writer is measured against one write and sync for each entry, many against the ideal batcher.
fn durable(threads: usize, size: usize, pairs: usize) {
    let name = format!("durable {size} B x {threads}");
    let to = Ever::new(Promise::Durable);
    match threads {
        1 => appends(&name, threads, size, pairs, (&Serial::durable(), &to)),
        _ => appends(&name, threads, size, pairs, (&Batcher::new(), &to)),
    }
}

fn relaxed(size: usize, pairs: usize) {
    let name = format!("relaxed {size} B x 1");
    appends(
        &name,
        1,
        size,
        pairs,
        (&Serial::relaxed(), &Ever::new(Promise::Relaxed)),
    );
}

fn appends<A: Appender>(name: &str, threads: usize, size: usize, pairs: usize, (floor, to): (&A, &Ever)) {
    let payloads = Payloads::new(size);
    let warm_up = SLICE / 5;
    rate_of(floor, threads, warm_up, &payloads);
    rate_of(to, threads, warm_up, &payloads);
    take_turns(
        name,
        pairs,
        || rate_of(floor, threads, SLICE, &payloads),
        || rate_of(to, threads, SLICE, &payloads),
    );
}

/// Rates are MiB of payload a second.
fn recovery(pairs: usize) {
    let payloads = Payloads::new(1 << 10);
    let unsealed = Config::new().segment_bytes(320 << 20);
    let cases = [
        ("open MiB/s, sealed", Config::new(), Config::new()),
        (
            "open MiB/s, sealed, verify_on_open",
            Config::new(),
            Config::new().verify_on_open(true),
        ),
        ("open MiB/s, all unsealed", unsealed.clone(), unsealed),
    ];
    for (name, filled, opened) in cases {
        let dir = area();
        ever::fill(dir.path(), filled, RECOVERY_BYTES, &payloads);
        let floor = || {
            let start = Instant::now();
            std::hint::black_box(read_and_crc(dir.path(), RECOVERY_BYTES));
            start.elapsed()
        };
        let open = || time_open(dir.path(), &opened);
        floor();
        open();
        take_turns(name, pairs, || mib_rate(floor()), || mib_rate(open()));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn mib_rate(elapsed: Duration) -> f64 {
    (RECOVERY_BYTES >> 20) as f64 / elapsed.as_secs_f64()
}

/// Measures floor and everlog in pairs, the first of a pair changing, and prints the row.
fn take_turns(name: &str, pairs: usize, floor: impl Fn() -> f64, everlog: impl Fn() -> f64) {
    let (mut floors, mut rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        let (below, ours) = if pair % 2 == 0 {
            let below = floor();
            (below, everlog())
        } else {
            let ours = everlog();
            (floor(), ours)
        };
        floors.push(below);
        rates.push(ours);
        ratios.push(ours / below);
    }
    for figures in [&mut floors, &mut rates, &mut ratios] {
        figures.sort_by(f64::total_cmp);
    }
    let median = |sorted: &[f64]| f64::midpoint(sorted[sorted.len() / 2], sorted[(sorted.len() - 1) / 2]);
    println!(
        "{name:<34} {:>12.0} {:>12.0}   {:.2} ({:.2} to {:.2})",
        median(&floors),
        median(&rates),
        median(&ratios),
        ratios[0],
        ratios[ratios.len() - 1],
    );
}
