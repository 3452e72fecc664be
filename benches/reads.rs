//! Reads of 1 KiB entries from a closed and reopened journal of 64 MiB, at random and in order, beside a `pread` with CRC
//! at random places and a sequential read with CRC; all from a warm cache.

use std::hint::black_box;
use std::time::Duration;

use common::scan::{Places, read_and_crc};
use common::{Payloads, Random, area, ever};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use everlog::{Config, Journal};

#[expect(dead_code, reason = "each bench needs a part of it")]
mod common;

const BYTES: u64 = 64 << 20;
const SIZE: usize = 1 << 10;

fn reads(criterion: &mut Criterion) {
    let dir = area();
    let config = Config::new().segment_bytes(16 << 20);
    let count = ever::fill(dir.path(), config.clone(), BYTES, &Payloads::new(SIZE));
    let journal = Journal::open(dir.path(), config).expect("the journal opens");
    let log = journal.log(ever::KEY).expect("the log is there");

    let mut group = criterion.benchmark_group("reads/random");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .throughput(Throughput::Bytes(SIZE as u64));
    let mut places = Places::new(dir.path(), SIZE);
    group.bench_function("floor_pread_crc", |bencher| {
        bencher.iter(|| black_box(places.read()));
    });
    let mut random = Random(11);
    group.bench_function("get", |bencher| {
        bencher.iter(|| log.get(random.below(count)).expect("the entry is there"));
    });
    group.finish();

    let mut group = criterion.benchmark_group("reads/sequential");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .throughput(Throughput::Bytes(BYTES));
    group.bench_function("floor_read_crc", |bencher| {
        bencher.iter(|| black_box(read_and_crc(dir.path(), BYTES)));
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            for entry in log.read(0..count) {
                black_box(entry.expect("the entry verifies"));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, reads);
criterion_main!(benches);
