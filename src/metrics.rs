//! What the journal counts. Counters are written by the code they count and read by nobody but the caller of
//! `Journal::metrics`; nothing is decided by them.

use std::fmt;
use std::time::Duration;

use crate::sync::plain::{AtomicU64, Ordering};

/// Latencies in buckets that are at most 1/16 wide (so percentiles are exact to 6.25 %, always upwards), from nanoseconds
/// to 73 minutes; longer ones count as that, except in [`max`](Histogram::max) and [`sum`](Histogram::sum).
#[derive(Clone, Default)]
pub struct Histogram {
    /// Empty if nothing was recorded.
    counts: Vec<u64>,
    count: u64,
    sum_nanos: u64,
    max_nanos: u64,
}

impl Histogram {
    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// The longest; zero if there are none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// The time that `percent` of 100 (99.9, say) did not exceed; zero if there are none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rank need not be exact beyond 2^53")]
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = percent / 100.0 * self.count as f64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= rank {
                return Duration::from_nanos(bucket_end(bucket).min(self.max_nanos));
            }
        }
        self.max()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("p50", &self.percentile(50.0))
            .field("p99", &self.percentile(99.0))
            .field("p999", &self.percentile(99.9))
            .field("max", &self.max())
            .finish()
    }
}

/// Records into a [`Histogram`] without a lock.
pub(crate) struct Recorder {
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
    max_nanos: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_nanos: AtomicU64::new(0),
            max_nanos: AtomicU64::new(0),
        }
    }
}

