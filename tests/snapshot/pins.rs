//! Pins that are files: they hold in every process, until they expire or are taken back; a damaged one holds, and says so; and no
//! power cut loses one that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use everlog::ErrorKind;
use everlog::fs::sim::{Crashed, Enumerator, Ledger};
use everlog::fs::{Fault, FaultFs, Fs, Op, Profile, Rule, SimFs};
use everlog::snapshot::{PinInfo, Retention, SnapshotId, Store};

use super::small::{config, create, disk, open, state};

const MINUTE: Duration = Duration::from_secs(60);

/// Two snapshots, and the id of the older one.
fn two(disk: &SimFs) -> SnapshotId {
    let store = open(disk);
    let old = create(&store, 1, &state(1, 500)).snapshot.id;
    create(&store, 2, &state(2, 500));
    old
}

/// Collects all but the newest in a process of its own; returns what went.
fn collect(disk: &SimFs) -> Vec<SnapshotId> {
    let collected = open(disk).collect(&Retention::new().newest(1));
    collected.expect("it is collected").removed
}

fn files(disk: &SimFs) -> Vec<String> {
    let files = disk.files().into_keys();
    files.filter(|path| path.ends_with(".pin")).collect()
}

fn one(store: &Store) -> PinInfo {
    let mut pins = store.pins().unwrap();
    assert_eq!(pins.len(), 1, "{pins:?}");
    pins.remove(0)
}

/// Changes the only pin's file; returns its path.
fn change(disk: &SimFs, with: impl FnOnce(&mut Vec<u8>)) -> String {
    let path = files(disk).remove(0);
    let mut bytes = disk.read_raw(&path).unwrap();
    with(&mut bytes);
    disk.remove(&path).unwrap();
    let file = disk.create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    path
}

#[test]
fn a_pin_holds_in_other_processes_until_it_expires() {
    let disk = disk();
    let id = two(&disk);
    let info = open(&disk).pin_durably(id, "backup", MINUTE).unwrap();
    assert_eq!((info.snapshot, info.owner.as_deref()), (id, Some("backup")));
    assert_eq!(collect(&disk), []);
    let error = open(&disk).remove(id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("backup"), "{error}");
    let view = Store::view_on(Arc::new(disk.clone())).unwrap();
    assert!(!one(&view).expired);
    disk.advance(MINUTE);
    let found = one(&view);
    assert!(found.expired && found.path == info.path, "{found:?}");
    let collected = open(&disk).collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(collected.removed, [id]);
    assert_eq!(collected.expired.len(), 1);
    assert_eq!(collected.expired[0].owner.as_deref(), Some("backup"));
    assert_eq!(files(&disk), Vec::<String>::new());
    assert!(view.pins().unwrap().is_empty());
}

#[test]
fn the_last_word_of_an_owner_counts_and_other_owners_are_others() {
    let disk = disk();
    let id = two(&disk);
    let store = open(&disk);
    store.pin_durably(id, "one", None).unwrap();
    store.pin_durably(id, "one", MINUTE).unwrap();
    store.pin_durably(id, "two", 2 * MINUTE).unwrap();
    assert_eq!(files(&disk).len(), 2, "the earlier word is gone");
    drop(store);
    let ends: Vec<_> = open(&disk)
        .pins()
        .unwrap()
        .iter()
        .map(|pin| pin.expires_micros - pin.created_micros)
        .collect();
    assert_eq!(ends, [60_000_000, 120_000_000]);
    let store = open(&disk);
    assert!(store.unpin(id, "two").unwrap());
    assert!(!store.unpin(id, "two").unwrap(), "it is gone");
    drop(store);
    assert_eq!(collect(&disk), [], "the other owner still wants it");
    assert!(open(&disk).unpin(id, "one").unwrap());
    assert_eq!(collect(&disk), [id]);
}

#[test]
fn a_guard_and_a_file_of_one_owner_are_two_pins() {
    let disk = disk();
    let id = two(&disk);
    let store = open(&disk);
    store.pin_durably(id, "me", None).unwrap();
    drop(store.pin(id, "me", MINUTE).unwrap());
    assert_eq!(
        store.remove(id).unwrap_err().kind(),
        ErrorKind::Busy,
        "the file holds"
    );
    let guard = store.pin(id, "me", MINUTE).unwrap();
    assert!(store.unpin(id, "me").unwrap(), "both end");
    assert!(store.remove(id).is_ok());
    drop(guard);
}

