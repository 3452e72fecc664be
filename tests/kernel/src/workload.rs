//! A workload on a journal, by a seed: what was issued and what was acknowledged, at which point of the trace.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use everlog::fs::{Fs, RealFs};
use everlog::{Alignment, Background, Config, EntryId, Error, Journal, LogKey, Term, WriteBatch};

use crate::fuse::SharedDisk;
use crate::lazy::{LazyFs, Skip};
use crate::model::{Model, Step};
use crate::random::{Random, bytes};

/// The states of the journal in the order of the writes, and what was promised of them.
#[derive(Clone)]
pub(crate) struct History {
    /// Each with the length of the trace when the write that leads to it was handed in.
    states: Vec<(usize, Model)>,
    /// Number of a state, and the length of the trace when it was acknowledged, with all before it.
    acks: Vec<(usize, usize)>,
    /// Length of the trace when the journal had been created.
    born: Option<usize>,
}

/// What a crash may leave.
pub(crate) struct Allowed<'h> {
    states: &'h [(usize, Model)],
    /// There may be no journal at all.
    pub(crate) unborn: bool,
}

/// One life after the other of a journal, on a mounted file system.
pub(crate) struct Workload<'d> {
    disk: &'d SharedDisk,
    dir: PathBuf,
    pub(crate) config: Config,
    journal: Option<Journal>,
    pub(crate) history: History,
    random: Random,
    tag: u64,
    /// Put at the beginning of each payload.
    pub(crate) marker: Vec<u8>,
    /// What refused to go on.
    pub(crate) error: Option<Error>,
    pub(crate) letters: String,
    /// Syncs that are left out.
    pub(crate) skip: Option<Skip>,
    rehomings_before: u64,
}

const KEYS: [u64; 3] = [1, 2, 7];

impl History {
    /// What a crash may leave when `position` events had reached the disk.
    pub(crate) fn allowed(&self, position: usize) -> Allowed<'_> {
        let acked = self.acks.iter().filter(|(at, _)| *at <= position);
        let from = acked.map(|(_, state)| *state).max().unwrap_or(0);
        let to = self.states.partition_point(|(at, _)| *at <= position);
        Allowed {
            states: &self.states[from..to],
            unborn: !self.is_born(position),
        }
    }

    /// What a crash may leave of a journal that shows `found` and has told so.
    pub(crate) fn settled(found: Model) -> History {
        History {
            states: vec![(0, found)],
            acks: vec![(0, 0)],
            born: Some(0),
        }
    }

    /// Whether the journal had been created by then.
    pub(crate) fn is_born(&self, position: usize) -> bool {
        self.born.is_some_and(|at| at <= position)
    }

    pub(crate) fn now(&self) -> &Model {
        &self.states.last().expect("never empty").1
    }

    pub(crate) fn issued(&self) -> usize {
        self.states.len() - 1
    }
}

impl Allowed<'_> {
    pub(crate) fn contains(&self, found: &Model) -> bool {
        self.states.iter().any(|(_, state)| state == found)
    }

    pub(crate) fn describe(&self) -> String {
        let states = self
            .states
            .iter()
            .map(|(at, state)| format!("issued at {at}:\n{state}"));
        states.collect()
    }
}

