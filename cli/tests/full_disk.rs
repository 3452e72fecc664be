//! The tool on a disk that is full, read-only, or not its user's: the code of the table, and one sentence that says so.
//!
//! Opt-in, for it mounts: `EVERLOG_ROOT=1` and root, as scripts/full-disk does.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{everlog, everlog_fed};
#[path = "../../tests/support/mount.rs"]
mod mount;
use mount::{Kind, Mount, free, is_allowed};

/// Appends lines without end; how it ended.
fn append_for_ever(dir: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_everlog"))
        .args(["append", dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let line = vec![b'x'; 20_000];
        while stdin
            .write_all(&line)
            .and_then(|()| stdin.write_all(b"\n"))
            .is_ok()
        {}
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

/// The number in front of `word`.
fn number_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap();
    let digits = before
        .rsplit(|c: char| !c.is_ascii_digit() && c != ',')
        .find(|part| !part.is_empty());
    digits.unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn append_on_a_full_disk_ends_with_4_and_keeps_what_it_said() {
    if !is_allowed() {
        return;
    }
    let mount = Mount::new(Kind::Tmpfs, 320 << 20);
    let dir = mount.path().join("j").display().to_string();
    let output = append_for_ever(&dir);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("No space left") && said.contains(" entries are durable"),
        "{said}"
    );
    let durable = number_before(&said, " entries are durable");
    println!("{}", said.trim());
    mount.ballast();
    assert_eq!(free(&mount.path()), 0);
    let cat = everlog(["cat", &dir]).fine();
    let lines = cat.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert!(durable > 1000 && lines >= durable, "{lines} of {durable}");
    everlog(["verify", &dir]).fine();
    everlog(["stat", &dir]).fine();
    everlog_fed(["append", &dir], b"one more\n").refuses(4, &["nothing was appended durably", &dir]);
    fs::remove_file(mount.path().join("ballast")).unwrap();
    let again = everlog(["cat", &dir]).fine();
    assert!(again.stdout == cat.stdout, "a refused append changes nothing");
}

#[test]
fn a_new_journal_that_does_not_fit_ends_with_4_and_works_when_it_fits() {
    if !is_allowed() {
        return;
    }
    let mount = Mount::new(Kind::Tmpfs, 1 << 20);
    let dir = mount.path().join("j").display().to_string();
    everlog_fed(["append", &dir], b"a\n").refuses(4, &["No space left", &dir]);
    mount.remount("size=320m");
    everlog_fed(["append", &dir], b"a\n").ends_with(0);
    assert_eq!(everlog(["cat", &dir]).fine().text(), "a\n");
}

#[test]
fn a_read_only_disk_ends_with_2_and_can_be_read() {
    if !is_allowed() {
        return;
    }
    let mount = Mount::new(Kind::Ext4, 320 << 20);
    let dir = mount.path().join("j").display().to_string();
    everlog_fed(["append", &dir], b"a\n").ends_with(0);
    mount.remount("ro");
    everlog_fed(["append", &dir], b"b\n").refuses(2, &["Read-only", &dir]);
    assert_eq!(everlog(["cat", &dir]).fine().text(), "a\n");
    everlog(["verify", &dir]).fine();
    everlog(["stat", &dir]).fine();
}

/// Runs the tool as a user who owns nothing.
fn as_nobody(tool: &Path, args: &[&str]) -> Output {
    Command::new(tool)
        .args(args)
        .uid(65534)
        .gid(65534)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_user_without_permission_is_told_in_one_sentence() {
    if !is_allowed() {
        return;
    }
    let mount = Mount::new(Kind::Tmpfs, 360 << 20);
    let tool = mount.path().join("everlog");
    fs::copy(env!("CARGO_BIN_EXE_everlog"), &tool).unwrap();
    let dir = mount.path().join("j").display().to_string();
    everlog_fed(["append", &dir], b"a\n").ends_with(0);
    for (mode, commands) in [
        (0o700, &["append", "cat", "stat", "verify"][..]),
        (0o755, &["append"]),
    ] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        for command in commands {
            let output = as_nobody(&tool, &[command, &dir]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{command}, {mode:o}: {said}");
            assert!(
                said.contains("ermission denied") && said.contains(&dir),
                "{command}, {mode:o}: {said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    assert_eq!(everlog(["cat", &dir]).fine().text(), "a\n");
}
