//! Rewriting, which moves chunks under snapshots that must not notice.

use std::sync::Arc;

use everlog::fs::{Fault, FaultFs, Op, Rule, SimFs};
use everlog::snapshot::{Retention, Store};

use super::small::{config, create, disk, open, packs, read, state};

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
