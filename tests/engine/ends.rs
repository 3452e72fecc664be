//! How an engine ends, and what others' panics and wakers do to it: nothing hangs, and nothing half-done is kept.

use std::future::Future as _;
use std::io::{self, BufWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, StateMachine};
use everlog::snapshot::{Store, StoreConfig};
use everlog::{Config, EntryId, ErrorKind, Journal};

use super::machine::{B, List, base, command, commands, world};
use super::support::{A, disk, keep_synced};

type Writes = dyn Fn(&[String], &mut dyn Write) -> io::Result<()> + Send + Sync;

/// A machine that writes its state as the test says.
struct Scripted {
    list: List,
    write: Arc<Writes>,
}

impl Scripted {
    fn new(write: impl Fn(&[String], &mut dyn Write) -> io::Result<()> + Send + Sync + 'static) -> Scripted {
        Scripted {
            list: List::default(),
            write: Arc::new(write),
        }
    }
}

impl StateMachine for Scripted {
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes {
        self.list.apply(id, command)
    }

    fn capture(&self) -> Capture {
        let (commands, write) = (self.list.commands.clone(), Arc::clone(&self.write));
        Capture::new(move |into| write(&commands, into))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.list.restore(from)
    }

    fn clear(&mut self) {
        self.list.clear();
    }
}

/// The machine's writer does not pass on that it was told to stop, and says that all went well.
#[test]
fn a_checkpoint_that_is_given_up_is_not_committed() {
    let disk = disk(1);
    let (journal, store) = base(&disk).unwrap();
    let (started, is_started) = mpsc::channel();
    let started = Mutex::new(started);
    let machine = Scripted::new(move |commands, into| {
        started.lock().unwrap().send(()).unwrap();
        // Until the engine is closed.
        while into.write(b"").is_ok() {
            thread::yield_now();
        }
        let mut into = BufWriter::with_capacity(64, into);
        for command in commands {
            let _ = writeln!(into, "{command}");
        }
        Ok(())
    });
    let engine = Engine::open(&journal, A, &store, machine, EngineConfig::new()).unwrap();
    for number in 0..10 {
        engine.execute(command(number)).unwrap();
    }
    let clone = engine.clone();
    let taking = thread::spawn(move || clone.checkpoint());
    is_started.recv().unwrap();
    engine.close().unwrap();
    assert!(
        store.list().unwrap().is_empty(),
        "it has ended when close returns"
    );
    let given_up = taking.join().unwrap().unwrap_err();
    assert_eq!(given_up.kind(), ErrorKind::Closed, "{given_up}");
    drop((journal, store));
    let world = world(&keep_synced(&disk));
    assert_eq!(world.commands(), commands(0..10));
}

/// The machine panics while its owner takes a checkpoint by hand: that is one that failed, so that the next can become due.
#[test]
fn a_panic_while_a_checkpoint_is_written_is_a_failed_checkpoint() {
    let (journal, store) = base(&disk(1)).unwrap();
    let times = AtomicUsize::new(0);
    let machine = Scripted::new(move |_, into| {
        assert!(times.fetch_add(1, Ordering::Relaxed) > 0, "a bug");
        into.write_all(b"x\n")
    });
    let engine = Engine::open(&journal, A, &store, machine, EngineConfig::new()).unwrap();
    engine.execute("a").unwrap();
    catch_unwind(AssertUnwindSafe(|| engine.checkpoint())).unwrap_err();
    assert_eq!(engine.metrics().checkpoints_failed, 1);
    assert!(store.list().unwrap().is_empty());
    engine.checkpoint().unwrap();
    assert_eq!(engine.metrics().checkpoints, 1);
}

