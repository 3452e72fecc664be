//! Files under names that are not theirs, and ids that no journal reaches.

use super::chains::{floored, three_segments};
use super::*;

/// The bytes of `made` under the name of segment `id`.
fn save_as(disk: &SimFs, id: u64, made: &Made) {
    made::save(disk, &name(id), &made.bytes());
}

/// S2 was superseded by S3, which goes back to S1, and is not there under its own name.
fn superseded() -> (SimFs, [Made; 3]) {
    let disk = made::disk();
    let [first, second, _] = three_segments();
    let mut third = Made::new(3, 7, Some(first.end()));
    third.batch(0, &[entry(1, 2, b"two")]);
    third.batch(8, &[entry(1, 3, b"three")]);
    first.save(&disk);
    third.save(&disk);
    (disk, [first, second, third])
}

#[test]
fn the_second_name_of_a_superseded_segment_says_nothing_and_goes() {
    for id in [2, 9] {
        let (disk, [_, second, _]) = superseded();
        if id == 2 {
            // What is superseded under its own name goes, too.
            second.save(&disk);
        } else {
            save_as(&disk, id, &second);
        }
        let found = open(&disk);
        assert_eq!((segment_ids(&found), found.discard), (vec![1, 3], vec![name(id)]));
        assert_eq!(found.next_segment, id.max(3) + 1);
        assert_eq!(found.in_use.len(), 3);
    }
}

#[test]
fn a_file_whose_segment_counts_or_may_count_is_refused_under_another_name() {
    let (disk, [first, second, third]) = superseded();
    let mut foreign = Made::new(2, 4, second.opening.pred);
    foreign.opening.uuid = *b"another journal!";
    let newer = Made::new(4, 20, None);
    for (id, made) in [
        (2, &third),
        (9, &first),
        (9, &third),
        (2, &newer),
        (9, &newer),
        (9, &foreign),
    ] {
        let disk = disk.fork();
        save_as(&disk, id, made);
        let error = refused(&disk);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{id}: {error}");
        assert!(
            error.to_string().contains(&format!("named as segment {id:016x}")),
            "{error}"
        );
    }
}

/// Below a floor names do not matter. What only an unproven floor lets go stays: without it the journal may begin there.
#[test]
fn a_left_over_under_a_wrong_name_goes_with_the_proof_of_its_floor() {
    let [first, ..] = three_segments();
    let disk = floored(true);
    disk.remove(&name(1)).unwrap();
    save_as(&disk, 2, &first);
    assert_eq!(open(&disk).discard, [name(3), name(2)]);

    let disk = made::disk();
    let [first, second, mut third] = three_segments();
    third.opening.floor = 2;
    third.batches.clear();
    third.headers.clear();
    let mut again = Made::new(2, 4, second.opening.pred);
    again.batch(0, &[create(2), entry(2, 0, b"two")]);
    third.opening.pred = Some(again.end());
    again.save(&disk);
    third.save(&disk);
    save_as(&disk, 9, &first);
    let found = open(&disk);
    assert_eq!((found.floor, found.floor_proven), (2, false));
    assert_eq!((segment_ids(&found), found.discard), (vec![2], vec![name(3)]));
}

#[test]
fn an_id_that_no_journal_reaches_is_refused_and_the_highest_is_not() {
    let highest = crate::format::NUMBER_MAX >> 1;
    let disk = made::disk();
    Made::new(highest, 5, None).save(&disk);
    assert_eq!(open(&disk).next_segment, highest + 1);
    made::save(&disk, &name(highest + 1), &vec![0; 16 << 10]);
    assert_eq!(refused(&disk).kind(), ErrorKind::Invalid);
    for (gap, is_refused) in [(1 << 32, false), ((1 << 32) + 1, true)] {
        let disk = made::disk();
        one_segment().save(&disk);
        made::save(&disk, &name(1 + gap), &vec![0; 16 << 10]);
        assert_eq!(try_open(&disk).is_err(), is_refused, "{gap}");
    }
}

/// As long as what begins a segment, and nothing in it: it was never written.
#[test]
fn a_blank_file_of_the_least_length_is_left_out_and_one_with_something_in_it_is_told() {
    let disk = made::disk();
    one_segment().save(&disk);
    made::save(&disk, &name(2), &[0; 8192]);
    let found = open(&disk);
    assert_eq!((found.blank, found.report.cut.len()), (vec![2], 0));

    let disk = made::disk();
    one_segment().save(&disk);
    let mut bytes = vec![0; 16 << 10];
    bytes[9000] = 1;
    made::save(&disk, &name(2), &bytes);
    let found = open(&disk);
    assert_eq!((found.blank.len(), found.report.cut.len()), (0, 1));
    assert_eq!(found.report.cut[0].bytes, 9001);
}

#[test]
fn a_segment_that_ends_where_it_begins_needs_no_index() {
    let disk = made::disk();
    let first = Made::new(1, 1, None);
    let mut second = Made::new(2, 2, Some(first.end()));
    let end = second.batch(0, &[create(1)]);
    second.mark(end.sequence, false);
    first.save(&disk);
    second.save(&disk);
    let found = open(&disk);
    let missing = found.missing_indexes.iter().map(|missing| missing.segment.id);
    assert_eq!((segment_ids(&found), missing.collect()), (vec![1, 2], vec![2]));
}

#[test]
fn the_next_incarnation_is_above_every_one_that_is_met() {
    let disk = made::disk();
    let mut first = Made::new(1, 1, None);
    let mut item = create(1);
    item.incarnation = 40;
    first.batch(0, &[item]);
    let mut second = Made::new(2, 3, Some(first.end()));
    second.batch(0, &[create(2)]);
    first.save(&disk);
    second.save(&disk);
    assert_eq!(open(&disk).incarnation_next, 41);
}

#[test]
fn what_a_view_reads_around_damage_is_counted() {
    let disk = made::disk();
    let made = three_segments();
    for made in &made {
        made.save(&disk);
    }
    for (id, batch) in [(1, 1), (2, 1), (3, 0)] {
        let disk = disk.fork();
        let header = &made[id - 1].headers[batch];
        disk.flip_bit(&name(id as u64), header.end() - 9, 1).unwrap();
        let found = view(&disk).counted;
        assert_eq!((found.batches, found.entries), (6, 5), "{id}");
    }
}

/// Where a view finds nothing at the place of a segment that is needed, it has not come down to where it could say what is not.
#[test]
fn a_view_refuses_a_misnamed_file_that_is_missed() {
    let disk = made::disk();
    let [first, second, third] = three_segments();
    first.save(&disk);
    third.save(&disk);
    save_as(&disk, 9, &second);
    for mode in [
        Mode::Writer,
        Mode::View { live: false },
        Mode::View { live: true },
    ] {
        let Err(error) = try_mode(&disk, mode) else {
            panic!("it opened")
        };
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}
