//! Chunks that are stored compressed. `cargo test --features zstd --test snapshot compressed`.

use std::sync::Arc;

use everlog::ErrorKind;
use everlog::snapshot::{Compression, Store};

use super::small::{config, create, disk, open, packs, read, state};

/// Text that has little in it, and then noise.
fn bytes() -> Vec<u8> {
    let lines = (0..400u32).map(|line| format!("account {line} holds 1000 of something\n"));
    let mut bytes: Vec<u8> = lines.collect::<String>().into_bytes();
    bytes.extend(state(1, 5000));
    bytes
}

#[test]
fn chunks_are_compressed_where_that_is_smaller_and_read_by_any_setting() {
    let disk = disk();
    let bytes = bytes();
    let compressing = config().compression(Compression::Zstd(3));
    let store = Store::open_on(Arc::new(disk.clone()), compressing).unwrap();
    let first = create(&store, 1, &bytes).snapshot;
    assert!(first.new_bytes < 5000 + (first.bytes - 5000) / 2, "{first:?}");
    assert_eq!(read(&store, first.id).unwrap(), bytes);
    drop(store);
    let store = open(&disk);
    assert_eq!(read(&store, first.id).unwrap(), bytes);
    assert_eq!(
        create(&store, 2, &bytes).snapshot.new_bytes,
        0,
        "a name is of uncompressed bytes"
    );
}

#[test]
fn a_flipped_bit_of_a_compressed_chunk_is_told_and_allocates_no_more_than_a_chunk() {
    let disk = disk();
    let compressing = config().compression(Compression::Zstd(19));
    let store = Store::open_on(Arc::new(disk.clone()), compressing).unwrap();
    let id = create(&store, 1, &[7; 900]).snapshot.id;
    let pack = packs(&disk).remove(0);
    for at in 64..disk.files()[&pack] {
        for bit in 0..8 {
            disk.flip_bit(&pack, at, bit).unwrap();
            // Not every bit of a frame means something: then the bytes are right.
            match read(&store, id) {
                Ok(found) => assert!(found == [7; 900], "bit {bit} of byte {at}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}"),
            }
            disk.flip_bit(&pack, at, bit).unwrap();
        }
    }
}
