//! Journals to be damaged: how they came to be, what they hold after each write, and where each entry stands.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem::forget;
use std::ops::Range;

use bytes::Bytes;
use everlog::fs::{Kept, SimFs};
use everlog::{Alignment, Background, Config, EntryId, Journal, LogKey, WriteBatch};

use super::found::Selection;
use super::model::{Model, Step};
use super::random::{Random, bytes};
use super::raw::{self, APPEND, BATCHES_AT, CELL, Dump, Link, RawBatch, RawFrame, SECTOR};
use super::support::{disk, dynamic, keep_all, size};

/// Stands for every segment in which there is nothing.
const SPARE: &str = "";

/// A disk at rest with a journal, and all that is known of it.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) disk: SimFs,
    pub(crate) config: Config,
    pub(crate) dump: Dump,
    /// What it held after each write, and where that ended.
    pub(crate) timeline: Vec<Moment>,
    pub(crate) chain: Vec<Link>,
    pub(crate) entries: HashMap<(u64, u64), Place>,
    pub(crate) cells: HashMap<(u64, u8), Place>,
    /// By segment, the entries in it.
    near: HashMap<String, Selection>,
    /// Every entry that was ever appended and every value that was ever set, also those that are gone.
    pub(crate) written: HashSet<(u64, EntryId, Bytes)>,
    pub(crate) set: HashSet<(u64, u8, Bytes)>,
    /// Earlier contents of each sector, the oldest first.
    pub(crate) older: BTreeMap<(String, u64), Vec<Vec<u8>>>,
    /// The whole disk at earlier moments.
    pub(crate) earlier: Vec<Dump>,
    /// Another journal, with files of the same names.
    pub(crate) foreign: Dump,
}

/// The journal behind one write.
#[derive(Clone)]
pub(crate) struct Moment {
    pub(crate) at: Position,
    pub(crate) model: Model,
}

/// Segment and offset behind a batch. They rise along the chain.
pub(crate) type Position = (u64, u64);

/// Where an entry or a cell stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: String,
    /// Its batch, with the padding.
    pub(crate) batch: Range<u64>,
    pub(crate) frame: RawFrame,
}

impl Place {
    /// The bytes on which reading it alone depends.
    pub(crate) fn own(&self) -> [Range<u64>; 2] {
        [self.frame.header.clone(), self.frame.payload.clone()]
    }

    /// What makes it belong to the journal: also its batch's header, and its term.
    pub(crate) fn all(&self) -> [Range<u64>; 4] {
        let [header, payload] = self.own();
        let batch = self.batch.start..self.batch.start + 96;
        [header, payload, batch, self.frame.term_at.clone()]
    }
}

/// How a subject is made.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) alignment: Alignment,
    /// Bytes of all segments that it should come to.
    pub(crate) bytes: u64,
    pub(crate) ends: Ends,
}

/// How the last life ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Closed in order.
    Closed,
    /// Killed in the middle: the last writes have no witness, one of them is relaxed.
    Unclosed,
    /// Killed right after it carried the tail of a killed one.
    Carried,
    /// Killed right after the first batch of a segment.
    Rotated,
    /// Killed behind a mark that was written and not synced, and no segment has an index.
    Marked,
}

impl Subject {
    pub(crate) fn new(plan: Plan) -> Subject {
        let foreign = Builder::build(Plan {
            seed: plan.seed + 1000,
            ..plan
        });
        let built = Builder::build(plan);
        let disk = keep_all(&built.disk);
        let dump = disk.dump();
        let chain = raw::chain(&dump);
        let mut subject = Subject {
            name: plan.name,
            disk,
            config: built.config,
            dump,
            timeline: built.timeline,
            chain,
            entries: HashMap::new(),
            cells: HashMap::new(),
            near: HashMap::new(),
            written: built.written,
            set: built.set,
            older: built.older,
            earlier: built.earlier,
            foreign: keep_all(&foreign.disk).dump(),
        };
        subject.place();
        let segments = subject.chain.iter().map(|link| link.path.clone());
        subject.near = segments
            .chain([SPARE.to_owned()])
            .map(|path| (path.clone(), subject.select_near(&path)))
            .collect();
        subject
    }

