//! Packs, indexes, pins and exports of snapshots: their bytes do not change, what is encoded is decoded, what was changed is refused.

use bytes::Bytes;

use super::golden::{assert_bytes, golden};
use super::*;
use crate::format::snapshot::{ChunkPlace, Codec, ExportHeader, PackHeader, SnapshotIndex, SnapshotPin};

const PACK: u64 = 0x0123_4567_89ab_cdef;

/// What stands in `snapshot_index.hex`.
fn index() -> SnapshotIndex {
    let place = |bytes: &[u8], pack, offset, stored_len: Option<u32>| {
        let len = u32::try_from(bytes.len()).unwrap();
        ChunkPlace {
            name: *blake3::hash(bytes).as_bytes(),
            pack,
            offset,
            stored_len: stored_len.unwrap_or(len),
            len,
            codec: stored_len.map_or(Codec::Raw, |_| Codec::Zstd),
        }
    };
    let index = SnapshotIndex {
        id: [0; 32],
        generation: 3,
        origin: 2,
        log: LogKey(7),
        covers: EntryId::new((3 << 64) + 2, 1000),
        created: 1_700_000_000_000_000,
        len: 305,
        new_len: 80,
        digest: Some([0x5a; 32]),
        metadata: Bytes::from_static(b"members"),
        chunks: vec![
            place(&[b'a'; 300], PACK, 64, Some(80)),
            place(b"hello", 9, 4096, None),
        ],
    };
    named(index)
}

fn named(mut index: SnapshotIndex) -> SnapshotIndex {
    index.id = index.compute_id();
    index
}

#[test]
fn the_bytes_of_an_index_of_a_snapshot_do_not_change() {
    assert_bytes("snapshot_index.hex", &index().encode());
    assert_eq!(SnapshotIndex::decode(&golden("snapshot_index.hex")), Ok(index()));
}

#[test]
fn the_bytes_of_a_pack_header_do_not_change() {
    let header = PackHeader {
        compat: 4,
        number: PACK,
    };
    assert_bytes("pack.hex", &header.encode());
    assert_eq!(PackHeader::decode(&golden("pack.hex")), Ok(header));
}

/// What stands in `snapshot_pin.hex`.
fn pin() -> SnapshotPin {
    SnapshotPin {
        id: std::array::from_fn(|at| u8::try_from(at).unwrap()),
        generation: 3,
        created: 1_700_000_000_000_000,
        expires: 1_700_000_600_000_000,
        owner: "backup".to_owned(),
    }
}

#[test]
fn the_bytes_of_a_pin_do_not_change() {
    assert_bytes("snapshot_pin.hex", &pin().encode());
    assert_eq!(SnapshotPin::decode(&golden("snapshot_pin.hex")), Ok(pin()));
}

