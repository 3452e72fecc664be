//! The floor: files go only when everything that only they said was said again, and what a crash leaves of the unlinks is
//! never damage.

use everlog::fs::{Atom, SimFs};
use everlog::{EntryId, ErrorKind, Journal, Log, LogKey, WriteBatch};

use super::support::{
    A, B, create, disk, each_outcome, entry, keep_all, keep_synced, last_segment, lose, one_log, open,
    payloads, segments, u64_at, usage,
};

fn fill(log: &Log, count: u64, len: usize) {
    for _ in 0..count {
        let at = log.bounds().unwrap().end;
        log.append(entry(at, len)).unwrap();
    }
}

fn work(journal: &Journal) {
    while journal.work().unwrap() {}
}

/// The id of the segment that is written now.
fn newest(disk: &SimFs) -> u64 {
    u64_at(&disk.read_raw(&last_segment(disk)).unwrap(), 48)
}

/// Table: "cell 0 last stated in S1, cell 1 in S9, the floor moves to S5: both cells stand" (rule 1). Each fact is judged alone,
/// so with the cells stated in any two segments.
#[test]
fn the_floor_restates_each_cell_alone() {
    for (first, second) in [(0, 8), (0, 0), (2, 7), (7, 2), (0, 4), (4, 9)] {
        let disk = disk(1);
        let (journal, log) = one_log(&disk);
        let other = journal.create_log(B, 0).unwrap();
        for round in 0..10 {
            if round == first {
                log.set(0, b"vote").unwrap();
            }
            if round == second {
                log.set_relaxed(1, b"committed").unwrap();
            }
            let before = newest(&disk);
            while newest(&disk) == before {
                fill(&other, 1, 900);
            }
        }
        let lowest = segments(&disk).len();
        other.purge_to(other.bounds().unwrap().end - 20).unwrap();
        work(&journal);
        assert!(segments(&disk).len() < lowest, "files were removed");
        let story = format!("cells stated in rounds {first} and {second}");
        for seed in 0..10 {
            let again = open(&disk.crash(seed), &format!("{story}, seed {seed}"));
            let log = again.log(A).unwrap();
            assert_eq!(log.cell(0).unwrap().as_deref(), Some(&b"vote"[..]), "{story}");
            assert_eq!(
                log.cell(1).unwrap().as_deref(),
                Some(&b"committed"[..]),
                "{story}"
            );
            assert_eq!(
                log.bounds().unwrap(),
                0..0,
                "{story}: an empty log that was only created is still there"
            );
        }
        drop((log, other, journal));
    }
}

/// Rule 1 for the other facts: first index, purged id, last id and term, incarnation, existence; each stated long ago only.
#[test]
fn the_floor_restates_every_kind_of_fact() {
    let disk = disk(2);
    let journal = create(&disk);
    let key = |n| LogKey(10 + n);
    let logs: Vec<Log> = (0..6)
        .map(|n| journal.create_log(key(n), 100 * n).unwrap())
        .collect();
    logs[1].append_at(EntryId::new(3, 100), b"x").unwrap();
    logs[1].purge_through(EntryId::new(3, 100)).unwrap();
    logs[2].purge_through(EntryId::new(7, 900)).unwrap();
    logs[3].reset(EntryId::new(9, 4000)).unwrap();
    logs[4].append_at(EntryId::new(5, 400), b"y").unwrap();
    logs[4].truncate_from(400).unwrap();
    journal.delete_log(key(5)).unwrap();
    let new = journal.create_log(key(5), 77).unwrap();
    let facts = |journal: &Journal| -> Vec<_> {
        let all = journal.logs().into_iter().filter(|key| *key != A);
        all.map(|key| {
            let log = journal.log(key).unwrap();
            (
                key,
                log.bounds().unwrap(),
                log.purged().unwrap(),
                log.last().unwrap(),
            )
        })
        .collect()
    };
    let before = facts(&journal);
    let filler = journal.create_log(A, 0).unwrap();
    for round in 0..4 {
        fill(&filler, 60, 900);
        filler.purge_to(filler.bounds().unwrap().end - 5).unwrap();
        work(&journal);
        for seed in 0..10 {
            let story = format!("round {round}, seed {seed}");
            let again = open(&disk.crash(seed), &story);
            assert_eq!(facts(&again), before, "{story}");
        }
    }
    drop((new, logs, filler, journal));
}

