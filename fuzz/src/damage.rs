//! Journals with a known history, and edits of their files: whatever an edit did, no read may return what was never
//! written at that place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use bytes::Bytes;
use everlog::fs::{Fs, Profile, SimFs};
use everlog::inspect::{View, dump_on, verify_on};
use everlog::{Background, Config, Entry, EntryId, ErrorKind, Journal, LogKey};

use crate::forge::{Forgery, agree};

/// A journal to begin with, and what happens to its files.
#[derive(Arbitrary, Debug)]
pub struct Input {
    journal: u8,
    /// Whether everything is read by `verify` and `dump`, too.
    inspect: bool,
    edits: Vec<Edit>,
    /// Put in behind the edits; if there is one, every checksum is made to agree.
    forgeries: Vec<Forgery>,
}

/// One edit; files and places are taken modulo what exists.
#[derive(Arbitrary, Debug)]
enum Edit {
    Flip {
        file: u8,
        at: u16,
        bit: u8,
    },
    Put {
        file: u8,
        at: u16,
        bytes: Vec<u8>,
    },
    Zero {
        file: u8,
        at: u16,
        len: u16,
    },
    Splice {
        from: u8,
        from_at: u16,
        to: u8,
        to_at: u16,
        len: u16,
    },
    Cut {
        file: u8,
        len: u16,
    },
    Grow {
        file: u8,
        by: u16,
    },
    Remove {
        file: u8,
    },
    Rename {
        from: u8,
        to: u8,
    },
    Add {
        name: u8,
        id: u8,
        bytes: Vec<u8>,
    },
}

const EDITS_MAX: usize = 8;

/// Paths and contents.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A journal's files, and everything that was ever written to it.
#[derive(Clone, Default)]
struct Seed {
    files: Files,
    entries: BTreeSet<(LogKey, EntryId, Vec<u8>)>,
    cells: BTreeSet<(LogKey, u8, Vec<u8>)>,
}

/// Damages a journal as `input` says, and reads and opens what is left.
///
/// # Panics
///
/// If something is returned that was never written, or a refused opening changed a file, or what opens once does not
/// open again.
pub fn run(input: &Input) {
    static SEEDS: OnceLock<Vec<Seed>> = OnceLock::new();
    let seeds = SEEDS.get_or_init(seeds);
    let seed = &seeds[usize::from(input.journal) % seeds.len()];
    let mut files = seed.files.clone();
    for edit in input.edits.iter().take(EDITS_MAX) {
        edit.apply(&mut files);
    }
    let known = input.forgeries.is_empty().then_some(seed);
    for forgery in input.forgeries.iter().take(EDITS_MAX) {
        forgery.apply(&mut files);
    }
    if known.is_none() {
        agree(&mut files);
    }
    let disk = disk_with(&files);
    look(&disk, known, input.inspect);
    open(&disk, known);
}

fn config() -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .max_entry_bytes(64 << 10)
        .in_flight_bytes(64 << 10)
        .background(Background::Caller)
}

fn disk_with(files: &Files) -> SimFs {
    let disk = SimFs::new(1, Profile::PosixWeak);
    disk.create_dir("journal").expect("a directory");
    for (path, bytes) in files {
        disk.create(path).expect("a file");
        disk.write_raw(path, 0, bytes).expect("its bytes");
    }
    disk
}

/// A view reads as far as it goes, and changes nothing; nor do the other ways to look.
fn look(disk: &SimFs, known: Option<&Seed>, inspect: bool) {
    let before = disk.dump();
    if let Ok(view) = View::open_on(Arc::new(disk.clone()), config()) {
        for key in view.logs() {
            let Ok(log) = view.log(key) else { continue };
            let Ok(bounds) = log.bounds() else { continue };
            let _ = (log.last(), log.purged(), log.terms(bounds.clone()));
            log.read(near(&bounds))
                .flatten()
                .for_each(|entry| check_entry(known, key, &entry));
            for cell in log.cells().unwrap_or_default() {
                check_cell(known, key, cell, log.cell(cell));
            }
        }
    }
    if inspect {
        let _ = verify_on(Arc::new(disk.clone()), config(), &mut |_| {});
        let _ = dump_on(Arc::new(disk.clone()), None, &mut |_| Ok(()));
    }
    assert!(before == disk.dump(), "looking changed a file");
}

