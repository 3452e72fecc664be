//! What a store is for: states go in as streams and come out as they were, and what they share is stored once.

use std::io::{Read, Seek, SeekFrom, Write};

use everlog::ErrorKind;
use everlog::snapshot::{Origin, ReadBack};

use super::small::{config, create, disk, draft, open, read, state};

#[test]
fn a_snapshot_reads_back_as_it_was_written() {
    for len in [0, 1, 63, 64, 1024, 5000, 100_000] {
        let disk = disk();
        let store = open(&disk);
        let bytes = state(1, len);
        let committed = create(&store, 10, &bytes);
        assert_eq!(committed.snapshot.bytes, len);
        assert_eq!(committed.read_back, ReadBack::PastCache);
        assert_eq!(read(&store, committed.snapshot.id).unwrap(), bytes, "{len} bytes");
        drop(store);
        let store = open(&disk);
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&committed.snapshot));
        assert_eq!(
            read(&store, committed.snapshot.id).unwrap(),
            bytes,
            "{len} bytes, reopened"
        );
    }
}

#[test]
fn what_the_caller_says_is_kept() {
    let disk = disk();
    let store = open(&disk);
    let draft = draft(10)
        .origin(Origin::Installed)
        .metadata(&b"members"[..])
        .created_micros(5);
    let mut creation = store.create(draft).unwrap();
    creation.write_all(b"state").unwrap();
    creation.set_digest([9; 32]);
    let snapshot = creation.commit().unwrap().snapshot;
    drop(store);
    let found = open(&disk).get(snapshot.id).unwrap();
    assert_eq!(found, snapshot);
    assert_eq!(
        (
            found.origin,
            &found.metadata[..],
            found.digest,
            found.created_micros
        ),
        (Origin::Installed, &b"members"[..], Some([9; 32]), 5)
    );
}

#[test]
fn what_is_not_committed_is_not_there() {
    let disk = disk();
    let store = open(&disk);
    let mut creation = store.create(draft(1)).unwrap();
    creation.write_all(&state(1, 10_000)).unwrap();
    drop(creation);
    assert!(store.list().unwrap().is_empty());
    assert_eq!(disk.files().len(), 1, "only the lock: {:?}", disk.files());
}

#[test]
fn a_reader_seeks() {
    let store = open(&disk());
    let bytes = state(3, 20_000);
    let mut reader = store.reader(create(&store, 1, &bytes).snapshot.id).unwrap();
    for at in [0, 1, 19_999, 7000, 64, 12_345] {
        assert_eq!(reader.seek(SeekFrom::Start(at)).unwrap(), at);
        let mut some = vec![0; 100.min(20_000 - usize::try_from(at).unwrap())];
        reader.read_exact(&mut some).unwrap();
        let at = usize::try_from(at).unwrap();
        assert_eq!(some, &bytes[at..at + some.len()]);
    }
    assert_eq!(reader.seek(SeekFrom::End(-5)).unwrap(), 19_995);
    assert_eq!(reader.seek(SeekFrom::Current(100)).unwrap(), 20_095);
    assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0);
    assert!(reader.seek(SeekFrom::Current(-30_000)).is_err());
}

#[test]
fn what_two_states_share_is_stored_once() {
    let store = open(&disk());
    let mut bytes = state(4, 200_000);
    let first = create(&store, 1, &bytes);
    assert_eq!(first.snapshot.new_bytes, 200_000);
    bytes[100_000..102_000].copy_from_slice(&state(5, 2000));
    let second = create(&store, 2, &bytes);
    assert!(second.snapshot.new_bytes < 6000, "{second:?}");
    assert_eq!(second.shared.bytes + second.snapshot.new_bytes, 200_000);
    assert_eq!(read(&store, second.snapshot.id).unwrap(), bytes);
    let zeros = create(&store, 3, &[0; 50_000]);
    assert!(
        zeros.snapshot.new_bytes <= 2048,
        "a state shares with itself: {zeros:?}"
    );
}

#[test]
fn settings_out_of_their_limits_are_refused() {
    let bad = [
        config().chunk_bytes(63, 256, 1024),
        config().chunk_bytes(512, 256, 1024),
        config().chunk_bytes(64, 256, 17 << 20),
        config().rewrite_below_percent(101),
    ];
    for config in bad {
        let opened = everlog::snapshot::Store::open_on(std::sync::Arc::new(disk()), config.clone());
        assert_eq!(
            opened.err().map(|e| e.kind()),
            Some(ErrorKind::Invalid),
            "{config:?}"
        );
    }
}

#[cfg(not(feature = "zstd"))]
#[test]
fn compression_that_this_build_lacks_is_refused() {
    let config = config().compression(everlog::snapshot::Compression::Zstd(3));
    let opened = everlog::snapshot::Store::open_on(std::sync::Arc::new(disk()), config);
    assert_eq!(opened.err().map(|e| e.kind()), Some(ErrorKind::Unsupported));
}
