//! Where something begins to hold and where it ends: each bound from both sides, each condition alone, each refusal by its words.

use super::*;
use crate::format::{Facts, IndexOp};
use crate::fs::SimFs;
use crate::segment::ahead::ReadAhead;
use crate::segment::scan::WINDOW_TABLES;
use crate::segment::walk::BadPlace;

pub(super) const LEN: u64 = made::FILE_LEN;

pub(super) fn saved(made: &Made) -> (SimFs, Arc<Segment>) {
    let disk = made::disk();
    made.save(&disk);
    let segment = open(&disk, made);
    (disk, segment)
}

fn flipped(made: &Made, at: u64) -> (SimFs, Arc<Segment>) {
    let (disk, segment) = saved(made);
    disk.flip_bit(&Segment::name(1), at, 0).unwrap();
    (disk, segment)
}

#[test]
fn a_header_belongs_to_a_segment_by_each_of_its_marks() {
    let made = three_batches();
    let identity = Identity::of(&made.opening);
    let header = made.headers[1];
    let accepts = |change: fn(&mut BatchHeader)| {
        let mut header = header;
        change(&mut header);
        identity.accepts(&header, made.headers[1].offset)
    };
    assert!(accepts(|_| {}));
    assert!(!accepts(|header| header.segment += 1));
    assert!(!accepts(|header| header.salt += 1));
    assert!(!accepts(|header| header.offset += 8));
    assert!(accepts(|header| header.sequence = 11));
    assert!(!accepts(|header| header.sequence = 10), "that is the opening's");
    assert!(accepts(|header| header.durable_through = 0));
    assert!(
        accepts(|header| header.durable_through = 10),
        "the opening is proven"
    );
    assert!(!accepts(|header| header.durable_through = 9));
    let blocks = Identity::of(&Opening {
        align_shift: 12,
        ..made.opening.clone()
    });
    let padded = |len| BatchHeader { len, ..header };
    assert!(blocks.accepts(&padded(8192), header.offset));
    assert!(!blocks.accepts(&padded(4096 + 8), header.offset));
    assert!(Identity::unknown(1).accepts(&header, header.offset));
    assert!(!Identity::unknown(2).accepts(&header, header.offset));
}

#[test]
fn a_scan_tells_what_it_saw_up_to_its_end() {
    let made = three_batches();
    let (_disk, segment) = saved(&made);
    let seen = |range| {
        let mut window = Window::new(&*segment.file, &segment.path, LEN, 4096, false);
        let seen = scan(&mut window, Identity::of(&made.opening), range, None).unwrap();
        (
            seen.headers,
            seen.sequence,
            seen.durable_through,
            seen.time,
            seen.end,
        )
    };
    let [first, second, third] = made.headers[..] else {
        panic!("three");
    };
    let whole = (3, 13, 12, third.time, third.end());
    assert_eq!(seen(BATCHES_AT..LEN), whole);
    assert_eq!(seen(BATCHES_AT..third.end()), whole);
    let two = (2, 12, 11, second.time, second.end());
    assert_eq!(seen(BATCHES_AT..third.offset), two);
    let clipped = (3, 13, 12, third.time, third.offset + 96);
    assert_eq!(
        seen(BATCHES_AT..third.offset + 96),
        clipped,
        "no further than asked"
    );
    let behind = (0, 0, 0, 0, third.end());
    assert_eq!(seen(third.end()..LEN), behind);
    assert_eq!(
        seen(second.offset..third.offset),
        (1, 12, 11, second.time, second.end())
    );
    assert_eq!(first.end(), second.offset);
}

