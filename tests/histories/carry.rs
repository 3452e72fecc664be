//! Carry-forward: what a crash left behind the last proven point is written again, inside the unit of the next opening;
//! while that does not verify, the old tail stands.

use everlog::fs::{Fs, SimFs};
use everlog::{Verdict, WriteBatch};

use super::support::{
    A, B, batches_of, create, disk, each_outcome, entry, keep_all, keep_synced, last_segment, lose, one_log,
    open, payloads, segments, try_open, usage,
};
use everlog::fs::Atom;

/// Entries acknowledged by [`tail_without_witness`].
const ACKED: u64 = 3;

/// A disk after a power cut, with a tail that was acknowledged and has no witness, and a relaxed batch behind it.
fn tail_without_witness(seed: u64) -> SimFs {
    let disk = disk(seed);
    let (journal, log) = one_log(&disk);
    for i in 0..ACKED {
        log.append(entry(i, 100)).unwrap();
    }
    log.set(0, b"vote").unwrap();
    log.append_relaxed(entry(ACKED, 1200)).unwrap();
    let after = keep_all(&disk);
    drop((log, journal));
    after
}

fn check(disk: &SimFs, story: &str, at_most: u64) {
    let journal = open(disk, story);
    let log = journal.log(A).unwrap();
    let found = payloads(&log);
    assert!(
        (ACKED..=at_most).contains(&(found.len() as u64)),
        "{story}: {} entries",
        found.len()
    );
    for (i, payload) in (0..).zip(&found) {
        let len = if i < ACKED { 100 } else { 1200 };
        assert_eq!(*payload, entry(i, len), "{story}: entry {i}");
    }
    assert_eq!(log.cell(0).unwrap().as_deref(), Some(&b"vote"[..]), "{story}");
}

/// How many calls an open of `disk` makes.
fn calls_of_open(disk: &SimFs) -> u64 {
    let copy = keep_all(disk);
    let before = copy.ops();
    let journal = open(&copy, "probe");
    let calls = copy.ops() - before;
    drop(journal);
    calls
}

/// Opens `disk` with the power going off after `stop` calls.
fn interrupted_open(disk: &SimFs, stop: u64) {
    disk.stop_after(stop);
    drop(try_open(disk));
    disk.stop_now();
}

/// Table: "SIGKILL or power cut before the sync of an opening that carries a tail, then again in the next life: nothing
/// acknowledged lost" (rules 3, 4, 14). The second life is cut at every call of its open, then the third as well.
#[test]
fn a_carry_interrupted_in_two_lives_running_loses_nothing() {
    let first = tail_without_witness(1);
    let calls = calls_of_open(&first);
    assert!(calls > 4, "an open that carries writes: {calls}");
    for stop in 0..=calls {
        for seed in 0..6 {
            let second = first.crash(0);
            interrupted_open(&second, stop);
            let second = if seed == 0 {
                second.kill()
            } else {
                second.crash(seed)
            };
            for stop_again in (seed % 3..=calls).step_by(3) {
                let third = second.crash(u64::MAX - seed);
                interrupted_open(&third, stop_again);
                let story = format!("stop {stop}, seed {seed}, stop again {stop_again}");
                check(&third.crash(seed + stop_again), &story, ACKED + 1);
            }
            check(&second, &format!("stop {stop}, seed {seed}"), ACKED + 1);
        }
    }
}

/// Section 4: "the carried frames, all under one all-or-nothing check; while that does not verify the old tail stands". The opening
/// is kept, and any one sector of what it carries is lost, or all of them.
#[test]
fn a_unit_that_is_kept_in_part_is_void_and_the_old_tail_stands() {
    let calls = calls_of_open(&tail_without_witness(12));
    let mut torn = 0;
    for stop in 0..=calls {
        let disk = tail_without_witness(12);
        interrupted_open(&disk, stop);
        for lost in 15..26 {
            let after = lose(&disk, &|choice| match choice.atom {
                Atom::Sector { sector, .. } => *sector == lost || (lost == 15 && *sector > 15),
                _ => false,
            });
            let story = format!("stop {stop}, sector {lost}");
            torn += u64::from(!open(&keep_all(&after), &story).report().cut.is_empty());
            check(&after, &story, ACKED + 1);
        }
    }
    assert!(torn > 3, "only {torn} units were kept in part");
}

