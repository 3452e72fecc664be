//! What the benches share: a place on a real disk, payloads that do not compress, threads that start together, and the
//! contenders: the floors ([`floor`]) and everlog itself ([`ever`]).

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) mod ever;
pub(crate) mod floor;
pub(crate) mod scan;

/// Sizes of payloads that are measured, in bytes.
pub(crate) const SIZES: [usize; 3] = [128, 1 << 10, 16 << 10];

/// Numbers of threads that are measured.
pub(crate) const THREADS: [usize; 3] = [1, 8, 64];

/// Something that makes a payload durable, or gives it to the system, before it returns.
pub(crate) trait Appender: Sync {
    fn append(&self, payload: &[u8]);

    /// Forgets what was appended, so that a long run does not fill the disk. Not measured.
    fn settle(&self) {}
}

/// A directory under the target directory (a real disk, where `/tmp` may be memory), removed when dropped.
pub(crate) fn area() -> TempDir {
    tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("the target directory takes a directory")
}

/// Payloads of one size that do not compress: windows onto random bytes.
pub(crate) struct Payloads {
    bytes: Vec<u8>,
    size: usize,
}

impl Payloads {
    const WINDOWS: usize = 4096;

    pub(crate) fn new(size: usize) -> Payloads {
        let mut random = Random(0x5eed);
        let words = (size + Payloads::WINDOWS).div_ceil(8);
        Payloads {
            bytes: (0..words).flat_map(|_| random.next().to_le_bytes()).collect(),
            size,
        }
    }

    pub(crate) fn get(&self, number: usize) -> &[u8] {
        let at = number.wrapping_mul(509) % Payloads::WINDOWS;
        &self.bytes[at..at + self.size]
    }
}

/// SplitMix64: seeded, so that two runs do the same.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Wall time of `total` appends by `threads` threads that start together.
pub(crate) fn time_appends(to: &impl Appender, threads: usize, total: u64, payloads: &Payloads) -> Duration {
    let left = AtomicU64::new(total);
    let claim = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
    };
    let elapsed = run(to, threads, payloads, claim).1;
    to.settle();
    elapsed
}

/// Appends by `threads` threads for about `slice`: how many a second.
pub(crate) fn rate_of(to: &impl Appender, threads: usize, slice: Duration, payloads: &Payloads) -> f64 {
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let go_on = || {
        if start.elapsed() >= slice {
            over.store(true, Ordering::Relaxed);
        }
        !over.load(Ordering::Relaxed)
    };
    let (appends, elapsed) = run(to, threads, payloads, go_on);
    to.settle();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let appends = appends as f64;
    appends / elapsed.as_secs_f64()
}

/// Lets `threads` threads append as long as `go_on` says so; how many appends, and the wall time.
fn run(
    to: &impl Appender,
    threads: usize,
    payloads: &Payloads,
    go_on: impl Fn() -> bool + Sync,
) -> (u64, Duration) {
    let start = Barrier::new(threads + 1);
    let done = AtomicU64::new(0);
    let begun = std::thread::scope(|scope| {
        for thread in 0..threads {
            let (start, done, go_on) = (&start, &done, &go_on);
            scope.spawn(move || {
                let mut count = 0;
                let mut number = thread * 61;
                start.wait();
                while go_on() {
                    to.append(payloads.get(number));
                    number += 1;
                    count += 1;
                }
                done.fetch_add(count, Ordering::Relaxed);
            });
        }
        start.wait();
        Instant::now()
    });
    (done.into_inner(), begun.elapsed())
}
