//! Machines whose entries somebody else orders.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use everlog::engine::{Capture, EngineConfig, Replica, StateMachine};
use everlog::fs::{Fault, FaultFs, Op, Rule, SimFs};
use everlog::snapshot::Store;
use everlog::{Entry, EntryId, ErrorKind, Journal, Log, Result};

use super::machine::{List, base, command, commands, store_config};
use super::snapshots::install;
use super::support::{A, disk, dynamic, keep_synced, small};

/// The owner's entries: empty ones are its own.
fn decode(entry: &Entry) -> Option<Bytes> {
    (!entry.payload.is_empty()).then(|| entry.payload.clone())
}

fn open(store: &Store, log: &Log, committed_end: u64) -> Result<Replica<List>> {
    Replica::open_on_log(
        store,
        log,
        committed_end,
        decode,
        List::default(),
        EngineConfig::new(),
    )
}

fn state(replica: &Replica<List>) -> Vec<String> {
    replica.read(|list| list.commands.clone()).unwrap()
}

/// A log of `count` durable entries of term 1, the first of which is blank.
fn follower(disk: &SimFs, count: u32) -> (Journal, Store, Log) {
    let (journal, store) = base(disk).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    log.append_at(EntryId::new(1, 0), b"").unwrap();
    for number in 0..count - 1 {
        log.append(command(number)).unwrap();
    }
    (journal, store, log)
}

