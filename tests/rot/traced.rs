//! A file system that notes which bytes are read. What was never read cannot have had an effect: recovery without threads is a
//! function of the bytes that it reads, so that a damage elsewhere need not be opened again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use everlog::fs::{Access, File, Fs, Lock, SimFs, Space};

/// A flag for each byte, by path.
pub(crate) type Read = BTreeMap<String, Vec<bool>>;

#[derive(Clone, Debug)]
pub(crate) struct Traced {
    inner: SimFs,
    read: Arc<Mutex<Read>>,
}

#[derive(Debug)]
struct TracedFile {
    inner: Arc<dyn File>,
    path: String,
    read: Arc<Mutex<Read>>,
}

impl Traced {
    pub(crate) fn new(disk: &SimFs) -> Traced {
        Traced {
            inner: disk.clone(),
            read: Arc::default(),
        }
    }

    /// What was read since the last call.
    pub(crate) fn take(&self) -> Read {
        std::mem::take(&mut self.read.lock().unwrap())
    }

    fn file(&self, path: &str, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(TracedFile {
            inner,
            path: path.to_owned(),
            read: Arc::clone(&self.read),
        })
    }
}

impl Fs for Traced {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(path, self.inner.create(path)?))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.file(path, self.inner.open(path, access)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path, holder)
    }

    fn holder(&self, path: &str) -> io::Result<Option<String>> {
        self.inner.holder(path)
    }

    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.inner.display(path)
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn now_micros(&self) -> u64 {
        self.inner.now_micros()
    }
}

impl File for TracedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.inner.read_at(buffer, offset)?;
        let from = usize::try_from(offset).unwrap();
        let mut read = self.read.lock().unwrap();
        let flags = read.entry(self.path.clone()).or_default();
        flags.resize(flags.len().max(from + count), false);
        flags[from..from + count].fill(true);
        Ok(count)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn identity(&self) -> io::Result<Option<u64>> {
        self.inner.identity()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn evict(&self) -> io::Result<bool> {
        self.inner.evict()
    }
}