#[test]
fn what_cannot_be_read_is_a_hole_of_whole_blocks_and_no_more() {
    let made = three_batches();
    let (disk, segment) = saved(&made);
    let bytes = made.bytes();
    disk.set_unreadable(&Segment::name(1), 18..19, true).unwrap();
    let mut window = Window::new(&*segment.file, &segment.path, LEN, 4096, true);
    let read = window.get(9000, 8000).unwrap();
    let edge = 12_288 - 9000;
    assert!(read[..edge].iter().all(|byte| *byte == 0), "taken for zeros");
    assert_eq!(read[edge..], bytes[12_288..17_000]);
    let hole = Some(9000..12_288);
    assert_eq!(window.hole_in(0..LEN), hole);
    assert_eq!(window.hole_in(12_287..12_288), hole);
    assert_eq!(window.hole_in(8999..9001), hole);
    assert_eq!(
        (window.hole_in(0..9000), window.hole_in(12_288..LEN)),
        (None, None)
    );

    // Whoever does not take holes is told of the place, and of none that was only read ahead.
    let mut window = Window::new(&*segment.file, &segment.path, LEN, WINDOW_TABLES, false);
    assert_eq!(window.get(8192, 100).unwrap(), &bytes[8192..8292]);
    assert_eq!(window.get(12_288, 100).unwrap(), &bytes[12_288..12_388]);
    let error = window.get(9000, 500).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Io, Some(9000)));
    assert_eq!(window.get(LEN - 10, 100).unwrap().len(), 10);
    assert_eq!(window.get(LEN, 1).unwrap().len(), 0);
    assert_eq!(window.get(LEN + 10, 1).unwrap().len(), 0);
    assert_eq!(window.get(0, 256).unwrap(), &bytes[..256]);
    assert_eq!(window.get(200, 50).unwrap(), &bytes[200..250]);
}

/// Walks to the first place that is no batch: how many there were, and what is wrong; nothing if there is no room for one.
fn walked(segment: &Segment, to: u64) -> (usize, Option<BadPlace>) {
    let mut walk = Walk::new(segment, to, Depth::Payloads, false).unwrap();
    for count in 0.. {
        match walk.step().unwrap() {
            Step::Batch(_) => {}
            Step::Bad(bad) => return (count, Some(bad)),
            Step::Full => return (count, None),
        }
    }
    unreachable!()
}

#[test]
fn a_walk_ends_where_there_is_no_room_for_a_header_and_says_why_a_batch_is_bad() {
    let made = three_batches();
    let (_disk, segment) = saved(&made);
    let third = made.headers[2];
    for (to, count, bad) in [
        (third.end(), 3, false),
        (third.end() - 1, 2, true),
        (third.offset + 96, 2, true),
        (third.offset + 95, 2, false),
        (third.offset, 2, false),
    ] {
        let (batches, found) = walked(&segment, to);
        assert_eq!((batches, found.is_some()), (count, bad), "to {to}");
        if let Some(found) = found {
            let text = format!("the batch ends at {}, behind the end of its segment", third.end());
            assert_eq!((found.at, found.sequence, found.what), (third.offset, 13, text));
        }
    }
    type Forge = fn(&mut BatchHeader);
    let forge: [(Forge, &str); 2] = [
        (|h| h.crc ^= 1, "the batch does not follow the one before it"),
        (|h| h.sequence += 1, "the batch has sequence 13 where 12 belongs"),
    ];
    for (forged, text) in forge {
        let mut made = Made::new(1, 10, None);
        made.batch(0, &[create(1)]);
        forged(made.headers.last_mut().unwrap());
        made.batch(11, &[entry(1, 0, b"zero")]);
        let (_disk, segment) = saved(&made);
        let (batches, bad) = walked(&segment, LEN);
        assert_eq!((batches, bad.map(|bad| bad.what)), (1, Some(text.to_owned())));
    }
    let mut made = three_batches();
    let copy = made.batches[..96].to_vec();
    made.batches.extend_from_slice(&copy);
    let (_disk, segment) = saved(&made);
    let what = walked(&segment, LEN).1.unwrap().what;
    assert_eq!(
        what,
        "the batch header belongs to offset 8192 of segment 0000000000000001"
    );
}

