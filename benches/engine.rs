//! The engine, beside the floor of the same run where there is one.
//!
//! * `replay`: opening an engine with a long log, beside reading the same segments with their CRC and applying the same commands.
//! * `latency`: the 99th percentile of writers while checkpoints with an O(1) capture are taken back to back, beside that without any.
//! * `disk`: how many bytes were written for each byte of commands, and how many stand there for each byte of the state.
//! * `memory`: the most that a checkpoint of a large state takes in memory, while writers go on.
//!
//! `cargo bench --bench engine`, or parts of it: `cargo bench --bench engine -- memory latency`. `EVERLOG_ENGINE_STATE_MIB=4096` sets the size of
//! the state (64), `EVERLOG_ENGINE_LOG_MIB` that of the log to replay (256), `EVERLOG_ENGINE_COMMAND_BYTES` that of the commands in it (256, 1024
//! and 4096 one after the other), `EVERLOG_ENGINE_TURNS` how often floor and engine take turns (5).
//!
//! The machine holds the version of each block of 4 KiB; what is in a block follows from its number and version. So the state of 4 GiB
//! that a checkpoint writes needs no 4 GiB of memory beside it, and what is measured is the checkpoint.

use std::fs;
use std::hint::black_box;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Random, area, scan};
use everlog::engine::{Capture, Engine, EngineConfig, StateMachine};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Config, EntryId, Journal, LogKey};
use imbl::Vector;

#[expect(dead_code, reason = "each bench needs a part of it")]
mod common;

const BLOCK: usize = 4096;
const COMMAND: usize = 1 << 10;
const KEY: LogKey = LogKey(1);
const WRITERS: usize = 4;

/// A command names a block in its first 8 bytes, and rewrites it.
struct Blocks {
    versions: Vector<u32>,
}

fn fill(number: u64, version: u32, block: &mut [u8; BLOCK]) {
    let mut random = Random(number << 32 ^ u64::from(version));
    let (words, _) = block.as_chunks_mut::<8>();
    words
        .iter_mut()
        .for_each(|word| *word = random.next().to_le_bytes());
    block[..4].copy_from_slice(&version.to_le_bytes());
}

impl Blocks {
    fn of_mib(mib: u64) -> Blocks {
        let blocks = usize::try_from((mib << 20) / BLOCK as u64).expect("a size that fits");
        Blocks {
            versions: std::iter::repeat_n(0, blocks).collect(),
        }
    }

    fn change(&mut self, command: &[u8]) {
        let number = u64::from_le_bytes(command[..8].try_into().expect("a number"));
        let at = usize::try_from(number % self.versions.len() as u64).expect("a block");
        self.versions[at] += 1;
    }
}

impl StateMachine for Blocks {
    fn apply(&mut self, _: EntryId, command: &[u8]) -> Bytes {
        self.change(command);
        Bytes::new()
    }

