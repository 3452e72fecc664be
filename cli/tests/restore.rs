//! `restore`: the new journal is what the old one was, as far as that can be had; and nothing that is not whole opens.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{
    LOG, Place, World, command, damage_pack, everlog, flip, make_newer, segments, small, stored, story,
};
use everlog::inspect::View;
use everlog::snapshot::{Draft, Store, StoreConfig};
use everlog::{Config, EntryId, ErrorKind, Journal, LogKey};

fn commands(count: u32) -> Vec<String> {
    (0..count).map(command).collect()
}

/// Restores into `new`; returns what it says and the directory.
fn restore(place: &Place, more: &[&str]) -> (common::Said, String) {
    let target = place.path("new").display().to_string();
    let dir = place.dir();
    let args = ["restore", &dir, &target];
    (everlog(args.iter().chain(more)), target)
}

fn names(dir: &str) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|name| name.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn an_engine_finds_in_the_new_journal_what_it_would_find_in_the_old_one() {
    let place = Place::new();
    let dir = place.dir();
    let [_, newer] = story(&dir).map(|id| id.to_string());
    let (said, target) = restore(&place, &["--json"]);
    let objects = said.fine().objects();
    assert_eq!(objects.len(), 2);
    assert_eq!(
        (&objects[0]["log"], &objects[0]["snapshot"]),
        (&7.into(), &newer.into())
    );
    assert_eq!(
        (&objects[0]["entries"], &objects[0]["last"]),
        (&5.into(), &"0.34".into())
    );
    assert_eq!(names(&target), ["journal", "snapshots"]);
    let view = |dir: &str| View::open(dir, Config::new()).unwrap();
    assert_ne!(view(&dir).uuid(), view(&target).uuid());
    assert_eq!(objects[1]["uuid"], view(&target).uuid().to_string());
    assert_eq!(
        view(&target).log(LOG).unwrap().purged().unwrap(),
        Some(EntryId::new(0, 29))
    );
    everlog(["verify", &target]).fine();
    let world = World::open(&target).unwrap();
    assert_eq!(world.state(), commands(35));
    assert_eq!(world.engine.report().replayed_entries, 5);
    world.execute(35..40);
    world.checkpoint();
    world.close();
    assert_eq!(World::open(&target).unwrap().state(), commands(40));
    assert_eq!(
        World::open(&dir).unwrap().state(),
        commands(35),
        "the old one is as it was"
    );
}

