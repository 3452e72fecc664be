//! Whichever call to the disk fails, and however: nobody is told a falsehood, and the snapshots that were there stay.

use std::sync::Arc;

use everlog::ErrorKind;
use everlog::fs::{Failure, Fault, FaultFs, Gate, Kept, Op, Rule, SimFs};
use everlog::snapshot::{Retention, Store, StoreConfig};

use super::small::{config, create, disk, open, read, state, try_create};
use super::story::held;

const FAULTS: [fn() -> Fault; 5] = [
    Fault::io_error,
    Fault::no_space,
    || Fault::Short(100),
    || Fault::Interrupted,
    || Fault::ErrorAfter(Failure::Kind(std::io::ErrorKind::Other)),
];

/// Opens, shares, commits, collects and rewrites; what of it was committed and what was told.
fn work(disk: &SimFs, fault: Option<Rule>) -> (u64, bool, Option<everlog::Error>) {
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let watch = fault.map(|rule| fs.add(rule));
    let mut committed = false;
    let mut run = || -> everlog::Result<()> {
        let store = Store::open_on(Arc::new(fs.clone()), config().rewrite_below_percent(100))?;
        try_create(&store, 3, &[state(1, 800), state(3, 800)].concat())?;
        committed = true;
        store.collect(&Retention::new().newest(2))?;
        Ok(())
    };
    let error = run().err();
    drop(watch);
    (fs.calls(), committed, error)
}

/// Two snapshots, of which the second shares with the first.
fn before() -> SimFs {
    let disk = disk();
    let store = open(&disk);
    create(&store, 1, &state(1, 1600));
    create(&store, 2, &[state(1, 800), state(2, 800)].concat());
    disk
}

#[test]
fn a_call_that_fails_takes_nothing_with_it() {
    let (calls, ..) = work(&before(), None);
    assert!(calls > 40, "{calls} calls");
    for nth in 1..=calls {
        for (number, fault) in FAULTS.iter().enumerate() {
            for forever in [false, true].into_iter().take(if number < 2 { 2 } else { 1 }) {
                let disk = before();
                let rule = Rule::on_any(fault()).nth(nth);
                let rule = if forever { rule.forever() } else { rule };
                let (_, committed, error) = work(&disk, Some(rule));
                let told = format!("fault {number} at call {nth}, for ever: {forever}: {error:?}");
                judge(&disk.fork(), committed, &told);
                judge(&disk.crash(nth), committed, &told);
                if let Some(error) = &error {
                    let kinds = [
                        ErrorKind::Io,
                        ErrorKind::NoSpace,
                        ErrorKind::Unknown,
                        ErrorKind::Damaged,
                        ErrorKind::NotFound,
                    ];
                    assert!(kinds.contains(&error.kind()), "{told}");
                }
            }
        }
    }
}

fn judge(disk: &SimFs, committed: bool, told: &str) {
    let next = disk.kill();
    let store = open(&next);
    let found = held(&store).unwrap_or_else(|what| panic!("{told}: {what}"));
    let two = [state(1, 800), state(2, 800)].concat();
    assert!(found.get(&2) == Some(&two), "{told}: the second snapshot");
    let first = found.get(&1);
    assert!(
        first.is_none_or(|found| *found == state(1, 1600)),
        "{told}: the first snapshot"
    );
    assert!(
        committed || first.is_some(),
        "{told}: it went although nothing was collected"
    );
    let three = [state(1, 800), state(3, 800)].concat();
    let third = found.get(&3);
    assert!(
        third.is_none_or(|found| *found == three),
        "{told}: the third snapshot"
    );
    assert!(!committed || third.is_some(), "{told}: it was committed");
    // And it goes on.
    let committed = create(&store, 4, &three);
    store
        .collect(&Retention::new().newest(1))
        .unwrap_or_else(|e| panic!("{told}: {e:?}"));
    assert_eq!(read(&store, committed.snapshot.id).unwrap(), three, "{told}");
}

/// What cannot be decided, and does occur. An index is named, and the process killed before the sync of the name; the next opening's sync fails,
/// and the one after that is told Ok.
#[test]
fn an_opening_that_failed_may_lose_a_commit_that_was_never_told_and_nothing_else() {
    let disk = disk();
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let store = Store::open_on(Arc::new(fs.clone()), config()).unwrap();
    create(&store, 1, &state(1, 1000));
    let gate = Gate::default();
    let naming = Rule::on(Op::SyncDir, Fault::Delay(gate.clone())).path("snapshots");
    fs.add(naming.nth(2));
    let committing = std::thread::spawn(move || drop(try_create(&store, 2, &state(2, 1000))));
    gate.wait_for_arrivals(1);
    let next = disk.kill();
    gate.release();
    committing.join().unwrap();
    next.fail_sync_dir("snapshots", 0, Kept::Nothing);
    let error = Store::open_on(Arc::new(next.clone()), config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let both = [(1, state(1, 1000)), (2, state(2, 1000))].into();
    let store = open(&next);
    assert_eq!(held(&store), Ok(both), "memory has its name");
    drop(store);
    let left = held(&open(&next.crash_with(&mut |_| 0)));
    assert_eq!(left, Ok([(1, state(1, 1000))].into()), "and nothing else does");
}

#[test]
fn a_large_pack_is_synced_while_more_is_written_and_a_failure_of_that_ends_it() {
    let large = state(9, 9 << 20);
    let made = |fault: Fault| {
        let disk = disk();
        let fs = FaultFs::new(Arc::new(disk.clone()));
        let store = Store::open_on(Arc::new(fs.clone()), StoreConfig::new()).expect("the store opens");
        let syncs = fs.add(Rule::on(Op::SyncData, fault).path(".pack"));
        let committed = try_create(&store, 1, &large);
        let listed = store.list().expect("the store lists").len();
        drop(store);
        let again = open(&disk).list().expect("the store lists").len();
        assert_eq!(listed, again);
        (committed, listed, syncs.fired(), syncs.matched())
    };
    // A sync cannot be short: this only counts.
    let (committed, listed, _, syncs) = made(Fault::Short(1));
    committed.expect("the snapshot is committed");
    assert_eq!((listed, syncs), (1, 2), "one beside the writing, one at the end");

    let (committed, listed, fired, syncs) = made(Fault::io_error());
    let error = committed.expect_err("its first sync fails");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!((listed, fired), (0, 1));
    assert_eq!(syncs, 1, "nothing is synced any more after a sync that failed");
}