/// Table: "purge drops S1-S3, the crash keeps only the unlink of S2 - leftovers deleted, no damage": every subset of the
/// unlinks, then a life that writes removes the rest.
#[test]
fn any_subset_of_unlinks_is_no_damage_and_leftovers_go() {
    let disk = disk(3);
    let (journal, log) = one_log(&disk);
    fill(&log, 30, 900);
    let before = segments(&disk);
    log.purge_to(28).unwrap();
    let freed = journal.reclaim().unwrap();
    assert!(freed.segments >= 3, "{freed:?}");
    let gone: Vec<String> = before
        .iter()
        .filter(|path| !segments(&disk).contains(path))
        .cloned()
        .collect();
    let mut partial = 0;
    each_outcome(&disk, 1 << 12, 300, &mut |after, outcome| {
        let left = gone.iter().filter(|path| segments(&after).contains(path)).count();
        partial += usize::from(left > 0 && left < gone.len());
        let again = open(&after, outcome);
        let log = again.log(A).unwrap();
        assert_eq!(log.bounds().unwrap(), 28..30, "{outcome}");
        log.append(entry(30, 10)).unwrap();
        work(&again);
        drop((log, again));
        // Below a floor that was not proven yet they wait for one more life.
        let again = open(&after, outcome);
        again.log(A).unwrap().append(entry(31, 10)).unwrap();
        work(&again);
        let left: Vec<_> = gone
            .iter()
            .filter(|path| after.files().contains_key(*path))
            .collect();
        assert!(left.is_empty(), "{outcome}: {left:?} are still there");
        assert_eq!(payloads(&again.log(A).unwrap()).len(), 4, "{outcome}");
    });
    assert!(
        partial > 10,
        "only {partial} outcomes kept some unlinks and not others"
    );
    drop((log, journal));
}

/// The row itself, spelled out: only the unlink of S2 is kept.
#[test]
fn a_hole_below_the_floor_is_no_damage() {
    let disk = disk(4);
    let (journal, log) = one_log(&disk);
    fill(&log, 30, 900);
    log.purge_to(28).unwrap();
    journal.reclaim().unwrap();
    let mut removals = 0;
    let after = lose(&disk, &|choice| matches!(choice.atom, Atom::Entry { .. }));
    let with_hole = disk.crash_with(&mut |choice| match choice.atom {
        Atom::Entry { .. } => {
            removals += 1;
            usize::from(removals == 2)
        }
        _ => choice.newest(),
    });
    assert!(removals >= 3, "{removals}");
    let missing = segments(&after).len() - segments(&with_hole).len();
    assert_eq!(missing, 1, "just one of them is gone");
    assert_eq!(payloads(&open(&with_hole, "hole").log(A).unwrap()).len(), 2);
    drop((log, journal));
}

/// A purge, truncate or reset that is not synced yet, and a floor that rises because of it, in one batch: a power cut leaves both
/// behind the proven end, with facts before it that still count the entries. That is no damage.
#[test]
fn a_floor_that_rose_by_an_unproven_purge_is_no_damage() {
    type Take = fn(&mut WriteBatch) -> &mut WriteBatch;
    let takes: [(&str, Take, std::ops::Range<u64>); 4] = [
        ("purge to 30", |batch| batch.purge_to(A, 30), 30..60),
        ("purge to 60", |batch| batch.purge_to(A, 60), 60..60),
        ("truncate", |batch| batch.truncate_from(A, 10), 10..10),
        ("reset", |batch| batch.reset(A, EntryId::new(0, 70)), 71..71),
    ];
    for (what, take, left) in takes {
        let disk = disk(5);
        let (journal, log) = one_log(&disk);
        fill(&log, 60, 900);
        log.purge_to(10).unwrap();
        journal.reclaim().unwrap(); // the facts of the log stand in the newest segment now
        let mut batch = WriteBatch::new();
        take(&mut batch);
        drop(journal.submit_relaxed(batch).unwrap());
        let freed = journal.reclaim().unwrap();
        assert!(freed.segments > 0, "{what}: the floor rose");
        for seed in 0..40 {
            let story = format!("{what}, seed {seed}");
            let again = open(&disk.crash(seed), &story);
            assert_eq!(again.log(A).unwrap().bounds().unwrap(), left, "{story}");
        }
        drop((log, journal));
    }
}

