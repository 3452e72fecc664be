//! Damaged, foreign and newer files: a clear error that names the file and the offset, and never a wrong byte.

use std::sync::Arc;

use everlog::fs::{Access, Fs, SimFs};
use everlog::snapshot::{Import, Retention, ScrubPosition, SnapshotId, Store};
use everlog::{Error, ErrorKind};

use super::small::{config, create, disk, indexes, open, packs, read, state};

/// A disk with one small snapshot, its bytes, and its id.
fn one() -> (SimFs, Vec<u8>, SnapshotId) {
    let disk = disk();
    let bytes = state(1, 700);
    let id = create(&open(&disk), 1, &bytes).snapshot.id;
    (disk, bytes, id)
}

/// Damage is told with the file it is in and an offset.
fn assert_tells(error: &Error, kind: ErrorKind, path: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    let told = error.path().and_then(|path| path.to_str()).unwrap_or_default();
    assert!(told.ends_with(path), "{error} does not name {path}");
    assert!(error.offset().is_some(), "{error} names no offset");
}

/// The store opens and says what is wrong with its only index.
fn assert_index_is_refused(disk: &SimFs, kind: ErrorKind, what: &str) {
    let store = open(disk);
    assert!(store.list().unwrap().is_empty(), "{what}");
    let damage = store.damage();
    assert_eq!(damage.len(), 1, "{what}");
    assert_tells(&damage[0].error, kind, &indexes(disk)[0]);
    assert_eq!(damage[0].snapshots.len(), 1, "{what}: the name tells the id");
    let collected = store.collect(&Retention::new()).unwrap();
    assert!(
        collected.kept_because.is_some() && collected.packs_removed == 0,
        "{what}: {collected:?}"
    );
}

