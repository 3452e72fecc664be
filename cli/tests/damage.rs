//! `stat`, `verify`, `dump` and `cat` on journals that are whole, torn, damaged, in use.

mod common;

use std::fs;

use common::{Place, everlog, flip, segments};
use everlog::{Config, Journal, LogKey};

const TEXT: &str = "the first entry\nthe second entry\nthe third entry\n";

#[test]
fn a_closed_journal_is_clean() {
    let place = Place::new();
    place.append(0, TEXT);
    let said = everlog(["verify", &place.dir()]).fine().text();
    assert!(said.contains("clean") && said.contains("3 entries"), "{said}");
    let objects = everlog(["verify", &place.dir(), "--json"]).fine().objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0]["verdict"], "clean");
    assert_eq!(objects[0]["entries"], 3);
}

#[test]
fn a_flipped_bit_is_found_and_never_printed() {
    for (index, text) in TEXT.lines().enumerate() {
        let place = Place::new();
        place.append(0, TEXT);
        let (path, at) = flip(&place.dir(), text);

        let said = everlog(["verify", &place.dir()]).ends_with(1);
        let line = said.text().lines().next().unwrap().to_string();
        let range = format!("indexes {index}..{}", index + 1);
        for part in [
            "damaged: log 0, ",
            &range,
            &path.display().to_string(),
            "; next: everlog ",
        ] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        let object = everlog(["verify", &place.dir(), "--json"])
            .ends_with(1)
            .objects()
            .remove(0);
        assert_eq!(object["finding"], "damaged");
        assert_eq!(
            (object["from"].as_u64(), object["log"].as_u64()),
            (Some(index as u64), Some(0))
        );
        let (offset, bytes) = (
            object["offset"].as_u64().unwrap(),
            object["bytes"].as_u64().unwrap(),
        );
        assert!(
            (offset..offset + bytes).contains(&(at as u64)),
            "{object} is not around {at}"
        );

        let said = everlog(["cat", &place.dir()]).ends_with(1);
        let intact: String = TEXT
            .lines()
            .filter(|line| *line != text)
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(said.text(), intact);
        assert!(
            said.stderr.contains(&range) && said.stderr.contains("next: everlog"),
            "{}",
            said.stderr
        );
    }
}

#[test]
fn damage_does_not_stop_the_tools_that_look() {
    let place = Place::new();
    place.append(0, TEXT);
    flip(&place.dir(), "the second entry");
    let said = everlog(["stat", &place.dir()]);
    assert!(said.text().contains("log 0: 3 entries"), "{said:?}");
    let said = everlog(["dump", &place.dir()]);
    assert!(said.text().lines().count() > 3, "{said:?}");
}

#[test]
fn stat_tells_what_a_journal_is() {
    let place = Place::new();
    place.append(0, TEXT);
    place.append(5, "x\n");
    let said = everlog(["stat", &place.dir()]).fine().text();
    for part in [
        "uuid",
        "format    1",
        "closed cleanly",
        "free",
        "reserve",
        "log 0: 3 entries, indexes 0..3",
        "log 5: 1 entry",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let object = everlog(["stat", &place.dir(), "--json"])
        .fine()
        .objects()
        .remove(0);
    assert_eq!(object["clean"], true);
    assert_eq!(object["holder"], serde_json::Value::Null);
    assert_eq!(object["format"], 1);
    assert_eq!(object["logs"][1]["log"], 5);
    assert_eq!(
        object["segments"].as_array().unwrap().len(),
        segments(&place.dir()).len()
    );
    assert!(object["free_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_journal_in_use_can_be_looked_at_and_not_written() {
    let place = Place::new();
    place.append(0, TEXT);
    let journal = Journal::open(place.dir(), Config::new()).unwrap();
    journal.log(LogKey(0)).unwrap().append("a fourth").unwrap();
    everlog(["append", &place.dir()]).refuses(3, &[&place.dir(), "next: everlog stat"]);
    let said = everlog(["stat", &place.dir()]).fine().text();
    assert!(said.contains("in use by"), "{said}");
    let said = everlog(["cat", &place.dir()]).fine().text();
    assert!(said.starts_with(TEXT), "{said}");
    everlog(["verify", &place.dir()]).fine();
    everlog(["dump", &place.dir()]).ends_with(0);
    journal.close().unwrap();
    assert_eq!(
        everlog(["cat", &place.dir()]).fine().text(),
        format!("{TEXT}a fourth\n")
    );
}

#[test]
fn dump_shows_every_structure_with_its_offset() {
    let place = Place::new();
    place.append(0, TEXT);
    let said = everlog(["dump", &place.dir()]).fine().text();
    for part in ["opening", "batch", "frame", "8192"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let objects = everlog(["dump", &place.dir(), "--json"]).fine().objects();
    assert!(objects.len() > 4);
    let said = everlog(["dump", &place.dir(), "--segment", "1"]).fine().text();
    assert!(said.contains("opening"), "{said}");
    everlog(["dump", &place.dir(), "--segment", "77"]).refuses(2, &["77"]);
}

#[test]
fn looking_changes_nothing() {
    let place = Place::new();
    place.append(0, TEXT);
    let before = image(&place);
    for command in ["stat", "verify", "dump", "cat"] {
        everlog([command, &place.dir()]).fine();
        assert!(image(&place) == before, "{command} changed something");
    }
}

fn image(place: &Place) -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(place.path("j/journal")).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = names
        .map(|name| name.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}