    /// What is read for a flip in this segment, or in its index.
    pub(crate) fn near(&self, path: &str) -> &Selection {
        let near = self.near.get(&path.replace(".idx", ".seg"));
        near.unwrap_or(&self.near[SPARE])
    }

    fn select_near(&self, path: &str) -> Selection {
        let mut near = Selection::new();
        for (key, log) in &self.model().0 {
            let ranges: &mut Vec<Range<u64>> = near.entry(*key).or_default();
            for index in log.start..log.end() {
                if self.entries[&(*key, index)].path == path {
                    match ranges.last_mut() {
                        Some(last) if last.end == index => last.end += 1,
                        _ => ranges.push(index..index + 1),
                    }
                }
            }
        }
        near
    }

    /// What it holds.
    pub(crate) fn model(&self) -> &Model {
        &self.timeline.last().expect("something was written").model
    }

    /// Every batch of the chain with its segment, in order.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (&Link, &RawBatch)> {
        self.chain
            .iter()
            .flat_map(|link| link.batches.iter().map(move |batch| (link, batch)))
    }

    pub(crate) fn last(&self) -> &Link {
        self.chain.last().expect("a chain has a last segment")
    }

    /// Finds every entry and cell of the model in the raw bytes, and sees that they are the bytes that were written.
    fn place(&mut self) {
        let (mut entries, mut cells) = (HashMap::new(), HashMap::new());
        for (link, batch) in self.batches() {
            for frame in &batch.frames {
                let place = Place {
                    path: link.path.clone(),
                    batch: batch.header.offset..batch.header.end(),
                    frame: frame.clone(),
                };
                match frame.kind {
                    APPEND => drop(entries.insert((frame.log, frame.index), place)),
                    CELL => drop(cells.insert((frame.log, frame.cell), place)),
                    _ => {}
                }
            }
        }
        let payload = |place: &Place| {
            let range = place.frame.payload.clone();
            &self.dump[&place.path][size(range.start)..size(range.end)]
        };
        for (key, log) in &self.model().0 {
            for (index, (term, expected)) in (log.start..).zip(&log.entries) {
                let place = &entries[&(*key, index)];
                assert_eq!((payload(place), place.frame.term), (&expected[..], term.0));
            }
            for (cell, expected) in &log.cells {
                assert_eq!(payload(&cells[&(*key, *cell)]), &expected[..]);
            }
        }
        let model = self.model().clone();
        let lives = |key: u64, index: u64| model.0.get(&key).is_some_and(|log| log.entry(index).is_some());
        entries.retain(|(key, index), _| lives(*key, *index));
        cells.retain(|(key, cell), _| model.0.get(key).is_some_and(|log| log.cells.contains_key(cell)));
        (self.entries, self.cells) = (entries, cells);
    }
}

/// Writes a journal and takes notes.
struct Builder {
    disk: SimFs,
    config: Config,
    journal: Option<Journal>,
    model: Model,
    random: Random,
    timeline: Vec<Moment>,
    written: HashSet<(u64, EntryId, Bytes)>,
    set: HashSet<(u64, u8, Bytes)>,
    older: BTreeMap<(String, u64), Vec<Vec<u8>>>,
    seen: Dump,
    earlier: Vec<Dump>,
    tag: u64,
}

impl Builder {
    fn build(plan: Plan) -> Builder {
        let config = Config::new()
            .segment_bytes(plan.segment_bytes)
            .in_flight_bytes(plan.segment_bytes / 4)
            .alignment(plan.alignment)
            .background(Background::Caller);
        let disk = disk(plan.seed);
        let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
        let mut builder = Builder {
            disk,
            config,
            journal: Some(journal),
            model: Model::default(),
            random: Random::new(plan.seed),
            timeline: Vec::new(),
            written: HashSet::new(),
            set: HashSet::new(),
            older: BTreeMap::new(),
            seen: Dump::new(),
            earlier: Vec::new(),
            tag: 0,
        };
        builder.live(plan);
        builder
    }

