//! What one thread does must not undo what another one does: a sync of the directory that fails beside it, a creation, a removal.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use everlog::fs::{Access, File, Fs, Kept, Lock, SimFs, Space};
use everlog::snapshot::{Retention, Store};

use super::small::{config, create, disk, open, read, state, try_create};

const LEN: u64 = 10_000;
const FIRST: &str = "first";
const BESIDE: &str = "beside";

/// A disk on which the thread `first` stops before one of its syncs of the directory, until the sync of the thread `beside` has
/// failed, or cannot come: whoever waits for `first` would not come before it, so it goes on after a while.
#[derive(Debug)]
struct Race {
    disk: SimFs,
    /// How many syncs of `first` go by before that.
    spare: Mutex<u64>,
    stopped: Mutex<Sender<()>>,
    failing: AtomicBool,
    failed: AtomicBool,
}

fn race(disk: &SimFs, spare: u64) -> (Store, Receiver<()>) {
    let (stopped, when_stopped) = channel();
    let race = Race {
        disk: disk.clone(),
        spare: Mutex::new(spare),
        stopped: Mutex::new(stopped),
        failing: AtomicBool::new(false),
        failed: AtomicBool::new(false),
    };
    let store = Store::open_on(Arc::new(race), config()).unwrap();
    (store, when_stopped)
}

impl Race {
    fn is_next(&self) -> bool {
        let mut spare = self.spare.lock().unwrap();
        let is_next = *spare == 0;
        *spare = spare.wrapping_sub(1);
        is_next
    }
}

impl Fs for Race {
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        match thread::current().name() {
            Some(FIRST) if self.is_next() => {
                self.stopped.lock().unwrap().send(()).unwrap();
                for _ in 0..200_000 {
                    if self.failed.load(Ordering::SeqCst) {
                        break;
                    }
                    thread::yield_now();
                }
                self.disk.sync_dir(path)
            }
            Some(BESIDE) if !self.failing.swap(true, Ordering::SeqCst) => {
                self.disk.fail_sync_dir("snapshots", 0, Kept::Nothing);
                let synced = self.disk.sync_dir(path);
                self.failed.store(true, Ordering::SeqCst);
                synced
            }
            _ => self.disk.sync_dir(path),
        }
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.disk.create(path)
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.disk.open(path, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path, holder)
    }

    fn holder(&self, path: &str) -> io::Result<Option<String>> {
        self.disk.holder(path)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.disk.display(path)
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }

    fn now_micros(&self) -> u64 {
        self.disk.now_micros()
    }
}

/// Runs `first` up to its chosen sync, then beside it a creation whose sync of the directory fails; what `first` was told.
fn beside_a_failing_creation<T: Send + 'static>(
    store: &Store,
    when_stopped: &Receiver<()>,
    first: impl FnOnce(Store) -> T + Send + 'static,
) -> T {
    let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
    let store = store.clone();
    let other = store.clone();
    let first = spawn(FIRST).spawn(move || first(store)).unwrap();
    when_stopped.recv().unwrap();
    let beside = spawn(BESIDE).spawn(move || try_create(&other, 99, &state(99, 500)));
    beside.unwrap().join().unwrap().expect_err("its sync fails");
    first.join().unwrap()
}

#[test]
fn a_sync_that_fails_for_one_creation_takes_no_name_of_another() {
    // The first sync of the directory is for the pack, the second for the index.
    for spare in [0, 1] {
        let disk = disk();
        let (store, when_stopped) = race(&disk, spare);
        let committed = beside_a_failing_creation(&store, &when_stopped, |store| {
            try_create(&store, 1, &state(1, LEN))
        });
        let id = committed.expect("its own syncs went well").snapshot.id;
        drop(store);
        let store = open(&disk.crash_with(&mut |_| 0));
        let bytes = read(&store, id).unwrap_or_else(|e| panic!("sync {spare}: it was committed: {e:?}"));
        assert_eq!(bytes, state(1, LEN));
    }
}

#[test]
fn a_sync_that_fails_for_a_creation_brings_back_nothing_that_was_collected() {
    let disk = disk();
    let (store, when_stopped) = race(&disk, 0);
    for index in 1..=3 {
        create(&store, index, &state(index, LEN));
    }
    let collected = beside_a_failing_creation(&store, &when_stopped, |store| {
        store.collect(&Retention::new().newest(1))
    });
    assert_eq!(collected.expect("its own syncs went well").removed.len(), 2);
    drop(store);
    let store = open(&disk.crash_with(&mut |_| 0));
    let damage = store.verify_all().unwrap().damage;
    assert!(damage.is_empty(), "damaged ones came back: {damage:?}");
    let covered: Vec<u64> = store
        .list()
        .unwrap()
        .iter()
        .map(|found| found.covers.index)
        .collect();
    assert_eq!(covered, [3], "what was removed is gone for good");
}
