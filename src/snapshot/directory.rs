//! Objects as files of a directory: written under a name of their own, synced, renamed, and the directory synced.

use std::io;
use std::path::PathBuf;

use super::behind::Behind;
use super::objects::{Object, Objects, Upload};
use crate::fs::{Access, File, Fs, Lock};
use crate::mutant::{Rule, removed};
use crate::sync::{Arc, Mutex, MutexGuard};

/// The directory `snapshots` of an [`Fs`], and `snapshots.lock` beside it: where a store keeps its objects by default.
#[derive(Clone, Debug)]
pub struct Directory {
    fs: Arc<dyn Fs>,
    names: Arc<Names>,
}

/// A sync of the directory that fails may forget for good what anybody changed in it, and whoever syncs next is told Ok. So names are
/// given and taken one after the other: each with its own sync, and what cleans up if that fails.
#[derive(Debug, Default)]
struct Names {
    changing: Mutex<()>,
}

const DIR: &str = "snapshots";
/// Beside the directory, so that one which holds nothing can be made anew.
const LOCK: &str = "snapshots.lock";
/// What an unfinished upload is called.
const UNFINISHED: &str = ".tmp";

/// So many bytes are synced while the next ones are cut and named.
const BEHIND_BYTES: u64 = 8 << 20;

#[derive(Debug)]
struct FileUpload {
    fs: Arc<dyn Fs>,
    names: Arc<Names>,
    file: Arc<dyn File>,
    name: String,
    at: u64,
    /// How much of it was synced early, or is being synced.
    begun: u64,
    behind: Option<Behind>,
    /// It has its name, or never will.
    over: bool,
}

#[derive(Debug)]
struct FileObject(Arc<dyn File>);

impl Names {
    fn change(&self) -> Option<MutexGuard<'_, ()>> {
        (!removed(Rule::SnapshotNamesInTurn)).then(|| self.changing.lock())
    }
}

impl Directory {
    /// That of `fs`. Nothing is made or read yet.
    #[must_use]
    pub fn new(fs: Arc<dyn Fs>) -> Directory {
        Directory {
            fs,
            names: Arc::default(),
        }
    }

    fn remove_all(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            match self.fs.remove(&path(name)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Makes the directory for good. One that holds nothing may be a name that its parent has forgotten, after a sync of it
    /// failed, and then no later sync brings it back: it is made anew.
    fn make(&self) -> io::Result<()> {
        match self.fs.create_dir(DIR) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let names = self.fs.list(DIR)?;
                let unfinished: Vec<String> = names.iter().filter(|n| is_unfinished(n)).cloned().collect();
                self.remove_all(&unfinished)?;
                if names.len() == unfinished.len() {
                    self.fs.remove_dir(DIR)?;
                    self.fs.create_dir(DIR)?;
                }
            }
            made => made?,
        }
        Ok(())
    }
}

impl Objects for Directory {
    fn settle(&self) -> io::Result<()> {
        self.make()?;
        if !removed(Rule::SnapshotDirSync)
            && let Err(error) = self.fs.sync_dir("")
        {
            // Only one that is empty goes: what is in it is older than this life, and its name with it.
            let _ = self.fs.remove_dir(DIR);
            return Err(error);
        }
        match removed(Rule::SnapshotNamesSync) {
            true => Ok(()),
            false => self.fs.sync_dir(DIR),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.fs.list(DIR)?;
        names.retain(|name| !is_unfinished(name));
        Ok(names)
    }

    fn put(&self, name: &str) -> io::Result<Box<dyn Upload>> {
        let unfinished = unfinished(name);
        let file = match self.fs.create(&unfinished) {
            // Of an upload of this life that failed, and could not be removed then.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.fs.remove(&unfinished)?;
                self.fs.create(&unfinished)?
            }
            created => created?,
        };
        Ok(Box::new(FileUpload {
            fs: Arc::clone(&self.fs),
            names: Arc::clone(&self.names),
            file,
            name: name.to_owned(),
            at: 0,
            begun: 0,
            behind: None,
            over: false,
        }))
    }