    /// The lives of the journal: the floor moves, a log is deleted and created again, an entry above segment size, a sync that
    /// fails, a kill with a tail to be carried, an orderly restart.
    fn live(&mut self, plan: Plan) {
        for key in 1..=5 {
            self.write(&[Step::Create(key, 10 * key)]);
        }
        self.some(plan.segment_bytes * 2);
        self.write(&[Step::Delete(5)]);
        let ends = [1, 2, 3, 4].map(|key| (key, self.model.0[&key].end()));
        for (key, end) in ends {
            self.write(&[Step::PurgeTo(key, end.saturating_sub(2))]);
        }
        self.work();
        self.some(plan.segment_bytes);
        self.journal().reclaim().unwrap();
        self.settle();
        self.keep();
        let large = self.payload(plan.segment_bytes + 3000);
        self.write(&[Step::Append(4, large)]);
        self.write(&[Step::Create(5, 7)]);
        self.some(plan.bytes / 4);
        self.work();
        self.disk.fail_sync("journal/", 0, Kept::Undecided);
        let last_words = self.payload(100);
        self.write(&[Step::Append(1, last_words)]);
        assert!(self.journal().metrics().rehomings > 0, "no sync failed");
        let last = self.model.0[&3].last().unwrap();
        self.write(&[Step::Reset(3, EntryId::new(last.term.0 + 1, last.index + 50))]);
        self.restart();
        while self.used() < plan.bytes {
            self.some(plan.segment_bytes / 2);
            self.work();
            self.keep();
        }
        match plan.ends {
            Ends::Closed => {
                self.some(2000);
                self.close();
            }
            Ends::Unclosed => {
                self.some(2000);
                self.relaxed();
                forget(self.journal.take());
            }
            Ends::Carried => {
                self.some(1000);
                self.relaxed();
                self.restart();
                self.relaxed();
                self.relaxed();
                self.restart();
                forget(self.journal.take());
            }
            Ends::Rotated => {
                let before = self.position().0;
                while self.position().0 == before {
                    let payload = self.payload(200);
                    self.write(&[Step::Append(2, payload)]);
                }
                forget(self.journal.take());
            }
            Ends::Marked => {
                self.some(1000);
                self.work();
                forget(self.journal.take());
                self.forget_indexes();
            }
        }
        self.note_sectors();
    }

    /// Writes of all sorts, until they come to `total` bytes.
    fn some(&mut self, total: u64) {
        let mut left = total;
        while left > 0 {
            let key = 1 + self.random.below(4);
            let len = match self.random.below(10) {
                0 => 0,
                1..=6 => self.random.below(200),
                7 | 8 => self.random.below(1500),
                _ => self.random.below(5000),
            };
            let write = match self.random.below(12) {
                0 => vec![Step::Set(
                    key,
                    self.random.pick(&[0, 1, 255]),
                    self.payload(len % 300),
                )],
                1 => self.truncate(key, len),
                2 => vec![Step::PurgeTo(key, self.model.0[&key].start + 1)],
                3..=5 => (1..=4)
                    .map(|key| Step::Append(key, self.payload(len / 4 + key)))
                    .collect(),
                6 if self.model.0.contains_key(&5) => vec![Step::Append(5, self.payload(len))],
                _ => vec![Step::Append(key, self.payload(len))],
            };
            self.write(&write);
            left = left.saturating_sub(len + 300);
            if self.random.one_in(25) {
                self.work();
            }
        }
    }

    /// The last entries replaced by one of a new term.
    fn truncate(&mut self, key: u64, len: u64) -> Vec<Step> {
        let log = &self.model.0[&key];
        let from = log.end().saturating_sub(2).max(log.start);
        let term = log.last().map_or(1, |last| last.term.0 + 1);
        let payload = self.payload(len);
        vec![
            Step::Truncate(key, from),
            Step::AppendAt(key, EntryId::new(term, from), payload),
        ]
    }

    fn relaxed(&mut self) {
        let write = [
            Step::Append(1, self.payload(700)),
            Step::Set(2, 0, self.payload(40)),
            Step::Append(3, self.payload(90)),
        ];
        let mut batch = WriteBatch::new();
        write.iter().for_each(|step| step.push(&mut batch));
        self.journal().write_relaxed(batch).unwrap();
        self.wrote(&write);
    }

    fn write(&mut self, write: &[Step]) {
        let journal = self.journal();
        match write {
            [Step::Create(key, first)] => drop(journal.create_log(LogKey(*key), *first).unwrap()),
            [Step::Delete(key)] => journal.delete_log(LogKey(*key)).unwrap(),
            _ => {
                let mut batch = WriteBatch::new();
                write.iter().for_each(|step| step.push(&mut batch));
                journal.write(batch).unwrap();
            }
        }
        self.wrote(write);
    }

