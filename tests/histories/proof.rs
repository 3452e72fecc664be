//! Proof: durable-through, witnesses, and what they make of bad bytes; what an open has shown stays.

use std::sync::Arc;

use everlog::fs::{Atom, Failure, Fault, FaultFs, Kept, Op, Rule, SimFs};
use everlog::inspect::View;
use everlog::{ErrorKind, Journal, LogKey, WriteBatch};

use super::support::{
    A, B, batches_of, create, disk, dynamic, entry, keep_all, last_segment, lose, one_log, open, payloads,
    segments, small, try_open,
};

/// Rule 14: "`open` returns after the unit's sync": what an open has shown is what every later one shows, whatever the power cut
/// behind it keeps. Before it, a process was killed at any call, with a sync that had failed and kept its bytes: batches that
/// the file system shows, that an unsynced opening hides, and that come back when the power cut takes the opening.
#[test]
fn what_an_open_has_shown_stays() {
    for spare in 0..3 {
        for stop in spare..16 {
            for seed in 0..4 {
                let disk = disk(seed);
                let (journal, log) = one_log(&disk);
                while journal.work().unwrap() {}
                disk.fail_sync("", spare, Kept::Everything);
                disk.stop_after(stop);
                for i in 0..6 {
                    if log.append(entry(i, 900)).is_err() {
                        break;
                    }
                }
                drop((log, journal));
                let killed = disk.kill();
                let story = format!("sync {spare} fails, stop {stop}, seed {seed}");
                let shown = payloads(&open_and_leave(&killed, &story));
                for seed in 0..6 {
                    let story = format!("{story}, crash seed {seed}");
                    let again = open(&killed.crash(seed), &story);
                    assert_eq!(payloads(&again.log(A).unwrap()).len(), shown.len(), "{story}");
                }
            }
        }
    }
}

/// The same where it is a write that failed, after it was done: its batch stands behind the end that the opening of the fresh segment
/// gives the old one, and a kill leaves that opening with nothing behind it. It hides the batch, nobody has synced it, and a power cut
/// that takes it would bring the batch back.
#[test]
fn what_an_open_has_shown_stays_after_a_write_that_was_done_and_failed() {
    for nth in 1..4 {
        for stop in 0..10 {
            let disk = disk(nth * 10 + stop);
            let faults = FaultFs::new(Arc::new(disk.clone()));
            let journal = Journal::create_on(Arc::new(faults.clone()), small()).unwrap();
            let log = journal.create_log(A, 0).unwrap();
            while journal.work().unwrap() {}
            let done = Fault::ErrorAfter(Failure::Kind(std::io::ErrorKind::Other));
            let watch = faults.add(Rule::on(Op::Write, done).nth(nth));
            for i in 0..6 {
                if watch.fired() == 0 && watch.matched() + 1 == nth {
                    // The next write is the one that fails.
                    disk.stop_after(1 + stop);
                }
                if log.append(entry(i, 300)).is_err() {
                    break;
                }
            }
            drop((log, journal));
            let killed = disk.kill();
            let story = format!("write {nth} fails, stop {stop}");
            let shown = payloads(&open_and_leave(&killed, &story));
            for seed in 0..16 {
                let story = format!("{story}, crash seed {seed}");
                let again = open(&killed.crash(seed), &story);
                assert_eq!(payloads(&again.log(A).unwrap()), shown, "{story}");
            }
        }
    }
}

/// Opens, and never closes.
fn open_and_leave(disk: &SimFs, story: &str) -> everlog::Log {
    let journal = open(disk, story);
    let log = journal.log(A).unwrap();
    std::mem::forget(journal);
    log
}

/// Rule 19: durable-through goes on rising after a re-homing and after a cut, and never names a sequence of another segment.
#[test]
fn durable_through_rises_again_after_a_rehoming_and_a_cut() {
    let disk = disk(1);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 100)).unwrap();
    disk.fail_sync("", 0, Kept::Nothing);
    for i in 1..5 {
        log.append(entry(i, 100)).unwrap();
    }
    assert_eq!(journal.metrics().rehomings, 1);
    log.append_relaxed(entry(5, 1500)).unwrap();
    let torn = lose(
        &disk,
        &|choice| matches!(choice.atom, Atom::Sector { sector, .. } if sector % 2 == 0),
    );
    drop((log, journal));
    let journal = open(&torn, "torn");
    let log = journal.log(A).unwrap();
    let count = log.bounds().unwrap().end;
    for i in count..count + 4 {
        log.append(entry(i, 100)).unwrap();
    }
    let last = batches_of(&torn, &last_segment(&torn));
    let (first, end) = (last.first().unwrap().sequence - 1, last.last().unwrap());
    assert!(
        end.durable_through + 1 >= end.sequence,
        "each flush proves the one before: {last:?}"
    );
    for batch in &last {
        assert!(
            batch.durable_through == 0 || batch.durable_through >= first,
            "{batch:?}"
        );
    }
}

/// Rule 21: "A valid fixed header alone is a witness": a later batch that is torn, with its header intact, bears witness to the
/// acknowledged one before it. Rot in that one is then damage, not a tear.
#[test]
fn the_header_of_a_torn_batch_is_a_witness() {
    let disk = disk(2);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 300)).unwrap();
    log.append(entry(1, 300)).unwrap();
    let path = last_segment(&disk);
    let end = batches_of(&disk, &path).last().unwrap().end();
    log.append_relaxed(entry(2, 2500)).unwrap();
    let torn = lose(
        &disk,
        &|choice| matches!(choice.atom, Atom::Sector { sector, .. } if sector * 512 > end + 512),
    );
    assert_eq!(
        payloads(&open(&keep_all(&torn), "torn").log(A).unwrap()).len(),
        2,
        "without rot it is a tear"
    );
    assert_eq!(last_segment(&torn), path, "all in one segment");
    let acknowledged = batches_of(&torn, &path);
    let victim = &acknowledged[acknowledged.len() - 2];
    torn.flip_bit(&path, victim.offset + 200, 0).unwrap();
    assert_eq!(try_open(&torn).unwrap_err().kind(), ErrorKind::Damaged);
    drop((log, journal));
}

