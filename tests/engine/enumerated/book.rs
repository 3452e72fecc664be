//! A machine that writes down which entries it applied, what a word says that it must have applied, and what holds of any log and the
//! snapshots beside it.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use everlog::engine::{Capture, EngineConfig, Replica, StateMachine};
use everlog::fs::{Fs, SimFs};
use everlog::snapshot::{Draft, Origin, Snapshot, Store, StoreConfig};
use everlog::{EntryId, Journal, Log, LogKey, Result};

use crate::support::{A, disk, dynamic, small};

/// Makes of a disk what the journal and the store are given.
pub(super) type Between = fn(&SimFs) -> Arc<dyn Fs>;

/// The id of an entry and how its command begins.
pub(super) type Line = (EntryId, String);

/// How many bytes of a command the book keeps: each sector of a snapshot doubles the states of a word.
const KEPT_BYTES: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Book(pub(super) Vec<Line>);

impl StateMachine for Book {
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes {
        self.0.push((id, beginning(command)));
        self.0.len().to_string().into()
    }

    fn capture(&self) -> Capture {
        let lines = self.0.clone();
        Capture::new(move |into| {
            let mut lines = lines.iter();
            lines.try_for_each(|(id, text)| writeln!(into, "{} {} {text}", id.term.0, id.index))
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.0 = io::read_to_string(from)?
            .lines()
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let mut next = || words.next().expect("three words");
                let (term, index): (u128, u64) = (next().parse().unwrap(), next().parse().unwrap());
                (EntryId::new(term, index), next().to_owned())
            })
            .collect();
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

pub(super) fn beginning(command: &[u8]) -> String {
    let kept = &command[..command.len().min(KEPT_BYTES)];
    String::from_utf8(kept.to_vec()).expect("commands are text")
}

/// What has been applied after some command of a word, and the last one that took effect once, with its reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) book: Book,
    pub(super) once: Option<(u64, String)>,
}

impl Standing {
    /// The id that the next entry gets.
    pub(super) fn next(&self) -> EntryId {
        let last = self.book.0.last();
        last.map_or(EntryId::new(0, 0), |(id, _)| {
            EntryId::new(id.term.0, id.index + 1)
        })
    }

    pub(super) fn with(&self, id: EntryId, command: &str) -> Standing {
        let mut then = self.clone();
        then.book.apply(id, command.as_bytes());
        then
    }

    pub(super) fn with_once(&self, sequence: u64, command: &str) -> Standing {
        let mut then = self.with(self.next(), command);
        then.once = Some((sequence, then.book.0.len().to_string()));
        then
    }
}

/// Commands that differ, in the order of their numbers. A large one spans blocks, so that a few fill a segment.
pub(super) fn command(number: u32, large: bool) -> String {
    let text = format!("{number:07} ");
    let len = if large { 4100 } else { 40 };
    format!("{text}{}", "x".repeat(len - text.len()))
}

pub(super) fn base(fs: Arc<dyn Fs>) -> Result<(Journal, Store)> {
    let journal = Journal::open_or_create_on(Arc::clone(&fs), small())?;
    let store = StoreConfig::new()
        .chunk_bytes(64, 256, 1024)
        .rewrite_below_percent(100);
    Ok((journal, Store::open_on(fs, store)?))
}

/// Fewer clients than the default, so that the limit is a number that matters.
pub(super) fn config() -> EngineConfig {
    EngineConfig::new().retain(RETAIN).clients(3)
}

pub(super) const RETAIN: usize = 2;

/// Puts a snapshot of `book`, whose last entry it covers, into a store as one that came from elsewhere.
pub(super) fn install(book: &Book, into: &Store) -> Result<Snapshot> {
    let (last, text) = book.0.last().expect("a snapshot of something");
    let elsewhere = Store::open_on(dynamic(&disk(9)), StoreConfig::new().chunk_bytes(64, 256, 1024))?;
    let before = Book(book.0[..book.0.len() - 1].to_vec());
    let source = Replica::open(&elsewhere, A, Preset(before), config())?;
    source.apply(*last, Some(text.as_bytes()))?;
    let snapshot = source.checkpoint(b"")?.snapshot.expect("it was taken");
    let mut bytes = Vec::new();
    elsewhere
        .reader(snapshot.id)?
        .read_to_end(&mut bytes)
        .expect("it reads");
    let draft = Draft::new(A, *last)
        .origin(Origin::Installed)
        .metadata(snapshot.metadata);
    let mut creation = into.create(draft)?;
    creation.write_all(&bytes).expect("the disk is fine");
    Ok(creation.commit()?.snapshot)
}

/// A book that begins with something in it.
struct Preset(Book);

impl StateMachine for Preset {
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes {
        self.0.apply(id, command)
    }

    fn capture(&self) -> Capture {
        self.0.capture()
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.0.restore(from)
    }

    /// What it begins with is what it was before the first entry.
    fn clear(&mut self) {}
}

/// Nothing that was found on the way is bad: no snapshot is damaged or was passed over; the log has exactly the entries that were
/// applied, from where it begins; and it begins where every snapshot that is kept to fall back to can go on.
pub(super) fn sound(store: &Store, log: &Log, book: &Book, key: LogKey) -> std::result::Result<(), String> {
    let told = |e: everlog::Error| format!("{e:?}");
    let found = store.verify_all().map_err(told)?;
    if let Some(damage) = found.damage.first().or(store.damage().first()) {
        return Err(format!("damage: {damage:?}"));
    }
    let bounds = log.bounds().map_err(told)?;
    for (id, text) in book.0.iter().filter(|(id, _)| bounds.contains(&id.index)) {
        let entry = log.entry(id.index).map_err(told)?;
        let has = entry
            .payload
            .windows(text.len())
            .any(|window| window == text.as_bytes());
        if entry.id != *id || !has {
            return Err(format!("entry {id} is not {text:?} but {entry:?}"));
        }
    }
    let list = store.list_of(key).map_err(told)?;
    // A log that was reset to an installed snapshot has nothing to go on from an older one.
    let installed = list
        .iter()
        .position(|snapshot| snapshot.origin == Origin::Installed);
    let kept = RETAIN.min(installed.map_or(usize::MAX, |at| at + 1));
    let begins = match list.get(kept - 1) {
        Some(oldest) => oldest.covers.index + 1,
        None => 0,
    };
    match bounds.start > begins {
        true => Err(format!("the log begins at {}, with {list:#?}", bounds.start)),
        false => Ok(()),
    }
}

/// Spoils the index of the newest snapshot, if opening can do without it.
pub(super) fn spoil_newest(disk: &SimFs, list: &[Snapshot]) -> bool {
    let Some(newest) = list.first().filter(|newest| newest.origin != Origin::Installed) else {
        return false;
    };
    let name = newest.id.to_string();
    let files = disk.files().into_iter();
    let mut indexes = files.filter(|(path, _)| path.ends_with(".snap") && path.contains(&name));
    let (path, len) = indexes.next().expect("it has an index");
    disk.corrupt(&path, 0..len, 1).expect("it is there");
    true
}
