//! What is counted, and what is charged: to the byte, on a short life of which every batch is known.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use everlog::{EntryId, ErrorKind, Journal, Metrics, Permit, WriteBatch};

use super::support::{
    A, batches_of, create, disk, dynamic, entry, last_segment, one_log, open, small, usage,
};

const HEADER: u64 = 96;
const FRAME: u64 = 48;
const TERM: u64 = 16;

/// Bytes of a batch with frames for these payloads, and so many terms.
fn batch_len(terms: u64, payloads: &[u64]) -> u64 {
    let frames = payloads.len() as u64 * FRAME;
    (HEADER + frames + terms * TERM + payloads.iter().sum::<u64>()).next_multiple_of(8)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn room(journal: &Journal, bytes: u64) -> Permit {
    match poll(&mut journal.room(bytes)) {
        Poll::Ready(permit) => permit.unwrap(),
        Poll::Pending => panic!("there is room for {bytes} bytes"),
    }
}

fn one(len: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.append(A, vec![7; len]);
    batch
}

/// Writes, entries, bytes of payload, batches, bytes written, syncs, of which for relaxed writes, marks.
fn written(m: &Metrics) -> [u64; 8] {
    [
        m.writes,
        m.entries,
        m.bytes_payload,
        m.batches,
        m.bytes_written,
        m.syncs,
        m.relaxed_syncs,
        m.marks,
    ]
}

#[test]
fn everything_that_a_life_writes_and_reads_is_counted_once() {
    let disk = disk(1);
    let journal = create(&disk);
    assert_eq!(written(&journal.metrics()), [0; 8]);
    let log = journal.create_log(A, 0).unwrap();
    let mut bytes = batch_len(0, &[0]);
    assert_eq!(written(&journal.metrics()), [1, 0, 0, 1, bytes, 1, 0, 0]);
    log.append([1; 100]).unwrap();
    bytes += batch_len(0, &[100]);
    assert_eq!(written(&journal.metrics()), [2, 1, 100, 2, bytes, 2, 0, 0]);
    log.append_at(EntryId::new(7, 1), [2; 100]).unwrap();
    bytes += batch_len(1, &[100]);
    assert_eq!(written(&journal.metrics()), [3, 2, 200, 3, bytes, 3, 0, 0]);

    log.append_relaxed([3; 10]).unwrap();
    bytes += batch_len(1, &[10]);
    assert_eq!(written(&journal.metrics()), [4, 3, 210, 4, bytes, 3, 0, 0]);
    assert_eq!(journal.metrics().in_flight_bytes, batch_len(1, &[10]));
    while journal.work().unwrap() {}
    bytes += HEADER;
    assert_eq!(written(&journal.metrics()), [4, 3, 210, 4, bytes, 4, 1, 1]);
    assert_eq!(journal.metrics().in_flight_bytes, 0);

    journal.sync().unwrap();
    assert!(WriteBatch::new().is_empty() && !one(1).is_empty());
    journal.write(WriteBatch::new()).unwrap();
    while journal.work().unwrap() {}
    let same = [4, 3, 210, 4, bytes, 4, 1, 1];
    assert_eq!(written(&journal.metrics()), same, "nothing was missing");

    let tickets = [log.submit([4; 10]).unwrap(), log.submit([5; 20]).unwrap()];
    assert_eq!(
        journal.metrics().in_flight_bytes,
        batch_len(1, &[10]) + batch_len(1, &[20])
    );
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    bytes += batch_len(1, &[10, 20]);
    assert_eq!(written(&journal.metrics()), [6, 5, 240, 5, bytes, 5, 1, 1]);

    assert_eq!(log.get(0).unwrap().len(), 100);
    assert_eq!(log.read(1..4).count(), 3);
    let metrics = journal.metrics();
    assert_eq!((metrics.reads, metrics.read_bytes), (4, 220));
    assert_eq!(
        (metrics.rotations, metrics.rehomings, metrics.carried_bytes),
        (0, 0, 0)
    );
    let stages = [
        &metrics.queue,
        &metrics.encode,
        &metrics.write,
        &metrics.sync,
        &metrics.wake,
    ];
    assert_eq!(stages.map(|stage| stage.count()), [7, 5, 5, 5, 7]);

    journal.clone().close().unwrap();
    let at = 8192 + bytes;
    bytes += (at + HEADER).next_multiple_of(4096) - at + HEADER;
    assert_eq!(written(&journal.metrics()), [6, 5, 240, 5, bytes, 6, 1, 2]);
}

#[test]
fn what_a_life_carries_and_how_often_it_rotates_is_counted() {
    let disk = disk(2);
    let (_journal, log) = one_log(&disk);
    log.append([1; 1000]).unwrap();
    let killed = disk.kill();
    let journal = open(&killed, "carries");
    let carried = batches_of(&killed, &last_segment(&killed))[0].len;
    let metrics = journal.metrics();
    assert_eq!(metrics.carried_bytes, carried);
    assert_eq!(
        metrics.bytes_written,
        8192 + carried + HEADER,
        "two openings, the tail, its mark"
    );
    assert_eq!((metrics.syncs, metrics.marks, metrics.rotations), (1, 1, 0));

    let (journal, log) = one_log(&self::disk(3));
    for rotations in 0..4 {
        log.append([1; 3000]).unwrap();
        assert_eq!(journal.metrics().rotations, rotations, "each fills a segment");
    }
    log.purge_to(3).unwrap();
    let freed = journal.reclaim().unwrap();
    assert_eq!((freed.segments, freed.bytes), (3, 3 * (16 << 10)));
    assert_eq!(journal.metrics().segments_freed, 3);
}

#[test]
fn an_append_that_a_full_disk_refuses_is_counted_and_no_other_refusal_is() {
    let disk = disk(3);
    let (journal, log) = one_log(&disk);
    disk.set_capacity(usage(&disk).0.div_ceil(4096) * 4096);
    let mut at = 0;
    while log.append(entry(at, 900)).is_ok() {
        at += 1;
    }
    assert_eq!(journal.metrics().appends_refused_no_space, 1);
    let wrong = EntryId::new(0, at + 1);
    assert_eq!(log.append_at(wrong, b"x").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(journal.metrics().appends_refused_no_space, 1);
    assert_eq!(log.append(entry(at, 900)).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(journal.metrics().appends_refused_no_space, 2);
    assert_eq!(journal.metrics().entries, at);
}

/// A permit pays for what a write takes on disk as a batch of its own; what is missing comes from the bound, if there is room.
#[test]
fn a_permit_pays_to_the_byte() {
    let disk = disk(4);
    let (journal, _log) = one_log(&disk);
    let charge = batch_len(1, &[1000]);
    let exact = room(&journal, charge);
    let short = room(&journal, charge - 1);
    let mut waits = journal.room(4 << 10);
    assert!(poll(&mut waits).is_pending());
    let ticket = journal.submit_with(exact, one(1000)).unwrap();
    assert_eq!(journal.metrics().in_flight_bytes, charge);
    let error = journal.submit_with(short, one(1000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = format!("the permit holds {} bytes; the batch takes {charge}", charge - 1);
    assert!(error.to_string().contains(&text), "{error}");
    ticket.wait().unwrap();
    drop(waits);

    let some = room(&journal, 100);
    let more = batch_len(1, &[3700]);
    let ticket = journal.submit_with(some, one(3700)).unwrap();
    assert_eq!(
        journal.metrics().in_flight_bytes,
        more,
        "no more than the bound of 4096"
    );
    ticket.wait().unwrap();
    assert_eq!(journal.metrics().in_flight_bytes, 0);
    assert!(
        poll(&mut journal.room(4 << 10)).is_ready(),
        "nothing is held any more"
    );
}

#[test]
fn a_batch_of_sixteen_thousand_operations_is_the_largest() {
    let disk = disk(5);
    let (journal, log) = one_log(&disk);
    let mut batch = WriteBatch::new();
    for _ in 0..16_000 {
        batch.append(A, b"");
    }
    journal.write(batch.clone()).unwrap();
    batch.append(A, b"");
    let error = journal.write(batch).unwrap_err();
    let text = "a batch of 16001 operations and 0 bytes is too large to be atomic: at most 16000 and about 1073740800";
    assert!(error.to_string().contains(text), "{error}");
    let config = small().max_entry_bytes(100);
    drop((log, journal));
    let journal = Journal::open_on(dynamic(&disk), config).unwrap();
    let log = journal.log(A).unwrap();
    assert_eq!(log.append([0; 100]).unwrap().index, 16_000);
    let error = log.append([0; 101]).unwrap_err();
    let text = "an entry of 101 bytes is larger than max_entry_bytes, 100";
    assert!(error.to_string().contains(text), "{error}");
}

/// A mark leaves the room that the closing mark needs, and takes the last bytes before it.
#[test]
fn a_mark_is_written_if_there_is_room_for_it() {
    let room = (16 << 10) - 8192 - 4192;
    for (left, marks) in [(96, 1), (88, 0), (104, 1)] {
        let (journal, log) = one_log(&disk(6));
        log.append(vec![1; usize::try_from(room - left).unwrap() - 144 - 144])
            .unwrap();
        assert_eq!(journal.metrics().bytes_written, room - left);
        while journal.work().unwrap() {}
        assert_eq!(journal.metrics().marks, marks, "{left} bytes are left");
    }
}

#[test]
fn relaxed_writes_are_synced_when_there_are_so_many_bytes() {
    let bytes = batch_len(1, &[100]);
    for (bound, every) in [(bytes, 1), (2 * bytes, 2), (2 * bytes + 1, 3), (3 * bytes, 3)] {
        let config = small().relaxed_bytes(bound);
        let journal = Journal::create_on(dynamic(&disk(7)), config).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        for n in 1..=9 {
            log.append_relaxed([1; 100]).unwrap();
            let syncs = journal.metrics().syncs - 1;
            assert_eq!(
                syncs,
                n / every,
                "after {n} writes of {bytes} bytes, {bound} at most"
            );
        }
    }
}

/// One write of many is as many batches as its numbers ask for.
#[test]
fn a_batch_has_so_many_frames_and_so_many_terms_and_no_more() {
    let config = small().segment_bytes(8 << 20).in_flight_bytes(8 << 20);
    let batches = |writes: &[(u64, bool)]| {
        let journal = Journal::create_on(dynamic(&disk(8)), config.clone()).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        let (mut index, mut last) = (0, None);
        for (count, terms) in writes {
            let mut batch = WriteBatch::new();
            for _ in 0..*count {
                let term = if *terms { index + 1 } else { 0 };
                batch.append_at(A, EntryId::new(u128::from(term), index), b"");
                index += 1;
            }
            last = Some(journal.submit(batch).unwrap());
        }
        last.unwrap().wait().unwrap();
        assert_eq!(log.bounds().unwrap(), 0..index);
        journal.metrics().batches - 1
    };
    assert_eq!(
        batches(&[(16_000, false), (16_000, false), (16_000, false), (12_000, false)]),
        1
    );
    assert_eq!(
        batches(&[(16_000, false), (16_000, false), (16_000, false), (12_001, false)]),
        2
    );
    assert_eq!(batches(&[(16_000, true)]), 1, "alone it goes as it is");
    assert_eq!(batches(&[(8000, true), (7000, true)]), 1);
    assert_eq!(batches(&[(8000, true), (9000, true)]), 2);
}

/// Nor is a segment opened in vain: one write that fills it to the byte goes in, whatever its terms.
#[test]
fn a_write_of_many_terms_that_fills_a_segment_goes_in() {
    let segment = 2 << 20;
    let config = small().segment_bytes(segment).in_flight_bytes(4 << 20);
    let journal = Journal::create_on(dynamic(&disk(9)), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    let rest = segment - 8192 - 4192 - HEADER - 16_000 * (FRAME + TERM);
    let mut batch = WriteBatch::new();
    for index in 0..16_000 {
        let len = if index == 0 { rest } else { 0 };
        let payload = vec![1; usize::try_from(len).unwrap()];
        batch.append_at(A, EntryId::new(u128::from(index) + 1, index), payload);
    }
    journal.write(batch).unwrap();
    assert_eq!(log.bounds().unwrap(), 0..16_000);
    assert_eq!(journal.metrics().rotations, 1);
}

/// Room that was charged and not needed is given to the writes that come.
#[test]
fn a_segment_is_filled_by_what_writes_take_and_not_by_what_they_were_charged() {
    let (journal, log) = one_log(&disk(10));
    let (takes, charged) = (batch_len(0, &[16]), batch_len(1, &[16]));
    let mut room = (16 << 10) - 8192 - 4192 - batch_len(0, &[0]);
    while room >= charged {
        assert_eq!(journal.metrics().rotations, 0, "{room} bytes are left");
        log.append([1; 16]).unwrap();
        room -= takes;
    }
    assert_eq!(journal.metrics().rotations, 0);
    log.append([1; 16]).unwrap();
    assert_eq!(journal.metrics().rotations, 1);
}
