//! Which operation a worker does next. Decided by the seed, the worker, the operation's number and what the worker's logs
//! hold, so that the drill knows what its child was about to do when it hears the number alone.

use everlog::{EntryId, LogKey, WriteBatch};

use super::super::entries::Random;
use super::model::{Group, Id, LogState, Payload};

/// One operation: what the crash must leave whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Write { steps: Vec<Step>, how: How },
    Create { log: u64, first: u64 },
    Delete { log: u64 },
    Sync,
    Reclaim,
}

/// How a write is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Durable,
    Relaxed,
    /// The next operation does not wait for it.
    Submit,
    SubmitRelaxed,
}

/// A part of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Append { log: u64, payload: Payload },
    AppendAt { log: u64, term: u64, payload: Payload },
    Truncate { log: u64, from: u64 },
    PurgeTo { log: u64, to: u64 },
    PurgeThrough { log: u64, last: Id },
    Reset { log: u64, last: Id },
    Set { log: u64, cell: u8, payload: Payload },
}

/// Who plans: a worker of a drill.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker {
    /// Seed of the drill.
    pub(crate) seed: u64,
    /// Number of the worker; log `l` belongs to worker `l % workers`.
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    /// Logs of all workers together.
    pub(crate) logs: u64,
}

impl Worker {
    /// The operation `number`, to be done where the worker's logs hold `group`.
    pub(crate) fn plan(&self, number: u64, group: &Group) -> Op {
        let mut random = self.random(number);
        let log = self.pick(&mut random);
        let Some(state) = group.0.get(&log) else {
            let first = random.between(0..3) * 1_000;
            return Op::Create { log, first };
        };
        match random.between(0..100) {
            0..2 => Op::Sync,
            2..4 => Op::Reclaim,
            4..6 => Op::Delete { log },
            6..22 => self.across(&mut random, number, group),
            _ => {
                let steps = steps(&mut random, log, state, tag(self.worker, number, 0));
                let how = how(&mut random);
                Op::Write { steps, how }
            }
        }
    }

    /// A write to several of the worker's logs.
    fn across(&self, random: &mut Random, number: u64, group: &Group) -> Op {
        let mut group = group.clone();
        let mut all = Vec::new();
        for part in 0..random.between(2..6) {
            let log = self.pick(random);
            let Some(state) = group.0.get(&log) else { continue };
            let steps = steps(random, log, state, tag(self.worker, number, part));
            // What comes next must fit what this leaves.
            group.apply(&Op::Write {
                steps: steps.clone(),
                how: How::Durable,
            });
            all.extend(steps);
        }
        match all.is_empty() {
            true => Op::Sync,
            false => Op::Write {
                steps: all,
                how: how(random),
            },
        }
    }

    fn pick(&self, random: &mut Random) -> u64 {
        let (worker, workers) = (u64::from(self.worker), u64::from(self.workers));
        let own = (self.logs - worker).div_ceil(workers);
        worker + workers * random.between(0..own)
    }

    fn random(&self, number: u64) -> Random {
        let mut worker = Random::new(self.seed ^ (u64::from(self.worker) << 32));
        Random::new(worker.next() ^ number)
    }
}

/// One or two steps on one log.
fn steps(random: &mut Random, log: u64, state: &LogState, tag: u64) -> Vec<Step> {
    let payload = Payload {
        tag,
        len: len(random),
    };
    let count = state.entries.len() as u64;
    if count > ENTRIES_MAX {
        let to = state.end() - random.between(0..ENTRIES_MAX / 4);
        return vec![Step::PurgeTo { log, to }];
    }
    let existing = |random: &mut Random| {
        let at = random.next().checked_rem(count)?;
        state.id(state.start + at)
    };
    let ahead = |random: &mut Random| Id {
        term: state.term() + random.between(0..2),
        index: state.end() + random.between(0..4),
    };
    let step = match random.between(0..100) {
        0..8 => {
            let term = state.term() + random.between(0..3);
            Step::AppendAt { log, term, payload }
        }
        8..12 => Step::Truncate {
            log,
            from: state.end() - random.between(0..count.min(4) + 1),
        },
        // The tail is written anew under a higher term, as a follower does it: both, or neither.
        12..16 => {
            let from = state.end() - random.between(0..count.min(4) + 1);
            let term = state.term() + 1;
            return vec![
                Step::Truncate { log, from },
                Step::AppendAt { log, term, payload },
            ];
        }
        16..20 => Step::PurgeTo {
            log,
            to: (state.start + random.between(0..count + 3)).max(1),
        },
        20..22 => match existing(random) {
            Some(last) => Step::PurgeThrough { log, last },
            None => Step::Append { log, payload },
        },
        22..23 => Step::PurgeThrough {
            log,
            last: ahead(random),
        },
        23..25 => Step::Reset {
            log,
            last: ahead(random),
        },
        25..35 => Step::Set {
            log,
            cell: u8::try_from(random.between(0..4)).unwrap_or(0),
            payload: Payload {
                len: payload.len % CELL_BYTES_MAX,
                ..payload
            },
        },
        _ => Step::Append { log, payload },
    };
    vec![step]
}

