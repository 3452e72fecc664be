//! What is encoded is decoded unchanged; what was changed is refused; nothing panics on any bytes.

mod golden;
mod index;
mod refused;
#[cfg(feature = "snapshot")]
mod snapshot;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::types::{EntryId, LogKey, Term, TermRun};

use super::batch::TERM_LEN;
use super::index::{header_of, place_of};
use super::*;

const SALT: u64 = 0x5a17_5a17_0000_0001;
/// Most frames of a drawn batch, and most bytes of a payload. Miri is slow.
const FRAMES: usize = if cfg!(miri) { 6 } else { 60 };
const PAYLOAD: usize = if cfg!(miri) { 20 } else { 200 };

fn opening() -> Opening {
    Opening {
        uuid: *b"a journal's uuid",
        align_shift: 3,
        features: 0,
        compat: 0,
        segment: 7,
        salt: SALT,
        sequence: 1000,
        time: 1_700_000_000_000_000,
        pred: Some(End {
            segment: 5,
            offset: 12_288,
            sequence: 998,
            chain: 0xaabb_ccdd,
        }),
        carry_len: 0,
        carry_crc: 0,
        floor: 3,
        len: 64 << 20,
        incarnation_next: 42,
    }
}

fn batch_spec() -> BatchSpec {
    BatchSpec {
        segment: 7,
        salt: SALT,
        offset: BATCHES_AT,
        sequence: 1001,
        durable_through: 1000,
        time: 1_700_000_000_000_001,
        chain: 0x1234_5678,
        flags: Flags::NONE,
        align_shift: 3,
    }
}

/// A frame with the payload that its kind asks for.
#[derive(Clone, Debug)]
struct Made {
    kind: Kind,
    cell: u8,
    log: LogKey,
    incarnation: u64,
    index: u64,
    term: Term,
    payload: Vec<u8>,
}

impl Made {
    fn spec(&self) -> FrameSpec<'_> {
        FrameSpec {
            kind: self.kind,
            cell: self.cell,
            log: self.log,
            incarnation: self.incarnation,
            index: self.index,
            term: self.term,
            payload: &self.payload,
            payload_crc: payload_crc(&self.payload),
        }
    }
}