    fn capture(&self) -> Capture {
        let versions = self.versions.clone(); // O(1)
        Capture::new(move |into| {
            let mut block = [0; BLOCK];
            for (number, version) in (0..).zip(&versions) {
                fill(number, *version, &mut block);
                into.write_all(&block)?;
            }
            Ok(())
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut from = BufReader::with_capacity(1 << 20, from);
        let mut block = [0; BLOCK];
        for version in &mut self.versions {
            from.read_exact(&mut block)?;
            *version = u32::from_le_bytes(block[..4].try_into().expect("4 bytes"));
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.versions.iter_mut().for_each(|version| *version = 0);
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    let set = std::env::var(format!("EVERLOG_ENGINE_{name}"));
    set.map_or(otherwise, |text| text.parse().expect("a number"))
}

fn state_mib() -> u64 {
    setting("STATE_MIB", 64)
}

/// A command of `len` bytes to a random block.
fn command_of(len: usize, random: &mut Random) -> Vec<u8> {
    let mut command = vec![0; len];
    let (words, _) = command.as_chunks_mut::<8>();
    words
        .iter_mut()
        .for_each(|word| *word = random.next().to_le_bytes());
    command
}

fn command(random: &mut Random) -> Vec<u8> {
    command_of(COMMAND, random)
}

struct World {
    dir: tempfile::TempDir,
    journal: Journal,
    store: Store,
}

impl World {
    fn new() -> World {
        let dir = area();
        World {
            journal: Journal::create(dir.path(), Config::new()).expect("a journal is created"),
            store: Store::open(dir.path(), StoreConfig::new()).expect("the store opens"),
            dir,
        }
    }

    /// Checkpoints are taken by hand.
    fn open(&self, mib: u64) -> Engine<Blocks> {
        let config = EngineConfig::new().checkpoint_bytes(None);
        Engine::open(&self.journal, KEY, &self.store, Blocks::of_mib(mib), config).expect("the engine opens")
    }
}

/// The middle one, and the lowest and the highest beside it.
fn spread(mut of: Vec<f64>) -> String {
    of.sort_by(f64::total_cmp);
    format!(
        "{:.2} (median of {}, {:.2} to {:.2})",
        of[of.len() / 2],
        of.len(),
        of[0],
        of[of.len() - 1]
    )
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to as f64
}

fn replay() {
    let lens = match setting("COMMAND_BYTES", 0) {
        0 => vec![256, COMMAND, BLOCK],
        len => vec![usize::try_from(len).expect("a length that fits")],
    };
    lens.into_iter().for_each(replay_of);
}

/// A log of commands of `len` bytes.
fn replay_of(len: usize) {
    let mib = setting("LOG_MIB", 256);
    let world = World::new();
    let engine = world.open(1);
    let mut random = Random(5);
    let commands = (mib << 20) / len as u64;
    for _ in 0..commands / 64 {
        let batch: Vec<_> = (0..64).map(|_| command_of(len, &mut random)).collect();
        engine.execute_batch(batch).expect("the commands are executed");
    }
    engine.close().expect("the engine closes");
    let mut ratios = Vec::new();
    for _ in 0..setting("TURNS", 5).max(1) {
        let started = Instant::now();
        let mut floor = Blocks::of_mib(1);
        // Commands stand in the segments with little between them: each piece of their length is taken for one.
        let crc = scan::read_each(world.dir.path(), mib << 20, &mut |window| {
            window.chunks_exact(len).for_each(|command| floor.change(command));
        });
        black_box((crc, &floor.versions));
        let floor = started.elapsed();
        let started = Instant::now();
        let engine = world.open(1);
        let ours = started.elapsed();
        assert_eq!(engine.report().replayed_entries, commands / 64 * 64);
        ratios.push(floor.as_secs_f64() / ours.as_secs_f64());
        println!(
            "floor {floor:?}, engine {ours:?}, of which {:?} for lack of verified entries",
            engine.report().replay_waited
        );
        engine.close().expect("the engine closes");
    }
    println!(
        "figure: engine: replay of {mib} MiB in commands of {len} bytes: {} of reading, CRC and applying the same bytes",
        spread(ratios)
    );
}

/// What writers see until `over`: how long each command took, in microseconds.
fn write_until(engine: &Engine<Blocks>, over: &(dyn Fn() -> bool + Sync)) -> Vec<u64> {
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let write = |seed: u64| {
            move || {
                let mut random = Random(seed);
                let mut took = Vec::new();
                while !over() {
                    let command = command(&mut random);
                    let started = Instant::now();
                    engine.execute(command).expect("the command is executed");
                    took.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
                took
            }
        };
        let writers: Vec<_> = (0..WRITERS as u64).map(|seed| scope.spawn(write(seed))).collect();
        for writer in writers {
            all.extend(writer.join().expect("no writer panics"));
        }
    });
    all.sort_unstable();
    all
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Writers while as many checkpoints are taken as `count`.
fn write_during(engine: &Engine<Blocks>, count: usize) -> (Vec<u64>, Duration) {
    let over = AtomicBool::new(false);
    let started = Instant::now();
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                // Something must have been applied since.
                engine.execute([0; COMMAND]).expect("the command is executed");
                engine.checkpoint().expect("the checkpoint is taken");
            }
            over.store(true, Ordering::Relaxed);
        });
        write_until(engine, &|| over.load(Ordering::Relaxed))
    });
    (took, started.elapsed())
}

fn latency() {
    let mib = state_mib();
    let world = World::new();
    let engine = world.open(mib);
    engine.execute([0; COMMAND]).expect("the command is executed");
    engine.checkpoint().expect("the first checkpoint is taken");
    let mut random = Random(3);
    let changes: Vec<_> = (0..(mib << 20) / BLOCK as u64)
        .map(|_| command(&mut random))
        .collect();
    for changes in changes.chunks(64) {
        engine.execute_batch(changes).expect("the commands are executed");
    }
    let alone = engine.checkpoint().expect("a checkpoint is taken").total;
    println!("a checkpoint takes {alone:?} alone");
    let mut ratios = Vec::new();
    for turn in 0..setting("TURNS", 5).max(1) {
        let (with, lasted) = write_during(&engine, 2);
        println!("turn {turn}: two checkpoints took {lasted:?}");
        let started = Instant::now();
        let without = write_until(&engine, &|| started.elapsed() >= lasted);
        let (with_99, without_99) = (percentile(&with, 99), percentile(&without, 99));
        println!(
            "turn {turn}: with checkpoints {} commands, p50 {} us, p99 {with_99} us; without {}, p50 {} us, p99 {without_99} us",
            with.len(),
            percentile(&with, 50),
            without.len(),
            percentile(&without, 50)
        );
        ratios.push(ratio(with_99, without_99));
    }
    println!(
        "figure: engine: p99 of {WRITERS} writers during checkpoints of {mib} MiB: {} times that without",
        spread(ratios)
    );
}

