//! Names, offsets, windows, headers behind a bad place, single frames.

mod edges;
mod runs;
mod windows;

use proptest::prelude::*;

use super::cache::BlockCache;
use super::made::{self, Made, create, entry, set};
use super::read::{Wanted, read_payload};
use super::scan::{Identity, Window, scan};
use super::walk::{Depth, Step, Walk};
use super::*;
use crate::ErrorKind;
use crate::format::{BATCHES_AT, BatchHeader, Kind, header_at};
use crate::fs::{Access, Fs};
use crate::types::{LogKey, Term};

fn open(disk: &crate::fs::SimFs, made: &Made) -> Arc<Segment> {
    let name = Segment::name(made.opening.segment);
    let file = disk.open(&name, Access::Read).unwrap();
    Arc::new(Segment::new(
        made.opening.segment,
        file,
        disk.display(&name),
        made.opening.clone(),
    ))
}

fn wanted(log: u64, index: u64) -> Wanted {
    Wanted {
        kind: Kind::Append,
        cell: 0,
        log: LogKey(log),
        incarnation: 1,
        index,
        term: Term(7),
    }
}

/// Opening 10, batches 11 (create and two entries), 12 (a cell and an entry), 13 (a large entry).
fn three_batches() -> Made {
    let mut made = Made::new(1, 10, None);
    made.batch(0, &[create(1), entry(1, 0, b"zero"), entry(1, 1, b"one")]);
    made.batch(11, &[set(1, 3, b"vote"), entry(1, 2, b"two")]);
    made.batch(12, &[entry(1, 3, &[3; 9000])]);
    made
}

#[test]
fn only_names_that_we_would_write_are_segments() {
    assert_eq!(Segment::name(0x1f), "journal/000000000000001f.seg");
    assert_eq!(Segment::parse_name("000000000000001f.seg"), Some(0x1f));
    assert_eq!(Segment::parse_index_name("000000000000001f.idx"), Some(0x1f));
    let others = [
        "1f.seg",
        "000000000000001F.seg",
        "+00000000000001f.seg",
        "0000000000000000.seg",
        "000000000000001f.idx",
        "000000000000001f.seg.bak",
        "8000000000000000.seg",
    ];
    for other in others {
        assert_eq!(Segment::parse_name(other), None, "{other}");
    }
}

#[test]
fn slots_in_memory_join_and_forget() {
    let mut slots = Slots::one(5, 8192 + 96);
    assert!(slots.try_join(&Slots::one(6, 8192 + 144)));
    assert_eq!(slots.slot(6), Some(Slot::At(8192 + 144)));
    assert_eq!((slots.slot(4), slots.slot(7)), (None, None));
    slots.truncate(6);
    assert_eq!((slots.slot(5), slots.slot(6)), (Some(Slot::At(8192 + 96)), None));
    let block = BlockRef {
        base: 5,
        at: 100,
        count: 2,
        crc: 0,
    };
    assert!(!slots.try_join(&Slots::Block(block)));
    assert_eq!(Slots::Block(block).slot(6), Some(Slot::InBlock(block, 1)));
    assert_eq!(Slots::Block(block).slot(7), None);
}

#[test]
fn a_walk_gives_every_batch_and_ends_where_the_writer_did() {
    let (disk, made) = (made::disk(), three_batches());
    made.save(&disk);
    let segment = open(&disk, &made);
    let mut walk = Walk::new(&segment, made::FILE_LEN, Depth::Payloads, false).unwrap();
    for header in &made.headers {
        let Step::Batch(batch) = walk.step().unwrap() else {
            panic!("batch {} is bad", header.sequence)
        };
        assert_eq!(batch.header, *header);
    }
    assert_eq!(walk.end(), made.end());
    assert!(matches!(walk.step().unwrap(), Step::Bad(bad) if bad.sequence == 14 && bad.rest.is_none()));
}

