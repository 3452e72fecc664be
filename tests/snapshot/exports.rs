//! Exports: a snapshot goes through a file and is the same on the other side; whatever is wrong with the file is told with its name
//! and the offset, and nothing of it is taken in.

use std::io::Write;

use everlog::snapshot::{ChunkName, Draft, Import, Origin, SnapshotId, Store};
use everlog::{EntryId, Error, ErrorKind};

use super::small::{LOG, config, create, disk, open, packs, read, state};

/// An export of a state that has a chunk twice, with metadata and a digest.
fn exported() -> (Vec<u8>, SnapshotId, Vec<u8>) {
    let store = open(&disk());
    let block = state(1, 400);
    let bytes = [&block[..], &state(2, 100), &block].concat();
    let draft = Draft::new(LOG, EntryId::new(3, 9))
        .metadata(&b"members"[..])
        .digest([7; 32]);
    let mut creation = store.create(draft).unwrap();
    for chunk in [&block[..], &state(2, 100), &block] {
        let name = ChunkName(*blake3::hash(chunk).as_bytes());
        creation.append_chunk(&name, chunk).unwrap();
    }
    let id = creation.commit().unwrap().snapshot.id;
    let mut file = Vec::new();
    let mut told = Vec::new();
    let snapshot = store
        .export(id, &mut file, &mut |done, of| told.push((done, of)))
        .unwrap();
    assert_eq!(snapshot.id, id);
    let len = file.len() as u64;
    assert_eq!(told.last(), Some(&(len, len)));
    assert_eq!(
        file.len(),
        64 + 192 + 3 * 64 + 7 + 500,
        "what comes twice is written once"
    );
    (file, id, bytes)
}

fn import(store: &Store, file: &[u8]) -> everlog::Result<SnapshotId> {
    let import = Import::open(file, "some.export")?;
    let committed = import.into_store(store, Origin::Installed, &mut |_, _| {})?;
    Ok(committed.snapshot.id)
}

fn assert_tells(error: &Error, kind: ErrorKind, what: &str) {
    assert_eq!(error.kind(), kind, "{what}: {error:?}");
    assert!(error.to_string().contains("some.export"), "{what}: {error}");
    assert!(error.offset().is_some(), "{what}: {error}");
}

#[test]
fn a_snapshot_is_the_same_on_the_other_side() {
    let (file, id, bytes) = exported();
    let there = disk();
    let store = open(&there);
    assert_eq!(import(&store, &file).unwrap(), id);
    let list = store.list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(
        (&list[0].metadata[..], list[0].digest),
        (&b"members"[..], Some([7; 32]))
    );
    assert_eq!(
        (list[0].origin, list[0].covers),
        (Origin::Installed, EntryId::new(3, 9))
    );
    assert_eq!(read(&store, id).unwrap(), bytes);
    let mut again = Vec::new();
    store.export(id, &mut again, &mut |_, _| {}).unwrap();
    let places = |file: &[u8]| Import::open(file, "x").unwrap().total_bytes();
    assert_eq!(places(&again), places(&file));
}

#[test]
fn an_empty_state_is_exported_too() {
    let store = open(&disk());
    let id = create(&store, 1, b"").snapshot.id;
    let mut file = Vec::new();
    store.export(id, &mut file, &mut |_, _| {}).unwrap();
    assert_eq!(import(&open(&disk()), &file).unwrap(), id);
}

#[test]
fn an_export_that_is_cut_short_anywhere_is_refused_where_it_ends() {
    let (file, ..) = exported();
    let there = disk();
    let store = open(&there);
    for len in 1..file.len() {
        let error = import(&store, &file[..len]).unwrap_err();
        assert_tells(&error, ErrorKind::Damaged, &format!("{len} bytes"));
        assert_eq!(error.offset(), Some(len as u64), "{error}");
    }
    assert!(store.list().unwrap().is_empty());
    assert!(packs(&there).is_empty(), "nothing is left behind");
    let error = import(&store, &[&file[..], b"x"].concat()).unwrap_err();
    assert_tells(&error, ErrorKind::Damaged, "a byte more");
    assert_eq!(error.offset(), Some(file.len() as u64));
}

#[test]
fn no_flipped_bit_of_an_export_is_taken_in() {
    let (file, ..) = exported();
    let store = open(&disk());
    for at in 0..file.len() {
        let mut bytes = file.clone();
        bytes[at] ^= 1 << (at % 8);
        let expected = if at < 8 {
            ErrorKind::Invalid
        } else {
            ErrorKind::Damaged
        };
        assert_tells(
            &import(&store, &bytes).unwrap_err(),
            expected,
            &format!("byte {at}"),
        );
    }
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn what_is_foreign_or_newer_is_told_as_that() {
    let store = open(&disk());
    for foreign in [&b""[..], b"#!/bin/sh", &[0; 4096], &state(1, 5000)] {
        let error = import(&store, foreign).unwrap_err();
        assert_tells(&error, ErrorKind::Invalid, "foreign");
    }
    let (mut file, ..) = exported();
    file[12] = 2;
    let crc = crc32fast::hash(&file[12..64]);
    file[8..12].copy_from_slice(&crc.to_le_bytes());
    assert_tells(
        &import(&store, &file).unwrap_err(),
        ErrorKind::Unsupported,
        "newer",
    );
}

#[test]
fn an_import_makes_good_what_is_damaged_here() {
    let (file, id, bytes) = exported();
    let there = disk();
    import(&open(&there), &file).unwrap();
    there.flip_bit(&packs(&there)[0], 100, 3).unwrap();
    assert!(read(&open(&there), id).is_err());
    let store = open(&there);
    let committed = Import::open(&file[..], "some.export")
        .unwrap()
        .into_store(&store, Origin::Installed, &mut |_, _| {})
        .unwrap();
    assert_eq!(committed.healed.chunks, 1);
    assert_eq!(read(&store, id).unwrap(), bytes);
    drop(store);
    let store = Store::open_on(std::sync::Arc::new(there.clone()), config()).unwrap();
    assert_eq!(
        (read(&store, id).unwrap(), store.list().unwrap().len()),
        (bytes, 1)
    );
}

/// A sink that takes so many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => self.0 = left,
            None => return Err(std::io::ErrorKind::StorageFull.into()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_an_export() {
    let store = open(&disk());
    let id = create(&store, 1, &state(1, 3000)).snapshot.id;
    let error = store.export(id, &mut Full(1000), &mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let missing = store.export(SnapshotId([1; 32]), &mut Full(1000), &mut |_, _| {});
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}
