//! Names that a directory forgets: after a sync of it failed the next one says Ok, and what the first one covered may be
//! lost for good. A file can come back under a name that it had before, or stand under two.

use everlog::fs::{Kept, SimFs};
use everlog::{ErrorKind, Journal};

use super::support::{A, disk, dynamic, entry, open, small};

/// Entries that some life was told are durable, and that were handed in.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    acked: u64,
    issued: u64,
}

fn len(index: u64) -> usize {
    // Now and then one that needs a file of its own, whose id overtakes the one named ahead.
    if index % 6 == 4 { 18_000 } else { 700 }
}

/// Opens, checks that everything acknowledged is there, and goes on.
fn life(disk: &SimFs, told: Told, story: &str) -> Told {
    let journal = match Journal::open_on(dynamic(disk), small()) {
        Err(error) if error.kind() == ErrorKind::Io => return told,
        opened => opened.unwrap_or_else(|e| panic!("{story}: {e}")),
    };
    let log = journal.log(A).unwrap_or_else(|e| panic!("{story}: {e}"));
    let bounds = log.bounds().unwrap();
    assert!(
        (told.acked..=told.issued).contains(&bounds.end),
        "{story}: {told:?}, found {bounds:?}"
    );
    for (index, found) in (bounds.start..).zip(log.read(bounds.clone())) {
        let found = found.unwrap_or_else(|e| panic!("{story}: {index}: {e}"));
        assert!(
            found.payload[..] == entry(index, len(index)),
            "{story}: entry {index}"
        );
    }
    let mut told = Told {
        acked: bounds.end,
        issued: bounds.end,
    };
    for _ in 0..9 {
        told.issued += 1;
        match log.append(entry(told.acked, len(told.acked))) {
            Ok(_) => told.acked = told.issued,
            Err(error) if error.kind() == ErrorKind::Io => told.issued -= 1,
            Err(_) => break,
        }
        if told.acked % 4 == 3 {
            drop(journal.work());
        }
    }
    if log.purge_to(told.acked.saturating_sub(7)).is_ok() {
        drop(journal.reclaim());
    }
    told
}

/// Every sync of the directory of a life fails in turn, and is forgotten or not; the process is killed at any call around it; two
/// lives follow, each ended by a power cut. A file is one segment: nothing acknowledged is overwritten, and the journal opens.
#[test]
fn a_directory_that_forgets_names_costs_nothing_acknowledged() {
    for kept in [Kept::Nothing, Kept::Everything] {
        for nth in 0..10 {
            for stop in (4..130).step_by(6).chain([u64::MAX]) {
                let disk = disk(stop);
                let journal = super::support::create(&disk);
                journal.create_log(A, 0).unwrap();
                disk.fail_sync_dir("journal", nth, kept);
                if stop < u64::MAX {
                    disk.stop_after(stop);
                }
                drop(journal);
                let story =
                    format!("sync of the directory {nth} fails, {kept:?}, stopped after {stop} calls");
                let mut told = life(&disk, Told::default(), &story);
                let mut disk = disk.kill();
                for seed in 0..4 {
                    let story = format!("{story}, life {seed}");
                    told = life(&disk, told, &story);
                    disk = if seed == 2 { disk.kill() } else { disk.crash(seed) };
                }
                open(&disk, &story);
            }
        }
    }
}