fn open(disk: &SimFs, known: Option<&Seed>) {
    let before = disk.dump();
    let journal = match Journal::open_on(Arc::new(disk.clone()), config()) {
        Ok(journal) => journal,
        Err(e) => {
            let same = before.iter().all(|(path, bytes)| {
                !path.starts_with("journal/") || disk.read_raw(path).is_ok_and(|after| after == *bytes)
            });
            assert!(same, "a refused opening changed a file: {e}");
            return;
        }
    };
    check(&journal, known);
    match known {
        Some(_) => {
            let id = append(&journal).expect("an open journal takes an append");
            journal.close().expect("an open journal closes");
            check_again(disk, id);
        }
        // A forged counter may be at its end, and a forged number anything; what was taken in must stand all the same.
        None => {
            if let (Ok(id), Ok(())) = (append(&journal), journal.close()) {
                check_again(disk, id);
            }
        }
    }
}

const KEY: LogKey = LogKey(99);

fn append(journal: &Journal) -> everlog::Result<EntryId> {
    journal.open_or_create_log(KEY, 0)?.append(b"after")
}

fn check_again(disk: &SimFs, id: EntryId) {
    let journal = Journal::open_on(Arc::new(disk.clone()), config()).expect("what opens once opens again");
    let payload = journal.log(KEY).and_then(|log| log.get(id.index));
    assert_eq!(payload.expect("a durable entry is there"), b"after".as_slice());
}

fn check(journal: &Journal, known: Option<&Seed>) {
    for key in journal.logs() {
        let log = journal.log(key).expect("a listed log is there");
        let bounds = log.bounds().expect("a log has bounds");
        for index in near(&bounds) {
            match log.entry(index) {
                Ok(entry) => check_entry(known, key, &entry),
                Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged, "log {key}, entry {index}: {e}"),
            }
        }
        for cell in log.cells().unwrap_or_default() {
            check_cell(known, key, cell, log.cell(cell));
        }
    }
}

/// The first entries: forged bounds may be as wide as numbers are.
fn near(bounds: &Range<u64>) -> Range<u64> {
    bounds.start..bounds.end.min(bounds.start.saturating_add(2000))
}

fn check_entry(known: Option<&Seed>, key: LogKey, entry: &Entry) {
    if let Some(seed) = known {
        seed.check_entry(key, entry);
    }
}

fn check_cell(known: Option<&Seed>, key: LogKey, cell: u8, value: everlog::Result<Option<Bytes>>) {
    if let (Some(seed), Ok(Some(value))) = (known, value) {
        let known = seed.cells.contains(&(key, cell, value.to_vec()));
        assert!(known, "log {key}: cell {cell} was never {value:?}");
    }
}

impl Seed {
    fn check_entry(&self, key: LogKey, entry: &Entry) {
        let known = self.entries.contains(&(key, entry.id, entry.payload.to_vec()));
        assert!(
            known,
            "log {key}: entry {} was never {:?}",
            entry.id, entry.payload
        );
    }
}

impl Edit {
    fn apply(&self, files: &mut Files) {
        match *self {
            Edit::Flip { file, at, bit } => change(files, file, at, |rest| rest[0] ^= 1 << (bit % 8)),
            Edit::Put { file, at, ref bytes } => put(files, file, at, bytes),
            Edit::Zero { file, at, len } => put(files, file, at, &vec![0; usize::from(len)]),
            Edit::Splice {
                from,
                from_at,
                to,
                to_at,
                len,
            } => {
                let mut piece = Vec::new();
                change(files, from, from_at, |rest| {
                    piece.extend_from_slice(&rest[..rest.len().min(usize::from(len))]);
                });
                put(files, to, to_at, &piece);
            }
            Edit::Cut { file, len } => {
                if let Some(bytes) = name(files, file).and_then(|name| files.get_mut(&name)) {
                    bytes.truncate(usize::from(len));
                }
            }
            Edit::Grow { file, by } => {
                if let Some(bytes) = name(files, file).and_then(|name| files.get_mut(&name)) {
                    bytes.resize(bytes.len() + usize::from(by), 0);
                }
            }
            Edit::Remove { file } => {
                name(files, file).and_then(|name| files.remove(&name));
            }
            Edit::Rename { from, to } => {
                if let (Some(from), Some(to)) = (name(files, from), name(files, to))
                    && let Some(bytes) = files.remove(&from)
                {
                    files.insert(to, bytes);
                }
            }
            Edit::Add { name, id, ref bytes } => {
                let path = match name % 4 {
                    0 => format!("journal/{id:016x}.seg"),
                    1 => format!("journal/{id:016x}.idx"),
                    2 => format!("journal/{id}.spare"),
                    _ => "journal/prepare.tmp".to_owned(),
                };
                files.insert(path, bytes.clone());
            }
        }
    }
}

