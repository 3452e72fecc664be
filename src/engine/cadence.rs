//! When a checkpoint is due. No clock and no I/O: time comes in as an argument, as the time since some moment before the engine was opened.
//!
//! ```text
//! predicted restart = bytes of the newest snapshot / restore rate  +  cost of the tail
//! cost of the tail  = the larger of: what applying took when it was applied, and reading at a slow disk's rate;
//!                                    entries and bytes at the rate that the last replay had
//! ```
//!
//! A checkpoint is due by the budget when the tail has used up half of what restoring leaves of it: the other half is for what comes while the
//! checkpoint runs. It leaves the disk to others most of the time until but a quarter is left, until the tail is four times as long as makes
//! a checkpoint due, until as many bytes were applied meanwhile as the state has, or until the next one is due, and then it hurries. After one
//! that took T, without its rests, none begins for 3 T: they are at work for a quarter of the time at most.

use std::time::Duration;

/// Limits that were set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) restart_within: Option<Duration>,
    pub(super) bytes: Option<u64>,
    pub(super) entries: Option<u64>,
}

/// What stands in the log behind the newest snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// How long the machine took to apply them.
    pub(super) apply: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    Checkpoint,
    /// A checkpoint is due, and may begin at this time.
    Wait(Duration),
}

#[derive(Debug)]
pub(super) struct Cadence {
    limits: Limits,
    tail: Tail,
    /// Bytes of the newest snapshot.
    state_bytes: u64,
    /// Nanoseconds for a byte of a snapshot.
    restore_cost: f64,
    /// Nanoseconds for an entry and for a byte of one, by the last replay that was long enough.
    replay_cost: Option<(f64, f64)>,
    rests_until: Duration,
    running: bool,
    /// It has its snapshot, and frees what that made needless: another one may be due, and cannot begin.
    ending: bool,
    /// The tail when the checkpoint that runs captured the state.
    begun: Tail,
    unattainable: bool,
    warnings: u64,
}

/// Until a restore was measured: 100 MB/s.
const RESTORE_COST: f64 = 10.0;
/// Reading entries, from a disk that gives 200 MB/s.
const READ_COST_ENTRY: f64 = 500.0;
const READ_COST_BYTE: f64 = 5.0;
/// Below it a replay or a restore says little about the next.
const MEASURED_FROM: Duration = Duration::from_millis(1);
/// After a checkpoint that failed the next one waits at least so long: a full disk is not helped by trying.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(10);
/// So many bytes may be applied while a checkpoint runs, however small the state is.
const MEANWHILE_MIN: u64 = 64 << 20;
/// A log that is so many times as long as makes a checkpoint due is long.
const LONG: u64 = 4;
/// Rest for each unit of time that a checkpoint took.
const REST: u32 = 3;

impl Cadence {
    pub(super) fn new(limits: Limits) -> Cadence {
        Cadence {
            limits,
            tail: Tail::default(),
            state_bytes: 0,
            restore_cost: RESTORE_COST,
            replay_cost: None,
            rests_until: Duration::ZERO,
            running: false,
            ending: false,
            begun: Tail::default(),
            unattainable: false,
            warnings: 0,
        }
    }

    /// A snapshot of so many bytes was restored in `took`.
    pub(super) fn restored(&mut self, bytes: u64, took: Duration) {
        self.state_bytes = bytes;
        if took >= MEASURED_FROM && bytes > 0 {
            self.restore_cost = nanos(took) / bytes as f64;
        }
    }

    /// The tail was replayed in `took`.
    pub(super) fn replayed(&mut self, entries: u64, bytes: u64, took: Duration) {
        self.tail = Tail {
            entries,
            bytes,
            apply: took,
        };
        if took >= MEASURED_FROM && entries > 0 {
            self.replay_cost = Some((nanos(took) / entries as f64, nanos(took) / bytes.max(1) as f64));
        }
    }

    /// So much was applied more.
    pub(super) fn applied(&mut self, more: Tail) {
        self.tail.entries += more.entries;
        self.tail.bytes += more.bytes;
        self.tail.apply += more.apply;
    }

    pub(super) fn tail(&self) -> Tail {
        self.tail
    }

    fn restore_time(&self) -> Duration {
        duration(self.restore_cost * self.state_bytes as f64)
    }

