//! The drill itself: kills real processes and finds nothing wrong, and cleans up after itself.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{Place, everlog};

#[test]
fn a_drill_over_lines_loses_nothing_and_leaves_nothing() {
    let place = Place::new();
    let file = place.file("lines", "one\r\n\nthree\nfour without an end");
    let dir = place.path("drill").display().to_string();
    let said = everlog([
        "drill",
        &file,
        "--cycles",
        "5",
        "--writers",
        "3",
        "--seed",
        "1",
        "--dir",
        &dir,
    ])
    .fine();
    let text = said.text();
    for part in [
        "seed 1",
        "5 (",
        "lost            0",
        "durable appends/s",
        "power loss",
        "crash enumeration",
        &dir,
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(!fs::exists(&dir).unwrap());
}

#[test]
fn a_drill_tells_programs_the_same() {
    let place = Place::new();
    let dir = place.path("drill").display().to_string();
    fs::create_dir(&dir).unwrap();
    let said = everlog([
        "drill",
        "--json",
        "--cycles",
        "3",
        "--writers",
        "2",
        "--seed",
        "7",
        "--dir",
        &dir,
    ])
    .fine();
    let objects = said.objects();
    assert_eq!(objects.len(), 1);
    let summary = &objects[0];
    assert_eq!(summary["seed"], 7);
    assert_eq!(summary["cycles"], 3);
    assert_eq!(summary["lost"], 0);
    assert!(summary["acknowledged"].as_u64().unwrap() > 0, "{summary}");
    assert!(summary["kills"].as_u64().unwrap() >= 3, "{summary}");
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        0,
        "the directory was there and stays, empty"
    );
}

#[test]
fn a_drill_touches_no_directory_that_is_in_use() {
    let place = Place::new();
    let kept = place.file("kept", "precious");
    let dir = place.path("").display().to_string();
    everlog(["drill", "--dir", &dir]).refuses(2, &[&dir, "not empty"]);
    assert_eq!(fs::read(kept).unwrap(), b"precious");
}

#[test]
fn a_drill_needs_a_line() {
    let place = Place::new();
    let empty = place.file("empty", "");
    let dir = place.path("drill").display().to_string();
    everlog(["drill", &empty, "--dir", &dir]).refuses(2, &[&empty]);
    everlog(["drill", "/nowhere/at/all", "--dir", &dir]).refuses(2, &["/nowhere/at/all"]);
    assert!(!fs::exists(&dir).unwrap());
}

#[test]
fn the_default_directory_is_beside_the_caller() {
    let place = Place::new();
    let output = Command::new(env!("CARGO_BIN_EXE_everlog"))
        .args(["drill", "--cycles", "1", "--writers", "1"])
        .current_dir(place.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("./everlog-drill-"), "{text}");
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 0);
}

#[test]
fn an_interrupted_drill_cleans_up() {
    let place = Place::new();
    let dir = place.path("drill");
    let child = Command::new(env!("CARGO_BIN_EXE_everlog"))
        .args(["drill", "--cycles", "100000", "--dir"])
        .arg(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its head line comes once the directory is taken, and signals are caught before that.
    let mut child = child;
    let mut head = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut head).unwrap();
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("interrupted"),
        "{output:?}"
    );
    assert!(!fs::exists(&dir).unwrap());
}

#[test]
fn a_mixed_drill_does_everything_and_loses_nothing() {
    let place = Place::new();
    let dir = place.path("drill").display().to_string();
    let said = everlog([
        "drill", "--mix", "--cycles", "12", "--logs", "5", "--seed", "3", "--json", "--dir", &dir,
    ])
    .fine();
    let objects = said.objects();
    assert_eq!(objects.len(), 1);
    let summary = &objects[0];
    assert_eq!((&summary["seed"], &summary["cycles"]), (&3.into(), &12.into()));
    assert_eq!((&summary["logs"], &summary["workers"]), (&5.into(), &3.into()));
    assert_eq!(
        (&summary["violations"], &summary["faults"]),
        (&0.into(), &0.into())
    );
    for count in ["kills", "looks", "acknowledged", "appends", "verified"] {
        assert!(summary[count].as_u64().unwrap() > 0, "{count} in {summary}");
    }
    assert!(!fs::exists(&dir).unwrap());
}

#[test]
fn a_mixed_drill_with_faults_ends_by_the_clock_and_tells_people() {
    let place = Place::new();
    let dir = place.path("drill").display().to_string();
    let said = everlog([
        "drill",
        "--mix",
        "--faults",
        "--seconds",
        "1",
        "--logs",
        "1",
        "--seed",
        "4",
        "--dir",
        &dir,
    ])
    .fine();
    let text = said.text();
    for part in [
        "1 worker do everything to 1 log, while system calls fail, and are killed for 1 s, seed 4",
        "lost            0",
        "re-homing",
        "none older than the last acknowledged one",
        "power loss",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn options_of_a_mixed_drill_need_a_mixed_drill() {
    for options in [
        &["--logs", "2"][..],
        &["--faults"],
        &["--seconds", "1"],
        &["--mix", "some-file"],
    ] {
        everlog([&["drill"], options].concat()).ends_with(2);
    }
}