#[test]
fn what_is_left_of_a_bad_batch_is_told_frame_by_frame() {
    let made = three_batches();
    let first = made.headers[0];
    let left = |at: u64| {
        let (_disk, segment) = flipped(&made, at);
        let (batches, bad) = walked(&segment, LEN);
        let bad = bad.unwrap();
        let rest = bad.rest.unwrap();
        let frames: Vec<_> = rest.frames.iter().map(|(i, _, sound)| (*i, *sound)).collect();
        assert_eq!((batches, bad.at, bad.sequence, rest.header), (0, 8192, 11, first));
        (bad.what, frames, rest.unknown)
    };
    let all = [(0, true), (1, true), (2, true)];
    let what = "the frame headers of the batch are bad: checksum does not match".to_owned();
    let some = vec![all[0], all[2]];
    assert_eq!(left(header_at(8192, 1) + 9), (what.clone(), some, true));
    // The one term, which `create` does not have.
    assert_eq!(left(header_at(8192, 3) + 2), (what, vec![all[0]], true));
    let what = "1 of the batch's 3 payloads do not match their checksum".to_owned();
    let payloads = vec![all[0], (1, false), all[2]];
    assert_eq!(left(first.payloads_at()), (what, payloads, false));
}

fn build(segment: &Segment, end: End, depth: Depth) -> (std::result::Result<(Bytes, u64), BadPlace>, u64) {
    let mut walked = 0;
    let built = index::build(segment, end, depth, &mut |bytes| walked += bytes).unwrap();
    (built.map(|built| (built.bytes, built.batches)), walked)
}

#[test]
fn an_index_is_built_of_a_segment_that_ends_just_where_it_should() {
    let made = three_batches();
    let (_disk, segment) = saved(&made);
    let end = made.end();
    let (built, walked) = build(&segment, end, Depth::Payloads);
    assert_eq!((built.unwrap().1, walked), (3, end.offset - BATCHES_AT));
    let refused = |end: End| {
        let (built, _) = build(&segment, end, Depth::Tables);
        let bad = built.unwrap_err();
        assert!(bad.rest.is_none());
        (bad.at, bad.sequence, bad.what)
    };
    let before = End {
        offset: end.offset + 95,
        ..end
    };
    let text = format!("the segment is stated to end at {}", end.offset + 95);
    assert_eq!(refused(before), (end.offset, 14, text));
    for other in [
        End { sequence: 14, ..end },
        End {
            chain: end.chain ^ 1,
            ..end
        },
    ] {
        let (at, sequence, what) = refused(other);
        assert_eq!((at, sequence), (end.offset, other.sequence));
        assert!(
            what.starts_with("the segment does not end as its successor states: "),
            "{what}"
        );
    }
    let second = made.headers[1];
    let (at, sequence, what) = refused(End {
        offset: second.end() - 8,
        ..end
    });
    assert_eq!((at, sequence), (second.offset, 12), "{what}");

    let mut made = Made::new(1, 10, None);
    let facts = Facts {
        first: 0,
        purged: None,
        last: None,
    };
    let header = made.batch(0, &[create(1), made::facts(1, 0, facts)]);
    let (_disk, segment) = flipped(&made, header.payloads_at());
    let (built, _) = build(&segment, made.end(), Depth::Tables);
    let bad = built.unwrap_err();
    let text = format!(
        "the payload of the Facts frame at {} does not match its checksum",
        header_at(8192, 1)
    );
    assert_eq!((bad.at, bad.sequence, bad.what), (8192, 11, text));
}

