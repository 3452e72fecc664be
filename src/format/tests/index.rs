//! What an index says is what its segment's frames say.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

/// A frame at a place of the first batch, with the payload that stands `payload_at` behind it.
fn frame(kind: Kind, log: u64, index: u64, term: u128, payload: &[u8], payload_at: u32) -> Frame {
    Frame {
        kind,
        cell: 0,
        log: LogKey(log),
        incarnation: 5,
        index,
        term: Term(term),
        len: u32::try_from(payload.len()).unwrap(),
        payload_crc: payload_crc(payload),
        payload_at,
    }
}

pub(super) const END: End = End {
    segment: 7,
    offset: 8944,
    sequence: 1001,
    chain: 0x1234_5678,
};

/// The index of the golden file, and its operations.
pub(super) fn sample() -> (Vec<u8>, Vec<IndexOp>) {
    let at = |i| header_at(BATCHES_AT, i);
    let facts = Facts {
        first: 1,
        purged: Some(EntryId::new(6, 99)),
        last: Some(Term(7)),
    };
    let (facts, floor) = (facts.encode(), Floor { incarnation_next: 9 }.encode());
    let create = frame(Kind::Create, 1, 10, 0, b"", 400);
    let one = frame(Kind::Append, 1, 10, 3, b"one", 300);
    let two = frame(Kind::Append, 1, 11, 4, b"two", 255);
    let vote = Frame {
        cell: 2,
        ..frame(Kind::Cell, 1, 0, 0, b"vote", 269)
    };
    let restated = Frame {
        incarnation: 4,
        ..frame(Kind::Facts, 2, 100, 0, &facts, 225)
    };
    let floored = Frame {
        incarnation: 0,
        ..frame(Kind::Floor, 0, 6, 0, &floor, 241)
    };

    let mut builder = IndexBuilder::new(7, SALT);
    builder.push(&create, at(0), None);
    builder.push(&one, at(1), Some(b"one"));
    builder.push(&two, at(2), None);
    builder.push(&vote, at(3), Some(b"vote"));
    builder.push(&restated, at(4), Some(&facts));
    builder.push(&floored, at(5), Some(&floor));
    let bytes = builder.finish(END);

    let places: Vec<u8> = [at(1), at(2)]
        .into_iter()
        .flat_map(|at| place_of(at).to_le_bytes())
        .collect();
    let digests =
        [(10, 3, b"one"), (11, 4, b"two")].map(|(index, term, p)| digest(index, Term(term), payload_crc(p)));
    let run = IndexRun {
        log: LogKey(1),
        incarnation: 5,
        first: 10,
        count: 2,
        digest: digests[0].wrapping_add(digests[1]),
        terms: [(10, 3), (11, 4)]
            .map(|(first, term)| TermRun {
                first,
                term: Term(term),
            })
            .to_vec(),
        block_at: (bytes.len() - places.len()) as u64,
        block_crc: crc32fast::hash(&places),
    };
    let other = |frame, i, payload| IndexOp::Frame {
        frame,
        header_at: at(i),
        payload,
    };
    let ops = vec![
        other(create, 0, None),
        IndexOp::Run(run),
        other(vote, 3, None),
        other(restated, 4, Some(Bytes::copy_from_slice(&facts))),
        other(floored, 5, Some(Bytes::copy_from_slice(&floor))),
    ];
    (bytes, ops)
}

/// What one log's frames say, in their order: entries by index, incarnation, term and place; anything else as it is.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Entry(u64, u64, Term, u64),
    Other(Frame, u64),
}

#[derive(Debug, Default, PartialEq)]
struct Story {
    logs: BTreeMap<LogKey, Vec<Said>>,
    floors: Vec<Said>,
    cells: BTreeMap<(LogKey, u64, u8), (Frame, u64)>,
    /// Sums of the digests per log.
    digests: BTreeMap<LogKey, u64>,
}