    fn get(&self, name: &str) -> io::Result<Arc<dyn Object>> {
        let file = self.fs.open(&path(name), Access::Read)?;
        Ok(Arc::new(FileObject(file)))
    }

    fn delete(&self, names: &[String]) -> io::Result<()> {
        let _changing = self.names.change();
        self.remove_all(names)?;
        match removed(Rule::SnapshotRemovalSync) {
            true => Ok(()),
            false => self.fs.sync_dir(DIR),
        }
    }

    fn lock(&self, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.fs.lock(LOCK, holder)
    }

    fn holder(&self) -> io::Result<Option<String>> {
        self.fs.holder(LOCK)
    }

    fn display(&self, name: &str) -> PathBuf {
        match name {
            "" => self.fs.display(DIR),
            name => self.fs.display(&path(name)),
        }
    }

    fn random(&self) -> u64 {
        self.fs.random()
    }

    fn now_micros(&self) -> u64 {
        self.fs.now_micros()
    }
}

impl Upload for FileUpload {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        if self.at - self.begun >= BEHIND_BYTES {
            self.begun = self.at;
            self.behind = self.behind.take().or_else(|| Behind::start(&self.file));
            self.behind.iter().for_each(Behind::sync);
        }
        Ok(())
    }

    fn sync_early(&mut self) -> io::Result<()> {
        self.begun = self.at;
        self.file.sync_data()
    }

    fn sync(&mut self) -> io::Result<()> {
        let early = self.behind.take().map_or(Ok(()), Behind::finish);
        if !removed(Rule::EarlySyncFails) {
            early?;
        }
        match removed(rules(&self.name).0) {
            true => Ok(()),
            false => self.file.sync_data(),
        }
    }

    fn publish(mut self: Box<Self>) -> io::Result<()> {
        let to = path(&self.name);
        let names = Arc::clone(&self.names);
        let _changing = names.change();
        // One process writes, so nobody makes the name between this and the rename.
        match self.fs.open(&to, Access::Read) {
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        self.fs.rename(&unfinished(&self.name), &to)?;
        self.over = true;
        if removed(rules(&self.name).1) {
            return Ok(());
        }
        let synced = self.fs.sync_dir(DIR);
        if synced.is_err() && !removed(Rule::SnapshotFailedNameGoes) {
            // The directory may have forgotten the name for good although the next sync says Ok: nothing must be there to be
            // believed by the next life.
            let gone = self.fs.remove(&to).and_then(|()| self.fs.sync_dir(DIR));
            if let Err(error) = gone {
                tracing::warn!(name = self.name, %error, "a name that could not be synced could not be removed");
            }
        }
        synced
    }
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        if let Some(behind) = self.behind.take() {
            let _ = behind.finish();
        }
        if !self.over {
            // What stays is removed by the next life.
            let _ = self.fs.remove(&unfinished(&self.name));
        }
    }
}

impl Object for FileObject {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn evict(&self) -> io::Result<bool> {
        self.0.evict()
    }

    fn read_nothing_ahead(&self) -> io::Result<()> {
        self.0.read_nothing_ahead()
    }
}

fn path(name: &str) -> String {
    format!("{DIR}/{name}")
}

fn unfinished(name: &str) -> String {
    format!("{DIR}/{name}{UNFINISHED}")
}

fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// The rules by which the bytes and the name of an object are synced.
fn rules(name: &str) -> (Rule, Rule) {
    if super::names::parse_pack(name).is_some() {
        (Rule::SnapshotPackSync, Rule::SnapshotPackNameSync)
    } else if super::names::parse_pin(name).is_some() {
        (Rule::PinSync, Rule::PinNameSync)
    } else {
        (Rule::SnapshotIndexSync, Rule::SnapshotIndexNameSync)
    }
}
