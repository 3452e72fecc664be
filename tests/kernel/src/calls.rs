//! Calls on a few files, made alike on the kernel's file system and on the simulated one.

use std::io;
use std::path::Path;

use everlog::fs::{Access, Fs};
use rustix::fs::{FallocateFlags, fallocate};

use crate::random::Random;

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Create(&'static str),
    /// `len` times `byte` at `at`.
    Write {
        file: &'static str,
        at: u64,
        len: usize,
        byte: u8,
    },
    SetLen(&'static str, u64),
    /// Reserves blocks, which read zero; in the simulator a size, which does the same.
    Allocate(&'static str, u64),
    Sync(&'static str),
    SyncDir,
    Rename(&'static str, &'static str),
    Remove(&'static str),
    /// The system begins to write the file back; promises nothing.
    WriteBack(&'static str),
}

/// A sequence of calls after a durable beginning.
pub(crate) struct Story {
    pub(crate) name: String,
    pub(crate) seed: u64,
    /// Sectors of the simulated disk; with 512, the real one is torn there, too.
    pub(crate) sector_bytes: u64,
    pub(crate) before: Vec<Call>,
    pub(crate) calls: Vec<Call>,
    /// How ext4 is mounted, one after the other.
    pub(crate) options: &'static [&'static str],
}

/// What a story is called, what is durable before it, and its calls.
type Row = (&'static str, Vec<Call>, Vec<Call>);

impl Call {
    /// `root` is where a real `fs` is mounted.
    pub(crate) fn make(&self, fs: &dyn Fs, root: Option<&Path>) -> io::Result<()> {
        match *self {
            Call::Create(file) => fs.create(file).map(drop),
            Call::Write { file, at, len, byte } => {
                fs.open(file, Access::Write)?.write_all_at(&vec![byte; len], at)
            }
            Call::SetLen(file, len) => fs.open(file, Access::Write)?.set_len(len),
            Call::Allocate(file, len) => match root {
                Some(root) => {
                    let file = std::fs::OpenOptions::new().write(true).open(root.join(file))?;
                    Ok(fallocate(file, FallocateFlags::empty(), 0, len)?)
                }
                None => fs.open(file, Access::Write)?.set_len(len),
            },
            Call::Sync(file) => fs.open(file, Access::Write)?.sync_data(),
            Call::SyncDir => fs.sync_dir(""),
            Call::Rename(from, to) => fs.rename(from, to),
            Call::Remove(file) => fs.remove(file),
            Call::WriteBack(file) => fs.open(file, Access::Write)?.evict().map(drop),
        }
    }
}

fn write(file: &'static str, blocks: std::ops::Range<u64>, byte: u8) -> Call {
    let len = usize::try_from((blocks.end - blocks.start) * 4096).expect("a few blocks");
    Call::Write {
        file,
        at: blocks.start * 4096,
        len,
        byte,
    }
}

fn bytes(file: &'static str, range: std::ops::Range<u64>, byte: u8) -> Call {
    let len = usize::try_from(range.end - range.start).expect("a few bytes");
    Call::Write {
        file,
        at: range.start,
        len,
        byte,
    }
}

/// The commit of another file takes along what the journal of the file system holds.
fn commit() -> [Call; 3] {
    use Call::*;
    [Create("other"), bytes("other", 0..100, b'o'), Sync("other")]
}

/// The stories whose outcomes are known from the crash model, and more about sizes and cuts.
pub(crate) fn stories() -> Vec<Story> {
    let table = [overwriting(), appending(), cutting(), naming()].concat();
    let mut stories: Vec<Story> = table
        .into_iter()
        .zip(1..)
        .map(|((name, before, calls), seed)| Story {
            name: name.to_owned(),
            seed,
            sector_bytes: 4096,
            before,
            calls,
            options: &["", "dioread_lock", "nodelalloc"],
        })
        .collect();
    stories.push(Story {
        name: "overwrite 1 block, torn".to_owned(),
        seed: 1,
        sector_bytes: 512,
        before: one(),
        calls: vec![write("f", 0..1, b'b'), Call::Sync("f")],
        options: &[""],
    });
    stories
}

/// Old blocks and new ones, sector by sector.
fn overwriting() -> Vec<Row> {
    use Call::*;
    vec![
        (
            "overwrite 3 blocks",
            three(),
            vec![write("f", 0..3, b'b'), Sync("f")],
        ),
        (
            "overwrite 3 blocks twice",
            three(),
            vec![
                write("f", 0..3, b'b'),
                WriteBack("f"),
                write("f", 1..3, b'c'),
                Sync("f"),
            ],
        ),
        (
            "two files overwritten",
            vec![
                Create("f"),
                write("f", 0..1, b'a'),
                Create("g"),
                write("g", 0..1, b'a'),
            ],
            vec![write("f", 0..1, b'b'), write("g", 0..1, b'b')],
        ),
        (
            "write into allocated blocks",
            vec![Create("f"), Allocate("f", 12288)],
            vec![write("f", 0..3, b'b'), Sync("f")],
        ),
        (
            "write into blocks full of zeros",
            vec![Create("f"), write("f", 0..3, 0)],
            vec![write("f", 0..3, b'b'), Sync("f")],
        ),
        (
            "grow and write in the middle",
            one(),
            vec![SetLen("f", 16384), write("f", 2..3, b'b'), Sync("f")],
        ),
    ]
}

/// Sizes and what is behind them.
fn appending() -> Vec<Row> {
    use Call::*;
    vec![
        ("append 3 blocks, no sync", one(), vec![write("f", 1..4, b'b')]),
        (
            "append 3 blocks, written back",
            one(),
            vec![write("f", 1..4, b'b'), WriteBack("f")],
        ),
        (
            "append 3 blocks, written back, another file synced",
            one(),
            [vec![write("f", 1..4, b'b'), WriteBack("f")], commit().into()].concat(),
        ),
        (
            "append 3 blocks, another file synced",
            one(),
            [vec![write("f", 1..4, b'b')], commit().into()].concat(),
        ),
        (
            "append 3 blocks and sync",
            one(),
            vec![write("f", 1..4, b'b'), Sync("f")],
        ),
        (
            "append within a block",
            vec![Create("f"), bytes("f", 0..700, b'a')],
            [vec![bytes("f", 700..2000, b'b')], commit().into()].concat(),
        ),
        (
            "append over the end of a block",
            vec![Create("f"), bytes("f", 0..3000, b'a')],
            vec![
                bytes("f", 3000..9000, b'b'),
                WriteBack("f"),
                bytes("f", 9000..9500, b'c'),
                Sync("f"),
            ],
        ),
    ]
}

/// Sizes that fall.
fn cutting() -> Vec<Row> {
    use Call::*;
    vec![
        ("cut in the middle of a block", three(), vec![SetLen("f", 5000)]),
        (
            "cut, written back, another file synced",
            three(),
            [vec![SetLen("f", 5000), WriteBack("f")], commit().into()].concat(),
        ),
        (
            "cut and grow again",
            three(),
            vec![SetLen("f", 5000), WriteBack("f"), SetLen("f", 12288), Sync("f")],
        ),
        (
            "cut to nothing and write again",
            three(),
            vec![SetLen("f", 0), write("f", 0..2, b'b'), WriteBack("f"), Sync("f")],
        ),
    ]
}

/// Names, old and new.
fn naming() -> Vec<Row> {
    use Call::*;
    vec![
        (
            "create, write and sync, no sync of the directory",
            Vec::new(),
            vec![Create("f"), write("f", 0..2, b'b'), Sync("f")],
        ),
        (
            "replace by rename, no sync of the directory",
            one(),
            vec![
                Create("tmp"),
                write("tmp", 0..2, b'b'),
                Sync("tmp"),
                Rename("tmp", "f"),
            ],
        ),
        (
            "replace by rename, nothing synced",
            one(),
            vec![Create("tmp"), write("tmp", 0..2, b'b'), Rename("tmp", "f")],
        ),
        (
            "rename, overwrite and sync, no sync of the directory",
            three(),
            vec![Rename("f", "g"), write("g", 0..3, b'b'), Sync("g")],
        ),
        (
            "remove and create again",
            one(),
            vec![Remove("f"), Create("f"), write("f", 0..1, b'b'), Sync("f")],
        ),
        (
            "names in a row",
            one(),
            vec![
                Create("g"),
                Rename("f", "h"),
                Create("f"),
                Remove("g"),
                Sync("h"),
                SyncDir,
            ],
        ),
    ]
}

fn one() -> Vec<Call> {
    vec![Call::Create("f"), write("f", 0..1, b'a')]
}

fn three() -> Vec<Call> {
    vec![Call::Create("f"), write("f", 0..3, b'a')]
}

/// Calls that no one thought of, on two files, by a seed.
pub(crate) fn random_story(seed: u64) -> Story {
    let mut random = Random::new(seed ^ 0x0ca11);
    let mut there = vec!["f", "g"];
    let mut before = Vec::new();
    for file in &there {
        before.push(Call::Create(file));
        let end = random.pick(&[0, 300, 4096, 5000, 8192]);
        match random.below(4) {
            0 => before.push(Call::Allocate(file, 8192)),
            _ if end > 0 => before.push(bytes(file, 0..end, b'a')),
            _ => {}
        }
    }
    let mut calls = Vec::new();
    for n in 0..2 + random.below(4) {
        let byte = b'b' + u8::try_from(n).expect("a few calls");
        let file = random.pick(&there);
        match random.below(12) {
            0..=3 => {
                let at = random.pick(&[0, 0, 200, 4096, 4096, 6000, 8192]);
                let len = random.pick(&[100, 700, 4096, 8192]);
                calls.push(bytes(file, at..at + len, byte));
            }
            4 => calls.push(Call::SetLen(file, random.pick(&[0, 100, 4096, 5000, 9000]))),
            5 | 6 => calls.push(Call::WriteBack(file)),
            7 => calls.push(Call::Sync(file)),
            8 => {
                let to = random.pick(&["f", "g", "h"]);
                calls.push(Call::Rename(file, to));
                there.retain(|name| *name != file && *name != to);
                there.push(to);
            }
            9 if there.len() > 1 => {
                calls.push(Call::Remove(file));
                there.retain(|name| *name != file);
            }
            10 if !there.contains(&"new") => {
                calls.push(Call::Create("new"));
                there.push("new");
            }
            _ => calls.push(Call::SyncDir),
        }
    }
    if random.one_in(3) {
        calls.extend(commit());
    }
    Story {
        name: format!("random calls, EVERLOG_SEED={seed}"),
        seed,
        sector_bytes: 4096,
        before,
        calls,
        options: random.pick(&[&[""], &[""], &["dioread_lock"], &["nodelalloc"]]),
    }
}