#[test]
fn no_flipped_bit_of_a_pin_passes() {
    let good = pin().encode();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let expected = if at < 8 { Bad::Magic } else { Bad::Crc };
            let decoded = SnapshotPin::decode(&bytes);
            assert_eq!(decoded, Err(expected), "bit {bit} of byte {at}");
        }
    }
    for len in 0..good.len() {
        assert!(SnapshotPin::decode(&good[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(SnapshotPin::decode(&[0; 150]), Err(Bad::Blank));
}

#[test]
fn a_pin_of_impossible_values_is_refused_by_name() {
    let cases: [(usize, &[u8], Bad); 7] = [
        (12, &[2], Bad::Version(2)),
        (14, &[1], Bad::Field("zero")),
        (16, &[1], Bad::Features(1)),
        (88, &[1], Bad::Field("key_id")),
        (104, &[1], Bad::Field("zero")),
        (112, &[0xff], Bad::Field("owner")),
        (118, &[b'a'; 250], Bad::Field("owner")),
    ];
    for (at, value, expected) in cases {
        let mut bytes = pin().encode();
        bytes.resize(bytes.len().max(at + value.len()), 0);
        bytes[at..at + value.len()].copy_from_slice(value);
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SnapshotPin::decode(&bytes), Err(expected), "{value:?} at {at}");
    }
}

#[test]
fn the_bytes_of_the_header_of_an_export_do_not_change() {
    let header = ExportHeader { index_len: 320 };
    assert_bytes("export.hex", &header.encode());
    let good = golden("export.hex");
    assert_eq!(ExportHeader::decode(&good), Ok(header));
    for at in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let expected = if at < 64 { Bad::Magic } else { Bad::Crc };
        assert_eq!(ExportHeader::decode(&bytes), Err(expected), "bit {at}");
    }
    for len in 0..good.len() {
        assert_eq!(
            ExportHeader::decode(&good[..len]),
            Err(if len == 0 { Bad::Blank } else { Bad::Short })
        );
    }
}

#[test]
fn an_export_header_with_bytes_where_none_belong_is_refused() {
    for (at, field) in [
        (14, "zero"),
        (15, "zero"),
        (40, "key_id"),
        (55, "key_id"),
        (56, "zero"),
        (63, "zero"),
    ] {
        let mut bytes = ExportHeader { index_len: 320 }.encode();
        bytes[at] = 1;
        let crc = crc32fast::hash(&bytes[12..]).to_le_bytes();
        bytes[8..12].copy_from_slice(&crc);
        assert_eq!(ExportHeader::decode(&bytes), Err(Bad::Field(field)), "byte {at}");
    }
}

#[test]
fn an_export_has_each_chunk_once_and_in_order() {
    let mut index = index();
    index.chunks.push(index.chunks[0]);
    index.len += 300;
    let mut index = named(index);
    assert_eq!(index.check_export(), Err(Bad::Field("places")));
    let from = 64 + index.encode().len() as u64;
    assert_eq!(index.place_in_export(), from + 305);
    let offsets: Vec<u64> = index.chunks.iter().map(|place| place.offset).collect();
    assert_eq!(offsets, [from, from + 300, from]);
    assert_eq!(index.check_export(), Ok(from + 305));
    assert_eq!(SnapshotIndex::decode(&index.encode()), Ok(index));
}

#[test]
fn no_flipped_bit_of_an_index_of_a_snapshot_passes() {
    let good = index().encode();
    // Miri is slow.
    for at in (0..good.len()).step_by(if cfg!(miri) { 23 } else { 1 }) {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let expected = if at < 8 { Bad::Magic } else { Bad::Crc };
            assert_eq!(
                SnapshotIndex::decode(&bytes),
                Err(expected),
                "bit {bit} of byte {at}"
            );
        }
    }
}

#[test]
fn an_index_of_a_snapshot_that_is_too_short_or_too_long_is_refused() {
    let good = index().encode();
    for len in 0..good.len() {
        assert!(SnapshotIndex::decode(&good[..len]).is_err(), "{len} bytes");
    }
    assert!(SnapshotIndex::decode(&[&good[..], &[0]].concat()).is_err());
    assert_eq!(SnapshotIndex::decode(&[0; 500]), Err(Bad::Blank));
}

#[test]
fn under_a_right_checksum_impossible_values_are_refused_by_name() {
    let cases: [(usize, &[u8], Bad); 18] = [
        (12, &[2], Bad::Version(2)),
        (16, &[1], Bad::Features(1)),
        (14, &[0], Bad::Field("origin")),
        (14, &[4], Bad::Field("origin")),
        (15, &[3], Bad::Field("flags")),
        (15, &[0], Bad::Field("digest")),
        (32, &[1], Bad::Field("id")),
        (104, &[1], Bad::Field("id")),
        (112, &[1], Bad::Field("len")),
        (160, &[1], Bad::Field("key_id")),
        (176, &[255; 4], Bad::Field("chunks")),
        (176, &[1], Bad::Field("metadata_len")),
        (180, &[255; 4], Bad::Field("metadata_len")),
        (184, &[1], Bad::Field("zero")),
        (192 + 32, &[0; 8], Bad::Field("pack")),
        (192 + 40, &[63], Bad::Field("offset")),
        (192 + 56, &[2], Bad::Field("codec")),
        (192 + 48, &300u32.to_le_bytes(), Bad::Field("stored_len")),
    ];
    for (at, value, expected) in cases {
        let mut bytes = index().encode();
        bytes[at..at + value.len()].copy_from_slice(value);
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SnapshotIndex::decode(&bytes), Err(expected), "{value:?} at {at}");
    }
}

#[test]
fn under_a_right_checksum_a_pack_header_that_says_something_impossible_is_refused_by_name() {
    let cases: [(usize, &[u8], Bad); 6] = [
        (12, &[2], Bad::Version(2)),
        (14, &[1], Bad::Field("zero")),
        (16, &[1], Bad::Features(1)),
        (32, &[0; 8], Bad::Field("number")),
        (40, &[1], Bad::Field("key_id")),
        (56, &[1], Bad::Field("zero")),
    ];
    for (at, value, expected) in cases {
        let mut bytes = PackHeader { compat: 0, number: 1 }.encode();
        bytes[at..at + value.len()].copy_from_slice(value);
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(PackHeader::decode(&bytes), Err(expected), "{value:?} at {at}");
    }
}

