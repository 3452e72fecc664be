//! Rot: every bit of every acknowledged entry flipped in turn, every sector zeroed or filled with garbage. Opening or reading
//! says `Damaged`: never a wrong byte, and never a silent cut of an entry that something witnesses.
//!
//! A sample in CI; `EVERLOG_ROT=all` flips every bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use everlog::fs::SimFs;
use everlog::inspect::verify_on;
use everlog::{EntryId, ErrorKind, Journal, LogKey, WriteBatch};

#[path = "support/small.rs"]
#[expect(dead_code, reason = "shared with other tests, each of which uses a part")]
mod support;

use support::{RawBatch, batches_of, blocks, disk, dynamic, entry, keep_all, segments, small};

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    start: u64,
    entries: Vec<(EntryId, Vec<u8>)>,
    cells: BTreeMap<u8, Vec<u8>>,
}

type State = BTreeMap<LogKey, Held>;

/// A disk with a journal of mixed logs, and what it holds.
struct Subject {
    name: &'static str,
    disk: SimFs,
    config: everlog::Config,
    state: State,
}

fn subjects() -> Vec<Subject> {
    let mut all = Vec::new();
    for (name, config, close) in [
        ("closed", small(), true),
        ("unclosed", small(), false),
        ("closed, blocks", blocks(), true),
        ("unclosed, blocks", blocks(), false),
    ] {
        let disk = disk(1);
        let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
        write(&journal);
        let state = state(&journal);
        if close {
            journal.close().unwrap();
        } else {
            std::mem::forget(journal);
        }
        let disk = keep_all(&disk);
        all.push(Subject {
            name,
            disk,
            config,
            state,
        });
    }
    all
}

/// Appends in terms, batches over logs, cells, a truncate, a purge, a reset, a deleted log, an entry larger than a segment.
fn write(journal: &Journal) {
    let logs: Vec<_> = (1..=4)
        .map(|n| journal.create_log(LogKey(n), 10 * n).unwrap())
        .collect();
    for i in 0..6_u64 {
        for (n, log) in (1..=3_u64).zip(&logs) {
            let len = 30 + 97 * usize::try_from((i * n) % 5).unwrap();
            log.append_at(EntryId::new(u128::from(i / 2 + 1), 10 * n + i), entry(i * n, len))
                .unwrap();
        }
        let mut batch = WriteBatch::new();
        batch
            .append(LogKey(4), entry(i, 40))
            .append(LogKey(4), entry(i + 100, 1))
            .set(LogKey(1), 0, i.to_le_bytes());
        journal.write(batch).unwrap();
    }
    logs[0].truncate_from(14).unwrap();
    logs[0].append_at(EntryId::new(9, 14), entry(14, 200)).unwrap();
    logs[1].purge_to(22).unwrap();
    logs[2].set(7, vec![3; 300]).unwrap();
    logs[3].append(entry(7, 5000)).unwrap();
    journal.create_log(LogKey(5), 0).unwrap().append(b"gone").unwrap();
    journal.delete_log(LogKey(5)).unwrap();
    logs[3].append(entry(8, 64)).unwrap();
    while journal.work().unwrap() {}
}

fn state(journal: &Journal) -> State {
    journal
        .logs()
        .into_iter()
        .map(|key| (key, held(journal, key).0))
        .collect()
}

/// What a log holds, and the errors that reading it met. An entry that cannot be read is left empty.
fn held(journal: &Journal, key: LogKey) -> (Held, Vec<everlog::Error>) {
    let log = journal.log(key).unwrap();
    let mut errors = Vec::new();
    let bounds = log.bounds().unwrap();
    let mut entries = Vec::new();
    for index in bounds.clone() {
        match log.entry(index) {
            Ok(entry) => entries.push((entry.id, entry.payload.to_vec())),
            Err(error) => {
                errors.push(error);
                entries.push((
                    EntryId {
                        term: log.term_at(index).unwrap_or_default(),
                        index,
                    },
                    Vec::new(),
                ));
            }
        }
    }
    let mut cells = BTreeMap::new();
    for id in log.cells().unwrap() {
        match log.cell(id) {
            Ok(value) => drop(cells.insert(id, value.as_deref().map(<[u8]>::to_vec).unwrap_or_default())),
            Err(error) => {
                errors.push(error);
                cells.insert(id, Vec::new());
            }
        }
    }
    let start = bounds.start;
    (
        Held {
            start,
            entries,
            cells,
        },
        errors,
    )
}

/// What came of a damaged disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// By an error of open, or of a read.
    Damaged,
    /// By the report: an unwitnessed end was cut.
    Cut,
    /// Nothing: then nothing is missing or wrong either.
    Nothing,
}