fn how(random: &mut Random) -> How {
    match random.between(0..100) {
        0..40 => How::Durable,
        40..60 => How::Relaxed,
        60..92 => How::Submit,
        _ => How::SubmitRelaxed,
    }
}

fn len(random: &mut Random) -> usize {
    let len = match random.between(0..100) {
        0..2 => 0,
        2..80 => random.between(1..300),
        80..97 => random.between(300..5_000),
        _ => random.between(5_000..PAYLOAD_BYTES_MAX),
    };
    usize::try_from(len).unwrap_or(0)
}

/// Tells a payload from every other one of a drill.
fn tag(worker: u32, number: u64, part: u64) -> u64 {
    u64::from(worker) << 48 | number << 3 | part
}

impl Step {
    /// The log it is about.
    pub(crate) fn log(&self) -> u64 {
        let (Step::Append { log, .. }
        | Step::AppendAt { log, .. }
        | Step::Truncate { log, .. }
        | Step::PurgeTo { log, .. }
        | Step::PurgeThrough { log, .. }
        | Step::Reset { log, .. }
        | Step::Set { log, .. }) = *self;
        log
    }

    /// Adds the step to a batch; `index` is what an append to its log would get.
    fn push(&self, batch: &mut WriteBatch, index: u64) {
        let key = LogKey(self.log());
        match *self {
            Step::Append { payload, .. } => batch.append(key, payload.bytes()),
            Step::AppendAt { term, payload, .. } => {
                batch.append_at(key, EntryId::from(Id { term, index }), payload.bytes())
            }
            Step::Truncate { from, .. } => batch.truncate_from(key, from),
            Step::PurgeTo { to, .. } => batch.purge_to(key, to),
            Step::PurgeThrough { last, .. } => batch.purge_through(key, last.into()),
            Step::Reset { last, .. } => batch.reset(key, last.into()),
            Step::Set { cell, payload, .. } => batch.set(key, cell, payload.bytes()),
        };
    }
}

/// The steps as a batch for logs that hold `group`.
pub(crate) fn batch(steps: &[Step], group: &Group) -> WriteBatch {
    let mut group = group.clone();
    let mut batch = WriteBatch::new();
    for step in steps {
        let index = group.0.get(&step.log()).map_or(0, LogState::end);
        step.push(&mut batch, index);
        group.apply(&Op::Write {
            steps: vec![*step],
            how: How::Durable,
        });
    }
    batch
}

/// A log longer than this is purged, so that a look at all logs stays fast.
const ENTRIES_MAX: u64 = 48;
/// Some entries are larger than a segment.
const PAYLOAD_BYTES_MAX: u64 = 40_000;
const CELL_BYTES_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The drill and its child plan apart from each other.
    #[test]
    fn a_plan_is_decided_by_its_number_and_state() {
        let worker = Worker {
            seed: 7,
            worker: 1,
            workers: 2,
            logs: 5,
        };
        let mut group = Group::default();
        let mut kinds = std::collections::HashSet::new();
        for number in 0..5_000 {
            let op = worker.plan(number, &group);
            assert_eq!(op, worker.plan(number, &group.clone()), "operation {number}");
            if let Op::Write { steps, .. } = &op {
                assert!(steps.iter().all(|step| step.log() % 2 == 1), "{op:?}");
                kinds.extend(steps.iter().map(std::mem::discriminant));
            }
            group.apply(&op);
        }
        assert_eq!(group.0.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(kinds.len(), 7, "every kind of step is planned");
    }
}
