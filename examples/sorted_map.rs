//! A plain sorted map: `capture` copies it, and nothing is applied or read while it does.
//!
//! What that costs, printed for maps of several sizes: the time of the copy (some 50 to 100 ns for each small entry), during which
//! commands and readers wait, and the memory of a second map until the snapshot is written. Up to some hundred thousand entries
//! nobody notices; beyond that a map whose versions share nodes (`persistent_map`) costs a little more for each command and
//! nothing for a capture.
//!
//! `cargo run --release --example sorted_map [ENTRIES..]`

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufWriter, Read, Write};

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, StateMachine};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Config, EntryId, Journal, LogKey};

/// A command is a key and a number to add to what stands there, both of 8 bytes; the reply is the sum.
#[derive(Clone, Default, PartialEq, Eq)]
struct Sums(BTreeMap<u64, u64>);

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

impl StateMachine for Sums {
    fn apply(&mut self, _: EntryId, command: &[u8]) -> Bytes {
        let (key, add) = command.split_at(command.len().min(8));
        let sum = self.0.entry(number(key)).or_default();
        *sum = sum.wrapping_add(number(add));
        Bytes::copy_from_slice(&sum.to_le_bytes())
    }

    fn capture(&self) -> Capture {
        let sums = self.0.clone(); // all of it
        Capture::new(move |into| {
            let mut into = BufWriter::new(into);
            for (key, sum) in sums {
                into.write_all(&key.to_le_bytes())?;
                into.write_all(&sum.to_le_bytes())?;
            }
            into.flush()
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let (pairs, rest) = bytes.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let pairs = pairs.iter().map(|pair| pair.split_at(8));
        self.0 = pairs.map(|(key, sum)| (number(key), number(sum))).collect();
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn command(key: u64, add: u64) -> Vec<u8> {
    [key.to_le_bytes(), add.to_le_bytes()].concat()
}

fn run(entries: u64) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let journal = Journal::create(dir.path(), Config::new().segment_bytes(4 << 20))?;
    let store = Store::open(dir.path(), StoreConfig::new())?;
    let open = || Engine::open(&journal, LogKey(1), &store, Sums::default(), EngineConfig::new());

    let engine = open()?;
    let keys: Vec<u64> = (0..entries).collect();
    for keys in keys.chunks(1000) {
        engine.execute_batch(keys.iter().map(|key| command(*key, 1)))?;
    }
    let done = engine.checkpoint()?;
    println!(
        "{entries} entries: commands and readers waited {:?} for the copy; the checkpoint took {:?}",
        done.capture, done.total
    );
    // A few change, and only the chunks around them are stored again.
    for key in 0..10.min(entries) {
        engine.execute(command(key, 1))?;
    }
    let snapshot = engine.checkpoint()?.snapshot.ok_or("something was applied")?;
    println!(
        "  the next one stored {} of {} bytes anew",
        snapshot.new_bytes, snapshot.bytes
    );
    let before = engine.read(Clone::clone)?;
    assert_eq!(before.0.len() as u64, entries);
    engine.close()?;

    let engine = open()?;
    assert!(
        engine.read(|sums| *sums == before)?,
        "the restored map is the same"
    );
    assert_eq!(engine.report().replayed_entries, 0);
    println!("  restored in {:?}", engine.report().restore);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let sizes = if asked.is_empty() {
        vec![1_000, 100_000]
    } else {
        asked
    };
    sizes.into_iter().try_for_each(run)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_does_what_it_says() {
        super::run(20_000).unwrap();
    }
}
