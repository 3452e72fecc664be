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

/// Kills in every stage: some of them are hit whatever the threads do.
#[test]
fn a_drilled_machine_comes_back_as_it_was_after_every_kill() {
    let place = Place::new();
    let dir = place.path("drill").display().to_string();
    let said = everlog([
        "drill",
        "--machine",
        "--cycles",
        "8",
        "--writers",
        "3",
        "--keys",
        "300",
        "--seed",
        "5",
        "--json",
        "--dir",
        &dir,
    ])
    .fine();
    let objects = said.objects();
    assert_eq!(objects.len(), 1);
    let summary = &objects[0];
    assert_eq!((&summary["seed"], &summary["cycles"]), (&5.into(), &8.into()));
    assert_eq!(
        (&summary["violations"], &summary["budget_seconds"]),
        (&0.into(), &2.0.into())
    );
    for count in ["acknowledged", "keys", "checkpoints"] {
        assert!(summary[count].as_u64().unwrap() > 0, "{count} in {summary}");
    }
    let count = |of: &str| summary[of].as_u64().unwrap();
    assert!(count("kills") >= 8 && count("restarts") >= 8, "{summary}");
    // The first opening of all, and the restarts that were not killed before they had told.
    assert!(count("digests_equal") > 8, "{summary}");
    let stages = summary["stages"].as_array().unwrap();
    let hits: u64 = stages.iter().map(|stage| stage["kills"].as_u64().unwrap()).sum();
    assert_eq!(hits, count("kills"), "{summary}");
    assert!(
        summary["longest_restart"]["seconds"].as_f64().unwrap() > 0.0,
        "{summary}"
    );
    assert!(!fs::exists(&dir).unwrap());
}

#[test]
fn a_drill_of_a_machine_tells_people_how_long_restarts_took() {
    let place = Place::new();
    let file = place.file("lines", "one\r\n\nthree\nfour without an end");
    let dir = place.path("drill").display().to_string();
    let said = everlog([
        "drill",
        &file,
        "--machine",
        "--seconds",
        "1",
        "--keys",
        "20",
        "--restart-within",
        "60",
        "--strict-budget",
        "--seed",
        "2",
        "--dir",
        &dir,
    ])
    .fine();
    let text = said.text();
    for part in [
        "8 writers put the lines of",
        "into a map of 20 keys while checkpoints are taken, and are killed for 1 s, seed 2",
        "budget 60.0 s: all of them within it",
        "the longest: journal",
        "violations      0",
        "the digest that the model had",
        "power loss",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn a_machine_that_forgets_is_caught_and_kept_to_be_looked_at() {
    let place = Place::new();
    let dir = place.path("drill").display().to_string();
    let said = everlog([
        "drill",
        "--machine",
        "--forget",
        "--cycles",
        "50",
        "--keys",
        "300",
        "--seed",
        "5",
        "--dir",
        &dir,
    ])
    .ends_with(1);
    let text = said.text();
    for part in [
        "violation: changed: the machine with",
        "has digest",
        "next: everlog verify",
        "seed 5; the directory is kept",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    // The journal itself is whole: it was the machine that forgot.
    everlog(["verify", &dir]).fine();
    everlog(["snapshot", "verify", &dir]).fine();
}

/// A budget that no restart keeps is a finding where it was said to be one.
#[test]
fn a_restart_beyond_a_strict_budget_is_a_finding() {
    let place = Place::new();
    let options = [
        "--machine",
        "--cycles",
        "2",
        "--restart-within",
        "0.000001",
        "--keys",
        "50",
    ];
    let dir = place.path("told").display().to_string();
    let told = everlog([&["drill", "--dir", &dir], &options[..]].concat()).fine();
    assert!(told.text().contains("budget 1.00 us"), "{}", told.text());
    let dir = place.path("strict").display().to_string();
    let strict = everlog([&["drill", "--dir", &dir, "--strict-budget"], &options[..]].concat()).ends_with(1);
    let text = strict.text();
    for part in [
        "violation: late: a restart after a kill",
        "was to take 1.00 us at most: journal",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn options_of_a_drilled_machine_need_a_machine() {
    for options in [
        &["--restart-within", "1"][..],
        &["--strict-budget"],
        &["--keys", "5"],
        &["--life", "1"],
        &["--machine", "--mix"],
        &["--machine", "--logs", "2"],
        &["--machine", "--faults"],
        &["--mix", "--keys", "5"],
        &["--machine", "--restart-within", "0"],
        &["--machine", "--restart-within", "soon"],
    ] {
        everlog([&["drill"], options].concat()).ends_with(2);
    }
}
