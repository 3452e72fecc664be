//! Opening a journal of 256 MiB, beside a sequential read with CRC of the same bytes; both from a warm cache.
//! `sealed`: segments of the default size with their indexes, so only the last is read in full. `verify`: the same, and
//! every payload read. `unsealed`: one segment that holds everything, the most that recovery can ever have to replay.

use std::hint::black_box;
use std::time::Duration;

use common::scan::{read_and_crc, time_open};
use common::{Payloads, area, ever};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use everlog::Config;

#[expect(dead_code, reason = "each bench needs a part of it")]
mod common;

const BYTES: u64 = 256 << 20;

fn recovery(criterion: &mut Criterion) {
    let payloads = Payloads::new(1 << 10);
    let sealed = area();
    ever::fill(sealed.path(), Config::new(), BYTES, &payloads);
    let one_segment = Config::new().segment_bytes(320 << 20);
    let unsealed = area();
    ever::fill(unsealed.path(), one_segment.clone(), BYTES, &payloads);

    let mut group = criterion.benchmark_group("recovery");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .throughput(Throughput::Bytes(BYTES));
    group.bench_function("floor_read_crc", |bencher| {
        bencher.iter(|| black_box(read_and_crc(sealed.path(), BYTES)));
    });
    let cases = [
        ("open_sealed", &sealed, Config::new()),
        ("open_sealed_verify", &sealed, Config::new().verify_on_open(true)),
        ("open_unsealed", &unsealed, one_segment),
    ];
    for (name, dir, config) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| time_open(dir.path(), &config)).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
