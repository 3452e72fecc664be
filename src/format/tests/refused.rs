//! Changed bytes are refused, and what is unknown is refused with the right word, even under a checksum that matches.

use super::*;

/// How far apart the bits are that are flipped. Miri is slow.
const STRIDE: usize = if cfg!(miri) { 61 } else { 1 };

/// Writes `value` at `at` and makes the opening's checksum match again.
fn change_opening(opening: &Opening, at: usize, value: &[u8]) -> [u8; OPENING_LEN] {
    let mut bytes = opening.encode();
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The same for the header of a batch.
fn change_header(header: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = header[..BATCH_HEADER_LEN].to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The same for a frame header of the term.
fn change_frame(frame: &[u8], term: Term, at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = frame[..FRAME_HEADER_LEN].to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    let mut salted = SALT.to_le_bytes().to_vec();
    salted.extend_from_slice(&term.0.to_le_bytes());
    salted.extend_from_slice(&bytes[4..]);
    let crc = crc32fast::hash(&salted);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn no_flipped_bit_of_an_opening_passes() {
    let good = opening().encode();
    for bit in (0..good.len() * 8).step_by(STRIDE) {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 64 { Bad::Magic } else { Bad::Crc };
        assert_eq!(Opening::decode(&bytes), Err(expected), "bit {bit}");
    }
    for len in (0..good.len()).step_by(STRIDE) {
        assert_eq!(Opening::decode(&good[..len]), Err(Bad::Short), "{len}");
    }
    assert_eq!(Opening::decode(&[0; OPENING_LEN]), Err(Bad::Blank));
}

#[test]
fn what_an_opening_cannot_say_is_refused_by_name() {
    let cases: &[(usize, &[u8], Bad)] = &[
        (12, &[7, 0], Bad::Version(7)),
        (12, &[0, 0], Bad::Version(0)),
        (14, &[4, 0], Bad::Field("align_shift")),
        (16, &[0, 1], Bad::Features(0x100)),
        (48, &[0], Bad::Field("segment")),
        (48, &[0xff; 8], Bad::Field("segment")),
        (56, &[0; 8], Bad::Field("salt")),
        (64, &[0; 8], Bad::Field("sequence")),
        (80, &[0; 8], Bad::Field("pred_segment")),
        (80, &[7], Bad::Field("pred_segment")),
        (88, &[0; 8], Bad::Field("pred_offset")),
        (96, &[0; 8], Bad::Field("pred_sequence")),
        (96, &1000_u64.to_le_bytes(), Bad::Field("pred_sequence")),
        (108, &[1], Bad::Field("carry_crc")),
        (112, &[95], Bad::Field("carry_len")),
        (112, &[0xff; 8], Bad::Field("carry_len")),
        (120, &[8], Bad::Field("floor")),
        (128, &[0; 8], Bad::Field("len")),
        (128, &[0xff; 8], Bad::Field("len")),
        (136, &[1], Bad::Field("key_id")),
        (152, &[0xff; 8], Bad::Field("incarnation_next")),
        (255, &[1], Bad::Field("zero")),
    ];
    for (at, value, bad) in cases {
        let bytes = change_opening(&opening(), *at, value);
        assert_eq!(Opening::decode(&bytes), Err(*bad), "{value:?} at {at}");
    }
    let room = opening().len - BATCHES_AT;
    for (carry_len, expected) in [
        (96, None),
        (room, None),
        (room + 1, Some(Bad::Field("carry_len"))),
    ] {
        let bytes = change_opening(&opening(), 112, &carry_len.to_le_bytes());
        assert_eq!(
            Opening::decode(&bytes).err(),
            expected,
            "{carry_len} bytes carried"
        );
    }
    let ignored = change_opening(&opening(), 24, &[1]);
    let decoded = Opening::decode(&ignored).unwrap();
    assert_eq!(
        decoded.encode(),
        ignored,
        "a compatible feature is ignored and kept"
    );
}

#[test]
fn no_flipped_bit_of_a_batch_passes() {
    let other = Made {
        term: Term(9),
        index: 2,
        ..one()
    };
    let (header, good) = encode(&batch_spec(), &[one(), other]);
    let payloads_at = BATCH_HEADER_LEN + header.tables_len();
    for bit in (0..payloads_at * 8).step_by(STRIDE) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if bit < BATCH_HEADER_LEN * 8 {
            let expected = if (32..64).contains(&bit) {
                Bad::Magic
            } else {
                Bad::Crc
            };
            assert_eq!(BatchHeader::decode(&bytes), Err(expected), "bit {bit}");
            continue;
        }
        let tables = &bytes[BATCH_HEADER_LEN..];
        assert_eq!(decode_tables(&header, tables), Err(Bad::Crc), "bit {bit}");
        let each = decode_each(&header, tables).unwrap();
        let good: Vec<bool> = each.iter().map(Result::is_ok).collect();
        let terms_at = payloads_at - 2 * TERM_LEN;
        let hit = match bit / 8 < terms_at {
            true => (bit / 8 - BATCH_HEADER_LEN) / FRAME_HEADER_LEN,
            false => (bit / 8 - terms_at) / TERM_LEN,
        };
        assert_eq!(
            good,
            [hit != 0, hit != 1],
            "bit {bit}: the other frame is still readable"
        );
    }
    for len in 0..payloads_at {
        let (header_bytes, tables) = good[..len].split_at(len.min(BATCH_HEADER_LEN));
        if header_bytes.len() < BATCH_HEADER_LEN {
            assert_eq!(BatchHeader::decode(header_bytes), Err(Bad::Short), "{len}");
        }
        assert_eq!(decode_tables(&header, tables), Err(Bad::Short), "{len}");
        assert_eq!(decode_each(&header, tables), Err(Bad::Short), "{len}");
    }
}

#[test]
fn what_a_batch_header_cannot_say_is_refused_by_name() {
    let (_, good) = encode(&batch_spec(), &[one()]);
    let cases: &[(usize, &[u8], &str)] = &[
        (8, &[0; 8], "segment"),
        (16, &[0; 8], "salt"),
        (24, &[4], "offset"),
        (24, &[0; 8], "offset"),
        (24, &[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "offset"),
        (32, &[1, 0], "sequence"),
        (32, &[0xff; 8], "sequence"),
        (40, &1001_u64.to_le_bytes(), "durable_through"),
        (56, &[0; 4], "len"),
        (56, &[0xff; 4], "len"),
        (60, &[0; 4], "terms"),
        (60, &[2], "len"),
        (60, &[0xff; 4], "len"),
        (72, &[2], "terms"),
        (72, &[0], "len"),
        (74, &[1], "frames"),
        (74, &[2], "flags"),
        (74, &[4], "frames"),
        (74, &[5], "flags"),
        (74, &[9], "flags"),
        (74, &[16], "flags"),
        (74, &[0x80], "flags"),
        (75, &[1], "codec"),
        (76, &[0xff; 4], "len"),
        (80, &[1], "key_id"),
        (95, &[1], "key_id"),
    ];
    for (at, value, name) in cases {
        let bytes = change_header(&good, *at, value);
        assert_eq!(
            BatchHeader::decode(&bytes),
            Err(Bad::Field(name)),
            "{value:?} at {at}"
        );
    }
    let carry = change_header(&good, 74, &[8]);
    assert_eq!(BatchHeader::decode(&carry).unwrap().flags, Flags::CARRY);
    assert_eq!(BatchHeader::decode(&[0; BATCH_HEADER_LEN]), Err(Bad::Blank));
}

#[test]
fn what_a_frame_cannot_say_is_refused_by_name() {
    let (_, good) = encode(&batch_spec(), &[one()]);
    let good = &good[BATCH_HEADER_LEN..];
    let cases: &[(usize, &[u8], &str)] = &[
        (4, &[0], "kind"),
        (4, &[13], "kind"),
        (4, &[2], "len"),
        (4, &[8], "len"),
        (5, &[1], "cell"),
        (6, &[0xff, 0xff], "term"),
        (16, &[0xff; 8], "incarnation"),
        (24, &[0xff; 8], "index"),
        (32, &[0xff; 4], "payload_at"),
        (40, &[47], "payload_at"),
        (44, &[1], "codec"),
        (45, &[1], "zero"),
        (47, &[1], "zero"),
    ];
    for (at, value, name) in cases {
        let bytes = change_frame(good, Term(1), *at, value);
        assert_eq!(
            decode_frame(SALT, Term(1), &bytes),
            Err(Bad::Field(name)),
            "{value:?} at {at}"
        );
    }
    assert!(decode_frame(SALT, Term(1), &change_frame(good, Term(1), 8, &[9])).is_ok());
    assert_eq!(decode_frame(SALT, Term(2), good), Err(Bad::Crc), "another term");
    assert_eq!(
        decode_frame(SALT + 1, Term(1), good),
        Err(Bad::Crc),
        "another segment"
    );
    assert_eq!(decode_frame(SALT, Term(1), &good[..47]), Err(Bad::Short));
    assert_eq!(decode_frame(SALT, Term(1), &[0; 48]), Err(Bad::Blank));
}

#[test]
fn a_floor_names_a_segment_that_can_be_and_has_a_payload_of_its_length() {
    let floor = Made {
        kind: Kind::Floor,
        payload: vec![0; FLOOR_LEN],
        ..one()
    };
    let (_, good) = encode(&batch_spec(), &[floor]);
    let good = &good[BATCH_HEADER_LEN..];
    let cases: &[(usize, &[u8], bool)] = &[
        (24, &NUMBER_MAX.to_le_bytes(), true),
        (24, &(NUMBER_MAX + 1).to_le_bytes(), false),
        (32, &[16], true),
        (32, &[15], false),
        (32, &[17], false),
    ];
    for (at, value, fine) in cases {
        let decoded = decode_frame(SALT, Term(1), &change_frame(good, Term(1), *at, value));
        let refused = (!fine).then_some(Bad::Field("index"));
        assert_eq!(decoded.err(), refused, "{value:?} at {at}");
    }
}

/// Each frame verifies, and so does their whole; the payloads are not where they have to be.
#[test]
fn payloads_that_are_not_packed_are_refused() {
    let (header, good) = encode(&batch_spec(), &[one()]);
    let tables = &good[BATCH_HEADER_LEN..BATCH_HEADER_LEN + header.tables_len()];
    for (at, value, packed, inside) in [
        (40, 65_u8, false, false),
        (40, 63, false, false),
        (32, 6, false, true),
        (32, 8, false, false),
        (8, 3, true, true),
    ] {
        let mut tables = tables.to_vec();
        let frame = change_frame(&tables, Term(1), at, &[value]);
        tables[..FRAME_HEADER_LEN].copy_from_slice(&frame);
        let header = BatchHeader {
            frames_crc: crc32fast::hash(&tables),
            ..header
        };
        assert_eq!(decode_tables(&header, &tables).is_ok(), packed, "{value} at {at}");
        let each = decode_each(&header, &tables).unwrap();
        assert_eq!(each[0].is_ok(), inside, "{value} at {at}");
    }
}

#[test]
fn facts_refuse_what_they_cannot_say() {
    let facts = Facts {
        first: 1,
        purged: None,
        last: None,
    };
    for (at, bad) in [
        (8, "purged"),
        (9, "zero"),
        (15, "zero"),
        (16, "purged"),
        (31, "purged"),
        (40, "has_last"),
        (41, "zero"),
        (63, "last_term"),
    ] {
        let mut bytes = facts.encode();
        bytes[at] = 2;
        let bad = if at == 8 { "has_purged" } else { bad };
        assert_eq!(Facts::decode(&bytes), Err(Bad::Field(bad)), "{at}");
    }
    assert_eq!(Facts::decode(&[0; 63]), Err(Bad::Short));
    assert_eq!(Facts::decode(&[0; 65]), Err(Bad::Field("len")));
    assert_eq!(Floor::decode(&[0; 15]), Err(Bad::Short));
    assert_eq!(
        Floor::decode(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
        Err(Bad::Field("zero"))
    );
    assert_eq!(Floor::decode(&[0xff; 16]), Err(Bad::Field("zero")));
}

proptest! {
    /// Behind checksums that match, any bytes: a header leads nowhere outside of the bytes at hand.
    #[test]
    fn no_sealed_change_makes_a_decoder_panic(
        made in vec(made(), 1..10),
        header_changes in vec((4..BATCH_HEADER_LEN, any::<u8>()), 0..4),
        frame_changes in vec((any::<prop::sample::Index>(), 4..FRAME_HEADER_LEN, any::<u8>()), 0..6),
        opening_changes in vec((12..OPENING_LEN, any::<u8>()), 1..6),
    ) {
        let (header, mut bytes) = encode(&batch_spec(), &made);
        for (i, at, value) in frame_changes {
            let i = i.index(made.len());
            let start = BATCH_HEADER_LEN + i * FRAME_HEADER_LEN;
            let frame = change_frame(&bytes[start..], made[i].term, at, &[value]);
            bytes[start..start + FRAME_HEADER_LEN].copy_from_slice(&frame);
        }
        let tables = BATCH_HEADER_LEN..BATCH_HEADER_LEN + header.tables_len();
        let frames_crc = crc32fast::hash(&bytes[tables]);
        let sealed = change_header(&bytes, 68, &frames_crc.to_le_bytes());
        bytes[..BATCH_HEADER_LEN].copy_from_slice(&sealed);
        decode_all(&bytes, &header);
        for (at, value) in header_changes {
            let changed = change_header(&bytes, at, &[value]);
            bytes[..BATCH_HEADER_LEN].copy_from_slice(&changed);
        }
        decode_all(&bytes, &header);

        let mut opening = opening();
        for (at, value) in opening_changes {
            let bytes = change_opening(&opening, at, &[value]);
            if let Ok(decoded) = Opening::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
                opening = decoded;
            }
        }
    }
}

#[test]
fn what_is_bad_is_said_in_words() {
    let words = [
        (Bad::Blank, "nothing but zeros"),
        (Bad::Short, "ends too early"),
        (Bad::Magic, "does not begin as it should"),
        (Bad::Crc, "checksum does not match"),
        (Bad::Version(7), "format version 7 is newer than this build (1)"),
        (Bad::Version(0), "format version 0 does not exist"),
        (
            Bad::Features(5),
            "needs features that this build does not have (bits 0x5)",
        ),
        (
            Bad::Field("len"),
            "checksum matches, but the value of `len` is impossible",
        ),
    ];
    for (bad, text) in words {
        assert_eq!(bad.to_string(), text);
    }
    let newer: Vec<Bad> = words
        .map(|(bad, _)| bad)
        .into_iter()
        .filter(|bad| bad.is_newer())
        .collect();
    assert_eq!(newer, [Bad::Version(7), Bad::Features(5)]);
}