#[test]
fn a_damaged_pin_holds_and_says_so_until_it_is_given_up() {
    let changes: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[80] ^= 1,
        |bytes| bytes.truncate(40),
        Vec::clear,
        |bytes| bytes.resize(5000, 0),
    ];
    for (number, change_bytes) in changes.into_iter().enumerate() {
        let disk = disk();
        let id = two(&disk);
        open(&disk).pin_durably(id, "backup", MINUTE).unwrap();
        let path = change(&disk, change_bytes);
        disk.advance(10 * MINUTE);
        assert_eq!(collect(&disk), [], "change {number}");
        let store = open(&disk);
        let pin = one(&store);
        assert_eq!((pin.snapshot, pin.owner.as_ref()), (id, None));
        let error = pin.error.expect("it says what is wrong");
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains(&path), "{error}");
        assert!(!store.unpin(id, "backup").unwrap(), "nobody knows whose it is");
        assert_eq!(store.unpin_unreadable(id).unwrap(), 1);
        drop(store);
        assert_eq!(collect(&disk), [id]);
    }
}

#[test]
fn a_pin_under_the_name_of_another_snapshot_holds_both_ways() {
    let disk = disk();
    let id = two(&disk);
    open(&disk).pin_durably(id, "backup", MINUTE).unwrap();
    let path = files(&disk).remove(0);
    let other = path.replace(&id.to_string(), &SnapshotId([7; 32]).to_string());
    disk.rename(&path, &other).unwrap();
    let pin = one(&open(&disk));
    assert_eq!(pin.snapshot, SnapshotId([7; 32]));
    let error = pin.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains(&id.to_string()), "{error}");
}

#[test]
fn a_pin_of_a_newer_version_holds_and_is_left_alone() {
    let disk = disk();
    let id = two(&disk);
    open(&disk).pin_durably(id, "backup", MINUTE).unwrap();
    change(&disk, |bytes| {
        bytes[12] = 2;
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    });
    disk.advance(10 * MINUTE);
    assert_eq!(collect(&disk), []);
    let error = one(&open(&disk)).error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(files(&disk).len(), 1);
}

