//! Logs: truncates and new terms, delete and re-create, relaxed before durable, what is readable and what is durable.

use everlog::fs::SimFs;
use everlog::{EntryId, ErrorKind, Journal, Log, Term, WriteBatch};

use super::support::{
    A, batches_of, disk, each_outcome, entry, keep_all, last_segment, lose, one_log, open, payloads,
    segments, slice,
};

fn append_all(log: &Log, term: u128, range: std::ops::Range<u64>) {
    for i in range {
        log.append_at(EntryId::new(term, i), tagged(term, i)).unwrap();
    }
}

fn tagged(term: u128, index: u64) -> Vec<u8> {
    let mut bytes = format!("term {term} entry {index} ").into_bytes();
    bytes.resize(300, b'.');
    bytes
}

/// The entries as (term of the id, index), checked against what they say.
fn ids(log: &Log, story: &str) -> Vec<(u128, u64)> {
    let entries = log.read(log.bounds().unwrap()).map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let (Term(term), index) = (entry.id.term, entry.id.index);
            assert_eq!(entry.payload[..], tagged(term, index), "{story}: {:?}", entry.id);
            (term, index)
        })
        .collect()
}

fn expected(cut: u64, old_end: u64, new_end: u64) -> Vec<(u128, u64)> {
    let old = (0..cut.min(old_end)).map(|i| (1, i));
    old.chain((cut..new_end).map(|i| (2, i))).collect()
}

/// Table: "truncate_from(6), append 6' of a new term, crash - acknowledged: never the old ones" (rule 23).
#[test]
fn an_acknowledged_truncate_never_shows_the_old_entries_again() {
    for together in [false, true] {
        let disk = disk(1);
        let (journal, log) = one_log(&disk);
        append_all(&log, 1, 0..9);
        if together {
            let mut batch = WriteBatch::new();
            batch
                .truncate_from(A, 6)
                .append_at(A, EntryId::new(2, 6), tagged(2, 6));
            journal.write(batch).unwrap();
        } else {
            log.truncate_from(6).unwrap();
            append_all(&log, 2, 6..7);
        }
        each_outcome(&disk, 1 << 10, 200, &mut |after, outcome| {
            let story = format!("together {together}, {outcome}");
            let again = open(&after, &story);
            assert_eq!(ids(&again.log(A).unwrap(), &story), expected(6, 9, 7), "{story}");
        });
        drop((log, journal));
    }
}

/// "... unacknowledged: all old or all new, never 6' then old 7" (rule 23), for one batch and for two.
#[test]
fn an_unacknowledged_truncate_is_all_old_or_all_new() {
    for together in [false, true] {
        let disk = disk(2);
        let (journal, log) = one_log(&disk);
        append_all(&log, 1, 0..9);
        let mut batch = WriteBatch::new();
        batch.truncate_from(A, 6);
        if !together {
            journal.write_relaxed(std::mem::take(&mut batch)).unwrap();
        }
        batch
            .append_at(A, EntryId::new(2, 6), tagged(2, 6))
            .append_at(A, EntryId::new(2, 7), tagged(2, 7));
        journal.write_relaxed(batch).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let all = each_outcome(&disk, 1 << 13, 0, &mut |after, outcome| {
            let story = format!("together {together}, {outcome}");
            let again = open(&after, &story);
            let found = ids(&again.log(A).unwrap(), &story);
            let legal = [expected(9, 9, 9), expected(6, 9, 8), expected(6, 6, 6)];
            let which = legal.iter().position(|legal| *legal == found);
            seen.insert(which.unwrap_or_else(|| panic!("{story}: {found:?}")));
        });
        let wanted = if together { vec![0, 1] } else { vec![0, 1, 2] };
        assert!(
            all && seen.iter().copied().eq(wanted),
            "together {together}: {seen:?}"
        );
        drop((log, journal));
    }
}

