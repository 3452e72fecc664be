//! The simulated disk as an [`Fs`]: handles that belong to one life of one process.

use super::state::{Power, State, check_writable};
use super::{SimFs, content::BLOCK};
use crate::fs::{Access, File, Fs, Lock, Space};
use crate::sync::Arc;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    inode: u64,
    /// As it was opened; renames do not change it.
    path: String,
    access: Access,
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    inode: u64,
    token: u64,
}

impl SimFs {
    /// Runs one call of this handle's process, if that still lives and has power.
    pub(super) fn call<T>(&self, run: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.life != self.life {
            return Err(io::Error::other("this process of the simulation was killed"));
        }
        if state.power == Power::Off {
            return Err(Errno::IO.into());
        }
        run(&mut state)
    }

    fn file(&self, inode: u64, path: &str, access: Access) -> Arc<dyn File> {
        Arc::new(SimFile {
            fs: self.clone(),
            inode,
            path: path.to_string(),
            access,
        })
    }
}

impl Fs for SimFs {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.call(|state| state.create_dir(path))
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.call(|state| state.remove_dir(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.call(|state| state.list(path))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let inode = self.call(|state| state.create(path))?;
        Ok(self.file(inode, path, Access::Write))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let inode = self.call(|state| state.open(path))?;
        Ok(self.file(inode, path, access))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(|state| state.rename(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.call(|state| state.remove(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.call(|state| state.sync_dir(path))
    }

    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>> {
        let (inode, token) = self.call(|state| state.lock(path, holder))?;
        Ok(Box::new(SimLock {
            fs: self.clone(),
            inode,
            token,
        }))
    }

    fn holder(&self, path: &str) -> io::Result<Option<String>> {
        self.call(|state| state.holder(path))
    }

    fn space(&self) -> io::Result<Space> {
        self.call(|state| {
            let Space { free, total } = state.space();
            Ok(Space {
                free: free / BLOCK * BLOCK,
                total,
            })
        })
    }

    fn display(&self, path: &str) -> PathBuf {
        Path::new("/simulated").join(path)
    }

    fn random(&self) -> u64 {
        self.state.lock().random.next()
    }

    /// Moves on by one microsecond with each call, and by [`SimFs::advance`].
    fn now_micros(&self) -> u64 {
        let mut state = self.state.lock();
        state.clock += 1;
        state.clock
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fs.call(|state| state.read(self.inode, buffer, offset))
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        check_writable(self.access)?;
        self.fs.call(|state| state.write(self.inode, buffer, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.call(|state| state.sync(self.inode, &self.path, state.op))
    }

    fn len(&self) -> io::Result<u64> {
        self.fs.call(|state| state.len(self.inode))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check_writable(self.access)?;
        self.fs.call(|state| state.set_len(self.inode, len))
    }

    fn identity(&self) -> io::Result<Option<u64>> {
        self.fs.call(|_| Ok(Some(self.inode)))
    }

    fn evict(&self) -> io::Result<bool> {
        self.fs.call(|state| state.evict(self.inode))?;
        Ok(true)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.fs.state.lock();
        if state.life == self.fs.life {
            state.close(self.inode);
        }
    }
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.state.lock().unlock(self.inode, self.token);
    }
}