/// Rule 3's history: life 2 carries, synced, killed before any witness; life 3 carries again, SIGKILL before its sync; life 4
/// believes life 3's bytes in the page cache, and the power goes off at any call of its open.
#[test]
fn a_unit_believed_from_the_page_cache_deletes_nothing() {
    let calls = calls_of_open(&tail_without_witness(2)) + 3;
    for stop in 0..=calls {
        for stop_again in 0..=calls {
            let disk = tail_without_witness(2);
            std::mem::forget(open(&disk, "life 2"));
            let disk = keep_synced(&disk); // its mark is lost: nothing witnesses its unit
            interrupted_open(&disk, stop);
            let disk = disk.kill();
            interrupted_open(&disk, stop_again);
            let story = format!("life 3 stopped after {stop}, life 4 after {stop_again}");
            check(&keep_synced(&disk), &story, ACKED + 1);
            check(&disk.crash(stop), &story, ACKED + 1);
        }
    }
}

/// Rule 3 where it costs most: the first batch of a segment was acknowledged, and nothing but that segment has it. A life that
/// carries it is killed before its sync, and the next one must not remove the segment on the word of what only the page cache
/// holds.
#[test]
fn the_only_copy_of_a_tail_outlives_the_units_that_carry_it() {
    let origin = disk(13);
    let (journal, log) = one_log(&origin);
    let mut count = 0;
    while segments(&origin).len() < 2 {
        log.append(entry(count, 700)).unwrap();
        count += 1;
    }
    let origin = keep_synced(&origin);
    drop((log, journal));
    let calls = calls_of_open(&origin);
    for stop in 0..=calls {
        for stop_again in 0..=calls {
            let disk = keep_all(&origin);
            interrupted_open(&disk, stop);
            let disk = disk.kill();
            interrupted_open(&disk, stop_again);
            let story = format!("stopped after {stop} calls, then after {stop_again}");
            for after in [keep_synced(&disk), disk.crash(stop + stop_again)] {
                let found = payloads(&open(&after, &story).log(A).unwrap());
                assert_eq!(found.len() as u64, count, "{story}");
            }
        }
    }
}

/// Rule 3, the sharp form: the opening of life 3 stands in the page cache only, when life 4 opens. Whatever a power cut
/// leaves after life 4's open, and after its first write, is complete.
#[test]
fn an_unsynced_opening_proves_nothing_to_the_next_life() {
    for stop in 0..40 {
        let disk = tail_without_witness(3);
        disk.stop_after(stop);
        drop(try_open(&disk)); // life 3: unsynced bytes stay in the page cache
        let disk = disk.kill();
        let story = format!("stop {stop}");
        let journal = open(&disk, &story); // life 4
        for seed in 0..12 {
            check(
                &disk.crash(seed),
                &format!("{story}, after open, seed {seed}"),
                ACKED + 1,
            );
        }
        let found = journal.log(A).unwrap().bounds().unwrap().end;
        journal.log(B).map(drop).unwrap_err();
        journal.create_log(B, 0).unwrap();
        while journal.work().unwrap() {}
        for seed in 0..12 {
            let after = disk.crash(seed);
            let story = format!("{story}, after a write, seed {seed}");
            check(&after, &story, found);
            open(&after, &story).log(B).unwrap();
        }
    }
}

/// Rule 14: `open` returns after the unit's sync, so what it shows cannot be lost any more.
#[test]
fn what_open_returned_is_durable() {
    let disk = tail_without_witness(4);
    let journal = open(&disk, "open");
    let found = journal.log(A).unwrap().bounds().unwrap().end;
    assert_eq!(found, ACKED + 1, "all was kept");
    assert!(journal.report().carried_batches > 0);
    let all = each_outcome(&disk, 4096, 400, &mut |after, outcome| {
        let end = open(&after, outcome).log(A).unwrap().bounds().unwrap().end;
        assert_eq!(end, found, "{outcome}");
    });
    drop(journal);
    println!("all outcomes: {all}");
}