impl<'d> Workload<'d> {
    pub(crate) fn new(disk: &'d SharedDisk, root: &Path, seed: u64) -> Workload<'d> {
        let mut random = Random::new(seed);
        let history = History {
            states: vec![(0, Model::default())],
            acks: Vec::new(),
            born: None,
        };
        Workload {
            disk,
            dir: root.join(JOURNAL),
            config: config(&mut random),
            journal: None,
            history,
            random,
            tag: seed << 16,
            marker: Vec::new(),
            error: None,
            letters: String::new(),
            skip: None,
            rehomings_before: 0,
        }
    }

    /// The directory, which is made if need be.
    fn fs(&self) -> Arc<dyn Fs> {
        let real = RealFs::create(&self.dir).expect("a directory on a mounted file system");
        match self.skip {
            Some(skip) => Arc::new(LazyFs { real, skip }),
            None => Arc::new(real),
        }
    }

    /// Creates the journal and its logs.
    pub(crate) fn create(&mut self) {
        match Journal::create_on(self.fs(), self.config.clone()) {
            Ok(journal) => self.journal = Some(journal),
            Err(error) => return self.error = Some(error),
        }
        self.history.born = Some(self.position());
        for key in KEYS {
            let first = self.random.below(3);
            self.write(vec![Step::Create(key, first)], false);
        }
    }

    /// Does `letters` things, or fewer if the journal closes itself. `between` is called after each.
    pub(crate) fn run(&mut self, letters: usize, between: &mut dyn FnMut(u64)) {
        for _ in 0..letters {
            if self.error.is_some() {
                return;
            }
            self.letter();
            between(self.random.next());
        }
    }

    /// Lets go of the journal; what is not synced yet is told to be afterwards.
    pub(crate) fn end(&mut self) {
        self.rehomings_before = self.rehomings();
        if let Some(journal) = self.journal.take() {
            let done = journal.close();
            if done.is_ok() && self.error.is_none() {
                self.ack();
            }
            self.judge(done);
        }
    }

    /// What the open journal shows.
    pub(crate) fn shown(&self) -> Option<everlog::Result<Model>> {
        self.journal.as_ref().map(Model::read)
    }

    /// How often the open journal moved unsynced writes out of a file that failed.
    pub(crate) fn rehomings(&self) -> u64 {
        self.journal
            .as_ref()
            .map_or(0, |journal| journal.metrics().rehomings)
    }

    fn letter(&mut self) {
        let letter = self.random.pick(LETTERS);
        self.letters.push(char::from(letter));
        let key = self.random.pick(&KEYS);
        match letter {
            b'a' => {
                let step = self.append(key, 8, 200);
                self.write(vec![step], false);
            }
            b'l' => {
                let step = self.append(key, 5000, 12_000);
                self.write(vec![step], false);
            }
            b'w' => {
                let mut steps: Vec<_> = KEYS.map(|key| self.append(key, 8, 900)).into();
                let value = self.payload(8, 60);
                steps.push(Step::Set(key, 0, value));
                self.write(steps, false);
            }
            b's' => {
                let (cell, value) = (u8::from(self.random.one_in(2)), self.payload(8, 100));
                self.write(vec![Step::Set(key, cell, value)], false);
            }
            b't' => self.truncate(key),
            b'r' => {
                // More than a segment has room for behind anything.
                let step = self.append(key, 14_000, 40_000);
                self.write(vec![step], false);
            }
            b'p' => self.purge(key),
            b'o' => self.reopen(),
            b'x' => {
                let step = self.append(key, 8, 3000);
                self.write(vec![step], true);
            }
            b'y' => self.sync(),
            b'd' => {
                let first = self.random.below(9);
                self.write(vec![Step::Delete(key)], false);
                self.write(vec![Step::Create(key, first)], false);
            }
            _ => {
                let done = self.journal().work();
                self.judge(done.map(drop));
            }
        }
    }

    fn truncate(&mut self, key: u64) {
        let log = self.history.now().0[&key].clone();
        let back = self.random.below(1 + log.entries.len().min(4) as u64);
        let from = log.end() - back;
        let term = log.last().map_or(0, |last| last.term.0) + 1;
        let id = EntryId::new(term, from);
        let payload = self.payload(8, 400);
        self.write(
            vec![Step::Truncate(key, from), Step::AppendAt(key, id, payload)],
            false,
        );
    }

    fn purge(&mut self, key: u64) {
        let log = self.history.now().0[&key].clone();
        let to = log.start + self.random.below(2 + log.entries.len() as u64);
        self.write(vec![Step::PurgeTo(key, to)], false);
        if self.error.is_none() {
            let done = self.journal().reclaim();
            self.judge(done.map(drop));
        }
    }

    fn sync(&mut self) {
        let done = self.journal().sync();
        if done.is_ok() {
            self.ack();
        }
        self.judge(done);
    }

    /// Closes, or only lets go; opens with settings of its own.
    fn reopen(&mut self) {
        self.end();
        if self.error.is_some() {
            return;
        }
        self.config = config(&mut self.random);
        match Journal::open_on(self.fs(), self.config.clone()) {
            Ok(journal) => self.journal = Some(journal),
            Err(error) => self.error = Some(error),
        }
    }

    /// Hands a write in, if it fits.
    fn write(&mut self, steps: Vec<Step>, relaxed: bool) {
        let Ok(after) = self.history.now().after(&steps) else {
            return;
        };
        if self.error.is_some() {
            return;
        }
        let at = self.position();
        self.history.states.push((at, after));
        let journal = self.journal();
        let done = match steps[..] {
            [Step::Create(key, first)] => journal.create_log(LogKey(key), first).map(drop),
            [Step::Delete(key)] => journal.delete_log(LogKey(key)),
            _ => {
                let mut batch = WriteBatch::new();
                steps.iter().for_each(|step| step.push(&mut batch));
                if relaxed {
                    journal.write_relaxed(batch).map(drop)
                } else {
                    journal.write(batch).map(drop)
                }
            }
        };
        if done.is_ok() && !relaxed {
            self.ack();
        }
        self.judge(done);
    }

    /// Keeps the first error: nothing more is written after it, and what it was about may or may not be there.
    fn judge(&mut self, done: everlog::Result<()>) {
        if let Err(error) = done {
            self.error.get_or_insert(error);
        }
    }

    fn ack(&mut self) {
        let at = self.position();
        self.history.acks.push((at, self.history.issued()));
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("the journal is open")
    }

    fn position(&self) -> usize {
        self.disk.lock().position()
    }

    fn append(&mut self, key: u64, from: u64, to: u64) -> Step {
        let payload = self.payload(from, to);
        if self.random.one_in(4) {
            let log = &self.history.now().0.get(&key);
            let last = log.and_then(|log| log.last()).map_or(Term(0), |last| last.term);
            let end = log.map_or(0, |log| log.end());
            return Step::AppendAt(key, EntryId::new(last.0 + 1, end), payload);
        }
        Step::Append(key, payload)
    }

    fn payload(&mut self, from: u64, to: u64) -> bytes::Bytes {
        self.tag += 1;
        let len = from + self.random.below(to - from);
        let own = bytes(self.tag, len);
        [&self.marker[..], &own[..]].concat().into()
    }
}

/// The smallest segments, with settings that change what is written when.
pub(crate) fn config(random: &mut Random) -> Config {
    let alignment = random.pick(&[Alignment::Bytes8, Alignment::Bytes8, Alignment::Bytes4096]);
    Config::new()
        .segment_bytes(random.pick(&[16 << 10, 16 << 10, 32 << 10]))
        .in_flight_bytes(random.pick(&[4 << 10, 16 << 10]))
        .alignment(alignment)
        .verify_on_open(random.one_in(2))
        .background(Background::Caller)
}

/// Where the journal is, below the root of the file system.
pub(crate) const JOURNAL: &str = "journal";

/// append, large append, write across logs, set, truncate, rotate, purge, (re)open, relaxed, sync, delete and create, work.
const LETTERS: &[u8] = b"aaallwwssttrrppooxxxydkk";
