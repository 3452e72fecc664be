//! Restarts without writes: nothing is written that need not be, and nothing grows.

use std::mem::forget;

use everlog::fs::SimFs;

use super::support::{A, disk, entry, keep_all, keep_synced, one_log, open, payloads, usage};

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Drop,
    Kill,
    PowerCut,
    PowerCutKeepingAll,
    /// The background work ran before the kill.
    KillAfterWork,
}

impl End {
    fn lives(self) -> u64 {
        match self {
            End::Kill | End::PowerCut => 1000,
            _ => 150,
        }
    }
}

fn restart(disk: &SimFs, end: End, life: u64) -> SimFs {
    let journal = open(disk, &format!("{end:?}, life {life}"));
    match end {
        End::Close => journal.close().unwrap(),
        End::Drop => drop(journal),
        End::KillAfterWork => {
            while journal.work().unwrap() {}
            forget(journal);
        }
        End::Kill | End::PowerCut | End::PowerCutKeepingAll => forget(journal),
    }
    match end {
        End::PowerCut => disk.crash(life),
        End::PowerCutKeepingAll => keep_all(disk),
        _ => disk.kill(),
    }
}

/// Table: "1,000 crash-restarts without writes - no growth of the directory" (rule 15); for each way to end.
#[test]
fn a_thousand_restarts_without_writes_do_not_grow_the_directory() {
    for end in [
        End::Close,
        End::Drop,
        End::Kill,
        End::PowerCut,
        End::PowerCutKeepingAll,
        End::KillAfterWork,
    ] {
        let mut disk = disk(1);
        let (journal, log) = one_log(&disk);
        for i in 0..40 {
            log.append(entry(i, 600)).unwrap();
        }
        drop(log);
        journal.close().unwrap();
        let mut high = (0, 0);
        for life in 0..end.lives() {
            disk = restart(&disk, end, life);
            let now = usage(&disk);
            if life == 10 {
                high = now;
            }
            assert!(
                life <= 10 || (now.0 <= high.0 && now.1 <= high.1),
                "{end:?}, life {life}: {now:?} after {high:?}"
            );
        }
        assert_eq!(payloads(&open(&disk, "in the end").log(A).unwrap()).len(), 40);
    }
}

/// The same with an unproven tail, killed and cut in turn.
#[test]
fn restarts_with_an_unproven_tail_do_not_grow_the_directory() {
    for end in [
        End::Kill,
        End::PowerCut,
        End::PowerCutKeepingAll,
        End::KillAfterWork,
        End::Drop,
    ] {
        let mut disk = disk(2);
        let (journal, log) = one_log(&disk);
        for i in 0..40 {
            log.append(entry(i, 600)).unwrap();
        }
        let mut high = (0, 0);
        disk = keep_synced(&disk);
        drop((log, journal));
        for life in 0..end.lives() {
            disk = restart(&disk, end, life);
            let now = usage(&disk);
            if life == 20 {
                high = now;
            }
            // One unit that was superseded may still be there, and its successor.
            let fits = now.0 <= high.0 + (64 << 10) && now.1 <= high.1 + 3;
            assert!(life <= 20 || fits, "{end:?}, life {life}: {now:?} after {high:?}");
        }
        assert_eq!(payloads(&open(&disk, "in the end").log(A).unwrap()).len(), 40);
    }
}

/// Rule 3: "a life without writes deletes nothing": not even what an earlier life has left behind.
#[test]
fn a_life_without_writes_deletes_nothing() {
    let disk = disk(3);
    let (journal, log) = one_log(&disk);
    for i in 0..60 {
        log.append(entry(i, 600)).unwrap();
    }
    log.purge_to(50).unwrap();
    while journal.work().unwrap() {}
    let before = disk.files();
    drop(log);
    journal.close().unwrap();
    let closed = keep_all(&disk);
    let at_close: Vec<String> = closed
        .files()
        .into_keys()
        .filter(|path| path.ends_with(".seg"))
        .collect();
    let again = open(&closed, "no writes");
    again.work().unwrap();
    again.close().unwrap();
    let written = |path: &&String| {
        closed
            .read_raw(path)
            .is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0))
    };
    for path in at_close
        .iter()
        .filter(|path| disk.read_raw(path).unwrap().iter().any(|byte| *byte != 0))
    {
        assert!(written(&path), "{path} is gone");
    }
    assert!(!before.is_empty());
}

/// Entries that crash-restart cycles with one write each leave behind do not outgrow what is live.
#[test]
fn restarts_with_one_write_and_a_purge_do_not_grow_the_directory() {
    let mut disk = disk(4);
    let (journal, log) = one_log(&disk);
    drop((log, journal));
    let mut high = (0, 0);
    for life in 0..150 {
        disk = disk.crash(life);
        let journal = open(&disk, &format!("life {life}"));
        let log = journal.log(A).unwrap();
        let at = log.bounds().unwrap().end;
        assert_eq!(at, life, "life {life}");
        log.append(entry(at, 200)).unwrap();
        log.purge_to(at).unwrap();
        journal.reclaim().unwrap();
        forget((log, journal));
        let now = usage(&disk);
        if life == 30 {
            high = now;
        }
        assert!(
            life <= 30 || (now.0 <= high.0 * 2 && now.1 <= high.1 * 2),
            "life {life}: {now:?} after {high:?}"
        );
    }
}
