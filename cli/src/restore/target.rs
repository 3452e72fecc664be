//! The new directory, which is no journal before everything is in it.
//!
//! ```text
//! DIR2/restoring/snapshots, DIR2/restoring/journal written, synced and closed
//!   ->  DIR2/snapshots named, and synced  ->  DIR2/journal named, and synced  ->  DIR2/restoring removed
//! ```
//!
//! Up to the naming of `journal` whoever opens DIR2 finds no journal there, and `restoring` says why.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::output::word;

/// Where an unfinished restore stands.
const RESTORING: &str = "restoring";

/// A directory that is being filled. Dropped before it is finished, what was made of it goes again.
pub(super) struct Target {
    dir: PathBuf,
    work: PathBuf,
    made_dir: bool,
    /// Nothing is taken back any more.
    finishing: bool,
}

impl Target {
    /// Claims `dir`, which must be absent or empty.
    pub(super) fn claim(dir: &Path) -> Result<Target, Failure> {
        let doing = |what: &str| format!("{what} {}", dir.display());
        let found = names(dir).map_err(|e| Failure::io(&doing("read the directory"), &e))?;
        if let Some(failure) = found.as_ref().and_then(|names| refuse(dir, names)) {
            return Err(failure);
        }
        let made_dir = found.is_none();
        if made_dir {
            fs::create_dir(dir).map_err(|e| Failure::io(&doing("make the directory"), &e))?;
        }
        let failed = |e| Failure::io(&doing("make a directory in"), &e);
        let work = dir.join(RESTORING);
        // Whoever makes it is the one who restores here.
        fs::create_dir(&work).map_err(failed)?;
        let target = Target {
            dir: dir.to_path_buf(),
            work,
            made_dir,
            finishing: false,
        };
        sync(dir).and_then(|()| sync(parent(dir))).map_err(failed)?;
        Ok(target)
    }

    /// Where to write.
    pub(super) fn work(&self) -> &Path {
        &self.work
    }

    /// Makes it a journal; everything in it is synced and closed.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.finishing = true;
        let named = self.name("snapshots").and_then(|()| self.name("journal"));
        named.map_err(|e| Failure::io(&format!("name what was restored in {}", self.dir.display()), &e))?;
        // What is left are files of locks; a restore that ends here is complete.
        let _ = fs::remove_dir_all(&self.work).and_then(|()| sync(&self.dir));
        Ok(())
    }

    fn name(&self, name: &str) -> io::Result<()> {
        match fs::rename(self.work.join(name), self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && name == "snapshots" => return Ok(()),
            renamed => renamed?,
        }
        sync(&self.dir)?;
        sync(&self.work)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.finishing {
            return;
        }
        let _ = fs::remove_dir_all(&self.work);
        if self.made_dir {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// What stands in the way, if anything does.
fn refuse(dir: &Path, names: &[OsString]) -> Option<Failure> {
    let has = |name: &str| names.iter().any(|other| other == name);
    if names.is_empty() {
        return None;
    }
    let text = match has(RESTORING) && !has("journal") {
        true => "holds a restore that did not come to its end, and is no journal",
        false => "is not empty, and a restore replaces nothing; name a directory that is absent or empty",
    };
    let failure = Failure::usage(format!("{}: {text}", dir.display()));
    Some(match has(RESTORING) && !has("journal") {
        true => failure.next(format!("rm -r {}, and restore again", word(dir))),
        false => failure,
    })
}

/// The names in `dir`; `None` if it is not there.
fn names(dir: &Path) -> io::Result<Option<Vec<OsString>>> {
    match fs::read_dir(dir) {
        Ok(names) => names
            .map(|name| Ok(name?.file_name()))
            .collect::<io::Result<_>>()
            .map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