/// A batch that verifies and is not the next one, by its sequence or by what it names as the one before, ends the walk.
#[test]
fn a_batch_that_does_not_follow_is_bad() {
    let forge: [fn(&mut BatchHeader); 2] = [|last| last.crc ^= 1, |last| last.sequence += 1];
    for forged in forge {
        let disk = made::disk();
        let mut made = Made::new(1, 10, None);
        made.batch(0, &[create(1), entry(1, 0, b"zero")]);
        let end = made.end().offset;
        forged(made.headers.last_mut().unwrap());
        made.batch(11, &[entry(1, 1, b"one")]);
        made.save(&disk);
        let segment = open(&disk, &made);
        let mut walk = Walk::new(&segment, made::FILE_LEN, Depth::Payloads, false).unwrap();
        assert!(matches!(walk.step().unwrap(), Step::Batch(_)));
        assert!(matches!(walk.step().unwrap(), Step::Bad(bad) if bad.at == end));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_batch_is_found() {
    let made = three_batches();
    let header = made.headers[1];
    let used = header.payloads_at() + u64::from(header.payload_len);
    for offset in (header.offset..used).step_by(if cfg!(miri) { 97 } else { 1 }) {
        let disk = made::disk();
        made.save(&disk);
        disk.flip_bit(&Segment::name(1), offset, u32::try_from(offset % 8).unwrap())
            .unwrap();
        let segment = open(&disk, &made);
        let mut walk = Walk::new(&segment, made::FILE_LEN, Depth::Payloads, false).unwrap();
        assert!(matches!(walk.step().unwrap(), Step::Batch(_)));
        assert!(
            matches!(walk.step().unwrap(), Step::Bad(bad) if bad.sequence == 12),
            "offset {offset}"
        );
    }
}

#[test]
fn a_scan_finds_headers_at_their_own_place_only() {
    let made = three_batches();
    let mut bytes = made.bytes();
    // A real batch of this very segment, copied to where nothing is: its own offset gives it away.
    let from = usize::try_from(made.headers[2].offset).unwrap();
    bytes.copy_within(from..from + 96, 24_000);
    let disk = made::disk();
    made::save(&disk, &Segment::name(1), &bytes);
    let segment = open(&disk, &made);
    let mut window = Window::new(&*segment.file, &segment.path, made::FILE_LEN, 4096, false);
    let identity = Identity::of(&made.opening);
    let seen = scan(&mut window, identity, BATCHES_AT..made::FILE_LEN, None).unwrap();
    assert_eq!((seen.headers, seen.durable_through, seen.sequence), (3, 12, 13));
    assert_eq!(
        seen.end,
        24_000 + 78,
        "behind the last byte of the copy that is not zero"
    );
    let stop = scan(&mut window, identity, BATCHES_AT..made::FILE_LEN, Some(12))
        .unwrap()
        .stop;
    assert_eq!(stop, Some(made.headers[1]));
    let behind = scan(&mut window, identity, 24_096..made::FILE_LEN, None).unwrap();
    assert_eq!((behind.headers, behind.end), (0, 24_096));
}

#[test]
#[cfg_attr(miri, ignore = "a window has a MiB, which takes Miri minutes")]
fn a_scan_finds_headers_across_window_edges() {
    let mut made = Made::new(1, 10, None);
    made.opening.len = 4 << 20;
    made.batch(0, &[create(1), entry(1, 0, &vec![1; (1 << 20) - 200])]);
    for index in 1..2000 {
        made.batch(
            10 + index,
            &[entry(1, index, &vec![2; usize::try_from(index % 700).unwrap()])],
        );
    }
    let mut bytes = made.bytes();
    bytes.truncate(8192);
    bytes.extend_from_slice(&made.batches);
    let len = bytes.len() as u64;
    let disk = made::disk();
    made::save(&disk, &Segment::name(1), &bytes);
    let segment = open(&disk, &made);
    for start in [BATCHES_AT, BATCHES_AT + 8, BATCHES_AT + 88] {
        let mut window = Window::new(&*segment.file, &segment.path, len, 4096, false);
        let seen = scan(&mut window, Identity::of(&made.opening), start..len, None).unwrap();
        assert_eq!(
            seen.headers,
            2000 - u64::from(start != BATCHES_AT),
            "from {start}"
        );
        assert_eq!(seen.end, len);
    }
}

#[test]
fn one_frame_alone_verifies_or_says_where_it_does_not() {
    let (disk, made) = (made::disk(), three_batches());
    made.save(&disk);
    let segment = open(&disk, &made);
    let (first, large) = (made.headers[0], made.headers[2]);
    let at = header_at(first.offset, 2);
    assert_eq!(read_payload(&segment, at, &wanted(1, 1)).unwrap(), "one");
    assert_eq!(
        read_payload(&segment, header_at(large.offset, 0), &wanted(1, 3)).unwrap(),
        vec![3; 9000]
    );
    for other in [
        wanted(2, 1),
        wanted(1, 0),
        Wanted {
            term: Term(8),
            ..wanted(1, 1)
        },
    ] {
        let error = read_payload(&segment, at, &other).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::Damaged, Some(at)));
    }
    let payload = first.payloads_at() + 4;
    disk.flip_bit(&Segment::name(1), payload, 0).unwrap();
    let error = read_payload(&segment, at, &wanted(1, 1)).unwrap_err();
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Damaged, Some(payload))
    );
    disk.set_unreadable(&Segment::name(1), 16..17, true).unwrap();
    assert_eq!(
        read_payload(&segment, at, &wanted(1, 0)).unwrap_err().kind(),
        ErrorKind::Io
    );
    assert_eq!(
        read_payload(&segment, u64::MAX - 3, &wanted(1, 0))
            .unwrap_err()
            .kind(),
        ErrorKind::Damaged
    );
}

