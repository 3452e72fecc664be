//! Acknowledged bytes that are not there: refused with the place, and read around by a view.

use super::*;
use crate::format::Facts;
use crate::segment::made::Item;

/// Two logs in each of four batches (2 to 5), and a mark that proves all of them.
fn two_logs() -> Made {
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), create(2), entry(1, 0, b"a0"), entry(2, 0, b"b0")]);
    made.batch(2, &[entry(1, 1, b"a1"), entry(2, 1, b"b1")]);
    made.batch(3, &[entry(1, 2, b"a2"), entry(2, 2, b"b2")]);
    made.batch(4, &[entry(1, 3, b"a3"), entry(2, 3, b"b3")]);
    made.mark(5, false);
    made
}

fn good(found: &Recovered, key: u64) -> Vec<Option<Bytes>> {
    read(found, key).into_iter().map(Result::ok).collect()
}

fn damage(found: &Recovered) -> Vec<&Finding> {
    found
        .findings
        .iter()
        .filter(|finding| finding.is_damage())
        .collect()
}

#[test]
fn a_bad_payload_that_is_witnessed_damages_its_own_log() {
    let (disk, made) = (made::disk(), two_logs());
    made.save(&disk);
    let hit = made.headers[2];
    disk.flip_bit(&name(1), hit.payloads_at() + 2, 0).unwrap();
    let error = refused(&disk);
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Damaged, Some(hit.offset))
    );
    assert!(error.to_string().contains("batch 4 was acknowledged"), "{error}");

    let found = view(&disk);
    assert_eq!(entries(&found, 1), ["a0", "a1", "a2", "a3"]);
    assert_eq!(
        good(&found, 2),
        [Some("b0".into()), Some("b1".into()), None, Some("b3".into())]
    );
    let findings = damage(&found);
    assert_eq!(
        (findings[0].log, findings[0].range.clone()),
        (Some(LogKey(2)), Some(2..3))
    );
    assert_eq!(findings.len(), 1);
}

#[test]
fn a_bad_frame_header_leaves_the_other_frames_of_its_batch() {
    let (disk, made) = (made::disk(), two_logs());
    made.save(&disk);
    disk.flip_bit(&name(1), header_at(made.headers[2].offset, 1) + 24, 0)
        .unwrap();
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
    let found = view(&disk);
    assert_eq!(entries(&found, 1), ["a0", "a1", "a2", "a3"]);
    assert_eq!(
        good(&found, 2),
        [Some("b0".into()), Some("b1".into()), None, Some("b3".into())]
    );
    assert_eq!(
        locate(log(&found, 2), LogKey(2), 2).unwrap_err().kind(),
        ErrorKind::Damaged
    );
    assert!(damage(&found).iter().any(|finding| finding.log.is_none()));
}

#[test]
fn a_bad_batch_header_that_is_witnessed_loses_the_batch_and_no_more() {
    let (disk, made) = (made::disk(), two_logs());
    made.save(&disk);
    let hit = made.headers[2];
    disk.flip_bit(&name(1), hit.offset + 8, 0).unwrap();
    let error = refused(&disk);
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Damaged, Some(hit.offset))
    );
    let found = view(&disk);
    for (key, log) in [(1, "a"), (2, "b")] {
        let kept = |n: u64| Some(Bytes::from(format!("{log}{n}")));
        assert_eq!(good(&found, key), [kept(0), kept(1), None, kept(3)]);
    }
    let first = damage(&found)[0];
    assert_eq!((first.offset, first.bytes), (hit.offset, u64::from(hit.len)));
}

/// A batch is witnessed by any later valid header, also by one whose own payload is torn.
#[test]
fn the_header_of_a_torn_batch_is_a_witness() {
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, b"a0")]);
    let hit = made.batch(0, &[entry(1, 1, b"a1")]);
    let torn = made.batch(3, &[entry(1, 2, b"a2")]);
    let disk = made::disk();
    made.save(&disk);
    disk.flip_bit(&name(1), torn.payloads_at(), 0).unwrap();
    let found = open(&disk);
    assert_eq!(found.pred.unwrap().sequence, 3, "it proves the batch before it");
    disk.flip_bit(&name(1), hit.payloads_at(), 0).unwrap();
    let error = refused(&disk);
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Damaged, Some(hit.offset))
    );
}

