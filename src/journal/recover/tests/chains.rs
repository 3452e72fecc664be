//! Several segments: ends, floors, units that nobody proved, leftovers.

use super::*;
use crate::format::Facts;

/// S1: entries 0 and 1. S2: entries 2 and 3, closing in on S3. S3: entry 4 proven, entry 5 not.
pub(super) fn three_segments() -> [Made; 3] {
    let mut first = Made::new(1, 1, None);
    first.batch(0, &[create(1), entry(1, 0, b"zero")]);
    first.batch(2, &[entry(1, 1, b"one")]);
    let mut second = Made::new(2, 4, Some(first.end()));
    second.batch(0, &[entry(1, 2, b"two")]);
    second.batch(5, &[entry(1, 3, b"three")]);
    let mut third = Made::new(3, 7, Some(second.end()));
    third.batch(0, &[entry(1, 4, b"four")]);
    third.batch(8, &[entry(1, 5, b"five")]);
    [first, second, third]
}

pub(super) fn written() -> [&'static [u8]; 6] {
    [b"zero", b"one", b"two", b"three", b"four", b"five"]
}

fn save_all(disk: &SimFs, made: &[Made]) {
    for made in made {
        made.save(disk);
    }
}

#[test]
fn a_chain_is_read_from_the_floor_to_the_last_segment() {
    let disk = made::disk();
    save_all(&disk, &three_segments());
    let found = open(&disk);
    assert_eq!(segment_ids(&found), [1, 2, 3]);
    assert_eq!(entries(&found, 1), ["zero", "one", "two", "three", "four"]);
    assert_eq!(tail(&found).len(), 1);
    assert_eq!((found.next_sequence, found.next_segment), (10, 4));
    assert_eq!((found.report.segments, found.report.bytes), (3, 3 * FILE_LEN));
}

#[test]
fn a_good_index_spares_the_walk_and_a_bad_one_costs_nothing() {
    let disk = made::disk();
    let made = three_segments();
    save_all(&disk, &made);
    for missing in open(&disk).missing_indexes {
        made::save(&disk, &Segment::index_name(missing.segment.id), &missing.bytes);
    }
    let found = open(&disk);
    assert!(found.missing_indexes.is_empty());
    assert_eq!(entries(&found, 1), ["zero", "one", "two", "three", "four"]);

    disk.corrupt(&Segment::index_name(2), 10..60, 5).unwrap();
    let found = open(&disk);
    assert_eq!(found.missing_indexes.len(), 1);
    assert_eq!(entries(&found, 1), ["zero", "one", "two", "three", "four"]);

    // The blocks of an index may rot as well: then the segment is walked when they are needed.
    let index = Segment::index_name(1);
    let len = disk.files()[&index];
    disk.corrupt(&index, len - 8..len, 6).unwrap();
    assert_eq!(entries(&open(&disk), 1), ["zero", "one", "two", "three", "four"]);
}

#[test]
fn bytes_behind_the_recorded_end_are_void_for_ever() {
    let disk = made::disk();
    let [mut first, second, third] = three_segments();
    first.batch(3, &[entry(1, 2, b"void")]);
    first.mark(4, false);
    save_all(&disk, &[first, second, third]);
    let found = open(&disk);
    assert_eq!(entries(&found, 1), ["zero", "one", "two", "three", "four"]);
    assert!(found.report.cut.is_empty());
}

#[test]
fn a_sealed_segment_that_does_not_reach_its_recorded_end_is_damaged() {
    let made = three_segments();
    let last = made[0].headers[1];
    for at in [last.offset, last.offset + 60, last.offset + 100] {
        let disk = made::disk();
        save_all(&disk, &made);
        disk.flip_bit(&name(1), at, 0).unwrap();
        let error = refused(&disk);
        assert_eq!(
            (error.kind(), error.offset()),
            (ErrorKind::Damaged, Some(last.offset)),
            "{at}: {error}"
        );
        assert!(error.to_string().contains("everlog verify"), "{error}");
    }
    let disk = made::disk();
    let [first, mut second, _] = made;
    second.opening.pred = Some(End {
        chain: first.end().chain ^ 1,
        ..first.end()
    });
    let mut later = Made::new(2, 4, second.opening.pred);
    later.batch(0, &[entry(1, 2, b"two")]);
    save_all(&disk, &[first, later]);
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
}

