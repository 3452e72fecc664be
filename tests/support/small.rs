//! What the histories share: small journals on a simulated disk, crashes in every way that is small enough to enumerate,
//! and the raw bytes of segments, read by the format and not by the library.

use std::sync::Arc;

use everlog::fs::{Choice, Fs, Profile, SimFs};
use everlog::{Alignment, Background, Config, Error, Journal, Log, LogKey};

pub(crate) const A: LogKey = LogKey(1);
pub(crate) const B: LogKey = LogKey(2);

/// The smallest segments, no threads.
pub(crate) fn small() -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .background(Background::Caller)
}

pub(crate) fn blocks() -> Config {
    small().alignment(Alignment::Bytes4096)
}

pub(crate) fn disk(seed: u64) -> SimFs {
    SimFs::new(seed, Profile::PosixWeak)
}

pub(crate) fn dynamic(disk: &SimFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}

pub(crate) fn create(disk: &SimFs) -> Journal {
    Journal::create_on(dynamic(disk), small()).unwrap()
}

pub(crate) fn try_open(disk: &SimFs) -> Result<Journal, Error> {
    Journal::open_on(dynamic(disk), small())
}

/// Opens, or fails the test with `story`.
pub(crate) fn open(disk: &SimFs, story: &str) -> Journal {
    try_open(disk).unwrap_or_else(|e| panic!("{story}: {e}"))
}

/// A journal with the empty log `A`.
pub(crate) fn one_log(disk: &SimFs) -> (Journal, Log) {
    let journal = create(disk);
    let log = journal.create_log(A, 0).unwrap();
    (journal, log)
}

/// All payloads of a log, verified.
pub(crate) fn payloads(log: &Log) -> Vec<Vec<u8>> {
    let range = log.bounds().unwrap();
    log.read(range)
        .map(|entry| entry.unwrap().payload.to_vec())
        .collect()
}

/// An entry that says which one it is, of `len` bytes.
pub(crate) fn entry(index: u64, len: usize) -> Vec<u8> {
    let mut bytes = format!("entry {index} ").into_bytes();
    bytes.resize(len.max(bytes.len()), b'a' + u8::try_from(index % 26).unwrap());
    bytes
}

/// Visits what a power cut may leave: everything if that is at most `limit` outcomes, otherwise the outcomes of `seeds`
/// seeds. `story` names each for a message.
pub(crate) fn each_outcome(disk: &SimFs, limit: u64, seeds: u64, visit: &mut dyn FnMut(SimFs, &str)) -> bool {
    let mut outcomes = Vec::new();
    let (_, all) = disk.each_crash(limit, &mut |after| outcomes.push(after));
    if all {
        for (n, after) in outcomes.into_iter().enumerate() {
            visit(after, &format!("outcome {n}"));
        }
        return true;
    }
    for seed in 0..seeds {
        visit(disk.crash(seed), &format!("crash seed {seed}"));
    }
    false
}

/// The power cut that keeps everything.
pub(crate) fn keep_all(disk: &SimFs) -> SimFs {
    disk.crash_with(&mut |choice| choice.newest())
}

/// The power cut that keeps only what was synced.
pub(crate) fn keep_synced(disk: &SimFs) -> SimFs {
    disk.crash_with(&mut |_| 0)
}

/// A power cut that drops the pending atoms that `lost` names, and keeps all others.
pub(crate) fn lose(disk: &SimFs, lost: &dyn Fn(&Choice<'_>) -> bool) -> SimFs {
    disk.crash_with(&mut |choice| if lost(&choice) { 0 } else { choice.newest() })
}

/// Paths of the segment files that were ever written, ascending.
pub(crate) fn segments(disk: &SimFs) -> Vec<String> {
    let files = disk.files().into_keys().filter(|path| path.ends_with(".seg"));
    files
        .filter(|path| disk.read_raw(path).unwrap().iter().any(|byte| *byte != 0))
        .collect()
}

pub(crate) fn last_segment(disk: &SimFs) -> String {
    segments(disk).pop().expect("a segment")
}

/// Bytes of all files together, and how many there are.
pub(crate) fn usage(disk: &SimFs) -> (u64, usize) {
    let files = disk.files();
    (files.values().sum(), files.len())
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The batch headers of a segment, found by walking the format from offset 8192.
#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) sequence: u64,
    pub(crate) durable_through: u64,
    pub(crate) frames: u32,
    pub(crate) flags: u8,
}

impl RawBatch {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The sectors of 512 bytes that it touches.
    pub(crate) fn sectors(&self) -> std::ops::Range<u64> {
        self.offset / 512..self.end().div_ceil(512)
    }

    pub(crate) fn is_mark(&self) -> bool {
        self.flags & 1 != 0
    }
}

pub(crate) fn batches(bytes: &[u8]) -> Vec<RawBatch> {
    let mut found = Vec::new();
    let mut at = 8192;
    while at + 96 <= bytes.len() && bytes[at + 4..at + 8] == *b"BTCH" {
        let header = &bytes[at..at + 96];
        if crc32fast::hash(&header[4..]) != u32_at(header, 0) {
            break;
        }
        found.push(RawBatch {
            offset: at as u64,
            len: u64::from(u32_at(header, 56)),
            sequence: u64_at(header, 32),
            durable_through: u64_at(header, 40),
            frames: u32_at(header, 60),
            flags: header[74],
        });
        at += u32_at(header, 56) as usize;
    }
    found
}

/// The bytes of a batch in those of its segment.
pub(crate) fn slice<'a>(bytes: &'a [u8], batch: &RawBatch) -> &'a [u8] {
    &bytes[size(batch.offset)..size(batch.end())]
}

pub(crate) fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

pub(crate) fn batches_of(disk: &SimFs, path: &str) -> Vec<RawBatch> {
    batches(&disk.read_raw(path).unwrap())
}

/// Stamps a changed opening with its checksum again.
pub(crate) fn restamp_opening(opening: &mut [u8]) {
    let crc = crc32fast::hash(&opening[12..256]);
    opening[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Replaces both copies of an opening by what `change` makes of it.
pub(crate) fn rewrite_opening(disk: &SimFs, path: &str, change: &dyn Fn(&mut [u8])) {
    let mut opening = disk.read_raw(path).unwrap()[..256].to_vec();
    change(&mut opening);
    restamp_opening(&mut opening);
    disk.write_raw(path, 0, &opening).unwrap();
    disk.write_raw(path, 4096, &opening).unwrap();
}

/// Appends `count` entries of `len` bytes, as many as the journal takes.
pub(crate) fn fill_with(log: &Log, count: u64, len: usize) {
    for _ in 0..count {
        let Ok(bounds) = log.bounds() else { return };
        if log.append(entry(bounds.end, len)).is_err() {
            return;
        }
    }
}

/// The files of `disk` on a disk of their own, with a clock of its own, all durable but perhaps for the name of the
/// journal's directory.
pub(crate) fn copy_of(disk: &SimFs, root_is_synced: bool) -> SimFs {
    let copy = SimFs::new(99, disk.profile());
    copy.create_dir("journal").unwrap();
    for (path, bytes) in disk.dump() {
        if path.starts_with("journal/") {
            let file = copy.create(&path).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            file.sync_data().unwrap();
        }
    }
    copy.sync_dir("journal").unwrap();
    if root_is_synced {
        copy.sync_dir("").unwrap();
    }
    copy
}