/// Rule 21: damage of a witnessed batch is damage of the logs that it hits: a view serves the others, from the same batch.
#[test]
fn damage_of_one_frame_leaves_the_other_logs_of_its_batch() {
    let disk = disk(3);
    let journal = create(&disk);
    for n in 1..=3 {
        journal.create_log(LogKey(n), 0).unwrap();
    }
    let mut batch = WriteBatch::new();
    for n in 1..=3 {
        batch.append(LogKey(n), entry(n, 300));
    }
    journal.write(batch).unwrap();
    journal.close().unwrap();
    let path = last_segment(&disk);
    let all = batches_of(&disk, &path);
    let shared = all.iter().find(|batch| batch.frames == 3).unwrap();
    // The frame headers stand behind the header, the payloads behind them.
    let places = [
        shared.offset + 96 + 48 + 20,
        shared.offset + 96 + 3 * 48 + 300 + 17,
    ];
    for (what, at) in ["a frame header", "a payload"].iter().zip(places) {
        let damaged = keep_all(&disk);
        damaged.flip_bit(&path, at, 1).unwrap();
        assert_eq!(
            try_open(&damaged).unwrap_err().kind(),
            ErrorKind::Damaged,
            "{what}"
        );
        let view = View::open_on(dynamic(&damaged), small()).unwrap();
        for n in [1, 3] {
            let found = view
                .log(LogKey(n))
                .unwrap()
                .get(0)
                .unwrap_or_else(|e| panic!("{what}, log {n}: {e}"));
            assert_eq!(found[..], entry(n, 300), "{what}, log {n}");
        }
        let second = view.log(LogKey(2)).and_then(|log| log.get(0));
        assert!(second.is_err(), "{what}: {second:?}");
        assert!(
            view.findings().iter().any(|finding| finding.is_damage()),
            "{what}"
        );
    }
}

/// Rule 21: "once witnessed, a rotten carried frame is damage of its log, not of the segment".
#[test]
fn a_rotten_carried_frame_is_damage_of_its_log() {
    let disk = disk(4);
    let (journal, log) = one_log(&disk);
    let other = journal.create_log(B, 0).unwrap();
    let mut batch = WriteBatch::new();
    batch.append(A, entry(0, 300)).append(B, entry(1, 300));
    journal.write(batch).unwrap();
    let crashed = keep_all(&disk);
    drop((log, other, journal));
    open(&crashed, "carries").close().unwrap();
    let path = last_segment(&crashed);
    let carry = batches_of(&crashed, &path)[0].clone();
    assert!(carry.flags & 8 != 0, "{carry:?}");
    let bytes = crashed.read_raw(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"entry 0 ").unwrap() as u64;
    crashed.flip_bit(&path, at, 1).unwrap();
    assert_eq!(try_open(&crashed).unwrap_err().kind(), ErrorKind::Damaged);
    let view = View::open_on(dynamic(&crashed), small()).unwrap();
    assert_eq!(view.log(B).unwrap().get(0).unwrap()[..], entry(1, 300));
    assert_eq!(
        view.log(A).unwrap().get(0).unwrap_err().kind(),
        ErrorKind::Damaged
    );
}

/// Rule 32: "A damaged read after open under `Refuse`: that read fails, no change of state".
#[test]
fn a_damaged_read_after_open_fails_alone() {
    let disk = disk(5);
    let (journal, log) = one_log(&disk);
    for i in 0..20 {
        log.append(entry(i, 900)).unwrap();
    }
    while journal.work().unwrap() {}
    let path = &segments(&disk)[1];
    let victim = batches_of(&disk, path)[0].offset;
    disk.flip_bit(path, victim + 96 + 48 + 100, 2).unwrap();
    let bad: Vec<u64> = (0..20).filter(|i| log.get(*i).is_err()).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    let error = log.get(bad[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(
        error.path().unwrap().ends_with(path) && error.offset().is_some(),
        "{error}"
    );
    assert_eq!(
        log.read(0..20).filter(Result::is_err).count(),
        1,
        "a range ends at it"
    );
    log.append(entry(20, 900)).unwrap();
    assert_eq!(log.bounds().unwrap(), 0..21);
    log.purge_to(bad[0] + 1).unwrap();
    drop((log, journal));
    let again = open(&disk, "purged past the damage");
    assert_eq!(payloads(&again.log(A).unwrap()).len() as u64, 20 - bad[0]);
}

/// Rule 10: what was submitted is the journal's own: the caller's buffer may change at once, also if the write is re-homed later.
#[test]
fn a_submitted_payload_is_the_journals_own() {
    let disk = disk(6);
    let (journal, log) = one_log(&disk);
    let mut buffer = vec![1_u8; 3000];
    let ticket = log.submit(&buffer).unwrap();
    buffer.fill(2);
    disk.fail_sync("", 0, Kept::Nothing);
    ticket.wait().unwrap();
    log.append_relaxed(&buffer).unwrap();
    buffer.fill(3);
    disk.fail_sync("", 0, Kept::Nothing);
    journal.sync().unwrap();
    assert_eq!(journal.metrics().rehomings, 2);
    for seed in 0..10 {
        let found = payloads(&open(&disk.crash(seed), "re-homed").log(A).unwrap());
        assert_eq!(found, [vec![1; 3000], vec![2; 3000]], "seed {seed}");
    }
    drop(log);
}
