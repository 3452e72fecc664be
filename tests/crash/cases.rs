//! Crashes that were once recovered wrongly, each reduced to the few steps that it takes.
//!
//! With 16 KiB segments and 4 KiB alignment a segment holds one batch, so that every write stands in a segment of its own.

use std::sync::Arc;

use everlog::fs::{Fs, Kept, Profile, SimFs};
use everlog::{Alignment, Background, Config, EntryId, ErrorKind, Journal, Log, LogKey, WriteBatch};

use super::model::Model;

const A: LogKey = LogKey(1);
const B: LogKey = LogKey(2);

fn config() -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .alignment(Alignment::Bytes4096)
        .in_flight_bytes(4 << 10)
        .background(Background::Caller)
}

fn create(disk: &SimFs) -> Journal {
    Journal::create_on(Arc::new(disk.clone()), config()).unwrap()
}

fn open(disk: &SimFs) -> everlog::Result<Journal> {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    Journal::open_on(fs, config())
}

/// A power cut that takes nothing, but leaves no evidence of the last sync either.
fn cut(disk: &SimFs) -> SimFs {
    disk.crash_with(&mut |choice| choice.newest())
}

fn append(log: &Log, count: u64) {
    for n in 0..count {
        log.append([u8::try_from(n).unwrap(); 9]).unwrap();
    }
}

#[test]
fn entries_behind_a_purge_whose_end_lies_below_the_floor_are_found() {
    let disk = SimFs::new(1, Profile::PosixWeak);
    let journal = create(&disk);
    let log = journal.create_log(A, 0).unwrap();
    append(&log, 2);
    // Entry 1 stays in a segment that goes: the purge in the one that stays does not say that the log reached it.
    let mut batch = WriteBatch::new();
    batch.purge_to(A, 1).append(A, b"stays");
    journal.write(batch).unwrap();
    log.purge_to(2).unwrap();
    assert!(journal.reclaim().unwrap().segments > 0);
    let log = open(&cut(&disk)).unwrap().log(A).unwrap();
    assert_eq!(
        (log.bounds().unwrap(), &log.get(2).unwrap()[..]),
        (2..3, &b"stays"[..])
    );
}

/// Has facts that count entries 0 and 1 of the log `A`, and lets the floor rise to those facts: the entries go by what `take`
/// does, in the same batch as the floor.
fn floor_rises_by(take: impl Fn(&mut WriteBatch)) -> SimFs {
    let disk = SimFs::new(2, Profile::PosixWeak);
    let journal = create(&disk);
    let [a, b] = [A, B].map(|key| journal.create_log(key, 0).unwrap());
    append(&a, 2);
    append(&b, 2);
    b.purge_to(2).unwrap();
    journal.reclaim().unwrap();
    let mut batch = WriteBatch::new();
    take(&mut batch);
    let ticket = journal.submit(batch).unwrap();
    assert!(journal.reclaim().unwrap().segments > 0);
    assert!(ticket.is_done());
    cut(&disk)
}

#[test]
fn what_took_old_entries_may_stand_in_the_tail() {
    let bounds = |disk: &SimFs| open(disk).unwrap().log(A).unwrap().bounds().unwrap();
    let purged = floor_rises_by(|batch| {
        batch.purge_to(A, 2);
    });
    assert_eq!(bounds(&purged), 2..2);
    let reset = floor_rises_by(|batch| {
        batch.reset(A, EntryId::new(0, 0));
    });
    assert_eq!(bounds(&reset), 1..1);
    let truncated = floor_rises_by(|batch| {
        batch.truncate_from(A, 0);
    });
    assert_eq!(bounds(&truncated), 0..0);
}

/// What an opening finds, a power cut right after it must not change.
#[test]
fn what_an_opening_found_is_found_again() {
    for calls in 0..60 {
        for seed in 0..8 {
            let disk = SimFs::new(seed, Profile::PosixWeak);
            let journal = create(&disk);
            let log = journal.create_log(A, 0).unwrap();
            log.append_relaxed([1; 700]).unwrap();
            // The segment fails, and the process dies while what is in it goes into a fresh one.
            disk.fail_sync("journal/", 0, Kept::Everything);
            disk.stop_after(calls);
            let _unknown = log.append([2; 700]);
            let disk = disk.kill();
            let first = Model::read(&open(&disk).unwrap()).unwrap();
            let second = Model::read(&open(&disk.crash(seed)).unwrap()).unwrap();
            assert!(
                first == second,
                "after {calls} calls, seed {seed}: first\n{first}then\n{second}"
            );
        }
    }
}

