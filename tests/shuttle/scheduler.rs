//! Who runs next: every choice of a schedule comes from its seed, so that one number names it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use super::random::{Random, mix};
use super::talk::Tail;

/// Runs a schedule for each seed that `next` gives.
pub(crate) struct Seeded {
    next: Box<dyn FnMut() -> Option<u64> + Send>,
    told: Arc<Told>,
    random: Random,
    policy: Policy,
    /// Who yielded (a sleeper with a deadline, for one) and was not run since.
    resting: BTreeSet<usize>,
}

/// What the schedule that runs is, and what it has done.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) seed: AtomicU64,
    /// Choices of all schedules together.
    pub(crate) steps: AtomicU64,
    /// A hash of every choice of the current schedule.
    pub(crate) trace: AtomicU64,
    /// Kept if only one schedule is run.
    pub(crate) tail: Option<Tail>,
}

enum Policy {
    /// Anybody, but who runs goes on with a chance of `stays - 1` in `stays`.
    Chance { stays: u64 },
    /// Probabilistic concurrency testing: the highest priority runs, and at a few chosen steps whoever runs falls to the lowest.
    Priorities {
        ranks: BTreeMap<usize, u64>,
        changes: BTreeSet<u64>,
        step: u64,
        lowest: u64,
    },
}

/// How seldom somebody who rests is run although others could.
const REST: u64 = 24;
/// Ranks that are drawn are above those that are given for falling.
const FALLEN: u64 = 1 << 32;

impl Policy {
    fn draw(random: &mut Random) -> Policy {
        match random.below(4) {
            0 => Policy::Chance { stays: 1 },
            1 => Policy::Chance {
                stays: 2 + random.below(12),
            },
            _ => {
                let horizon = random.pick(&[200, 600, 1500, 3000]);
                let count = random.below(6);
                Policy::Priorities {
                    ranks: BTreeMap::new(),
                    changes: (0..count).map(|_| random.below(horizon)).collect(),
                    step: 0,
                    lowest: FALLEN,
                }
            }
        }
    }
}

impl Seeded {
    pub(crate) fn new(next: Box<dyn FnMut() -> Option<u64> + Send>, told: Arc<Told>) -> Seeded {
        Seeded {
            next,
            told,
            random: Random::new(0),
            policy: Policy::Chance { stays: 1 },
            resting: BTreeSet::new(),
        }
    }

    fn by_chance(&mut self, runnable: &[&Task], current: Option<usize>, stays: u64) -> usize {
        let all = self.random.one_in(REST);
        let awake: Vec<usize> = runnable
            .iter()
            .map(|task| usize::from(task.id()))
            .filter(|id| all || !self.resting.contains(id))
            .collect();
        match current.filter(|id| awake.contains(id)) {
            Some(id) if !self.random.one_in(stays) => id,
            _ if awake.is_empty() => usize::from(runnable[self.random.index(runnable.len())].id()),
            _ => awake[self.random.index(awake.len())],
        }
    }

    fn by_priority(&mut self, runnable: &[&Task], current: Option<usize>, yields: bool) -> usize {
        let Policy::Priorities {
            ranks,
            changes,
            step,
            lowest,
        } = &mut self.policy
        else {
            unreachable!("the policy is another");
        };
        for task in runnable {
            let id = usize::from(task.id());
            ranks
                .entry(id)
                .or_insert_with(|| FALLEN + self.random.below(FALLEN));
        }
        *step += u64::from(runnable.len() > 1);
        if let Some(id) = current.filter(|_| yields || changes.remove(step)) {
            *lowest -= 1;
            ranks.insert(id, *lowest);
        }
        let ids = runnable.iter().map(|task| usize::from(task.id()));
        ids.max_by_key(|id| (ranks[id], *id))
            .expect("somebody is runnable")
    }
}

impl Scheduler for Seeded {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = (self.next)()?;
        self.random = Random::new(mix(seed) ^ 0x5c4e_d01e);
        self.policy = Policy::draw(&mut self.random);
        self.resting.clear();
        self.told.seed.store(seed, Ordering::Relaxed);
        self.told.trace.store(0, Ordering::Relaxed);
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
        let current = current.map(usize::from);
        if let Some(id) = current.filter(|_| yields) {
            self.resting.insert(id);
        }
        let chosen = match self.policy {
            Policy::Chance { stays } => self.by_chance(runnable, current, stays),
            Policy::Priorities { .. } => self.by_priority(runnable, current, yields),
        };
        self.resting.remove(&chosen);
        if let (Some(tail), Some(task)) = (
            &self.told.tail,
            runnable.iter().find(|task| usize::from(task.id()) == chosen),
        ) {
            tail.ran(task.display_name());
        }
        self.told.steps.fetch_add(1, Ordering::Relaxed);
        let trace = self.told.trace.load(Ordering::Relaxed);
        self.told
            .trace
            .store(mix(trace ^ chosen as u64), Ordering::Relaxed);
        Some(TaskId::from(chosen))
    }

    fn next_u64(&mut self) -> u64 {
        self.random.next()
    }
}
