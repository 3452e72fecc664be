//! The full disk: met at admission, where nothing has happened yet; the reserve serves what frees space and what a node
//! must never be refused.

use everlog::fs::{Fault, FaultFs, Gate, Kept, Op, Rule, SimFs};
use everlog::{Background, EntryId, ErrorKind, Journal, Log, LogKey, WriteBatch};
use std::sync::Arc;

use super::support::{
    A, B, disk, dynamic, entry, keep_synced, one_log, open, payloads, segments, small, usage,
};

/// The disk has no byte free from now on.
fn fill_up(disk: &SimFs) {
    disk.set_capacity(usage(disk).0.div_ceil(4096) * 4096 + 4096);
}

/// Appends until the disk refuses; returns how many there are.
fn append_until_full(log: &Log, mut at: u64) -> (u64, everlog::Error) {
    loop {
        match log.append(entry(at, 900)) {
            Ok(_) => at += 1,
            Err(error) => return (at, error),
        }
        assert!(at < 10_000, "the disk is never full");
    }
}

/// Rule 27: "`NoSpace` only after the preparer had ENOSPC": nothing lost, nothing written, and it goes on when space is back.
#[test]
fn a_full_disk_refuses_appends_and_goes_on_when_space_is_back() {
    let disk = disk(1);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 900)).unwrap();
    fill_up(&disk);
    let (count, error) = append_until_full(&log, 1);
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(log.bounds().unwrap(), 0..count, "a refused append has no index");
    let before = segments(&disk)
        .iter()
        .map(|path| disk.read_raw(path).unwrap())
        .collect::<Vec<_>>();
    for _ in 0..5 {
        assert_eq!(
            log.append(entry(count, 900)).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        assert_eq!(
            log.append_relaxed(entry(count, 900)).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        let mut batch = WriteBatch::new();
        batch.append(A, entry(count, 900));
        let refused = journal.try_submit(batch).unwrap_err();
        assert!(
            matches!(refused.error.kind(), ErrorKind::NoSpace | ErrorKind::Busy),
            "{}",
            refused.error
        );
        assert_eq!(refused.batch.len(), 1, "the batch comes back");
    }
    let after: Vec<_> = segments(&disk)
        .iter()
        .map(|path| disk.read_raw(path).unwrap())
        .collect();
    assert!(before == after, "a refused append writes nothing into a segment");
    assert_eq!(payloads(&log).len() as u64, count, "reads go on");
    disk.set_capacity(1 << 30);
    log.append(entry(count, 900)).unwrap();
    assert_eq!(
        payloads(&open(&disk.crash(1), "after").log(A).unwrap()).len() as u64,
        count + 1
    );
    drop((log, journal));
}

/// Rule 27 and rule 16: with 0 bytes free, cells, truncate, purge, delete and opening work, also after a power cut that leaves
/// a tail to carry.
#[test]
fn the_reserve_serves_what_must_not_be_refused() {
    let disk = disk(2);
    let (journal, log) = one_log(&disk);
    let other = journal.create_log(B, 0).unwrap();
    other.append(b"b").unwrap();
    for i in 0..30 {
        log.append(entry(i, 900)).unwrap();
    }
    fill_up(&disk);
    let (count, _) = append_until_full(&log, 30);
    disk.set_capacity(usage(&disk).0);
    for vote in 0..20_u64 {
        log.set(0, vote.to_le_bytes()).unwrap();
    }
    log.truncate_from(count - 1).unwrap();
    for seed in 0..30 {
        let story = format!("seed {seed}");
        let crashed = if seed == 0 {
            keep_synced(&disk)
        } else {
            disk.crash(seed)
        };
        let journal = open(&crashed, &story);
        let log = journal.log(A).unwrap();
        assert_eq!(log.cell(0).unwrap().unwrap()[..], 19_u64.to_le_bytes(), "{story}");
        assert_eq!(payloads(&log).len() as u64, count - 1, "{story}");
        log.set(0, b"vote").unwrap_or_else(|e| panic!("{story}: {e}"));
        log.truncate_from(count - 2)
            .unwrap_or_else(|e| panic!("{story}: {e}"));
        journal.delete_log(B).unwrap_or_else(|e| panic!("{story}: {e}"));
        log.purge_to(count - 4).unwrap_or_else(|e| panic!("{story}: {e}"));
        let freed = journal.reclaim().unwrap_or_else(|e| panic!("{story}: {e}"));
        assert!(freed.segments > 0, "{story}: {freed:?}");
        drop((log, journal));
        let journal = open(&crashed.crash(seed), &story);
        assert_eq!(journal.logs(), [A], "{story}");
        assert_eq!(
            journal.log(A).unwrap().bounds().unwrap(),
            count - 4..count - 2,
            "{story}"
        );
    }
    drop((log, other, journal));
}

/// Rule 16: "On a full disk open cannot carry: no boot, no vote." An opening that carried a tail has used the reserve's file:
/// until that stands again appends are refused, though its segment has room, and a vote is not.
#[test]
fn appends_wait_until_the_reserve_stands_again() {
    let disk = disk(7);
    let (journal, log) = one_log(&disk);
    fill_up(&disk);
    let (count, _) = append_until_full(&log, 0);
    disk.set_capacity(usage(&disk).0);
    let crashed = keep_synced(&disk);
    drop((log, journal));
    let journal = open(&crashed, "carries");
    assert!(journal.report().carried_batches > 0);
    let log = journal.log(A).unwrap();
    assert_eq!(log.append(b"small").unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(
        log.append_relaxed(b"small").unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    log.set(0, b"vote").unwrap();
    crashed.set_capacity(1 << 30);
    log.append(b"small").unwrap();
    assert_eq!(log.bounds().unwrap(), 0..count + 1);
}

/// The same when a write that may use the reserve has taken its file, instead of an opening.
#[test]
fn appends_wait_until_a_used_reserve_stands_again() {
    let disk = disk(8);
    let (_journal, log) = one_log(&disk);
    fill_up(&disk);
    let (count, _) = append_until_full(&log, 0);
    disk.set_capacity(usage(&disk).0);
    log.set(0, [1; 3000]).unwrap();
    assert_eq!(log.append(b"small").unwrap_err().kind(), ErrorKind::NoSpace);
    log.set(1, b"there is room in the segment").unwrap();
    disk.set_capacity(1 << 30);
    log.append(b"small").unwrap();
    assert_eq!(log.bounds().unwrap(), 0..count + 1);
}

/// Whoever does not want to wait is told which it would be: for a full disk, or for whoever makes the next file.
#[test]
fn a_full_disk_is_told_from_a_file_that_is_not_ready() {
    let disk = disk(13);
    let (journal, log) = one_log(&disk);
    fill_up(&disk);
    let (count, _) = append_until_full(&log, 0);
    let refused = || {
        let mut batch = WriteBatch::new();
        batch.append(A, entry(count, 900));
        journal.try_submit(batch).unwrap_err().error.kind()
    };
    assert_eq!(refused(), ErrorKind::NoSpace);
    disk.set_capacity(1 << 30);
    assert_eq!(refused(), ErrorKind::Busy);
}

/// Where even the reserve is used up a write is refused when it comes, and nothing fails that was taken in.
#[test]
fn a_used_up_reserve_refuses_and_closes_nothing() {
    let disk = disk(14);
    let (_journal, log) = one_log(&disk);
    fill_up(&disk);
    append_until_full(&log, 0);
    disk.set_capacity(usage(&disk).0);
    let refused = (0..20).find_map(|n| log.set(n, [n; 3000]).err());
    let refused = refused.expect("the reserve holds one segment");
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
    log.set(0, b"small").unwrap();
    disk.set_capacity(1 << 30);
    log.set(0, [7; 3000]).unwrap();
}

/// What idle work finds nothing to do for takes no room.
#[test]
fn an_idle_journal_on_a_full_disk_keeps_its_room() {
    let disk = disk(12);
    let (journal, log) = one_log(&disk);
    fill_up(&disk);
    append_until_full(&log, 0);
    disk.set_capacity(usage(&disk).0);
    for _ in 0..60 {
        journal.sync().unwrap();
        while journal.work().unwrap() {}
    }
    log.append(b"small").unwrap();
}

/// A full disk takes what its prepared files hold, and no more: what is taken in and not yet written has its place all the same.
#[test]
fn what_is_taken_in_on_a_full_disk_finds_its_place() {
    let config = small().in_flight_bytes(64 << 10);
    for round in 0..60_u64 {
        let disk = disk(round);
        let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        disk.set_capacity(usage(&disk).0.div_ceil(4096) * 4096 + (round % 5) * (16 << 10));
        let mut tickets = Vec::new();
        // The last of these fills a segment to the byte.
        let size = if round == 19 { 3840 } else { 300 + round * 170 };
        let refused = loop {
            let n = tickets.len() as u64;
            // Of one size each, from a seventh of a segment to a segment; or mixed, with some that are larger than one.
            let len = match round {
                0..20 => size,
                _ if (n + round).is_multiple_of(11) => 4000 + (n * round) % 9000,
                _ => 100 + (n * round * 37) % 3500,
            };
            match log.submit(entry(n, usize::try_from(len).unwrap())) {
                Ok(ticket) => tickets.push(ticket),
                Err(error) => break error,
            }
            assert!(n < 1000, "round {round}: the disk is never full");
        };
        assert_eq!(refused.kind(), ErrorKind::NoSpace, "round {round}: {refused}");
        let count = tickets.len() as u64;
        for (n, ticket) in tickets.into_iter().enumerate() {
            ticket
                .wait()
                .unwrap_or_else(|e| panic!("round {round}, write {n}: {e}"));
        }
        if round < 20 {
            let charge = 160 + size.next_multiple_of(8);
            let room = (16 << 10) - 8192 - 4192;
            let files = 1 + round % 5;
            let expected = (room - 144) / charge + files * (room / charge);
            assert_eq!(count, expected, "round {round}: writes of {charge} bytes");
        }
        log.set(0, [9; 1000]).unwrap();
        assert_eq!(payloads(&log).len() as u64, count, "round {round}");
    }
}

/// What an entry larger than a segment needs is there when it is taken in, or it is refused, however much room there is.
#[test]
fn a_large_entry_on_a_nearly_full_disk_is_taken_in_whole_or_refused() {
    let mut outcomes = [0, 0];
    for blocks in 0..80 {
        let disk = disk(blocks);
        let (_journal, log) = one_log(&disk);
        disk.set_capacity(usage(&disk).0 + blocks * 4096);
        let large = log.append(entry(0, 60_000));
        outcomes[usize::from(large.is_ok())] += 1;
        if let Err(error) = &large {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{blocks} blocks: {error}");
        }
        log.set(0, b"vote")
            .unwrap_or_else(|e| panic!("{blocks} blocks: {e}"));
    }
    assert!(outcomes.iter().all(|count| *count > 5), "{outcomes:?}");
}

/// Rule 28: "Purge on a full disk frees space": with cells of other logs to say again; then appends go on.
#[test]
fn a_purge_on_a_full_disk_frees_space() {
    for cells in [0, 1, 4] {
        let disk = disk(3);
        let (journal, log) = one_log(&disk);
        let keepers: Vec<Log> = (0..cells)
            .map(|n| journal.create_log(LogKey(50 + n), 0).unwrap())
            .collect();
        for keeper in &keepers {
            keeper.set(0, [5; 600]).unwrap();
        }
        disk.set_capacity(usage(&disk).0.div_ceil(4096) * 4096 + (160 << 10));
        let (count, _) = append_until_full(&log, 0);
        disk.set_capacity(usage(&disk).0);
        let before = usage(&disk).0;
        log.purge_to(count - 2)
            .unwrap_or_else(|e| panic!("{cells} cells: {e}"));
        let freed = journal.reclaim().unwrap_or_else(|e| panic!("{cells} cells: {e}"));
        assert!(
            freed.segments > 2 && usage(&disk).0 < before,
            "{cells} cells: {freed:?}"
        );
        while journal.work().unwrap() {}
        for i in 0..4 {
            log.append(entry(count + i, 900))
                .unwrap_or_else(|e| panic!("{cells} cells, append {i}: {e}"));
        }
        let again = open(&disk.crash(cells), "after");
        assert_eq!(
            again.log(A).unwrap().bounds().unwrap(),
            count - 2..count + 4,
            "{cells} cells"
        );
        for n in 0..cells {
            assert_eq!(
                again.log(LogKey(50 + n)).unwrap().cell(0).unwrap().as_deref(),
                Some(&[5; 600][..])
            );
        }
        drop((log, keepers, journal));
    }
}

/// A disk that fills up and empties again, a power cut each time: nothing acknowledged is lost, every life opens.
#[test]
fn a_disk_that_is_full_again_and_again_loses_nothing() {
    let mut disk = disk(4);
    drop(one_log(&disk));
    let mut end = 0;
    for life in 0..14 {
        let journal = open(&disk, &format!("life {life}"));
        let log = journal.log(A).unwrap();
        assert_eq!(log.bounds().unwrap().end, end, "life {life}");
        while journal.work().unwrap() {} // the reserve stands again
        if life % 2 == 0 {
            fill_up(&disk);
            (end, _) = append_until_full(&log, end);
            disk.set_capacity(usage(&disk).0);
        } else {
            log.purge_to(end - 1)
                .unwrap_or_else(|e| panic!("life {life}: {e}"));
            journal.reclaim().unwrap_or_else(|e| panic!("life {life}: {e}"));
            disk.set_capacity(usage(&disk).0 + (256 << 10));
            while journal.work().unwrap() {}
        }
        std::mem::forget((log, journal));
        disk = disk.crash(life);
    }
}

/// Entries larger than a segment, than the in-flight bound; larger than allowed is `Invalid`, and nothing is written.
#[test]
fn large_entries_go_alone_and_too_large_ones_are_invalid() {
    let config = small().max_entry_bytes(100_000);
    let disk = disk(5);
    let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    let mut expected = Vec::new();
    for (i, len) in (0..).zip([10, 4000, 4096, 5000, 16_384, 20_000, 99_999, 100_000, 3]) {
        log.append(entry(i, len))
            .unwrap_or_else(|e| panic!("{len} bytes: {e}"));
        expected.push(entry(i, len));
    }
    let before = disk.dump();
    for len in [100_001, 1_000_000] {
        let bytes = vec![1; len];
        for error in [
            log.append(&bytes).unwrap_err(),
            log.append_relaxed(&bytes).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{len}: {error}");
        }
        assert_eq!(log.submit(&bytes).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(disk.dump() == before, "nothing was written");
    for seed in 0..20 {
        let again = Journal::open_on(dynamic(&disk.crash(seed)), config.clone())
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(payloads(&again.log(A).unwrap()), expected, "seed {seed}");
    }
    drop((log, journal));
}

/// Rule 27: "A large entry is admitted when its file is made": on a disk without room for that it is `NoSpace`, and small ones
/// still go in.
#[test]
fn a_large_entry_without_room_for_its_file_is_no_space() {
    let disk = disk(6);
    let (journal, log) = one_log(&disk);
    disk.set_capacity(usage(&disk).0 + (40 << 10));
    let error = log.append(entry(0, 60_000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(log.bounds().unwrap(), 0..0);
    log.append(entry(0, 500)).unwrap();
    disk.set_capacity(1 << 30);
    log.append(entry(1, 60_000)).unwrap();
    assert_eq!(
        payloads(&open(&disk.crash(0), "after").log(A).unwrap()),
        [entry(0, 500), entry(1, 60_000)]
    );
    drop((log, journal));
}

/// ENOSPC at any call that prepares a file: appends go on or are refused, nothing closes.
#[test]
fn enospc_while_preparing_never_closes_the_journal() {
    for nth in 1..30 {
        let disk = disk(nth);
        let faults = FaultFs::new(Arc::new(disk.clone()));
        let journal = Journal::create_on(Arc::new(faults.clone()), small()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        faults.add(
            Rule::on(Op::Create, Fault::no_space())
                .path(".tmp")
                .nth(nth)
                .times(4),
        );
        let mut count = 0;
        for _ in 0..60 {
            match log.append(entry(count, 900)) {
                Ok(_) => count += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "call {nth}: {error}"),
            }
        }
        assert!(count >= 50, "call {nth}: {count} went in");
        assert_eq!(
            payloads(&open(&disk.crash(nth), "after").log(A).unwrap()).len() as u64,
            count,
            "call {nth}"
        );
        drop((log, journal));
    }
}

/// A write that finds every prepared file spoken for makes one; if another thread was faster, there is one by then, and that
/// was once taken for a full disk. Which thread is faster is left to chance, in many rounds.
#[test]
fn a_file_that_another_thread_made_is_no_full_disk() {
    for round in 0..40 {
        let fs = FaultFs::new(dynamic(&disk(round)));
        let config = small().in_flight_bytes(64 << 10).background(Background::Threads);
        let journal = Journal::create_on(Arc::new(fs.clone()), config).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        // Each of these needs a segment of its own, so the preparer soon wants to make one, and is held up.
        let making = Gate::default();
        fs.add(Rule::on(Op::Create, Fault::Delay(making.clone())).path(".tmp"));
        let cell = entry(round, 3_000);
        let submit = || {
            let mut batch = WriteBatch::new();
            batch.set(A, 0, &cell);
            journal.submit(batch).unwrap()
        };
        let first = [submit(), submit()];
        making.wait_for_arrivals(1);

        std::thread::scope(|scope| {
            let late: Vec<_> = (0..6).map(|_| scope.spawn(|| log.set(1, &cell))).collect();
            making.release();
            for (n, late) in late.into_iter().enumerate() {
                late.join()
                    .unwrap()
                    .unwrap_or_else(|e| panic!("round {round}, write {n}: {e}"));
            }
        });
        first.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
        journal.close().unwrap();
    }
}

/// Cells never queue for room, so that any number of them may be submitted and not awaited. What a crash leaves of them must still be
/// no more than the reserve was made for, and no more than one unit can carry: the disk is full, and the journal opens.
#[test]
fn cells_that_nobody_awaits_leave_no_tail_that_the_reserve_cannot_carry() {
    let bound = 4 << 10;
    let config = small().segment_bytes(256 << 10).in_flight_bytes(bound);
    for len in [200, 1000, 3000, 9000] {
        let disk = disk(9);
        let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
        journal.create_log(A, 0).unwrap();
        let mut last = None;
        for n in 0..60_u8 {
            let mut batch = WriteBatch::new();
            batch.set(A, n % 3, vec![n; len]);
            last = Some(journal.submit(batch).unwrap());
        }
        last.unwrap().wait().unwrap();
        fill_up(&disk);
        let after = disk.kill();
        drop(journal);
        let again = Journal::open_on(dynamic(&after), config.clone());
        let again = again.unwrap_or_else(|e| panic!("cells of {len} bytes: {e}"));
        let most = 2 * bound.max(len as u64);
        let carried = again.report().carried_bytes;
        assert!(carried <= most, "cells of {len} bytes: {carried} carried");
        let log = again.log(A).unwrap();
        assert_eq!(log.cell(2).unwrap().unwrap(), vec![59; len]);
    }
}

/// Nor do terms: what a crash leaves of relaxed writes has no more of them than one unit can carry.
#[test]
fn terms_that_nobody_awaits_leave_no_tail_that_one_unit_cannot_carry() {
    let config = small().segment_bytes(8 << 20).in_flight_bytes(8 << 20);
    let disk = disk(10);
    let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    let syncs = journal.metrics().syncs;
    for _ in 0..10 {
        let mut batch = WriteBatch::new();
        let next = log.bounds().unwrap().end;
        for index in next..next + 8000 {
            batch.append_at(A, EntryId::new(u128::from(index + 1), index), b"");
        }
        journal.write_relaxed(batch).unwrap();
    }
    // Two of them are at the bound of 16,000 terms: the next one waits for a sync.
    assert_eq!(journal.metrics().syncs - syncs, 4);
    let again = Journal::open_on(dynamic(&disk.kill()), config).unwrap();
    assert_eq!(again.log(A).unwrap().bounds().unwrap(), 0..80_000);
    assert!(again.report().carried_batches <= 4, "{:?}", again.report());
    drop((log, journal));
}

/// Cells that are set again and again fill no disk, though nothing is ever purged.
#[test]
fn cells_that_are_set_again_leave_few_segments() {
    let disk = disk(11);
    let (journal, log) = one_log(&disk);
    for round in 0..100_u64 {
        // Each needs a segment.
        log.set(0, entry(round, 3000)).unwrap();
        while journal.work().unwrap() {}
        let held = segments(&disk).len();
        assert!(held <= 8, "{held} segments after {round} rounds");
    }
    let freed = journal.metrics().segments_freed;
    assert!(freed > 80, "{freed} segments were freed");
    assert_eq!(log.cell(0).unwrap().unwrap()[..], entry(99, 3000));
}

/// On a full disk a failed sync takes the reserve's file; appends wait until it stands again, as they do when a cell took it, or
/// nothing could be purged any more.
#[test]
fn appends_wait_after_a_rehoming_took_the_reserve() {
    let full = |disk: &SimFs| disk.set_capacity(usage(disk).0.div_ceil(4096) * 4096);
    let count = {
        let disk = disk(1);
        let (_journal, log) = one_log(&disk);
        full(&disk);
        append_until_full(&log, 0).0
    };
    for fails in [false, true] {
        let disk = disk(1);
        let (journal, log) = one_log(&disk);
        full(&disk);
        for i in 0..count - 1 {
            log.append(entry(i, 900)).unwrap();
        }
        if fails {
            disk.fail_sync("journal/", 0, Kept::Nothing);
        }
        log.append(entry(count - 1, 900)).unwrap();
        assert_eq!(journal.metrics().rehomings, u64::from(fails));
        full(&disk);
        append_until_full(&log, count);
        while log.append(b"").is_ok() {}
        let set = log.set(0, [7; 300]);
        let purged = log.purge_to(count - 2);
        assert!(
            set.is_ok() && purged.is_ok(),
            "fails: {fails}; {set:?}, {purged:?}"
        );
        assert!(journal.reclaim().unwrap().segments > 0, "fails: {fails}");
    }
}