/// Open proves structure; a rotten payload in a sealed segment is found by whoever reads it, or by `verify_on_open`.
#[test]
fn sealed_payloads_are_verified_when_read_or_when_asked_for() {
    let disk = made::disk();
    let made = three_segments();
    save_all(&disk, &made);
    disk.flip_bit(&name(2), made[1].headers[0].payloads_at(), 0)
        .unwrap();
    let found = open(&disk);
    let read = read(&found, 1);
    assert_eq!(read[2].as_ref().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(read.iter().filter(|entry| entry.is_ok()).count(), 4);
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let error = recover(&fs, &Config::new().verify_on_open(true), Mode::Writer)
        .err()
        .unwrap();
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Damaged, Some(made[1].headers[0].offset))
    );
}

#[test]
fn a_missing_predecessor_is_damage_and_a_missing_number_is_not() {
    let disk = made::disk();
    let made = three_segments();
    save_all(&disk, &made);
    disk.remove(&name(2)).unwrap();
    let error = refused(&disk);
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Damaged, Some(disk.display(&name(2)).as_path()))
    );

    let disk = made::disk();
    let mut skipping = Made::new(9, 4, Some(made[0].end()));
    skipping.batch(0, &[entry(1, 2, b"two")]);
    skipping.mark(5, false);
    save_all(&disk, &[made[0].clone(), skipping]);
    let found = open(&disk);
    assert_eq!((segment_ids(&found), found.next_segment), (vec![1, 9], 10));
}

#[test]
fn a_predecessor_without_an_opening_is_damage() {
    let disk = made::disk();
    save_all(&disk, &three_segments());
    disk.corrupt(&name(2), 0..256, 1).unwrap();
    disk.corrupt(&name(2), COPY_AT..COPY_AT + 256, 1).unwrap();
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
}

/// S4 restates what S1 to S3 held and moves the floor; of those only S2 was unlinked before the crash.
pub(super) fn floored(proven: bool) -> SimFs {
    let disk = made::disk();
    let made = three_segments();
    save_all(&disk, &made);
    let mut fourth = Made::new(4, 10, Some(made[2].end()));
    let first = Facts {
        first: 6,
        purged: Some(EntryId::new(7, 5)),
        last: Some(crate::types::Term(7)),
    };
    let end = fourth.batch(0, &[facts(1, 6, first), set(1, 0, b"vote"), floor(4)]);
    if proven {
        fourth.mark(end.sequence, false);
    }
    fourth.save(&disk);
    disk.remove(&name(2)).unwrap();
    disk
}

#[test]
fn leftovers_below_a_proven_floor_are_no_damage_and_may_go() {
    let found = open(&floored(true));
    assert_eq!((found.floor, found.floor_proven), (4, true));
    assert_eq!(segment_ids(&found), [4]);
    assert_eq!((log(&found, 1).start, log(&found, 1).end), (6, 6));
    assert_eq!(log(&found, 1).purged, Some(EntryId::new(7, 5)));
    assert_eq!(found.discard, [name(1), name(3)]);
    assert_eq!(found.incarnation_next, 9, "as the floor states");
}

/// The floor stands in a batch that nobody proved: it excuses what is missing, and permits deletion only when the next life's unit,
/// which carries it, is synced.
#[test]
fn an_unproven_floor_excuses_missing_files_and_permits_deletion_once_it_is_carried() {
    let found = open(&floored(false));
    assert_eq!((found.floor, found.floor_proven), (4, false));
    assert!(found.chain.is_empty(), "S4 itself is unproven");
    assert_eq!(found.pred.unwrap().segment, 3);
    assert_eq!(found.tail.len(), 3);
    assert_eq!(
        found.discard,
        [name(1), name(3), name(4)],
        "what the carried floor and the carrying unit supersede"
    );
}

/// Rule 4: the predecessor of the next unit is that of the unproven one, unchanged, and its content is the tail.
/// A floor that stands in an opening which nothing proves: missing files are excused, and none is removed by it.
#[test]
fn a_floor_that_only_an_unproven_opening_names_permits_no_deletion() {
    for missing in [false, true] {
        let disk = made::disk();
        let [first, second, mut third] = three_segments();
        third.opening.floor = 2;
        third.batches.clear();
        third.headers.clear();
        let mut again = Made::new(2, 4, second.opening.pred);
        again.batch(0, &[create(2), entry(2, 0, b"two")]);
        third.opening.pred = Some(again.end());
        save_all(&disk, &[first, again, third]);
        if missing {
            disk.remove(&name(1)).unwrap();
        }
        let found = open(&disk);
        assert_eq!((found.floor, found.floor_proven), (2, false));
        assert_eq!((segment_ids(&found), found.discard), (vec![2], vec![name(3)]));
    }
}

