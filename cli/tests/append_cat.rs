//! What goes in by `append` comes back by `cat`, byte for byte.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{Place, everlog, everlog_fed};

#[test]
fn a_million_lines_come_back_identical() {
    let place = Place::new();
    let mut text = String::new();
    for i in 0..1_000_000 {
        text += &format!("{i} and what belongs to it\n");
    }
    let file = place.file("lines", &text);
    let said = everlog(["append", &place.dir(), &file]).fine().text();
    assert!(said.starts_with("1,000,000 entries, "), "{said}");
    assert!(said.contains("indexes 0..1000000 of log 0"), "{said}");
    assert!(everlog(["cat", &place.dir()]).fine().stdout == text.as_bytes());
}

#[test]
fn a_line_keeps_every_byte_but_its_newline() {
    let place = Place::new();
    let input = b"dos\r\n\n\xff\xfe\x00 not text\nno newline at the end";
    let objects = everlog_fed(["append", &place.dir(), "-", "--json"], input)
        .fine()
        .objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0]["entries"], 4);
    assert_eq!(objects[0]["bytes"], input.len() - 3);
    assert_eq!(
        (objects[0]["first"].as_u64(), objects[0]["end"].as_u64()),
        (Some(0), Some(4))
    );
    let out = everlog(["cat", &place.dir()]).fine().stdout;
    assert_eq!(out, [&input[..], b"\n"].concat());
}

#[test]
fn a_line_may_be_longer_than_any_buffer() {
    let place = Place::new();
    let input = [
        vec![b'x'; 3 << 20],
        b"\nshort\n".to_vec(),
        vec![b'y'; 1 << 20],
        b"\n".to_vec(),
    ]
    .concat();
    everlog_fed(["append", &place.dir()], &input).fine();
    assert!(everlog(["cat", &place.dir()]).fine().stdout == input);
}

#[test]
fn nul_separated_entries_may_contain_newlines() {
    let place = Place::new();
    let input = b"two\nlines\0one\0";
    everlog_fed(["append", &place.dir(), "-0"], input).fine();
    assert_eq!(everlog(["cat", &place.dir(), "-0"]).fine().stdout, input);
    let objects = everlog(["cat", &place.dir(), "--json"]).fine().objects();
    let payloads: Vec<String> = objects
        .iter()
        .map(|o| o["payload"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(
        payloads,
        [
            BASE64_STANDARD.encode("two\nlines"),
            BASE64_STANDARD.encode("one")
        ]
    );
    assert_eq!((&objects[1]["log"], &objects[1]["index"]), (&0.into(), &1.into()));
}

#[test]
fn a_payload_that_would_read_as_two_is_refused_on_a_pipe() {
    let place = Place::new();
    everlog_fed(["append", &place.dir(), "-0"], b"fine\0two\nlines\0").fine();
    let said = everlog(["cat", &place.dir()]).ends_with(2);
    assert_eq!(said.text(), "fine\n");
    for part in [
        &place.dir(),
        "entry 1 of log 0",
        "newline",
        "-0 or --json",
        "; next: everlog cat ",
    ] {
        assert!(said.stderr.contains(part), "no {part} in {}", said.stderr);
    }
    everlog_fed(["append", &place.dir()], b"nul \0 inside\n").fine();
    let said = everlog(["cat", &place.dir(), "-0", "--from", "2"]).ends_with(2);
    assert!(
        said.stderr.contains("NUL") && said.stderr.contains("--json"),
        "{}",
        said.stderr
    );
}

#[test]
fn appending_goes_on_where_it_ended() {
    let place = Place::new();
    place.append(7, "a\nb\n");
    let said = everlog_fed(["append", &place.dir()], b"c\n").fine().text();
    assert!(
        said.starts_with("1 entry, ") && said.contains("indexes 2..3 of log 7"),
        "{said}"
    );
    assert_eq!(everlog(["cat", &place.dir()]).fine().text(), "a\nb\nc\n");
}

#[test]
fn a_range_is_half_open() {
    let place = Place::new();
    place.append(0, "a\nb\nc\nd\n");
    let cat = |args: &[&str]| everlog([&["cat", &place.dir()], args].concat());
    assert_eq!(cat(&["--from", "1", "--to", "3"]).fine().text(), "b\nc\n");
    assert_eq!(cat(&["--from", "3"]).fine().text(), "d\n");
    assert_eq!(cat(&["--to", "99"]).fine().text(), "a\nb\nc\nd\n");
    assert_eq!(cat(&["--from", "4"]).fine().text(), "");
    cat(&["--from", "5"]).refuses(2, &[&place.dir(), "ends before index 4"]);
    cat(&["--from", "3", "--to", "1"]).refuses(2, &["--from 3", "--to 1"]);
}

#[test]
fn what_is_purged_is_not_passed_over() {
    let place = Place::new();
    place.append(0, "a\nb\nc\nd\n");
    let journal = everlog::Journal::open(place.dir(), everlog::Config::new()).unwrap();
    journal.log(everlog::LogKey(0)).unwrap().purge_to(2).unwrap();
    journal.close().unwrap();
    assert_eq!(everlog(["cat", &place.dir()]).fine().text(), "c\nd\n");
    everlog(["cat", &place.dir(), "--from", "1"]).refuses(2, &["begins at index 2", "purged"]);
}

#[test]
fn several_logs_are_listed_and_not_guessed() {
    let place = Place::new();
    place.append(3, "three\n");
    place.append(9, "nine\n");
    for command in ["append", "cat"] {
        everlog([command, &place.dir()]).refuses(2, &[&place.dir(), "2 logs", "--log", "3, 9"]);
    }
    assert_eq!(
        everlog(["cat", &place.dir(), "--log", "9"]).fine().text(),
        "nine\n"
    );
    everlog(["cat", &place.dir(), "--log", "4"]).refuses(2, &["no log 4", "3, 9"]);
}

#[test]
fn no_line_is_no_error() {
    let place = Place::new();
    let said = everlog(["append", &place.dir()]).fine().text();
    assert!(
        said.starts_with("0 entries, 0 B, indexes 0..0 of log 0"),
        "{said}"
    );
    assert_eq!(everlog(["cat", &place.dir()]).fine().text(), "");
}

#[test]
fn a_reader_who_leaves_ends_cat_quietly() {
    let place = Place::new();
    place.append(0, &"a line that fills the pipe sooner or later\n".repeat(50_000));
    let mut cat = Command::new(env!("CARGO_BIN_EXE_everlog"))
        .args(["cat", &place.dir()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(cat.stdout.take());
    let output = cat.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn an_input_that_cannot_be_read_makes_no_journal() {
    let place = Place::new();
    let missing = place.path("missing").display().to_string();
    everlog(["append", &place.dir(), &missing]).refuses(2, &[&missing]);
    let dir = place.path("").display().to_string();
    everlog(["append", &place.dir(), &dir]).refuses(2, &["is a directory"]);
    assert!(!fs::exists(place.dir()).unwrap());
}
