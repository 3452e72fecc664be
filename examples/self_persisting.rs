//! A machine that keeps its state itself, as one on top of a database does: it stores the id of an entry together with the entry's effect,
//! and says how far that is durable. Checkpoints then take no snapshot; they purge the log up to there. At a start the engine
//! hands it the entries that it lacks.
//!
//! The database here is one file, replaced whole every few commands. A real one stores the id in the transaction of the effect.
//!
//! `cargo run --example self_persisting [DIR]`

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, Persistence, StateMachine};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Config, EntryId, Journal, LogKey};

/// The file is replaced after so many commands.
const EVERY: usize = 8;

/// How often each word was handed in.
struct Counts {
    path: PathBuf,
    counts: BTreeMap<String, u64>,
    /// The last entry whose effect is in `counts`, and the last one whose effect is in the file.
    applied: Option<EntryId>,
    durable: Option<EntryId>,
    unsaved: usize,
}

impl Counts {
    fn open(dir: &Path) -> io::Result<Counts> {
        let mut counts = Counts {
            path: dir.join("counts"),
            counts: BTreeMap::new(),
            applied: None,
            durable: None,
            unsaved: 0,
        };
        if let Ok(mut file) = File::open(&counts.path) {
            let mut line = String::new();
            file.read_to_string(&mut line)?;
            counts.parse(&line)?;
        }
        Ok(counts)
    }

    fn parse(&mut self, text: &str) -> io::Result<()> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let pair = |line: &str| -> io::Result<(String, String)> {
            let (a, b) = line.split_once(' ').ok_or_else(bad)?;
            Ok((a.to_owned(), b.to_owned()))
        };
        let mut lines = text.lines();
        let (term, index) = pair(lines.next().ok_or_else(bad)?)?;
        let id = EntryId::new(
            term.parse().map_err(|_| bad())?,
            index.parse().map_err(|_| bad())?,
        );
        self.counts = lines
            .map(|line| {
                let (count, word) = pair(line)?;
                Ok((word, count.parse().map_err(|_| bad())?))
            })
            .collect::<io::Result<_>>()?;
        (self.applied, self.durable) = (Some(id), Some(id));
        Ok(())
    }

    /// The effect of all commands and the id of the last one, durable together or not at all.
    fn save(&mut self) -> io::Result<()> {
        let Some(id) = self.applied else { return Ok(()) };
        let mut text = format!("{} {}\n", id.term.0, id.index);
        for (word, count) in &self.counts {
            let _ = writeln!(text, "{count} {word}");
        }
        let unfinished = self.path.with_extension("tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        (self.durable, self.unsaved) = (self.applied, 0);
        Ok(())
    }
}

impl StateMachine for Counts {
    fn apply(&mut self, id: EntryId, word: &[u8]) -> Bytes {
        let count = self
            .counts
            .entry(String::from_utf8_lossy(word).into_owned())
            .or_default();
        *count += 1;
        let reply = count.to_string().into();
        self.applied = Some(id);
        self.unsaved += 1;
        if self.unsaved >= EVERY
            && let Err(error) = self.save()
        {
            // Not lost: the log keeps what is not durable here, since checkpoints go by what `persistence` says.
            eprintln!("cannot save {}: {error}", self.path.display());
        }
        reply
    }

    fn persistence(&self) -> Persistence {
        Persistence::Itself(self.durable)
    }

    fn capture(&self) -> Capture {
        unreachable!("nobody asks a machine that persists itself")
    }

    /// Only for a snapshot that was installed from elsewhere.
    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let text = io::read_to_string(from)?;
        self.parse(&text)?;
        self.save()
    }

    fn clear(&mut self) {
        self.counts.clear();
        (self.applied, self.durable) = (None, None);
    }
}

fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let journal = Journal::open_or_create(dir, Config::new().segment_bytes(1 << 20))?;
    let store = Store::open(dir, StoreConfig::new())?;
    let open = || -> Result<_, Box<dyn Error>> {
        Ok(Engine::open(
            &journal,
            LogKey(1),
            &store,
            Counts::open(dir)?,
            EngineConfig::new(),
        )?)
    };

    let engine = open()?;
    let before = engine.read(|counts| counts.counts.get("word").copied().unwrap_or(0))?;
    for n in 1..=2 * EVERY as u64 + 3 {
        assert_eq!(engine.execute("word")?, (before + n).to_string());
    }
    let durable = engine.read(|counts| counts.durable)?.expect("it saved");
    let done = engine.checkpoint()?;
    assert!(done.snapshot.is_none(), "it keeps its state itself");
    assert_eq!(
        done.purged_through,
        Some(durable),
        "and the log what it has not saved yet"
    );
    println!(
        "durable up to entry {durable}; the log keeps {:?}",
        engine.log().bounds()?
    );
    engine.close()?;

    // The machine was dropped with some commands unsaved, as in a crash: it comes back as its file says, and gets them again.
    let lacked = engine_lacks(&open()?, before)?;
    println!("{lacked} commands were applied again");
    Ok(())
}

fn engine_lacks(engine: &Engine<Counts>, before: u64) -> Result<u64, Box<dyn Error>> {
    let now = engine.read(|counts| counts.counts["word"])?;
    assert_eq!(
        now,
        before + 2 * EVERY as u64 + 3,
        "nothing is lost, and nothing counts twice"
    );
    let lacked = engine.report().replayed_entries;
    assert!((1..EVERY as u64).contains(&lacked), "{lacked}");
    Ok(lacked)
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(dir) => run(Path::new(&dir)),
        None => run(tempfile::tempdir()?.path()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_does_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        super::run(dir.path()).unwrap();
        super::run(dir.path()).unwrap();
    }
}
