//! Snapshots that rot at a bad time: known or not, one or several, alone or in what they share. As long as the log or one sound snapshot
//! could have been kept, nothing is lost.

use std::sync::Arc;

use everlog::engine::{Engine, EngineConfig};
use everlog::fs::{Fault, FaultFs, Op, Rule, SimFs};
use everlog::snapshot::Store;
use everlog::{ErrorKind, Journal};

use super::machine::{List, base, command, commands, state, store_config, try_world, world};
use super::snapshots::{new_packs, spoil_new_packs};
use super::support::{A, disk, keep_synced, small};

/// After a power cut all of so many commands are there.
fn opens_with(disk: &SimFs, count: u32, story: &str) {
    let (journal, store) = base(&keep_synced(disk)).unwrap();
    let engine = Engine::open(&journal, A, &store, List::default(), EngineConfig::new());
    let engine = engine.unwrap_or_else(|e| panic!("{count} commands were replied to; {story}: {e}"));
    assert_eq!(state(&engine), commands(0..count), "{story}");
}

#[test]
fn a_snapshot_that_is_known_to_be_damaged_lets_no_log_go() {
    let disk = disk(1);
    let world = world(&disk);
    let before = disk.fork();
    world.execute(0..4);
    let first = world.engine.checkpoint().unwrap().snapshot.unwrap();
    spoil_new_packs(&disk, &before);
    assert!(!world.store.verify(first.id).unwrap().damage.is_empty());
    let before = disk.fork();
    world.execute(4..8);
    let done = world.engine.checkpoint().unwrap();
    spoil_new_packs(&disk, &before);
    drop(world);
    opens_with(&disk, 8, &format!("purged through {:?}", done.purged_through));
}

/// Both rot, and a check says so. The state is whole in memory, and nothing was applied since.
#[test]
fn a_checkpoint_replaces_a_newest_snapshot_that_is_known_to_be_damaged() {
    let disk = disk(1);
    let world = world(&disk);
    let before = disk.fork();
    for round in 0..2 {
        world.execute(round * 4..round * 4 + 4);
        world.engine.checkpoint().unwrap();
    }
    spoil_new_packs(&disk, &before);
    assert!(!world.store.verify_all().unwrap().damage.is_empty());
    let done = world.engine.checkpoint().unwrap();
    assert!(done.snapshot.is_some());
    drop(world);
    opens_with(&disk, 8, "the last checkpoint was whole");
}

/// A snapshot was refused by an opening. The next life has not seen that, and must not keep it in place of a good older one.
#[test]
fn a_refused_snapshot_is_no_fallback_in_the_next_life_either() {
    let mut disk = disk(1);
    {
        let world = world(&disk);
        for round in 0..3 {
            let before = disk.fork();
            world.execute(round * 4..round * 4 + 4);
            world.engine.checkpoint().unwrap();
            if round == 2 {
                spoil_new_packs(&disk, &before);
            }
        }
    }
    disk = keep_synced(&disk);
    let before = disk.fork();
    {
        let world = world(&disk);
        assert_eq!(world.engine.report().refused.len(), 1);
        world.execute(12..13);
        world.engine.checkpoint().unwrap();
    }
    let world = world(&disk);
    assert!(world.engine.report().refused.is_empty());
    let done = world.engine.checkpoint().unwrap();
    drop(world);
    spoil_new_packs(&disk, &before);
    opens_with(&disk, 13, &format!("{done:?}"));
}

/// One bit in a chunk that all snapshots share: how many are kept does not help, and the store trusts what it read a while ago.
#[test]
fn a_shared_chunk_that_rots_lets_no_log_go() {
    let disk = disk(1);
    let world = world(&disk);
    let before = disk.fork();
    for round in 0..3 {
        world.execute(round * 20..round * 20 + 20);
        world.engine.checkpoint().unwrap();
        if round == 0 {
            let (path, _) = new_packs(&disk, &before).remove(0);
            disk.flip_bit(&path, 80, 0).unwrap();
        }
    }
    // What was found is mended from the bytes in hand, and the log goes on being purged.
    world.execute(60..61);
    let done = world.engine.checkpoint().unwrap();
    assert!(done.purged_through.is_some(), "{done:?}");
    drop(world);
    opens_with(&disk, 61, "four checkpoints came after the bit");
}

