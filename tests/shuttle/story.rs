//! One schedule's story: what is set up, what goes wrong, how it ends, and the examination of what it leaves.

use std::sync::Arc;
use std::time::Duration;

use everlog::fs::{Fault, Fs, Gate, Kept, Op as Call, Profile, Rule, SimFs, Watch};
use everlog::{Background, Config, ErrorKind, Journal};
use shuttle::thread;

use super::actor::Actor;
use super::judge;
use super::model::Model;
use super::random::Random;
use super::world::{Fate, LEDGER, Loss, Moment, Notes, Op, SHARED, World, own_log};

/// What one seed decides for all of its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    pub(crate) actors: usize,
    /// Below this many bytes an entry has.
    pub(crate) entry_bytes: u64,
    /// The thread that closes the journal when it is through, while others may go on.
    pub(crate) closer: Option<usize>,
    /// The power goes off in the middle.
    pub(crate) power_off: bool,
    /// The disk is nearly full.
    pub(crate) tight: bool,
}

pub(crate) fn run(seed: u64) {
    let mut random = Random::new(seed);
    let actors = 2 + random.index(2);
    let story = Story {
        actors,
        entry_bytes: random.pick(&[40, 700, 1400]),
        closer: random.one_in(4).then(|| random.index(actors)),
        power_off: random.one_in(6),
        tight: random.one_in(8),
    };
    tracing::debug!(target: "everlog::story", ?story);
    let disk = SimFs::new(seed, Profile::PosixWeak);
    let mut world = World::new(disk);
    world.faults = random.pick(&[0, 0, 0, 1, 1, 2]);
    let world = Arc::new(world);
    let journal = set_up(&world, story, &mut random);
    let (reaper, gate, watch) = reaper(&world, story, &mut random);
    plan(&world, story, &mut random);
    let threads: Vec<_> = (0..actors)
        .map(|number| {
            let actor = Actor {
                number,
                journal: journal.clone(),
                world: world.clone(),
                story,
                random: Random::new(random.next()),
                later: Vec::new(),
                own: 0..0,
            };
            let deeds = 1 + random.below(4);
            spawn(format!("actor {number}"), move || actor.run(deeds))
        })
        .collect();
    let drops = story.closer.is_none() && random.one_in(2);
    let journal = (!drops).then_some(journal);
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("it panicked"));
    let failing = story.power_off || world.faults + u64::from(story.tight) >= 2;
    if let Some(journal) = journal {
        finish(&world, story, journal, failing);
    }
    end_reaper(&world, &gate, &watch);
    reaper.join().expect("it panicked");
    examine(&world, story, &mut random, failing);
}

fn set_up(world: &Arc<World>, story: Story, random: &mut Random) -> Journal {
    let delay = |random: &mut Random| Duration::from_millis(random.pick(&[1, 30, 3_600_000]));
    let config = Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .relaxed_delay(delay(random))
        .mark_delays(delay(random), delay(random))
        .background(Background::Threads);
    let journal = Journal::create_on(Arc::new(world.fs.clone()), config).expect("a new journal");
    for key in [LEDGER, SHARED]
        .into_iter()
        .chain((0..=story.actors).map(own_log))
    {
        journal.create_log(key, 0).expect("a new log");
    }
    journal
}

/// What goes wrong later on.
fn plan(world: &Arc<World>, story: Story, random: &mut Random) {
    for _ in 0..world.faults {
        let kept = random.pick(&[Kept::Nothing, Kept::Everything, Kept::Undecided]);
        match random.below(4) {
            0 | 1 => world.disk.fail_sync("journal", random.below(12), kept),
            2 => drop(
                world
                    .fs
                    .add(Rule::on(Call::Write, Fault::io_error()).nth(1 + random.below(12))),
            ),
            _ => drop(
                world
                    .fs
                    .add(Rule::on(Call::Write, Fault::no_space()).nth(1 + random.below(12))),
            ),
        }
    }
    if story.tight
        && let Ok(space) = world.disk.space()
    {
        let blocks = random.below(8);
        world.disk.set_capacity(space.total - space.free + blocks * 4096);
    }
}