impl Story {
    fn other(&mut self, frame: Frame, at: u64) {
        match frame.kind {
            Kind::Cell => {
                self.cells
                    .insert((frame.log, frame.incarnation, frame.cell), (frame, at));
            }
            Kind::Floor => self.floors.push(Said::Other(frame, at)),
            _ => self
                .logs
                .entry(frame.log)
                .or_default()
                .push(Said::Other(frame, at)),
        }
    }

    fn entry(&mut self, log: LogKey, said: Said) {
        self.logs.entry(log).or_default().push(said);
    }

    fn digest(&mut self, log: LogKey, digest: u64) {
        let sum = self.digests.entry(log).or_default();
        *sum = sum.wrapping_add(digest);
    }

    fn of_frames(frames: &[Frame]) -> Story {
        let mut story = Story::default();
        for (i, frame) in frames.iter().enumerate() {
            let at = header_at(BATCHES_AT, i);
            if frame.kind == Kind::Append {
                story.entry(
                    frame.log,
                    Said::Entry(frame.index, frame.incarnation, frame.term, at),
                );
                story.digest(frame.log, digest(frame.index, frame.term, frame.payload_crc));
            } else {
                story.other(*frame, at);
            }
        }
        story
    }

    fn of_index(bytes: &[u8]) -> Story {
        let index = Index::decode_summary(bytes).unwrap();
        assert_eq!(index.file_len, bytes.len() as u64);
        let mut story = Story::default();
        for op in index.ops {
            match op {
                IndexOp::Frame { frame, header_at, .. } => story.other(frame, header_at),
                IndexOp::Run(run) => story.run(&run, bytes),
            }
        }
        story
    }

    fn run(&mut self, run: &IndexRun, bytes: &[u8]) {
        let block =
            usize::try_from(run.block_at).unwrap()..usize::try_from(run.block_at + run.block_len()).unwrap();
        let places = decode_block(&bytes[block], run.block_crc, run.count).unwrap();
        for (i, place) in places.into_iter().enumerate() {
            let index = run.first + i as u64;
            let term = run.terms.iter().rfind(|terms| terms.first <= index).unwrap().term;
            self.entry(
                run.log,
                Said::Entry(index, run.incarnation, term, header_of(place)),
            );
        }
        self.digest(run.log, run.digest);
    }
}

/// Frames of three logs, of which many are entries that follow one another.
fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let one = (
        0..3_u64,
        prop_oneof![4 => Just(1_u8), 1 => 2..=9_u8],
        0..20_u8,
        1..3_u64,
        0..3_u8,
    );
    vec(one, 0..PAYLOAD).prop_map(|made| {
        let mut next = [5_u64; 3];
        let made = made.into_iter().map(|(log, kind, jump, incarnation, cell)| {
            let kind = Kind::from_u8(kind).unwrap();
            let payload = match kind {
                Kind::Facts => vec![0; FACTS_LEN],
                Kind::Floor => vec![0; FLOOR_LEN],
                Kind::Append | Kind::Cell => vec![jump; usize::from(jump)],
                _ => Vec::new(),
            };
            let next = &mut next[usize::try_from(log).unwrap()];
            *next += if jump == 0 { 2 } else { 1 };
            let term = u128::from(*next / 7);
            Frame {
                cell: if kind == Kind::Cell { cell } else { 0 },
                incarnation: if jump == 1 { incarnation } else { 1 },
                ..frame(kind, log, *next, term, &payload, 4000)
            }
        });
        made.collect()
    })
}

fn build(frames: &[Frame]) -> Vec<u8> {
    let mut builder = IndexBuilder::new(7, SALT);
    for (i, frame) in frames.iter().enumerate() {
        let payload = match frame.kind {
            Kind::Facts => vec![0; FACTS_LEN],
            Kind::Floor => vec![0; FLOOR_LEN],
            _ => Vec::new(),
        };
        builder.push(frame, header_at(BATCHES_AT, i), Some(&payload));
    }
    builder.finish(End {
        offset: 1 << 20,
        ..END
    })
}