/// The same through rotation, carry and a second power cut: a truncate in a tail is carried with what follows it.
#[test]
fn a_truncate_in_a_tail_is_carried_with_its_entries() {
    for seed in 0..40 {
        let disk = disk(seed);
        let (journal, log) = one_log(&disk);
        append_all(&log, 1, 0..20);
        log.truncate_from(6).unwrap();
        append_all(&log, 2, 6..9);
        let mut after = disk.crash(seed);
        for life in 0..3 {
            let story = format!("seed {seed}, life {life}");
            let again = open(&after, &story);
            assert_eq!(ids(&again.log(A).unwrap(), &story), expected(6, 20, 9), "{story}");
            let terms = again.log(A).unwrap().terms(0..9).unwrap();
            assert_eq!(
                terms
                    .iter()
                    .map(|run| (run.first, run.term.0))
                    .collect::<Vec<_>>(),
                [(0, 1), (6, 2)],
                "{story}"
            );
            std::mem::forget(again);
            after = after.crash(seed ^ life);
        }
        drop((log, journal));
    }
}

/// What one incarnation of a log wrote.
fn incarnation(log: &Log, tag: &str, count: u64) {
    for i in 0..count {
        log.append_relaxed(format!("{tag} {i} {}", "-".repeat(200)))
            .unwrap();
    }
    log.set_relaxed(0, tag).unwrap();
}