    fn tail_time(&self) -> Duration {
        let (entries, bytes) = (self.tail.entries as f64, self.tail.bytes as f64);
        let live = nanos(self.tail.apply) + entries * READ_COST_ENTRY + bytes * READ_COST_BYTE;
        let measured = self
            .replay_cost
            .map_or(0.0, |(entry, byte)| (entries * entry).max(bytes * byte));
        duration(live.max(measured))
    }

    /// How long a restart would take.
    pub(super) fn predicted(&self) -> Duration {
        self.restore_time() + self.tail_time()
    }

    fn is_due(&self) -> bool {
        if self.tail.entries == 0 {
            return false;
        }
        self.used_up(2) || self.is_longer(1)
    }

    /// Whether the tail has so many times the entries or bytes that make a checkpoint due.
    fn is_longer(&self, times: u64) -> bool {
        let Tail { entries, bytes, .. } = self.tail;
        let reached =
            |of: u64, limit: Option<u64>| limit.is_some_and(|limit| of >= limit.saturating_mul(times));
        reached(entries, self.limits.entries) || reached(bytes, self.limits.bytes)
    }

    /// Whether the tail has used up so many quarters of what restoring leaves of the budget.
    fn used_up(&self, quarters: u32) -> bool {
        self.limits.restart_within.is_some_and(|budget| {
            let restore = self.restore_time();
            // Where restoring alone breaks the budget, the tail may cost as much again: more checkpoints would not help.
            let left = budget.checked_sub(restore);
            self.tail_time() >= left.map_or(restore, |left| left / 4 * quarters)
        })
    }

    /// Whether a checkpoint that runs must be through soon, whoever waits for the disk: what is applied meanwhile comes near the budget, makes the
    /// log long, or may have replaced all of the state, which is then in memory twice; or the next one is due.
    pub(super) fn hurries(&self) -> bool {
        let meanwhile = self.tail.bytes.saturating_sub(self.begun.bytes);
        let others_wait = self.ending && self.is_due();
        others_wait
            || self.used_up(3)
            || self.is_longer(LONG)
            || meanwhile >= self.state_bytes.max(MEANWHILE_MIN)
    }

