//! The bytes of format version 1, which no change may move: `tests/golden/v1/*.hex`, made by another program than this.

use std::path::Path;

use super::*;

/// The bytes of a file of hexadecimal numbers; `#` begins a comment.
pub(super) fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/v1")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let numbers = text
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::split_whitespace);
    numbers.map(|n| u8::from_str_radix(n, 16).unwrap()).collect()
}

/// Compares bytes; says where they begin to differ.
pub(super) fn assert_bytes(name: &str, bytes: &[u8]) {
    let golden = golden(name);
    let differs = golden.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{name}: the offset of the first byte that changed");
    assert_eq!(golden.len(), bytes.len(), "{name}: length");
}

#[test]
fn the_bytes_of_an_opening_do_not_change() {
    let opening = Opening {
        carry_len: 4096,
        carry_crc: 0x0102_0304,
        ..opening()
    };
    assert_bytes("opening.hex", &opening.encode());
    assert_eq!(Opening::decode(&golden("opening.hex")), Ok(opening.clone()));
    assert_eq!(opening.chain().to_le_bytes(), golden("opening.hex")[8..12]);
}

#[test]
fn the_bytes_of_a_batch_do_not_change() {
    let term = Term((3 << 64) + 2);
    let entry = Made {
        index: 10,
        incarnation: 5,
        term,
        payload: b"hello".to_vec(),
        ..one()
    };
    let vote = Made {
        kind: Kind::Cell,
        cell: 2,
        index: 0,
        incarnation: 5,
        term: Term(0),
        payload: b"vote".to_vec(),
        ..one()
    };
    let (header, bytes) = encode(&batch_spec(), &[entry.clone(), vote.clone()]);
    assert_bytes("batch.hex", &bytes);

    let golden = golden("batch.hex");
    assert_eq!(BatchHeader::decode(&golden), Ok(header));
    let frames = decode_tables(&header, &golden[BATCH_HEADER_LEN..]).unwrap();
    let indexes: Vec<_> = frames
        .iter()
        .map(|f| (f.kind, f.cell, f.index, f.term, f.len, f.payload_at))
        .collect();
    let expected = [
        (Kind::Append, 0, 10, term, 5, 112),
        (Kind::Cell, 2, 0, Term(0), 4, 69),
    ];
    assert_eq!(indexes, expected);
    assert_eq!(frames[0].check_payload(&golden[208..213]), Ok(()));
    assert_eq!(frames[1].check_payload(&golden[213..217]), Ok(()));
}

#[test]
fn the_bytes_of_a_mark_do_not_change() {
    let spec = BatchSpec {
        offset: 12_288,
        sequence: 1003,
        durable_through: 1002,
        flags: Flags::MARK | Flags::CLOSING,
        ..batch_spec()
    };
    let (header, bytes) = encode(&spec, &[]);
    assert_bytes("mark.hex", &bytes);
    assert_eq!(BatchHeader::decode(&golden("mark.hex")), Ok(header));
}

#[test]
fn the_bytes_of_an_index_do_not_change() {
    let (bytes, expected) = index::sample();
    assert_bytes("index.hex", &bytes);
    let golden = golden("index.hex");
    let index = Index::decode_summary(&golden).unwrap();
    assert_eq!(index.ops, expected);
    let IndexOp::Run(run) = &index.ops[1] else {
        panic!("{:?}", index.ops[1]);
    };
    let at = usize::try_from(run.block_at).unwrap();
    let places = decode_block(&golden[at..], run.block_crc, run.count).unwrap();
    let entries: Vec<u64> = places.into_iter().map(header_of).collect();
    assert_eq!(entries, [header_at(BATCHES_AT, 1), header_at(BATCHES_AT, 2)]);
}

/// Computed by another program from the words of the definition.
#[test]
fn the_digest_of_an_entry_does_not_change() {
    assert_eq!(digest(0, Term(0), 0), 0x2130_748a_aac8_0268);
    let term = Term((3 << 64) + 2);
    assert_eq!(digest(10, term, payload_crc(b"hello")), 0xda48_03ca_b153_d61c);
    assert_eq!(
        digest(u64::MAX - 1, Term(u128::MAX), u32::MAX),
        0x18e4_a4a7_fad8_773c
    );
}
