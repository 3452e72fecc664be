//! What goes, what stays, and who holds it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use everlog::fs::{Kept, SimFs};
use everlog::snapshot::{Draft, Retention, Store};
use everlog::{EntryId, ErrorKind, LogKey};

use super::small::{config, create, disk, draft, indexes, open, packs, read, read_all, state};
use super::story::held;

const LEN: u64 = 10_000;

fn kept(store: &Store) -> Vec<u64> {
    let list = store.list().unwrap();
    list.iter().rev().map(|snapshot| snapshot.covers.index).collect()
}

/// Snapshots 1 to `count` that share nothing.
fn several(disk: &SimFs, count: u64) -> Store {
    let store = open(disk);
    for index in 1..=count {
        create(&store, index, &state(index, LEN));
        disk.advance(Duration::from_secs(3600));
    }
    store
}

#[test]
fn the_newest_of_each_log_stay() {
    let disk = disk();
    let store = several(&disk, 4);
    let mut other = store.create(Draft::new(LogKey(8), EntryId::new(0, 1))).unwrap();
    other.write_all(b"of another log").unwrap();
    other.commit().unwrap();
    let collected = store.collect(&Retention::new()).unwrap();
    assert_eq!((collected.removed.len(), collected.packs_removed), (2, 2));
    assert_eq!(collected.freed_bytes, 2 * (LEN + 64));
    assert_eq!(kept(&store), [1, 3, 4]);
    assert_eq!(packs(&disk).len(), 3);
    assert_eq!(
        store.collect(&Retention::new().newest(0)).unwrap().removed.len(),
        1,
        "0 counts as 1"
    );
}

#[test]
fn age_and_bytes_limit_the_others() {
    let disk = disk();
    let store = several(&disk, 6);
    let old = Retention::new()
        .newest(1)
        .max_age(Duration::from_secs(4 * 3600 + 1));
    assert_eq!(store.would_remove(&old).unwrap().len(), 2);
    store.collect(&old).unwrap();
    assert_eq!(kept(&store), [3, 4, 5, 6]);
    let large = Retention::new().newest(1).max_bytes(3 * LEN);
    assert_eq!(store.collect(&large).unwrap().removed.len(), 1);
    assert_eq!(kept(&store), [4, 5, 6]);
    let tiny = Retention::new().newest(2).max_bytes(1);
    store.collect(&tiny).unwrap();
    assert_eq!(kept(&store), [5, 6], "the newest stay whatever they take");
}

#[test]
fn shared_bytes_are_counted_once() {
    let store = open(&disk());
    let bytes = state(1, LEN);
    for index in 1..=5 {
        create(&store, index, &bytes);
    }
    let collected = store.collect(&Retention::new().newest(1).max_bytes(LEN)).unwrap();
    assert!(collected.removed.is_empty(), "{collected:?}");
}

#[test]
fn a_pinned_snapshot_stays_until_its_pin_ends() {
    let disk = disk();
    let store = several(&disk, 3);
    let id = store.list().unwrap()[2].id;
    let pin = store.pin(id, "backup", Duration::from_secs(60)).unwrap();
    assert_eq!(store.pins().unwrap().len(), 1);
    assert_eq!(store.remove(id).unwrap_err().kind(), ErrorKind::Busy);
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(kept(&store), [1, 3]);
    disk.advance(Duration::from_secs(61));
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(kept(&store), [3], "it expired");
    drop(pin);
    let id = store.list().unwrap()[0].id;
    store.pin(id, "one", Duration::from_secs(60)).unwrap().keep();
    drop(store.pin(id, "two", Duration::from_secs(60)).unwrap());
    assert_eq!(
        store
            .pins()
            .unwrap()
            .iter()
            .map(|pin| (pin.snapshot, pin.owner.as_deref()))
            .collect::<Vec<_>>(),
        [(id, Some("one"))]
    );
    create(&store, 9, b"newer");
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(kept(&store), [3, 9]);
    assert!(store.unpin(id, "one").unwrap());
    assert!(!store.unpin(id, "one").unwrap());
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(kept(&store), [9]);
}

#[test]
fn a_pin_that_its_owner_renews_holds() {
    let disk = disk();
    let store = several(&disk, 2);
    let id = store.list().unwrap()[1].id;
    let pin = store.pin(id, "backup", Duration::from_secs(60)).unwrap();
    let renewed = store.pin(id, "backup", Duration::from_secs(3600)).unwrap();
    drop(pin);
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(kept(&store), [1, 2]);
    drop(renewed);
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(kept(&store), [2]);
}

#[test]
fn what_is_being_read_stays() {
    let disk = disk();
    let store = several(&disk, 2);
    let mut reader = store.reader(store.list().unwrap()[1].id).unwrap();
    store.collect(&Retention::new().newest(1)).unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, state(1, LEN));
    drop(reader);
    assert_eq!(
        store.collect(&Retention::new().newest(1)).unwrap().removed.len(),
        1
    );
    assert_eq!(packs(&disk).len(), 1);
}