/// Rule 15: after the sync of a carrying unit a mark is written at once, and the superseded segment goes. Killed and
/// opened again, the unit is proven: nothing is carried a second time.
#[test]
fn a_carried_tail_is_carried_once_if_the_process_is_killed() {
    let mut disk = tail_without_witness(5);
    drop(open(&disk.kill_copy(), "probe"));
    let journal = open(&disk, "first");
    std::mem::forget(journal); // SIGKILL: nothing of the process runs any more
    for life in 0..5 {
        disk = disk.kill();
        let journal = open(&disk, "again");
        assert_eq!(journal.report().carried_batches, 0, "life {life}");
        std::mem::forget(journal);
    }
}

trait KillCopy {
    fn kill_copy(&self) -> SimFs;
}

impl KillCopy for SimFs {
    fn kill_copy(&self) -> SimFs {
        keep_all(self)
    }
}

/// Table: "... no growth without end" (rule 15): a tail, and a power cut right after each open, a thousand times over.
/// Every crash drops what it can.
#[test]
fn a_tail_carried_a_thousand_times_does_not_grow_the_directory() {
    for keep in [0, 1, 2] {
        let mut disk = tail_without_witness(6);
        let mut high = (0, 0);
        for life in 0..334 {
            let journal = open(&disk, &format!("life {life}"));
            if life % 2 == 0 {
                std::mem::forget(journal);
            }
            disk = match keep {
                0 => keep_synced(&disk),
                1 => disk.crash(life),
                _ => keep_all(&disk),
            };
            let now = usage(&disk);
            if life == 20 {
                high = now;
            }
            assert!(
                life <= 20 || (now.0 <= high.0 * 2 && now.1 <= high.1 * 2),
                "life {life}, keep {keep}: {now:?} after {high:?}: {:?}",
                disk.files()
            );
        }
        check(&disk, "in the end", ACKED + 1);
    }
}

/// Rule 16: a tail larger than a segment gets a segment of its size.
#[test]
fn a_tail_larger_than_a_segment_is_carried() {
    let disk = disk(7);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 100)).unwrap();
    log.append(entry(1, 40_000)).unwrap();
    for seed in 0..40 {
        let after = disk.crash(seed);
        let again = open(&after, &format!("seed {seed}"));
        let found = payloads(&again.log(A).unwrap());
        assert_eq!(found, [entry(0, 100), entry(1, 40_000)], "seed {seed}");
    }
    drop((log, journal));
}

/// Rule 15: "Marks and empty batches alone are never carried": a clean journal, opened and killed, carries nothing.
#[test]
fn marks_alone_are_never_carried() {
    let disk = disk(8);
    let (journal, log) = one_log(&disk);
    log.append(b"one").unwrap();
    while journal.work().unwrap() {} // an idle mark
    let path = last_segment(&disk);
    assert!(batches_of(&disk, &path).last().unwrap().is_mark());
    drop(log);
    let killed = keep_all(&disk);
    let again = open(&killed, "killed behind a mark");
    assert_eq!(
        (again.report().carried_batches, again.report().verdict),
        (0, Verdict::Unclean)
    );
    drop(again);
    journal.close().unwrap();
    let again = open(&keep_synced(&disk), "closed");
    assert_eq!(
        (again.report().carried_batches, again.report().verdict),
        (0, Verdict::Clean)
    );
}

/// Rule 22: the closing mark stands in a block of its own, so no single block holds a batch and its only witness.
#[test]
fn a_closing_mark_has_its_own_block() {
    for len in [1, 100, 500, 1500, 3800] {
        let disk = disk(9);
        let (journal, log) = one_log(&disk);
        log.append(entry(0, len)).unwrap();
        drop(log);
        journal.close().unwrap();
        let batches = batches_of(&disk, &last_segment(&disk));
        let (mark, rest) = batches.split_last().unwrap();
        let data = rest.iter().rev().find(|batch| batch.frames > 0).unwrap();
        assert!(mark.is_mark() && mark.offset % 4096 == 0, "len {len}: {mark:?}");
        assert!(
            data.end().div_ceil(4096) * 4096 <= mark.offset,
            "len {len}: {data:?} {mark:?}"
        );
        assert!(mark.durable_through >= data.sequence, "len {len}");
    }
}

