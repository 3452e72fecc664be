//! Machines that cannot apply an entry, and journals that fail beneath an engine.

use everlog::engine::{Engine, EngineConfig, skip};
use everlog::fs::Kept;
use everlog::snapshot::Store;
use everlog::{EntryId, ErrorKind, Journal};

use super::machine::{List, base, command, commands, state, try_world, world};
use super::snapshots::spoil_new_packs;
use super::support::{A, disk, keep_synced};

#[test]
fn a_panic_in_apply_names_the_entry_and_closes_the_engine() {
    let disk = disk(1);
    let world = world(&disk);
    world.execute(0..3);
    world.engine.checkpoint().unwrap();
    let entry = Some(EntryId::new(0, 3));
    let error = world.engine.execute("boom").unwrap_err();
    assert_eq!((error.kind(), error.entry()), (ErrorKind::ApplyFailed, entry));
    let later = world.engine.execute(command(4)).unwrap_err();
    assert_eq!((later.kind(), later.entry()), (ErrorKind::Closed, entry));
    let read = world.engine.read(|list| list.commands.len()).unwrap_err();
    assert_eq!((read.kind(), read.entry()), (ErrorKind::Closed, entry));
    let checkpoint = world.engine.checkpoint().unwrap_err();
    assert_eq!(
        checkpoint.kind(),
        ErrorKind::ApplyFailed,
        "half an effect is never kept"
    );
    assert_eq!(world.store.list().unwrap().len(), 1);
    assert!(
        world.engine.log().get(3).unwrap().ends_with(b"boom"),
        "the log can be read"
    );
    let closed = world.engine.close().unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::ApplyFailed);
    drop((world.journal, world.store));

    for _ in 0..2 {
        let (journal, store) = base(&disk).unwrap();
        let error = Engine::open(&journal, A, &store, List::default(), EngineConfig::new()).unwrap_err();
        assert_eq!(
            (error.kind(), error.entry()),
            (ErrorKind::ApplyFailed, entry),
            "it says the same"
        );
    }
    let brave = try_world(&disk, List::brave(), EngineConfig::new()).unwrap();
    assert_eq!(brave.commands().len(), 4, "a machine that can apply it goes on");
}

#[test]
fn commands_behind_a_panic_are_durable_and_wait_for_the_next_opening() {
    let disk = disk(1);
    let world = world(&disk);
    let replies: Vec<_> = ["a", "boom", "b"]
        .map(|text| world.engine.submit(text).unwrap())
        .into();
    while world.engine.work().unwrap() {}
    let answers: Vec<_> = replies.into_iter().map(|reply| reply.wait()).collect();
    assert_eq!(answers[0].as_ref().unwrap(), "1");
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::ApplyFailed);
    assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::Unknown);
    drop(world);
    let brave = try_world(&disk, List::brave(), EngineConfig::new()).unwrap();
    assert_eq!(brave.commands(), ["a", "boom", "b"]);
}

#[test]
fn a_skip_is_explicit_durable_and_reported_for_ever() {
    let mut disk = disk(1);
    let world = world(&disk);
    world.execute(0..2);
    let entry = world.engine.execute("boom").unwrap_err().entry().unwrap();
    let busy = skip(&world.journal, &world.store, A, entry).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "not under a living engine");
    drop(world.engine);
    let wrong = skip(&world.journal, &world.store, A, EntryId::new(9, 2)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid);
    let beyond = skip(&world.journal, &world.store, A, EntryId::new(0, 3)).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::NotFound);
    skip(&world.journal, &world.store, A, entry).unwrap();
    skip(&world.journal, &world.store, A, entry).unwrap();
    // The power goes at once.
    disk = keep_synced(&disk);
    for round in 2..8 {
        let world = super::machine::world(&disk);
        assert_eq!(world.commands(), commands(0..round));
        assert_eq!(world.engine.report().skipped, [entry], "round {round}");
        world.execute(round..round + 1);
        world.engine.checkpoint().unwrap();
        drop(world);
        disk = keep_synced(&disk);
    }
    let (journal, store) = base(&disk).unwrap();
    let purged = skip(&journal, &store, A, entry).unwrap_err();
    assert_eq!(purged.kind(), ErrorKind::Purged);
}

#[test]
fn nothing_is_applied_before_it_is_durable() {
    let disk = disk(1);
    let world = world(&disk);
    let reply = world.engine.submit("a").unwrap();
    assert_eq!(state(&world.engine), Vec::<String>::new());
    assert_eq!(world.engine.applied(), None);
    assert_eq!(reply.wait().unwrap(), "1");
    assert_eq!(state(&world.engine), ["a"]);
}