fn name(files: &Files, file: u8) -> Option<String> {
    let number = usize::from(file).checked_rem(files.len())?;
    files.keys().nth(number).cloned()
}

/// Hands the bytes from `at` on to `with`, if there are any.
fn change(files: &mut Files, file: u8, at: u16, with: impl FnOnce(&mut [u8])) {
    if let Some(bytes) = name(files, file).and_then(|name| files.get_mut(&name))
        && let Some(at) = usize::from(at).checked_rem(bytes.len())
    {
        with(&mut bytes[at..]);
    }
}

fn put(files: &mut Files, file: u8, at: u16, new: &[u8]) {
    change(files, file, at, |rest| {
        let len = rest.len().min(new.len());
        rest[..len].copy_from_slice(&new[..len]);
    });
}

/// Journals of every kind of ending: closed, killed with an unproven end, carried, purged.
fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut seed = Seed::default();
    let disk = SimFs::new(7, Profile::PosixWeak);
    let journal = Journal::create_on(Arc::new(disk.clone()), config()).expect("a journal is created");
    for key in 0..3 {
        journal
            .create_log(LogKey(key), key * 10)
            .expect("a log is created");
    }
    seed.fill(&journal, 45);
    journal.close().expect("the journal closes");
    seeds.push(seed.taken(&disk));

    let journal = Journal::open_on(Arc::new(disk.clone()), config()).expect("the journal opens");
    seed.fill(&journal, 15);
    let disk = disk.kill();
    drop(journal);
    seeds.push(seed.taken(&disk));

    let journal = Journal::open_on(Arc::new(disk.clone()), config()).expect("the journal opens");
    seeds.push(seed.taken(&disk));
    seed.fill(&journal, 24);
    seed.shrink(&journal);
    seed.fill(&journal, 24);
    let disk = disk.kill();
    drop(journal);
    seeds.push(seed.taken(&disk));
    for seed in &seeds {
        let mut files = seed.files.clone();
        agree(&mut files);
        assert!(
            files == seed.files,
            "what agrees already is left alone: is the forger behind the format?"
        );
    }
    seeds
}

impl Seed {
    fn taken(&self, disk: &SimFs) -> Seed {
        Seed {
            files: disk.dump(),
            ..self.clone()
        }
    }

    /// Appends to every log and sets cells, with payloads of many sizes, relaxed and durable.
    fn fill(&mut self, journal: &Journal, entries: u64) {
        for number in 0..entries {
            let key = LogKey(number % 3);
            let log = journal.log(key).expect("the log is there");
            let payload = vec![number.to_le_bytes()[0]; usize::try_from(number * 37 % 900).expect("it fits")];
            let id = match number % 7 {
                0 => log.append(&payload),
                _ => log.append_relaxed(&payload),
            };
            self.entries
                .insert((key, id.expect("an append"), payload.clone()));
            if number % 11 == 0 {
                log.set(1, &payload).expect("a cell is set");
                self.cells.insert((key, 1, payload));
            }
        }
    }

    /// Truncates one log, purges another, and replaces the third by a new one.
    fn shrink(&mut self, journal: &Journal) {
        let log = |key| journal.log(LogKey(key)).expect("the log is there");
        let end = |key| log(key).bounds().expect("a log has bounds").end;
        log(0).truncate_from(end(0) - 5).expect("a log is truncated");
        log(1).purge_to(end(1) - 2).expect("a log is purged");
        journal.delete_log(LogKey(2)).expect("a log is deleted");
        journal.create_log(LogKey(2), 0).expect("a log is created");
        journal.reclaim().expect("space is reclaimed");
    }
}