/// With such an opening, and a tail: only a floor in the tail lets go of what is below it. The index of an entry there is none.
#[test]
fn an_entry_in_the_tail_permits_no_deletion() {
    let disk = made::disk();
    let [first, second, _] = three_segments();
    let mut again = Made::new(2, 4, second.opening.pred);
    let begins = made::Item {
        index: 7,
        ..create(2)
    };
    again.batch(0, &[begins, entry(2, 7, b"seven")]);
    let mut third = Made::new(3, 7, Some(again.end()));
    third.opening.floor = 2;
    third.batch(0, &[entry(2, 8, b"eight")]);
    save_all(&disk, &[first, again, third]);
    let found = open(&disk);
    assert_eq!(tail(&found), [(Kind::Append, 8, Bytes::from("eight"))]);
    assert_eq!((found.floor, found.floor_proven), (2, false));
    assert_eq!((segment_ids(&found), found.discard), (vec![2], vec![name(3)]));
}

#[test]
fn an_unproven_unit_is_carried_again_under_its_own_predecessor() {
    let disk = made::disk();
    let [first, second, _] = three_segments();
    let mut unit = Made::new(3, 20, Some(first.end())).carry(&[entry(1, 2, b"two"), set(1, 0, b"vote")]);
    save_all(&disk, &[first.clone(), second.clone(), unit.clone()]);
    let found = open(&disk);
    assert_eq!((found.pred, segment_ids(&found)), (Some(first.end()), vec![1]));
    assert_eq!(entries(&found, 1), ["zero", "one"]);
    assert_eq!(tail(&found).len(), 2);
    assert_eq!(found.discard, [name(2), name(3)]);
    assert!(found.next_sequence > 21 && found.next_segment == 4);

    // With a mark it is proven, and not carried again.
    let disk = made::disk();
    unit.mark(21, false);
    save_all(&disk, &[first.clone(), second.clone(), unit.clone()]);
    let found = open(&disk);
    assert_eq!(
        (segment_ids(&found), found.report.carried_batches > 0),
        (vec![1, 3], false)
    );
    assert_eq!((found.pred.unwrap().sequence, found.discard), (21, vec![name(2)]));

    // While it does not verify as a whole, the old tail stands.
    for hit in [
        unit.headers[0].payloads_at(),
        unit.headers[0].offset,
        unit.headers[0].offset + 100,
    ] {
        let disk = made::disk();
        unit.batches
            .truncate(usize::try_from(unit.headers[0].len).unwrap());
        save_all(&disk, &[first.clone(), second.clone(), unit.clone()]);
        disk.flip_bit(&name(3), hit, 0).unwrap();
        let found = open(&disk);
        assert_eq!(
            (segment_ids(&found), found.report.verdict),
            (vec![1, 2], Verdict::Torn),
            "{hit}"
        );
        assert_eq!(entries(&found, 1), ["zero", "one", "two"]);
        assert_eq!(tail(&found), [(Kind::Append, 3, Bytes::from("three"))]);
    }
}

/// Rule 21: once witnessed, a rotten carried frame is damage of its log, and not a reason to go back to the old tail.
#[test]
fn a_witnessed_unit_whose_carried_frames_rotted_is_damage() {
    let disk = made::disk();
    let [first, second, _] = three_segments();
    let mut unit = Made::new(3, 20, Some(first.end())).carry(&[entry(1, 2, b"two"), set(1, 0, b"vote")]);
    unit.mark(21, false);
    save_all(&disk, &[first, second, unit.clone()]);
    disk.flip_bit(&name(3), unit.headers[0].payloads_at(), 0).unwrap();
    let error = refused(&disk);
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Damaged, Some(disk.display(&name(3)).as_path()))
    );
    let found = view(&disk);
    assert_eq!(segment_ids(&found), [1, 3]);
    assert_eq!(log(&found, 1).cells[&0].value.as_deref(), Some(&b"vote"[..]));
    let damage: Vec<_> = found
        .findings
        .iter()
        .filter(|finding| finding.is_damage())
        .collect();
    assert_eq!(
        (damage.len(), damage[0].log, damage[0].range.clone()),
        (1, Some(LogKey(1)), Some(2..3))
    );
}