#[test]
fn a_command_whose_sync_failed_twice_is_unknown_and_not_applied() {
    let disk = disk(1);
    let world = world(&disk);
    world.execute(0..2);
    for _ in 0..4 {
        disk.fail_sync("", 0, Kept::Nothing);
    }
    let error = world.engine.execute(command(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert_eq!(world.commands(), commands(0..2), "what was applied can be read");
    let later = world.engine.execute(command(3)).unwrap_err();
    assert_eq!(later.kind(), ErrorKind::Closed, "{later}");
    drop(world);
    let world = super::machine::world(&disk.crash(3));
    let found = world.commands();
    assert!(found == commands(0..2) || found == commands(0..3), "{found:?}");
}

#[test]
fn a_batch_is_applied_in_one_piece() {
    let world = world(&disk(1));
    assert_eq!(
        world.engine.execute_batch(["a", "b", "c"]).unwrap(),
        ["1", "2", "3"]
    );
    assert!(
        world
            .engine
            .execute_batch(Vec::<String>::new())
            .unwrap()
            .is_empty()
    );
    assert_eq!(state(&world.engine), ["a", "b", "c"]);
}

/// The power goes off as soon as `skip` has returned, before anybody else could have synced for it.
#[test]
fn a_skip_that_returned_is_there_after_a_power_cut() {
    let disk = disk(1);
    let world = world(&disk);
    world.execute(0..2);
    let entry = world.engine.execute("boom").unwrap_err().entry().unwrap();
    drop((world.engine, world.journal, world.store));
    let (journal, store) = base(&disk).unwrap();
    skip(&journal, &store, A, entry).unwrap();
    let cut = keep_synced(&disk);
    drop((journal, store));
    let world = try_world(&cut, List::default(), EngineConfig::new()).unwrap();
    assert_eq!(world.engine.report().skipped, [entry]);
}

/// Otherwise it would depend on which snapshot verifies whether the state lacks the effect.
#[test]
fn what_a_snapshot_holds_cannot_be_skipped() {
    let disk = disk(1);
    let world = world(&disk);
    let before = disk.fork();
    world.execute(0..4);
    world.engine.checkpoint().unwrap();
    drop(world.engine);
    let refused = skip(&world.journal, &world.store, A, EntryId::new(0, 1)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    drop((world.journal, world.store));
    let rotten = disk.fork();
    spoil_new_packs(&rotten, &before);
    for disk in [&disk, &rotten] {
        let world = super::machine::world(&keep_synced(disk));
        assert_eq!(world.commands(), commands(0..4));
        assert!(world.engine.report().skipped.is_empty());
    }
}

/// An entry was skipped; the log loses its end, and its owner accepts that. The next command gets the index of the entry, and is another one.
#[test]
fn a_skip_goes_with_its_entry() {
    let disk = disk(1);
    let world = world(&disk);
    world.execute(0..6);
    let covers = world.engine.checkpoint().unwrap().snapshot.unwrap().covers;
    let entry = world.engine.execute("boom").unwrap_err().entry().unwrap();
    drop(world.engine);
    skip(&world.journal, &world.store, A, entry).unwrap();
    let log = world.journal.log(A).unwrap();
    log.truncate_from(4).unwrap(); // stands for what was lost
    log.reset(covers).unwrap();
    let open = |journal: &Journal, store: &Store| {
        Engine::open(journal, A, store, List::default(), EngineConfig::new()).unwrap()
    };
    let engine = open(&world.journal, &world.store);
    assert!(engine.report().skipped.is_empty());
    assert_eq!(engine.execute(command(6)).unwrap(), "7");
    drop((engine, log, world.journal, world.store));
    let (journal, store) = base(&keep_synced(&disk)).unwrap();
    assert_eq!(state(&open(&journal, &store)), commands(0..7));
}

/// As before, but there is another entry in its place when the engine is opened.
#[test]
fn an_entry_of_another_term_is_not_the_one_that_was_skipped() {
    let disk = disk(1);
    let world = world(&disk);
    world.execute(0..2);
    let entry = world.engine.execute("boom").unwrap_err().entry().unwrap();
    drop(world.engine);
    skip(&world.journal, &world.store, A, entry).unwrap();
    let log = world.journal.log(A).unwrap();
    let payload = log.get(1).unwrap();
    log.truncate_from(entry.index).unwrap();
    log.append_at(EntryId::new(3, entry.index), &payload).unwrap();
    drop((log, world.journal, world.store));
    let mut expected = commands(0..2);
    expected.extend(commands(1..2));
    let mut disk = disk;
    for round in 0..2 {
        let (journal, store) = base(&disk).unwrap();
        let engine = Engine::open(&journal, A, &store, List::default(), EngineConfig::new()).unwrap();
        assert_eq!(state(&engine), expected, "round {round}");
        assert!(engine.report().skipped.is_empty());
        drop((engine, journal, store));
        disk = keep_synced(&disk);
    }
}