#[test]
fn a_creation_holds_what_it_shares() {
    let disk = disk();
    let store = several(&disk, 1);
    let first = store.list().unwrap()[0].id;
    let mut creation = store.create(draft(2)).unwrap();
    creation.write_all(&state(1, LEN)).unwrap();
    // Everything but the last chunk is cut by now, and shared.
    store.remove(first).unwrap();
    let committed = creation.commit().unwrap();
    assert!(committed.shared.chunks > 10);
    assert_eq!(read(&store, committed.snapshot.id).unwrap(), state(1, LEN));
    store.remove(committed.snapshot.id).unwrap();
    assert_eq!(
        packs(&disk),
        Vec::<String>::new(),
        "what was held has been let go"
    );
}

#[test]
fn a_creation_that_is_dropped_lets_go() {
    let disk = disk();
    let store = several(&disk, 1);
    let first = store.list().unwrap()[0].id;
    let mut creation = store.create(draft(2)).unwrap();
    creation.write_all(&state(1, LEN)).unwrap();
    store.remove(first).unwrap();
    drop(creation);
    store.collect(&Retention::new()).unwrap();
    assert_eq!(packs(&disk), Vec::<String>::new());
}

/// Of three packs little is needed once the snapshots that they were made for are gone.
fn sparse(disk: &SimFs) -> Store {
    let store = open(disk);
    let mut bytes = Vec::new();
    for index in 1..=3 {
        bytes.extend(state(index, 2000));
        let mut whole = bytes.clone();
        whole.extend(state(10 + index, LEN));
        create(&store, index, &whole);
    }
    create(&store, 4, &bytes);
    store
}

#[test]
fn packs_of_which_little_is_needed_are_rewritten() {
    let disk = disk();
    let store = sparse(&disk);
    let last = store.list().unwrap().remove(0);
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    assert!(
        collected.packs_rewritten >= 3 && collected.packs_removed >= 3,
        "{collected:?}"
    );
    assert!(
        collected.copied_bytes < 7000 && collected.freed_bytes > 30_000,
        "{collected:?}"
    );
    assert!(packs(&disk).len() <= 2, "{:?}", packs(&disk));
    assert_eq!(
        store.list().unwrap(),
        std::slice::from_ref(&last),
        "the same snapshot, elsewhere"
    );
    let bytes: Vec<u8> = (1..=3).flat_map(|index| state(index, 2000)).collect();
    assert_eq!(read(&store, last.id).unwrap(), bytes);
    drop(store);
    let store = open(&disk.crash(1));
    assert_eq!(read(&store, last.id).unwrap(), bytes);
    assert!(
        store.collect(&Retention::new()).unwrap().packs_removed == 0,
        "nothing is left to do"
    );
}

#[test]
fn a_reader_outlives_the_rewriting_of_its_packs() {
    let disk = disk();
    let store = sparse(&disk);
    let reader = store.reader(store.list().unwrap()[0].id).unwrap();
    store.collect(&Retention::new().newest(1)).unwrap();
    let bytes: Vec<u8> = (1..=3).flat_map(|index| state(index, 2000)).collect();
    assert_eq!(read_all(reader).unwrap(), bytes);
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    assert!(
        collected.packs_rewritten >= 3,
        "they were held until now: {collected:?}"
    );
}