fn tag_of(journal: &Journal, story: &str) -> Option<(String, usize)> {
    let log = journal.log(A).ok()?;
    let tags: std::collections::BTreeSet<String> = payloads(&log)
        .iter()
        .map(|payload| {
            String::from_utf8_lossy(payload)
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .chain(
            log.cell(0)
                .unwrap()
                .map(|cell| String::from_utf8_lossy(&cell).into_owned()),
        )
        .collect();
    assert!(tags.len() <= 1, "{story}: mixed incarnations: {tags:?}");
    Some((tags.into_iter().next().unwrap_or_default(), payloads(&log).len()))
}

/// Table: "log deleted and re-created, crash - never mixed incarnations; acknowledged: never the old one" (rule 23). The power
/// goes off at every call.
#[test]
fn incarnations_of_a_log_never_mix() {
    for stop in 0..40 {
        let disk = disk(stop);
        let (journal, log) = one_log(&disk);
        incarnation(&log, "old", 5);
        journal.sync().unwrap();
        disk.stop_after(stop);
        let deleted = journal.delete_log(A).is_ok();
        let created = journal.create_log(A, 0);
        if let Ok(log) = &created {
            for i in 0..6 {
                let _ = log.append_relaxed(format!("new {i} {}", "+".repeat(200)));
            }
            let _ = log.set_relaxed(0, "new");
        }
        let acknowledged = created.is_ok() && journal.sync().is_ok();
        for seed in 0..12 {
            let story = format!("stop {stop}, seed {seed}");
            let again = open(&disk.crash(seed), &story);
            let found = tag_of(&again, &story);
            match &found {
                None => assert!(created.is_err(), "{story}: the new log is gone"),
                Some((tag, count)) => {
                    assert!(!deleted || tag != "old", "{story}: the old log is back");
                    assert!(
                        !acknowledged || (tag == "new" && *count == 6),
                        "{story}: {found:?}"
                    );
                    assert!(tag != "old" || *count == 5, "{story}: {found:?}");
                }
            }
        }
        drop((log, created, journal));
    }
}

/// Rule 20: "Incarnation is an explicit field, unchanged by carry": several incarnations in one tail.
#[test]
fn incarnations_in_one_tail_stay_apart() {
    for seed in 0..60 {
        let disk = disk(seed);
        let (journal, log) = one_log(&disk);
        incarnation(&log, "one", 2);
        journal.delete_log(A).unwrap();
        incarnation(&journal.create_log(A, 0).unwrap(), "two", 3);
        journal.delete_log(A).unwrap();
        incarnation(&journal.create_log(A, 0).unwrap(), "three", 1);
        journal.sync().unwrap();
        let mut after = disk.crash(seed);
        for life in 0..3 {
            let story = format!("seed {seed}, life {life}");
            let again = open(&after, &story);
            assert_eq!(tag_of(&again, &story), Some(("three".to_owned(), 1)), "{story}");
            drop(again);
            after = after.crash(seed);
        }
        assert_eq!(
            log.get(0).unwrap_err().kind(),
            ErrorKind::NotFound,
            "a handle belongs to its log"
        );
    }
}

/// Table: "relaxed writes then a durable one, crash - the durable one implies the earlier ones".
#[test]
fn a_durable_write_implies_the_relaxed_ones_before_it() {
    for relaxed in [1, 3, 12] {
        let disk = disk(3);
        let (journal, log) = one_log(&disk);
        for i in 0..relaxed {
            log.append_relaxed(entry(i, 700)).unwrap();
        }
        log.set_relaxed(4, b"relaxed cell").unwrap();
        let other = journal.create_log(everlog::LogKey(9), 0).unwrap();
        other.append(b"durable").unwrap();
        each_outcome(&disk, 1 << 10, 200, &mut |after, outcome| {
            let again = open(&after, outcome);
            let log = again.log(A).unwrap();
            assert_eq!(payloads(&log).len() as u64, relaxed, "{outcome}");
            assert_eq!(
                log.cell(4).unwrap().as_deref(),
                Some(&b"relaxed cell"[..]),
                "{outcome}"
            );
        });
        drop((log, other, journal));
    }
}

/// Relaxed writes alone survive a kill, and a power cut leaves a prefix of them.
#[test]
fn relaxed_writes_survive_a_kill_and_are_a_prefix_after_a_power_cut() {
    for seed in 0..60 {
        let disk = disk(seed);
        let (journal, log) = one_log(&disk);
        for i in 0..9 {
            log.append_relaxed(entry(i, 250)).unwrap();
        }
        let power_cut = disk.crash(seed);
        let found = payloads(&open(&power_cut, &format!("seed {seed}")).log(A).unwrap());
        for (i, payload) in (0..).zip(&found) {
            assert_eq!(*payload, entry(i, 250), "seed {seed}");
        }
        std::mem::forget((log, journal));
        assert_eq!(payloads(&open(&disk.kill(), "kill").log(A).unwrap()).len(), 9);
    }
}

/// Table: "a payload that contains a copy of a real batch, behind a torn batch - not taken for a witness". The copies are of a
/// batch with a durable-through above the torn one's sequence: raw bytes of the file, at every alignment.
#[test]
fn a_payload_with_a_copy_of_a_real_batch_is_no_witness() {
    for shift in [0, 3, 8, 96, 200] {
        let disk = disk(4);
        let (journal, log) = one_log(&disk);
        log.append(entry(0, 100)).unwrap();
        log.append(entry(1, 100)).unwrap();
        let path = last_segment(&disk);
        let bytes = disk.read_raw(&path).unwrap();
        let batches = batches_of(&disk, &path);
        let copies: Vec<u8> = batches.iter().flat_map(|b| slice(&bytes, b).to_vec()).collect();
        let mut payload = vec![b'x'; shift];
        payload.extend(&copies);
        payload.extend(forged(slice(&bytes, batches.last().unwrap())));
        let at = batches.last().unwrap().end();
        log.append_relaxed(entry(2, 600)).unwrap(); // will be torn
        log.append_relaxed(&payload).unwrap(); // is kept
        let torn = at / 512 + 1;
        let after = lose(
            &disk,
            &|choice| matches!(choice.atom, everlog::fs::Atom::Sector { sector, .. } if *sector == torn),
        );
        let again = open(&after, &format!("shift {shift}"));
        assert_eq!(
            payloads(&again.log(A).unwrap()),
            [entry(0, 100), entry(1, 100)],
            "shift {shift}"
        );
        assert_eq!(again.report().cut.len(), 1, "shift {shift}");
        drop((log, journal));
    }
}

/// A real batch that claims to prove all that can follow it: its header verifies, and says that it stands elsewhere.
fn forged(batch: &[u8]) -> Vec<u8> {
    let mut forged = batch.to_vec();
    let sequence = u64::from_le_bytes(batch[32..40].try_into().unwrap());
    forged[32..40].copy_from_slice(&(sequence + 20).to_le_bytes());
    forged[40..48].copy_from_slice(&(sequence + 19).to_le_bytes());
    let crc = crc32fast::hash(&forged[4..96]);
    forged[..4].copy_from_slice(&crc.to_le_bytes());
    forged
}

type Shape = fn(&mut [u8]);

/// Rule 20: "highest in headers that pass id, salt, own offset and CRC": rot, and header-shaped payloads, that say u64::MAX do
/// not end the journal.
#[test]
fn a_sequence_of_all_ones_in_rot_or_payload_does_not_end_the_journal() {
    let shapes: [Shape; 3] = [
        |header| header[32..40].fill(0xff),                   // sequence
        |header| header[32..48].fill(0xff),                   // and durable-through
        |header| header[24..40].copy_from_slice(&[0xff; 16]), // own offset as well
    ];
    for (n, shape) in shapes.iter().enumerate() {
        let disk = disk(5);
        let (journal, log) = one_log(&disk);
        log.append(entry(0, 100)).unwrap();
        let path = last_segment(&disk);
        let bytes = disk.read_raw(&path).unwrap();
        let last = batches_of(&disk, &path).pop().unwrap();
        let mut header = slice(&bytes, &last)[..96].to_vec();
        shape(&mut header);
        let unstamped = header.clone();
        let crc = crc32fast::hash(&header[4..]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        log.append_relaxed([&header[..], &unstamped, &[0; 40], &header].concat())
            .unwrap();
        for rot in [&header, &unstamped] {
            let copy = keep_all(&disk);
            // Behind the end, at a place where a batch could begin, with the offset of another.
            let end = batches_of(&copy, &path).last().unwrap().end();
            copy.write_raw(&path, end + 8 * 40, rot).unwrap();
            let again = open(&copy, &format!("shape {n}"));
            let log = again.log(A).unwrap();
            for i in 0..30 {
                log.append(entry(i, 300)).unwrap();
            }
            drop((log, again));
            let sequences: Vec<u64> = segments(&copy)
                .iter()
                .flat_map(|p| batches_of(&copy, p))
                .map(|b| b.sequence)
                .collect();
            assert!(sequences.iter().all(|s| *s < 1000), "shape {n}: {sequences:?}");
            assert_eq!(
                payloads(&open(&copy, "again").log(A).unwrap()).len(),
                32,
                "shape {n}"
            );
        }
        drop((log, journal));
    }
}

/// Rule 24: "`durable_end` falls to min(itself, from) when the truncate is sequenced, and rises only with syncs of the new
/// entries."
#[test]
fn durable_end_falls_at_a_truncate_before_anything_is_synced() {
    let disk = disk(6);
    let (journal, log) = one_log(&disk);
    append_all(&log, 1, 0..10);
    assert_eq!(log.durable_end().unwrap(), 10);
    let mut batch = WriteBatch::new();
    batch
        .truncate_from(A, 6)
        .append_at(A, EntryId::new(2, 6), tagged(2, 6));
    let ticket = journal.submit(batch).unwrap();
    assert_eq!(log.get(6).unwrap()[..], tagged(2, 6), "readable from submit on");
    assert_eq!((log.durable_end().unwrap(), log.bounds().unwrap()), (6, 0..7));
    let mut second = WriteBatch::new();
    second.append_at(A, EntryId::new(2, 7), tagged(2, 7));
    let relaxed = journal.submit_relaxed(second).unwrap();
    assert_eq!(log.durable_end().unwrap(), 6);
    ticket.wait().unwrap();
    relaxed.wait().unwrap();
    assert_eq!(log.durable_end().unwrap(), 8, "one flush covered both");
    let mut third = WriteBatch::new();
    third.truncate_from(A, 7);
    journal.write_relaxed(third).unwrap();
    assert_eq!(log.durable_end().unwrap(), 7);
    log.append_relaxed(tagged(2, 7)).unwrap();
    assert_eq!(log.durable_end().unwrap(), 7, "written is not durable");
    journal.sync().unwrap();
    assert_eq!(log.durable_end().unwrap(), 8);
}

/// Rule 24: "a ticket of an entry truncated in the same flush reports Ok".
#[test]
fn a_ticket_of_an_entry_truncated_in_the_same_flush_is_ok() {
    let disk = disk(7);
    let (journal, log) = one_log(&disk);
    append_all(&log, 1, 0..3);
    let ticket = log.submit(tagged(1, 3)).unwrap();
    let mut batch = WriteBatch::new();
    batch.truncate_from(A, 2);
    let truncate = journal.submit(batch).unwrap();
    ticket.wait().unwrap();
    truncate.wait().unwrap();
    assert_eq!((log.bounds().unwrap(), log.durable_end().unwrap()), (0..2, 2));
    for seed in 0..10 {
        let again = open(&disk.crash(seed), "after");
        assert_eq!(
            ids(&again.log(A).unwrap(), "after"),
            [(1, 0), (1, 1)],
            "seed {seed}"
        );
    }
}

/// Purges: acknowledged, nothing purged comes back, also beyond the end.
#[test]
fn nothing_purged_comes_back() {
    for to in [3, 9, 10, 25] {
        let disk = disk(8);
        let (journal, log) = one_log(&disk);
        append_all(&log, 1, 0..10);
        log.purge_to(to).unwrap();
        for seed in 0..30 {
            let story = format!("purged to {to}, seed {seed}");
            let mut after: SimFs = disk.crash(seed);
            for _ in 0..2 {
                let again = open(&after, &story);
                let log = again.log(A).unwrap();
                assert_eq!(log.bounds().unwrap(), to..to.max(10), "{story}");
                assert_eq!(log.purged().unwrap(), Some(EntryId::new(1, to - 1)), "{story}");
                drop((log, again));
                after = after.crash(seed + 1);
            }
        }
        drop((log, journal));
    }
}

/// `expect_at_least` turns a silent loss into damage.
#[test]
fn an_owner_who_knows_more_turns_a_loss_into_damage() {
    let disk = disk(9);
    let (journal, log) = one_log(&disk);
    append_all(&log, 1, 0..4);
    log.purge_to(1).unwrap();
    for good in [EntryId::new(1, 3), EntryId::new(1, 0)] {
        journal.expect_at_least(A, good).unwrap();
    }
    for bad in [EntryId::new(1, 4), EntryId::new(2, 3)] {
        assert_eq!(
            journal.expect_at_least(A, bad).unwrap_err().kind(),
            ErrorKind::Damaged,
            "{bad}"
        );
    }
    assert_eq!(
        journal
            .expect_at_least(everlog::LogKey(77), EntryId::new(1, 0))
            .unwrap_err()
            .kind(),
        ErrorKind::Damaged
    );
}

/// An iterator that has found entries before a truncate gives them out, but never goes on with others in their place: nobody reads
/// a sequence that the log never was. A cut behind what it gave out does not concern it; nothing comes after a close.
#[test]
fn an_iterator_never_mixes_what_was_with_what_came_in_its_place() {
    let disk = disk(12);
    let (journal, log) = one_log(&disk);
    let append = |from: u64, to: u64, mark: &str| {
        for i in from..to {
            log.append(format!("{mark}{i}")).unwrap();
        }
    };
    append(0, 600, "old");
    let mut behind = log.read(0..600);
    let mut before = log.read(0..600);
    let mut reset = log.read(0..600);
    let first = |entries: &mut everlog::Entries| entries.next().unwrap().unwrap().payload;
    let read: Vec<_> = [&mut behind, &mut before, &mut reset].map(first).into();
    assert_eq!(read, ["old0"; 3]);
    log.truncate_from(500).unwrap();
    append(500, 600, "new");
    for index in 1..600 {
        let expected = format!("{}{index}", if index < 500 { "old" } else { "new" });
        assert_eq!(first(&mut behind), expected);
    }
    log.truncate_from(100).unwrap();
    append(100, 600, "newer");
    let rest: Vec<_> = before.by_ref().collect();
    let (last, found) = rest.split_last().unwrap();
    assert!(
        found.len() < 500
            && found
                .iter()
                .flatten()
                .all(|entry| entry.payload.starts_with(b"old"))
    );
    assert_eq!(last.as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(before.next().is_none());
    log.reset(everlog::EntryId::new(0, 9)).unwrap();
    append(10, 600, "newest");
    assert!(reset.any(|entry| entry.is_err_and(|error| error.kind() == ErrorKind::NotFound)));
    let mut closed = log.read(10..600);
    assert_eq!(first(&mut closed), "newest10");
    journal.close().unwrap();
    assert_eq!(closed.next().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(closed.next().is_none());
}

/// What was purged was there once; what would be next was not.
#[test]
fn an_owner_may_ask_for_what_was_purged_and_not_for_what_comes_next() {
    let (journal, log) = one_log(&disk(13));
    append_all(&log, 1, 0..5);
    log.purge_to(5).unwrap();
    for index in 0..5 {
        journal.expect_at_least(A, EntryId::new(1, index)).unwrap();
    }
    let next = journal.expect_at_least(A, EntryId::new(1, 5));
    assert_eq!(next.unwrap_err().kind(), ErrorKind::Damaged);
}
