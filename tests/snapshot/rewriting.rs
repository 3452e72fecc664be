//! Rewriting, which moves chunks under snapshots that must not notice.

use std::sync::Arc;

use everlog::ErrorKind;
use everlog::fs::{Fault, FaultFs, Gate, Op, Rule};
use everlog::snapshot::{Retention, Store};

use super::small::{config, create, disk, draft, indexes, open, packs, read, state};

const LEN: u64 = 10_000;

fn kept(store: &Store) -> Vec<u64> {
    let list = store.list().unwrap();
    list.iter().rev().map(|snapshot| snapshot.covers.index).collect()
}

/// Of three packs little is needed once the snapshots that they were made for are gone; what the last one holds.
fn sparse(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 1..=3 {
        bytes.extend(state(index, 2000));
        create(store, index, &[bytes.clone(), state(10 + index, LEN)].concat());
    }
    create(store, 4, &bytes);
    bytes
}

#[test]
fn a_copy_that_does_not_read_back_takes_no_originals_place() {
    for (path, byte) in [(".pack", 1000), (".snap", 300)] {
        let disk = disk();
        let fs = FaultFs::new(Arc::new(disk.clone()));
        let store = Store::open_on(Arc::new(fs.clone()), config()).unwrap();
        let bytes = sparse(&store);
        let id = store.list().unwrap()[0].id;
        let watch = fs.add(Rule::on(Op::Write, Fault::FlipBit { byte, bit: 0 }).path(path));
        let _ = store.collect(&Retention::new().newest(1));
        assert_eq!(watch.fired(), 1, "a bit of {path}");
        drop(store);
        let store = open(&disk);
        let found = read(&store, id).unwrap_or_else(|e| panic!("a bit of {path}: {e:?}"));
        assert_eq!(found, bytes, "a bit of {path}");
        assert!(store.damage().is_empty(), "a bit of {path}");
        // Without the fault it goes well.
        store.collect(&Retention::new().newest(1)).unwrap();
        assert!(packs(&disk).len() <= 2, "{:?}", packs(&disk));
        assert_eq!(read(&store, id).unwrap(), bytes);
    }
}

#[test]
fn a_rewriting_does_not_forget_the_good_copy_of_a_healed_chunk() {
    let disk = disk();
    let bytes = state(1, 3000);
    {
        let store = open(&disk);
        create(&store, 1, &[bytes.clone(), state(2, 12_000)].concat());
        create(&store, 2, &bytes);
        let files = disk.files();
        let pack = packs(&disk).into_iter().find(|path| files[path] > LEN).unwrap();
        disk.flip_bit(&pack, 64 + 1000, 0).unwrap();
    }
    let store = open(&disk);
    let second = store.list().unwrap()[0].id;
    let reader = store.reader(second).unwrap();
    let rotten = reader
        .chunks()
        .take_while(|chunk| chunk.at <= 1000)
        .last()
        .unwrap();
    drop(reader);
    let at = usize::try_from(rotten.at).unwrap();
    let mut third = store.create(draft(3)).unwrap();
    let good = &bytes[at..at + rotten.bytes as usize];
    third.append_chunk(&rotten.name, good).unwrap();
    let third = third.commit().unwrap();
    assert_eq!(third.healed.chunks, 1);
    assert_eq!(
        read(&store, second).unwrap(),
        bytes,
        "it falls back to the good copy"
    );
    let collected = store.collect(&Retention::new().newest(2)).unwrap();
    assert_eq!(
        (collected.removed.len(), collected.copied_bytes > 0),
        (1, true),
        "{collected:?}"
    );
    assert_eq!(read(&store, third.snapshot.id).unwrap(), good);
    assert_eq!(read(&store, second).unwrap(), bytes, "it still does");
    assert_eq!(
        read(&open(&disk.fork()), second).unwrap(),
        bytes,
        "and so does the next life"
    );
}

