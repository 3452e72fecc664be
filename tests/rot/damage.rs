//! What may become of a disk at rest, one damage at a time, and which bytes it touched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use everlog::fs::{Access, Fs, SimFs};

use super::raw::{BLOCK, Dump, SECTOR};
use super::subject::Subject;
use super::support::{dynamic, size};

/// A sector or a block of a file, by its number.
pub(crate) type Spot = (String, u64);

#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Flip(String, u64),
    Zero(Spot),
    Garble(Spot),
    /// Zeros from there to the end of the file: every write since was lost.
    Blank(Spot),
    /// Two sectors change places.
    Swap(Spot, Spot),
    /// A lost write: the sector holds an earlier content, counted from the last but one.
    Older(Spot, usize),
    /// A misdirected block: it was written over another one, and, if the flag is set, its own place never got it.
    Misdirected(Spot, Spot, bool),
    Unreadable(Spot),
    Removed(String),
    Truncated(String, u64),
    Extended(String, u64),
    Renamed(String, String),
    Copied(String, String),
    /// The same name's file of another journal; `None`: every file.
    Foreign(Option<String>),
    /// A file as it was at an earlier moment; `None`: the whole directory.
    Earlier(Option<String>, usize),
}

/// What differs from the undamaged disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    pub(crate) files: BTreeMap<String, Vec<Range<u64>>>,
    /// Files that are not there.
    pub(crate) missing: BTreeSet<String>,
    /// Files that were not there before.
    pub(crate) new: BTreeSet<String>,
    /// Some of `files` cannot be read.
    pub(crate) unreadable: bool,
    /// The whole directory is of another time, or another journal's.
    pub(crate) put_back: bool,
}

impl Damage {
    /// Does it to `disk`, which is a copy of the subject's.
    pub(crate) fn apply(&self, subject: &Subject, disk: &SimFs) {
        let raw = |path: &str, at: u64, bytes: &[u8]| disk.write_raw(path, at, bytes).unwrap();
        match self {
            Damage::Flip(path, bit) => {
                let (at, bit) = (bit / 8, u32::try_from(bit % 8).unwrap());
                disk.flip_bit(path, at, bit).unwrap();
            }
            Damage::Zero((path, sector)) => raw(path, sector * SECTOR, &[0; 512]),
            Damage::Blank((path, sector)) => {
                let rest = subject.dump[path].len() - size(sector * SECTOR);
                raw(path, sector * SECTOR, &vec![0; rest]);
            }
            Damage::Garble((path, sector)) => {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                disk.corrupt(path, range, *sector).unwrap();
            }
            Damage::Swap(one, other) => {
                raw(&one.0, one.1 * SECTOR, piece(subject, other, SECTOR));
                raw(&other.0, other.1 * SECTOR, piece(subject, one, SECTOR));
            }
            Damage::Older(spot, back) => {
                let versions = &subject.older[spot];
                raw(&spot.0, spot.1 * SECTOR, &versions[versions.len() - 1 - back]);
            }
            Damage::Misdirected(from, to, lost) => {
                raw(&to.0, to.1 * BLOCK, piece(subject, from, BLOCK));
                for sector in (0..if *lost { 8 } else { 0 }).map(|n| from.1 * 8 + n) {
                    let versions = subject.older.get(&(from.0.clone(), sector));
                    let old = versions.and_then(|versions| versions.last());
                    old.inspect(|old| raw(&from.0, sector * SECTOR, old));
                }
            }
            Damage::Unreadable((path, sector)) => {
                disk.set_unreadable(path, *sector..sector + 1, true).unwrap();
            }
            _ => self.apply_to_files(subject, disk),
        }
    }

    fn apply_to_files(&self, subject: &Subject, disk: &SimFs) {
        let fs = dynamic(disk);
        match self {
            Damage::Removed(path) => fs.remove(path).unwrap(),
            Damage::Truncated(path, len) => cut(&*fs, path, *len),
            Damage::Extended(path, by) => {
                let len = subject.dump[path].len() as u64;
                disk.corrupt(path, len..len + by, *by).unwrap();
            }
            Damage::Renamed(from, to) => fs.rename(from, to).unwrap(),
            Damage::Copied(from, to) => replace(disk, &*fs, to, &subject.dump[from]),
            Damage::Foreign(Some(path)) => replace(disk, &*fs, path, &subject.foreign[path]),
            Damage::Foreign(None) => replace_all(disk, &*fs, &subject.foreign),
            Damage::Earlier(Some(path), moment) => {
                replace(disk, &*fs, path, &subject.earlier[*moment][path]);
            }
            Damage::Earlier(None, moment) => replace_all(disk, &*fs, &subject.earlier[*moment]),
            _ => unreachable!("not a damage of files"),
        }
        // At rest: the damage is not something that a power cut could still undo.
        fs.sync_dir("journal").unwrap();
    }

