//! Segments whose every checksum holds and that say what no writer says: an error or a finding, never an entry that is not
//! there.

use super::chains::three_segments;
use super::*;
use crate::format::Kind;

fn save_all(disk: &SimFs, made: &[Made]) {
    made.iter().for_each(|made| made.save(disk));
}

#[test]
fn frames_of_a_newer_everlog_are_not_passed_over() {
    for kind in [Kind::CellUnknown, Kind::Lost, Kind::Relocated] {
        let disk = made::disk();
        let mut made = Made::new(1, 1, None);
        let newer = made::Item {
            kind,
            ..entry(1, 1, b"newer")
        };
        made.batch(0, &[create(1), entry(1, 0, b"zero"), newer]);
        made.mark(2, true);
        made.save(&disk);
        let error = refused(&disk);
        assert!(error.to_string().contains("newer everlog"), "{error}");
        let found = view(&disk);
        assert_eq!(entries(&found, 1), ["zero"], "{kind:?}");
        assert!(found.findings.iter().any(Finding::is_damage), "{kind:?}");
    }
}

/// The end that a successor records lies inside a batch: the batch crosses it and does not count.
#[test]
fn a_recorded_end_inside_a_batch_is_damage() {
    for short in [8, 96] {
        let disk = made::disk();
        let [first, second, third] = three_segments();
        let mut end = first.end();
        end.offset -= short;
        let mut moved = Made::new(2, 4, Some(end));
        for (header, items) in [(0, entry(1, 2, b"two")), (5, entry(1, 3, b"three"))] {
            moved.batch(header, &[items]);
        }
        let mut last = Made::new(3, 7, Some(moved.end()));
        last.batch(0, &[entry(1, 4, b"four")]);
        assert_eq!(second.end().offset, moved.end().offset);
        drop(third);
        save_all(&disk, &[first, moved, last]);
        assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
        let found = view(&disk);
        assert!(found.findings.iter().any(Finding::is_damage));
        assert!(read(&found, 1).iter().flatten().all(|payload| payload != "one"));
    }
}

/// The recorded sequence lies beyond what stands before the recorded offset.
#[test]
fn a_recorded_sequence_that_is_not_reached_is_damage() {
    let disk = made::disk();
    let [first, _, _] = three_segments();
    let mut end = first.end();
    end.sequence += 1;
    let mut second = Made::new(2, 9, Some(end));
    second.batch(0, &[entry(1, 2, b"two")]);
    second.mark(10, true);
    save_all(&disk, &[first, second]);
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
    let found = view(&disk);
    assert!(found.findings.iter().any(Finding::is_damage));
    assert_eq!(entries(&found, 1), ["zero", "one", "two"]);
}

/// A durable-through that names the opening proves what it carries, too: both stand under one sync.
#[test]
fn a_proven_opening_proves_what_it_carries() {
    let disk = made::disk();
    let mut made = Made::new(1, 1, None).carry(&[create(1), entry(1, 0, b"carried")]);
    made.batch(1, &[entry(1, 1, b"behind")]);
    made.save(&disk);
    let found = open(&disk);
    assert_eq!(entries(&found, 1), ["carried"]);
    assert_eq!(tail(&found).len(), 1, "the entry behind it");
}

/// The opening says that it carries a batch, and the file ends where that would begin.
#[test]
fn a_view_says_that_the_carried_batch_is_not_there() {
    let disk = made::disk();
    let mut first = Made::new(1, 1, None);
    first.batch(0, &[create(1), entry(1, 0, b"zero")]);
    first.mark(2, false);
    let second = Made::new(2, 5, Some(first.end())).carry(&[entry(1, 1, b"carried")]);
    first.save(&disk);
    made::save(&disk, &name(2), &second.bytes()[..8192]);
    let found = view(&disk);
    assert_eq!(entries(&found, 1), ["zero"]);
}