/// Bytes of all files below `dir`.
fn usage(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("a directory that lists");
    let sizes = entries.map(|entry| {
        let entry = entry.expect("a directory that lists");
        let about = entry.metadata().expect("a file has a size");
        if about.is_dir() {
            usage(&entry.path())
        } else {
            about.len()
        }
    });
    sizes.sum()
}

/// A number of this process, from /proc/self.
fn from_proc(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn disk() {
    let mib = state_mib();
    let world = World::new();
    let engine = world.open(mib);
    let mut random = Random(8);
    let blocks = (mib << 20) / BLOCK as u64;
    let written = from_proc("io", "wchar:");
    let mut commands = 0;
    for _ in 0..5 {
        // One part of the state is hot: 1 % of it, in a row.
        let hot = random.below(blocks);
        let changes: Vec<_> = (0..(blocks / 100).max(1))
            .map(|at| {
                let mut command = command(&mut random);
                command[..8].copy_from_slice(&((hot + at) % blocks).to_le_bytes());
                command
            })
            .collect();
        commands += changes.len() * COMMAND;
        for changes in changes.chunks(64) {
            engine.execute_batch(changes).expect("the commands are executed");
        }
        engine.checkpoint().expect("the checkpoint is taken");
    }
    let [snapshots, journal] = ["snapshots", "journal"].map(|part| usage(&world.dir.path().join(part)));
    println!(
        "figure: engine: disk after 5 checkpoints of {mib} MiB with 1 % changed before each: snapshots {:.2} bytes for each of the \
         state, the journal {} MiB",
        ratio(snapshots, mib << 20),
        journal >> 20
    );
    if let (Some(before), Some(after)) = (written, from_proc("io", "wchar:")) {
        println!(
            "figure: engine: {:.2} bytes written for each of state and commands ({} MiB of commands)",
            ratio(after - before, (mib << 20) + commands as u64),
            commands >> 20
        );
    }
}

fn memory() {
    let mib = state_mib();
    let world = World::new();
    let engine = world.open(mib);
    engine.execute([0; COMMAND]).expect("the command is executed");
    // 5: the peak begins anew.
    let resets = fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = from_proc("status", "VmRSS:");
    let over = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let taken = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let writes = write_until(&engine, &|| over.load(Ordering::Relaxed));
            done.store(writes.len() as u64, Ordering::Relaxed);
        });
        let taken = engine.checkpoint().expect("the checkpoint is taken");
        over.store(true, Ordering::Relaxed);
        writer.join().expect("no writer panics");
        taken
    });
    let peak = from_proc("status", "VmHWM:");
    println!(
        "figure: engine: a checkpoint of {mib} MiB: capture {:?}, all {:?}; {} commands went on meanwhile",
        taken.capture,
        taken.total,
        done.load(Ordering::Relaxed)
    );
    match (before, peak) {
        (Some(before), Some(peak)) if resets => println!(
            "figure: engine: a checkpoint of {mib} MiB: at most {} MiB of memory, {} MiB more than before",
            peak >> 10,
            peak.saturating_sub(before) >> 10
        ),
        _ => println!("this system does not tell the peak of memory"),
    }
    engine.close().expect("the engine closes");
    let engine = world.open(mib);
    println!(
        "figure: engine: {mib} MiB restored in {:?}",
        engine.report().restore
    );
}

fn main() {
    // Without --bench it was started by a run of tests, which has no use for figures.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let parts: [(&str, fn()); 4] = [
        ("replay", replay),
        ("latency", latency),
        ("disk", disk),
        ("memory", memory),
    ];
    let wanted = |name: &str| arguments.iter().any(|argument| argument == name);
    let all = !parts.iter().any(|(name, _)| wanted(name));
    for (name, part) in parts {
        if all || wanted(name) {
            part();
        }
    }
}
