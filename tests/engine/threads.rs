//! Many threads, background checkpoints, and machines that persist themselves.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, Persistence, StateMachine};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Config, EntryId, ErrorKind, Journal};

use super::machine::{List, base, command, state};
use super::support::{A, disk, keep_synced};

fn config() -> Config {
    Config::new().segment_bytes(256 << 10).in_flight_bytes(64 << 10)
}

#[test]
fn many_threads_get_their_replies_in_the_order_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::create(dir.path(), config()).unwrap();
    let store = Store::open(dir.path(), StoreConfig::new()).unwrap();
    let settings = EngineConfig::new().checkpoint_entries(50);
    let open = || Engine::open(&journal, A, &store, List::default(), settings.clone()).unwrap();
    let engine = open();
    let threads: Vec<_> = (0..4u32)
        .map(|number| {
            let engine = engine.clone();
            thread::spawn(move || {
                let mut last = 0;
                for n in 0..40 {
                    let text = command(number * 1000 + n);
                    let reply = match n % 4 {
                        0 => engine.submit(&text).unwrap().wait().unwrap(),
                        1 => engine.execute_once(number.into(), n.into(), &text).unwrap(),
                        _ => engine.execute(&text).unwrap(),
                    };
                    let place: usize = std::str::from_utf8(&reply).unwrap().parse().unwrap();
                    assert!(place > last, "its own commands are in its order");
                    last = place;
                    assert_eq!(
                        engine.read(|list| list.commands[place - 1].clone()).unwrap(),
                        text
                    );
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let before = state(&engine);
    assert_eq!(before.len(), 160);
    // Nobody waits for this one.
    drop(engine.submit(command(7)).unwrap());
    engine.close().unwrap();
    let engine = open();
    let after = state(&engine);
    assert_eq!(after[..160], before);
    assert_eq!(after[160..], [command(7)]);
}

#[test]
fn the_background_takes_checkpoints_beside_commands() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::create(dir.path(), config()).unwrap();
    let store = Store::open(dir.path(), StoreConfig::new()).unwrap();
    let settings = EngineConfig::new().checkpoint_entries(10);
    let engine = Engine::open(&journal, A, &store, List::default(), settings).unwrap();
    let mut done = 0;
    while engine.metrics().checkpoints < 2 {
        engine.execute(command(done)).unwrap();
        done += 1;
    }
    assert!(done >= 20, "two checkpoints after {done} commands");
    let metrics = engine.metrics();
    assert_eq!((metrics.applied, metrics.checkpoints_failed), (done.into(), 0));
    assert!(metrics.predicted_restart == engine.predicted_restart());
    engine.close().unwrap();
}

/// A database: what it holds stands apart from the machine, and outlives it.
#[derive(Clone, Default)]
struct Database(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    commands: Vec<String>,
    applied: Option<EntryId>,
}

impl StateMachine for Database {
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes {
        let mut stored = self.0.lock().unwrap();
        stored.commands.push(String::from_utf8(command.to_vec()).unwrap());
        stored.applied = Some(id);
        Bytes::new()
    }

    fn capture(&self) -> Capture {
        unreachable!("nobody asks for what it keeps itself")
    }

    fn restore(&mut self, _: &mut dyn Read) -> io::Result<()> {
        unreachable!("nothing was installed")
    }

    fn clear(&mut self) {
        unreachable!("it is not empty")
    }

    fn persistence(&self) -> Persistence {
        Persistence::Itself(self.0.lock().unwrap().applied)
    }
}

#[test]
fn a_machine_that_persists_itself_gets_what_it_lacks_and_must_not_be_ahead() {
    let disk = disk(1);
    let database = Database::default();
    let (journal, store) = base(&disk).unwrap();
    let open = |database: &Database, journal: &Journal, store: &Store| {
        Engine::open(journal, A, store, database.clone(), EngineConfig::new())
    };
    let engine = open(&database, &journal, &store).unwrap();
    for number in 0..5 {
        engine.execute(command(number)).unwrap();
    }
    let once = engine.execute_once(1, 1, "x").unwrap_err();
    assert_eq!(once.kind(), ErrorKind::Invalid, "it would have to keep the table");
    let done = engine.checkpoint().unwrap();
    assert_eq!(
        (done.snapshot, done.purged_through),
        (None, Some(EntryId::new(0, 4)))
    );
    engine.execute(command(5)).unwrap();
    // The database loses the last one, as after a crash before its own sync.
    {
        let mut stored = database.0.lock().unwrap();
        stored.commands.pop();
        stored.applied = Some(EntryId::new(0, 4));
    }
    drop((engine, journal, store));
    let disk = keep_synced(&disk);
    let (journal, store) = base(&disk).unwrap();
    let engine = open(&database, &journal, &store).unwrap();
    assert_eq!(engine.report().replayed_entries, 1);
    assert_eq!(database.0.lock().unwrap().commands.len(), 6);
    drop(engine);
    journal.log(A).unwrap().truncate_from(5).unwrap();
    let error = open(&database, &journal, &store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    // One that lost more than the log still has cannot be helped by it.
    database.0.lock().unwrap().applied = Some(EntryId::new(0, 2));
    assert_eq!(
        open(&database, &journal, &store).unwrap_err().kind(),
        ErrorKind::Damaged
    );
}
