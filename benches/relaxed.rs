//! Relaxed appends (given to the system on return, synced every 8 MiB or 100 ms), beside a plain `pwrite` with an
//! `fdatasync` every 8 MiB.

use std::cell::LazyCell;
use std::time::Duration;

use common::ever::{Ever, Promise};
use common::floor::Serial;
use common::{Appender, Payloads, SIZES, time_appends};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

#[expect(dead_code, reason = "each bench needs a part of it")]
mod common;

fn relaxed(criterion: &mut Criterion) {
    contender(criterion, "floor_raw", Serial::relaxed);
    contender(criterion, "everlog", || Ever::new(Promise::Relaxed));
}

fn contender<A: Appender>(criterion: &mut Criterion, name: &str, make: impl Fn() -> A) {
    let mut group = criterion.benchmark_group(format!("relaxed/{name}"));
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for size in SIZES {
        let payloads = Payloads::new(size);
        group.throughput(Throughput::Elements(1));
        for threads in [1, 8] {
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

criterion_group!(benches, relaxed);
criterion_main!(benches);