/// Starts a thread that takes a crash state in the middle of some call to the disk, while the call hangs.
fn reaper(world: &Arc<World>, story: Story, random: &mut Random) -> (thread::JoinHandle<()>, Gate, Watch) {
    let gate = Gate::default();
    let call = random.pick(&[
        Call::Write,
        Call::Write,
        Call::SyncData,
        Call::SyncData,
        Call::SyncDir,
        Call::Rename,
        Call::Remove,
    ]);
    let fault = match random.one_in(2) {
        true => Fault::Delay(gate.clone()),
        false => Fault::DelayAfter(gate.clone()),
    };
    let nth = 1 + random.below(15);
    let watch = world.fs.add(Rule::on(call, fault).nth(nth));
    let (world, passed) = (world.clone(), gate.clone());
    let loss = random.pick(&[Loss::Power, Loss::Power, Loss::Kill]);
    let seed = random.next();
    let reaper = spawn("reaper".into(), move || {
        passed.wait_for_arrivals(1);
        world.crash(loss, seed, "in the middle of a call");
        if story.power_off {
            world.disk.stop_now();
        }
        passed.release();
    });
    (reaper, gate, watch)
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new().name(name).spawn(run).expect("a thread")
}

/// A call that never came will not come any more: lets the reaper go.
fn end_reaper(world: &Arc<World>, gate: &Gate, watch: &Watch) {
    if watch.fired() > 0 {
        return;
    }
    watch.remove();
    gate.release();
    world.fs.add(Rule::on(Call::Holder, Fault::Delay(gate.clone())));
    let _ = world.fs.holder("lock");
}

/// All threads are through: what the journal shows is what they did. Then it is closed.
fn finish(world: &Arc<World>, story: Story, journal: Journal, failing: bool) {
    if story.closer.is_none() && !failing {
        called_back(world);
        let found = Model::read(&journal).expect("it reads");
        judge_now(world, &found);
    }
    let closed = journal.clone().close();
    assert!(closed.is_ok() || failing, "closing failed: {closed:?}");
    let log = journal.log(SHARED).map_err(|e| e.kind()).map(drop);
    assert_eq!(log, Err(ErrorKind::Closed), "after close");
}

/// Everything that was taken in is to be seen.
fn judge_now(world: &Arc<World>, found: &Model) {
    let notes = world.notes();
    let moment = Moment {
        disk: world.disk.clone(),
        loss: Loss::Power,
        fates: all_durable(&notes.ops),
        faulty: false,
        what: "the open journal",
    };
    judge::legal(found, &moment, &notes.ops, moment.what);
}

/// Waits for the last callback: until then writes may come from there.
fn called_back(world: &Arc<World>) {
    let due = |notes: &Notes| notes.callbacks_run < notes.callbacks_due || notes.in_callback;
    while due(&world.notes()) {
        thread::yield_now();
    }
}

/// As if everything that was taken in had been acknowledged.
fn all_durable(ops: &[Op]) -> Vec<Fate> {
    let fates = ops.iter().map(|op| match op.fate {
        Fate::Refused => Fate::Refused,
        _ => Fate::Durable,
    });
    fates.collect()
}

/// Waits until nobody has the journal: the last handle may be dropped by the completion thread.
fn released(world: &Arc<World>) {
    while !world.disk.is_off() && world.disk.holder("lock").expect("the disk is there").is_some() {
        thread::yield_now();
    }
}

fn examine(world: &Arc<World>, story: Story, random: &mut Random, failing: bool) {
    released(world);
    world.crash(Loss::Power, random.next(), "at the end");
    let (moments, ops) = {
        let mut notes = world.notes();
        assert!(notes.wrong.is_empty(), "{:?}", notes.wrong);
        assert!(
            story.power_off || notes.callbacks_run == notes.callbacks_due,
            "{} callbacks ran of {}",
            notes.callbacks_run,
            notes.callbacks_due
        );
        if !failing {
            // It was closed, or dropped: whatever was taken in is durable.
            let fates = all_durable(&notes.ops);
            notes.moments.last_mut().expect("just taken").fates = fates;
        }
        (std::mem::take(&mut notes.moments), notes.ops.clone())
    };
    for moment in &moments {
        judge::examine(moment, &ops);
    }
    judge::seen(world);
}