#[test]
fn a_flipped_bit_anywhere_in_an_index_is_told() {
    let (disk, ..) = one();
    let path = indexes(&disk).remove(0);
    let len = disk.files()[&path];
    for at in 0..len {
        for bit in 0..8 {
            disk.flip_bit(&path, at, bit).unwrap();
            assert_index_is_refused(
                &disk.fork(),
                ErrorKind::Damaged,
                &format!("bit {bit} of byte {at}"),
            );
            disk.flip_bit(&path, at, bit).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_pack_is_told() {
    let (disk, bytes, id) = one();
    let path = packs(&disk).remove(0);
    let len = disk.files()[&path];
    assert_eq!(len, 64 + 700, "no byte of a pack means nothing");
    for at in 0..len {
        for bit in 0..8 {
            disk.flip_bit(&path, at, bit).unwrap();
            let disk = disk.fork();
            let store = open(&disk);
            assert_tells(&read(&store, id).unwrap_err(), ErrorKind::Damaged, &path);
            let found = store.verify_all().unwrap();
            let damage = &found.damage[0];
            assert_tells(&damage.error, ErrorKind::Damaged, &path);
            assert_eq!(
                (damage.snapshots.as_slice(), damage.chunk.is_some()),
                (&[id][..], true)
            );
            // With the bytes in hand it can be had anew.
            let second = create(&store, 2, &bytes);
            assert!(second.healed.chunks > 0);
            assert_eq!(read(&store, second.snapshot.id).unwrap(), bytes);
        }
        for bit in 0..8 {
            disk.flip_bit(&path, at, bit).unwrap();
        }
    }
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_told() {
    let (disk, bytes, id) = one();
    for path in [packs(&disk).remove(0), indexes(&disk).remove(0)] {
        for len in 0..disk.files()[&path] {
            let disk = disk.fork();
            let file = disk.open(&path, Access::Write).unwrap();
            file.set_len(len).unwrap();
            file.sync_data().unwrap();
            if path.ends_with(".snap") {
                assert_index_is_refused(&disk, ErrorKind::Damaged, &format!("{len} bytes"));
            } else {
                assert_tells(&read(&open(&disk), id).unwrap_err(), ErrorKind::Damaged, &path);
            }
        }
    }
    assert_eq!(read(&open(&disk), id).unwrap(), bytes);
}

#[test]
fn foreign_files_are_told() {
    let (disk, _, id) = one();
    let (pack, index) = (packs(&disk).remove(0), indexes(&disk).remove(0));
    let contents: [Vec<u8>; 4] = [
        vec![0; 2000],
        state(5, 2000),
        b"PNG".to_vec(),
        disk.read_raw(&pack).unwrap(),
    ];
    for content in contents {
        let disk = disk.fork();
        replace(&disk, &index, &content);
        assert_index_is_refused(&disk, ErrorKind::Damaged, "a foreign index");
    }
    let contents: [Vec<u8>; 3] = [vec![0; 2000], state(5, 2000), disk.read_raw(&index).unwrap()];
    for content in contents {
        let disk = disk.fork();
        replace(&disk, &pack, &content);
        assert_tells(&read(&open(&disk), id).unwrap_err(), ErrorKind::Damaged, &pack);
    }
    // What has no name of ours is nobody's business.
    let disk = disk.fork();
    disk.create("snapshots/README").unwrap();
    let store = open(&disk);
    assert!(store.damage().is_empty());
    store.remove(id).unwrap();
    assert!(disk.files().contains_key("snapshots/README"));
}

fn replace(disk: &SimFs, path: &str, bytes: &[u8]) {
    disk.remove(path).unwrap();
    disk.create(path).unwrap().write_all_at(bytes, 0).unwrap();
}

#[test]
fn files_under_each_others_names_are_told() {
    let disk = disk();
    let store = open(&disk);
    let ids = [1, 2].map(|index| create(&store, index, &state(index, 700)).snapshot.id);
    drop(store);
    let packs = packs(&disk);
    let [one, two] = [&packs[0], &packs[1]].map(|path| disk.read_raw(path).unwrap());
    let swapped = disk.fork();
    replace(&swapped, &packs[0], &two);
    replace(&swapped, &packs[1], &one);
    for id in ids {
        assert_eq!(read(&open(&swapped), id).unwrap_err().kind(), ErrorKind::Damaged);
    }
    let indexes = indexes(&disk);
    let other = disk.read_raw(&indexes[0]).unwrap();
    replace(&disk, &indexes[1], &other);
    let store = open(&disk);
    assert_eq!(store.damage().len(), 1);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn files_of_a_newer_version_are_left_alone() {
    let (disk, bytes, id) = one();
    let (pack, index) = (packs(&disk).remove(0), indexes(&disk).remove(0));
    // Version 2; an unknown feature.
    for at in [12, 16] {
        let newer = disk.fork();
        change(&newer, &index, at, None);
        assert_index_is_refused(&newer, ErrorKind::Unsupported, "a newer index");
        let newer = disk.fork();
        change(&newer, &pack, at, Some(64));
        let store = open(&newer);
        assert_tells(&read(&store, id).unwrap_err(), ErrorKind::Unsupported, &pack);
        assert_eq!(
            store.verify(id).unwrap().damage[0].error.kind(),
            ErrorKind::Unsupported
        );
    }
    // What a reader may ignore it ignores.
    change(&disk, &pack, 24, Some(64));
    change(&disk, &index, 24, None);
    assert_eq!(read(&open(&disk), id).unwrap(), bytes);
}

/// Sets the second bit of the byte at `at`, and the checksum of what comes behind it.
fn change(disk: &SimFs, path: &str, at: usize, header: Option<usize>) {
    let mut bytes = disk.read_raw(path).unwrap();
    bytes[at] ^= 2;
    let end = header.unwrap_or(bytes.len());
    let crc = crc32fast::hash(&bytes[12..end]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    disk.write_raw(path, 0, &bytes).unwrap();
}

#[test]
fn a_missing_pack_is_told_with_the_snapshots_that_need_it() {
    let disk = disk();
    let store = open(&disk);
    let bytes = state(1, 700);
    let first = create(&store, 1, &bytes).snapshot.id;
    let second = create(&store, 2, &bytes).snapshot.id;
    let third = create(&store, 3, &state(3, 700)).snapshot.id;
    drop(store);
    let lost = packs(&disk)
        .into_iter()
        .find(|pack| disk.read_raw(pack).unwrap()[64..70] == bytes[..6])
        .unwrap();
    disk.remove(&lost).unwrap();
    let store = open(&disk);
    for id in [first, second] {
        let error = read(&store, id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert!(error.to_string().contains(&lost), "{error}");
    }
    assert_eq!(read(&store, third).unwrap(), state(3, 700));
    let damage = store.verify_all().unwrap().damage;
    let mut both = [first, second];
    both.sort();
    assert!(damage.iter().all(|damage| damage.snapshots == both), "{damage:?}");
    assert_eq!(
        read(&store, create(&store, 4, &bytes).snapshot.id).unwrap(),
        bytes
    );
}

#[test]
fn a_sector_that_cannot_be_read_is_an_error_and_a_finding() {
    let disk = disk();
    let store = open(&disk);
    let id = create(&store, 1, &state(1, 5000)).snapshot.id;
    let pack = packs(&disk).remove(0);
    disk.set_unreadable(&pack, 4..5, true).unwrap();
    assert_eq!(read(&store, id).unwrap_err().kind(), ErrorKind::Io);
    let found = store.verify(id).unwrap();
    assert!(!found.damage.is_empty() && found.damage.len() < 5, "{found:?}");
    disk.set_unreadable(&pack, 4..5, false).unwrap();
    assert!(store.verify(id).unwrap().damage.is_empty());
}

#[test]
fn an_index_that_the_device_does_not_give_keeps_no_store_closed() {
    let disk = disk();
    let store = open(&disk);
    let [first, second] = [1, 2].map(|index| create(&store, index, &state(index, 5000)).snapshot.id);
    drop(store);
    let mut indexes = indexes(&disk);
    indexes.retain(|path| path.contains(&first.to_string()));
    disk.set_unreadable(&indexes[0], 1..2, true).unwrap();
    let store = open(&disk);
    let damage = store.damage();
    assert_eq!((damage.len(), damage[0].error.kind()), (1, ErrorKind::Io));
    assert_eq!(damage[0].snapshots, [first]);
    assert_eq!(read(&store, second).unwrap(), state(2, 5000));
    let kept_because = store.collect(&Retention::new()).unwrap().kept_because;
    assert_eq!(kept_because.map(|e| e.kind()), Some(ErrorKind::Io));
    drop(store);
    disk.set_unreadable(&indexes[0], 1..2, false).unwrap();
    assert_eq!(
        read(&open(&disk), first).unwrap(),
        state(1, 5000),
        "it may come back"
    );
}

/// Its index was put anew, and the device gives only the one before.
#[test]
fn what_was_removed_does_not_come_back_by_an_index_that_could_not_be_read() {
    let disk = disk();
    let store = open(&disk);
    let id = create(&store, 1, &state(1, 3000)).snapshot.id;
    let mut copy = Vec::new();
    store.export(id, &mut copy, &mut |_, _| {}).unwrap();
    let import = Import::open(&copy[..], "the copy").unwrap();
    let origin = import.snapshot().origin;
    import.into_store(&store, origin, &mut |_, _| {}).unwrap();
    drop(store);
    let [_, later] = &indexes(&disk)[..] else {
        panic!("two generations");
    };
    disk.set_unreadable(later, 0..1, true).unwrap();
    let store = open(&disk);
    assert_eq!((store.list().unwrap().len(), store.damage().len()), (1, 1));
    assert_eq!(store.remove(id).unwrap().removed, [id]);
    assert!(store.damage().is_empty());
    drop(store);
    if disk.files().contains_key(later) {
        disk.set_unreadable(later, 0..1, false).unwrap();
    }
    assert!(open(&disk).list().unwrap().is_empty());
}

#[test]
fn a_scrub_goes_round_within_its_budget_and_finds_what_is_damaged() {
    let disk = disk();
    let store = open(&disk);
    let ids = [1, 2, 3].map(|index| create(&store, index, &state(index, 5000)).snapshot.id);
    disk.flip_bit(&packs(&disk)[1], 2000, 0).unwrap();
    let (mut position, mut read_bytes, mut damage, mut rounds) = (ScrubPosition::default(), 0, Vec::new(), 0);
    loop {
        let scrubbed = store.scrub(position, 1000).unwrap();
        assert!(scrubbed.found.bytes < 1000 + 1024, "{scrubbed:?}");
        read_bytes += scrubbed.found.bytes;
        damage.extend(scrubbed.found.damage);
        position = ScrubPosition::from_bytes(scrubbed.next.to_bytes());
        assert_eq!(position, scrubbed.next);
        rounds += 1;
        if scrubbed.wrapped {
            break;
        }
    }
    assert_eq!((read_bytes, position), (15_000, ScrubPosition::default()));
    assert!(rounds > 7, "{rounds} rounds");
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].snapshots.len(), 1);
    assert!(ids.contains(&damage[0].snapshots[0]));
    let all = store.verify_all().unwrap();
    assert_eq!((all.bytes, all.past_cache, all.damage.len()), (15_000, true, 1));
    assert_eq!(open_view(&disk).verify_all().unwrap().damage.len(), 1);
}

fn open_view(disk: &SimFs) -> Store {
    Store::view_on(Arc::new(disk.clone())).unwrap()
}

#[test]
fn a_full_disk_takes_nothing_with_it() {
    let disk = disk();
    let store = open(&disk);
    let bytes = state(1, 20_000);
    let first = create(&store, 1, &bytes).snapshot;
    let used: u64 = disk.files().values().map(|len| len.next_multiple_of(4096)).sum();
    let mut refused = 0;
    for more in (0..48 << 10).step_by(4096) {
        disk.set_capacity(used + more);
        match super::small::try_create(&store, 2, &state(2, 20_000)) {
            Ok(committed) => {
                assert_eq!(read(&store, committed.snapshot.id).unwrap(), state(2, 20_000));
                assert_eq!(store.list().unwrap().len(), 2);
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}"),
        }
        refused += 1;
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&first));
        assert_eq!(read(&store, first.id).unwrap(), bytes);
        let crashed = disk.crash(more);
        assert_eq!(open(&crashed).list().unwrap(), std::slice::from_ref(&first));
    }
    assert!(refused > 3, "{refused} were refused");
    // Removing needs no room.
    disk.set_capacity(0);
    store.remove(first.id).unwrap();
    drop(store);
    let reopened = Store::open_on(Arc::new(disk.clone()), config()).unwrap();
    assert_eq!(reopened.list().unwrap().len(), 1);
}
