//! Much of something that is small: facts, terms.

use everlog::fs::Kept;
use everlog::{Background, Config, EntryId, Journal, LogKey, WriteBatch};

use super::support::{A, disk, dynamic, entry};

/// More logs than one batch takes operations: their facts are said again in one batch, which is refused, so that nothing is ever freed.
#[test]
fn more_facts_than_a_batch_takes_are_said_again_in_several() {
    let config = Config::new()
        .segment_bytes(8 << 20)
        .background(Background::Caller);
    // Just as many as a batch takes, too: the floor is one more.
    for count in [16_000, 16_001, 16_050] {
        let disk = disk(1);
        let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        for key in 2..count {
            journal.create_log(LogKey(key), 0).unwrap();
        }
        for i in 0..40 {
            log.append(entry(i, 500_000)).unwrap();
        }
        log.purge_to(39).unwrap();
        assert!(journal.reclaim().unwrap().segments > 0, "{count} logs");
        let again = Journal::open_on(dynamic(&disk.crash(1)), config.clone()).unwrap();
        assert_eq!(again.logs().len() as u64, count - 1);
    }
}

/// Relaxed writes with many terms: what re-homes them syncs before all of them stand in the fresh segment, and so ends the old one.
#[test]
fn relaxed_writes_of_many_terms_survive_a_kill_in_their_rehoming() {
    let config = Config::new()
        .segment_bytes(8 << 20)
        .in_flight_bytes(8 << 20)
        .background(Background::Caller);
    let mut bad = Vec::new();
    for stop in 0..9 {
        let disk = disk(stop);
        let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        while journal.work().unwrap() {}
        let mut next = 0;
        let mut term = 1_u128;
        // 60,000 frames, 8 terms.
        for _ in 0..4 {
            let mut batch = WriteBatch::new();
            for _ in 0..15_000 {
                batch.append_at(A, EntryId::new(term, next), b"");
                next += 1;
            }
            journal.write_relaxed(batch).unwrap();
        }
        // 15,892 terms.
        let mut batch = WriteBatch::new();
        for _ in 0..15_891 {
            term += 1;
            batch.append_at(A, EntryId::new(term, next), b"");
            next += 1;
        }
        journal.write_relaxed(batch).unwrap();
        // 100 small writes of 6 terms, one group.
        let mut last = None;
        for _ in 0..100 {
            let mut batch = WriteBatch::new();
            for _ in 0..5 {
                term += 1;
                batch.append_at(A, EntryId::new(term, next), b"");
                next += 1;
            }
            last = Some(journal.submit_relaxed(batch).unwrap());
        }
        last.unwrap().wait().unwrap();
        disk.fail_sync("journal/", 0, Kept::Everything);
        disk.stop_after(stop);
        drop(journal.sync());
        let disk = disk.kill();
        drop((log, journal));
        let again = Journal::open_on(dynamic(&disk), config.clone()).unwrap();
        let bounds = again.log(A).unwrap().bounds().unwrap();
        if bounds != (0..next) {
            bad.push((stop, bounds, next));
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}
