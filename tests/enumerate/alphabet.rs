//! The letters that workloads are spelled with. A new operation is a variant of [`Letter`], a line in its tables, and an arm of
//! [`Life::perform`].

use std::sync::Arc;

use bytes::Bytes;
use everlog::fs::sim::Ledger;
use everlog::fs::{Access, Fs, SimFs};
use everlog::{Config, EntryId, Journal, LogKey, Metrics, WriteBatch};

use super::model::{Model, Step};
use super::random::bytes;

/// One operation of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Letter {
    /// An entry that fits into a sector or two.
    Small,
    /// An entry that spans sectors, and blocks if it comes early.
    Large,
    /// One write to all logs.
    Across,
    Cell,
    Truncate,
    /// A write that is only written, a sync, and what the background does: the next files are made, a mark is written.
    Sync,
    /// All but the last entry of each log goes, and what that frees.
    Purge,
    /// The process ends, in order or not, and the next one opens.
    Reopen,
}

pub(crate) const ALPHABET: [Letter; 8] = [
    Letter::Small,
    Letter::Large,
    Letter::Across,
    Letter::Cell,
    Letter::Truncate,
    Letter::Sync,
    Letter::Purge,
    Letter::Reopen,
];

const SPELLED: [char; 8] = ['a', 'b', 'w', 'c', 't', 's', 'p', 'r'];

pub(crate) fn spell(word: &[Letter]) -> String {
    word.iter().map(|letter| SPELLED[*letter as usize]).collect()
}

pub(crate) fn read(word: &str) -> Vec<Letter> {
    let letter = |spelled| {
        let at = SPELLED.iter().position(|one| *one == spelled);
        ALPHABET[at.unwrap_or_else(|| panic!("no letter {spelled:?}; there are {SPELLED:?}"))]
    };
    word.chars().map(letter).collect()
}

/// All words of `len` letters, the `n`-th of them.
pub(crate) fn word(len: usize, mut n: usize) -> Vec<Letter> {
    let mut word = Vec::new();
    for _ in 0..len {
        word.push(ALPHABET[n % ALPHABET.len()]);
        n /= ALPHABET.len();
    }
    word.reverse();
    word
}

/// An open journal that tells a ledger what it does.
pub(crate) struct Life<'a> {
    disk: SimFs,
    journal: Option<Journal>,
    config: Config,
    /// What stands between the journal and the disk.
    between: Between,
    ledger: &'a Ledger<Model>,
    now: Model,
    logs: u64,
    /// How many writes there were; makes payloads differ.
    writes: u64,
    /// Rises with each truncate.
    term: u64,
}