    fn wrote(&mut self, write: &[Step]) {
        let mut ids = self.model.ids(write).into_iter();
        for step in write {
            match step {
                Step::Append(key, payload) | Step::AppendAt(key, _, payload) => {
                    let id = ids.next().unwrap();
                    self.written.insert((*key, id, payload.clone()));
                }
                Step::Set(key, cell, value) => drop(self.set.insert((*key, *cell, value.clone()))),
                _ => {}
            }
        }
        self.model = self.model.after(write).unwrap();
        let (at, model) = (self.position(), self.model.clone());
        self.timeline.push(Moment { at, model });
        self.note_sectors();
    }

    /// The process is killed with a tail that nothing proves; the next one carries it.
    fn restart(&mut self) {
        self.relaxed();
        forget(self.journal.take());
        self.keep();
        self.disk = self.disk.kill();
        let journal = Journal::open_on(dynamic(&self.disk), self.config.clone()).unwrap();
        assert!(journal.report().carried_batches > 0, "nothing was carried");
        self.journal = Some(journal);
        let (id, bytes) = self.newest();
        let opening = raw::opening(&bytes, id).unwrap();
        assert!(opening.carry_len > 0);
        let carried = (id, BATCHES_AT + opening.carry_len);
        for moment in &mut self.timeline {
            if moment.at > (opening.pred_segment, opening.pred_offset) {
                moment.at = carried;
            }
        }
        self.note_sectors();
    }

    fn close(&mut self) {
        self.journal.take().unwrap().close().unwrap();
    }

    fn work(&mut self) {
        while self.journal().work().unwrap() {}
        self.settle();
    }

    /// What the journal wrote on its own changes nothing: the last moment reaches behind it.
    fn settle(&mut self) {
        let at = self.position();
        self.timeline.last_mut().expect("something was written").at = at;
        self.note_sectors();
    }

    fn forget_indexes(&mut self) {
        self.disk = keep_all(&self.disk);
        let fs = dynamic(&self.disk);
        for path in self.disk.files().keys().filter(|path| path.ends_with(".idx")) {
            fs.remove(path).unwrap();
        }
        fs.sync_dir("journal").unwrap();
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("open")
    }

    fn payload(&mut self, len: u64) -> Bytes {
        self.tag += 1;
        bytes(self.tag, len)
    }

    fn used(&self) -> u64 {
        let files = self.disk.files();
        files
            .iter()
            .filter(|(path, _)| path.ends_with(".seg"))
            .map(|file| file.1)
            .sum()
    }

    /// Id and bytes of the newest segment that was written to.
    fn newest(&self) -> (u64, Vec<u8>) {
        let files = self.disk.files();
        let ids = files.keys().rev().filter_map(|path| raw::id_of(path));
        ids.map(|id| (id, self.disk.read_raw(&raw::name(id)).unwrap()))
            .find(|(id, bytes)| raw::opening(bytes, *id).is_some())
            .unwrap()
    }

    /// Behind the last batch.
    fn position(&self) -> Position {
        let (id, bytes) = self.newest();
        let mut at = BATCHES_AT;
        while let Some(header) = raw::header_at(&bytes, at) {
            at = header.end();
        }
        (id, at)
    }

    /// Remembers the disk as it is now.
    fn keep(&mut self) {
        self.earlier.push(self.disk.dump());
    }

    /// Remembers what each sector held that has changed.
    fn note_sectors(&mut self) {
        let files = self.disk.files();
        let kept = |path: &&String| path.ends_with(".seg") || path.ends_with(".idx");
        let newest: Vec<String> = files.keys().filter(kept).rev().take(3).cloned().collect();
        for path in newest {
            let bytes = self.disk.read_raw(&path).unwrap();
            let before = self
                .seen
                .entry(path.clone())
                .or_insert_with(|| vec![0; bytes.len()]);
            for (n, (old, new)) in before
                .chunks(size(SECTOR))
                .zip(bytes.chunks(size(SECTOR)))
                .enumerate()
            {
                if old != new {
                    let key = (path.clone(), n as u64);
                    self.older.entry(key).or_default().push(old.to_vec());
                }
            }
            *before = bytes;
        }
    }
}