#[test]
fn offsets_come_from_the_index_and_without_it_from_the_segment() {
    let (disk, made) = (made::disk(), three_batches());
    made.save(&disk);
    let segment = open(&disk, &made);
    let built = index::build(&segment, made.end(), Depth::Payloads, &mut |_| {}).unwrap();
    let Ok(built) = built else {
        panic!("the segment is sound")
    };
    let coverage = index::coverage(&built.bytes).unwrap();
    let (range, block) = coverage[&(LogKey(1), 1)][0].clone();
    assert_eq!(range, 0..4);

    segment.seal(made.end(), IndexBytes::Memory(built.bytes.clone()));
    let cache = BlockCache::new(0);
    let at = cache.offset(&segment, Slot::InBlock(block, 3)).unwrap();
    assert_eq!(at, header_at(made.headers[2].offset, 0));

    let again = open(&disk, &made);
    again.seal(
        made.end(),
        IndexBytes::Memory(Bytes::from_static(b"not an index")),
    );
    assert_eq!(
        BlockCache::new(0)
            .offset(&again, Slot::InBlock(block, 3))
            .unwrap(),
        at
    );
    let error = BlockCache::new(0)
        .offset(&open(&disk, &made), Slot::InBlock(block, 3))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[test]
fn an_index_of_another_end_is_not_trusted() {
    let (disk, made) = (made::disk(), three_batches());
    made.save(&disk);
    let segment = open(&disk, &made);
    let Ok(built) = index::build(&segment, made.end(), Depth::Tables, &mut |_| {}).unwrap() else {
        panic!()
    };
    let name = Segment::index_name(1);
    made::save(&disk, &name, &built.bytes);
    let file = disk.open(&name, Access::Read).unwrap();
    assert!(index::read_trusted(&*file, &segment, made.end()).is_some());
    let other = End {
        chain: made.end().chain ^ 1,
        ..made.end()
    };
    assert!(index::read_trusted(&*file, &segment, other).is_none());
    disk.flip_bit(&name, 70, 3).unwrap();
    assert!(index::read_trusted(&*file, &segment, made.end()).is_none());
}

#[test]
fn the_cache_keeps_what_was_used_last_and_stays_within_its_bound() {
    let (disk, made) = (made::disk(), {
        let mut made = Made::new(1, 10, None);
        for log in 0..20 {
            made.batch(0, &[create(log), entry(log, 0, b"a"), entry(log, 1, b"b")]);
        }
        made
    });
    made.save(&disk);
    let segment = open(&disk, &made);
    let Ok(built) = index::build(&segment, made.end(), Depth::Tables, &mut |_| {}).unwrap() else {
        panic!()
    };
    segment.seal(made.end(), IndexBytes::Memory(built.bytes.clone()));
    let cache = BlockCache::new(5 * 8);
    for round in 0..3 {
        for ((_, _), blocks) in index::coverage(&built.bytes).unwrap() {
            assert_eq!(
                cache.slots(&segment, &blocks[0].1).unwrap().len(),
                2,
                "round {round}"
            );
        }
    }
    assert_eq!(cache.held_bytes(), 5 * 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 64 }))]

    /// Whatever stands where batches should be, a walk and a scan end, and the walk gives out only what was written.
    #[test]
    fn walking_garbled_batches_never_panics(
        hits in proptest::collection::vec((0usize..12_000, any::<u8>()), 0..40),
        tolerant in any::<bool>(),
    ) {
        let made = three_batches();
        let mut bytes = made.bytes();
        for (at, byte) in hits {
            bytes[8192 + at] = byte;
        }
        let disk = made::disk();
        made::save(&disk, &Segment::name(1), &bytes);
        let segment = open(&disk, &made);
        let mut walk = Walk::new(&segment, made::FILE_LEN, Depth::Payloads, tolerant).unwrap();
        let mut steps = 0;
        loop {
            steps += 1;
            prop_assert!(steps < 100);
            match walk.step().unwrap() {
                Step::Full => break,
                Step::Batch(batch) => prop_assert!(made.headers.contains(&batch.header)),
                Step::Bad(bad) => match bad.rest {
                    Some(rest) => walk.skip(&rest.header),
                    None => match walk.scan(bad.at + 1, Some(bad.sequence)).unwrap().stop {
                        Some(header) => walk.resume(&header),
                        None => break,
                    },
                },
            }
        }
    }
}