proptest! {
    #[test]
    fn an_index_tells_what_the_frames_tell(frames in frames()) {
        prop_assert_eq!(Story::of_index(&build(&frames)), Story::of_frames(&frames));
    }

    #[test]
    fn no_changed_byte_of_an_index_passes(frames in frames(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = build(&frames);
        let index = Index::decode_summary(&bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let summary_end = usize::try_from(Index::summary_end(&build(&frames)).unwrap()).unwrap();
        let now = Index::decode_summary(&bytes);
        if at < summary_end {
            prop_assert!(now.is_err());
        } else {
            prop_assert_eq!(now.as_ref(), Ok(&index));
            let passes = index.ops.iter().all(|op| match op {
                IndexOp::Frame { .. } => true,
                IndexOp::Run(run) => {
                    let start = usize::try_from(run.block_at).unwrap();
                    let len = usize::try_from(run.block_len()).unwrap();
                    decode_block(&bytes[start..start + len], run.block_crc, run.count).is_ok()
                }
            });
            prop_assert!(!passes);
        }
    }

    /// Behind a checksum that matches, any bytes.
    #[test]
    fn no_index_makes_its_reader_panic(frames in frames(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = build(&frames);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes[..8].copy_from_slice(b"EVERLOGI");
        let end = usize::try_from(Index::summary_end(&bytes).unwrap()).unwrap();
        if let Some(sealed) = bytes.get(12..end) {
            let crc = crc32fast::hash(sealed);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(index) = Index::decode_summary(&bytes) {
            prop_assert!(index.ops.len() <= bytes.len() / 56);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_of_an_index_panic(bytes in vec(any::<u8>(), 0..3 * PAYLOAD / 2), crc in any::<u32>(), count in 0..80_u32) {
        let _ = Index::decode_summary(&bytes);
        let _ = Index::summary_end(&bytes);
        let _ = decode_block(&bytes, crc, count);
        let _ = decode_block(&bytes, crc32fast::hash(&bytes), count);
    }
}

#[test]
fn entries_of_one_log_are_one_run_across_cells_and_other_logs() {
    let mut frames = Vec::new();
    for index in 0..100 {
        frames.push(frame(Kind::Append, 1, index, 1, b"a", 4000));
        frames.push(frame(Kind::Cell, 1, 0, 0, b"b", 4000));
        frames.push(frame(Kind::Append, 2, 50 + index, 1, b"c", 4000));
    }
    let index = Index::decode_summary(&build(&frames)).unwrap();
    assert_eq!(
        index.ops.len(),
        3,
        "two runs and the last value of the cell: {:#?}",
        index.ops
    );
    let IndexOp::Frame { header_at: at, .. } = index.ops[1] else {
        panic!("{:?}", index.ops[1]);
    };
    assert_eq!(at, header_at(BATCHES_AT, 298));
}

#[test]
fn a_truncate_ends_the_run_of_its_log_only() {
    let frames = [
        frame(Kind::Append, 1, 5, 1, b"a", 4000),
        frame(Kind::Append, 2, 5, 1, b"a", 4000),
        frame(Kind::Truncate, 1, 6, 0, b"", 4000),
        frame(Kind::Append, 1, 6, 1, b"a", 4000),
        frame(Kind::Append, 2, 6, 1, b"a", 4000),
    ];
    let index = Index::decode_summary(&build(&frames)).unwrap();
    let runs = index.ops.iter().map(|op| match op {
        IndexOp::Run(run) => (run.log.0, run.first, run.count),
        IndexOp::Frame { frame, .. } => (frame.log.0, frame.index, 0),
    });
    assert_eq!(
        runs.collect::<Vec<_>>(),
        [(1, 5, 1), (2, 5, 2), (1, 6, 0), (1, 6, 1)]
    );
}

#[test]
fn an_index_of_facts_without_their_payload_is_refused() {
    let mut builder = IndexBuilder::new(7, SALT);
    builder.push(
        &frame(Kind::Facts, 1, 5, 1, &[0; FACTS_LEN], 4000),
        header_at(BATCHES_AT, 0),
        None,
    );
    assert_eq!(
        Index::decode_summary(&builder.finish(END)),
        Err(Bad::Field("inline"))
    );
}

#[test]
fn a_cut_index_is_short() {
    let (bytes, _) = sample();
    let end = usize::try_from(Index::summary_end(&bytes).unwrap()).unwrap();
    for len in (0..end).step_by(if cfg!(miri) { 41 } else { 1 }) {
        assert_eq!(Index::decode_summary(&bytes[..len]), Err(Bad::Short), "{len}");
    }
    assert!(Index::decode_summary(&bytes[..end]).is_ok());
}

/// Under a checksum that matches, too.
#[test]
fn what_an_index_cannot_say_is_refused_by_name() {
    const FIRST: usize = INDEX_HEADER_LEN;
    const RUN: usize = FIRST + 72;
    let (good, _) = sample();
    let first = header_at(BATCHES_AT, 0);
    let end = usize::try_from(Index::summary_end(&good).unwrap()).unwrap();
    let cases: &[(usize, &[u8], Bad)] = &[
        (12, &[2, 0], Bad::Version(2)),
        (14, &[1], Bad::Field("zero")),
        (16, &[0; 8], Bad::Field("segment")),
        (24, &[0; 8], Bad::Field("salt")),
        (32, &[0; 8], Bad::Field("end_offset")),
        (40, &[0; 8], Bad::Field("end_sequence")),
        (56, &[0xff], Bad::Field("ops")),
        (56, &[6], Bad::Field("op")),
        (56, &[4], Bad::Field("summary_len")),
        (60, &[1], Bad::Field("zero")),
        // The first operation is a frame: a `Create`.
        (FIRST, &[3], Bad::Field("op")),
        (FIRST + 1, &[1], Bad::Field("kind")),
        (FIRST + 3, &[1], Bad::Field("zero")),
        (FIRST + 4, &[1], Bad::Field("len")),
        (FIRST + 48, &(first - 8).to_le_bytes(), Bad::Field("header_at")),
        (FIRST + 48, &(first + 4).to_le_bytes(), Bad::Field("header_at")),
        (FIRST + 48, &END.offset.to_le_bytes(), Bad::Field("header_at")),
        (FIRST + 64, &[1], Bad::Field("inline")),
        (FIRST + 68, &[1], Bad::Field("zero")),
        // The second is a run of the entries 10 and 11, of terms 3 and 4.
        (RUN + 1, &[1], Bad::Field("zero")),
        (RUN + 4, &[0; 4], Bad::Field("count")),
        (RUN + 4, &[1], Bad::Field("terms")),
        (RUN + 16, &[0xff; 8], Bad::Field("incarnation")),
        (RUN + 24, &[0xff; 8], Bad::Field("count")),
        (RUN + 40, &[0; 8], Bad::Field("block_at")),
        (RUN + 52, &[0xff; 4], Bad::Field("summary_len")),
        (RUN + 56, &[11], Bad::Field("terms")),
        (RUN + 80, &[10], Bad::Field("terms")),
        (RUN + 80, &[12], Bad::Field("terms")),
        (RUN + 88, &[3], Bad::Field("terms")),
    ];
    for (at, value, bad) in cases {
        let mut bytes = good[..end].to_vec();
        bytes[*at..at + value.len()].copy_from_slice(value);
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Index::decode_summary(&bytes), Err(*bad), "{at}");
    }
}

#[test]
fn places_that_are_none_are_refused() {
    let block = |places: &[u32]| -> Vec<u8> { places.iter().flat_map(|place| place.to_le_bytes()).collect() };
    let first = place_of(header_at(BATCHES_AT, 0));
    for (places, good) in [
        (&[first, first + 6][..], true),
        (&[first - 1, first], false),
        (&[first + 6, first], false),
        (&[first, first], false),
    ] {
        let bytes = block(places);
        let decoded = decode_block(&bytes, crc32fast::hash(&bytes), 2);
        let expected = if good {
            Ok(places.to_vec())
        } else {
            Err(Bad::Field("place"))
        };
        assert_eq!(decoded, expected);
    }
    assert_eq!(decode_block(&[0; 7], 0, 2), Err(Bad::Short));
}
