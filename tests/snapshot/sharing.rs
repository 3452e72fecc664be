//! A chunk is shared only on proof.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use everlog::fs::{Access, Fault, FaultFs, Fs, Kept, Op, Rule, SimFs};
use everlog::snapshot::{Draft, Store};
use everlog::{EntryId, ErrorKind, LogKey};

use super::small::{config, create, disk, draft, open, packs, read, state, try_create};

const LEN: u64 = 20_000;

/// A disk with one snapshot, whose store has been closed.
fn one() -> (SimFs, Vec<u8>) {
    let disk = disk();
    let bytes = state(1, LEN);
    create(&open(&disk), 1, &bytes);
    (disk, bytes)
}

#[test]
fn a_sound_chunk_is_shared_by_a_later_life() {
    let (disk, bytes) = one();
    let second = create(&open(&disk), 2, &bytes);
    assert_eq!(
        (
            second.snapshot.new_bytes,
            second.shared.bytes,
            second.healed.chunks
        ),
        (0, LEN, 0)
    );
}

#[test]
fn a_rotten_chunk_is_stored_anew_from_the_bytes_in_hand() {
    let (disk, bytes) = one();
    disk.flip_bit(&packs(&disk)[0], 5000, 3).unwrap();
    let store = open(&disk);
    let second = create(&store, 2, &bytes);
    assert_eq!(second.healed.chunks, 1);
    assert_eq!(second.snapshot.new_bytes, second.healed.bytes);
    assert_eq!(second.shared.bytes + second.healed.bytes, LEN);
    for snapshot in store.list().unwrap() {
        assert_eq!(
            read(&store, snapshot.id).unwrap(),
            bytes,
            "both read the good copy"
        );
    }
    drop(store);
    let store = open(&disk);
    assert_eq!(
        read(&store, second.snapshot.id).unwrap(),
        bytes,
        "and so does the next life"
    );
    let third = create(&store, 3, &bytes);
    assert_eq!(third.healed.chunks, 0, "the good copy is the one that is shared");
}

#[test]
fn a_chunk_that_its_pack_cuts_short_is_stored_anew() {
    let (disk, bytes) = one();
    let pack = packs(&disk).remove(0);
    let file = disk.open(&pack, Access::Write).unwrap();
    file.set_len(file.len().unwrap() - 1).unwrap();
    file.sync_data().unwrap();
    let store = open(&disk);
    let second = create(&store, 2, &bytes);
    assert_eq!(second.healed.chunks, 1);
    assert_eq!(read(&store, second.snapshot.id).unwrap(), bytes);
}

#[test]
fn a_chunk_that_only_memory_holds_is_not_shared() {
    let disk = disk();
    let bytes = state(1, LEN);
    // The pack is not synced, and nothing is read back.
    let lying = FaultFs::new(Arc::new(disk.clone()));
    lying.add(Rule::on(Op::SyncData, Fault::Skip).path(".pack").forever());
    let store = Store::open_on(Arc::new(lying), config().read_back(false)).unwrap();
    create(&store, 1, &bytes);
    drop(store);
    // The system gives up writing it: memory has it, and the device never will.
    disk.fail_writeback(&packs(&disk)[0], Kept::Nothing).unwrap();
    let store = open(&disk);
    let second = create(&store, 2, &bytes);
    assert_eq!((second.shared.chunks, second.healed.bytes), (0, LEN));
    drop(store);
    let store = open(&disk.crash(1));
    assert_eq!(read(&store, second.snapshot.id).unwrap(), bytes);
}

#[test]
fn a_chunk_of_a_creation_that_may_yet_fail_is_not_shared() {
    let disk = disk();
    let store = open(&disk);
    let bytes = state(1, LEN);
    let mut first = store.create(draft(1)).unwrap();
    first.write_all(&bytes).unwrap();
    let second = create(&store, 2, &bytes);
    assert_eq!(second.shared.chunks, 0);
    drop(first);
    assert_eq!(read(&store, second.snapshot.id).unwrap(), bytes);
    drop(store);
    assert_eq!(read(&open(&disk.crash(1)), second.snapshot.id).unwrap(), bytes);
}

#[test]
fn trust_ends_with_its_time() {
    let bytes = state(1, LEN);
    for (time, healed) in [(Duration::from_secs(3600), 0), (Duration::from_secs(60), 1)] {
        let disk = disk();
        let store = Store::open_on(Arc::new(disk.clone()), config().trusted_for(time)).unwrap();
        create(&store, 1, &bytes);
        disk.flip_bit(&packs(&disk)[0], 5000, 3).unwrap();
        disk.advance(Duration::from_secs(600));
        let second = create(&store, 2, &bytes);
        assert_eq!(second.healed.chunks, healed, "trusted for {time:?}");
    }
}

