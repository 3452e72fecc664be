//! Everything that power cuts may leave of everything that a few operations can do to a store: all words of up to so many
//! letters, at each sync of each word, every joint outcome of all sectors, sizes and names; opened, compared with what was told to the
//! store, and cut short again while it is opened.
//!
//! `EVERLOG_SNAPSHOT_LENGTH=4` sets the length (3).

use std::sync::Arc;

use everlog::fs::sim::{Coverage, Crashed, Enumerator, Ledger, Violation};
use everlog::fs::{Fault, FaultFs, Fs, Op, Profile, Rule, SimFs};
use everlog::snapshot::Store;

use super::small::{config, create, draft, open, read, state};
use super::story::{Event, Life, after, held};

/// One operation of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    /// A snapshot that has nothing in common with those before.
    Create,
    /// One that shares most of its chunks with the newest one.
    Share,
    /// The oldest one goes, and what that frees.
    Remove,
    /// Packs are rewritten.
    Rewrite,
    /// The process is killed while it creates, and the next one opens.
    Reopen,
}

const ALPHABET: [Letter; 5] = [
    Letter::Create,
    Letter::Share,
    Letter::Remove,
    Letter::Rewrite,
    Letter::Reopen,
];

/// What every word begins with, so that short ones already share, remove and rewrite.
const BEGINNING: [Letter; 3] = [Letter::Create, Letter::Share, Letter::Share];

/// Makes of a disk what the store is given.
type Between = fn(&SimFs) -> Arc<dyn Fs>;

struct Teller<'a> {
    life: Life,
    ledger: &'a Ledger<Event>,
    between: Between,
}

impl Teller<'_> {
    fn told<T>(&self, event: Event, doing: impl FnOnce() -> everlog::Result<T>) {
        self.ledger.issue(event);
        doing().expect("the disk is fine");
        self.ledger.acknowledge();
    }

    fn open(&mut self) {
        self.life.store = None;
        let store = Store::open_on((self.between)(&self.life.disk), config()).expect("the disk is fine");
        self.life.store = Some(store);
    }

    fn perform(&mut self, letter: Letter) {
        match letter {
            Letter::Create | Letter::Share => {
                let (index, bytes) = self.life.next_state(letter == Letter::Share);
                let store = self.life.store().clone();
                self.told(Event::Created(index, bytes.clone()), || {
                    Ok(create(&store, index, &bytes))
                });
                self.life.now.insert(index, bytes);
            }
            Letter::Remove => {
                let Some(index) = self.life.now.keys().next().copied() else {
                    return;
                };
                self.ledger.issue(Event::Removed(index));
                self.life.remove(index).expect("the disk is fine");
                self.ledger.acknowledge();
            }
            Letter::Rewrite => self.life.rewrite().expect("the disk is fine"),
            Letter::Reopen => {
                let (index, bytes) = self.life.next_state(true);
                let mut creation = self.life.store().create(draft(index)).expect("a creation");
                std::io::Write::write_all(&mut creation, &bytes).expect("the disk is fine");
                self.life.disk = self.life.disk.kill();
                drop(creation);
                self.open();
                assert_eq!(held(self.life.store()), Ok(self.life.now.clone()));
            }
        }
    }
}

/// Spells `word`; the power is cut in its last letter.
fn spell(word: &[Letter], between: Between, disk: &SimFs, ledger: &Ledger<Event>) {
    let mut teller = Teller {
        life: Life::new(disk),
        ledger,
        between,
    };
    let Some((last, before)) = word.split_last() else {
        ledger.issue(Event::Opened);
        teller.open();
        ledger.acknowledge();
        return;
    };
    ledger.pause();
    teller.open();
    for letter in BEGINNING.iter().chain(before) {
        teller.perform(*letter);
    }
    ledger.resume();
    teller.perform(*last);
}

/// What a power cut left is what some of the events left, all that were acknowledged among them; it is found again; and the store
/// goes on from there.
fn check(crashed: &Crashed<'_, Event>) -> Result<(), String> {
    let disk = crashed.disk();
    let failed = |what: &'static str| move |e: everlog::Error| format!("{what} fails: {e:?}");
    let store = Store::open_on(Arc::new(disk.clone()), config()).map_err(failed("opening"))?;
    let found = held(&store)?;
    let issued = crashed.issued();
    let counts = crashed.acknowledged()..=issued.len();
    let Some(count) = counts.clone().find(|count| after(&issued[..*count]) == found) else {
        let keys: Vec<_> = found.keys().collect();
        return Err(format!(
            "found {keys:?}, which is not what any {counts:?} events leave"
        ));
    };
    crashed.recovered_exactly(count);
    let mut expected = found;
    let bytes = state(77, 900);
    let index = 1000;
    create(&store, index, &bytes);
    expected.insert(index, bytes);
    store
        .collect(&everlog::snapshot::Retention::new().newest(100))
        .map_err(failed("collecting"))?;
    drop(store);
    let again = open(&disk);
    match held(&again)? == expected {
        true => Ok(()),
        false => Err("the next opening finds something else".to_string()),
    }
}