/// The last handle of an engine, and with it perhaps of the journal, goes in a callback while the background writes a checkpoint. Were the
/// thread waited for there, it would wait in turn for the callback, in shutting the journal down.
#[test]
fn the_last_handle_may_go_in_a_callback() {
    for keeps_journal in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = || Config::new().segment_bytes(256 << 10);
        let journal = Journal::create(dir.path(), config()).unwrap();
        let store = Store::open(dir.path(), StoreConfig::new()).unwrap();
        let (started, is_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (started, may_go) = (Mutex::new(started), Mutex::new(may_go));
        let machine = Scripted::new(move |_, into| {
            into.write_all(b"x\n")?;
            started.lock().unwrap().send(()).unwrap();
            let _ = may_go.lock().unwrap().recv();
            Ok(())
        });
        let settings = EngineConfig::new().checkpoint_entries(1);
        let engine = Engine::open(&journal, A, &store, machine, settings).unwrap();
        engine.execute("a").unwrap();
        is_started.recv().unwrap();
        let log = journal.create_log(B, 0).unwrap();
        let ticket = log.submit("x").unwrap();
        let (told, tells) = mpsc::channel();
        ticket.on_done(move |_| {
            drop(engine);
            told.send("done").unwrap();
        });
        let kept = keeps_journal.then(|| journal.clone());
        drop((log, journal, store));
        // The checkpoint is still being written.
        assert_eq!(tells.recv(), Ok("done"));
        go.send(()).unwrap();
        drop(kept);
        // Whoever had the last handle gives the directory back.
        loop {
            match Journal::open(dir.path(), config()) {
                Err(error) if error.kind() == ErrorKind::Locked => thread::yield_now(),
                opened => break drop(opened.unwrap()),
            }
        }
    }
}

struct Panics;
struct Counts(AtomicUsize);

impl Wake for Panics {
    fn wake(self: Arc<Panics>) {
        panic!("a waker that panics");
    }
}

impl Wake for Counts {
    fn wake(self: Arc<Counts>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_waker_that_panics_takes_no_wake_from_others() {
    let world = world(&disk(1));
    let [mut a, mut b] = ["a", "b"].map(|text| Box::pin(world.engine.submit(text).unwrap()));
    let counts = Arc::new(Counts(AtomicUsize::new(0)));
    let panics = Arc::new(Panics).into();
    let counting = Arc::clone(&counts).into();
    assert!(a.as_mut().poll(&mut Context::from_waker(&panics)).is_pending());
    assert!(b.as_mut().poll(&mut Context::from_waker(&counting)).is_pending());
    assert_eq!(world.engine.execute("c").unwrap(), "3");
    while world.engine.work().unwrap() {}
    assert_eq!(counts.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_reply_that_was_given_is_not_waited_for_again() {
    let world = world(&disk(1));
    let mut reply = world.engine.submit("a").unwrap();
    while world.engine.work().unwrap() {}
    let polled = Pin::new(&mut reply).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(reply)) if reply == "1"));
    assert_eq!(reply.wait().unwrap_err().kind(), ErrorKind::Invalid);
}

/// Polls inline: what it wakes runs at once, in the middle of whatever woke it.
struct Submits(Engine<List>, Mutex<Option<String>>);

impl Wake for Submits {
    fn wake(self: Arc<Submits>) {
        let submitted = self.0.submit("small").map(|reply| reply.id());
        *self.1.lock().unwrap() = Some(format!("{:?}", submitted.map_err(|e| e.kind())));
    }
}

/// A command that finds no room makes some by a flush, which runs wakers; what such a waker submits cannot wait for the command.
#[test]
fn a_waker_may_submit_while_a_command_waits_for_room() {
    let world = world(&disk(1));
    let log = world.journal.create_log(B, 0).unwrap();
    let mut ticket = Box::pin(log.submit(vec![7; 3 << 10]).unwrap());
    let submits = Arc::new(Submits(world.engine.clone(), Mutex::new(None)));
    let waker = Arc::clone(&submits).into();
    assert!(
        ticket
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    assert_eq!(world.engine.execute("y".repeat(2 << 10)).unwrap(), "1");
    let submitted = submits.1.lock().unwrap().take();
    assert_eq!(submitted.as_deref(), Some("Err(Busy)"));
}

/// What is told how far opening has come panics; the thread that reads ahead has a handle of the journal, and goes with it.
#[test]
fn a_panic_while_opening_leaves_no_thread() {
    let dir = tempfile::tempdir().unwrap();
    let config = || Config::new().segment_bytes(1 << 20);
    let journal = Journal::create(dir.path(), config()).unwrap();
    let store = Store::open(dir.path(), StoreConfig::new()).unwrap();
    let engine = Engine::open(&journal, A, &store, List::default(), EngineConfig::new()).unwrap();
    for round in 0..3 {
        let batch = (0..1000).map(|number| command(round * 1000 + number));
        engine.execute_batch(batch).unwrap();
    }
    drop(engine);
    let panics = EngineConfig::new().progress(|_| panic!("a bug"));
    let open = || Engine::open(&journal, A, &store, List::default(), panics);
    assert!(catch_unwind(AssertUnwindSafe(open)).is_err());
    drop(journal);
    let opened = Journal::open(dir.path(), config());
    assert!(opened.is_ok(), "{opened:?}");
}