#[test]
fn an_index_file_is_trusted_if_it_is_whole_and_of_this_segment() {
    let mut made = Made::new(1, 10, None);
    made.batch(0, &[create(1), set(1, 0, b"vote")]);
    let no_run = made.clone();
    made.batch(11, &[entry(1, 0, b"zero")]);
    for made in [no_run, made] {
        let (disk, segment) = saved(&made);
        let (bytes, _) = build(&segment, made.end(), Depth::Tables).0.unwrap();
        let trusted = |n: usize, bytes: &[u8], segment: &Segment, end: End| {
            let name = Segment::index_name(100 + n as u64);
            made::save(&disk, &name, bytes);
            let file = disk.open(&name, Access::Read).unwrap();
            index::read_trusted(&*file, segment, end).is_some()
        };
        assert!(trusted(0, &bytes, &segment, made.end()));
        assert!(!trusted(1, &bytes[..bytes.len() - 1], &segment, made.end()));
        let other = End {
            sequence: made.end().sequence + 1,
            ..made.end()
        };
        assert!(!trusted(2, &bytes, &segment, other));
        for change in [|o: &mut Opening| o.salt += 1, |o: &mut Opening| o.segment = 2] {
            let mut opening = made.opening.clone();
            change(&mut opening);
            let id = opening.segment;
            let another = Segment::new(id, Arc::clone(&segment.file), segment.path.clone(), opening);
            assert!(!trusted(
                3 + usize::try_from(id).unwrap(),
                &bytes,
                &another,
                made.end()
            ));
        }
    }
}

#[test]
fn a_block_is_read_up_to_the_last_byte_of_an_index_and_no_further() {
    let disk = made::disk();
    made::save(&disk, &Segment::index_name(1), b"0123456789");
    let file = disk.open(&Segment::index_name(1), Access::Read).unwrap();
    for index in [
        IndexBytes::Memory(Bytes::from_static(b"0123456789")),
        IndexBytes::File(file),
    ] {
        let read = |at, len| index::read_block(&index, at, len);
        assert_eq!(read(2, 8).as_deref(), Some(&b"23456789"[..]));
        assert_eq!(read(0, 10).as_deref(), Some(&b"0123456789"[..]));
        assert_eq!((read(3, 8), read(11, 0), read(u64::MAX, 2)), (None, None, None));
    }
}

#[test]
fn what_an_index_covers_is_what_was_left_when_the_segment_was_sealed() {
    let cut = |index| made::Item {
        kind: Kind::Truncate,
        ..entry(1, index, b"")
    };
    let reset = |index| made::Item {
        kind: Kind::Reset,
        ..entry(1, index, b"")
    };
    let covered = |items: &[&[made::Item]]| {
        let mut made = Made::new(1, 10, None);
        for items in items {
            made.batch(0, items);
        }
        let (_disk, segment) = saved(&made);
        let (bytes, _) = build(&segment, made.end(), Depth::Tables).0.unwrap();
        let covered = index::coverage(&bytes).unwrap();
        let ranges = covered[&(LogKey(1), 1)].iter().map(|(range, block)| {
            assert!(block.base <= range.start && block.count > 0);
            range.clone()
        });
        ranges.collect::<Vec<_>>()
    };
    let only = |range: std::ops::Range<u64>| std::slice::from_ref(&range).to_vec();
    let entries = |range: std::ops::Range<u64>| range.map(|i| entry(1, i, b"x")).collect::<Vec<_>>();
    assert_eq!(covered(&[&entries(0..4)]), only(0..4));
    assert_eq!(covered(&[&entries(0..4), &[cut(2)]]), only(0..2));
    assert_eq!(covered(&[&entries(0..4), &[cut(4)]]), only(0..4));
    assert_eq!(covered(&[&entries(0..4), &[cut(0)]]), []);
    assert_eq!(
        covered(&[&entries(0..4), &[cut(2)], &entries(2..3)]),
        [0..2, 2..3]
    );
    assert_eq!(
        covered(&[&entries(0..4), &[reset(9)], &entries(9..10)]),
        only(9..10)
    );
    assert_eq!(
        covered(&[&entries(0..4), &[create(1)], &entries(0..1)]),
        only(0..1)
    );
    let deleted = made::Item {
        kind: Kind::Delete,
        ..create(1)
    };
    assert_eq!(covered(&[&entries(0..4), &[deleted]]), []);
    assert!(index::coverage(b"not an index").is_none());
}