/// Opens `damaged` and reads everything. Panics at a wrong byte and at anything missing that nobody tells of.
fn look(subject: &Subject, damaged: &SimFs, story: &str) -> Told {
    let journal = match Journal::open_on(dynamic(damaged), subject.config.clone()) {
        Ok(journal) => journal,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{story}: {error}");
            assert!(
                error.path().is_some() && error.offset().is_some(),
                "{story}: {error} has no place"
            );
            return Told::Damaged;
        }
    };
    let cut = !journal.report().cut.is_empty();
    let mut damage = 0;
    for (key, expected) in &subject.state {
        let Ok(_) = journal.log(*key) else {
            assert!(cut, "{story}: log {key} is gone silently");
            continue;
        };
        let (found, errors) = held(&journal, *key);
        for error in &errors {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{story}: {error}");
        }
        damage += errors.len();
        let bad = errors.len();
        let same = found.start == expected.start && found.entries.len() == expected.entries.len();
        assert!(
            same || cut,
            "{story}: log {key} is {:?}.. with {}, silently",
            found.start,
            found.entries.len()
        );
        let mut unread = 0;
        for (id, payload) in &found.entries {
            let good = expected.entries.iter().any(|(i, p)| i == id && p == payload);
            unread += usize::from(!good);
            assert!(
                good || payload.is_empty() || cut,
                "{story}: entry {id} of log {key} has wrong bytes"
            );
        }
        for (cell, value) in &found.cells {
            let good = expected.cells.get(cell) == Some(value);
            unread += usize::from(!good);
            assert!(
                good || value.is_empty() || cut,
                "{story}: cell {cell} of log {key} has a wrong value"
            );
        }
        assert!(
            unread <= bad || cut,
            "{story}: {unread} wrong, {bad} told, log {key}"
        );
    }
    match (damage, cut) {
        (0, false) => Told::Nothing,
        (0, true) => Told::Cut,
        _ => Told::Damaged,
    }
}

/// Whether a header of the same segment, or the successor, shows that a sync covered `batch`.
fn is_witnessed(all: &[RawBatch], batch: &RawBatch, is_last_segment: bool) -> bool {
    !is_last_segment || all.iter().any(|other| other.durable_through >= batch.sequence)
}

/// Every n-th bit is flipped.
fn stride() -> usize {
    match std::env::var("EVERLOG_ROT") {
        Ok(all) if all == "all" => 1,
        _ => 83,
    }
}

/// The bits of `used` bytes that are flipped: others from batch to batch, as `flips` counts them.
fn bits(used: usize, flips: u64, sparser: usize) -> impl Iterator<Item = u64> {
    let stride = stride() * sparser;
    let stride_bits = u64::try_from(stride).unwrap();
    (flips % stride_bits..used as u64 * 8).step_by(stride)
}

fn flip(disk: &SimFs, path: &str, bit: u64) {
    disk.flip_bit(path, bit / 8, u32::try_from(bit % 8).unwrap())
        .unwrap();
}

/// Every bit of every batch with entries, in every segment: its header, frame headers, terms and payloads. The padding behind
/// them holds nothing.
#[test]
fn a_flipped_bit_is_never_a_wrong_byte_and_never_a_silent_cut() {
    let (mut flips, mut quiet) = (0_u64, Vec::new());
    for subject in subjects() {
        let paths = segments(&subject.disk);
        for path in &paths {
            let all = batches_of(&subject.disk, path);
            let bytes = subject.disk.read_raw(path).unwrap();
            for batch in all.iter().filter(|batch| batch.frames > 0) {
                let witnessed = is_witnessed(&all, batch, path == paths.last().unwrap());
                let start = usize::try_from(batch.offset).unwrap();
                let used = used_len(&bytes[start..]);
                for bit in bits(used, flips, 1) {
                    let at = batch.offset + bit / 8;
                    let story = format!("{}: {path} byte {at} bit {}", subject.name, bit % 8);
                    let damaged = keep_all(&subject.disk);
                    flip(&damaged, path, batch.offset * 8 + bit);
                    match look(&subject, &damaged, &story) {
                        Told::Damaged => {}
                        Told::Cut => assert!(!witnessed, "{story}: a witnessed batch was cut"),
                        Told::Nothing => quiet.push(story),
                    }
                    flips += 1;
                }
            }
        }
    }
    assert!(flips > 1000, "{flips}");
    // What was truncated, purged or deleted may rot unnoticed in a sealed segment; `verify` below sees that, too.
    println!(
        "{flips} flips, {} of them in what nobody reads any more",
        quiet.len()
    );
    assert!((quiet.len() as u64) < flips / 2, "{quiet:?}");
}

/// Bytes of a batch before its padding.
fn used_len(batch: &[u8]) -> usize {
    let frames = support::u32_at(batch, 60) as usize;
    let terms = usize::from(u16::from_le_bytes([batch[72], batch[73]]));
    96 + 48 * frames + 16 * terms + support::u32_at(batch, 76) as usize
}