impl Recorder {
    pub(crate) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        // Looked at first, as it seldom grows and the line is shared by all who record.
        if nanos > self.max_nanos.load(Ordering::Relaxed) {
            self.max_nanos.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// What was recorded so far; what is recorded meanwhile is in it in part.
    pub(crate) fn snapshot(&self) -> Histogram {
        let counts: Vec<u64> = self.counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        Histogram {
            count: counts.iter().sum(),
            counts,
            sum_nanos: self.sum_nanos.load(Ordering::Relaxed),
            max_nanos: self.max_nanos.load(Ordering::Relaxed),
        }
    }
}

/// Something that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    #[cfg(feature = "snapshot")]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One list for the public struct and for the counters behind it, so that neither can lack what the other has.
macro_rules! metrics {
    (
        counters { $($(#[doc = $counter_doc:literal])+ $counter:ident,)+ }
        stages { $($(#[doc = $stage_doc:literal])+ $stage:ident,)+ }
    ) => {
        /// What a journal did since it was opened, as of one moment (counts that change together may be one apart).
        #[derive(Clone, Debug, Default)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[doc = $counter_doc])+ pub $counter: u64,)+
            /// Bytes submitted and not yet synced: now, not since opening.
            pub in_flight_bytes: u64,
            $($(#[doc = $stage_doc])+ pub $stage: Histogram,)+
        }

        /// What the journal writes to; see [`Metrics`] for the meaning of each.
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $counter: Counter,)+
            $(pub(crate) $stage: Recorder,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self, in_flight_bytes: u64) -> Metrics {
                Metrics {
                    $($counter: self.$counter.0.load(Ordering::Relaxed),)+
                    in_flight_bytes,
                    $($stage: self.$stage.snapshot(),)+
                }
            }
        }
    };
}

metrics! {
    counters {
        /// Writes (`WriteBatch`es) accepted.
        writes,
        /// Entries appended.
        entries,
        /// Bytes of payload accepted.
        bytes_payload,
        /// Batches written: one per commit.
        batches,
        /// Bytes written to segments, headers and padding included.
        bytes_written,
        /// Syncs of segments.
        syncs,
        /// Syncs that had not returned after 5 s; each was an event, too.
        syncs_hung,
        /// Segments that this life filled and followed by the next one.
        rotations,
        /// Failed files whose unsynced bytes were saved into a fresh segment.
        rehomings,
        /// Marks written when idle or at closing.
        marks,
        /// Bytes carried over from the life before, at opening.
        carried_bytes,
        /// Syncs made for relaxed writes alone.
        relaxed_syncs,
        /// Segments freed below the purged part.
        segments_freed,
        /// Appends refused because the disk was full.
        appends_refused_no_space,
        /// Entries read. Cells are in memory.
        reads,
        /// Bytes of payload read.
        read_bytes,
    }
    stages {
        /// From submitting a write until its flush begins.
        queue,
        /// Putting a batch together.
        encode,
        /// Writing a batch.
        write,
        /// Syncing it.
        sync,
        /// From the end of a flush until a blocked waiter runs again.
        wake,
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min(NANOS_MAX);
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BITS + 1);
    let sub = usize::try_from(nanos >> shift).expect("below 2 * SUB");
    // From the first doubling on the leading bit is always set: `sub` is from SUB to 2 * SUB.
    shift as usize * SUB + sub
}

/// The largest value in a bucket.
fn bucket_end(bucket: usize) -> u64 {
    if bucket < 2 * SUB {
        return bucket as u64;
    }
    let shift = bucket / SUB - 1;
    let sub = (bucket % SUB + SUB) as u64;
    ((sub + 1) << shift) - 1
}

/// Each doubling has `1 << SUB_BITS` buckets.
const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
/// About 73 minutes.
const NANOS_MAX: u64 = (1 << 42) - 1;
const BUCKETS: usize = (42 - SUB_BITS as usize + 1) * SUB;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::time::Duration;

    use super::{BUCKETS, Counters, NANOS_MAX, Recorder, bucket, bucket_end};

    #[test]
    fn buckets_tile_all_values_and_are_narrow() {
        let mut start = 0;
        for b in 0..BUCKETS {
            let end = bucket_end(b);
            assert_eq!((bucket(start), bucket(end)), (b, b), "{start}..={end}");
            assert!(end - start <= start / 16, "{start}..={end} is too wide");
            start = end + 1;
        }
        assert_eq!(start - 1, NANOS_MAX);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_never_below_the_truth_and_never_above_the_maximum() {
        let recorder = Recorder::default();
        for micros in 1..=1000 {
            recorder.record(Duration::from_micros(micros));
        }
        let histogram = recorder.snapshot();
        assert_eq!(histogram.count(), 1000);
        assert_eq!(histogram.sum(), Duration::from_micros(500_500));
        assert_eq!(histogram.max(), Duration::from_millis(1));
        assert_eq!(histogram.percentile(100.0), Duration::from_millis(1));
        for (percent, micros) in [(0.0, 1), (0.1, 1), (50.0, 500), (99.0, 990), (99.9, 999)] {
            let found = histogram.percentile(percent).as_nanos() as f64 / 1000.0;
            let truth = f64::from(micros);
            assert!(
                found >= truth && found <= truth * 1.0625,
                "p{percent}: {found} for {truth}"
            );
        }
    }

    #[test]
    fn an_empty_histogram_is_zero_and_odd_percentiles_do_not_panic() {
        let recorder = Recorder::default();
        assert_eq!(recorder.snapshot().percentile(50.0), Duration::ZERO);
        recorder.record(Duration::from_secs(1 << 40));
        for percent in [-1.0, f64::NAN, 1000.0, f64::INFINITY] {
            assert!(recorder.snapshot().percentile(percent) > Duration::ZERO);
        }
    }

    #[test]
    fn a_snapshot_shows_what_was_counted() {
        let counters = Counters::default();
        counters.writes.add(2);
        counters.sync.record(Duration::from_micros(3));
        let metrics = counters.snapshot(9);
        assert_eq!(
            (metrics.writes, metrics.entries, metrics.in_flight_bytes),
            (2, 0, 9)
        );
        assert_eq!((metrics.sync.count(), metrics.wake.count()), (1, 0));
    }
}