/// Purges, truncates, resets, deletes and cells of several logs with freeing in between, cut at any call: nothing purged
/// comes back, no fact is lost, nothing is called damaged.
#[test]
fn freeing_cut_at_any_call_loses_no_fact() {
    for stop in 0..90 {
        let disk = disk(stop);
        let (journal, log) = one_log(&disk);
        let other = journal.create_log(B, 5).unwrap();
        other.set(3, b"old and alone").unwrap();
        other.append_at(EntryId::new(2, 5), b"entry of b").unwrap();
        other.purge_to(6).unwrap();
        fill(&log, 25, 900);
        disk.stop_after(stop);
        let mut purged = 0;
        for to in [8, 15, 24] {
            if log.purge_to(to).is_ok() {
                purged = to;
            }
            drop(journal.reclaim());
        }
        drop((log, other, journal));
        for seed in 0..5 {
            let story = format!("stop {stop}, seed {seed}");
            let after = disk.crash(seed);
            let again = open(&after, &story);
            let (log, other) = (again.log(A).unwrap(), again.log(B).unwrap());
            assert!(
                log.bounds().unwrap().start >= purged && log.bounds().unwrap().end == 25,
                "{story}"
            );
            assert_eq!(
                payloads(&log).len() as u64,
                25 - log.bounds().unwrap().start,
                "{story}"
            );
            assert_eq!(
                other.cell(3).unwrap().as_deref(),
                Some(&b"old and alone"[..]),
                "{story}"
            );
            assert_eq!(
                (other.bounds().unwrap(), other.purged().unwrap()),
                (6..6, Some(EntryId::new(2, 5))),
                "{story}"
            );
            let purged_entry = log.get(log.bounds().unwrap().start.wrapping_sub(1));
            if log.bounds().unwrap().start > 0 {
                assert_eq!(purged_entry.unwrap_err().kind(), ErrorKind::Purged, "{story}");
            }
        }
    }
}

/// Rule 28: many logs with large cells, more facts than fit into one batch or one segment: the floor moves as far as it can,
/// and no cell is lost at any point.
#[test]
fn restatements_larger_than_a_segment_move_the_floor_step_by_step() {
    let disk = disk(6);
    let journal = create(&disk);
    let logs: Vec<Log> = (0..12)
        .map(|n| journal.create_log(LogKey(100 + n), 0).unwrap())
        .collect();
    for log in &logs {
        log.set(0, [7; 2500]).unwrap();
    }
    let filler = journal.create_log(A, 0).unwrap();
    fill(&filler, 40, 900);
    filler.purge_to(40).unwrap();
    let before = segments(&disk).len();
    work(&journal);
    journal.reclaim().unwrap();
    assert!(segments(&disk).len() < before);
    let metrics = journal.metrics();
    let made = 1 + metrics.rotations;
    let left = made - metrics.segments_freed;
    assert_eq!(segments(&disk).len() as u64, left, "each is counted once");
    for seed in 0..20 {
        let again = open(&disk.crash(seed), &format!("seed {seed}"));
        for n in 0..12 {
            let cell = again.log(LogKey(100 + n)).unwrap().cell(0).unwrap();
            assert_eq!(cell.as_deref(), Some(&[7; 2500][..]), "seed {seed}, log {n}");
        }
    }
    // An idle journal does not free itself in circles: there is nothing to gain any more.
    let segments_now = segments(&disk);
    for _ in 0..5 {
        journal.reclaim().unwrap();
    }
    assert_eq!(segments(&disk), segments_now);
    drop((logs, filler, journal));
}

/// The same cut at any call: the floor stands in the last of the batches, behind every restatement, so that a floor that
/// verifies implies them.
#[test]
fn a_floor_that_verifies_implies_its_restatements() {
    let base = disk(10);
    let journal = create(&base);
    for n in 0..6 {
        let log = journal.create_log(LogKey(100 + n), 0).unwrap();
        log.set(0, [7; 1500]).unwrap();
    }
    let filler = journal.create_log(A, 0).unwrap();
    fill(&filler, 60, 900);
    drop(filler);
    journal.close().unwrap();
    let base = keep_all(&base);
    for stop in 0..80 {
        let disk = base.fork();
        let journal = open(&disk, "fork");
        disk.stop_after(stop);
        let filler = journal.log(A).unwrap();
        drop(filler.purge_to(60).and_then(|()| journal.reclaim()));
        let done = !disk.is_off();
        drop((filler, journal));
        for after in [keep_synced(&disk), keep_all(&disk), disk.crash(stop)] {
            let story = format!("stop {stop}");
            let again = open(&after, &story);
            for n in 0..6 {
                let cell = again.log(LogKey(100 + n)).unwrap().cell(0).unwrap();
                assert_eq!(cell.as_deref(), Some(&[7; 1500][..]), "{story}, log {n}");
            }
        }
        if done {
            return;
        }
    }
    panic!("the reclaim never came to its end");
}