fn enumerator() -> Enumerator {
    Enumerator::new(Profile::PosixWeak)
        .limit(1 << 12, 40)
        .nested(2, 24, 8)
        .nested_every(16)
}

fn visit(word: &[Letter], between: Between) -> Result<Coverage, Box<Violation>> {
    enumerator().run(|disk, ledger| spell(word, between, disk, ledger), check)
}

/// All words of up to `length` letters, shortest first.
fn words(length: u32) -> Vec<Vec<Letter>> {
    let mut words = vec![Vec::new()];
    for len in 1..=length {
        let longer = words
            .iter()
            .filter(|word: &&Vec<Letter>| word.len() + 1 == len as usize);
        let grown: Vec<Vec<Letter>> = longer
            .flat_map(|word| ALPHABET.map(|letter| [word.as_slice(), &[letter]].concat()))
            .collect();
        words.extend(grown);
    }
    words
}

fn length() -> u32 {
    let set = std::env::var("EVERLOG_SNAPSHOT_LENGTH");
    set.map_or(3, |text| text.parse().expect("a number of letters"))
}

#[test]
fn every_state_that_a_power_cut_may_leave_is_opened() {
    let mut coverage = Coverage::default();
    for word in words(length()) {
        match visit(&word, dynamic) {
            Ok(one) => coverage += &one,
            Err(violation) => panic!("{word:?}: {violation}"),
        }
    }
    println!(
        "figure: snapshots enumerated: words of up to {} letters, {coverage}",
        length()
    );
    assert!(coverage.nested_states > 0, "no power was cut twice");
}

fn dynamic(disk: &SimFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}

/// A store all of whose syncs of one kind do nothing.
fn lying(op: Op, path: &str, disk: &SimFs) -> Arc<dyn Fs> {
    let fs = FaultFs::new(dynamic(disk));
    fs.add(Rule::on(op, Fault::Skip).path(path).forever());
    Arc::new(fs)
}

/// The enumeration is sharp: without syncs it finds something at once.
#[test]
fn a_store_without_syncs_is_found_out() {
    let lies: [(&str, Between); 4] = [
        ("no pack is synced", |disk| lying(Op::SyncData, ".pack", disk)),
        ("no index is synced", |disk| lying(Op::SyncData, ".snap", disk)),
        ("no name is synced", |disk| lying(Op::SyncDir, "snapshots", disk)),
        ("the directory is not synced", |disk| lying(Op::SyncDir, "", disk)),
    ];
    for (what, between) in lies {
        let found = words(1).iter().find_map(|word| visit(word, between).err());
        let violation = found.unwrap_or_else(|| panic!("{what}, and nothing is found"));
        println!("figure: snapshots enumerated: {what}: {}", violation.what);
    }
}

/// Letters do what they are there for.
#[test]
fn short_words_share_rewrite_and_free() {
    let disk = super::small::disk();
    let mut life = Life::new(&disk);
    life.open(config()).unwrap();
    for shares in [false, true, true] {
        let (index, bytes) = life.next_state(shares);
        life.create(index, bytes).unwrap();
    }
    let list = life.store().list().unwrap();
    assert!(
        list[0].new_bytes > 0 && list[0].new_bytes < list[0].bytes,
        "{list:?}"
    );
    let collected = life.store().remove(list[2].id).unwrap();
    assert_eq!(collected.packs_removed, 0, "{collected:?}");
    life.now.remove(&1);
    life.open(config().rewrite_below_percent(100)).unwrap();
    let kept = everlog::snapshot::Retention::new().newest(100);
    let collected = life.store().collect(&kept).unwrap();
    assert!(
        collected.packs_rewritten > 0 && collected.packs_removed > 0,
        "{collected:?}"
    );
    assert_eq!(held(life.store()).unwrap(), life.now);
    let reads = life.store().list().unwrap();
    assert!(
        reads
            .iter()
            .all(|snapshot| read(life.store(), snapshot.id).is_ok())
    );
}
