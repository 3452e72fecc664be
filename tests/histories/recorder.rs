//! A file system that writes down which file was written and synced, in order. A file that is renamed is known by the new
//! name from then on.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use everlog::fs::{Access, File, Fs, Lock, Space};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Write { path: String, offset: u64, len: u64 },
    Sync { path: String },
    Other,
}

type Name = Arc<Mutex<String>>;

#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    inner: Arc<dyn Fs>,
    events: Arc<Mutex<Vec<Event>>>,
    names: Arc<Mutex<Vec<Name>>>,
    panics: Arc<AtomicBool>,
}

#[derive(Debug)]
struct RecordedFile {
    inner: Arc<dyn File>,
    recorder: Recorder,
    name: Name,
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn Fs>) -> Recorder {
        Recorder {
            inner,
            events: Arc::default(),
            names: Arc::default(),
            panics: Arc::default(),
        }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Every write panics from now on.
    pub(crate) fn panic(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    fn told(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn file(&self, inner: Arc<dyn File>, path: &str) -> Arc<dyn File> {
        let mut names = self.names.lock().unwrap();
        let known = names.iter().find(|name| *name.lock().unwrap() == path).cloned();
        let name = known.unwrap_or_else(|| {
            let name = Arc::new(Mutex::new(path.to_owned()));
            names.push(Arc::clone(&name));
            name
        });
        drop(names);
        Arc::new(RecordedFile {
            inner,
            recorder: self.clone(),
            name,
        })
    }
}

impl Fs for Recorder {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.inner.create(path)?, path))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.inner.open(path, access)?, path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)?;
        for name in self.names.lock().unwrap().iter() {
            let mut name = name.lock().unwrap();
            if *name == from {
                *name = to.to_owned();
            }
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.told(Event::Other);
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

impl File for RecordedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        assert!(!self.recorder.panics.load(Ordering::SeqCst), "told to panic");
        let taken = self.inner.write_at(buffer, offset)?;
        let path = self.name.lock().unwrap().clone();
        self.recorder.told(Event::Write {
            path,
            offset,
            len: taken as u64,
        });
        Ok(taken)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()?;
        let path = self.name.lock().unwrap().clone();
        self.recorder.told(Event::Sync { path });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn identity(&self) -> io::Result<Option<u64>> {
        self.inner.identity()
    }

    fn evict(&self) -> io::Result<bool> {
        self.inner.evict()
    }
}
