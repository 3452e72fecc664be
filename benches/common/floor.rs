//! The floors: what the disk and the system allow to anyone, with no format, no checksum and no recovery. A file is
//! zero-written and synced beforehand and written round and round, so that no sync commits metadata of the file system.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::thread::futex::{self, Flags};
use tempfile::TempDir;

use super::{Appender, area};

const FILE_BYTES: u64 = 64 << 20;

/// A zero-written file, and where the next byte goes.
struct Ring {
    file: File,
    at: u64,
}

impl Ring {
    fn new(dir: &TempDir) -> Ring {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("ring"));
        let file = file.expect("the directory takes a file");
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at).expect("the disk takes zeros");
        }
        file.sync_all().expect("the disk syncs");
        Ring { file, at: 0 }
    }

    /// Room for `len` bytes: their offset.
    fn claim(&mut self, len: usize) -> u64 {
        let len = len as u64;
        if self.at + len > FILE_BYTES {
            self.at = 0;
        }
        let at = self.at;
        self.at += len;
        at
    }
}

/// One `pwrite` for each payload, and one `fdatasync` whenever so many bytes were written. Threads take turns.
pub(crate) struct Serial {
    ring: Mutex<(Ring, u64)>,
    sync_bytes: u64,
    _dir: TempDir,
}

impl Serial {
    /// Syncs after every payload: the floor of one durable writer.
    pub(crate) fn durable() -> Serial {
        Serial::with(1)
    }

    /// Syncs every 8 MiB, as relaxed writes promise by default.
    pub(crate) fn relaxed() -> Serial {
        Serial::with(8 << 20)
    }

    fn with(sync_bytes: u64) -> Serial {
        let dir = area();
        Serial {
            ring: Mutex::new((Ring::new(&dir), 0)),
            sync_bytes,
            _dir: dir,
        }
    }
}

impl Appender for Serial {
    fn append(&self, payload: &[u8]) {
        let mut guard = self.ring.lock().unwrap();
        let (ring, unsynced) = &mut *guard;
        let at = ring.claim(payload.len());
        ring.file
            .write_all_at(payload, at)
            .expect("the disk takes a write");
        *unsynced += payload.len() as u64;
        if *unsynced >= self.sync_bytes {
            ring.file.sync_data().expect("the disk syncs");
            *unsynced = 0;
        }
    }
}

/// The ideal batcher: whoever comes while nobody writes is elected, writes all that has gathered in one piece, syncs,
/// and wakes its batch with one futex word; one of those who gathered meanwhile is elected next.
pub(crate) struct Batcher {
    file: File,
    open: Mutex<Open>,
    _dir: TempDir,
}

struct Open {
    ring: Ring,
    bytes: Vec<u8>,
    batch: Arc<AtomicU32>,
    /// Whether somebody writes, or was told to.
    led: bool,
    spare: Vec<u8>,
}

/// The states of a batch's word.
const GATHERING: u32 = 0;
const LEADER_WANTED: u32 = 1;
const DURABLE: u32 = 2;

impl Batcher {
    pub(crate) fn new() -> Batcher {
        let dir = area();
        let ring = Ring::new(&dir);
        Batcher {
            file: ring.file.try_clone().expect("a second descriptor"),
            open: Mutex::new(Open {
                ring,
                bytes: Vec::new(),
                batch: Arc::new(AtomicU32::new(GATHERING)),
                led: false,
                spare: Vec::new(),
            }),
            _dir: dir,
        }
    }

    fn lead(&self) {
        let mut open = self.open.lock().unwrap();
        let spare = std::mem::take(&mut open.spare);
        let mut bytes = std::mem::replace(&mut open.bytes, spare);
        let batch = std::mem::replace(&mut open.batch, Arc::new(AtomicU32::new(GATHERING)));
        let at = open.ring.claim(bytes.len());
        drop(open);

        self.file
            .write_all_at(&bytes, at)
            .expect("the disk takes a write");
        self.file.sync_data().expect("the disk syncs");

        bytes.clear();
        let mut open = self.open.lock().unwrap();
        open.spare = bytes;
        let next = (!open.bytes.is_empty()).then(|| open.batch.clone());
        open.led = next.is_some();
        drop(open);
        // The disk is kept busy first.
        if let Some(next) = next {
            next.store(LEADER_WANTED, Ordering::Release);
            wake(&next, 1);
        }
        batch.store(DURABLE, Ordering::Release);
        wake(&batch, u32::MAX >> 1);
    }
}

impl Appender for Batcher {
    fn append(&self, payload: &[u8]) {
        let mut open = self.open.lock().unwrap();
        open.bytes.extend_from_slice(payload);
        let batch = open.batch.clone();
        let elected = !open.led;
        open.led = true;
        drop(open);
        if elected || wait(&batch) {
            self.lead();
        }
    }
}

/// Waits until the batch is durable, or until this thread is to lead it: true.
fn wait(batch: &AtomicU32) -> bool {
    loop {
        match batch.load(Ordering::Acquire) {
            DURABLE => return false,
            LEADER_WANTED => {
                let claimed =
                    batch.compare_exchange(LEADER_WANTED, GATHERING, Ordering::AcqRel, Ordering::Acquire);
                if claimed.is_ok() {
                    return true;
                }
            }
            // Woken, interrupted or too late: the word says which.
            _ => drop(futex::wait(batch, Flags::PRIVATE, GATHERING, None)),
        }
    }
}

fn wake(batch: &AtomicU32, threads: u32) {
    futex::wake(batch, Flags::PRIVATE, threads).expect("a futex wakes");
}