fn term() -> impl Strategy<Value = Term> {
    prop_oneof![
        (0..4_u128).prop_map(Term),
        (0..40_u128).prop_map(|n| Term(n << 64)),
        any::<u128>().prop_map(Term),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let numbers = (
        1..=12_u8,
        any::<u8>(),
        any::<u64>(),
        0..=NUMBER_MAX,
        0..NUMBER_MAX,
    );
    (numbers, term(), vec(any::<u8>(), 0..PAYLOAD)).prop_map(
        |((kind, cell, log, incarnation, index), term, bytes)| {
            let kind = Kind::from_u8(kind).unwrap();
            let has_cell = matches!(
                kind,
                Kind::Cell | Kind::CellUnknown | Kind::Lost | Kind::Relocated
            );
            let payload = match kind {
                Kind::Append | Kind::Cell | Kind::CellUnknown | Kind::Lost | Kind::Relocated => bytes,
                Kind::Truncate | Kind::Purge | Kind::Reset | Kind::Create | Kind::Delete => Vec::new(),
                Kind::Facts => vec![0; FACTS_LEN],
                Kind::Floor => vec![0; FLOOR_LEN],
            };
            Made {
                kind,
                cell: if has_cell { cell } else { 0 },
                log: LogKey(log),
                incarnation,
                index,
                term,
                payload,
            }
        },
    )
}

/// Encodes a batch behind some other bytes, which must stay as they are.
fn encode(spec: &BatchSpec, made: &[Made]) -> (BatchHeader, Vec<u8>) {
    let specs: Vec<FrameSpec<'_>> = made.iter().map(Made::spec).collect();
    let mut out = b"before".to_vec();
    let header = encode_batch(spec, &specs, &mut out);
    assert_eq!(&out[..6], b"before");
    (header, out.split_off(6))
}

/// Gives every decoder the bytes. What they say is of no interest here.
fn decode_all(bytes: &[u8], header: &BatchHeader) {
    let _ = Opening::decode(bytes);
    let _ = decode_tables(header, bytes);
    let _ = decode_each(header, bytes);
    let _ = decode_frame(SALT, Term(1), bytes);
    let _ = Facts::decode(bytes);
    let _ = Floor::decode(bytes);
    if let Ok(header) = BatchHeader::decode(bytes) {
        let tables = &bytes[BATCH_HEADER_LEN..];
        let _ = decode_tables(&header, tables);
        let _ = decode_each(&header, tables);
    }
}

proptest! {
    #[test]
    fn a_batch_is_decoded_as_it_was_encoded(made in vec(made(), 1..FRAMES), shift in prop_oneof![Just(3_u16), Just(12)]) {
        let spec = BatchSpec { align_shift: shift, ..batch_spec() };
        let (header, bytes) = encode(&spec, &made);
        prop_assert_eq!(BatchHeader::decode(&bytes), Ok(header));
        prop_assert_eq!(bytes.len() as u64, u64::from(header.len));
        prop_assert_eq!(bytes.len() % (1 << shift), 0);
        let payload_bytes: usize = made.iter().map(|m| m.payload.len()).sum();
        let exact = batch_len(made.len(), usize::from(header.terms), payload_bytes as u64, shift);
        prop_assert_eq!(u64::from(header.len), exact);
        prop_assert!(usize::from(header.terms) <= term_changes(made.iter().map(|m| m.term)));

        let frames = decode_tables(&header, &bytes[BATCH_HEADER_LEN..]).unwrap();
        prop_assert_eq!(frames.len(), made.len());
        for (i, (frame, made)) in frames.iter().zip(&made).enumerate() {
            let at = header_at(spec.offset, i);
            let alone = usize::try_from(at - spec.offset).unwrap();
            prop_assert_eq!(decode_frame(SALT, made.term, &bytes[alone..]), Ok(*frame));
            let payload = usize::try_from(frame.payload_offset(at) - spec.offset).unwrap();
            let payload = &bytes[payload..payload + made.payload.len()];
            prop_assert_eq!(frame.check_payload(payload), Ok(()));
            prop_assert_eq!(payload, &made.payload[..]);
            let got = (frame.kind, frame.cell, frame.log, frame.incarnation, frame.index, frame.term);
            prop_assert_eq!(got, (made.kind, made.cell, made.log, made.incarnation, made.index, made.term));
        }
        let each = decode_each(&header, &bytes[BATCH_HEADER_LEN..]).unwrap();
        prop_assert_eq!(each, frames.into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn facts_and_floor_are_decoded_as_they_were_encoded(
        first in any::<u64>(), purged in any::<Option<(u128, u64)>>(), last in any::<Option<u128>>(), next in 0..=NUMBER_MAX,
    ) {
        let purged = purged.map(|(term, index)| EntryId::new(term, index));
        let facts = Facts { first, purged, last: last.map(Term) };
        prop_assert_eq!(Facts::decode(&facts.encode()), Ok(facts));
        let floor = Floor { incarnation_next: next };
        prop_assert_eq!(Floor::decode(&floor.encode()), Ok(floor));
    }

    #[test]
    fn no_decoder_panics_on_any_bytes(bytes in vec(any::<u8>(), 0..3 * PAYLOAD), frames in 0..20_u32, terms in 0..20_u16) {
        let (header, _) = encode(&batch_spec(), &[one()]);
        let header = BatchHeader { frames, terms, ..header };
        decode_all(&bytes, &header);
    }
}

fn one() -> Made {
    Made {
        kind: Kind::Append,
        cell: 0,
        log: LogKey(1),
        incarnation: 1,
        index: 1,
        term: Term(1),
        payload: b"payload".to_vec(),
    }
}

#[test]
fn an_opening_is_decoded_as_it_was_encoded_from_either_copy() {
    let first = Opening {
        pred: None,
        align_shift: 12,
        ..opening()
    };
    for opening in [opening(), first] {
        let mut out = b"before".to_vec();
        write_opening_blocks(&opening, &mut out);
        let blocks = &out[6..];
        assert_eq!(blocks.len() as u64, BATCHES_AT);
        let (one, two) = blocks.split_at(usize::try_from(COPY_AT).unwrap());
        assert_eq!(Opening::decode(one), Ok(opening.clone()));
        assert_eq!(one, two);
        assert!(one[OPENING_LEN..].iter().all(|byte| *byte == 0));
        assert_eq!(opening.chain(), crc32fast::hash(&one[12..OPENING_LEN]));
    }
}

#[test]
fn a_skip_ends_where_a_block_begins() {
    for offset in (BATCHES_AT..BATCHES_AT + 8192).step_by(if cfg!(miri) { 1496 } else { 8 }) {
        let spec = BatchSpec {
            offset,
            flags: Flags::SKIP,
            ..batch_spec()
        };
        let (header, bytes) = encode(&spec, &[]);
        assert_eq!(BatchHeader::decode(&bytes), Ok(header), "{offset}");
        assert_eq!(header.end() % 4096, 0, "{offset}");
        assert_eq!(bytes.len() as u64, skip_len(offset), "{offset}");
        assert_eq!(
            decode_tables(&header, &bytes[BATCH_HEADER_LEN..]),
            Ok(Vec::new()),
            "{offset}"
        );
    }
}

/// Thousands of logs in one batch: their few terms stand in the table once each, although they alternate.
#[test]
fn alternating_terms_share_the_table() {
    let made: Vec<Made> = (0..if cfg!(miri) { 50 } else { 5000_u64 })
        .map(|i| Made {
            log: LogKey(i),
            term: Term(u128::from(i % 10)),
            payload: Vec::new(),
            ..one()
        })
        .collect();
    let (header, bytes) = encode(&batch_spec(), &made);
    assert_eq!(header.terms, 9, "and term 0 needs no entry");
    let frames = decode_tables(&header, &bytes[BATCH_HEADER_LEN..]).unwrap();
    assert!(
        frames
            .iter()
            .zip(&made)
            .all(|(frame, made)| frame.term == made.term)
    );
}

#[test]
fn a_term_that_comes_back_is_a_change_and_term_0_is_none() {
    let changes = |terms: &[u128]| term_changes(terms.iter().map(|term| Term(*term)));
    assert_eq!(changes(&[0, 0]), 0);
    assert_eq!(changes(&[4, 4]), 1);
    assert_eq!(changes(&[0, 4, 4, 0, 0, 4, 5, 4]), 4);
}

#[test]
fn a_flag_that_is_added_twice_is_there_once() {
    let closing = Flags::MARK | Flags::CLOSING;
    assert_eq!(closing | Flags::MARK, closing);
    assert!(closing.has(Flags::MARK) && closing.has(Flags::CLOSING) && !closing.has(Flags::SKIP));
}

#[test]
#[cfg_attr(miri, ignore = "65,535 frames take Miri minutes")]
fn a_full_table_of_terms_is_decoded() {
    let made: Vec<Made> = (1..=TERMS_MAX)
        .map(|i| Made {
            log: LogKey(i as u64),
            term: Term(i as u128),
            payload: Vec::new(),
            ..one()
        })
        .collect();
    assert_eq!(term_changes(made.iter().map(|made| made.term)), TERMS_MAX);
    let (header, bytes) = encode(&batch_spec(), &made);
    assert_eq!(usize::from(header.terms), TERMS_MAX);
    let frames = decode_tables(&header, &bytes[BATCH_HEADER_LEN..]).unwrap();
    assert!(
        frames
            .iter()
            .zip(&made)
            .all(|(frame, made)| frame.term == made.term)
    );
}

/// The sum of an inner range is the difference of two others, whatever else the log went through.
#[test]
fn digests_of_ranges_subtract() {
    let entries = (0..100_u64).map(|i| digest(i, Term(u128::from(i / 10)), payload_crc(&i.to_le_bytes())));
    let entries: Vec<u64> = entries.collect();
    let sum = |range: core::ops::Range<usize>| entries[range].iter().fold(0, |a: u64, b| a.wrapping_add(*b));
    assert_eq!(sum(0..80).wrapping_sub(sum(0..30)), sum(30..80));
    assert_ne!(sum(0..50), sum(50..100));
}

#[test]
fn lengths_that_do_not_fit_saturate() {
    assert_eq!(batch_len(0, 0, 0, 3), 96);
    assert_eq!(batch_len(1, 1, 1, 3), 168);
    assert_eq!(batch_len(1, 1, 1, 12), 4096);
    assert_eq!(batch_len(1, 1, u64::MAX, 3), u64::MAX);
    assert_eq!(batch_len(usize::MAX, usize::MAX, 0, 12), u64::MAX);
}
