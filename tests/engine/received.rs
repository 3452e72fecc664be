//! Snapshots that came from elsewhere: beside an engine's own, and into machines that persist themselves.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, Persistence, Replica, StateMachine};
use everlog::fs::{Fault, FaultFs, Op, Rule, SimFs};
use everlog::snapshot::{Draft, Origin, Snapshot, SnapshotId, Store};
use everlog::{Entry, EntryId, ErrorKind, Journal};

use super::machine::{List, base, command, commands, store_config, try_world, world};
use super::snapshots::{install, new_packs};
use super::support::{A, disk, keep_synced, small};

/// A store with a snapshot of `count` commands.
fn peer(count: u32) -> (Store, Snapshot) {
    let world = world(&disk(1));
    world.execute(0..count);
    let snapshot = world.engine.checkpoint().unwrap().snapshot.unwrap();
    (world.store, snapshot)
}

/// Puts a snapshot into the store as if it came from a peer, where it covers the entry `index`.
fn received(store: &Store, from: &Snapshot, source: &Store, index: u64) {
    let mut bytes = Vec::new();
    source.reader(from.id).unwrap().read_to_end(&mut bytes).unwrap();
    let draft = Draft::new(A, EntryId::new(0, index))
        .origin(Origin::Installed)
        .metadata(from.metadata.clone());
    let mut creation = store.create(draft).unwrap();
    creation.write_all(&bytes).unwrap();
    creation.commit().unwrap();
}

/// What was received and is ahead takes no place among those that are kept, and no log goes because of it.
#[test]
fn a_checkpoint_does_not_purge_beyond_what_was_applied() {
    for retain in [1, 2] {
        let (source, from) = peer(9);
        let config = EngineConfig::new().retain(retain);
        let world = try_world(&disk(2), List::default(), config).unwrap();
        world.execute(0..3);
        for more in 0..retain as u64 {
            received(&world.store, &from, &source, 20 + more);
        }
        let done = world.engine.checkpoint().unwrap();
        let taken = done.snapshot.clone().unwrap();
        assert!(world.store.get(taken.id).is_ok(), "retain {retain}: {done:?}");
        let through = done.purged_through.map_or(0, |id| id.index);
        assert!(through <= 2, "retain {retain}: {done:?}");
        assert_eq!(world.engine.log().bounds().unwrap().end, 3);
        let reply = world.engine.submit(command(3)).unwrap();
        assert_eq!(reply.id(), EntryId::new(0, 3), "retain {retain}");
        assert_eq!(reply.wait().unwrap(), "4");
    }
}

/// The owner may purge its log on that word.
#[test]
fn a_replica_has_the_snapshot_that_it_has_just_taken() {
    let (source, from) = peer(9);
    let (_journal, store) = base(&disk(2)).unwrap();
    let replica = Replica::open(&store, A, List::default(), EngineConfig::new().retain(1)).unwrap();
    replica.apply(EntryId::new(0, 0), Some(b"a")).unwrap();
    received(&store, &from, &source, 20);
    let taken = replica.checkpoint(b"").unwrap().snapshot.unwrap();
    assert!(store.get(taken.id).is_ok(), "{taken:?}");
}

/// A database that is restored as the bytes come, a command a line, and knows by their number how far it is.
#[derive(Clone, Default)]
struct Database {
    stored: Arc<Mutex<Stored>>,
    /// Stops when something was restored.
    cuts: Arc<Mutex<Option<SimFs>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored {
    commands: Vec<String>,
    applied: Option<EntryId>,
}

impl Database {
    fn stored(&self) -> Stored {
        self.stored.lock().unwrap().clone()
    }
}

impl StateMachine for Database {
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes {
        let mut stored = self.stored.lock().unwrap();
        stored.commands.push(String::from_utf8(command.to_vec()).unwrap());
        stored.applied = Some(id);
        Bytes::new()
    }

    fn capture(&self) -> Capture {
        unreachable!("nobody asks for what it keeps itself")
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut stored = self.stored.lock().unwrap();
        *stored = Stored::default();
        for line in BufReader::with_capacity(64, from).lines() {
            stored.commands.push(line?);
        }
        let last = stored.commands.len() as u64 - 1;
        stored.applied = Some(EntryId::new(0, last));
        if let Some(disk) = self.cuts.lock().unwrap().take() {
            disk.stop_now();
        }
        Ok(())
    }

    fn clear(&mut self) {
        *self.stored.lock().unwrap() = Stored::default();
    }

