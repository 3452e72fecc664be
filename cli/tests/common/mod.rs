//! Runs the real binary as a shell would, piped, so that it must be silent where it has nothing to say.

#![expect(dead_code, reason = "each test file uses a part")]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, StateMachine};
use everlog::snapshot::{SnapshotId, Store, StoreConfig};
use everlog::{Config, EntryId, Journal, LogKey};
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

/// The log of everything that has snapshots.
pub(crate) const LOG: LogKey = LogKey(7);

/// A machine whose state is the list of all commands that it applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct List(pub(crate) Vec<String>);

impl StateMachine for List {
    fn apply(&mut self, _: EntryId, command: &[u8]) -> Bytes {
        self.0.push(String::from_utf8_lossy(command).into_owned());
        self.0.len().to_string().into()
    }

    fn capture(&self) -> Capture {
        let commands = self.0.clone();
        Capture::new(move |into| {
            commands
                .iter()
                .try_for_each(|command| writeln!(into, "{command}"))
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.0 = io::read_to_string(from)?.lines().map(str::to_owned).collect();
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A journal, a store, and the engine of [`LOG`] in `dir`.
pub(crate) struct World {
    pub(crate) journal: Journal,
    pub(crate) store: Store,
    pub(crate) engine: Engine<List>,
}

impl World {
    pub(crate) fn open(dir: &str) -> everlog::Result<World> {
        let journal = Journal::open(dir, small())?;
        World::on(journal, dir)
    }

    pub(crate) fn create(dir: &str) -> World {
        let journal = Journal::create(dir, small()).unwrap();
        World::on(journal, dir).unwrap()
    }

    fn on(journal: Journal, dir: &str) -> everlog::Result<World> {
        let store = Store::open(dir, StoreConfig::new())?;
        let engine = Engine::open(&journal, LOG, &store, List::default(), EngineConfig::new())?;
        Ok(World {
            journal,
            store,
            engine,
        })
    }

    /// Executes the commands of these numbers.
    pub(crate) fn execute(&self, numbers: Range<u32>) {
        for number in numbers {
            self.engine.execute(command(number)).unwrap();
        }
    }

    pub(crate) fn checkpoint(&self) -> SnapshotId {
        self.engine.checkpoint().unwrap().snapshot.unwrap().id
    }

    pub(crate) fn state(&self) -> Vec<String> {
        self.engine.read(|list| list.0.clone()).unwrap()
    }

    pub(crate) fn close(self) {
        self.engine.close().unwrap();
        self.journal.close().unwrap();
    }
}

/// Segments that are made in no time.
pub(crate) fn small() -> Config {
    Config::new().segment_bytes(1 << 20)
}

pub(crate) fn command(number: u32) -> String {
    format!("command {number} of many")
}

/// 20 commands, a checkpoint, 10, a checkpoint, and 5 more, in `dir`; returns the snapshots, the older one first.
pub(crate) fn story(dir: &str) -> [SnapshotId; 2] {
    let world = World::create(dir);
    world.execute(0..20);
    let older = world.checkpoint();
    world.execute(20..30);
    let newer = world.checkpoint();
    world.execute(30..35);
    world.close();
    [older, newer]
}

/// The files of the store in `dir` that end so.
pub(crate) fn stored(dir: &str, ending: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(Path::new(dir).join("snapshots")).unwrap();
    let mut paths: Vec<PathBuf> = names.map(|name| name.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().ends_with(ending));
    paths.sort();
    paths
}

/// Damages the only pack in which `text` stands; returns its path.
#[track_caller]
pub(crate) fn damage_pack(dir: &str, text: &str) -> String {
    for path in stored(dir, ".pack") {
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes());
        if let Some(at) = at {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            return path.display().to_string();
        }
    }
    panic!("{text} stands in no pack");
}

/// Gives a file of a store the version `999`, and the checksum of that, which covers all behind it up to `end`.
pub(crate) fn make_newer(path: &Path, end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let end = end.min(bytes.len());
    bytes[12..14].copy_from_slice(&999u16.to_le_bytes());
    let crc = crc32fast::hash(&bytes[12..end]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
}
