//! The directory of a drill: taken only when it is empty or absent, and removed when nothing is wrong.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// A directory that belongs to the drill until [`remove`](Workplace::remove). Dropping it keeps everything, so that
/// what a drill found can be looked at.
pub(crate) struct Workplace {
    dir: PathBuf,
    /// Whether the directory itself is the drill's.
    made: bool,
}

impl Workplace {
    /// Takes `dir`, or a new one beside the caller.
    pub(crate) fn take(dir: Option<&Path>) -> Result<Workplace, Failure> {
        let dir = match dir {
            Some(dir) => dir.to_path_buf(),
            None => PathBuf::from(format!("./everlog-drill-{}", std::process::id())),
        };
        let made = match fs::read_dir(&dir) {
            Ok(mut names) => match names.next() {
                None => false,
                Some(_) => {
                    return Err(Failure::usage(format!(
                        "{}: is not empty, and a drill removes what it leaves",
                        dir.display()
                    )));
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&dir).map_err(|e| failed("make", &dir, &e))?;
                true
            }
            Err(e) => return Err(failed("read", &dir, &e)),
        };
        Ok(Workplace { dir, made })
    }

    /// The directory of the journal.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes everything the drill made.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        let removed = match self.made {
            true => fs::remove_dir_all(&self.dir),
            false => self.remove_content(),
        };
        removed.map_err(|e| failed("remove", &self.dir, &e))
    }

    fn remove_content(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }
}

fn failed(doing: &str, dir: &Path, error: &io::Error) -> Failure {
    Failure::io(&format!("{doing} the directory {}", dir.display()), error)
}
