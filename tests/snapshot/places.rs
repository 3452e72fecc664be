//! The places that objects can be kept in keep one contract, and a store is the same on all of them.

use std::sync::Arc;

use everlog::fs::{RealFs, SimFs};
use everlog::snapshot::{Directory, Memory, Objects, Retention, Store, contract};

use super::small::{config, create, disk, read, state};

fn simulated() -> Arc<dyn Objects> {
    Arc::new(Directory::new(Arc::new(disk())))
}

#[test]
fn directories_and_memory_keep_the_contract() {
    contract::check(&simulated);
    contract::check(&|| Arc::new(Memory::new()));
    contract::check(&|| {
        let crashed: SimFs = disk().crash(1);
        Arc::new(Directory::new(Arc::new(crashed)))
    });
    let parent = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    contract::check(&|| {
        count.set(count.get() + 1);
        let fs = RealFs::create(parent.path().join(count.get().to_string())).unwrap();
        Arc::new(Directory::new(Arc::new(fs)))
    });
}

/// Creates, shares, removes, rewrites, reopens.
fn exercise(objects: &Arc<dyn Objects>) {
    let open = || Store::open_in(Arc::clone(objects), config()).unwrap();
    let store = open();
    let shared = state(1, 3000);
    for index in 1..=6 {
        let bytes = [shared.clone(), state(10 + index, 5000)].concat();
        let committed = create(&store, index, &bytes);
        assert_eq!(committed.shared.chunks > 0, index > 1);
    }
    create(&store, 7, &shared);
    assert_eq!(
        Store::open_in(Arc::clone(objects), config())
            .err()
            .map(|e| e.kind()),
        Some(everlog::ErrorKind::Locked)
    );
    drop(store);
    let store = open();
    let before = objects.list().unwrap().len();
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(collected.removed.len(), 6);
    assert!(objects.list().unwrap().len() < before);
    drop(store);
    let view = Store::view_in(Arc::clone(objects)).unwrap();
    let list = view.list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(read(&view, list[0].id).unwrap(), shared);
    assert!(view.verify_all().unwrap().damage.is_empty());
}

#[test]
fn a_store_is_the_same_wherever_its_objects_are() {
    exercise(&simulated());
    let memory: Arc<dyn Objects> = Arc::new(Memory::new());
    exercise(&memory);
    let dir = tempfile::tempdir().unwrap();
    let real = RealFs::open(dir.path()).unwrap();
    let directory: Arc<dyn Objects> = Arc::new(Directory::new(Arc::new(real)));
    exercise(&directory);
}
