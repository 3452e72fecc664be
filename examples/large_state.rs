//! A state that fills much of the memory, checkpointed while writers go on: what a checkpoint takes beside the state itself.
//!
//! `cargo run --release --example large_state [MIB [DIR]]`: a state of 64 MiB, unless said otherwise. `scripts/large-state` asks for 4 GiB.
//!
//! The capture shares all blocks with the state. What writers overwrite while it is written stays in memory until it is: that is the price of
//! not stopping them, and at most the state once more. It is told apart from what the checkpoint itself takes, which does not grow with the state but
//! for 200 bytes a chunk.

use std::error::Error;
use std::fs;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use everlog::engine::{Capture, Checkpoint, Engine, EngineConfig, StateMachine};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Config, EntryId, Journal, LogKey};
use imbl::Vector;

const BLOCK: usize = 4096;
const WRITERS: u64 = 4;

/// Blocks of bytes that do not compress and that follow from a seed, which stands in front. A command is a block's number and its new seed.
struct Blocks {
    blocks: Vector<Bytes>,
}

impl Blocks {
    /// The state before the first entry: it has all of its blocks.
    fn of_mib(mib: usize) -> Blocks {
        let count = (mib << 20) / BLOCK;
        Blocks {
            blocks: (0..count as u64).map(block).collect(),
        }
    }

    /// A number for the whole state; panics if a block is not as its seed says.
    fn sum(&self) -> u64 {
        let seeds = self.blocks.iter().map(|bytes| {
            let seed = number(bytes);
            assert_eq!(*bytes, block(seed), "a block is another one");
            seed
        });
        seeds
            .zip(1u64..)
            .fold(0, |sum, (seed, at)| sum.wrapping_add(seed.wrapping_mul(at)))
    }
}

fn block(seed: u64) -> Bytes {
    let mut words = [0; BLOCK];
    let mut next = seed;
    for word in words.as_chunks_mut::<8>().0 {
        *word = next.to_le_bytes();
        next = mixed(next);
    }
    Bytes::copy_from_slice(&words)
}

/// splitmix64
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

impl StateMachine for Blocks {
    fn apply(&mut self, _: EntryId, command: &[u8]) -> Bytes {
        let at = usize::try_from(number(command) % self.blocks.len() as u64).unwrap_or(0);
        self.blocks[at] = block(number(&command[8..]));
        Bytes::new()
    }

    fn capture(&self) -> Capture {
        let blocks = self.blocks.clone(); // O(1)
        Capture::new(move |into| {
            let mut into = BufWriter::with_capacity(1 << 20, into);
            blocks.iter().try_for_each(|bytes| into.write_all(bytes))?;
            into.flush()
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut from = BufReader::with_capacity(1 << 20, from);
        let mut bytes = [0; BLOCK];
        for block in &mut self.blocks {
            from.read_exact(&mut bytes)?;
            *block = Bytes::copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn clear(&mut self) {
        *self = Blocks::of_mib((self.blocks.len() * BLOCK) >> 20);
    }
}

/// KiB of this process, as Linux tells them.
fn memory(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Takes a checkpoint while writers overwrite blocks; returns how many commands they got through.
fn checkpoint(engine: &Engine<Blocks>) -> everlog::Result<(Checkpoint, u64)> {
    let (over, commands) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = |writer: u64| -> everlog::Result<()> {
        let mut seed = writer;
        while !over.load(Ordering::Relaxed) {
            seed = mixed(seed);
            let command = [mixed(!seed).to_le_bytes(), seed.to_le_bytes()].concat();
            engine.execute(command)?;
            commands.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let taken = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(writer)))
            .collect();
        let taken = engine.checkpoint();
        over.store(true, Ordering::Relaxed);
        let wrote = writers
            .into_iter()
            .try_for_each(|writer| writer.join().expect("no writer panics"));
        wrote.and(taken)
    })?;
    Ok((taken, commands.load(Ordering::Relaxed)))
}

fn run(mib: usize, dir: &Path) -> Result<(), Box<dyn Error>> {
    let journal = Journal::create(dir, Config::new().segment_bytes(16 << 20))?;
    let store = Store::open(dir, StoreConfig::new())?;
    let open = || {
        let config = EngineConfig::new().checkpoint_bytes(None);
        Engine::open(&journal, LogKey(1), &store, Blocks::of_mib(mib), config)
    };
    let engine = open()?;
    engine.execute([0; 16])?;
    let state = memory("VmRSS:");
    // 5: the peak begins anew.
    let resets = fs::write("/proc/self/clear_refs", "5").is_ok();
    let (taken, commands) = checkpoint(&engine)?;
    let peak = memory("VmHWM:");
    let bytes = taken.snapshot.map_or(0, |snapshot| snapshot.bytes);
    assert!(bytes >> 20 >= mib as u64, "{bytes}");
    let took = |time: Duration| time.as_secs_f64();
    println!(
        "figure: large-state: a checkpoint of {mib} MiB took {:.2} s and held commands up for {:.6} s; {commands} commands went on meanwhile",
        took(taken.total),
        took(taken.capture)
    );
    match (state, peak) {
        (Some(state), Some(peak)) if resets => println!(
            "figure: large-state: with a state of {mib} MiB in memory, {} MiB before and {} MiB at the peak: {} MiB more, of which at most {} MiB are \
             blocks that were overwritten meanwhile",
            state >> 10,
            peak >> 10,
            peak.saturating_sub(state) >> 10,
            (commands * BLOCK as u64) >> 20
        ),
        _ => println!("this system does not tell the peak of memory"),
    }
    let sum = engine.read(Blocks::sum)?;
    engine.close()?;

    let engine = open()?;
    assert_eq!(engine.read(Blocks::sum)?, sum, "the restored state is the same");
    println!(
        "figure: large-state: restarted in {:.2} s: {:.2} s to restore, {} entries behind it",
        took(engine.report().total),
        took(engine.report().restore),
        engine.report().replayed_entries
    );
    engine.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1);
    let mib = words
        .next()
        .map_or(Ok(64), |word| word.to_string_lossy().parse())?;
    match words.next() {
        Some(dir) => run(mib, tempfile::tempdir_in(dir)?.path()),
        None => run(mib, tempfile::tempdir()?.path()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_does_what_it_says() {
        super::run(2, tempfile::tempdir().unwrap().path()).unwrap();
    }
}