/// A copy elsewhere, at other places and from another origin, is the same snapshot; one of anything else is not.
#[test]
fn the_id_covers_what_a_snapshot_is_and_not_where_it_lies() {
    let id = index().id;
    let mut elsewhere = index();
    (elsewhere.generation, elsewhere.origin, elsewhere.new_len) = (9, 1, 0);
    (elsewhere.chunks[1].pack, elsewhere.chunks[1].offset) = (5, 70);
    (elsewhere.chunks[0].codec, elsewhere.chunks[0].stored_len) = (Codec::Raw, 300);
    assert_eq!(elsewhere.compute_id(), id);
    let others: [fn(&mut SnapshotIndex); 8] = [
        |index| index.log = LogKey(8),
        |index| index.covers.term = Term(1),
        |index| index.covers.index += 1,
        |index| index.created += 1,
        |index| index.digest = Some([0; 32]),
        |index| index.digest = None,
        |index| index.metadata = Bytes::from_static(b"other"),
        |index| index.chunks.swap(0, 1),
    ];
    for (number, change) in others.iter().enumerate() {
        let mut index = index();
        change(&mut index);
        assert_ne!(index.compute_id(), id, "change {number}");
    }
}

prop_compose! {
    fn places()(
        name in any::<[u8; 32]>(),
        pack in 1u64..,
        offset in 64u64..1 << 40,
        len in 2u32..=16 << 20,
        less in any::<u32>(),
        raw in any::<bool>(),
    ) -> ChunkPlace {
        let stored_len = if raw { len } else { 1 + less % (len - 1) };
        let codec = if raw { Codec::Raw } else { Codec::Zstd };
        ChunkPlace { name, pack, offset, stored_len, len, codec }
    }
}

prop_compose! {
    fn indexes()(
        chunks in vec(places(), 0..20),
        (generation, log, term, at) in any::<(u64, u64, u128, u64)>(),
        (created, new_len) in any::<(u64, u64)>(),
        origin in 1u8..=3,
        digest in any::<Option<[u8; 32]>>(),
        metadata in vec(any::<u8>(), 0..PAYLOAD),
    ) -> SnapshotIndex {
        let len = chunks.iter().map(|place| u64::from(place.len)).sum();
        let covers = EntryId::new(term, at);
        let (log, metadata) = (LogKey(log), metadata.into());
        let id = [0; 32];
        named(SnapshotIndex { id, generation, origin, log, covers, created, len, new_len, digest, metadata, chunks })
    }
}

proptest! {
    #[test]
    fn an_index_of_a_snapshot_is_decoded_as_it_was_encoded(index in indexes()) {
        prop_assert_eq!(SnapshotIndex::decode(&index.encode()), Ok(index));
    }

    #[test]
    fn a_pack_header_is_decoded_as_it_was_encoded(compat in any::<u64>(), number in 1u64..) {
        let header = PackHeader { compat, number };
        prop_assert_eq!(PackHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn a_pin_is_decoded_as_it_was_encoded(
        id in any::<[u8; 32]>(),
        (generation, created, expires) in any::<(u64, u64, u64)>(),
        owner in "[a-z\u{e4}]{1,100}",
    ) {
        let pin = SnapshotPin { id, generation, created, expires, owner };
        prop_assert_eq!(SnapshotPin::decode(&pin.encode()), Ok(pin));
    }

    #[test]
    fn any_bytes_are_an_index_of_a_snapshot_or_refused(
        mut bytes in vec(any::<u8>(), 0..600),
        chunks in 0u32..8,
        metadata_len in 0u32..100,
    ) {
        let _ = SnapshotIndex::decode(&bytes);
        let _ = PackHeader::decode(&bytes);
        let _ = SnapshotPin::decode(&bytes);
        if bytes.len() >= 192 {
            bytes[..8].copy_from_slice(b"EVERLOGX");
            bytes[12..14].copy_from_slice(&[1, 0]);
            bytes[16..24].fill(0);
            bytes[176..180].copy_from_slice(&chunks.to_le_bytes());
            bytes[180..184].copy_from_slice(&metadata_len.to_le_bytes());
            let crc = crc32fast::hash(&bytes[12..]);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            let _ = SnapshotIndex::decode(&bytes);
        }
    }
}
