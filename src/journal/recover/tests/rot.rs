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

/// The other copy serves, so nothing is lost: how the journal was left is the same for everybody.
#[test]
fn a_rotten_copy_of_an_opening_does_not_change_how_the_journal_was_left() {
    let (disk, _) = two_segments(&[create(1), entry(1, 0, b"zero")], &[entry(1, 1, b"one")]);
    for at in [0, COPY_AT] {
        disk.flip_bit(&name(1), at + 100, 0).unwrap();
        let (open, view) = (open(&disk), view(&disk));
        assert_eq!((open.report.verdict, open.clean), (Verdict::Clean, true));
        assert_eq!((view.report.verdict, view.clean), (Verdict::Clean, true));
        assert_eq!(open.report.warnings, view.report.warnings);
        assert_eq!((open.report.warnings.len(), view.findings.len()), (1, 1));
        let finding = &view.findings[0];
        assert_eq!((finding.offset, finding.bytes), (at, OPENING_LEN as u64));
        disk.flip_bit(&name(1), at + 100, 0).unwrap();
    }
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

/// A view took it for void, and showed what stood before it as if that were all.
#[test]
fn a_carried_batch_that_cannot_be_read_is_not_void() {
    let disk = made::disk();
    let mut first = Made::new(1, 1, None);
    first.batch(0, &[create(1), entry(1, 0, b"zero")]);
    first.save(&disk);
    let second = Made::new(2, 3, Some(first.end())).carry(&[entry(1, 1, b"one")]);
    second.save(&disk);
    assert_eq!(entries(&view(&disk), 1), ["zero", "one"]);
    sector(&disk, 2, BATCHES_AT);
    assert_eq!(refused(&disk).kind(), ErrorKind::Io);
    let found = view(&disk);
    assert_eq!(found.report.cut.len(), 0);
    let [finding] = &found.findings[..] else {
        panic!("{:?}", found.findings)
    };
    assert_eq!(
        (finding.kind, finding.offset),
        (FindingKind::Unreadable, BATCHES_AT)
    );
    assert!(
        finding.path.ends_with(name(2)) && finding.bytes >= 512,
        "{finding:?}"
    );
}

/// A header that begins in front of a bad sector and ends in it is not to be had; it is not damaged.
#[test]
fn a_header_on_the_edge_of_a_bad_sector_is_unreadable() {
    let disk = made::disk();
    let mut made = Made::new(1, 1, None);
    let filled = 4096 - 96 - 2 * 48 - 16 - 40;
    made.batch(0, &[create(1), entry(1, 0, &vec![1; filled])]);
    let edge = made.batch(2, &[entry(1, 1, b"one")]);
    made.batch(3, &[entry(1, 2, &[2; 5000])]);
    made.mark(4, false);
    made.save(&disk);
    assert_eq!(edge.offset, BATCHES_AT + 4096 - 40);
    sector(&disk, 1, BATCHES_AT + 4096);
    assert_eq!(refused(&disk).kind(), ErrorKind::Io);
    let found = view(&disk);
    assert!(
        found
            .findings
            .iter()
            .all(|finding| finding.kind != FindingKind::Torn)
    );
    let about = found
        .findings
        .iter()
        .find(|finding| finding.offset == edge.offset);
    assert_eq!(about.map(|finding| finding.kind), Some(FindingKind::Unreadable));
}

/// With every header behind the place gone, too, all of it is lost: up to where the successor says that the segment ends.
#[test]
fn a_finding_without_a_header_behind_it_reaches_to_the_end_of_the_segment() {
    let disk = made::disk();
    let mut first = Made::new(1, 1, None);
    let batches = [&b"zero"[..], b"one", b"two"];
    let headers: Vec<_> = (0..3)
        .zip(batches)
        .map(|(n, payload)| first.batch(0, &[entry(1, n, payload)]))
        .collect();
    first.save(&disk);
    let second = Made::new(2, 5, Some(first.end()));
    second.save(&disk);
    let from = headers[1].offset;
    let len = usize::try_from(first.end().offset - from).unwrap();
    disk.write_raw(&name(1), from, &vec![0; len]).unwrap();
    let found = view(&disk);
    let finding = found.findings.iter().find(|finding| finding.offset == from);
    assert_eq!(
        finding.map(|finding| finding.bytes),
        Some(len as u64),
        "{:?}",
        found.findings
    );
}

/// Nobody can ask for the old value any more: the tail is carried before `open` returns.
#[test]
fn a_cell_that_the_tail_sets_again_is_not_read() {
    let last = [entry(1, 0, b"zero")];
    let (disk, [first, second]) = two_segments(&[create(1), set(1, 3, b"old")], &last);
    disk.flip_bit(&name(1), first.headers[0].payloads_at(), 0)
        .unwrap();
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
    let mut again = second.clone();
    again.batch(5, &[set(1, 4, b"another")]);
    disk.write_raw(&name(2), 0, &again.bytes()).unwrap();
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
    again.batch(5, &[set(1, 3, b"new")]);
    disk.write_raw(&name(2), 0, &again.bytes()).unwrap();
    assert_eq!(tail(&open(&disk)).len(), 2);
}

/// Neither can anybody ask for a cell of a log that the tail deletes. The tail may delete another log, or another one of that key.
#[test]
fn a_cell_of_a_log_that_the_tail_deletes_is_not_read() {
    let last = [entry(1, 0, b"zero")];
    let (disk, [first, second]) = two_segments(&[create(1), set(1, 3, b"old")], &last);
    disk.flip_bit(&name(1), first.headers[0].payloads_at(), 0)
        .unwrap();
    for (log, incarnation, opens) in [(1, 1, true), (1, 2, false), (2, 1, false)] {
        let mut again = second.clone();
        let deleted = Item {
            kind: Kind::Delete,
            incarnation,
            ..create(log)
        };
        again.batch(5, &[deleted]);
        disk.write_raw(&name(2), 0, &again.bytes()).unwrap();
        let error = try_open(&disk).err().map(|error| error.kind());
        let expected = (!opens).then_some(ErrorKind::Damaged);
        assert_eq!(error, expected, "log {log}, incarnation {incarnation}");
    }
}

/// What the system does not give is an error of the system to a writer, who hears what it said; a view goes on without it.
#[test]
fn a_cell_that_cannot_be_read_is_a_finding_of_a_view() {
    use std::error::Error as _;
    let (disk, [first, _]) = two_segments(&[create(1), set(1, 3, &[9; 9000])], &[entry(1, 0, b"zero")]);
    sector(&disk, 1, first.headers[0].payloads_at() + 5000);
    let error = refused(&disk);
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.source().is_some(), "{error}");
    let found = view(&disk);
    assert_eq!(entries(&found, 1), ["zero"]);
    let [finding] = &found.findings[..] else {
        panic!("{:?}", found.findings)
    };
    assert_eq!(
        (finding.kind, finding.log),
        (FindingKind::Unreadable, Some(LogKey(1)))
    );
}