#[test]
fn what_is_found_damaged_is_not_shared_although_it_was_trusted() {
    let disk = disk();
    let store = open(&disk);
    let bytes = state(1, LEN);
    let first = create(&store, 1, &bytes);
    disk.flip_bit(&packs(&disk)[0], 5000, 3).unwrap();
    assert_eq!(store.verify(first.snapshot.id).unwrap().damage.len(), 1);
    assert_eq!(create(&store, 2, &bytes).healed.chunks, 1);
}

#[test]
fn what_does_not_read_back_is_not_committed() {
    let disk = disk();
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let store = Store::open_on(Arc::new(fs.clone()), config()).unwrap();
    let first = create(&store, 1, &state(1, LEN)).snapshot;
    for (path, byte) in [(".pack", 70), (".pack", 19_000), (".snap", 40), (".snap", 1000)] {
        fs.add(Rule::on(Op::Write, Fault::FlipBit { byte, bit: 0 }).path(path));
        let error = try_create(&store, 2, &state(2, LEN)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&first));
    }
    drop(store);
    let store = open(&disk);
    assert_eq!(store.list().unwrap(), [first]);
    assert!(store.damage().is_empty());
}

#[test]
fn a_copy_by_chunks_has_the_same_id_and_needs_only_what_is_new() {
    let (here, there) = (disk(), disk());
    let (source, target) = (open(&here), open(&there));
    let mut bytes = state(1, LEN);
    create(&target, 1, &bytes);
    bytes[10_000..10_100].copy_from_slice(&state(2, 100));
    let original = create(&source, 5, &bytes).snapshot;
    let mut reader = source.reader(original.id).unwrap();
    let chunks: Vec<_> = reader.chunks().collect();
    let draft = Draft::new(LogKey(7), EntryId::new(1, 5)).created_micros(original.created_micros);
    let mut creation = target.create(draft).unwrap();
    let mut sent = 0;
    for (number, chunk) in chunks.iter().enumerate() {
        if !creation.append_known(&chunk.name).unwrap() {
            let bytes = reader.chunk(number).unwrap();
            sent += bytes.len();
            creation.append_chunk(&chunk.name, &bytes).unwrap();
        }
    }
    let copy = creation.commit().unwrap().snapshot;
    assert_eq!(copy.id, original.id);
    assert!(sent > 0 && sent < 4000, "{sent} bytes were sent");
    assert_eq!(read(&target, copy.id).unwrap(), bytes);
}

#[test]
fn a_chunk_under_a_wrong_name_is_refused() {
    let store = open(&disk());
    let original = create(&store, 1, &state(1, 500)).snapshot;
    let name = store.reader(original.id).unwrap().chunks().next().unwrap().name;
    let mut creation = store.create(draft(2)).unwrap();
    let error = creation.append_chunk(&name, b"something else").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        creation.append_known(&name).unwrap(),
        "nothing was done, and it goes on"
    );
}

#[test]
fn the_same_snapshot_again_takes_the_place_of_the_first() {
    let disk = disk();
    let store = open(&disk);
    let bytes = state(1, LEN);
    let make = |store: &Store| {
        let mut creation = store.create(draft(1).created_micros(7)).unwrap();
        creation.write_all(&bytes).unwrap();
        creation.commit().unwrap().snapshot
    };
    let first = make(&store);
    disk.flip_bit(&packs(&disk)[0], 5000, 3).unwrap();
    drop(store);
    let store = open(&disk);
    assert_eq!(make(&store).id, first.id);
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(store.verify_all().unwrap().damage.is_empty(), "it was healed");
    drop(store);
    assert_eq!(read(&open(&disk), first.id).unwrap(), bytes);
}

/// The creation shares the chunk while it is sound. Then that rots, and is stored anew for another one.
#[test]
fn a_commit_does_not_forget_where_the_good_copy_of_a_chunk_is() {
    let disk = disk();
    let store = open(&disk);
    let bytes = state(1, 700);
    let first = create(&store, 1, &bytes).snapshot.id;
    let mut late = store.create(draft(3)).unwrap();
    for chunk in store.reader(first).unwrap().chunks() {
        assert!(late.append_known(&chunk.name).unwrap());
    }
    disk.flip_bit(&packs(&disk)[0], 80, 0).unwrap();
    assert_eq!(store.verify(first).unwrap().damage.len(), 1);
    let second = create(&store, 2, &bytes);
    assert_eq!(second.healed.chunks, 1);
    let late = late.commit().unwrap().snapshot.id;
    for id in [first, second.snapshot.id, late] {
        assert_eq!(read(&store, id).unwrap(), bytes);
    }
}
