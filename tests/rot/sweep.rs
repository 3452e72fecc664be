//! Running many cases: over threads, a part of them, within a time, with a line for each failure that says how to see it again.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::judge::{Judged, Outcome};
use super::loss::{self, Undecidable};

/// What is to be run, from the environment.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Everything, and not the slice of `cargo test`.
    pub(crate) whole: bool,
    /// Only the sweep of this name.
    sweep: Option<String>,
    /// Only subjects whose name contains this.
    subject: Option<String>,
    /// Only the case of this number.
    case: Option<u64>,
    /// Only each n-th part: `k/n`.
    shard: (u64, u64),
    pub(crate) seed: u64,
    until: Option<Instant>,
    threads: usize,
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = text(name)?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}; it should be a number")),
    )
}

impl Settings {
    pub(crate) fn read() -> Settings {
        let asked = text("EVERLOG_ROT");
        let shard = text("EVERLOG_ROT_SHARD").unwrap_or_else(|| "0/1".to_owned());
        let shard = shard
            .split_once('/')
            .and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)))
            .filter(|(k, n)| k < n)
            .unwrap_or_else(|| panic!("EVERLOG_ROT_SHARD is {shard:?}; it should be k/n"));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = number("EVERLOG_THREADS").and_then(|n| usize::try_from(n).ok());
        Settings {
            whole: asked.is_some(),
            sweep: asked.filter(|sweep| sweep != "all"),
            subject: text("EVERLOG_ROT_SUBJECT"),
            case: number("EVERLOG_ROT_CASE"),
            shard,
            seed: number("EVERLOG_SEED").unwrap_or(1),
            until: number("EVERLOG_SECONDS").map(|n| Instant::now() + Duration::from_secs(n)),
            threads: threads.unwrap_or(cores),
        }
    }

    pub(crate) fn wants(&self, sweep: &str) -> bool {
        self.sweep.as_ref().is_none_or(|only| only == sweep)
    }

    pub(crate) fn wants_subject(&self, name: &str) -> bool {
        self.subject
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    }

    /// One case in so many: all when it is run whole.
    pub(crate) fn stride(&self, slice: u64) -> u64 {
        if self.whole { 1 } else { slice }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether this run does the part `n`.
    pub(crate) fn has_part(&self, n: u64) -> bool {
        n % self.shard.1 == self.shard.0
    }

    pub(crate) fn only_case(&self) -> Option<u64> {
        self.case
    }

    /// The same for one of `left` equal pieces of work, of which this is the first: it has its share of the time that is left.
    pub(crate) fn share(&self, left: usize) -> Settings {
        let pieces = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        let now = Instant::now();
        let share = |until: Instant| now + until.saturating_duration_since(now) / pieces;
        Settings {
            until: self.until.map(share),
            ..self.clone()
        }
    }
}

/// What came of the cases of one kind.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cases: u64,
    /// How many cases the whole has.
    pub(crate) of: u64,
    pub(crate) refused: u64,
    pub(crate) read: u64,
    pub(crate) noise: u64,
    pub(crate) harmless: u64,
    pub(crate) same: u64,
    /// Of `harmless`: nothing reads the byte.
    pub(crate) unread: u64,
    pub(crate) lost: BTreeMap<Undecidable, u64>,
    pub(crate) failures: Vec<String>,
    /// The time was over before all was done.
    pub(crate) cut_short: bool,
}

impl Tally {
    pub(crate) fn count(&mut self, outcome: Outcome) {
        self.cases += 1;
        let counter = match outcome {
            Outcome::Same => &mut self.same,
            Outcome::Refused(_) => &mut self.refused,
            Outcome::Read => &mut self.read,
            Outcome::Lost(case) => self.lost.entry(case).or_default(),
            Outcome::Noise => &mut self.noise,
            Outcome::Harmless => &mut self.harmless,
        };
        *counter += 1;
    }

    pub(crate) fn add(&mut self, other: Tally) {
        self.cases += other.cases;
        self.of += other.of;
        self.refused += other.refused;
        self.read += other.read;
        self.noise += other.noise;
        self.harmless += other.harmless;
        self.same += other.same;
        self.unread += other.unread;
        for (case, count) in other.lost {
            *self.lost.entry(case).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.cut_short |= other.cut_short;
    }

    pub(crate) fn undecidable(&self) -> String {
        let rows = loss::ALL
            .iter()
            .map(|case| format!("{} {}", self.lost.get(case).unwrap_or(&0), case.name()));
        rows.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} cases, {} refused, {} told by a read, {} harmless ({} of them never read), {} cut nothing that counted, {} \
             changed nothing, undecidable: {}; {} failures{}",
            self.cases,
            self.of,
            self.refused,
            self.read,
            self.harmless,
            self.unread,
            self.noise,
            self.same,
            self.undecidable(),
            self.failures.len(),
            if self.cut_short {
                ", cut short by the time"
            } else {
                ""
            }
        )
    }
}

/// A share of the work that one thread does in one go, and what it counted. Parts of a sweep are independent.
pub(crate) type Part<'a> = dyn Fn(u64, &mut Tally) + Sync + 'a;

/// Runs the parts `0..count` on all threads, in an order in which those of any stretch of time are spread over all.
pub(crate) fn parts(settings: &Settings, count: u64, part: &Part<'_>) -> Tally {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    let work = || {
        let mut tally = Tally::default();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count || tally.failures.len() >= FAILURES_MAX {
                break;
            }
            if settings.is_over() {
                tally.cut_short = true;
                break;
            }
            if settings.has_part(n) {
                part(n * STEP % count, &mut tally);
            }
        }
        total.lock().unwrap().add(tally);
    };
    std::thread::scope(|scope| {
        for _ in 0..settings.threads {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap()
}

/// A prime above every number of parts, so that a multiple of it meets each part once.
const STEP: u64 = 4_294_967_291;

/// More are not looked for.
const FAILURES_MAX: usize = 8;

/// Runs one case, and notes a failure or a panic.
pub(crate) fn case(tally: &mut Tally, story: &dyn Fn() -> String, run: &dyn Fn() -> Judged<Outcome>) {
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it panicked".to_owned()));
    match outcome {
        Ok(outcome) => tally.count(outcome),
        Err(what) => tally.failures.push(format!("{}\n  {what}", story())),
    }
}
