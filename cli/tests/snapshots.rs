//! `snapshot`: what each command says and does, on stores that are whole, damaged, foreign, newer or in use.

mod common;

use std::fs;
use std::path::Path;

use common::{LOG, Place, Said, World, damage_pack, everlog, everlog_fed, make_newer, small, stored, story};
use everlog::Journal;
use everlog::snapshot::{Origin, Store, StoreConfig};

fn snapshot<const N: usize>(args: [&str; N]) -> Said {
    everlog(std::iter::once("snapshot").chain(args))
}

fn ids(dir: &str) -> Vec<String> {
    let objects = snapshot(["list", dir, "--json"]).objects();
    objects
        .iter()
        .filter_map(|object| {
            object["covers"]
                .as_str()
                .and(object["snapshot"].as_str())
                .map(str::to_owned)
        })
        .collect()
}

#[test]
fn help_teaches_each_command() {
    for command in ["list", "verify", "export", "import", "pin", "unpin", "gc"] {
        let text = snapshot([command, "--help"]).fine().text();
        assert!(text.contains("Exit codes:") && text.contains("--json"), "{text}");
    }
    let text = everlog(["restore", "--help"]).fine().text();
    assert!(
        text.contains("absent or empty") && text.contains("Exit codes:"),
        "{text}"
    );
}

#[test]
fn a_list_shows_what_is_there_and_for_whom() {
    let place = Place::new();
    let dir = place.dir();
    let [older, newer] = story(&dir).map(|id| id.to_string());
    snapshot(["pin", &dir, &older, "--owner", "backup", "--for", "1h"]).fine();
    let text = snapshot(["list", &dir]).fine().text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("snapshot") && lines[0].ends_with("pins"),
        "{text}"
    );
    assert!(
        lines[1].starts_with(&newer[..12]) && lines[1].ends_with('-'),
        "{text}"
    );
    assert!(
        lines[2].starts_with(&older[..12]) && lines[2].contains("backup until"),
        "{text}"
    );
    let objects = snapshot(["list", &dir, "--json"]).fine().objects();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0]["snapshot"], newer);
    assert_eq!(
        (&objects[0]["log"], &objects[0]["covers"]),
        (&7.into(), &"0.29".into())
    );
    assert_eq!(objects[1]["pins"][0]["owner"], "backup");
    assert_eq!(objects[1]["pins"][0]["expired"], false);
}

#[test]
fn what_is_no_store_is_named() {
    let place = Place::new();
    let journal = Journal::create(place.dir(), small()).unwrap();
    journal.close().unwrap();
    let (dir, absent) = (place.dir(), place.path("absent").display().to_string());
    for command in ["list", "verify", "gc"] {
        snapshot([command, &dir]).refuses(2, &["snapshots", "no snapshot store"]);
        snapshot([command, &absent]).refuses(2, &[&absent]);
    }
    for command in ["pin", "unpin"] {
        snapshot([command, &dir, "abcd", "--owner", "me"]).refuses(2, &["no snapshot store"]);
    }
    assert!(!place.path("j/snapshots").exists(), "nothing was made");
    let other = Place::new();
    story(&other.dir());
    let inside = other.path("j/snapshots").display().to_string();
    snapshot(["list", &inside]).refuses(2, &["name the directory around it", &other.dir()]);
}

#[test]
fn a_snapshot_is_named_by_its_first_digits() {
    let place = Place::new();
    let dir = place.dir();
    let [older, _] = story(&dir).map(|id| id.to_string());
    snapshot(["verify", &dir, &older[..8].to_uppercase()]).fine();
    snapshot(["verify", &dir, "abc"]).refuses(2, &["at least 4", "everlog snapshot list"]);
    snapshot(["verify", &dir, "newest"]).refuses(2, &["no name of a snapshot"]);
    let none = format!("{:04x}", u16::from_str_radix(&older[..4], 16).unwrap() ^ 1);
    snapshot(["verify", &dir, &none]).refuses(2, &["no snapshot whose name begins", "everlog snapshot list"]);
}