#[test]
fn an_index_can_be_built_anew_once_the_end_is_known() {
    let made = three_batches();
    let (disk, segment) = saved(&made);
    let error = index::rebuild(&segment).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the segment has no index and no known end"),
        "{error}"
    );
    segment.seal(made.end(), IndexBytes::Memory(Bytes::new()));
    let IndexBytes::Memory(bytes) = index::rebuild(&segment).unwrap() else {
        panic!("it is in memory");
    };
    let index = index::trusted(&bytes, &segment, made.end()).unwrap();
    assert!(matches!(
        &index.ops[..],
        [IndexOp::Frame { .. }, IndexOp::Run(_), IndexOp::Frame { .. }]
    ));
    let second = made.headers[1].offset;
    disk.flip_bit(&Segment::name(1), second + 20, 0).unwrap();
    let error = index::rebuild(&segment).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Damaged, Some(second)));
}

#[test]
fn a_frame_is_the_one_that_is_wanted_by_each_of_its_fields() {
    let made = three_batches();
    let (_disk, segment) = saved(&made);
    let vote = header_at(made.headers[1].offset, 0);
    let cell = Wanted {
        kind: Kind::Cell,
        cell: 3,
        term: Term(0),
        ..wanted(1, 99)
    };
    assert_eq!(
        read_payload(&segment, vote, &cell).unwrap(),
        "vote",
        "the index says nothing"
    );
    let read = |wanted: Wanted| read_payload(&segment, vote, &wanted);
    for other in [
        Wanted { cell: 4, ..cell },
        Wanted {
            log: LogKey(2),
            ..cell
        },
        Wanted {
            incarnation: 2,
            ..cell
        },
        Wanted {
            kind: Kind::CellUnknown,
            ..cell
        },
    ] {
        let error = read(other).unwrap_err().to_string();
        assert!(error.contains("another frame stands here: "), "{error}");
    }
    let error = read(Wanted { cell: 4, ..cell }).unwrap_err().to_string();
    assert!(
        error.contains("(log 1, cell 4); `everlog verify` lists all damage"),
        "{error}"
    );
    let error = read_payload(&segment, vote + 8, &wanted(1, 2))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the frame header is bad: checksum does not match (log 1, entry 2)"),
        "{error}"
    );
}

#[test]
fn a_frame_is_read_up_to_the_last_byte_of_its_file() {
    let made = three_batches();
    let third = made.headers[2];
    let at = header_at(third.offset, 0);
    let payload = third.payloads_at();
    for (len, wrong) in [
        (payload + 9000, None),
        (
            payload + 8999,
            Some((payload, "the file ends before the payload")),
        ),
        (at + 48, Some((payload, "the file ends before the payload"))),
        (at + 47, Some((at, "the file ends before the frame"))),
        (at - 1, Some((at, "the file ends before the frame"))),
    ] {
        let disk = made::disk();
        let bytes = made.bytes();
        made::save(&disk, &Segment::name(1), &bytes[..usize::try_from(len).unwrap()]);
        let segment = open(&disk, &made);
        let alone = read_payload(&segment, at, &wanted(1, 3));
        let ahead = ReadAhead::new().read_payload(&segment, at, &wanted(1, 3));
        for read in [alone, ahead] {
            match (read, wrong) {
                (Ok(bytes), None) => assert_eq!(bytes, vec![3; 9000]),
                (Err(error), Some((at, text))) => {
                    assert_eq!((error.kind(), error.offset()), (ErrorKind::Damaged, Some(at)));
                    assert!(error.to_string().contains(text), "{error}");
                }
                (read, wrong) => panic!("{read:?}, not {wrong:?}"),
            }
        }
    }
}