/// The store does not read back (a setting), so the checkpoint does, and the index, too.
#[test]
fn a_checkpoint_reads_the_index_back() {
    let disk = disk(1);
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let journal = Journal::open_or_create_on(Arc::new(fs.clone()), small()).unwrap();
    let store = Store::open_on(Arc::new(fs.clone()), store_config().read_back(false)).unwrap();
    let config = EngineConfig::new().retain(1);
    let engine = Engine::open(&journal, A, &store, List::default(), config.clone()).unwrap();
    for number in 0..4 {
        engine.execute(command(number)).unwrap();
    }
    fs.add(Rule::on(Op::Write, Fault::FlipBit { byte: 100, bit: 0 }).path(".snap"));
    let error = engine.checkpoint().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    drop((engine, journal, store));
    let world = try_world(&keep_synced(&disk), List::default(), config).unwrap();
    assert_eq!(world.commands(), commands(0..4));
}

/// The index rots when it was read back long ago: the log does not go on its account.
#[test]
fn a_fallback_is_read_with_its_index() {
    let disk = disk(1);
    let world = world(&disk);
    let before = disk.fork();
    world.execute(0..4);
    world.engine.checkpoint().unwrap();
    let old = before.files();
    let mut indexes = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".snap"));
    let (path, _) = indexes.find(|(path, _)| !old.contains_key(path)).unwrap();
    disk.flip_bit(&path, 100, 0).unwrap();
    let before = disk.fork();
    world.execute(4..8);
    let done = world.engine.checkpoint().unwrap();
    assert_eq!(done.purged_through, None);
    spoil_new_packs(&disk, &before);
    drop(world);
    opens_with(&disk, 8, "only the log is left");
}

/// Of an old pack a sector cannot be read: space is not freed for a while, and the log is purged all the same.
#[test]
fn a_bad_sector_ends_no_checkpoints() {
    let disk = disk(1);
    let (journal, _) = base(&disk).unwrap();
    let rewrites = store_config().rewrite_below_percent(100);
    let store = Store::open_on(Arc::new(disk.clone()), rewrites).unwrap();
    let engine = Engine::open(&journal, A, &store, List::default(), EngineConfig::new()).unwrap();
    let mut done = 0;
    let mut more = |count| {
        for _ in 0..count {
            engine.execute(command(done)).unwrap();
            done += 1;
        }
        engine.checkpoint()
    };
    let before = disk.fork();
    more(30).unwrap();
    more(1).unwrap();
    let packs = new_packs(&disk, &before).into_iter();
    let (path, _) = packs.max_by_key(|(_, len)| *len).unwrap();
    disk.set_unreadable(&path, 1..2, true).unwrap();
    let outcomes: Vec<_> = (0..5).map(|_| more(1)).collect();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:#?}");
    let last = outcomes.last().unwrap().as_ref().unwrap();
    assert!(last.purged_through.is_some(), "{outcomes:#?}");
}

/// Whichever read of a snapshot fails, another one or the log gives the same state and the same replies.
#[test]
fn a_read_error_of_the_newest_snapshot_changes_no_state() {
    let disk = disk(1);
    let world = world(&disk);
    for round in 0..3 {
        world.execute(round * 4..round * 4 + 4);
        world.engine.execute_once(7, u64::from(round), "once").unwrap();
        world.engine.checkpoint().unwrap();
    }
    let before = world.commands();
    drop(world);
    for nth in 1..12 {
        let disk = keep_synced(&disk);
        let fs = FaultFs::new(Arc::new(disk.clone()));
        let journal = Journal::open_or_create_on(Arc::new(fs.clone()), small()).unwrap();
        let store = Store::open_on(Arc::new(fs.clone()), store_config()).unwrap();
        fs.add(Rule::on(Op::Read, Fault::io_error()).path(".pack").nth(nth));
        match Engine::open(&journal, A, &store, List::default(), EngineConfig::new()) {
            Ok(engine) => {
                assert_eq!(state(&engine), before, "read {nth}");
                engine.execute_once(7, 2, "once").unwrap();
                assert_eq!(state(&engine), before, "read {nth}");
            }
            Err(error) => assert!(
                [ErrorKind::Io, ErrorKind::Damaged].contains(&error.kind()),
                "read {nth}: {error}"
            ),
        }
    }
}

#[test]
fn what_clients_were_told_survives_a_fallback() {
    let disk = disk(1);
    let few = || EngineConfig::new().clients(2);
    let world = try_world(&disk, List::default(), few()).unwrap();
    let mut before = disk.fork();
    for round in 0..4u64 {
        before = disk.fork();
        for client in 0..3 {
            let text = format!("{client} {round}");
            world.engine.execute_once(client, round, text).unwrap();
        }
        world.engine.checkpoint().unwrap();
    }
    spoil_new_packs(&disk, &before);
    let then = world.commands();
    drop(world);
    let world = try_world(&keep_synced(&disk), List::default(), few()).unwrap();
    assert_eq!(world.engine.report().refused.len(), 1);
    assert_eq!(world.commands(), then);
    for client in 1..3 {
        world.engine.execute_once(client, 3, "again").unwrap();
    }
    assert_eq!(world.commands(), then);
}