#[test]
fn a_cell_with_a_flipped_bit_is_damage_and_a_writer_is_told_what_to_do() {
    let (disk, [first, _]) = two_segments(&[create(1), set(1, 3, &[9; 9000])], &[entry(1, 0, b"zero")]);
    let at = first.headers[0].payloads_at() + 5000;
    disk.flip_bit(&name(1), at, 1).unwrap();
    let error = refused(&disk);
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("everlog verify"), "{error}");
    assert!(error.to_string().contains("Nothing was changed"), "{error}");
    let found = view(&disk);
    let kinds: Vec<_> = found
        .findings
        .iter()
        .map(|finding| (finding.kind, finding.log))
        .collect();
    assert_eq!(kinds, [(FindingKind::Damaged, Some(LogKey(1)))]);
}

/// A header that is bad is damage of its batch, also where the system does not give something far behind it.
#[test]
fn a_bad_header_is_no_unreadable_one_for_what_cannot_be_read_behind_its_batch() {
    let disk = made::disk();
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, b"zero")]);
    let bad = made.batch(2, &[entry(1, 1, b"one")]);
    let large = made.batch(3, &[entry(1, 2, &[2; 9000])]);
    made.mark(4, false);
    made.save(&disk);
    disk.flip_bit(&name(1), bad.offset + 8, 0).unwrap();
    sector(&disk, 1, large.payloads_at() + 5000);
    let found = view(&disk);
    let kinds = |at| {
        let there = found.findings.iter().filter(move |finding| finding.offset == at);
        there.map(|finding| finding.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(bad.offset), [FindingKind::Damaged], "{:?}", found.findings);
    assert_eq!(
        kinds(large.payloads_at()),
        [FindingKind::Unreadable],
        "{:?}",
        found.findings
    );
}

/// Its full length was synced before it got its name.
#[test]
fn a_file_that_is_shorter_than_any_segment_was_cut() {
    for len in [0, 1, 256, COPY_AT, COPY_AT + 300, BATCHES_AT - 1] {
        let (disk, _) = two_segments(&[create(1), entry(1, 0, b"zero")], &[entry(1, 1, b"one")]);
        let file = disk.open(&name(2), crate::fs::Access::Write).unwrap();
        file.set_len(len).unwrap();
        file.sync_data().unwrap();
        let error = refused(&disk);
        assert_eq!(
            (error.kind(), error.offset()),
            (ErrorKind::Damaged, Some(len)),
            "{error}"
        );
        assert!(view(&disk).findings.iter().any(Finding::is_damage));
    }
}
