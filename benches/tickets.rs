//! Pipelined submits: one thread keeps so many tickets open and waits for the oldest, beside one durable append at a time.

use std::cell::LazyCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::ever::{Ever, Promise};
use common::{Appender, Payloads, SIZES};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

#[expect(dead_code, reason = "each bench needs a part of it")]
mod common;

fn tickets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tickets");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for size in SIZES {
        let payloads = Payloads::new(size);
        group.throughput(Throughput::Elements(1));
        for window in [1, 16, 256] {
            let to = LazyCell::new(|| Ever::new(Promise::Durable));
            let id = BenchmarkId::new(format!("window_{window}"), size);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|submits| time_submits(&to, window, submits, &payloads));
            });
        }
    }
    group.finish();
}

fn time_submits(to: &Ever, window: usize, submits: u64, payloads: &Payloads) -> Duration {
    let mut open = VecDeque::with_capacity(window);
    let submits = usize::try_from(submits).expect("a count that fits");
    let start = Instant::now();
    for number in 0..submits {
        if open.len() == window {
            wait_for_oldest(&mut open);
        }
        open.push_back(
            to.log
                .submit(payloads.get(number))
                .expect("the journal takes a submit"),
        );
    }
    while !open.is_empty() {
        wait_for_oldest(&mut open);
    }
    let elapsed = start.elapsed();
    to.settle();
    elapsed
}

fn wait_for_oldest(open: &mut VecDeque<everlog::Ticket<everlog::EntryId>>) {
    let oldest = open.pop_front().expect("a ticket is open");
    oldest.wait().expect("the entry is durable");
}

criterion_group!(benches, tickets);
criterion_main!(benches);
