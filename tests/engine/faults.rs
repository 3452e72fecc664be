//! Checkpoints on disks that fail: whichever call fails, and however, the snapshots and entries before are there, commands go on where the
//! journal allows it, and the next checkpoint works once the disk does.

use std::sync::Arc;

use everlog::engine::{Engine, EngineConfig};
use everlog::fs::{Fault, FaultFs, Fs, Kept, Op, Rule, SimFs};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Error, ErrorKind, Journal, Result};

use super::machine::{List, World, command, commands, store_config, try_world};
use super::support::{A, disk, dynamic, keep_synced, small};

fn world_on(fs: Arc<dyn Fs>, store: StoreConfig) -> Result<World> {
    let journal = Journal::open_or_create_on(Arc::clone(&fs), small())?;
    let store = Store::open_on(fs, store)?;
    let engine = Engine::open(&journal, A, &store, List::default(), EngineConfig::new())?;
    Ok(World {
        journal,
        store,
        engine,
    })
}

/// Snapshots of 4 and of 8 commands, and 3 commands behind them.
fn before() -> SimFs {
    let disk = disk(1);
    let world = super::machine::world(&disk);
    for to in [4, 8] {
        world.execute(to - 4..to);
        world.engine.checkpoint().expect("the disk is fine");
    }
    world.execute(8..11);
    drop(world);
    keep_synced(&disk)
}

/// What a checkpoint that failed, or one that did not, must leave.
fn judge(world: &World, done: u32, told: &str) {
    assert_eq!(
        world.commands(),
        commands(0..done),
        "{told}: what was applied can be read"
    );
    let list = world.store.list().unwrap();
    let has = |end: u64| list.iter().any(|snapshot| snapshot.covers.index + 1 == end);
    assert!(has(8), "{told}: the newest snapshot from before: {list:?}");
    assert!(has(4) || list.len() >= 2, "{told}: one to fall back to: {list:?}");
    let bounds = world.engine.log().bounds().unwrap();
    let oldest = list.iter().map(|snapshot| snapshot.covers.index + 1).min();
    assert!(
        bounds.start <= oldest.unwrap(),
        "{told}: the log begins at {}, with {list:?}",
        bounds.start
    );
    for index in bounds.start..u64::from(done) {
        let entry = world
            .engine
            .log()
            .get(index)
            .unwrap_or_else(|e| panic!("{told}: {e:?}"));
        let number = u32::try_from(index).unwrap();
        assert!(
            entry.ends_with(command(number).as_bytes()),
            "{told}: entry {index}"
        );
    }
}

/// The next life, after an orderly end, a kill, or a power cut.
fn judge_next(disk: &SimFs, done: u32, maybe: u32, told: &str) {
    let cuts = [disk.fork().kill(), keep_synced(disk), disk.crash(u64::from(done))];
    for (number, next) in cuts.iter().enumerate() {
        let told = format!("{told}, cut {number}");
        let world = try_world(next, List::default(), EngineConfig::new());
        let world = world.unwrap_or_else(|e| panic!("{told}: {e:?}"));
        let count = u32::try_from(world.commands().len()).unwrap();
        assert!(
            (done..=maybe).contains(&count),
            "{told}: {count}, not {done} to {maybe}"
        );
        assert!(world.engine.report().refused.is_empty(), "{told}");
        judge(&world, count, &told);
        world.execute(count..count + 1);
        world
            .engine
            .checkpoint()
            .unwrap_or_else(|e| panic!("{told}: {e:?}"));
    }
}

type MakeFault = fn() -> Fault;

/// Each with its name, and the kinds of error that a checkpoint may end with by it.
const FAULTS: [(&str, MakeFault, &[ErrorKind]); 5] = [
    (
        "EIO",
        Fault::io_error,
        &[ErrorKind::Io, ErrorKind::Unknown, ErrorKind::Closed],
    ),
    (
        "ENOSPC",
        Fault::no_space,
        &[ErrorKind::NoSpace, ErrorKind::Unknown, ErrorKind::Closed],
    ),
    ("a short write", || Fault::Short(7), &[]),
    (
        "EINTR",
        || Fault::Interrupted,
        &[ErrorKind::Io, ErrorKind::Unknown],
    ),
    (
        "EIO of a call that was done",
        || Fault::ErrorAfter(everlog::fs::Failure::Os(5)),
        &[ErrorKind::Io, ErrorKind::Unknown, ErrorKind::Closed],
    ),
];