/// "A number never given twice in a journal": though every frame that had it is below the floor, and gone.
#[test]
fn an_incarnation_is_never_given_again() {
    let mut disk = disk(11);
    let (journal, log) = one_log(&disk);
    let filler = journal.create_log(B, 0).unwrap();
    drop(log);
    for _ in 0..5 {
        journal.delete_log(A).unwrap();
        journal.create_log(A, 0).unwrap();
    }
    let given = highest_incarnation(&disk);
    journal.delete_log(A).unwrap();
    for _ in 0..3 {
        fill(&filler, 30, 900);
        filler.purge_to(filler.bounds().unwrap().end - 2).unwrap();
        journal.reclaim().unwrap();
        work(&journal);
    }
    assert!(highest_incarnation(&disk) < given, "what had it is gone");
    drop((filler, journal));
    for life in 0..3 {
        disk = keep_synced(&disk);
        let journal = open(&disk, &format!("life {life}"));
        fill(&journal.log(B).unwrap(), 1, 100);
        drop(journal);
    }
    let journal = open(&disk, "the last life");
    journal.create_log(A, 0).unwrap();
    assert!(highest_incarnation(&disk) > given);
}

fn highest_incarnation(disk: &SimFs) -> u64 {
    let mut highest = 0;
    let dumped = everlog::inspect::dump_on(std::sync::Arc::new(disk.clone()), None, &mut |item| {
        if let everlog::inspect::DumpItem::Frame { incarnation, .. } = item {
            highest = highest.max(incarnation);
        }
        Ok(())
    });
    dumped.unwrap();
    highest
}

/// Logs purged by turns for a long time: the directory stays as small as what is live.
#[test]
fn a_long_life_of_purges_does_not_grow_the_directory() {
    let mut disk = disk(7);
    let (journal, log) = one_log(&disk);
    journal.create_log(B, 0).unwrap().set(0, b"vote").unwrap();
    drop((log, journal));
    let mut high = 0;
    for life in 0..12 {
        let journal = open(&disk, &format!("life {life}"));
        let log = journal.log(A).unwrap();
        for _ in 0..5 {
            fill(&log, 20, 900);
            log.purge_to(log.bounds().unwrap().end - 3).unwrap();
            work(&journal);
        }
        let now = segments(&disk).len();
        high = if life == 1 { now } else { high };
        assert!(
            life <= 1 || now <= high + 2,
            "life {life}: {now} segments after {high}"
        );
        drop((log, journal));
        disk = if life % 2 == 0 {
            keep_all(&disk)
        } else {
            keep_synced(&disk)
        };
        let again = open(&disk, "check");
        assert_eq!(
            again.log(B).unwrap().cell(0).unwrap().as_deref(),
            Some(&b"vote"[..])
        );
    }
}

/// Deleted logs leave nothing behind that would keep or bring back their entries.
#[test]
fn a_deleted_log_stays_deleted_when_its_segments_go() {
    let disk = disk(8);
    let (journal, log) = one_log(&disk);
    fill(&log, 20, 900);
    journal.delete_log(A).unwrap();
    let other = journal.create_log(B, 0).unwrap();
    fill(&other, 20, 900);
    work(&journal);
    journal.reclaim().unwrap();
    each_outcome(&disk, 256, 40, &mut |after, outcome| {
        let again = open(&after, outcome);
        assert_eq!(again.logs(), [B], "{outcome}");
        assert_eq!(payloads(&again.log(B).unwrap()).len(), 20, "{outcome}");
    });
    assert_eq!(log.append(b"x").unwrap_err().kind(), ErrorKind::NotFound);
    drop((log, other, journal));
}