/// Once the first two are gone a rewriting would copy a third of the pack of the second, and nothing needs that of the first.
fn sparse_and_dead(store: &Store) -> Vec<u8> {
    create(store, 1, &state(50, LEN));
    create(store, 2, &[state(1, 20_000), state(2, 60_000)].concat());
    create(store, 3, &state(1, 20_000));
    state(1, 20_000)
}

#[test]
fn a_full_disk_is_freed_of_what_needs_no_copy() {
    let disk = disk();
    let store = open(&disk);
    let bytes = sparse_and_dead(&store);
    disk.set_capacity(0);
    let before = packs(&disk).len();
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!((collected.removed.len(), collected.packs_removed), (2, 1));
    let kept_because = collected.kept_because.map(|e| e.kind());
    assert_eq!(kept_because, Some(ErrorKind::NoSpace), "the other needs a copy");
    assert_eq!((kept(&store), packs(&disk).len()), (vec![3], before - 1));
    disk.set_capacity(1 << 30);
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!((collected.packs_rewritten, collected.packs_removed), (1, 1));
    assert_eq!(read(&store, store.list().unwrap()[0].id).unwrap(), bytes);
}

#[test]
fn a_sector_that_cannot_be_read_keeps_its_chunk_and_nothing_else() {
    let disk = disk();
    let store = open(&disk);
    let bytes = sparse_and_dead(&store);
    let shared = packs(&disk)
        .into_iter()
        .find(|path| disk.files()[path] > 70_000)
        .unwrap();
    disk.set_unreadable(&shared, 2..3, true).unwrap();
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    assert!(collected.kept_because.is_none(), "{collected:?}");
    assert_eq!((collected.packs_removed, collected.packs_rewritten), (1, 0));
    let (held, named) = (packs(&disk), indexes(&disk));
    assert!(held.contains(&shared), "the bad chunk is there");
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(
        (packs(&disk), indexes(&disk)),
        (held, named),
        "there is nothing more to do"
    );
    disk.set_unreadable(&shared, 2..3, false).unwrap();
    assert_eq!(read(&store, store.list().unwrap()[0].id).unwrap(), bytes);
    store.collect(&Retention::new().newest(1)).unwrap();
    assert!(!packs(&disk).contains(&shared), "it could be copied");
    assert_eq!(read(&store, store.list().unwrap()[0].id).unwrap(), bytes);
}

/// The view has listed the names, and the writer replaces the index before it is read.
#[test]
fn a_view_sees_a_snapshot_whose_index_is_replaced_meanwhile() {
    let disk = disk();
    let store = open(&disk);
    sparse(&store);
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let view = Store::view_on(Arc::new(fs.clone())).unwrap();
    assert_eq!(kept(&view), [1, 2, 3, 4]);
    let gate = Gate::default();
    fs.add(Rule::on(Op::Open, Fault::Delay(gate.clone())).path(".snap"));
    let looking = std::thread::spawn(move || kept(&view));
    gate.wait_for_arrivals(1);
    store.collect(&Retention::new().newest(1)).unwrap();
    gate.release();
    assert_eq!(looking.join().unwrap(), [4], "it is there all the time");
}

#[test]
fn a_rewriting_that_stops_half_way_leaves_no_older_generation() {
    let disk = disk();
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let store = Store::open_on(Arc::new(fs.clone()), config()).unwrap();
    let bytes = sparse(&store);
    create(&store, 5, &bytes);
    let second = Rule::on(Op::Write, Fault::no_space()).path(".snap").nth(2);
    fs.add(second);
    let collected = store.collect(&Retention::new().newest(2)).unwrap();
    let kept_because = collected.kept_because.map(|e| e.kind());
    assert_eq!(kept_because, Some(ErrorKind::NoSpace));
    assert_eq!(indexes(&disk).len(), 2, "one of each: {:?}", indexes(&disk));
    drop(store);
    let store = open(&disk.crash(1));
    for snapshot in store.list().unwrap() {
        assert_eq!(read(&store, snapshot.id).unwrap(), bytes);
    }
    assert_eq!(kept(&store), [4, 5]);
}
