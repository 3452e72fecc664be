//! What a sweep of damages over whole journals found: places where a writer and a view disagreed, or said less than they knew.

use super::*;
use crate::segment::made::Item;

fn sector(disk: &SimFs, id: u64, at: u64) {
    let sector = at / disk.sector_bytes();
    disk.set_unreadable(&name(id), sector..sector + 1, true).unwrap();
}

/// A sealed segment of one batch with these items, and a last one whose only batch, proven, holds `last`.
fn two_segments(items: &[Item], last: &[Item]) -> (SimFs, [Made; 2]) {
    let disk = made::disk();
    let mut first = Made::new(1, 1, None);
    first.batch(0, items);
    first.save(&disk);
    let mut second = Made::new(2, 3, Some(first.end()));
    second.batch(0, last);
    second.mark(4, true);
    second.save(&disk);
    (disk, [first, second])
}

/// Nothing there belongs to the journal, whatever the walk reads ahead.
#[test]
fn a_sector_behind_the_end_of_a_sealed_segment_need_not_be_readable() {
    let (disk, [first, _]) = two_segments(&[create(1), entry(1, 0, b"zero")], &[entry(1, 1, b"one")]);
    let behind = first.end().offset.next_multiple_of(4096);
    for at in (behind..FILE_LEN).step_by(4096) {
        sector(&disk, 1, at);
    }
    assert_eq!(entries(&open(&disk), 1), ["zero", "one"]);
    assert!(view(&disk).findings.is_empty());
}

/// As it would be with an index, which reads no payload either.
#[test]
fn a_payload_that_cannot_be_read_is_no_trouble_until_it_is_read() {
    let large = vec![7; 20_000];
    let items = [create(1), entry(1, 0, &large), entry(1, 1, b"one")];
    let (disk, [first, _]) = two_segments(&items, &[entry(1, 2, b"two")]);
    sector(&disk, 1, first.headers[0].payloads_at() + 9000);
    let found = read(&open(&disk), 1);
    let kinds: Vec<_> = found
        .iter()
        .map(|entry| entry.as_ref().err().map(Error::kind))
        .collect();
    assert_eq!(kinds, [Some(ErrorKind::Io), None, None]);
}