/// "A bit flipped in any acknowledged entry of a closed journal: `verify` names file and offset": in any batch that is part of it,
/// dead entries included.
#[test]
fn verify_names_file_and_place_of_any_flipped_bit() {
    let mut flips = 0_u64;
    for subject in subjects()
        .into_iter()
        .filter(|subject| subject.name.starts_with("closed"))
    {
        for path in segments(&subject.disk) {
            let bytes = subject.disk.read_raw(&path).unwrap();
            for batch in batches_of(&subject.disk, &path)
                .iter()
                .filter(|batch| batch.frames > 0)
            {
                let used = used_len(&bytes[usize::try_from(batch.offset).unwrap()..]);
                for bit in bits(used, flips, 2) {
                    let at = batch.offset + bit / 8;
                    let damaged = keep_all(&subject.disk);
                    flip(&damaged, &path, batch.offset * 8 + bit);
                    let story = format!("{}: {path} byte {at} bit {}", subject.name, bit % 8);
                    let found = verify_on(dynamic(&damaged), subject.config.clone(), &mut |_| {}).unwrap();
                    let place = |finding: &&everlog::inspect::Finding| {
                        finding.is_damage()
                            && finding.path.ends_with(&path)
                            && (batch.offset..=at).contains(&finding.offset)
                    };
                    assert!(
                        found.findings.iter().any(|finding| place(&finding)),
                        "{story}: {:?}",
                        found.findings
                    );
                    flips += 1;
                }
            }
        }
    }
    assert!(flips > 300, "{flips}");
}

/// Every sector of a closed journal, zeroed or filled with garbage: told, or nothing that counts was in it.
#[test]
fn a_lost_or_garbled_sector_of_a_closed_journal_is_told() {
    for subject in subjects()
        .into_iter()
        .filter(|subject| subject.name.starts_with("closed"))
    {
        for path in segments(&subject.disk) {
            let len = subject.disk.files()[&path];
            let all = batches_of(&subject.disk, &path);
            for sector in 16..len / 512 {
                for garbage in [false, true] {
                    let damaged = keep_all(&subject.disk);
                    let range = sector * 512..(sector + 1) * 512;
                    if garbage {
                        damaged.corrupt(&path, range.clone(), sector).unwrap();
                    } else {
                        damaged.write_raw(&path, range.start, &[0; 512]).unwrap();
                    }
                    let story = format!("{}: {path} sector {sector}, garbage {garbage}", subject.name);
                    let told = look(&subject, &damaged, &story);
                    let frames = all
                        .iter()
                        .any(|b| b.frames > 0 && b.offset < range.end && range.start < b.end());
                    assert!(
                        !frames || told != Told::Cut,
                        "{story}: acknowledged bytes were cut"
                    );
                }
            }
        }
    }
}

/// The index of a sealed segment is derived: whatever becomes of it, all is there.
#[test]
fn a_rotten_index_changes_nothing() {
    let subject = subjects().remove(0);
    let indexes: Vec<String> = subject
        .disk
        .files()
        .into_keys()
        .filter(|path| path.ends_with(".idx"))
        .collect();
    assert!(!indexes.is_empty());
    for path in &indexes {
        let bits = subject.disk.files()[path] * 8;
        for bit in (0..bits).step_by(stride() / 3 + 1) {
            let damaged = keep_all(&subject.disk);
            flip(&damaged, path, bit);
            let story = format!("{path} bit {bit}");
            let journal = Journal::open_on(dynamic(&damaged), subject.config.clone())
                .unwrap_or_else(|e| panic!("{story}: {e}"));
            assert_eq!(state(&journal), subject.state, "{story}");
        }
        for len in [0, 10, 63, 64, 100] {
            let damaged = keep_all(&subject.disk);
            let fs: Arc<dyn everlog::fs::Fs> = dynamic(&damaged);
            fs.open(path, everlog::fs::Access::Write)
                .unwrap()
                .set_len(len)
                .unwrap();
            let journal = Journal::open_on(fs, subject.config.clone()).unwrap();
            assert_eq!(state(&journal), subject.state, "{path} cut to {len}");
        }
    }
    drop(Bytes::new());
}

/// An index that belongs to another segment, or to an older end of this one, is not believed.
#[test]
fn an_index_of_another_segment_is_not_believed() {
    let subject = subjects().remove(0);
    let indexes: Vec<String> = subject
        .disk
        .files()
        .into_keys()
        .filter(|path| path.ends_with(".idx"))
        .collect();
    for (to, from) in indexes.iter().zip(indexes.iter().skip(1)) {
        let damaged = keep_all(&subject.disk);
        let bytes = damaged.read_raw(from).unwrap();
        damaged.write_raw(to, 0, &bytes).unwrap();
        let journal = Journal::open_on(dynamic(&damaged), subject.config.clone()).unwrap();
        assert_eq!(state(&journal), subject.state, "{from} as {to}");
    }
}