/// What the floor leaves of a log may begin with a purge that kept entries below it, or with a truncate, a cell or an entry: each
/// replays from there, as what comes later has taken the rest.
#[test]
fn a_log_may_begin_with_any_frame_above_the_floor() {
    for first in ["purge", "truncate", "cell", "entry", "reset"] {
        let disk = disk(9);
        let (journal, log) = one_log(&disk);
        let anchor = journal.create_log(B, 0).unwrap();
        fill(&log, 10, 900);
        anchor.append([0; 2000]).unwrap();
        next_segment(&disk, &anchor);
        anchor.append(b"live, and keeps its segment").unwrap();
        let anchored = anchor.bounds().unwrap().end - 1;
        match first {
            "purge" => log.purge_to(7).unwrap(),
            "truncate" => log.truncate_from(8).unwrap(),
            "cell" => log.set(5, b"cell").unwrap(),
            "reset" => log.reset(EntryId::new(3, 9)).unwrap(),
            _ => fill(&log, 1, 100),
        }
        next_segment(&disk, &anchor);
        fill(&log, 2, 100);
        let end = log.bounds().unwrap().end;
        log.purge_to(end - 1).unwrap();
        anchor.purge_to(anchored).unwrap();
        let freed = journal.reclaim().unwrap();
        assert!(freed.segments > 1, "{first}: {freed:?}");
        for seed in 0..6 {
            let story = format!("{first}, seed {seed}");
            let again = open(&disk.crash(seed), &story);
            assert_eq!(again.log(A).unwrap().bounds().unwrap(), end - 1..end, "{story}");
            assert_eq!(payloads(&again.log(A).unwrap()).len(), 1, "{story}");
        }
        drop((log, anchor, journal));
    }
}

/// Fills the segment that is written now with entries of `log`.
fn next_segment(disk: &SimFs, log: &Log) {
    let before = newest(disk);
    while newest(disk) == before {
        log.append([1; 800]).unwrap();
    }
}

/// "Only where it frees at least twice what must be said again": to the byte, and counting only what the freed segments say.
#[test]
fn a_floor_that_frees_less_than_twice_what_it_restates_does_not_rise() {
    let held = (16 << 10) - 8192 - 4192;
    let facts = 48 + 64;
    for (len, frees) in [(held / 2 - facts - 48, 1), (held / 2 - facts - 48 + 1, 0)] {
        let (journal, log) = one_log(&disk(12));
        log.set(0, vec![1; len]).unwrap();
        // The next segment, which has a cell of its own and holds what is live.
        log.append([2; 3000]).unwrap();
        log.set(1, [3; 500]).unwrap();
        assert_eq!(journal.metrics().rotations, 1);
        assert_eq!(
            journal.reclaim().unwrap().segments,
            frees,
            "a cell of {len} bytes"
        );
    }
}

/// What the segment itself says that would be the lowest one need not be said again for that: the floor stops below a cell that is not
/// worth it, and frees what stands before.
#[test]
fn the_floor_rises_to_a_segment_whose_facts_are_not_worth_saying_again() {
    let (journal, log) = one_log(&disk(13));
    log.set(0, [1; 500]).unwrap();
    fill(&log, 1, 3000);
    log.set(1, [2; 3700]).unwrap();
    fill(&log, 1, 3000);
    assert_eq!(journal.metrics().rotations, 2);
    log.purge_to(1).unwrap();
    assert_eq!(journal.reclaim().unwrap().segments, 1);
    assert_eq!(journal.reclaim().unwrap().segments, 0);
}

/// On a disk with nothing but the reserve, what is said again of several segments goes in steps that fit into it, and each frees.
#[test]
fn on_a_full_disk_the_floor_rises_in_steps_that_fit_into_the_reserve() {
    let disk = disk(14);
    let (journal, log) = one_log(&disk);
    for cell in 0..10 {
        log.set(cell, [cell; 1500]).unwrap();
        next_segment(&disk, &log);
    }
    fill(&log, 12, 900);
    work(&journal);
    disk.set_capacity(usage(&disk).0.div_ceil(4096) * 4096);
    log.purge_to(log.bounds().unwrap().end).unwrap();
    let freed = journal.reclaim().unwrap();
    assert!(freed.segments > 10, "{freed:?}");
    let again = open(&disk.crash(1), "after");
    for cell in 0..10 {
        assert_eq!(
            again.log(A).unwrap().cell(cell).unwrap().unwrap()[..],
            [cell; 1500]
        );
    }
}

/// What is said again goes in batches that fit into segments of the usual size, however many facts one segment held.
#[test]
fn many_facts_of_one_segment_are_said_again_in_several_batches() {
    let disk = disk(15);
    let (journal, log) = one_log(&disk);
    let mut batch = WriteBatch::new();
    for cell in 0..10 {
        batch.set(A, cell, vec![cell; 328]);
    }
    journal.write(batch).unwrap();
    fill(&log, 40, 900);
    work(&journal);
    log.purge_to(40).unwrap();
    assert!(journal.reclaim().unwrap().segments > 4);
    work(&journal);
    for path in segments(&disk) {
        assert_eq!(disk.files()[&path], 16 << 10, "{path}");
    }
    let again = open(&disk.crash(1), "after");
    assert_eq!(again.log(A).unwrap().cells().unwrap().len(), 10);
}