/// A batch that verifies where the carried one should be, and is not the one that the opening names, makes no unit.
#[test]
fn a_unit_is_the_batch_that_its_opening_names() {
    let forge: [fn(&mut Made); 2] = [
        |made| made.opening.carry_crc ^= 1,
        |made| made.opening.carry_len += 8,
    ];
    for forged in forge {
        let disk = made::disk();
        let [first, second, _] = three_segments();
        let mut third = Made::new(3, 7, Some(second.end())).carry(&[entry(1, 4, b"four")]);
        forged(&mut third);
        save_all(&disk, &[first, second, third]);
        let found = open(&disk);
        assert_eq!(
            (segment_ids(&found), found.report.verdict),
            (vec![1, 2], Verdict::Torn)
        );
    }
}

/// Rule 2: opening and first batch go under one sync; the opening's sectors are lost, the batch persisted.
#[test]
fn a_lost_opening_is_void_unless_a_later_header_proves_it() {
    for (durable_through, kind) in [
        (0, None),
        (7, Some(ErrorKind::Damaged)),
        (8, Some(ErrorKind::Damaged)),
    ] {
        let disk = made::disk();
        let [first, second, mut third] = three_segments();
        third.batches.clear();
        third.headers.clear();
        third.batch(0, &[entry(1, 4, b"four")]);
        third.mark(durable_through, false);
        save_all(&disk, &[first, second, third]);
        disk.corrupt(&name(3), 0..4096, 1).unwrap();
        disk.write_raw(&name(3), COPY_AT, &[0; 4096]).unwrap();
        match kind {
            Some(kind) => assert_eq!(refused(&disk).kind(), kind, "{durable_through}"),
            None => {
                let found = open(&disk);
                assert_eq!(
                    (segment_ids(&found), found.report.verdict),
                    (vec![1, 2], Verdict::Torn)
                );
                assert_eq!(found.report.cut[0].batches, 2);
                assert_eq!(
                    (found.discard, found.next_sequence, found.next_segment),
                    (vec![name(3)], 10, 4)
                );
            }
        }
    }
}

/// A disk wrote the first batch of one segment at the same place of another, whose opening was lost in a legal crash. A header
/// of another segment bears witness to nothing here.
#[test]
fn a_header_of_another_segment_proves_no_lost_opening() {
    let disk = made::disk();
    let [first, second, third] = three_segments();
    save_all(&disk, &[first, second.clone(), third]);
    let len = usize::try_from(FILE_LEN - BATCHES_AT).unwrap();
    let mut strange = second.batches.clone();
    strange.resize(len, 0);
    disk.corrupt(&name(3), 0..4096, 1).unwrap();
    disk.write_raw(&name(3), COPY_AT, &[0; 4096]).unwrap();
    disk.write_raw(&name(3), BATCHES_AT, &strange).unwrap();
    let found = open(&disk);
    assert_eq!(
        (segment_ids(&found), found.report.verdict),
        (vec![1, 2], Verdict::Torn)
    );
    assert_eq!(found.report.cut[0].batches, 0);
}

#[test]
fn a_prepared_file_that_was_never_written_is_left_out_silently() {
    let disk = made::disk();
    save_all(&disk, &three_segments());
    made::save(&disk, &name(4), &vec![0; usize::try_from(FILE_LEN).unwrap()]);
    let found = open(&disk);
    assert_eq!((found.report.verdict, found.next_segment), (Verdict::Unclean, 5));
    assert!(found.discard.is_empty(), "it is used again");
    assert_eq!(found.blank, [4]);
}

/// The first batch of a life was torn and its opening persisted: nothing stands behind it.
#[test]
fn an_opening_without_a_batch_needs_no_carrying() {
    let disk = made::disk();
    let [first, second, mut third] = three_segments();
    third.batches.clear();
    third.headers.clear();
    save_all(&disk, &[first, second.clone(), third]);
    let found = open(&disk);
    assert_eq!(
        (found.pred, found.report.carried_batches > 0),
        (Some(second.end()), false)
    );
    assert_eq!((segment_ids(&found), found.discard), (vec![1, 2], vec![name(3)]));
}

#[test]
fn a_floor_above_its_own_segment_is_damage() {
    let disk = made::disk();
    let mut made = one_segment();
    made.batch(4, &[floor(99)]);
    made.mark(5, false);
    made.save(&disk);
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
}