/// Every byte of an acknowledged, witnessed segment, flipped one at a time: never a silent cut, never a wrong answer.
#[test]
fn no_flipped_bit_below_a_witness_is_silent() {
    let made = two_logs();
    let expected: Vec<Vec<Bytes>> = {
        let disk = made::disk();
        made.save(&disk);
        let found = open(&disk);
        [1, 2].iter().map(|key| entries(&found, *key)).collect()
    };
    let end = made.headers[3].end();
    let disk = made::disk();
    made.save(&disk);
    for offset in BATCHES_AT..end {
        let bit = u32::try_from(offset % 8).unwrap();
        disk.flip_bit(&name(1), offset, bit).unwrap();
        match try_open(&disk) {
            Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged, "offset {offset}: {e}"),
            Ok(found) => {
                // Padding, which nothing reads.
                let all: Vec<Vec<Bytes>> = [1, 2].iter().map(|key| entries(&found, *key)).collect();
                assert_eq!(all, expected, "offset {offset}");
                assert!(found.report.cut.is_empty(), "offset {offset}");
            }
        }
        let found = view(&disk);
        for (key, log) in [(1, "a"), (2, "b")] {
            let Some(state) = found.logs.get(LogKey(key)) else {
                continue;
            };
            for (n, payload) in (state.start..).zip(good(&found, key)) {
                let expected = format!("{log}{n}");
                assert!(
                    payload.is_none_or(|payload| payload == expected),
                    "offset {offset}, log {key}"
                );
            }
        }
        disk.flip_bit(&name(1), offset, bit).unwrap();
    }
}

#[test]
fn a_view_reads_around_what_the_disk_does_not_give() {
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, &[0; 600])]);
    made.batch(2, &[entry(1, 1, &[1; 9000])]);
    made.batch(3, &[entry(1, 2, &[2; 600])]);
    made.mark(4, false);
    let disk = made::disk();
    made.save(&disk);
    let payload = made.headers[1].payloads_at() / 4096 + 1;
    disk.set_unreadable(&name(1), payload * 8..payload * 8 + 1, true)
        .unwrap();
    assert_eq!(refused(&disk).kind(), ErrorKind::Io);
    let found = view(&disk);
    let kinds: Vec<bool> = read(&found, 1).iter().map(Result::is_ok).collect();
    assert_eq!(kinds, [true, false, true]);
    assert!(
        damage(&found)
            .iter()
            .any(|finding| finding.kind == FindingKind::Unreadable)
    );
}

/// A log was deleted and created again in a batch that is lost: its entries are not those of the first one.
#[test]
fn incarnations_stay_apart_where_what_parts_them_is_lost() {
    let disk = made::disk();
    let again = |item: Item| Item {
        incarnation: 2,
        ..item
    };
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, b"old")]);
    made.batch(2, &[again(create(1))]);
    made.batch(3, &[again(entry(1, 0, b"new")), again(entry(1, 1, b"newer"))]);
    made.mark(4, false);
    made.save(&disk);
    disk.flip_bit(&name(1), made.headers[1].offset + 9, 0).unwrap();
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
    assert_eq!(entries(&view(&disk), 1), ["new", "newer"]);
}

/// Every checksum holds, and an entry is missing between two others, or there twice: nobody wrote that.
#[test]
fn what_contradicts_itself_is_damage() {
    for (index, left) in [(2, vec![Some("a0"), None, Some("x")]), (0, vec![Some("x")])] {
        let disk = made::disk();
        let mut made = Made::new(1, 1, None);
        made.batch(0, &[create(1), entry(1, 0, b"a0")]);
        made.batch(2, &[entry(1, index, b"x")]);
        made.mark(3, false);
        made.save(&disk);
        assert_eq!(refused(&disk).kind(), ErrorKind::Damaged, "entry {index}");
        let left: Vec<_> = left.into_iter().map(|entry| entry.map(Bytes::from)).collect();
        assert_eq!(good(&view(&disk), 1), left, "entry {index}");
    }
}

/// A restatement that says of the entries before it what is not so is damage, and takes none of them from a view.
#[test]
fn facts_that_contradict_the_entries_take_none_of_them() {
    for next in [1, 9] {
        let disk = made::disk();
        let mut made = Made::new(1, 1, None);
        let stated = Facts {
            first: 0,
            purged: None,
            last: Some(crate::types::Term(7)),
        };
        made.batch(0, &[create(1), entry(1, 0, b"a0"), entry(1, 1, b"a1")]);
        made.batch(2, &[facts(1, next, stated)]);
        made.mark(3, false);
        made.save(&disk);
        assert_eq!(refused(&disk).kind(), ErrorKind::Damaged, "{next}");
        assert_eq!(entries(&view(&disk), 1), ["a0", "a1"], "{next}");
    }
}

/// Facts count entries that stood below the floor, and nothing behind the facts took them: they are missing.
#[test]
fn entries_that_are_stated_and_not_there_are_damage() {
    let disk = made::disk();
    let mut first = Made::new(1, 1, None);
    first.batch(0, &[create(1), entry(1, 0, b"a0"), entry(1, 1, b"a1")]);
    let mut second = Made::new(2, 3, Some(first.end()));
    second.opening.floor = 2;
    let stated = Facts {
        first: 0,
        purged: None,
        last: Some(crate::types::Term(7)),
    };
    second.batch(0, &[facts(1, 2, stated), entry(1, 2, b"a2")]);
    second.mark(4, false);
    first.save(&disk);
    second.save(&disk);
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
    assert_eq!(good(&view(&disk), 1), [None, None, Some("a2".into())]);
}

