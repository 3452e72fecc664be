//! A directory of the machine whose syncs do nothing, to show that this proof would notice.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use everlog::fs::{Access, File, Fs, Lock, RealFs, Space};

/// Which syncs are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    Files,
    Directories,
}

#[derive(Debug)]
pub(crate) struct LazyFs {
    pub(crate) real: RealFs,
    pub(crate) skip: Skip,
}

#[derive(Debug)]
struct LazyFile(Arc<dyn File>);

impl LazyFs {
    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        match self.skip {
            Skip::Files => Arc::new(LazyFile(file)),
            Skip::Directories => file,
        }
    }
}

impl Fs for LazyFs {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.real.create_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.real.list(path)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.real.create(path).map(|file| self.file(file))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.real.open(path, access).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.real.remove_dir(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.real.remove(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        match self.skip {
            Skip::Files => self.real.sync_dir(path),
            Skip::Directories => Ok(()),
        }
    }

    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.real.lock(path, holder)
    }

    fn holder(&self, path: &str) -> io::Result<Option<String>> {
        self.real.holder(path)
    }

    fn space(&self) -> io::Result<Space> {
        self.real.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.real.display(path)
    }

    fn random(&self) -> u64 {
        self.real.random()
    }

    fn now_micros(&self) -> u64 {
        self.real.now_micros()
    }
}

impl File for LazyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn identity(&self) -> io::Result<Option<u64>> {
        self.0.identity()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn evict(&self) -> io::Result<bool> {
        self.0.evict()
    }
}
