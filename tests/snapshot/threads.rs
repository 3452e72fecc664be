//! Creations, readers, checks, views and collections at once, on a real directory.

use std::sync::atomic::{AtomicBool, Ordering};

use everlog::ErrorKind;
use everlog::snapshot::{Retention, ScrubPosition, Store};

use super::small::{config, read, state, try_create};

const ROUNDS: u64 = 40;

/// What snapshot `index` holds: most of it changes slowly.
fn bytes_of(index: u64) -> Vec<u8> {
    (0..20)
        .flat_map(|part| state((index + part) / 20 * 1000 + part, 1500))
        .collect()
}

#[test]
fn all_at_once_on_a_real_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), config().rewrite_below_percent(80)).unwrap();
    try_create(&store, 1, &bytes_of(1)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    look(&store, false);
                }
            });
        }
        scope.spawn(|| {
            let view = Store::view(dir.path()).unwrap();
            while !over.load(Ordering::Relaxed) {
                look(&view, true);
            }
        });
        scope.spawn(|| {
            let mut position = ScrubPosition::default();
            while !over.load(Ordering::Relaxed) {
                let scrubbed = store.scrub(position, 20_000).unwrap();
                assert!(scrubbed.found.damage.is_empty(), "{scrubbed:?}");
                position = scrubbed.next;
                store.collect(&Retention::new().newest(3)).unwrap();
            }
        });
        let creators: Vec<_> = (0..2)
            .map(|creator| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let index = 2 + round * 2 + creator;
                        let committed = try_create(store, index, &bytes_of(index)).unwrap();
                        assert_eq!(committed.healed.chunks, 0, "{committed:?}");
                    }
                })
            })
            .collect();
        let done: Vec<_> = creators
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, Ordering::Relaxed);
        assert!(done.iter().all(Result::is_ok), "a creator failed");
    });
    store.collect(&Retention::new().newest(2)).unwrap();
    drop(store);
    let store = Store::open(dir.path(), config()).unwrap();
    let list = store.list().unwrap();
    assert_eq!(list.len(), 2);
    for snapshot in list {
        assert_eq!(
            read(&store, snapshot.id).unwrap(),
            bytes_of(snapshot.covers.index)
        );
    }
    assert!(store.verify_all().unwrap().damage.is_empty());
}

/// Reads what is listed: whole, or gone in the meantime.
fn look(store: &Store, is_view: bool) {
    for snapshot in store.list().unwrap() {
        match read(store, snapshot.id) {
            Ok(bytes) => assert!(bytes == bytes_of(snapshot.covers.index), "{}", snapshot.covers),
            Err(error) => {
                let gone = error.kind() == ErrorKind::NotFound;
                assert!(gone, "{error:?}, of a view: {is_view}");
            }
        }
    }
}