/// What a purge takes that stands in the tail is not missed: a writer carries the tail before anybody can ask. A purge of another
/// log, or of another one under that key, takes nothing of this one.
#[test]
fn entries_that_are_stated_and_not_there_are_taken_by_a_purge_of_their_log() {
    for (log, incarnation, opens) in [(1, 1, true), (2, 1, false), (1, 2, false)] {
        let disk = made::disk();
        let mut first = Made::new(1, 1, None);
        first.batch(0, &[create(1), entry(1, 0, b"a0"), entry(1, 1, b"a1")]);
        let mut second = Made::new(2, 3, Some(first.end()));
        second.opening.floor = 2;
        let stated = Facts {
            first: 0,
            purged: None,
            last: Some(crate::types::Term(7)),
        };
        second.batch(0, &[facts(1, 2, stated), create(2), entry(2, 0, b"b0")]);
        let purge = Item {
            kind: Kind::Purge,
            incarnation,
            ..entry(log, 2, b"")
        };
        second.batch(4, &[purge]);
        first.save(&disk);
        second.save(&disk);
        let error = try_open(&disk).err().map(|error| error.kind());
        let expected = (!opens).then_some(ErrorKind::Damaged);
        assert_eq!(error, expected, "log {log}, incarnation {incarnation}");
    }
}

/// Entries of the same indexes are missing of two logs: of one because they are left out, of the other because they are stated and
/// not there.
#[test]
fn what_is_missing_is_told_once_of_each_log() {
    let disk = made::disk();
    let mut made = Made::new(1, 1, None);
    let stated = Facts {
        first: 1,
        purged: None,
        last: Some(crate::types::Term(7)),
    };
    let items = [
        create(1),
        entry(1, 0, b"a0"),
        entry(1, 2, b"a2"),
        facts(2, 2, stated),
    ];
    made.batch(0, &items);
    made.mark(2, false);
    made.save(&disk);
    let found = view(&disk);
    let told: Vec<_> = damage(&found)
        .iter()
        .map(|finding| (finding.log, finding.range.clone()))
        .collect();
    assert_eq!(
        told,
        [(Some(LogKey(1)), Some(1..2)), (Some(LogKey(2)), Some(1..2))]
    );
}

/// What no sync is known to cover is not there yet for one who looks beside a writer; up to there a damaged segment is read around
/// what is damaged.
#[test]
fn beside_a_writer_a_damaged_segment_is_read_as_far_as_it_is_proven() {
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, b"a0")]);
    let hit = made.batch(2, &[entry(1, 1, b"a1")]);
    made.batch(3, &[entry(1, 2, b"a2")]);
    made.batch(4, &[entry(1, 3, b"a3")]);
    let disk = made::disk();
    made.save(&disk);
    disk.flip_bit(&name(1), hit.payloads_at(), 0).unwrap();
    let proven = [Some("a0".into()), None, Some("a2".into())];
    let beside = try_mode(&disk, Mode::View { live: true }).unwrap();
    assert_eq!((&good(&beside, 1)[..], beside.counted.batches), (&proven[..], 3));
    let alone = view(&disk);
    assert_eq!((&good(&alone, 1)[..3], alone.counted.batches), (&proven[..], 4));
    assert_eq!(good(&alone, 1)[3..], [Some("a3".into())]);
}

/// A finding names the bytes that are bad: of a restatement its payload, not the header in front of it, which verifies.
#[test]
fn a_bad_restatement_is_found_where_its_payload_stands() {
    let first = crate::format::Facts {
        first: 1,
        purged: Some(EntryId::new(7, 0)),
        last: Some(crate::types::Term(7)),
    };
    let mut sealed = Made::new(1, 1, None);
    let batch = sealed.batch(0, &[create(1), facts(2, 1, first)]);
    let mut next = Made::new(2, 3, Some(sealed.end()));
    next.batch(0, &[set(1, 0, b"x")]);
    let disk = made::disk();
    sealed.save(&disk);
    next.save(&disk);
    let at = batch.payloads_at();
    disk.flip_bit(&name(1), at + 3, 1).unwrap();
    let found = view(&disk);
    let places: Vec<_> = damage(&found)
        .iter()
        .map(|f| (f.log, f.offset, f.bytes))
        .collect();
    assert_eq!(places, [(Some(LogKey(2)), at, crate::format::FACTS_LEN as u64)]);
}

/// What a successor states of its predecessor's end is compared where that end should be.
#[test]
fn an_end_that_cannot_be_is_found_where_it_is_stated_to_be() {
    let mut sealed = Made::new(1, 5, None);
    sealed.batch(0, &[create(1), entry(1, 0, b"zero")]);
    let stated = crate::format::End {
        sequence: 4,
        ..sealed.end()
    };
    let mut next = Made::new(2, 9, Some(stated));
    next.batch(0, &[entry(1, 1, b"one")]);
    let disk = made::disk();
    sealed.save(&disk);
    next.save(&disk);
    assert_eq!(refused(&disk).offset(), Some(stated.offset));
}
