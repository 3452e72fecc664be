//! Durable appends: threads x size, beside the two floors. Time is wall time of one append, all threads together. For the
//! ratios that are quoted, run `cargo bench --bench ratio`, which interleaves floor and everlog.

use std::cell::LazyCell;
use std::time::Duration;

use common::ever::{Ever, Promise};
use common::floor::{Batcher, Serial};
use common::{Appender, Payloads, SIZES, THREADS, time_appends};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

#[expect(dead_code, reason = "each bench needs a part of it")]
mod common;

fn durable(criterion: &mut Criterion) {
    contender(criterion, "floor_raw1", Serial::durable);
    contender(criterion, "floor_rawN", Batcher::new);
    contender(criterion, "everlog", || Ever::new(Promise::Durable));
}

fn contender<A: Appender>(criterion: &mut Criterion, name: &str, make: impl Fn() -> A) {
    let mut group = criterion.benchmark_group(format!("durable/{name}"));
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    for size in SIZES {
        let payloads = Payloads::new(size);
        group.throughput(Throughput::Elements(1));
        for threads in THREADS {
            // Only made when the benchmark is not filtered out.
            let to = LazyCell::new(&make);
            let id = BenchmarkId::new(format!("{threads}_threads"), size);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|appends| time_appends(&*to, threads, appends, &payloads));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, durable);
criterion_main!(benches);