    fn persistence(&self) -> Persistence {
        Persistence::Itself(self.stored.lock().unwrap().applied)
    }
}

/// What it has is older, and all that there is: half of a snapshot in its place could not be taken back.
#[test]
fn a_rotten_installed_snapshot_does_not_destroy_a_database() {
    let (source, snapshot) = peer(60);
    let disk = disk(2);
    let database = Database::default();
    let (journal, store) = base(&disk).unwrap();
    let engine = Engine::open(&journal, A, &store, database.clone(), EngineConfig::new()).unwrap();
    for number in 0..5 {
        engine.execute(command(number)).unwrap();
    }
    assert!(engine.checkpoint().unwrap().purged_through.is_some());
    let durable = database.stored();
    drop(engine);
    let before = disk.fork();
    install(&source, &snapshot, &store);
    drop((journal, store));
    let (path, len) = new_packs(&disk, &before).remove(0);
    disk.flip_bit(&path, len - 5, 0).unwrap();
    let (journal, store) = base(&keep_synced(&disk)).unwrap();
    let engine = Engine::open(&journal, A, &store, database.clone(), EngineConfig::new());
    assert_eq!(database.stored(), durable);
    let engine = engine.unwrap();
    assert_eq!(engine.report().refused.len(), 1);
    engine.execute(command(5)).unwrap();
    assert_eq!(database.stored().commands, commands(0..6));
}

/// The database had not synced what was installed, which the store has.
#[test]
fn an_install_is_found_by_the_next_opening_without_a_log() {
    let (source, snapshot) = peer(9);
    let (_journal, store) = base(&disk(2)).unwrap();
    let database = Database::default();
    let open = || Replica::open(&store, A, database.clone(), EngineConfig::new()).unwrap();
    let replica = open();
    replica.apply(EntryId::new(0, 0), Some(b"x")).unwrap();
    let durable = database.stored();
    let installed = install(&source, &snapshot, &store);
    replica.install(installed.id).unwrap();
    drop(replica);
    *database.stored.lock().unwrap() = durable;
    assert_eq!(open().applied(), Some(EntryId::new(0, 8)));
}

/// The power goes between the restoring, durable in the database, and the reset of the log.
#[test]
fn an_install_into_a_database_is_finished_by_whoever_opens_next() {
    let (source, snapshot) = peer(9);
    let disk = disk(2);
    let (journal, store) = base(&disk).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    for number in 0..3 {
        log.append(command(number)).unwrap();
    }
    let database = Database::default();
    let open = |store: &Store, log: &everlog::Log, end| {
        let decode = |entry: &Entry| Some(entry.payload.clone());
        Replica::open_on_log(store, log, end, decode, database.clone(), EngineConfig::new())
    };
    let replica = open(&store, &log, 3).unwrap();
    let installed = install(&source, &snapshot, &store);
    *database.cuts.lock().unwrap() = Some(disk.clone());
    replica.install(installed.id).unwrap_err();
    assert_eq!(database.stored().commands.len(), 9);
    let cut = keep_synced(&disk);
    drop((replica, log, journal, store));
    let (journal, store) = base(&cut).unwrap();
    let log = journal.log(A).unwrap();
    let replica = open(&store, &log, 0).unwrap_or_else(|e| panic!("no opening ever succeeds: {e}"));
    assert_eq!(replica.applied(), Some(EntryId::new(0, 8)));
    assert_eq!(log.bounds().unwrap(), 9..9);
}

/// A log of 3 commands with its checkpoint, and an installed snapshot of 9, ahead of it.
fn ahead() -> (SimFs, SnapshotId) {
    let (source, from) = peer(9);
    let disk = disk(2);
    let own = world(&disk);
    own.execute(0..3);
    own.engine.checkpoint().unwrap();
    received(&own.store, &from, &source, 20);
    (disk, own.store.list().unwrap()[0].id)
}

/// A later opening would read it, and put it in the place of what was acknowledged until then.
#[test]
fn an_installed_snapshot_ahead_of_its_log_is_not_passed_over_for_a_read_error() {
    let (disk, newest) = ahead();
    for finishes in [false, true] {
        let disk = disk.fork();
        let fs = FaultFs::new(Arc::new(disk.clone()));
        let journal = Journal::open_or_create_on(Arc::new(fs.clone()), small()).unwrap();
        let store = Store::open_on(Arc::new(fs.clone()), store_config()).unwrap();
        fs.add(Rule::on(Op::Read, Fault::io_error()).path(".pack").nth(2));
        let open = || Engine::open(&journal, A, &store, List::default(), EngineConfig::new());
        let error = open().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains(&newest.to_string()), "{error}");
        if !finishes {
            store.remove(newest).unwrap();
        }
        let engine = open().unwrap();
        let before = if finishes { 9 } else { 3 };
        for number in 0..20 {
            assert_eq!(
                engine.execute(command(number)).unwrap(),
                (before + number + 1).to_string()
            );
        }
        drop((engine, store, journal));
        assert_eq!(world(&disk).commands().len(), before as usize + 20);
    }
}

/// Nobody knows what the index says until it is read.
#[test]
fn an_index_that_the_device_does_not_give_is_not_passed_over() {
    let (disk, newest) = ahead();
    for given_up in [false, true] {
        let disk = disk.fork();
        let fs = FaultFs::new(Arc::new(disk.clone()));
        let journal = Journal::open_or_create_on(Arc::new(fs.clone()), small()).unwrap();
        let open_store = || Store::open_on(Arc::new(fs.clone()), store_config()).unwrap();
        let open = |store: &Store| Engine::open(&journal, A, store, List::default(), EngineConfig::new());
        fs.add(Rule::on(Op::Read, Fault::io_error()).path(&newest.to_string()));
        let mut store = open_store();
        let error = open(&store).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains(&newest.to_string()), "{error}");
        if given_up {
            assert_eq!(store.remove_unreadable().unwrap(), 1);
        } else {
            drop(store);
            store = open_store();
        }
        let engine = open(&store).unwrap();
        let before = if given_up { 3 } else { 9 };
        for number in 0..20 {
            engine.execute(command(number)).unwrap();
        }
        drop((engine, store));
        drop(journal);
        assert_eq!(world(&disk).commands().len(), before + 20);
    }
}