#[test]
fn a_replica_applies_nothing_beyond_what_its_owner_says_is_committed() {
    let disk = disk(1);
    let (journal, store, log) = follower(&disk, 10);
    let replica = open(&store, &log, 0).unwrap();
    assert_eq!(
        (replica.applied(), state(&replica).len()),
        (None, 0),
        "durable is not committed"
    );
    drop(replica);
    let replica = open(&store, &log, 6).unwrap();
    assert_eq!(replica.applied(), Some(EntryId::new(1, 5)));
    assert_eq!(state(&replica), commands(0..5));
    // The new leader takes back what was not committed, and cannot take back what was applied.
    assert_eq!(log.truncate_from(5).unwrap_err().kind(), ErrorKind::Invalid);
    log.truncate_from(6).unwrap();
    log.append_at(EntryId::new(2, 6), command(77)).unwrap();
    replica
        .apply(EntryId::new(2, 6), Some(command(77).as_bytes()))
        .unwrap();
    assert_eq!(log.truncate_from(6).unwrap_err().kind(), ErrorKind::Invalid);
    let reset = log.reset(EntryId::new(2, 5));
    assert_eq!(
        reset.unwrap_err().kind(),
        ErrorKind::Invalid,
        "entry 6 was applied"
    );
    assert_eq!(journal.delete_log(A).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(open(&store, &log, 0).unwrap_err().kind(), ErrorKind::Busy);
    drop(replica);
    assert_eq!(
        open(&store, &log, 9).unwrap_err().kind(),
        ErrorKind::Invalid,
        "beyond the end"
    );
}

#[test]
fn entries_follow_one_another() {
    let (_journal, store) = base(&disk(1)).unwrap();
    let replica = Replica::open(&store, A, List::default(), EngineConfig::new()).unwrap();
    replica.apply(EntryId::new(2, 5), Some(b"a")).unwrap();
    for bad in [EntryId::new(2, 5), EntryId::new(2, 7), EntryId::new(1, 6)] {
        assert_eq!(
            replica.apply(bad, Some(b"b")).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{bad}"
        );
    }
    assert_eq!(replica.apply(EntryId::new(3, 6), None).unwrap(), "");
    let failed = replica.apply(EntryId::new(3, 7), Some(b"boom")).unwrap_err();
    assert_eq!(
        (failed.kind(), failed.entry()),
        (ErrorKind::ApplyFailed, Some(EntryId::new(3, 7)))
    );
    assert_eq!(
        replica.apply(EntryId::new(3, 8), None).unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        replica.checkpoint(b"").unwrap_err().kind(),
        ErrorKind::ApplyFailed
    );
}

#[test]
fn a_checkpoint_keeps_the_metadata_and_never_purges_the_log() {
    let disk = disk(1);
    let (journal, store, log) = follower(&disk, 8);
    let replica = open(&store, &log, 3).unwrap();
    for committed in 3..8u32 {
        let id = EntryId::new(1, u64::from(committed));
        replica
            .apply(id, Some(command(committed - 1).as_bytes()))
            .unwrap();
        replica
            .checkpoint(format!("members {committed}").as_bytes())
            .unwrap();
    }
    assert_eq!(log.bounds().unwrap(), 0..8);
    assert_eq!(store.list().unwrap().len(), 2);
    drop((replica, log, journal, store));
    let disk = keep_synced(&disk);
    let (_journal, store) = base(&disk).unwrap();
    let replica = Replica::open(&store, A, List::default(), EngineConfig::new()).unwrap();
    assert_eq!(state(&replica), commands(0..7));
    let snapshot = replica.report().snapshot.clone().unwrap();
    assert_eq!(Replica::<List>::metadata(&snapshot), "members 7");
}

#[test]
fn an_install_is_finished_by_whoever_opens_next() {
    let leader = disk(1);
    let (_leader_journal, leader_store, leader_log) = follower(&leader, 10);
    let replica = open(&leader_store, &leader_log, 10).unwrap();
    let snapshot = replica.checkpoint(b"m").unwrap().snapshot.unwrap();

    for crashes in [false, true] {
        let disk = disk(2);
        let (journal, store, log) = follower(&disk, 4);
        let replica = open(&store, &log, 3).unwrap();
        let own = replica.checkpoint(b"").unwrap().snapshot.unwrap();
        assert_eq!(
            replica.install(own.id).unwrap_err().kind(),
            ErrorKind::Invalid,
            "it is not ahead"
        );
        let installed = install(&leader_store, &snapshot, &store);
        if !crashes {
            replica.install(installed.id).unwrap();
            assert_eq!(state(&replica), commands(0..9));
            assert_eq!(log.bounds().unwrap(), 10..10);
            replica.apply(EntryId::new(1, 10), None).unwrap();
        }
        drop((replica, log, journal, store));
        let disk = keep_synced(&disk);
        let (journal, store) = base(&disk).unwrap();
        let log = journal.log(A).unwrap();
        let replica = open(&store, &log, 0).unwrap();
        assert_eq!(replica.report().reset_to, crashes.then_some(snapshot.covers));
        assert_eq!(replica.applied(), Some(EntryId::new(1, 9)));
        assert_eq!(state(&replica), commands(0..9));
        assert_eq!(log.last().unwrap(), Some(EntryId::new(1, 9)));
        log.append_at(EntryId::new(2, 10), b"").unwrap();
    }
}

/// The state is then ahead of its log: what was applied on top would be durable nowhere that an opening looks.
#[test]
fn a_replica_whose_log_could_not_be_reset_is_closed_and_an_opening_finishes_the_install() {
    let leader = disk(1);
    let (_leader_journal, leader_store, leader_log) = follower(&leader, 10);
    let replica = open(&leader_store, &leader_log, 10).unwrap();
    let snapshot = replica.checkpoint(b"m").unwrap().snapshot.unwrap();
    drop(replica);

    let disk = disk(2);
    drop(follower(&disk, 4));
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let journal = Journal::open_on(Arc::new(fs.clone()), small()).unwrap();
    let (store, log) = (
        Store::open_on(dynamic(&disk), store_config()).unwrap(),
        journal.log(A).unwrap(),
    );
    let replica = open(&store, &log, 4).unwrap();
    let installed = install(&leader_store, &snapshot, &store);
    fs.add(Rule::on(Op::Write, Fault::io_error()).path("journal/").forever());
    let error = replica.install(installed.id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    replica.read(|_| ()).unwrap_err();
    replica.apply(EntryId::new(1, 10), None).unwrap_err();
    replica.checkpoint(b"").map(drop).unwrap_err();
    drop((replica, log, journal, store));

    let (journal, store) = base(&keep_synced(&disk)).unwrap();
    let replica = open(&store, &journal.log(A).unwrap(), 0).unwrap();
    assert_eq!(replica.report().reset_to, Some(snapshot.covers));
    assert_eq!(state(&replica), commands(0..9));
}

/// A snapshot that came from elsewhere and rotted here is refused before anything is changed: the replica goes on as it was.
#[test]
fn a_snapshot_that_does_not_verify_is_not_installed() {
    let leader = disk(1);
    let (_leader_journal, leader_store, leader_log) = follower(&leader, 10);
    let replica = open(&leader_store, &leader_log, 10).unwrap();
    let snapshot = replica.checkpoint(b"").unwrap().snapshot.unwrap();
    let disk = disk(2);
    let (journal, store, log) = follower(&disk, 4);
    let replica = open(&store, &log, 3).unwrap();
    let installed = install(&leader_store, &snapshot, &store);
    let (path, len) = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with(".pack"))
        .unwrap();
    disk.corrupt(&path, len - 40..len, 1).unwrap();
    let error = replica.install(installed.id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!((state(&replica), log.bounds().unwrap()), (commands(0..2), 0..4));
    replica
        .apply(EntryId::new(1, 3), Some(command(2).as_bytes()))
        .unwrap();
    // Nor is it taken for the newest by the next life, which would reset the log to it.
    drop((replica, log, journal, store));
    let (journal, store) = base(&keep_synced(&disk)).unwrap();
    let log = journal.log(A).unwrap();
    let replica = open(&store, &log, 4).unwrap();
    assert_eq!((state(&replica), log.bounds().unwrap()), (commands(0..3), 0..4));
    assert_eq!(replica.report().refused.len(), 1);
}

/// Entries may be committed by others before this disk has them. The power goes as soon as the checkpoint has returned.
#[test]
fn a_checkpoint_of_a_replica_makes_its_log_durable_first() {
    let disk = disk(1);
    let (journal, store, log) = follower(&disk, 1);
    let replica = open(&store, &log, 1).unwrap();
    let ticket = log.submit("b").unwrap();
    replica.apply(EntryId::new(1, 1), Some(b"b")).unwrap();
    replica.checkpoint(b"").unwrap();
    let cut = keep_synced(&disk);
    // One that the log was never handed cannot be in a snapshot that an opening would believe.
    replica.apply(EntryId::new(1, 2), Some(b"c")).unwrap();
    let refused = replica.checkpoint(b"").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    drop((ticket, replica, log, journal, store));
    let (journal, store) = base(&cut).unwrap();
    let log = journal.log(A).unwrap();
    let replica = open(&store, &log, 0).unwrap_or_else(|e| panic!("no opening ever succeeds: {e}"));
    assert_eq!(replica.applied(), Some(EntryId::new(1, 1)));
}

/// Others have committed another entry than the one that this log still has there, of a leader that is gone.
#[test]
fn a_checkpoint_of_a_replica_is_refused_while_its_log_has_another_entry_there() {
    let disk = disk(1);
    let (journal, store, log) = follower(&disk, 5);
    let replica = open(&store, &log, 3).unwrap();
    replica.apply(EntryId::new(2, 3), Some(b"d")).unwrap();
    let taken = replica.checkpoint(b"");
    drop((replica, log, journal, store));
    let (journal, store) = base(&keep_synced(&disk)).unwrap();
    let log = journal.log(A).unwrap();
    open(&store, &log, 0).unwrap_or_else(|e| panic!("no opening ever succeeds: {e}"));
    let refused = taken.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
}

#[test]
fn a_replica_begins_with_the_first_entry_of_its_log() {
    let (_journal, store, log) = follower(&disk(1), 5);
    let replica = open(&store, &log, 0).unwrap();
    let refused = replica.apply(EntryId::new(1, 3), None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    replica.apply(EntryId::new(1, 0), None).unwrap();
}

/// A machine during whose restoring the owner of the log does something.
struct Racing {
    list: List,
    race: Box<dyn Fn() + Send>,
}

impl StateMachine for Racing {
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes {
        self.list.apply(id, command)
    }

    fn capture(&self) -> Capture {
        self.list.capture()
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        (self.race)();
        self.list.restore(from)
    }

    fn clear(&mut self) {
        self.list.clear();
    }
}

#[test]
fn a_log_is_held_still_while_its_replica_is_opened() {
    let (_journal, store, log) = follower(&disk(1), 6);
    open(&store, &log, 6).unwrap().checkpoint(b"").unwrap();
    let truncated = Arc::new(Mutex::new(None));
    let (told, other) = (Arc::clone(&truncated), log.clone());
    let machine = Racing {
        list: List::default(),
        race: Box::new(move || *told.lock().unwrap() = Some(other.truncate_from(3))),
    };
    let replica = Replica::open_on_log(&store, &log, 0, decode, machine, EngineConfig::new()).unwrap();
    let refused = truncated.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
    assert_eq!(replica.applied(), Some(EntryId::new(1, 5)));
    assert_eq!(log.bounds().unwrap(), 0..6);
}

/// A panic would go through every opening.
#[test]
fn a_panic_in_restore_is_told_as_a_refusal() {
    let (_journal, store, log) = follower(&disk(1), 3);
    open(&store, &log, 3).unwrap().checkpoint(b"").unwrap();
    let machine = Racing {
        list: List::default(),
        race: Box::new(|| panic!("a bug in restore")),
    };
    let refused = Replica::open_on_log(&store, &log, 0, decode, machine, EngineConfig::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("a bug in restore"), "{refused}");
}