#[test]
fn a_snapshot_that_does_not_verify_is_passed_over_and_told() {
    let place = Place::new();
    let [older, newer] = story(&place.dir()).map(|id| id.to_string());
    let pack = damage_pack(&place.dir(), "command 25 of many");
    let (said, target) = restore(&place, &[]);
    let text = said.ends_with(1).text();
    for part in [
        &newer[..12],
        "does not verify",
        &pack,
        &older[..12],
        "15 entries behind it",
        "as far as it goes",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(World::open(&target).unwrap().state(), commands(35));
}

#[test]
fn a_snapshot_that_was_named_is_where_the_log_begins() {
    let place = Place::new();
    let [older, _] = story(&place.dir()).map(|id| id.to_string());
    let (said, target) = restore(&place, &["--snapshot", &older[..10]]);
    let text = said.fine().text();
    assert!(
        text.contains(&older[..12]) && text.contains("15 entries"),
        "{text}"
    );
    let world = World::open(&target).unwrap();
    assert_eq!(
        (world.state(), world.store.list().unwrap().len()),
        (commands(35), 1)
    );
    world.close();
    fs::remove_dir_all(&target).unwrap();
    let (said, target) = restore(&place, &["--snapshot", &older, "--no-entries"]);
    said.fine();
    assert_eq!(World::open(&target).unwrap().state(), commands(20));
    fs::remove_dir_all(&target).unwrap();
    let (said, target) = restore(&place, &["--snapshot", "0000000000"]);
    said.refuses(2, &["no snapshot whose name begins"]);
    assert!(!Path::new(&target).exists());
}

#[test]
fn entries_are_copied_up_to_the_first_that_is_damaged() {
    let place = Place::new();
    story(&place.dir());
    let (file, _) = flip(&place.dir(), "command 32 of many");
    let (said, target) = restore(&place, &[]);
    let text = said.ends_with(1).text();
    for part in [
        "entry 32 of log 7 is damaged",
        file.to_str().unwrap(),
        "3 in all",
        "2 entries behind it",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(World::open(&target).unwrap().state(), commands(32));
}

#[test]
fn a_log_that_lost_its_end_is_restored_as_its_snapshot_has_it() {
    let place = Place::new();
    let journal = Journal::create(place.dir(), small()).unwrap();
    journal.create_log(LOG, 0).unwrap().append(b"one").unwrap();
    journal.close().unwrap();
    let store = Store::open(place.dir(), StoreConfig::new()).unwrap();
    store
        .create(Draft::new(LOG, EntryId::new(0, 100)))
        .unwrap()
        .commit()
        .unwrap();
    drop(store);
    let (said, target) = restore(&place, &[]);
    let text = said.ends_with(1).text();
    assert!(text.contains("lost its end"), "{text}");
    let journal = Journal::open(&target, small()).unwrap();
    let log = journal.log(LOG).unwrap();
    assert_eq!(
        (log.bounds().unwrap(), log.last().unwrap()),
        (101..101, Some(EntryId::new(0, 100)))
    );
}

#[test]
fn what_stood_between_snapshot_and_log_is_not_passed_over() {
    let place = Place::new();
    let journal = Journal::create(place.dir(), small()).unwrap();
    journal.create_log(LOG, 200).unwrap().append(b"one").unwrap();
    journal.close().unwrap();
    let store = Store::open(place.dir(), StoreConfig::new()).unwrap();
    store
        .create(Draft::new(LOG, EntryId::new(0, 100)))
        .unwrap()
        .commit()
        .unwrap();
    drop(store);
    let (said, target) = restore(&place, &[]);
    said.refuses(
        1,
        &["begins at 200", "what stood between them is gone", "--no-entries"],
    );
    assert!(!Path::new(&target).exists(), "nothing is left of it");
    restore(&place, &["--no-entries"]).0.fine();
}

#[test]
fn nothing_is_made_where_no_snapshot_verifies() {
    let place = Place::new();
    story(&place.dir());
    for path in stored(&place.dir(), ".pack") {
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let (said, target) = restore(&place, &[]);
    said.refuses(1, &["none of the snapshots of log 7 verifies", ".pack at 64"]);
    assert!(!Path::new(&target).exists());
    for path in stored(&place.dir(), ".snap") {
        make_newer(&path, usize::MAX);
    }
    restore(&place, &[]).0.refuses(5, &["was purged", "999"]);
}

#[test]
fn logs_without_snapshots_are_copied_as_they_are() {
    let place = Place::new();
    let journal = Journal::create(place.dir(), small()).unwrap();
    let log = journal.create_log(LogKey(1), 5).unwrap();
    for (term, index) in [(1, 5), (1, 6), (4, 7), (4, 8)] {
        log.append_at(EntryId::new(term, index), format!("{term}.{index}"))
            .unwrap();
    }
    log.purge_to(6).unwrap();
    log.set(3, b"a vote").unwrap();
    journal.create_log(LogKey(2), 0).unwrap();
    journal.close().unwrap();
    let (said, target) = restore(&place, &[]);
    let text = said.fine().text();
    assert!(
        text.contains("log 1: no snapshot, 3 entries, the last is 4.8"),
        "{text}"
    );
    assert_eq!(names(&target), ["journal"]);
    let journal = Journal::open(&target, small()).unwrap();
    assert_eq!(journal.logs(), [LogKey(1), LogKey(2)]);
    let log = journal.log(LogKey(1)).unwrap();
    assert_eq!(
        (log.bounds().unwrap(), log.purged().unwrap()),
        (6..9, Some(EntryId::new(1, 5)))
    );
    assert_eq!(log.cell(3).unwrap().as_deref(), Some(&b"a vote"[..]));
    let entries: Vec<_> = log.read(6..9).map(|entry| entry.unwrap()).collect();
    assert!(
        entries.iter().all(|entry| entry.payload == entry.id.to_string()),
        "{entries:?}"
    );
}

#[test]
fn a_target_that_is_not_empty_and_a_source_that_is_nothing_are_refused() {
    let place = Place::new();
    story(&place.dir());
    let dir = place.dir();
    let before = names(&dir);
    everlog(["restore", &dir, &dir]).refuses(2, &[&dir, "not empty"]);
    let file = place.file("file", "text");
    everlog(["restore", &dir, &file]).refuses(2, &[&file]);
    let deep = place.path("absent/deep").display().to_string();
    everlog(["restore", &dir, &deep]).refuses(2, &[&deep]);
    let empty = place.path("empty").display().to_string();
    fs::create_dir(&empty).unwrap();
    let target = place.path("new").display().to_string();
    everlog(["restore", &empty, &target]).refuses(2, &[&empty, "no journal"]);
    assert!(!Path::new(&target).exists());
    everlog(["restore", &dir, &empty]).fine();
    assert_eq!(names(&dir), before);
}

#[test]
fn snapshots_without_a_journal_are_enough() {
    let place = Place::new();
    story(&place.dir());
    fs::remove_dir_all(place.path("j/journal")).unwrap();
    let (said, target) = restore(&place, &[]);
    said.fine();
    assert_eq!(World::open(&target).unwrap().state(), commands(30));
}

/// Nobody takes it for a journal, and it says why.
fn assert_is_unfinished(place: &Place, target: &str) {
    let error = Journal::open(target, small()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(World::open(target).is_err());
    for command in ["stat", "verify", "cat", "append"] {
        everlog([command, target]).refuses(2, &[target]);
    }
    let (said, _) = restore(place, &[]);
    said.refuses(2, &["did not come to its end", "rm -r"]);
}

/// What a crash leaves between the renames that end a restore, made by hand.
#[test]
fn a_restore_that_was_cut_short_is_no_journal() {
    let place = Place::new();
    story(&place.dir());
    let (said, target) = restore(&place, &[]);
    said.fine();
    let at = |name: &str| Path::new(&target).join(name);
    fs::create_dir(at("restoring")).unwrap();
    fs::rename(at("journal"), at("restoring/journal")).unwrap();
    let error = Journal::open(&target, small()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "the journal is named last");
    everlog(["stat", &target]).refuses(2, &[&target]);
    everlog(["append", &target]).refuses(2, &[&target]);
    fs::rename(at("snapshots"), at("restoring/snapshots")).unwrap();
    fs::remove_file(at("snapshots.lock")).ok();
    assert_is_unfinished(&place, &target);
    fs::remove_dir_all(at("restoring")).unwrap();
    restore(&place, &[]).0.fine();
    assert_eq!(World::open(&target).unwrap().state(), commands(35));
}

/// Killed as soon as it has begun, wherever it is then.
#[test]
fn a_restore_that_is_killed_leaves_what_is_whole_or_no_journal() {
    let place = Place::new();
    story(&place.dir());
    let world = World::open(&place.dir()).unwrap();
    world.execute(35..400);
    world.close();
    for round in 0..4u32 {
        let target = place.path(&format!("new-{round}")).display().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_everlog"))
            .args(["restore", &place.dir(), &target])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sign = [
            Path::new(&target).to_path_buf(),
            Path::new(&target).join("restoring/journal"),
            Path::new(&target).join("snapshots"),
        ];
        let sign = &sign[round as usize % sign.len()];
        while !sign.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        if segments_of(&target) > 0 {
            assert_eq!(
                World::open(&target).unwrap().state(),
                commands(400),
                "round {round}"
            );
        } else {
            assert_eq!(
                Journal::open(&target, small()).unwrap_err().kind(),
                ErrorKind::NotFound
            );
        }
    }
}

fn segments_of(dir: &str) -> usize {
    match Path::new(dir).join("journal").exists() {
        true => segments(dir).len(),
        false => 0,
    }
}
