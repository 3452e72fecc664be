//! A map whose versions share their nodes: `capture` clones one pointer, so commands wait for nothing while a checkpoint is written.
//!
//! `cargo run --example persistent_map [DIR]`: run it several times with a directory, and the map grows.

use std::error::Error;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::thread;

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, StateMachine};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Config, EntryId, Journal, LogKey};
use imbl::OrdMap;

/// Understands `put KEY VALUE` and `delete KEY`, and replies with what stood there.
#[derive(Default)]
struct Map {
    map: OrdMap<String, String>,
}

impl StateMachine for Map {
    fn apply(&mut self, _: EntryId, command: &[u8]) -> Bytes {
        let text = String::from_utf8_lossy(command);
        let mut words = text.splitn(3, ' ');
        let before = match (words.next(), words.next(), words.next()) {
            (Some("put"), Some(key), Some(value)) => self.map.insert(key.to_owned(), value.to_owned()),
            (Some("delete"), Some(key), None) => self.map.remove(key),
            // It cannot fail: a command that is refused is one whose reply says so.
            _ => Some("not understood".to_owned()),
        };
        before.unwrap_or_default().into()
    }

    fn capture(&self) -> Capture {
        let map = self.map.clone();
        debug_assert!(map.ptr_eq(&self.map), "not one node was copied");
        Capture::new(move |into| {
            let mut into = BufWriter::new(into);
            // In the order of the keys, so that two snapshots of nearly the same map share nearly all of their chunks.
            map.iter()
                .try_for_each(|(key, value)| writeln!(into, "{key} {value}"))?;
            into.flush()
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.map.clear();
        for line in BufReader::new(from).lines() {
            let line = line?;
            let (key, value) = line.split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
            self.map.insert(key.to_owned(), value.to_owned());
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.map.clear();
    }
}

fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let journal = Journal::open_or_create(dir, Config::new().segment_bytes(4 << 20))?;
    let store = Store::open(dir, StoreConfig::new())?;
    let open = || Engine::open(&journal, LogKey(1), &store, Map::default(), EngineConfig::new());

    let engine = open()?;
    let had = engine.read(|map| map.map.len())?;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let engine = engine.clone();
            thread::spawn(move || {
                (0..200).try_for_each(|n| engine.execute(format!("put {had}-{writer}-{n} {n}")).map(drop))
            })
        })
        .collect();
    // While they write.
    let done = engine.checkpoint()?;
    for writer in writers {
        writer.join().expect("no writer panics")?;
    }
    println!(
        "{had} entries were there; a checkpoint held commands up for {:?}",
        done.capture
    );
    assert_eq!(
        engine.execute(format!("put {had}-0-7 changed"))?,
        "7",
        "the reply is the old value"
    );

    // A reader looks at a version of its own, and holds nobody up.
    let seen = engine.read(|map| map.map.clone())?;
    engine.execute(format!("delete {had}-0-7"))?;
    assert_eq!(
        seen.get(&format!("{had}-0-7")).map(String::as_str),
        Some("changed")
    );
    assert_eq!(seen.len(), had + 800);
    engine.checkpoint()?;
    engine.execute(format!("put {had}-last x"))?;
    engine.close()?;

    let engine = open()?;
    assert_eq!(engine.read(|map| map.map.len())?, had + 800);
    assert_eq!(
        engine.report().replayed_entries,
        1,
        "what came after the checkpoint"
    );
    println!("restarted in {:?}", engine.report().total);
    Ok(())
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
