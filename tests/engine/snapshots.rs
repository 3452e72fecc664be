//! Snapshots that do not verify, and snapshots and logs that do not belong together.

use std::io::{Read, Write};

use everlog::engine::{Engine, EngineConfig, Progress};
use everlog::fs::SimFs;
use everlog::snapshot::{Draft, Origin, Snapshot, Store};
use everlog::{EntryId, ErrorKind};

use super::machine::{List, base, command, commands, try_world, world};
use super::support::{A, disk, keep_synced};

/// The packs that came since `before`, with their lengths.
pub(crate) fn new_packs(disk: &SimFs, before: &SimFs) -> Vec<(String, u64)> {
    let old = before.files();
    let packs = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".pack"));
    packs.filter(|(path, _)| !old.contains_key(path)).collect()
}

/// Spoils the packs that came since `before`.
pub(crate) fn spoil_new_packs(disk: &SimFs, before: &SimFs) {
    let packs = new_packs(disk, before);
    assert!(!packs.is_empty(), "there was no new pack");
    for (path, len) in packs {
        disk.corrupt(&path, 64..len, 1).unwrap();
    }
}

/// Three checkpoints, the last of which is damaged, and a command behind it.
fn damaged_newest() -> SimFs {
    let disk = disk(1);
    let world = world(&disk);
    for round in 0..3 {
        let before = disk.fork();
        world.execute(round * 4..round * 4 + 4);
        world.engine.checkpoint().unwrap();
        if round == 2 {
            spoil_new_packs(&disk, &before);
        }
    }
    world.execute(12..13);
    drop(world);
    keep_synced(&disk)
}

#[test]
fn a_snapshot_that_does_not_verify_is_passed_over_and_nothing_is_lost() {
    let disk = damaged_newest();
    let world = world(&disk);
    assert_eq!(world.commands(), commands(0..13));
    let report = world.engine.report();
    assert_eq!(report.refused.len(), 1);
    assert_eq!(report.refused[0].0.covers.index, 11);
    assert_eq!(report.refused[0].1.kind(), ErrorKind::Damaged);
    assert_eq!(report.snapshot.as_ref().unwrap().covers.index, 7);
    assert_eq!(report.replayed_entries, 5);
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning.contains("fell back")),
        "{report:?}"
    );
    // The damaged one does not count among the two that are kept.
    world.engine.checkpoint().unwrap();
    assert!(
        world.engine.log().bounds().unwrap().start <= 8,
        "{:?}",
        world.engine.log().bounds()
    );
    world.execute(13..14);
    world.engine.checkpoint().unwrap();
    drop(world);
    let world = super::machine::world(&keep_synced(&disk));
    assert_eq!(world.commands(), commands(0..14));
    assert!(world.engine.report().refused.is_empty());
}

#[test]
fn the_first_snapshot_may_rot_while_the_log_is_whole() {
    let disk = disk(1);
    let world = world(&disk);
    let before = disk.fork();
    world.execute(0..5);
    let done = world.engine.checkpoint().unwrap();
    assert_eq!(done.purged_through, None, "there is nothing to fall back to yet");
    spoil_new_packs(&disk, &before);
    drop(world);
    let world = super::machine::world(&keep_synced(&disk));
    assert_eq!(world.commands(), commands(0..5));
    assert_eq!(world.engine.report().snapshot, None);
}

