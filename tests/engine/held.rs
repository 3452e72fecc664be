//! Several engines in one journal, and what nobody else may do to their logs.

use everlog::engine::{Engine, EngineConfig};
use everlog::snapshot::Store;
use everlog::{EntryId, ErrorKind, Journal, WriteBatch};

use super::machine::{B, List, base, command, commands, state, world};
use super::support::{A, disk, keep_synced};

#[test]
fn two_engines_stand_in_one_journal_and_one_store() {
    let mut disk = disk(1);
    for round in 0..5 {
        let (journal, store) = base(&disk).unwrap();
        let open = |key| Engine::open(&journal, key, &store, List::default(), EngineConfig::new()).unwrap();
        let (a, b) = (open(A), open(B));
        assert_eq!(state(&a), commands(0..round));
        assert_eq!(state(&b), commands(0..round * 2));
        a.execute(command(round)).unwrap();
        b.execute(command(round * 2)).unwrap();
        a.checkpoint().unwrap();
        b.execute(command(round * 2 + 1)).unwrap();
        if round % 2 == 0 {
            b.checkpoint().unwrap();
        }
        drop((a, b, journal, store));
        disk = keep_synced(&disk);
    }
}

#[test]
fn the_log_of_an_engine_takes_nothing_from_others() {
    let world = world(&disk(1));
    world.execute(0..4);
    let log = world.journal.log(A).unwrap();
    let kind = |done: everlog::Result<()>| done.unwrap_err().kind();
    assert_eq!(kind(log.append(b"x").map(drop)), ErrorKind::Busy);
    assert_eq!(
        kind(log.append_at(EntryId::new(1, 4), b"x").map(drop)),
        ErrorKind::Busy
    );
    assert_eq!(kind(log.purge_to(2)), ErrorKind::Busy);
    assert_eq!(kind(log.truncate_from(4)), ErrorKind::Busy);
    assert_eq!(kind(log.reset(EntryId::new(1, 9))), ErrorKind::Busy);
    assert_eq!(kind(world.journal.delete_log(A)), ErrorKind::Busy);
    assert_eq!(kind(log.set(255, b"x")), ErrorKind::Busy, "the engine's own cell");
    for applied in 0..4 {
        assert_eq!(
            kind(log.truncate_from(applied)),
            ErrorKind::Invalid,
            "{applied} was applied"
        );
    }
    let mut batch = WriteBatch::new();
    batch.append(A, b"x");
    assert_eq!(kind(world.journal.write(batch).map(drop)), ErrorKind::Busy);
    log.set(1, b"a cell of the owner").unwrap();
    let second = Engine::open(
        &world.journal,
        A,
        &world.store,
        List::default(),
        EngineConfig::new(),
    );
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Busy);
    let clone = world.engine.clone();
    world.engine.close().unwrap();
    assert_eq!(clone.execute(command(4)).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(clone.read(|_| ()).unwrap_err().kind(), ErrorKind::Closed);
    log.append(b"x").unwrap();
}

#[test]
fn a_log_of_somebody_else_is_refused() {
    let (journal, store) = base(&disk(1)).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    log.append(b"\x07 what no engine wrote").unwrap();
    let error = Engine::open(&journal, A, &store, List::default(), EngineConfig::new()).unwrap_err();
    assert_eq!(
        (error.kind(), error.entry()),
        (ErrorKind::Unsupported, Some(EntryId::new(0, 0)))
    );
    log.append(b"it was let go").unwrap();
}

/// Entries that were written raw, and relaxed, before an engine stood on the log are applied by its opening; so they are durable then.
#[test]
fn what_an_opening_applies_is_durable() {
    let disk = disk(1);
    let world = world(&disk);
    world.execute(0..1);
    let entry = world.engine.log().get(0).unwrap().to_vec();
    let raw = world.journal.create_log(B, 0).unwrap();
    raw.append_relaxed(&entry).unwrap();
    let open = |journal: &Journal, store: &Store| {
        Engine::open(journal, B, store, List::default(), EngineConfig::new()).unwrap()
    };
    let engine = open(&world.journal, &world.store);
    assert_eq!(state(&engine), commands(0..1));
    let cut = keep_synced(&disk);
    drop((engine, raw, world));
    let (journal, store) = base(&cut).unwrap();
    assert_eq!(state(&open(&journal, &store)), commands(0..1));
}

/// The journal itself says again what it must of a log that somebody stands on.
#[test]
fn space_is_freed_below_a_log_that_an_engine_stands_on() {
    let world = world(&disk(1));
    world.execute(0..2);
    world
        .journal
        .log(A)
        .unwrap()
        .set(1, b"a cell in the oldest segment")
        .unwrap();
    let other = world.journal.create_log(B, 0).unwrap();
    for _ in 0..200 {
        other.append([7; 1000]).unwrap();
    }
    other.purge_to(200).unwrap();
    // Two, as the log behind the older one is kept, too.
    for round in 1..3 {
        world.execute(2 * round..2 * round + 2);
        world.engine.checkpoint().unwrap();
    }
    world.journal.reclaim().unwrap();
    let freed = world.journal.metrics().segments_freed;
    assert!(freed > 1, "{freed} segments were freed");
    assert_eq!(world.commands(), commands(0..6));
}
