//! Rotation: no byte of a segment is submitted before its predecessor is synced up to the end that the opening records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use everlog::fs::{Atom, Fs, SimFs};
use everlog::{EntryId, Journal, Log, WriteBatch};

use super::recorder::{Event, Recorder};
use super::support::{
    self, A, B, batches_of, disk, each_outcome, entry, lose, one_log, open, payloads, segments, small, u64_at,
};

/// Table: "rotation: S2's opening on disk, S1's last batch torn - cannot happen by ordering". Every write of a segment is
/// seen only after a sync of its predecessor that covered every byte up to the recorded end, relaxed ones included.
#[test]
fn nothing_of_a_segment_is_written_before_its_predecessor_is_synced_to_its_end() {
    let disk = disk(1);
    let recorder = Recorder::new(Arc::new(disk.clone()));
    let journal = Journal::create_on(Arc::new(recorder.clone()), small()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    mixed_writes(&journal, &log, 200);
    let events = recorder.events();
    drop((log, journal));
    assert!(segments(&disk).len() > 5, "the workload must rotate");
    check_order(&disk, &events);
}

fn mixed_writes(journal: &Journal, log: &Log, count: u64) {
    for i in 0..count {
        match i % 7 {
            0 | 1 => drop(log.append_relaxed(entry(i, 300)).unwrap()),
            2 => drop(log.append(entry(i, 900)).unwrap()),
            3 if i % 21 == 3 => drop(log.append(entry(i, 20_000)).unwrap()),
            4 => drop(log.submit(entry(i, 1500)).unwrap()),
            5 => {
                let mut batch = WriteBatch::new();
                batch
                    .append(A, entry(i, 500))
                    .append(A, entry(i, 400))
                    .set(A, 1, [1; 40]);
                drop(journal.submit_relaxed(batch).unwrap());
            }
            _ => drop(journal.work().unwrap()),
        }
    }
}

/// Replays what was called: writes to a segment need its predecessor synced up to the end in the opening.
fn check_order(disk: &everlog::fs::SimFs, events: &[Event]) {
    let ids = |path: &str| u64::from_str_radix(path.strip_prefix("journal/")?.strip_suffix(".seg")?, 16).ok();
    let mut predecessors = BTreeMap::new();
    for path in segments(disk) {
        let bytes = disk.read_raw(&path).unwrap();
        predecessors.insert(u64_at(&bytes, 48), (u64_at(&bytes, 80), u64_at(&bytes, 88)));
    }
    // By id: the stretches written since the last sync, and how far the syncs reach.
    let mut unsynced: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    let mut synced: BTreeMap<u64, u64> = BTreeMap::new();
    let mut checked = 0;
    for event in events {
        match event {
            Event::Write { path, offset, len } => {
                let Some(id) = ids(path) else { continue };
                let (pred, end) = predecessors[&id];
                let pending = unsynced
                    .get(&pred)
                    .is_some_and(|w| w.iter().any(|(at, _)| *at < end));
                let done = synced.get(&pred).copied().unwrap_or(8192);
                assert!(
                    pred == 0 || (!pending && done >= end),
                    "{path} written at {offset}: {pred} is synced to {done} of {end}"
                );
                checked += usize::from(pred != 0);
                unsynced.entry(id).or_default().push((*offset, offset + len));
            }
            Event::Sync { path } => {
                let Some(id) = ids(path) else { continue };
                for (_, end) in unsynced.remove(&id).unwrap_or_default() {
                    let done = synced.entry(id).or_insert(8192);
                    *done = end.max(*done);
                }
            }
            Event::Other => {}
        }
    }
    assert!(checked > 50, "only {checked} writes were checked");
}

/// Rule 2 and the table's first row, by crashing: the power goes off at every call around two rotations, and whatever of
/// the pending bytes is kept, everything acknowledged is there and what is there is a prefix of what was issued.
#[test]
fn a_power_cut_at_any_call_around_a_rotation_loses_nothing_acknowledged() {
    for stop in 0..70 {
        let disk = disk(stop);
        let (journal, log) = one_log(&disk);
        disk.stop_after(stop);
        let (mut acked, mut issued) = (0, 0);
        for i in 0..24 {
            issued = i + 1;
            let durable = i % 3 == 2;
            let done = if durable {
                log.append(entry(i, 700))
            } else {
                log.append_relaxed(entry(i, 700))
            };
            if done.is_err() {
                break;
            }
            acked = if durable { i + 1 } else { acked };
        }
        drop((log, journal));
        each_outcome(&disk, 64, 24, &mut |after, outcome| {
            let story = format!("stop after {stop}, {outcome}");
            let journal = open(&after, &story);
            let found = payloads(&journal.log(A).unwrap());
            assert!(
                (acked..=issued).contains(&(found.len() as u64)),
                "{story}: {acked} {} {issued}",
                found.len()
            );
            for (i, payload) in (0..).zip(&found) {
                assert_eq!(*payload, entry(i, 700), "{story}");
            }
        });
    }
}

/// Table: "both copies of an opening lost in a legal crash, its first batch kept - void, no false damage" (rule 2).
#[test]
fn an_opening_lost_with_its_first_batch_kept_is_void() {
    let disk = disk(3);
    let (journal, log) = one_log(&disk);
    let mut acked = 0;
    while segments(&disk).len() == 1 {
        log.append_relaxed(entry(acked, 900)).unwrap();
        acked += 1;
    }
    // The last one opened the second segment, under no sync yet; all before it were synced by the rotation.
    let second = support::last_segment(&disk);
    let after = lose(&disk, &|choice| match choice.atom {
        Atom::Sector { file, sector } => **file == *second && *sector < 16,
        _ => false,
    });
    assert!(!batches_of(&after, &second).is_empty(), "the batch was kept");
    let journal_after = open(&after, "opening lost");
    assert_eq!(payloads(&journal_after.log(A).unwrap()).len() as u64, acked - 1);
    let cut = &journal_after.report().cut;
    assert!(
        cut.len() == 1 && cut[0].path.ends_with(&second),
        "reported: {cut:?}"
    );
    drop((log, journal));
}

/// Rule 2, exhaustively in the sectors that matter: any subset of the opening's two copies and its first batch.
#[test]
fn any_subset_of_an_unsynced_unit_is_a_legal_crash() {
    let disk = disk(4);
    let (journal, log) = one_log(&disk);
    let mut count = 0;
    while segments(&disk).len() == 1 {
        log.append_relaxed(entry(count, 600)).unwrap();
        count += 1;
    }
    let all = each_outcome(&disk, 1 << 12, 0, &mut |after, outcome| {
        let journal = open(&after, outcome);
        let found = payloads(&journal.log(A).unwrap());
        assert!(
            found.len() as u64 >= count - 1,
            "{outcome}: {} of {count}",
            found.len()
        );
        journal.log(A).unwrap().append(b"goes on").unwrap();
    });
    assert!(all, "every outcome is visited");
    drop((log, journal));
}

/// Two logs share the segments: the rotation of one is the rotation of both, and neither loses what it was told.
#[test]
fn rotation_keeps_what_other_logs_were_told() {
    for seed in 0..40 {
        let disk = disk(seed);
        let (journal, log) = one_log(&disk);
        let other = journal.create_log(B, 10).unwrap();
        let mut acked = [0, 10];
        for i in 0..30 {
            log.append_relaxed(entry(i, 500)).unwrap();
            if i % 4 == 3 {
                other.append(entry(i, 100)).unwrap();
                acked = [i + 1, acked[1] + 1];
            }
        }
        let after = disk.crash(seed);
        let again = open(&after, &format!("seed {seed}"));
        for (key, acked) in [(A, acked[0]), (B, acked[1])] {
            let end = again.log(key).unwrap().bounds().unwrap().end;
            assert!(
                end >= acked,
                "seed {seed}: log {key} ends at {end}, {acked} were acknowledged"
            );
        }
    }
}

/// The recorder itself sees a wrong order: without it the test above would prove nothing.
#[test]
fn the_recorder_sees_writes_and_syncs() {
    let recorder = Recorder::new(Arc::new(disk(0)));
    let seen = Mutex::new(0);
    let file = recorder.create("f").unwrap();
    file.write_all_at(b"x", 3).unwrap();
    file.sync_data().unwrap();
    for event in recorder.events() {
        let mut seen = seen.lock().unwrap();
        *seen += match event {
            Event::Write { offset, len, .. } => offset * 10 + len,
            Event::Sync { .. } => 100,
            Event::Other => 0,
        };
    }
    assert_eq!(*seen.lock().unwrap(), 131);
}

/// The index that the writer has in memory when a segment is full is, byte for byte, the one that is built of the segment.
#[test]
fn an_index_is_the_same_from_memory_and_from_its_segment() {
    let disk = disk(9);
    let (journal, log) = one_log(&disk);
    let other = journal.create_log(B, 3).unwrap();
    for round in 0..12 {
        log.append_at(
            EntryId::new(round / 3, u64::try_from(round).unwrap()),
            entry(0, 700),
        )
        .unwrap();
        log.set(1, entry(1, 300)).unwrap();
        other.append(entry(2, 500)).unwrap();
        other.set(2, entry(3, 200)).unwrap();
        other.truncate_from(3).unwrap();
    }
    log.purge_to(4).unwrap();
    while journal.work().unwrap() {}
    let indexes = |disk: &SimFs| {
        let files = disk.dump().into_iter();
        files
            .filter(|(path, _)| path.ends_with(".idx"))
            .collect::<Vec<_>>()
    };
    let written = indexes(&disk);
    assert!(written.len() > 2, "{} indexes", written.len());
    let bare = disk.kill();
    for (path, _) in &written {
        bare.remove(path).unwrap();
    }
    let again = open(&bare, "without indexes");
    while again.work().unwrap() {}
    let built = indexes(&bare);
    for index in &written {
        assert!(built.contains(index), "{}", index.0);
    }
    drop((log, other, journal));
}
