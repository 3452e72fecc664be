//! A chunk that rotted and was stored anew for a later snapshot: the older one, which can be read because of that, stays readable.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use everlog::ErrorKind;
use everlog::fs::{Fault, FaultFs, Gate, Op, Rule, SimFs};
use everlog::snapshot::{Import, Origin, Retention, SnapshotId, Store};

use super::small::{config, create, disk, open, packs, read, state};

fn kept(store: &Store) -> Vec<u64> {
    let list = store.list().unwrap();
    list.iter().rev().map(|snapshot| snapshot.covers.index).collect()
}

/// Of the first of three snapshots a chunk is rotten, and good in the pack of the second. What the first holds.
fn healed(disk: &SimFs) -> (SnapshotId, Vec<u8>) {
    let bytes = state(1, 3000);
    let first = create(&open(disk), 1, &bytes).snapshot.id;
    disk.flip_bit(&packs(disk)[0], 64 + 1000, 0).unwrap();
    let store = open(disk);
    let second = create(&store, 2, &[bytes.clone(), state(2, 500)].concat());
    assert_eq!(second.healed.chunks, 1);
    create(&store, 3, &state(3, 500));
    assert_eq!(read(&store, first).unwrap(), bytes);
    (first, bytes)
}

#[test]
fn a_collection_does_not_take_the_only_good_copy_of_a_chunk() {
    let disk = disk();
    let (first, bytes) = healed(&disk);
    // A life that knows nothing of what rotted.
    let store = open(&disk);
    let _pin = store.pin(first, "backup", Duration::from_secs(3600)).unwrap();
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(kept(&store), [1, 3]);
    assert_eq!(read(&store, first).unwrap(), bytes);
    assert!(store.verify_all().unwrap().damage.is_empty(), "it is whole again");
    drop(store);
    let store = open(&disk.crash(1));
    assert_eq!(kept(&store), [1, 3]);
    assert_eq!(read(&store, first).unwrap(), bytes);
}

#[test]
fn if_no_index_can_be_put_anew_what_has_the_good_copy_stays() {
    let disk = disk();
    let (first, bytes) = healed(&disk);
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let store = Store::open_on(Arc::new(fs.clone()), config()).unwrap();
    let second = store.list().unwrap()[1].id;
    let _pin = store.pin(first, "backup", Duration::from_secs(3600)).unwrap();
    fs.add(Rule::on(Op::Write, Fault::no_space()).path(".snap"));
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    let kept_because = collected.kept_because.map(|e| e.kind());
    assert_eq!(
        (collected.removed.len(), kept_because),
        (0, Some(ErrorKind::NoSpace))
    );
    fs.add(Rule::on(Op::Write, Fault::no_space()).path(".snap"));
    let error = store.remove(second).unwrap_err();
    assert_eq!((error.kind(), kept(&store)), (ErrorKind::NoSpace, vec![1, 2, 3]));
    store.remove(second).unwrap();
    assert_eq!((kept(&store), read(&store, first).unwrap()), (vec![1, 3], bytes));
}

/// The first of two snapshots comes back as a copy, which stores anew what rotted in both; it is as old as it was.
#[test]
fn what_an_import_made_good_is_found_by_the_next_life() {
    let disk = disk();
    let bytes = state(1, 3000);
    let (first, second, mut copy) = {
        let store = open(&disk);
        let first = create(&store, 1, &bytes).snapshot.id;
        let second = create(&store, 2, &[bytes.clone(), state(2, 500)].concat())
            .snapshot
            .id;
        let mut copy = Vec::new();
        store.export(first, &mut copy, &mut |_, _| {}).unwrap();
        (first, second, copy)
    };
    let pack = packs(&disk)
        .into_iter()
        .max_by_key(|path| disk.files()[path])
        .unwrap();
    disk.flip_bit(&pack, 64 + 1000, 0).unwrap();
    let store = open(&disk);
    let import = Import::open(&copy[..], "the copy").unwrap();
    let committed = import
        .into_store(&store, Origin::OwnCheckpoint, &mut |_, _| {})
        .unwrap();
    assert_eq!((committed.snapshot.id, committed.healed.chunks), (first, 1));
    copy.clear();
    let whole = read(&store, second).unwrap();
    drop(store);
    let store = open(&disk);
    assert_eq!(read(&store, first).unwrap(), bytes);
    assert_eq!(read(&store, second).unwrap(), whole);
}

/// A removal stops while it puts an index anew, and somebody pins what is to go.
#[test]
fn what_is_pinned_while_it_is_being_removed_stays_and_is_told_to_stay() {
    let disk = disk();
    healed(&disk);
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let store = Store::open_on(Arc::new(fs.clone()), config()).unwrap();
    let second = store.list().unwrap()[1].id;
    let gate = Gate::default();
    fs.add(Rule::on(Op::Write, Fault::Delay(gate.clone())).path(".snap"));
    let removing = thread::spawn({
        let store = store.clone();
        move || store.remove(second)
    });
    gate.wait_for_arrivals(1);
    let pin = store.pin(second, "backup", Duration::from_secs(3600)).unwrap();
    gate.release();
    let error = removing.join().unwrap().expect_err("it is pinned");
    assert_eq!(
        (error.kind(), kept(&store)),
        (ErrorKind::Busy, vec![1, 2, 3]),
        "{error}"
    );
    drop(pin);
    assert_eq!(store.remove(second).unwrap().removed, [second]);
}