#[test]
fn verify_names_the_chunk_and_the_snapshots_that_need_it() {
    let place = Place::new();
    let dir = place.dir();
    let [older, newer] = story(&dir).map(|id| id.to_string());
    let text = snapshot(["verify", &dir]).fine().text();
    assert!(text.contains("whole: 2 snapshots"), "{text}");
    let pack = damage_pack(&dir, "command 25 of many");
    let text = snapshot(["verify", &dir]).ends_with(1).text();
    for part in [
        &pack,
        &newer[..12],
        "damaged: 1 of 2",
        "the newest that is whole",
        &older[..12],
        "everlog restore",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let objects = snapshot(["verify", &dir, "--json"]).ends_with(1).objects();
    assert_eq!(objects[0]["offset"], 64);
    assert_eq!(objects[0]["snapshots"][0], newer);
    assert_eq!(objects[1]["verdict"], "damaged");
    assert_eq!(objects[1]["newest_whole"][0], older);
    snapshot(["verify", &dir, &older]).fine();
    snapshot(["verify", &dir, &newer]).ends_with(1);
}

#[test]
fn a_missing_pack_is_named() {
    let place = Place::new();
    let dir = place.dir();
    let [_, newer] = story(&dir).map(|id| id.to_string());
    let pack = damage_pack(&dir, "command 25 of many");
    fs::remove_file(&pack).unwrap();
    let text = snapshot(["verify", &dir]).ends_with(1).text();
    assert!(text.contains(&pack) && text.contains("lost"), "{text}");
    let file = place.path("x.export").display().to_string();
    snapshot(["export", &dir, &newer, &file]).refuses(1, &[&pack, "lost"]);
    assert!(!Path::new(&file).exists() && !place.path("x.export.unfinished").exists());
}

#[test]
fn an_export_is_imported_elsewhere_through_a_file_or_a_pipe() {
    let place = Place::new();
    let dir = place.dir();
    let [older, newer] = story(&dir).map(|id| id.to_string());
    let file = place.path("x.export").display().to_string();
    let text = snapshot(["export", &dir, &newer, &file]).fine().text();
    assert!(text.contains("everlog snapshot import"), "{text}");
    snapshot(["export", &dir, &newer, &file]).refuses(2, &[&file, "not replaced"]);
    let there = place.path("there").display().to_string();
    snapshot(["import", &there, &file]).refuses(2, &[&there]);
    fs::create_dir(&there).unwrap();
    let object = snapshot(["import", &there, &file, "--json"])
        .fine()
        .objects()
        .remove(0);
    assert_eq!(object["snapshot"], newer);
    let piped = snapshot(["export", &dir, &older, "-"]).fine().stdout;
    everlog_fed(["snapshot", "import", &there, "-"], &piped).fine();
    assert_eq!(ids(&there), [newer.clone(), older.clone()]);
    snapshot(["verify", &there]).fine();
    let store = Store::view(&there).unwrap();
    assert!(
        store
            .list()
            .unwrap()
            .iter()
            .all(|snapshot| snapshot.origin == Origin::Installed)
    );
    let state = snapshot(["export", &dir, &newer, "-", "--state"]).fine().text();
    assert!(
        state.starts_with("command 0 of many\ncommand 1 of many\n"),
        "{state}"
    );
}

#[test]
fn what_is_no_whole_export_is_refused_with_file_and_offset() {
    let place = Place::new();
    let dir = place.dir();
    let [_, newer] = story(&dir).map(|id| id.to_string());
    let good = snapshot(["export", &dir, &newer, "-"]).fine().stdout;
    let there = place.path("there").display().to_string();
    fs::create_dir(&there).unwrap();
    let import = |name: &str, bytes: &[u8]| {
        let file = place.file(name, bytes);
        let said = snapshot(["import", &there, &file]);
        assert!(said.stderr.contains(&format!("{file} at ")), "{}", said.stderr);
        said
    };
    import("short", &good[..good.len() - 5]).refuses(1, &["cut short", "nothing was taken in"]);
    import("header", &good[..20]).refuses(1, &["cut short"]);
    import("long", &[&good[..], b"x"].concat()).refuses(1, &["more behind the end"]);
    let mut rotten = good.clone();
    let last = rotten.len() - 30;
    rotten[last] ^= 4;
    import("rotten", &rotten).refuses(1, &["not those of chunk"]);
    import("foreign", b"#!/bin/sh\n").refuses(2, &["no export of a snapshot"]);
    let newer_file = place.file("newer", &good);
    make_newer(Path::new(&newer_file), 64);
    snapshot(["import", &there, &newer_file]).refuses(5, &[&newer_file, "999"]);
    snapshot(["import", &there, "/nowhere/file"]).refuses(2, &["/nowhere/file"]);
    assert_eq!(fs::read_dir(place.path("there/snapshots")).unwrap().count(), 0);
}

#[test]
fn an_import_that_would_reset_a_log_needs_a_word() {
    let place = Place::new();
    let dir = place.dir();
    let [_, newer] = story(&dir).map(|id| id.to_string());
    let file = place.path("x.export").display().to_string();
    snapshot(["export", &dir, &newer, &file]).fine();
    // A log that has reached it: the snapshot is taken for one of its own.
    snapshot(["import", &dir, &file]).fine();
    let other = Place::new();
    let journal = Journal::create(other.dir(), small()).unwrap();
    journal.create_log(LOG, 0).unwrap().append(b"one").unwrap();
    journal.close().unwrap();
    let text = "would reset the log to the snapshot";
    snapshot(["import", &other.dir(), &file]).refuses(2, &[&other.dir(), "log 7", text, "--install"]);
    assert!(!other.path("j/snapshots").exists());
    snapshot(["import", &other.dir(), &file, "--install"]).fine();
    let world = World::open(&other.dir()).unwrap();
    assert_eq!(world.state().len(), 30, "the state of the snapshot");
    let stranger = Place::new();
    stranger.file("file", "text");
    let root = stranger.path("").display().to_string();
    snapshot(["import", &root, &file]).refuses(2, &["neither a journal nor a store"]);
}

#[test]
fn a_pin_keeps_a_snapshot_until_it_is_taken_back() {
    let place = Place::new();
    let dir = place.dir();
    let [older, newer] = story(&dir).map(|id| id.to_string());
    let text = snapshot(["pin", &dir, &older, "--owner", "upgrade to 2.0", "--forever"])
        .fine()
        .text();
    assert!(text.contains("upgrade to 2.0 for ever"), "{text}");
    let text = snapshot(["gc", &dir, "--keep", "1"]).fine().text();
    assert!(text.contains("2 snapshots left"), "{text}");
    snapshot(["unpin", &dir, &older, "--owner", "nobody"])
        .refuses(2, &["no such pin", "upgrade to 2.0 for ever"]);
    let object = snapshot(["unpin", &dir, &older, "--owner", "upgrade to 2.0", "--json"])
        .fine()
        .objects()
        .remove(0);
    assert_eq!(
        (&object["snapshot"], &object["removed"]),
        (&older.clone().into(), &1.into())
    );
    let text = snapshot(["gc", &dir, "--keep", "1", "--dry-run"]).fine().text();
    assert!(
        text.starts_with("would remove") && text.contains(&older[..12]),
        "{text}"
    );
    let object = snapshot(["gc", &dir, "--keep", "1", "--json"])
        .fine()
        .objects()
        .remove(0);
    assert_eq!(object["removed"][0], older);
    assert!(object["freed_bytes"].as_u64().unwrap() > 0, "{object}");
    assert_eq!(ids(&dir), [newer]);
}

#[test]
fn an_expired_pin_is_told_and_goes_with_the_next_collection() {
    let place = Place::new();
    let dir = place.dir();
    let [older, _] = story(&dir).map(|id| id.to_string());
    snapshot(["pin", &dir, &older, "--owner", "past", "--for", "0s"]).fine();
    let text = snapshot(["list", &dir]).fine().text();
    assert!(text.contains("past (expired"), "{text}");
    let text = snapshot(["gc", &dir]).fine().text();
    assert!(
        text.contains("removed the pin") && text.contains("past (expired"),
        "{text}"
    );
    assert_eq!(ids(&dir).len(), 2, "without --keep no snapshot goes");
    assert!(stored(&dir, ".pin").is_empty());
}

#[test]
fn a_damaged_pin_holds_until_it_is_given_up() {
    let place = Place::new();
    let dir = place.dir();
    let [older, _] = story(&dir).map(|id| id.to_string());
    snapshot(["pin", &dir, &older, "--owner", "backup", "--for", "0s"]).fine();
    let pin = stored(&dir, ".pin").remove(0);
    fs::write(&pin, "rot").unwrap();
    let said = snapshot(["list", &dir]).ends_with(1).text();
    for part in [pin.to_str().unwrap(), "holds the snapshot", "--unreadable"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    snapshot(["gc", &dir, "--keep", "1"]).fine();
    assert_eq!(ids(&dir).len(), 2);
    snapshot(["unpin", &dir, &older, "--owner", "backup"]).refuses(2, &["no such pin"]);
    snapshot(["unpin", &dir, &older, "--unreadable"]).fine();
    snapshot(["gc", &dir, "--keep", "1"]).fine();
    assert_eq!(ids(&dir).len(), 1);
}

#[test]
fn a_pin_of_a_snapshot_that_is_lost_is_a_finding() {
    let place = Place::new();
    let dir = place.dir();
    let [older, _] = story(&dir).map(|id| id.to_string());
    snapshot(["pin", &dir, &older, "--owner", "backup"]).fine();
    for path in stored(&dir, ".snap")
        .iter()
        .filter(|path| path.to_str().unwrap().contains(&older))
    {
        fs::remove_file(path).unwrap();
    }
    let text = snapshot(["list", &dir]).ends_with(1).text();
    assert!(
        text.contains("\"backup\", and the snapshot is not there"),
        "{text}"
    );
    snapshot(["unpin", &dir, &older[..6], "--owner", "backup"]).fine();
    snapshot(["list", &dir]).fine();
}

#[test]
fn an_index_that_is_damaged_or_newer_is_listed_and_keeps_the_packs() {
    let place = Place::new();
    let dir = place.dir();
    let [older, newer] = story(&dir).map(|id| id.to_string());
    let index = |id: &str| {
        let paths = stored(&dir, ".snap");
        paths
            .into_iter()
            .find(|path| path.to_str().unwrap().contains(id))
            .unwrap()
    };
    make_newer(&index(&newer), usize::MAX);
    for command in ["list", "verify"] {
        let text = snapshot([command, &dir]).ends_with(5).text();
        assert!(
            text.contains(index(&newer).to_str().unwrap()) && text.contains("999"),
            "{text}"
        );
    }
    assert_eq!(ids(&dir), std::slice::from_ref(&older));
    fs::write(index(&newer), b"rot").unwrap();
    let text = snapshot(["list", &dir]).ends_with(1).text();
    assert!(text.contains("--give-up-unreadable"), "{text}");
    let packs = stored(&dir, ".pack").len();
    let said = snapshot(["gc", &dir]).ends_with(1);
    assert!(
        said.stderr.contains("packs that could go stay"),
        "{}",
        said.stderr
    );
    assert_eq!(stored(&dir, ".pack").len(), packs);
    snapshot(["gc", &dir, "--give-up-unreadable"]).fine();
    assert!(stored(&dir, ".pack").len() < packs);
    snapshot(["list", &dir]).fine();
}

#[test]
fn a_store_that_is_in_use_can_be_looked_at_and_not_changed() {
    let place = Place::new();
    let dir = place.dir();
    let [older, newer] = story(&dir).map(|id| id.to_string());
    let file = place.path("x.export").display().to_string();
    let held = Store::open(&dir, StoreConfig::new()).unwrap();
    snapshot(["export", &dir, &newer, &file]).fine();
    snapshot(["list", &dir]).fine();
    snapshot(["verify", &dir]).fine();
    let pid = format!("pid {}", std::process::id());
    snapshot(["pin", &dir, &older, "--owner", "me"]).refuses(3, &[&pid, "close it there first"]);
    snapshot(["unpin", &dir, &older, "--owner", "me"]).refuses(3, &[&pid]);
    snapshot(["gc", &dir]).refuses(3, &[&pid]);
    snapshot(["import", &dir, &file]).refuses(3, &[&pid]);
    drop(held);
}

#[test]
fn a_missing_permission_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let dir = place.dir();
    story(&dir);
    let path = stored(&dir, ".snap").remove(0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read(&path).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    let path = path.display().to_string();
    snapshot(["list", &dir]).refuses(2, &[&path, "ermission"]);
    let target = place.path("new").display().to_string();
    everlog(["restore", &dir, &target]).refuses(2, &[&path, "ermission"]);
}