#[test]
fn what_cannot_be_pinned_is_refused() {
    let disk = disk();
    let id = two(&disk);
    let store = open(&disk);
    let kind = |result: everlog::Result<PinInfo>| result.unwrap_err().kind();
    for owner in ["", "two\nlines", &"x".repeat(256)] {
        assert_eq!(kind(store.pin_durably(id, owner, None)), ErrorKind::Invalid);
    }
    assert_eq!(
        kind(store.pin_durably(SnapshotId([9; 32]), "me", None)),
        ErrorKind::NotFound
    );
    let view = Store::view_on(Arc::new(disk.clone())).unwrap();
    assert_eq!(kind(view.pin_durably(id, "me", None)), ErrorKind::Invalid);
    assert_eq!(view.unpin(id, "me").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(view.unpin_unreadable(id).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(files(&disk).is_empty());
}

#[test]
fn a_pin_that_cannot_be_written_leaves_nothing_and_one_that_cannot_be_removed_holds() {
    let disk = disk();
    let id = two(&disk);
    let faulty = FaultFs::new(Arc::new(disk.clone()) as Arc<dyn Fs>);
    let store = Store::open_on(Arc::new(faulty.clone()), config()).unwrap();
    for op in [Op::Create, Op::Write, Op::SyncData] {
        faulty.add(Rule::on(op, Fault::io_error()).path(".pin"));
        let error = store.pin_durably(id, "me", None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{op:?}");
        assert!(store.pins().unwrap().is_empty());
    }
    store
        .pin_durably(id, "me", None)
        .expect("nothing of it is in the way");
    faulty.add(Rule::on(Op::Remove, Fault::io_error()).path(".pin"));
    assert_eq!(store.unpin(id, "me").unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(
        store.remove(id).unwrap_err().kind(),
        ErrorKind::Busy,
        "it still holds"
    );
    assert!(store.unpin(id, "me").unwrap());
    assert!(store.remove(id).is_ok());
}

/// What changes the pins of the older snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// By an owner, for so many minutes.
    Pin(&'static str, u32),
    Unpin(&'static str),
}

const STORY: [Event; 5] = [
    Event::Pin("one", 5),
    Event::Pin("two", 9),
    Event::Pin("one", 7),
    Event::Unpin("two"),
    Event::Unpin("one"),
];

/// Owners, and for how many minutes each pins.
fn after(events: &[Event]) -> BTreeMap<String, u32> {
    let mut pins = BTreeMap::new();
    for event in events {
        match event {
            Event::Pin(owner, minutes) => drop(pins.insert((*owner).to_owned(), *minutes)),
            Event::Unpin(owner) => drop(pins.remove(*owner)),
        }
    }
    pins
}

/// Makes of a disk what the store is given.
type Between = fn(&SimFs) -> Arc<dyn Fs>;

fn tell(disk: &SimFs, ledger: &Ledger<Event>, between: Between) {
    ledger.pause();
    let id = two(disk);
    let store = Store::open_on(between(disk), config()).expect("the disk is fine");
    ledger.resume();
    for event in STORY {
        ledger.issue(event);
        match event {
            Event::Pin(owner, minutes) => drop(
                store
                    .pin_durably(id, owner, minutes * MINUTE)
                    .expect("it is pinned"),
            ),
            Event::Unpin(owner) => assert!(store.unpin(id, owner).expect("it is unpinned")),
        }
        ledger.acknowledge();
    }
}

/// The pins are what some of the events leave, all that were acknowledged among them; and a collection respects them.
fn check(crashed: &Crashed<'_, Event>) -> Result<(), String> {
    let disk = crashed.disk();
    let store =
        Store::open_on(Arc::new(disk.clone()), config()).map_err(|e| format!("opening fails: {e:?}"))?;
    let mut found = BTreeMap::new();
    for pin in store.pins().map_err(|e| format!("the pins: {e:?}"))? {
        let owner = pin
            .owner
            .ok_or_else(|| format!("a damaged pin: {:?}", pin.error))?;
        let minutes = (pin.expires_micros - pin.created_micros) / 60_000_000;
        found.insert(owner, u32::try_from(minutes).expect("minutes"));
    }
    let issued = crashed.issued();
    let counts = crashed.acknowledged()..=issued.len();
    let Some(count) = counts.clone().find(|count| after(&issued[..*count]) == found) else {
        return Err(format!(
            "found {found:?}, which is not what any {counts:?} of {issued:?} leave"
        ));
    };
    crashed.recovered_exactly(count);
    let collected = store.collect(&Retention::new().newest(1));
    let removed = collected
        .map_err(|e| format!("collecting fails: {e:?}"))?
        .removed
        .len();
    match removed == usize::from(found.is_empty()) {
        true => Ok(()),
        false => Err(format!("{removed} snapshots went under {found:?}")),
    }
}

#[test]
fn no_power_cut_loses_a_pin_that_was_acknowledged() {
    let enumerator = Enumerator::new(Profile::PosixWeak)
        .limit(1 << 12, 40)
        .nested(2, 24, 8);
    let run = |between: Between| enumerator.run(|disk, ledger| tell(disk, ledger, between), check);
    let coverage = run(|disk| Arc::new(disk.clone())).unwrap_or_else(|violation| panic!("{violation}"));
    println!("figure: pins enumerated: {coverage}");
    let lies: [Between; 2] = [
        |disk| lying(Op::SyncData, ".pin", disk),
        |disk| lying(Op::SyncDir, "snapshots", disk),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        assert!(run(lie).is_err(), "lie {number} about syncs is not found out");
    }
}

fn lying(op: Op, path: &str, disk: &SimFs) -> Arc<dyn Fs> {
    let fs = FaultFs::new(Arc::new(disk.clone()) as Arc<dyn Fs>);
    fs.add(Rule::on(op, Fault::Skip).path(path).forever());
    Arc::new(fs)
}
