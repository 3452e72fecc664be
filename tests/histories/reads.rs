//! Reading: only bytes that were written at their place, by this segment, in this life, are believed.

use everlog::fs::SimFs;
use everlog::{ErrorKind, Journal};

use super::support::{
    A, batches_of, disk, dynamic, entry, fill_with, keep_all, one_log, open, segments, slice, small, try_open,
};

/// A directory was put back as it was some time ago, and went on: two segments have one id. A batch of the one that gets to
/// its own place in the other (by a disk that lost a write, or by a person) never verifies there: another segment, another salt.
#[test]
fn bytes_of_another_life_under_the_same_id_never_verify() {
    let origin = disk(1);
    let (journal, log) = one_log(&origin);
    log.append(entry(0, 600)).unwrap();
    drop(log);
    journal.close().unwrap();
    let lives = [1, 2].map(|n: u8| life(&origin, n));
    let (mut hits, mut refusals) = (0, 0);
    for path in segments(&lives[0]).iter().skip(1) {
        let other = lives[1].read_raw(path).unwrap();
        let theirs = batches_of(&lives[1], path);
        for batch in batches_of(&lives[0], path) {
            if batch.frames == 0
                || !theirs
                    .iter()
                    .any(|b| (b.offset, b.len) == (batch.offset, batch.len))
            {
                continue;
            }
            let mixed = keep_all(&lives[0]);
            mixed
                .write_raw(path, batch.offset, slice(&other, &batch))
                .unwrap();
            hits += 1;
            let story = format!("{path} at {}", batch.offset);
            let journal = match try_open(&mixed) {
                Ok(journal) => journal,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{story}: {error}");
                    refusals += 1;
                    continue;
                }
            };
            let log = journal.log(A).unwrap();
            for index in 1..log.bounds().unwrap().end {
                match log.get(index) {
                    Ok(bytes) => assert_eq!(bytes[..], [1; 600], "{story}: entry {index}"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Damaged, "{story}: {error}");
                        refusals += 1;
                    }
                }
            }
        }
    }
    assert!(hits > 10 && refusals >= hits, "{refusals} of {hits}");
}

fn life(origin: &SimFs, n: u8) -> SimFs {
    let disk = origin.crash(n.into());
    let journal = open(&disk, "a life");
    let log = journal.log(A).unwrap();
    for _ in 0..40 {
        log.append([n; 600]).unwrap();
    }
    while journal.work().unwrap() {}
    drop(log);
    journal.close().unwrap();
    keep_all(&disk)
}

/// An iterator reads ahead, and looks for entries a few hundred at a time. What it holds of a place may be older than the entry
/// that was written there since.
#[test]
fn an_iterator_goes_on_into_entries_that_were_written_behind_it() {
    for already in [255, 256, 257, 512] {
        let disk = disk(2);
        let journal = Journal::create_on(dynamic(&disk), small().segment_bytes(256 << 10)).unwrap();
        let log = journal.create_log(A, 0).unwrap();
        fill_with(&log, already, 20);
        let mut reading = log.read(0..already + 5);
        let mut written = already;
        for index in 0..already + 5 {
            let next = reading.next().unwrap();
            if index == already && already % 256 != 0 {
                // It had looked for this one already.
                assert_eq!(next.unwrap_err().kind(), ErrorKind::NotFound);
                break;
            }
            let found = next.unwrap_or_else(|e| panic!("{already}, entry {index}: {e}"));
            assert_eq!(found.payload[..], entry(index, 20));
            if index + 1 == written {
                fill_with(&log, 5, 20);
                written += 5;
            }
        }
    }
}

/// An index at which nothing was ever is not there; one below the beginning was purged.
#[test]
fn an_empty_log_says_of_each_index_why_there_is_no_entry() {
    let disk = disk(4);
    let (_journal, log) = one_log(&disk);
    assert_eq!(log.entry(0).unwrap_err().kind(), ErrorKind::NotFound);
    for i in 0..3 {
        log.append(entry(i, 10)).unwrap();
    }
    log.purge_to(3).unwrap();
    assert_eq!(log.entry(2).unwrap_err().kind(), ErrorKind::Purged);
    assert_eq!(log.entry(3).unwrap_err().kind(), ErrorKind::NotFound);
}