#[test]
fn a_damaged_chunk_is_not_copied_and_keeps_its_pack() {
    let disk = disk();
    let store = sparse(&disk);
    let last = store.list().unwrap().remove(0);
    for pack in packs(&disk) {
        disk.flip_bit(&pack, 80, 0).unwrap();
    }
    let damaged = store.verify(last.id).unwrap().damage.len();
    assert!(damaged > 0);
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(
        store.verify(last.id).unwrap().damage.len(),
        damaged,
        "no more and no less than before"
    );
    assert_eq!(read(&store, last.id).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_snapshot_that_is_known_to_be_damaged_takes_nobodys_place() {
    let disk = disk();
    let store = several(&disk, 3);
    let list = store.list().unwrap();
    for pack in packs(&disk) {
        disk.flip_bit(&pack, 3000, 0).unwrap();
        match store.verify(list[2].id).unwrap().damage.is_empty() {
            true => {}
            false => disk.flip_bit(&pack, 3000, 0).unwrap(),
        }
    }
    assert!(store.verify(list[2].id).unwrap().damage.is_empty());
    assert!(!store.verify_all().unwrap().damage.is_empty());
    store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(
        kept(&store),
        [1, 2, 3],
        "the oldest is the only one that is whole"
    );
}

#[test]
fn while_an_index_cannot_be_read_no_pack_is_removed() {
    let disk = disk();
    drop(several(&disk, 3));
    disk.flip_bit(&indexes(&disk)[0], 100, 0).unwrap();
    let store = open(&disk);
    let damage = store.damage();
    assert_eq!((damage.len(), damage[0].error.kind()), (1, ErrorKind::Damaged));
    assert_eq!(kept(&store).len(), 2);
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!((collected.removed.len(), collected.packs_removed), (1, 0));
    assert_eq!(collected.kept_because.map(|e| e.kind()), Some(ErrorKind::Damaged));
    assert_eq!(packs(&disk).len(), 3);
    assert_eq!(store.remove_unreadable().unwrap(), 1);
    assert_eq!(
        store.collect(&Retention::new().newest(1)).unwrap().packs_removed,
        2
    );
}

#[test]
fn after_a_removal_that_failed_no_pack_goes_in_this_life() {
    let disk = disk();
    let store = several(&disk, 3);
    disk.fail_sync_dir("snapshots", 0, Kept::Nothing);
    let error = store.collect(&Retention::new().newest(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let collected = store.collect(&Retention::new().newest(1)).unwrap();
    assert_eq!(collected.kept_because.map(|e| e.kind()), Some(ErrorKind::Closed));
    assert_eq!(packs(&disk).len(), 3);
    // What the directory forgot to forget is whole.
    drop(store);
    let crashed = disk.crash_with(&mut |_| 0);
    assert!(held(&open(&crashed)).is_ok());
    assert_eq!(
        open(&disk)
            .collect(&Retention::new().newest(1))
            .unwrap()
            .packs_removed,
        2
    );
}

#[test]
fn a_commit_whose_name_cannot_be_synced_leaves_nothing_to_be_believed() {
    for spare in [0, 1] {
        let disk = disk();
        let store = several(&disk, 1);
        // The first sync of the directory is for the pack, the second for the index.
        disk.fail_sync_dir("snapshots", spare, Kept::Nothing);
        let error = super::small::try_create(&store, 2, &state(2, LEN)).unwrap_err();
        let kind = [ErrorKind::Io, ErrorKind::Unknown][usize::try_from(spare).unwrap()];
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(kept(&store), [1]);
        let next = disk.kill();
        drop(store);
        let store = open(&next);
        let found = kept(&store);
        drop(store);
        let crashed = next.crash_with(&mut |_| 0);
        assert_eq!(kept(&open(&crashed)), found, "what was listed stays");
    }
}

#[test]
fn what_an_index_in_doubt_names_stays() {
    let disk = disk();
    let store = several(&disk, 1);
    let first = store.list().unwrap()[0].id;
    disk.fail_sync_dir("snapshots", 1, Kept::Everything);
    let error = super::small::try_create(&store, 2, &[state(1, LEN), state(2, LEN)].concat()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error:?}");
    store.remove(first).unwrap();
    assert_eq!(
        packs(&disk).len(),
        2,
        "the next life may find an index that needs both"
    );
    drop(store);
    let store = open(&disk);
    store.collect(&Retention::new()).unwrap();
    assert!(held(&store).is_ok());
}

#[test]
fn a_store_in_a_view_changes_nothing() {
    let disk = disk();
    drop(several(&disk, 2));
    let calls = disk.ops();
    let view = Store::view_on(Arc::new(disk.clone())).unwrap();
    let list = view.list().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(read(&view, list[0].id).unwrap(), state(2, LEN));
    assert!(view.verify_all().unwrap().damage.is_empty());
    let refused = [
        view.create(draft(3)).map(drop).unwrap_err(),
        view.collect(&Retention::new()).map(drop).unwrap_err(),
        view.remove(list[0].id).map(drop).unwrap_err(),
        view.pin(list[0].id, "me", Duration::MAX).map(drop).unwrap_err(),
        view.remove_unreadable().map(drop).unwrap_err(),
    ];
    assert!(refused.iter().all(|error| error.kind() == ErrorKind::Invalid));
    assert_eq!(disk.ops(), calls, "nothing was written");
    assert_eq!(
        Store::view_on(Arc::new(super::small::disk())).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn one_process_has_a_store_open_and_others_look() {
    let disk = disk();
    let store = sparse(&disk);
    let second = Store::open_on(Arc::new(disk.clone()), config()).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Locked);
    assert!(second.to_string().contains("pid"), "{second}");
    let view = Store::view_on(Arc::new(disk.clone())).unwrap();
    let list = view.list().unwrap();
    let [last, old] = [list[0].id, list[3].id];
    let (reader, gone) = (view.reader(last).unwrap(), view.reader(old).unwrap());
    store.collect(&Retention::new().newest(1)).unwrap();
    let bytes: Vec<u8> = (1..=3).flat_map(|index| state(index, 2000)).collect();
    assert_eq!(
        read_all(reader).unwrap(),
        bytes,
        "the packs were rewritten meanwhile"
    );
    assert_eq!(
        read_all(gone).unwrap_err().kind(),
        ErrorKind::NotFound,
        "the snapshot was removed meanwhile"
    );
    assert_eq!(view.list().unwrap().len(), 1);
}