/// Neither one that stands behind the entry in what is read at once, nor one that an older window held.
#[test]
fn a_sector_that_cannot_be_read_is_the_trouble_of_its_own_entry() {
    let made = three_batches();
    let (disk, segment) = saved(&made);
    let third = made.headers[2].payloads_at();
    let sector = (third + 4096) / 512;
    disk.set_unreadable(&Segment::name(1), sector..sector + 1, true)
        .unwrap();
    let mut ahead = ReadAhead::new();
    let first = header_at(BATCHES_AT, 1);
    for _ in 0..2 {
        assert_eq!(read_payload(&segment, first, &wanted(1, 0)).unwrap(), "zero");
        assert_eq!(
            ahead.read_payload(&segment, first, &wanted(1, 0)).unwrap(),
            "zero"
        );
        let at = header_at(made.headers[2].offset, 0);
        let error = ahead.read_payload(&segment, at, &wanted(1, 3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    }
    assert!(ahead.read_payload(&segment, first, &wanted(1, 0)).is_ok());
    disk.set_unreadable(&Segment::name(1), 0..128, true).unwrap();
    let kept = ahead.read_payload(&segment, first, &wanted(1, 0));
    assert_eq!(kept.unwrap(), "zero", "the window has it");
    let other = Segment::new(
        2,
        Arc::clone(&segment.file),
        segment.path.clone(),
        made.opening.clone(),
    );
    let error = ahead.read_payload(&other, first, &wanted(1, 0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "and it is of one segment");
}

#[test]
fn the_cache_drops_what_was_used_least_recently() {
    let mut made = Made::new(1, 10, None);
    for log in 0..3 {
        made.batch(0, &[create(log), entry(log, 0, b"a"), entry(log, 1, b"b")]);
    }
    let (disk, segment) = saved(&made);
    let (bytes, _) = build(&segment, made.end(), Depth::Tables).0.unwrap();
    let covered = index::coverage(&bytes).unwrap();
    let block = |log| covered[&(LogKey(log), 1)][0].1;
    segment.seal(made.end(), IndexBytes::Memory(bytes.clone()));
    for (room, kept) in [
        (16, [true, false, true]),
        (15, [false, false, true]),
        (24, [true; 3]),
    ] {
        let cache = BlockCache::new(room);
        for log in [0, 1, 0, 2] {
            cache.slots(&segment, &block(log)).unwrap();
        }
        assert!(cache.held_bytes() <= room);
        // Without its index and its bytes a segment tells what the cache has, and nothing else.
        let bare = open(&disk, &made);
        disk.set_unreadable(&Segment::name(1), 0..128, true).unwrap();
        let held = [0, 1, 2].map(|log| cache.slots(&bare, &block(log)).is_ok());
        disk.set_unreadable(&Segment::name(1), 0..128, false).unwrap();
        assert_eq!(held, kept, "{room} bytes");
    }
    let none = BlockCache::new(0);
    none.slots(&segment, &block(2)).unwrap();
    assert_eq!(none.held_bytes(), 8, "one is held, whatever its size");
    let cache = BlockCache::new(100);
    let at = |n| cache.offset(&segment, Slot::InBlock(block(0), n));
    assert_eq!(at(1).unwrap(), header_at(made.headers[0].offset, 2));
    let error = at(2).unwrap_err().to_string();
    assert!(
        error.contains("an index block is shorter than it was stated to be"),
        "{error}"
    );
    disk.set_unreadable(&Segment::name(1), 0..128, true).unwrap();
    let in_memory = BlockCache::new(100).slots(&segment, &block(1));
    assert_eq!(in_memory.unwrap().len(), 2, "the index has it");
    disk.set_unreadable(&Segment::name(1), 0..128, false).unwrap();
    let wrong = BlockRef { crc: 0, ..block(1) };
    let error = BlockCache::new(100)
        .slots(&segment, &wrong)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("can neither be read nor rebuilt; run `everlog verify`"),
        "{error}"
    );
}
