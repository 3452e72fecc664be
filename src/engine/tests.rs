//! Recovery-time budgets through an engine whose machine takes its time on a simulated clock: to apply, to write its state, and to restore
//! it. Nothing here depends on how fast the machine is that runs it.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;

use super::clock::{Clock, Simulated};
use super::{Capture, Engine, EngineConfig, StateMachine};
use crate::config::{Background, Config};
use crate::fs::{Profile, SimFs};
use crate::journal::Journal;
use crate::snapshot::{Store, StoreConfig};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex};
use crate::types::{EntryId, LogKey};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// What the machine's work takes.
#[derive(Clone, Copy)]
struct Costs {
    apply: Duration,
    write: Duration,
    restore: Duration,
}

type Meanwhile = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// A counter that is slow.
struct Slow {
    count: u64,
    costs: Costs,
    clock: Simulated,
    /// What others do while the state is written.
    meanwhile: Meanwhile,
}

impl StateMachine for Slow {
    fn apply(&mut self, _: EntryId, _: &[u8]) -> Bytes {
        self.clock.advance(self.costs.apply);
        self.count += 1;
        Bytes::new()
    }

    fn capture(&self) -> Capture {
        let (count, write, clock) = (self.count, self.costs.write, self.clock.clone());
        let meanwhile = Arc::clone(&self.meanwhile);
        Capture::new(move |into| {
            clock.advance(write);
            let others = meanwhile.lock().take();
            if let Some(mut others) = others {
                others();
                *meanwhile.lock() = Some(others);
            }
            into.write_all(&[7; 1000])?;
            into.write_all(&count.to_le_bytes())
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.clock.advance(self.costs.restore);
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let (_, count) = bytes.split_last_chunk().expect("a number stands at the end");
        self.count = u64::from_le_bytes(*count);
        Ok(())
    }

    fn clear(&mut self) {
        self.count = 0;
    }
}

struct World {
    engine: Engine<Slow>,
    clock: Simulated,
    meanwhile: Meanwhile,
}

fn open(disk: &SimFs, budget: Duration, costs: Costs) -> World {
    open_with(disk, EngineConfig::new().restart_within(budget), costs)
}

fn open_with(disk: &SimFs, mut engine: EngineConfig, costs: Costs) -> World {
    let config = Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .background(Background::Caller);
    let journal = Journal::open_or_create_on(Arc::new(disk.clone()), config).unwrap();
    let store = Store::open_on(Arc::new(disk.clone()), StoreConfig::new()).unwrap();
    let (clock, meanwhile) = (Simulated::default(), Meanwhile::default());
    let machine = Slow {
        count: 0,
        costs,
        clock: clock.clone(),
        meanwhile: Arc::clone(&meanwhile),
    };
    engine.clock = Clock::simulated(&clock);
    World {
        engine: Engine::open(&journal, LogKey(1), &store, machine, engine).unwrap(),
        clock,
        meanwhile,
    }
}

fn disk() -> SimFs {
    SimFs::new(1, Profile::PosixWeak)
}

impl World {
    fn execute(&self) {
        self.engine.execute(b"more").unwrap();
    }

    fn work(&self) {
        while self.engine.work().unwrap() {}
    }

    /// Ends the process, and opens the next one: how long that took on its clock, and how long it was predicted to.
    fn restart(self, disk: &SimFs, budget: Duration, costs: Costs) -> (World, Duration, Duration) {
        let predicted = self.engine.predicted_restart();
        let count = self.engine.read(|slow| slow.count).unwrap();
        drop(self);
        let next = open(disk, budget, costs);
        assert_eq!(next.engine.read(|slow| slow.count).unwrap(), count);
        let took = next.clock.now();
        assert_eq!(next.engine.report().total, took);
        (next, took, predicted)
    }
}

#[test]
fn while_the_load_allows_it_a_restart_stays_within_the_budget() {
    let budget = SECOND * 2;
    let costs = Costs {
        apply: MILLI * 10,
        write: MILLI * 100,
        restore: MILLI * 500,
    };
    let disk = disk();
    let mut world = open(&disk, budget, costs);
    for life in 0..4 {
        for _ in 0..300 {
            world.execute();
            world.work();
            let predicted = world.engine.predicted_restart();
            assert!(predicted <= budget, "life {life}: {predicted:?}");
            // A second goes by for each tenth of one that is applied.
            world.clock.advance(MILLI * 100);
        }
        let metrics = world.engine.metrics();
        assert!((2..30).contains(&metrics.checkpoints), "life {life}: {metrics:?}");
        assert!(!metrics.budget_unattainable, "life {life}: {metrics:?}");
        assert_eq!(metrics.budget_warnings, 0, "life {life}");
        let (next, took, predicted) = world.restart(&disk, budget, costs);
        assert!(took <= budget, "life {life}: {took:?}");
        // Before its first restore the cost of one is a guess.
        assert!(
            life == 0 || took <= predicted,
            "life {life}: {took:?}, predicted {predicted:?}"
        );
        world = next;
    }
}

#[test]
fn a_budget_below_the_restore_time_is_said_once_and_a_restart_takes_two_restores_at_most() {
    let budget = SECOND;
    let costs = Costs {
        apply: SECOND,
        write: MILLI,
        restore: SECOND * 10,
    };
    let disk = disk();
    let world = open(&disk, SECOND * 1000, costs);
    world.execute();
    world.engine.checkpoint().unwrap();
    let (world, took, _) = world.restart(&disk, budget, costs);
    assert!(took >= SECOND * 10 && world.engine.predicted_restart() >= SECOND * 10);
    world.work();
    let metrics = world.engine.metrics();
    assert!(metrics.budget_unattainable, "{metrics:?}");
    assert_eq!(
        metrics.checkpoints, 0,
        "there is nothing that one would help with"
    );
    for _ in 0..100 {
        world.execute();
        world.work();
        let predicted = world.engine.predicted_restart();
        assert!(predicted <= SECOND * 20, "{predicted:?}");
    }
    let metrics = world.engine.metrics();
    assert!(metrics.budget_unattainable, "{metrics:?}");
    assert_eq!(metrics.budget_warnings, 1, "{metrics:?}");
    assert!((8..=10).contains(&metrics.checkpoints), "{metrics:?}");
    world.execute();
    let (world, took, predicted) = world.restart(&disk, budget, costs);
    assert!(
        took <= predicted && took <= SECOND * 20,
        "{took:?}, predicted {predicted:?}"
    );
    assert!(world.engine.report().restore >= SECOND * 10);
}

#[test]
fn load_that_outruns_replay_is_said_once_and_checkpoints_take_a_quarter_of_the_time() {
    let budget = SECOND * 2;
    let costs = Costs {
        apply: SECOND,
        write: SECOND * 3,
        restore: MILLI,
    };
    let disk = disk();
    let world = open(&disk, budget, costs);
    let busy = Arc::new(Mutex::new(Duration::ZERO));
    // Three commands come while a checkpoint is written: more than the budget before it has ended.
    let (others, sum) = (world.engine.clone(), Arc::clone(&busy));
    *world.meanwhile.lock() = Some(Box::new(move || {
        *sum.lock() += SECOND * 6;
        (0..3).for_each(|_| drop(others.execute(b"more").unwrap()));
    }));
    for _ in 0..100 {
        world.execute();
        world.work();
    }
    let metrics = world.engine.metrics();
    assert!(metrics.budget_unattainable, "{metrics:?}");
    assert_eq!(metrics.budget_warnings, 1, "{metrics:?}");
    assert!(world.engine.predicted_restart() > budget);
    let (busy, now) = (*busy.lock(), world.clock.now());
    assert!(busy * 4 <= now + SECOND * 24, "{busy:?} of {now:?}");
    assert!(busy * 5 >= now, "and no less than they may: {busy:?} of {now:?}");
    // The load ends: the next checkpoint makes good, and the metric says so.
    *world.meanwhile.lock() = None;
    world.clock.advance(SECOND * 30);
    world.work();
    let metrics = world.engine.metrics();
    assert!(!metrics.budget_unattainable, "{metrics:?}");
    assert!(world.engine.predicted_restart() <= budget);
    let (_, took, _) = world.restart(&disk, budget, costs);
    assert!(took <= budget, "{took:?}");
}

#[test]
fn a_checkpoint_yields_to_commands_until_the_budget_is_nearly_used_up() {
    let costs = Costs {
        apply: SECOND,
        write: MILLI,
        restore: MILLI,
    };
    let closing = open(&disk(), SECOND * 8, costs);
    let pace = closing.engine.shared.pace();
    closing.execute();
    closing.engine.shared.stop.store(true, Ordering::Release);
    assert!(!pace.is_busy(), "whoever closes waits for it to end");

    let hasty = open_with(&disk(), EngineConfig::new().checkpoint_rests(false), costs);
    let pace = hasty.engine.shared.pace();
    hasty.execute();
    assert!(!pace.is_busy(), "it was told not to rest");

    let world = open(&disk(), SECOND * 8, costs);
    let pace = world.engine.shared.pace();
    assert!(!pace.is_busy(), "nobody is at work");
    for applied in 1..=8 {
        world.execute();
        let wanted = applied < 6;
        assert_eq!(pace.is_busy(), wanted, "{applied} s of 8 are used up");
        assert!(!pace.is_busy(), "and nobody since");
    }
}
