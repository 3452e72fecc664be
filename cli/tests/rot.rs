//! Damaged directories on a real disk: what `verify` ends with and prints is what the library makes of the same directory.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Place, everlog, segments};
use everlog::{Background, Config, Error, ErrorKind, Journal, LogKey, Verdict};
use serde_json::Value;

/// What befalls a file.
#[derive(Debug)]
enum Damage {
    Flip(u64),
    Zero(u64),
    Cut(u64),
    Remove,
    Rename,
    Copy,
    Extend,
}

fn config() -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .background(Background::Caller)
}

/// A journal of two logs in several segments; all that was ever appended to log 1.
fn fill(dir: &str) -> BTreeSet<String> {
    let journal = Journal::create(dir, config()).unwrap();
    let mut lines = BTreeSet::new();
    let logs = [1, 2].map(|key| journal.create_log(LogKey(key), 0).unwrap());
    for n in 0..60 {
        for (key, log) in (1..).zip(&logs) {
            let line = format!("log {key} line {n} {}", "x".repeat(n * 13 % 400));
            log.append(line.as_bytes()).unwrap();
            if key == 1 {
                lines.insert(line);
            }
        }
        logs[1].set(0, format!("{n}")).unwrap();
    }
    logs[0].truncate_from(50).unwrap();
    while journal.work().unwrap() {}
    journal.close().unwrap();
    lines
}

fn copy(from: &str, to: &str) {
    fs::create_dir_all(Path::new(to).join("journal")).unwrap();
    for name in fs::read_dir(Path::new(from).join("journal")).unwrap() {
        let name = name.unwrap();
        fs::copy(name.path(), Path::new(to).join("journal").join(name.file_name())).unwrap();
    }
}

fn apply(damage: &Damage, path: &Path) {
    let other = |id: u64| path.with_file_name(format!("{id:016x}.seg"));
    let mut bytes = fs::read(path).unwrap();
    let at = |at: &u64| usize::try_from(*at).unwrap();
    match damage {
        Damage::Flip(bit) => bytes[at(&(bit / 8))] ^= 1 << (bit % 8),
        Damage::Zero(sector) => bytes[at(&(sector * 512))..at(&(sector * 512 + 512))].fill(0),
        Damage::Cut(len) => bytes.truncate(at(len)),
        Damage::Extend => bytes.extend([7; 1000]),
        Damage::Remove => return fs::remove_file(path).unwrap(),
        Damage::Rename => return fs::rename(path, other(99)).unwrap(),
        Damage::Copy => {
            fs::copy(path, other(77)).unwrap();
            return;
        }
    }
    fs::write(path, bytes).unwrap();
}

/// The errors of reading everything.
fn read(journal: &Journal) -> Vec<Error> {
    let logs = journal.logs().into_iter().map(|key| journal.log(key).unwrap());
    logs.flat_map(|log| {
        let bounds = log.bounds().unwrap();
        bounds
            .filter_map(|index| log.entry(index).err())
            .collect::<Vec<_>>()
    })
    .collect()
}

/// Runs the tool and the library on the same damaged directory.
fn judge(dir: &str, lines: &BTreeSet<String>, story: &str) -> &'static str {
    let said = everlog(["verify", dir, "--json"]);
    let printed = everlog(["cat", dir, "--log", "1"]);
    for line in printed.text().lines() {
        assert!(lines.contains(line), "{story}: cat prints {line:?}");
    }
    let opened = Journal::open(dir, config());
    let verdict = |objects: &[Value]| objects.last().unwrap()["verdict"].as_str().unwrap().to_owned();
    match opened {
        Err(error) if error.kind() == ErrorKind::Damaged => {
            let objects = said.ends_with(1).objects();
            assert_eq!(verdict(&objects), "damaged", "{story}: {error}");
            let path = error.path().unwrap().display().to_string();
            let named = objects.iter().any(|object| object["file"] == path.as_str());
            assert!(named, "{story}: open names {path}, verify does not: {objects:?}");
            "refused"
        }
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound),
                "{story}: {error}"
            );
            said.refuses(2, &[]);
            "not a journal"
        }
        Ok(journal) => {
            let errors = read(&journal);
            let damaged = said.code == 1;
            let verdict = verdict(&said.objects());
            assert!(
                damaged || errors.is_empty(),
                "{story}: reads say {errors:?}, verify ends with {}",
                said.code
            );
            let torn = journal.report().verdict == Verdict::Torn;
            let expected = match (damaged, torn) {
                (true, _) => "damaged",
                (false, true) => "torn",
                (false, false) => "clean",
            };
            assert_eq!(verdict, expected, "{story}");
            drop(journal);
            "opened"
        }
    }
}

#[test]
fn the_tool_says_of_damage_what_the_library_says() {
    let place = Place::new();
    let lines = fill(&place.dir());
    let all = segments(&place.dir());
    assert!(all.len() > 2, "{all:?}");
    let mut outcomes = BTreeSet::new();
    for (n, path) in all.iter().enumerate() {
        let n = n as u64;
        let flips = (0..5).map(|i| Damage::Flip((i * 997 + n * 101) * 11 % (16_000 * 8)));
        let openings = [Damage::Flip(n * 33 + 64), Damage::Flip(4096 * 8 + n * 33)];
        let sectors = [16 + n % 4, 17, 23].map(Damage::Zero);
        let cuts = [0, 5000, 9000 + n * 100].map(Damage::Cut);
        let others = [Damage::Remove, Damage::Rename, Damage::Copy, Damage::Extend];
        let damages = flips.chain(openings).chain(sectors).chain(cuts).chain(others);
        for damage in damages {
            let story = format!("{} {damage:?}", path.display());
            let damaged = Place::new();
            copy(&place.dir(), &damaged.dir());
            let name: PathBuf = path.strip_prefix(place.dir()).unwrap().to_owned();
            apply(&damage, &Path::new(&damaged.dir()).join(name));
            outcomes.insert(judge(&damaged.dir(), &lines, &story));
        }
    }
    let expected = ["not a journal", "opened", "refused"];
    assert!(outcomes.iter().eq(expected.iter()), "{outcomes:?}");
}