    /// The files that must be there for it to make sense.
    pub(crate) fn needs(&self) -> Vec<&str> {
        match self {
            Damage::Flip(path, _)
            | Damage::Removed(path)
            | Damage::Truncated(path, _)
            | Damage::Extended(path, _)
            | Damage::Renamed(path, _)
            | Damage::Copied(path, _) => vec![path],
            Damage::Zero(spot)
            | Damage::Garble(spot)
            | Damage::Blank(spot)
            | Damage::Older(spot, _)
            | Damage::Unreadable(spot) => {
                vec![&spot.0]
            }
            Damage::Swap(one, other) | Damage::Misdirected(one, other, _) => vec![&one.0, &other.0],
            Damage::Foreign(_) | Damage::Earlier(..) => vec![],
        }
    }

    /// Whether it is about whole files, and not about bytes in one.
    pub(crate) fn is_of_files(&self) -> bool {
        !matches!(
            self,
            Damage::Flip(..)
                | Damage::Zero(_)
                | Damage::Garble(_)
                | Damage::Blank(_)
                | Damage::Swap(..)
                | Damage::Older(..)
                | Damage::Misdirected(..)
                | Damage::Unreadable(_)
        )
    }

    pub(crate) fn is_whole_directory(&self) -> bool {
        matches!(self, Damage::Foreign(None) | Damage::Earlier(None, _))
    }
}

fn piece<'a>(subject: &'a Subject, spot: &Spot, len: u64) -> &'a [u8] {
    let bytes = &subject.dump[&spot.0];
    &bytes[size(spot.1 * len)..size((spot.1 + 1) * len).min(bytes.len())]
}

fn cut(fs: &dyn Fs, path: &str, len: u64) {
    let file = fs.open(path, Access::Write).unwrap();
    file.set_len(len).unwrap();
    file.sync_data().unwrap();
}

fn replace(disk: &SimFs, fs: &dyn Fs, path: &str, bytes: &[u8]) {
    if fs.create(path).is_err() {
        cut(fs, path, 0);
    }
    fs.open(path, Access::Write).unwrap().sync_data().unwrap();
    disk.write_raw(path, 0, bytes).unwrap();
}

fn replace_all(disk: &SimFs, fs: &dyn Fs, dump: &Dump) {
    for path in disk.files().keys().filter(|path| path.starts_with("journal/")) {
        fs.remove(path).unwrap();
    }
    for (path, bytes) in dump.iter().filter(|(path, _)| path.starts_with("journal/")) {
        replace(disk, fs, path, bytes);
    }
}

impl Touched {
    /// What all of `damages` together changed on `disk`.
    pub(crate) fn find(subject: &Subject, disk: &SimFs, damages: &[Damage]) -> Touched {
        let now = disk.dump();
        let mut touched = Touched {
            put_back: damages.iter().any(Damage::is_whole_directory),
            ..Touched::default()
        };
        for (path, before) in &subject.dump {
            match now.get(path) {
                None => drop(touched.missing.insert(path.clone())),
                Some(bytes) if bytes != before => {
                    touched.files.insert(path.clone(), differences(before, bytes));
                }
                Some(_) => {}
            }
        }
        let new = now.keys().filter(|path| !subject.dump.contains_key(*path));
        touched.new = new.cloned().collect();
        for damage in damages {
            if let Damage::Unreadable((path, sector)) = damage {
                touched.unreadable = true;
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                touched.files.entry(path.clone()).or_default().push(range);
            }
        }
        touched
    }

    pub(crate) fn byte(path: &str, at: u64) -> Touched {
        Touched {
            files: BTreeMap::from([(path.to_owned(), std::iter::once(at..at + 1).collect())]),
            ..Touched::default()
        }
    }

    /// Whether any byte of `range` is not what it was, or not to be had.
    pub(crate) fn hits(&self, path: &str, range: &Range<u64>) -> bool {
        self.missing.contains(path)
            || self
                .files
                .get(path)
                .is_some_and(|ranges| ranges.iter().any(|r| r.start < range.end && range.start < r.end))
    }

    /// Whether anything became of the file.
    pub(crate) fn file(&self, path: &str) -> bool {
        self.missing.contains(path) || self.new.contains(path) || self.files.contains_key(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.missing.is_empty() && self.new.is_empty()
    }
}

/// Where two contents differ, to the byte at both ends of each stretch of sectors.
fn differences(before: &[u8], now: &[u8]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let common = before.len().min(now.len());
    for at in (0..common).step_by(size(SECTOR)) {
        let end = (at + size(SECTOR)).min(common);
        let (old, new) = (&before[at..end], &now[at..end]);
        if old == new {
            continue;
        }
        let differs = |n: &usize| old[*n] != new[*n];
        let first = (0..old.len()).find(differs).expect("they differ");
        let last = (0..old.len()).rfind(differs).expect("they differ");
        ranges.push((at + first) as u64..(at + last + 1) as u64);
    }
    if before.len() != now.len() {
        ranges.push(common as u64..before.len().max(now.len()) as u64);
    }
    ranges
}
