//! Whatever cannot be done is told in one sentence that names the file, with the code of the table.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::{Place, everlog, segments};

const LOOKING: [&str; 4] = ["cat", "stat", "verify", "dump"];
const TABLE: [&str; 6] = [
    "0  fine",
    "1  a finding",
    "2  could not run",
    "3  another",
    "4  no space",
    "5  written by a newer",
];

#[test]
fn help_has_the_table_of_exit_codes() {
    for args in [&["--help"][..], &["append", "--help"], &["drill", "--help"]] {
        let said = everlog(args).fine().text();
        for row in TABLE {
            assert!(said.contains(row), "no {row:?} in {said}");
        }
    }
    assert!(!everlog(["--help"]).text().contains("drill-child"));
}

#[test]
fn wrong_usage_ends_with_2() {
    let wrong: [&[&str]; 5] = [
        &[],
        &["frobnicate"],
        &["cat"],
        &["cat", "x", "-0", "--json"],
        &["drill", "--writers", "0"],
    ];
    for args in wrong {
        let said = everlog(args).ends_with(2);
        assert_eq!(said.text(), "");
        assert!(!said.stderr.is_empty());
    }
}

#[test]
fn a_directory_that_is_no_journal_is_named() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    let file = place.file("file", "text");
    let empty = place.path("empty").display().to_string();
    let absent = place.path("absent").display().to_string();
    for command in LOOKING {
        for path in [&empty, &file, &absent] {
            everlog([command, path]).refuses(2, &[path]);
        }
    }
    let root = place.path("").display().to_string();
    everlog(["append", &root]).refuses(2, &[&root, "absent or empty"]);
    everlog(["append", &file]).refuses(2, &[&file]);
    assert_eq!(fs::read_dir(place.path("empty")).unwrap().count(), 0);
}

#[test]
fn the_right_path_is_named_for_one_inside() {
    let place = Place::new();
    place.append(0, "a\n");
    let inner = place.path("j/journal").display().to_string();
    let segment = segments(&place.dir())[0].display().to_string();
    for command in [&LOOKING[..], &["append"]].concat() {
        for path in [&inner, &segment] {
            let said = everlog([command, path]).ends_with(2);
            assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
            let rest = said.stderr.replace(path.as_str(), "");
            assert!(rest.contains(&place.dir()), "{command}: {}", said.stderr);
        }
    }
}

#[test]
fn a_newer_format_ends_with_5_and_nothing_is_touched() {
    let place = Place::new();
    place.append(0, "a\n");
    let path = segments(&place.dir()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    for at in [0, 4096] {
        bytes[at + 12..at + 14].copy_from_slice(&999u16.to_le_bytes());
        let crc = crc32fast::hash(&bytes[at + 12..at + 256]);
        bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, &bytes).unwrap();
    for command in ["append", "cat", "stat", "verify"] {
        everlog([command, &place.dir()]).refuses(5, &[&path.display().to_string(), "999"]);
    }
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn a_missing_permission_is_named() {
    let place = Place::new();
    place.append(0, "a\n");
    let path = segments(&place.dir()).pop().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read(&path).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    for command in ["append", "cat", "stat", "verify"] {
        everlog([command, &place.dir()]).refuses(2, &[&path.display().to_string(), "ermission"]);
    }
}

#[test]
fn a_full_disk_ends_with_4() {
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
        eprintln!("skipped: there is no /dev/full");
        return;
    };
    let place = Place::new();
    place.append(0, "a\n");
    let output = Command::new(env!("CARGO_BIN_EXE_everlog"))
        .args(["cat", &place.dir()])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("standard output") && said.contains("No space"),
        "{said}"
    );
}
