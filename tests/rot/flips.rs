//! Every bit flipped, fast enough for millions: a flip in what open reads is opened; one in what only reads of entries touch is
//! read by these; one in what nothing reads has no effect, and need not be tried.
//!
//! Why that is enough: without threads, open is a function of the bytes that it reads. If it reads none of the byte, what it finds is
//! what it finds on the undamaged disk, and the journal that was opened there stands for it. The same goes for the read of one
//! entry. Index files are left out of this: what was read of them is kept in memory.

use std::collections::{BTreeMap, HashSet};

use everlog::Journal;
use everlog::fs::SimFs;

use super::damage::Damage;
use super::found;
use super::judge::{Depth, Judged, Outcome, ensure, judge};
use super::raw::SECTOR;
use super::subject::Subject;
use super::support::{dynamic, size};
use super::sweep::{Settings, Tally, case, parts};
use super::traced::{Read, Traced};

/// What open reads, and which entries read what.
struct Reads {
    open: Read,
    /// By path and sector.
    entries: BTreeMap<String, Vec<Vec<(u64, u64)>>>,
}

impl Reads {
    fn of(subject: &Subject) -> Reads {
        let disk = subject.disk.fork();
        let traced = Traced::new(&disk);
        let fs = std::sync::Arc::new(traced.clone());
        let journal = Journal::open_on(fs, subject.config.clone()).unwrap();
        let open = traced.take();
        let mut entries = BTreeMap::<String, Vec<Vec<(u64, u64)>>>::new();
        for (key, index) in subject.entries.keys() {
            // What is read of an index is kept: the second time, the entry alone is read.
            found::entry(&journal, *key, *index).unwrap();
            traced.take();
            found::entry(&journal, *key, *index).unwrap();
            for (path, flags) in traced.take() {
                let sectors = entries.entry(path).or_default();
                for (n, sector) in flags.chunks(size(SECTOR)).enumerate() {
                    if sector.contains(&true) {
                        sectors.resize_with(sectors.len().max(n + 1), Vec::new);
                        sectors[n].push((*key, *index));
                    }
                }
            }
        }
        disk.stop_now();
        Reads { open, entries }
    }

    fn opens(&self, path: &str, at: u64) -> bool {
        let flags = self.open.get(path);
        flags.is_some_and(|flags| flags.get(size(at)).is_some_and(|read| *read))
    }

    fn entries(&self, path: &str, sector: u64) -> &[(u64, u64)] {
        let sectors = self.entries.get(path);
        sectors
            .and_then(|sectors| sectors.get(size(sector)))
            .map_or(&[], |entries| entries)
    }
}

/// A journal that was opened on an undamaged disk, and is then read on a damaged one.
struct Live {
    disk: SimFs,
    journal: Journal,
}

impl Live {
    fn open(subject: &Subject) -> Live {
        let disk = subject.disk.fork();
        let journal = Journal::open_on(dynamic(&disk), subject.config.clone()).unwrap();
        Live { disk, journal }
    }

    /// Reads what a flip could reach.
    fn flip(&self, subject: &Subject, path: &str, bit: u64, entries: &[(u64, u64)]) -> Judged<Outcome> {
        let damage = Damage::Flip(path.to_owned(), bit);
        damage.apply(subject, &self.disk);
        let read = entries.iter().map(|(key, index)| {
            let expected = subject.model().0[key].entry(*index);
            let place = &subject.entries[&(*key, *index)];
            let at = bit / 8;
            let hit = place.path == path && place.own().iter().any(|range| range.contains(&at));
            match found::entry(&self.journal, *key, *index) {
                Ok(entry) => {
                    ensure!(
                        Some(&entry) == expected,
                        "entry {index} of log {key} has wrong bytes"
                    );
                    ensure!(!hit, "entry {index} of log {key} is touched, and is given out");
                    Ok(false)
                }
                Err(error) => {
                    let named = error.path().is_some_and(|named| named.ends_with(path));
                    let right = error
                        .offset()
                        .is_some_and(|from| from <= at && at <= from + place.batch.end);
                    ensure!(hit && named && right, "entry {index} of log {key}: {error}");
                    ensure!(error.kind() == everlog::ErrorKind::Damaged, "{error}");
                    Ok(true)
                }
            }
        });
        let told: Judged<Vec<bool>> = read.collect();
        damage.apply(subject, &self.disk);
        Ok(if told?.contains(&true) {
            Outcome::Read
        } else {
            Outcome::Harmless
        })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.disk.stop_now();
    }
}

/// How dense a sweep of flips is.
#[derive(Clone, Copy)]
pub(crate) struct Density {
    /// One bit in so many is flipped; of batch headers, many more.
    pub(crate) stride: u64,
    /// And one flip that is opened in so many is looked at by everybody.
    pub(crate) whole: u64,
}

/// Flips the bits of every segment and index file.
pub(crate) fn sweep(settings: &Settings, subject: &Subject, density: Density) -> Tally {
    let reads = Reads::of(subject);
    let files = subject.dump.iter();
    let sectors: Vec<(&str, u64)> = files
        .filter(|(path, _)| path.ends_with(".seg") || path.ends_with(".idx"))
        .flat_map(|(path, bytes)| {
            let count = (bytes.len() as u64).div_ceil(SECTOR);
            (0..count).map(move |sector| (path.as_str(), sector))
        })
        .collect();
    // By path and eighth of a byte's offset: everything begins at a multiple of 8.
    let headers: HashSet<(&str, u64)> = subject
        .batches()
        .flat_map(|(link, batch)| (0..12).map(move |n| (link.path.as_str(), batch.header.offset / 8 + n)))
        .collect();
    let mut total = parts(settings, sectors.len() as u64, &|n, tally| {
        let (path, sector) = sectors[size(n)];
        let first = sector * SECTOR * 8;
        let end = (first + SECTOR * 8).min(subject.dump[path].len() as u64 * 8);
        // Others from sector to sector, so that all bits of a header have their turn.
        let start = first + (n * 37) % density.stride;
        let dense = density.stride / 61 + 1;
        let wanted = |bit: &u64| {
            bit.abs_diff(start).is_multiple_of(density.stride)
                || (bit.is_multiple_of(dense) && headers.contains(&(path, bit / 8 / 8)))
        };
        let mut live = None;
        for bit in (first..end).filter(wanted) {
            if settings
                .only_case()
                .is_some_and(|only| only != n * SECTOR * 8 + bit - first)
            {
                continue;
            }
            let story = || {
                format!(
                    "flips, {}: {path} byte {} bit {}; EVERLOG_ROT_CASE={}",
                    subject.name,
                    bit / 8,
                    bit % 8,
                    n * SECTOR * 8 + bit - first
                )
            };
            let opened = reads.opens(path, bit / 8) || path.ends_with(".idx");
            let entries = reads.entries(path, sector);
            if opened || settings.only_case().is_some() {
                let looked_at =
                    settings.only_case().is_some() || (bit / density.stride).is_multiple_of(density.whole);
                let depth = if looked_at { Depth::Whole } else { Depth::Open };
                let damage = [Damage::Flip(path.to_owned(), bit)];
                case(tally, &story, &|| judge(subject, &damage, depth));
            } else if entries.is_empty() {
                tally.count(Outcome::Harmless);
                tally.unread += 1;
            } else {
                let live = live.get_or_insert_with(|| Live::open(subject));
                case(tally, &story, &|| live.flip(subject, path, bit, entries));
            }
        }
    });
    total.of = sectors.len() as u64 * SECTOR * 8 / density.stride;
    if !settings.whole {
        total.of = total.cases;
    }
    total
}