    /// What to do at `now`.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        let due = self.is_due();
        self.judge(due && now < self.rests_until);
        match due && !self.running {
            false => Next::Nothing,
            true if now < self.rests_until => Next::Wait(self.rests_until),
            true => Next::Checkpoint,
        }
    }

    /// Whether the budget can be kept; `held_back`: a checkpoint is due and may not begin.
    fn judge(&mut self, held_back: bool) {
        let Some(budget) = self.limits.restart_within else {
            return;
        };
        let broken = self.predicted() > budget && (held_back || self.running || self.ending);
        let unattainable = self.restore_time() >= budget || broken;
        if unattainable && !self.unattainable {
            self.warnings += 1;
            let (predicted, restore) = (self.predicted(), self.restore_time());
            tracing::warn!(
                ?budget,
                ?predicted,
                ?restore,
                "the budget for a restart cannot be kept"
            );
        }
        // What is over is over only when the prediction is below again: between two checkpoints it would flicker.
        if unattainable || self.predicted() <= budget {
            self.unattainable = unattainable;
        }
    }

    /// A checkpoint captured the state: what it will cover.
    pub(super) fn begin(&mut self) -> Tail {
        self.running = true;
        self.begun = self.tail;
        self.tail
    }

    /// It is a snapshot of so many bytes now; `covered` is what [`begin`](Cadence::begin) returned.
    pub(super) fn succeed(&mut self, covered: Tail, state_bytes: u64, now: Duration, took: Duration) {
        (self.running, self.ending) = (false, true);
        self.tail.entries -= covered.entries.min(self.tail.entries);
        self.tail.bytes -= covered.bytes.min(self.tail.bytes);
        self.tail.apply = self.tail.apply.saturating_sub(covered.apply);
        self.state_bytes = state_bytes;
        self.rests_until = now + took * REST;
    }

    /// All of it is done.
    pub(super) fn end(&mut self) {
        self.ending = false;
    }

    pub(super) fn fail(&mut self, now: Duration, took: Duration) {
        (self.running, self.ending) = (false, false);
        self.rests_until = now + (took * REST).max(REST_AFTER_FAILURE);
    }

    pub(super) fn is_unattainable(&self) -> bool {
        self.unattainable
    }

    pub(super) fn warnings(&self) -> u64 {
        self.warnings
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// Longer than any restart, if it is not a number that a duration can have.
fn duration(nanos: f64) -> Duration {
    Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MILLI: Duration = Duration::from_millis(1);

    fn budget(time: Duration) -> Cadence {
        Cadence::new(Limits {
            restart_within: Some(time),
            ..Limits::default()
        })
    }

    fn work(entries: u64, apply: Duration) -> Tail {
        Tail {
            entries,
            bytes: 0,
            apply,
        }
    }

    #[test]
    fn bytes_and_entries_make_a_checkpoint_due_and_nothing_else_does() {
        let limits = Limits {
            bytes: Some(1000),
            entries: Some(10),
            restart_within: None,
        };
        let mut cadence = Cadence::new(limits);
        cadence.applied(work(9, SECOND * 1000));
        assert_eq!(cadence.next(SECOND), Next::Nothing);
        cadence.applied(work(1, MILLI));
        assert_eq!(cadence.next(SECOND), Next::Checkpoint);
        let covered = cadence.begin();
        assert_eq!(cadence.next(SECOND), Next::Nothing, "it runs already");
        cadence.succeed(covered, 5, SECOND, MILLI);
        cadence.end();
        let big = Tail {
            entries: 1,
            bytes: 1000,
            apply: MILLI,
        };
        cadence.applied(big);
        assert_eq!(cadence.next(SECOND * 2), Next::Checkpoint);
    }

    #[test]
    fn the_budget_is_kept_while_load_and_checkpoints_allow_it() {
        let mut cadence = budget(SECOND * 2);
        let mut now = Duration::ZERO;
        let mut checkpoints = 0;
        // Half of the time goes into applying; a checkpoint takes 100 ms.
        for _ in 0..10_000 {
            now += MILLI * 10;
            cadence.applied(work(10, MILLI * 5));
            if cadence.next(now) == Next::Checkpoint {
                let covered = cadence.begin();
                cadence.applied(work(100, MILLI * 50));
                now += MILLI * 100;
                cadence.succeed(covered, 10_000_000, now, MILLI * 100);
                cadence.end();
                checkpoints += 1;
            }
            assert!(cadence.predicted() <= SECOND * 2, "{cadence:?}");
        }
        assert!((20..100).contains(&checkpoints), "{checkpoints}");
        assert_eq!((cadence.is_unattainable(), cadence.warnings()), (false, 0));
    }

    #[test]
    fn a_budget_below_the_restore_time_is_said_once_and_does_not_checkpoint_without_end() {
        let mut cadence = budget(SECOND);
        cadence.restored(1 << 30, SECOND * 10);
        assert_eq!(cadence.next(SECOND), Next::Nothing);
        let mut now = SECOND;
        let mut checkpoints = 0;
        for _ in 0..100 {
            now += SECOND;
            cadence.applied(work(1000, SECOND));
            if cadence.next(now) == Next::Checkpoint {
                let covered = cadence.begin();
                cadence.succeed(covered, 1 << 30, now, MILLI);
                cadence.end();
                checkpoints += 1;
            }
        }
        assert!(cadence.is_unattainable());
        assert_eq!(cadence.warnings(), 1);
        assert!(
            (8..=10).contains(&checkpoints),
            "a tail may cost a restore: {checkpoints}"
        );
    }

    #[test]
    fn load_that_outruns_checkpoints_is_said_and_checkpoints_take_a_quarter_of_the_time() {
        let mut cadence = budget(SECOND * 2);
        let (mut now, mut busy) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..100 {
            // Each second of the clock brings a second of replay, and a checkpoint takes three.
            now += SECOND;
            cadence.applied(work(1000, SECOND));
            match cadence.next(now) {
                Next::Checkpoint => {
                    let covered = cadence.begin();
                    now += SECOND * 3;
                    busy += SECOND * 3;
                    cadence.applied(work(3000, SECOND * 3));
                    cadence.succeed(covered, 1000, now, SECOND * 3);
                    cadence.end();
                }
                Next::Wait(until) => assert!(until > now),
                Next::Nothing => {}
            }
        }
        assert!(cadence.is_unattainable());
        assert_eq!(cadence.warnings(), 1);
        assert!(busy * 4 <= now + SECOND * 12, "{busy:?} of {now:?}");
        // The load ends: the next checkpoint makes good, and the metric says so.
        now += SECOND * 20;
        assert_eq!(cadence.next(now), Next::Checkpoint);
        let covered = cadence.begin();
        cadence.succeed(covered, 1000, now, MILLI);
        cadence.end();
        assert_eq!(cadence.next(now), Next::Nothing);
        assert!(!cadence.is_unattainable());
    }

    #[test]
    fn a_measured_replay_that_was_slower_than_applying_counts() {
        let mut cadence = budget(SECOND * 10);
        cadence.replayed(1000, 1000, SECOND);
        let covered = cadence.begin();
        cadence.succeed(covered, 0, SECOND, MILLI);
        cadence.end();
        assert_eq!(cadence.predicted(), Duration::ZERO);
        cadence.applied(work(2000, MILLI));
        assert!(cadence.predicted() >= SECOND * 2, "{:?}", cadence.predicted());
    }

    #[test]
    fn a_checkpoint_hurries_once_three_quarters_of_the_budget_are_used_up() {
        let mut cadence = budget(SECOND * 4);
        cadence.applied(work(1, SECOND * 2));
        assert_eq!(cadence.next(SECOND), Next::Checkpoint);
        let covered = cadence.begin();
        assert!(!cadence.hurries(), "half is when it begins");
        cadence.applied(work(1, SECOND));
        assert!(cadence.hurries());
        cadence.succeed(covered, 0, SECOND * 2, MILLI);
        cadence.end();
        assert!(!cadence.hurries(), "{:?}", cadence.predicted());
        let mut without = Cadence::new(Limits::default());
        without.applied(work(1, SECOND * 100));
        assert!(!without.hurries(), "nobody set a budget");
    }

    #[test]
    fn a_checkpoint_hurries_once_the_log_is_four_times_as_long_as_makes_one_due() {
        let limits = Limits {
            entries: Some(10),
            bytes: Some(1000),
            restart_within: None,
        };
        let of = |entries, bytes| {
            let mut cadence = Cadence::new(limits);
            cadence.applied(Tail {
                entries,
                bytes,
                apply: MILLI,
            });
            cadence.hurries()
        };
        assert_eq!([of(39, 3999), of(40, 0), of(1, 4000)], [false, true, true]);
    }

    #[test]
    fn a_checkpoint_hurries_once_the_state_may_have_been_replaced_meanwhile() {
        let bytes = |bytes| Tail {
            entries: 1,
            bytes,
            apply: MILLI,
        };
        for state in [0, MEANWHILE_MIN * 3] {
            let mut cadence = Cadence::new(Limits::default());
            cadence.restored(state, MILLI);
            let room = state.max(MEANWHILE_MIN);
            cadence.applied(bytes(room * 2));
            cadence.begin();
            cadence.applied(bytes(room - 1));
            assert!(!cadence.hurries(), "what was applied before is in the snapshot");
            cadence.applied(bytes(1));
            assert!(cadence.hurries());
        }
    }

    /// It reads the oldest snapshot that is kept, as a whole, before it is over.
    #[test]
    fn while_a_checkpoint_ends_the_next_one_cannot_begin_and_a_budget_that_breaks_is_told() {
        let mut cadence = budget(SECOND * 8);
        cadence.applied(work(1, SECOND * 4));
        let covered = cadence.begin();
        cadence.applied(work(1, SECOND));
        cadence.succeed(covered, 0, SECOND, MILLI);
        assert!(!cadence.hurries(), "a second of eight");
        cadence.applied(work(1, SECOND * 3));
        assert!(cadence.hurries(), "the next one is due");
        cadence.applied(work(1, SECOND * 5));
        cadence.next(SECOND * 9);
        assert_eq!((cadence.is_unattainable(), cadence.warnings()), (true, 1));
        cadence.end();
        assert_eq!(cadence.next(SECOND * 10), Next::Checkpoint);
    }

    #[test]
    fn after_a_failure_the_next_one_waits() {
        let mut cadence = budget(SECOND);
        cadence.applied(work(1, SECOND));
        assert_eq!(cadence.next(SECOND), Next::Checkpoint);
        cadence.begin();
        cadence.fail(SECOND, MILLI);
        assert_eq!(cadence.next(SECOND * 2), Next::Wait(SECOND * 11));
        assert_eq!(cadence.next(SECOND * 11), Next::Checkpoint);
        assert_eq!(cadence.tail().entries, 1);
    }
}