/// Rule 22's history: the sector with the last batch is zeroed after a close: damaged, never cut.
#[test]
fn a_closed_journal_whose_last_batch_is_zeroed_is_damaged() {
    let disk = disk(10);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 64)).unwrap();
    log.append(entry(1, 64)).unwrap();
    drop(log);
    journal.close().unwrap();
    let path = last_segment(&disk);
    let batches = batches_of(&disk, &path);
    let last = batches.iter().rev().find(|batch| batch.frames > 0).unwrap();
    for sector in last.sectors() {
        let copy = keep_all(&disk);
        copy.write_raw(&path, sector * 512, &[0; 512]).unwrap();
        let before = copy.dump();
        let error = try_open(&copy).unwrap_err();
        assert_eq!(error.kind(), everlog::ErrorKind::Damaged, "{error}");
        assert_eq!(copy.dump(), before, "a refused open changes nothing");
    }
}

/// Rule 4's first history: the opening of the second segment fails with EIO and is re-homed in the third. The predecessor of
/// the third is the first, its recorded end unchanged; whatever a crash keeps of the second, the walk holds.
#[test]
fn a_failed_opening_leaves_no_gap_and_no_second_successor() {
    for seed in 0..60 {
        let disk = disk(seed);
        let (journal, log) = one_log(&disk);
        let mut count = 0;
        // All are acknowledged one by one; the sync of the second segment's opening fails.
        disk.fail_sync(&format!("{:016x}.seg", 2), 0, everlog::fs::Kept::Undecided);
        disk.fail_sync("spare", 3, everlog::fs::Kept::Undecided);
        while segments(&disk).len() < 4 {
            log.append(entry(count, 700)).unwrap();
            count += 1;
        }
        let mut after = disk.crash(seed);
        for life in 0..3 {
            let story = format!("seed {seed}, life {life}");
            let journal = open(&after, &story);
            let log = journal.log(A).unwrap();
            assert_eq!(payloads(&log).len() as u64, count, "{story}");
            log.append(entry(count, 700)).unwrap();
            count += 1;
            drop((log, journal));
            after = after.crash(seed);
        }
        drop((log, journal));
    }
}

/// A torn batch behind the acknowledged ones is cut and reported, and a later write stands where it was, for ever.
#[test]
fn a_torn_tail_is_cut_and_reported_once() {
    let disk = disk(11);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 100)).unwrap();
    let path = last_segment(&disk);
    let before = batches_of(&disk, &path).last().unwrap().end();
    log.append_relaxed(entry(1, 1500)).unwrap();
    let torn = lose(
        &disk,
        &|choice| matches!(choice.atom, Atom::Sector { sector, .. } if sector * 512 > before + 600),
    );
    let again = open(&torn, "torn");
    assert_eq!(again.report().verdict, Verdict::Torn);
    let cut = &again.report().cut;
    assert!(
        cut.len() == 1 && cut[0].offset == before && cut[0].batches == 1,
        "{cut:?}"
    );
    let again_log = again.log(A).unwrap();
    assert_eq!(payloads(&again_log), [entry(0, 100)]);
    again_log.append(b"other").unwrap();
    drop((again_log, again));
    for seed in 0..20 {
        let last = open(&torn.crash(seed), "after the cut");
        assert_eq!(
            payloads(&last.log(A).unwrap()),
            [entry(0, 100), b"other".to_vec()],
            "seed {seed}"
        );
    }
    drop((log, journal));
}

/// A batch that spans logs is atomic: every outcome of a power cut has all of it or none.
#[test]
fn a_batch_over_several_logs_is_atomic() {
    let disk = disk(12);
    let journal = create(&disk);
    let (a, b) = (
        journal.create_log(A, 0).unwrap(),
        journal.create_log(B, 0).unwrap(),
    );
    let mut batch = WriteBatch::new();
    batch
        .append(A, entry(0, 700))
        .append(B, entry(0, 700))
        .set(A, 0, [1; 100])
        .set(B, 0, [1; 100]);
    drop(journal.submit_relaxed(batch).unwrap());
    journal.work().map(drop).unwrap_or(());
    let disk_before_sync = disk;
    let all = each_outcome(&disk_before_sync, 1 << 10, 200, &mut |after, outcome| {
        let again = open(&after, outcome);
        let state = [A, B].map(|key| {
            let log = again.log(key).unwrap();
            (log.bounds().unwrap().end, log.cell(0).unwrap().is_some())
        });
        assert!(
            state == [(1, true); 2] || state == [(0, false); 2],
            "{outcome}: {state:?}"
        );
    });
    assert!(all);
    drop((a, b, journal));
    let _ = disk_before_sync.space();
}