#[test]
fn a_log_that_begins_behind_the_snapshot_is_damage_and_both_are_named() {
    let disk = damaged_newest();
    let (journal, store) = base(&disk).unwrap();
    journal.log(A).unwrap().purge_to(12).unwrap();
    let error = Engine::open(&journal, A, &store, List::default(), EngineConfig::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let older = store
        .list()
        .unwrap()
        .into_iter()
        .find(|s| s.covers.index == 7)
        .unwrap();
    let text = error.to_string();
    assert!(
        text.contains("begins at 12") && text.contains(&older.id.to_string()),
        "{text}"
    );
}

#[test]
fn a_log_that_ends_before_its_checkpoint_is_damage_until_somebody_accepts_it() {
    let disk = disk(1);
    let world = world(&disk);
    world.execute(0..6);
    let covers = world.engine.checkpoint().unwrap().snapshot.unwrap().covers;
    drop(world);
    let disk = keep_synced(&disk);
    let (journal, store) = base(&disk).unwrap();
    let log = journal.log(A).unwrap();
    log.truncate_from(4).unwrap();
    let open = || Engine::open(&journal, A, &store, List::default(), EngineConfig::new());
    let error = open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(open().unwrap_err().kind(), ErrorKind::Damaged, "it stays so");
    log.reset(covers).unwrap();
    let engine = open().unwrap();
    assert_eq!(super::machine::state(&engine), commands(0..6));
    assert_eq!(engine.submit(command(6)).unwrap().id(), EntryId::new(0, 6));
    drop(engine);
    journal.delete_log(A).unwrap();
    let error = open().unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Damaged,
        "a log that is gone is not a new one: {error}"
    );
}

/// Copies a snapshot to where it was not made.
pub(crate) fn install(from: &Store, snapshot: &Snapshot, into: &Store) -> Snapshot {
    let mut bytes = Vec::new();
    from.reader(snapshot.id).unwrap().read_to_end(&mut bytes).unwrap();
    let draft = Draft::new(snapshot.log, snapshot.covers)
        .origin(Origin::Installed)
        .metadata(snapshot.metadata.clone());
    let mut creation = into.create(draft).unwrap();
    creation.write_all(&bytes).unwrap();
    creation.commit().unwrap().snapshot
}

#[test]
fn an_installed_snapshot_resets_the_log_that_does_not_reach_it() {
    let source = world(&disk(1));
    source.execute(0..9);
    let snapshot = source.engine.checkpoint().unwrap().snapshot.unwrap();
    for had in [0, 3] {
        let disk = disk(2);
        let target = world(&disk);
        target.execute(0..had);
        drop(target.engine);
        install(&source.store, &snapshot, &target.store);
        drop((target.journal, target.store));
        // The power goes before anybody resets the log, and again behind the reset.
        let target = super::machine::world(&keep_synced(&disk));
        assert_eq!(target.engine.report().reset_to, Some(snapshot.covers));
        assert_eq!(target.commands(), commands(0..9));
        assert_eq!(target.engine.log().bounds().unwrap(), 9..9);
        target.execute(9..10);
        assert_eq!(target.engine.applied(), Some(EntryId::new(0, 9)));
    }
}

#[test]
fn a_checkpoint_is_taken_when_it_is_due_and_by_whoever_works() {
    let disk = disk(1);
    let config = EngineConfig::new().checkpoint_entries(4);
    let world = try_world(&disk, List::default(), config).unwrap();
    world.execute(0..3);
    while world.engine.work().unwrap() {}
    assert_eq!(world.engine.metrics().checkpoints, 0);
    world.execute(3..4);
    while world.engine.work().unwrap() {}
    let metrics = world.engine.metrics();
    assert_eq!(
        (metrics.checkpoints, metrics.tail_entries, metrics.applied),
        (1, 0, 4)
    );
    assert_eq!(world.store.list().unwrap().len(), 1);
}

#[test]
fn opening_tells_how_far_it_is() {
    use std::sync::{Arc, Mutex};
    let disk = disk(1);
    let before = world(&disk);
    before.execute(0..20);
    before.engine.checkpoint().unwrap();
    before.execute(20..30);
    drop(before);
    let told = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&told);
    let config = EngineConfig::new().progress(move |progress| into.lock().unwrap().push(progress));
    let world = try_world(&disk, List::default(), config).unwrap();
    assert_eq!(world.commands(), commands(0..30));
    let told = told.lock().unwrap();
    let restored = told
        .iter()
        .any(|p| matches!(p, Progress::Restore { bytes, of } if bytes == of));
    assert!(restored, "{told:?}");
    assert_eq!(told.last(), Some(&Progress::Replay { entries: 10, of: 10 }));
}
