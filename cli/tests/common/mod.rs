//! Runs the real binary as a shell would, piped, so that it must be silent where it has nothing to say.

#![expect(dead_code, reason = "each test file uses a part")]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Said {
        assert_eq!(self.code, code, "{self:?}\n{}", self.text());
        self
    }

    /// Fine, and silent on standard error.
    #[track_caller]
    pub(crate) fn fine(self) -> Said {
        let said = self.ends_with(0);
        assert_eq!(said.stderr, "");
        said
    }

    /// One sentence on standard error that contains `parts`, and nothing on standard output.
    #[track_caller]
    pub(crate) fn refuses(self, code: i32, parts: &[&str]) {
        let said = self.ends_with(code);
        assert_eq!(said.text(), "");
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
        for part in parts {
            assert!(said.stderr.contains(part), "no {part:?} in {}", said.stderr);
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Every line as an object, each with the schema.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| -> Value { serde_json::from_str(line).expect(line) };
        let objects: Vec<Value> = self.text().lines().map(parse).collect();
        for object in &objects {
            assert_eq!(object["schema"], 1, "{object}");
        }
        objects
    }
}

/// Runs the binary.
pub(crate) fn everlog<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    everlog_fed(args, b"")
}

/// Runs the binary with `input` on a pipe.
pub(crate) fn everlog_fed<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_everlog"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that refuses does not read.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Said {
        code: output.status.code().expect("ended by a signal"),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A place for a journal.
pub(crate) struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// The directory of the journal, absent at first.
    pub(crate) fn dir(&self) -> String {
        self.path("j").display().to_string()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A file with `content`.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name).display().to_string()
    }

    /// Appends `lines` to log `log`.
    #[track_caller]
    pub(crate) fn append(&self, log: u64, lines: &str) {
        everlog_fed(
            ["append", &self.dir(), "--log", &log.to_string()],
            lines.as_bytes(),
        )
        .fine();
    }
}

/// The segment files of the journal in `dir` that were written to: a spare has a segment's name a little before its
/// first byte.
pub(crate) fn segments(dir: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(Path::new(dir).join("journal")).unwrap();
    let paths = names.map(|name| name.unwrap().path());
    let written =
        |path: &PathBuf| path.extension() == Some(OsStr::new("seg")) && fs::read(path).unwrap()[0] != 0;
    let mut paths: Vec<PathBuf> = paths.filter(written).collect();
    paths.sort();
    paths
}

/// Flips one bit of the only place where `text` stands in a segment; returns the file and the offset.
#[track_caller]
pub(crate) fn flip(dir: &str, text: &str) -> (PathBuf, usize) {
    let mut hits = Vec::new();
    for path in segments(dir) {
        let bytes = fs::read(&path).unwrap();
        let found = bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes());
        hits.extend(found.map(|at| (path, at)));
    }
    assert_eq!(hits.len(), 1, "{text} stands in {hits:?}");
    let (path, at) = hits.remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    (path, at)
}
