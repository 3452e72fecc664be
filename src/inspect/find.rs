//! Is this directory a journal? And if not, which one was probably meant?

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::segment::{JOURNAL_DIR, Segment};

/// A journal that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Its directory, as it was given.
    pub dir: PathBuf,
    /// How many segment files it has.
    pub segments: usize,
}

/// Checks that `dir` is the directory of a journal; looks at names only.
///
/// Errors: `NotFound` if there is no such directory or no journal in it. `Invalid` if `dir` is a file, or a part of a
/// journal: then the message names the journal's directory. `Io` if it cannot be looked at.
pub fn find(dir: &Path) -> Result<Found> {
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(not_a_directory(dir)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let what = "there is no such directory; check that its disk is mounted";
            return Err(Error::at(ErrorKind::NotFound, dir, what));
        }
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(not_a_directory(dir)),
        Err(e) => return Err(Error::io(dir, "look at the directory", e)),
    }
    let segments = count_segments(&dir.join(JOURNAL_DIR))?;
    if segments > 0 {
        return Ok(Found {
            dir: dir.to_path_buf(),
            segments,
        });
    }
    if count_segments(dir)? > 0
        && let Some(journal) = journal_around(dir)
    {
        let what = format!(
            "this is the inside of a journal; name its directory, {}",
            journal.display()
        );
        return Err(Error::at(ErrorKind::Invalid, dir, what));
    }
    Err(Error::at(
        ErrorKind::NotFound,
        dir,
        "there is no journal in this directory",
    ))
}

fn not_a_directory(path: &Path) -> Error {
    let what = match path
        .parent()
        .filter(|parent| count_segments(parent).is_ok_and(|n| n > 0))
        .and_then(journal_around)
    {
        Some(journal) => {
            format!(
                "this is a file inside a journal; name the journal's directory, {}",
                journal.display()
            )
        }
        None => match path
            .parent()
            .filter(|dir| count_segments(&dir.join(JOURNAL_DIR)).is_ok_and(|n| n > 0))
        {
            Some(journal) => {
                format!(
                    "this is a file beside a journal; name the journal's directory, {}",
                    shown(journal)
                )
            }
            None => "this is a file, and a journal is a directory".to_owned(),
        },
    };
    Error::at(ErrorKind::Invalid, path, what)
}

/// The directory of the journal whose directory of segments is `inner`.
fn journal_around(inner: &Path) -> Option<PathBuf> {
    let whole = match inner.file_name() {
        Some(_) => inner.to_path_buf(),
        None => fs::canonicalize(inner).ok()?,
    };
    let named = whole.file_name().is_some_and(|name| name == JOURNAL_DIR);
    let parent = whole.parent().filter(|_| named)?;
    Some(PathBuf::from(shown(parent)))
}

/// The empty path, as a person would type it.
fn shown(dir: &Path) -> String {
    if dir.as_os_str().is_empty() {
        ".".to_owned()
    } else {
        dir.display().to_string()
    }
}

/// How many files of `dir` are named as segments; none if it is not there.
fn count_segments(dir: &Path) -> Result<usize> {
    let names = match fs::read_dir(dir) {
        Ok(names) => names,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(0),
        Err(e) => return Err(Error::io(dir, "list the directory", e)),
    };
    let mut count = 0;
    for name in names {
        let name = name
            .map_err(|e| Error::io(dir, "list the directory", e))?
            .file_name();
        count += usize::from(name.to_str().and_then(Segment::parse_name).is_some());
    }
    Ok(count)
}