/// One checkpoint with a fault at one of its calls, and what comes after; how many calls the checkpoint made.
fn run(nth: u64, number: usize, forever: bool) -> u64 {
    let (name, fault, kinds) = FAULTS[number];
    let told = format!("{name} at call {nth} of a checkpoint, for ever: {forever}");
    let disk = before();
    let fs = FaultFs::new(dynamic(&disk));
    let world = world_on(Arc::new(fs.clone()), store_config()).expect("the disk is fine");
    let calls = fs.calls();
    let rule = Rule::on_any(fault()).nth(nth);
    let watch = fs.add(if forever { rule.forever() } else { rule });
    let taken = world.engine.checkpoint();
    let calls = fs.calls() - calls;
    if watch.fired() == 0 {
        // There is no such call in it, or the fault makes no sense there.
        assert!(taken.is_ok(), "{told}: {taken:?}");
        return calls;
    }
    let told = format!("{told}: {:?}", taken.as_ref().err());
    if let Err(error) = &taken {
        assert!(kinds.contains(&error.kind()), "{told}");
        assert!(!error.to_string().is_empty());
    }
    if !forever {
        judge(&world, 11, &told);
    }
    // While the disk still fails: a command is done, or its caller is told what became of it.
    let refused = world.engine.execute(command(11)).err();
    let maybe = match refused.as_ref().map(Error::kind) {
        None => 12,
        Some(ErrorKind::Unknown) => 12,
        Some(ErrorKind::NoSpace | ErrorKind::Closed | ErrorKind::Io) => 11,
        Some(kind) => panic!("{told}: {kind:?}"),
    };
    assert!(
        forever || refused.is_none(),
        "{told}: one fault, and commands end: {refused:?}"
    );
    let done = if refused.is_none() { 12 } else { 11 };
    watch.remove();
    judge(&world, done, &told);
    let next = world.engine.execute(command(done));
    let goes_on = match next.map_err(|error| error.kind()) {
        Ok(_) => true,
        // Two failures in a row end a journal for good.
        Err(ErrorKind::Closed | ErrorKind::Unknown) if forever => false,
        Err(kind) => panic!("{told}: the disk works again, and a command is {kind:?}"),
    };
    let done = done + u32::from(goes_on);
    if goes_on {
        let again = world
            .engine
            .checkpoint()
            .unwrap_or_else(|e| panic!("{told}, and again: {e:?}"));
        assert_eq!(
            again.snapshot.map(|snapshot| snapshot.covers.index + 1),
            Some(done.into()),
            "{told}"
        );
        assert_eq!(world.commands(), commands(0..done), "{told}");
        let list = world.store.list().unwrap();
        assert!(world.engine.log().bounds().unwrap().start <= list.last().unwrap().covers.index + 1);
        drop(world);
        let world = try_world(&keep_synced(&disk), List::default(), EngineConfig::new());
        let world = world.unwrap_or_else(|e| panic!("{told}: {e:?}"));
        assert_eq!(world.commands(), commands(0..done), "{told}");
        assert_eq!(world.engine.report().replayed_entries, 0, "{told}");
    } else {
        judge_next(&disk, done, maybe.max(done), &told);
    }
    calls
}

#[test]
fn a_call_that_fails_in_a_checkpoint_takes_nothing_with_it() {
    let (mut nth, mut states, mut failed) = (1, 0, 0);
    loop {
        let mut calls = 0;
        for number in 0..FAULTS.len() {
            for forever in [false, true].into_iter().take(if number < 2 { 2 } else { 1 }) {
                match std::panic::catch_unwind(|| run(nth, number, forever)) {
                    Ok(made) => calls = calls.max(made),
                    Err(_) => failed += 1,
                }
                states += 1;
            }
        }
        if nth > calls {
            break;
        }
        nth += 1;
    }
    assert_eq!(failed, 0, "of {states} runs; each said why");
    assert!(nth > 40, "{nth} calls");
    println!("figure: engine: faults at each of {nth} calls of a checkpoint, {states} runs");
}

/// Right after a checkpoint that failed the power goes.
#[test]
fn a_power_cut_after_a_failed_checkpoint_loses_nothing() {
    for nth in (1..80).step_by(3) {
        for (name, fault, _) in &FAULTS[..2] {
            let disk = before();
            let fs = FaultFs::new(dynamic(&disk));
            let world = world_on(Arc::new(fs.clone()), store_config()).expect("the disk is fine");
            fs.add(Rule::on_any(fault()).nth(nth).forever());
            let taken = world.engine.checkpoint();
            judge_next(&disk, 11, 11, &format!("{name} from call {nth} on: {taken:?}"));
        }
    }
}