impl<'a> Life<'a> {
    /// A journal with `logs` logs, and in its first segment room for a few small entries.
    pub(crate) fn create(
        disk: &SimFs,
        between: Between,
        ledger: &'a Ledger<Model>,
        config: &Config,
        logs: u64,
    ) -> Life<'a> {
        ledger.issue(Model::default());
        let journal = Journal::create_on(between(disk), config.clone()).expect("an empty disk");
        ledger.acknowledge();
        let mut life = Life {
            disk: disk.clone(),
            journal: Some(journal),
            config: config.clone(),
            between,
            ledger,
            now: Model::default(),
            logs,
            writes: 0,
            term: 1,
        };
        for key in 1..=logs {
            life.issue(&[Step::Create(key, 0)]);
            life.journal().create_log(LogKey(key), 0).expect("a new log");
            life.ledger.acknowledge();
        }
        let filler = life.append(1, FILLER_BYTES);
        life.write(&[filler]);
        life.work();
        life.settle_indexes();
        life
    }

    /// Time passes, and the system writes what nobody syncs. Otherwise indexes would multiply the states of all words.
    fn settle_indexes(&self) {
        for path in self
            .disk
            .files()
            .into_keys()
            .filter(|path| path.ends_with(".idx"))
        {
            let file = self.disk.open(&path, Access::Write).expect("it is there");
            file.sync_data().expect("the disk is fine");
        }
        self.disk.sync_dir("journal").expect("the disk is fine");
    }

    /// What the process that is open now has done.
    pub(crate) fn metrics(&self) -> Metrics {
        self.journal().metrics()
    }

    /// How many batches it carried when it opened.
    pub(crate) fn carried(&self) -> u64 {
        self.journal().report().carried_batches
    }

    pub(crate) fn perform(&mut self, letter: Letter, position: usize) {
        match letter {
            Letter::Small => {
                let step = self.append(1, SMALL_BYTES);
                self.write(&[step]);
            }
            Letter::Large => {
                let step = self.append(self.logs, LARGE_BYTES[position.min(LARGE_BYTES.len() - 1)]);
                self.write(&[step]);
            }
            Letter::Across => {
                let mut steps: Vec<Step> = (1..=self.logs).map(|key| self.append(key, SMALL_BYTES)).collect();
                steps.push(Step::Set(self.logs, 2, self.payload(8)));
                self.write(&steps);
            }
            Letter::Cell => {
                let value = self.payload(16);
                self.write(&[Step::Set(1, 1, value)]);
            }
            Letter::Truncate => {
                let end = self.now.0[&1].end();
                let from = end.saturating_sub(1).max(self.now.0[&1].start);
                self.term += 1;
                self.write(&[Step::Truncate(1, from)]);
            }
            Letter::Sync => {
                let step = self.append(1, RELAXED_BYTES);
                self.write_relaxed(&[step]);
                self.journal().sync().expect("the disk is fine");
                self.ledger.acknowledge();
                self.work();
            }
            Letter::Purge => {
                let logs = self.now.0.iter();
                let purge =
                    logs.map(|(key, log)| Step::PurgeTo(*key, log.end().saturating_sub(1).max(log.start)));
                let steps: Vec<Step> = purge.collect();
                self.write(&steps);
                self.journal().reclaim().expect("the disk is fine");
                self.work();
            }
            Letter::Reopen => self.reopen(position.is_multiple_of(2)),
        }
    }

    /// `clean`: the journal is closed. Otherwise the process is killed, after a write that is only written.
    fn reopen(&mut self, clean: bool) {
        let journal = self.journal.take().expect("the journal is open");
        if clean {
            journal.close().expect("the disk is fine");
            self.ledger.acknowledge();
        } else {
            self.journal = Some(journal);
            let step = self.append(1, SMALL_BYTES);
            self.write_relaxed(&[step]);
            self.disk = self.disk.kill();
            self.journal = None;
        }
        let journal =
            Journal::open_on((self.between)(&self.disk), self.config.clone()).expect("the disk is fine");
        self.ledger.acknowledge();
        let found = Model::read(&journal).expect("the disk is fine");
        assert!(found == self.now, "opened\n{found}\nand should be\n{}", self.now);
        self.journal = Some(journal);
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("the journal is open")
    }

    fn payload(&mut self, len: u64) -> Bytes {
        self.writes += 1;
        bytes(self.writes, len)
    }

    fn append(&mut self, key: u64, len: u64) -> Step {
        let log = &self.now.0[&key];
        let id = EntryId::new(u128::from(self.term), log.end());
        Step::AppendAt(key, id, self.payload(len))
    }

    fn issue(&mut self, steps: &[Step]) {
        self.now = self.now.after(steps).expect("the model takes it");
        self.ledger.issue(self.now.clone());
    }

    fn write(&mut self, steps: &[Step]) {
        self.issue(steps);
        self.journal().write(batch(steps)).expect("the disk is fine");
        self.ledger.acknowledge();
    }

    fn write_relaxed(&mut self, steps: &[Step]) {
        self.issue(steps);
        self.journal()
            .write_relaxed(batch(steps))
            .expect("the disk is fine");
    }

    fn work(&self) {
        while self.journal().work().expect("the disk is fine") {}
    }
}

fn batch(steps: &[Step]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    steps.iter().for_each(|step| step.push(&mut batch));
    batch
}

/// Makes of a disk what the journal is given.
pub(crate) type Between = fn(&SimFs) -> Arc<dyn Fs>;

pub(crate) fn dynamic(disk: &SimFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}

const SMALL_BYTES: u64 = 40;
const RELAXED_BYTES: u64 = 900;
/// By position. Each sector doubles the states of a word, so that what is larger than a block stands where words are few.
const LARGE_BYTES: [u64; 3] = [4100, 4100, 1500];
/// Little is left of the first segment of 16 KiB.
const FILLER_BYTES: u64 = 5200;