#[test]
fn a_journal_that_was_opened_once_is_there_after_a_power_cut() {
    for calls in 0..40 {
        let disk = SimFs::new(calls, Profile::PosixWeak);
        disk.stop_after(calls);
        let _killed = Journal::create_on(Arc::new(disk.clone()), config());
        let disk = disk.kill();
        match open(&disk) {
            Ok(journal) => drop(journal),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("after {calls} calls: {error}"),
        }
        for seed in 0..8 {
            open(&disk.crash(seed)).unwrap_or_else(|e| panic!("after {calls} calls, seed {seed}: {e}"));
        }
    }
}

#[test]
fn no_index_is_written_for_a_segment_that_is_gone() {
    let disk = SimFs::new(3, Profile::PosixWeak);
    let journal = create(&disk);
    let log = journal.create_log(A, 0).unwrap();
    append(&log, 8);
    log.purge_to(8).unwrap();
    assert!(journal.reclaim().unwrap().segments > 0);
    while journal.work().unwrap() {}
    let files = disk.files();
    let orphans = files
        .keys()
        .filter(|path| path.ends_with(".idx") && !files.contains_key(&path.replace(".idx", ".seg")));
    assert_eq!(orphans.count(), 0, "{files:#?}");
}

/// A sync of the directory fails and what it covered is forgotten, although everybody sees it. Whatever the next lives do, what
/// they acknowledge stays, or the file under two names is refused.
#[test]
fn a_directory_that_forgets_names_takes_nothing_acknowledged() {
    for spare in 0..12 {
        for seed in 0..6 {
            let disk = SimFs::new(seed, Profile::PosixWeak);
            let journal = create(&disk);
            let log = journal.create_log(A, 0).unwrap();
            disk.fail_sync_dir("journal", spare, Kept::Nothing);
            let acked = (0..6).filter(|_| log.append([7; 900]).is_ok()).count();
            let disk = disk.kill();
            // The fault may still be waiting, for this.
            let journal = open(&disk).or_else(|_| open(&disk)).unwrap();
            let log = journal.log(A).unwrap();
            append(&log, 6);
            let end = log.bounds().unwrap().end;
            assert!(end >= acked as u64 + 6);
            let disk = disk.crash(seed);
            for _ in 0..2 {
                match open(&disk) {
                    Ok(journal) => {
                        let found = Model::read(&journal).unwrap();
                        assert_eq!(found.0[&A.0].end(), end, "spare {spare}, seed {seed}");
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "spare {spare}, seed {seed}"),
                }
            }
        }
    }
}

/// Restarts with all sorts of settings, each killed or cut short somewhere, leave no more files than a few.
#[test]
fn restarts_do_not_fill_the_directory() {
    let disk = SimFs::new(5, Profile::PosixWeak);
    let journal = create(&disk);
    let log = journal.create_log(A, 0).unwrap();
    append(&log, 3);
    log.purge_to(3).unwrap();
    log.set_relaxed(1, b"to be carried").unwrap();
    let mut disk = disk.fork();
    for life in 0..400 {
        let segment = [16, 20, 28, 32, 64][usize::try_from(life % 5).unwrap()];
        let settings = config()
            .segment_bytes(segment << 10)
            .segments_ahead(1 + usize::from(life % 3 == 0));
        disk.stop_after(life % 37);
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        if let Ok(journal) = Journal::open_on(fs, settings) {
            if life % 2 == 0 {
                let _cut_short = journal.write_relaxed({
                    let mut batch = WriteBatch::new();
                    batch.set(A, 0, life.to_le_bytes());
                    batch
                });
            }
            let _stopped = journal.work();
        }
        disk = if life % 3 == 0 {
            disk.kill()
        } else {
            disk.crash(life)
        };
        let files = disk.files();
        assert!(files.len() <= 40, "life {life}: {files:#?}");
    }
    let log = open(&disk).unwrap().log(A).unwrap();
    assert_eq!(log.bounds().unwrap(), 3..3);
    assert_eq!(log.cell(1).unwrap().as_deref(), Some(&b"to be carried"[..]));
}

#[test]
fn a_cell_that_is_set_again_and_again_does_not_fill_the_disk() {
    let disk = SimFs::new(6, Profile::PosixWeak);
    let journal = create(&disk);
    let log = journal.create_log(A, 0).unwrap();
    for n in 0..500_u64 {
        log.set(0, n.to_le_bytes()).unwrap();
        while journal.work().unwrap() {}
        assert!(disk.files().len() <= 32, "{:#?}", disk.files());
    }
    let log = open(&cut(&disk)).unwrap().log(A).unwrap();
    assert_eq!(log.cell(0).unwrap().unwrap(), 499_u64.to_le_bytes()[..]);
}