/// How much room there is decides how far a checkpoint comes. Commands have the journal's files, which stand ready.
#[test]
fn a_full_disk_takes_no_checkpoint_and_leaves_all_that_was() {
    let (mut failed, mut succeeded) = (0, 0);
    for blocks in 0..12 {
        let told = format!("a disk with {blocks} blocks left");
        let disk = before();
        let world = super::machine::world(&disk);
        while world.engine.work().unwrap() {}
        let space = disk.space().unwrap();
        disk.set_capacity(space.total - space.free + blocks * 4096);
        match world.engine.checkpoint() {
            Ok(_) => succeeded += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{told}: {error:?}");
                failed += 1;
            }
        }
        judge(&world, 11, &told);
        world.execute(11..12);
        let failures = world.engine.metrics().checkpoints_failed;
        disk.set_capacity(u64::MAX);
        let again = world
            .engine
            .checkpoint()
            .unwrap_or_else(|e| panic!("{told}: {e:?}"));
        assert_eq!(again.snapshot.unwrap().covers.index, 11, "{told}");
        assert_eq!(world.engine.metrics().checkpoints_failed, failures, "{told}");
        drop(world);
        let world = super::machine::world(&keep_synced(&disk));
        assert_eq!(world.commands(), commands(0..12), "{told}");
        assert_eq!(world.engine.report().replayed_entries, 0, "{told}");
    }
    assert!(
        failed > 0 && succeeded > 0,
        "{failed} failed, {succeeded} did not"
    );
}

/// A store that does not read back what it wrote is read by the checkpoint: nothing is purged on the word of memory.
#[test]
fn what_a_checkpoint_wrote_is_read_before_anything_is_purged() {
    let disk = before();
    let fs = FaultFs::new(dynamic(&disk));
    let store = store_config().read_back(false);
    let world = world_on(Arc::new(fs.clone()), store).expect("the disk is fine");
    let start = world.engine.log().bounds().unwrap().start;
    let flip = Fault::FlipBit { byte: 100, bit: 3 };
    let flipped = fs.add(Rule::on(Op::Write, flip).path("snapshots/").nth(1));
    let error = world.engine.checkpoint().unwrap_err();
    assert_eq!(flipped.fired(), 1);
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(
        world.engine.log().bounds().unwrap().start,
        start,
        "nothing was purged"
    );
    assert_eq!(
        world.store.list().unwrap().len(),
        2,
        "and nothing else was removed"
    );
    world.execute(11..12);
    let again = world.engine.checkpoint().unwrap();
    assert_eq!(again.snapshot.unwrap().covers.index, 11);
    drop(world);
    let world = super::machine::world(&keep_synced(&disk));
    assert_eq!(world.commands(), commands(0..12));
}

/// A sync that failed in the journal's own write of the purge is the journal's to survive; the snapshot stands already.
#[test]
fn a_failed_sync_of_the_purge_is_survived() {
    let disk = before();
    let world = super::machine::world(&disk);
    disk.fail_sync(".seg", 0, Kept::Nothing);
    let done = world.engine.checkpoint().unwrap();
    assert!(
        done.snapshot.is_some() && done.purged_through.is_some(),
        "{done:?}"
    );
    world.execute(11..12);
    drop(world);
    let world = super::machine::world(&keep_synced(&disk));
    assert_eq!(world.commands(), commands(0..12));
}

/// A snapshot that does not read back is none: the next checkpoint takes another, although nothing was applied since, and until then no
/// entry goes because of it.
#[test]
fn a_first_snapshot_that_does_not_read_back_is_taken_again() {
    let disk = disk(1);
    let fs = FaultFs::new(dynamic(&disk));
    let journal = Journal::open_or_create_on(Arc::new(fs.clone()), small()).unwrap();
    let store = Store::open_on(Arc::new(fs.clone()), store_config().read_back(false)).unwrap();
    let open = || {
        Engine::open(
            &journal,
            A,
            &store,
            List::default(),
            EngineConfig::new().retain(1),
        )
        .unwrap()
    };
    let engine = open();
    (0..4).for_each(|number| drop(engine.execute(command(number)).unwrap()));
    let flip = |nth| {
        let flip = Fault::FlipBit { byte: 100, bit: 3 };
        fs.add(Rule::on(Op::Write, flip).path("snapshots/").nth(nth))
    };
    let flipped = flip(1);
    assert_eq!(engine.checkpoint().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(flipped.fired(), 1);
    assert_eq!(engine.log().bounds().unwrap(), 0..4);
    assert!(store.list().unwrap().is_empty());
    let done = engine.checkpoint().unwrap();
    let taken = done.snapshot.expect("the damaged one was no snapshot");
    assert!(!store.is_damaged(taken.id));
    assert_eq!(done.purged_through, Some(taken.covers));
    drop((engine, journal, store));
    let world = try_world(&keep_synced(&disk), List::default(), EngineConfig::new()).unwrap();
    assert_eq!(world.commands(), commands(0..4));
}
