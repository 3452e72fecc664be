//! The seam to the disk: a directory tree of flat files, used as `dyn`. Beside a system call, dynamic dispatch costs
//! nothing.
//!
//! Paths are relative to the root of the [`Fs`], with `/` between parts (`journal/0000000000000001.seg`); `""` is the root.
//! What is durable when is said at each method; everything not said to be durable may be lost, kept, or kept in part by a
//! power cut.

pub mod contract;
mod fault;
mod real;
pub mod sim;
mod sys;

pub use fault::{Failure, Fault, FaultFs, Gate, Op, Rule, Watch};
pub use real::{Medium, RealFs};
pub use sim::{Atom, Choice, Kept, PendingSync, Profile, SimFs};

use crate::mutant::{self, removed};
use crate::sync::Arc;
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only; writing through it is an error.
    Read,
    /// Reads and writes.
    Write,
}

/// Free and total bytes of the file system that holds the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Size of the file system in bytes.
    pub total: u64,
}

/// Keeps a lock for as long as it lives.
pub trait Lock: Send + Sync + Debug {}

/// A directory tree. Every implementation passes [`contract`].
pub trait Fs: Send + Sync + Debug + 'static {
    /// Creates the directory `path` (one level); fails with `AlreadyExists` if it is there. Its name is durable only after
    /// [`sync_dir`](Fs::sync_dir) of its parent.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Removes the empty directory `path`; fails if anything is in it. Durable only after [`sync_dir`](Fs::sync_dir) of its parent.
    /// Needed where a sync of the parent failed: its name may be forgotten for good, and a directory that is made anew has a new
    /// one.
    fn remove_dir(&self, path: &str) -> io::Result<()>;

    /// The names (without the directory) of all files and directories in `path`, sorted. `NotFound` if there is none.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    /// Creates an empty file for reading and writing; fails with `AlreadyExists`. The name is durable only after
    /// [`sync_dir`](Fs::sync_dir) of its directory, whatever is done to the file itself.
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file. `NotFound` if there is none.
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>>;

    /// Gives the file `from` the name `to` in one step, replacing a file of that name: after a crash `to` is the old file
    /// or the new one, never neither. Durable only after [`sync_dir`](Fs::sync_dir) of the directories.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file's name. Handles stay usable. Durable only after [`sync_dir`](Fs::sync_dir).
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes every create, rename and remove so far in the directory `path` durable. After an error nothing is known.
    fn sync_dir(&self, path: &str) -> io::Result<()>;

    /// Takes the lock file `path`, creating it if needed, and writes `holder` (a line for people) into it, if the disk has room for
    /// that. `WouldBlock` if
    /// another process (or another handle of this one) has it. Released when the guard is dropped or the process dies; the
    /// file stays.
    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>>;

    /// The line of whoever holds the lock file `path` right now, empty if the disk had no room for it; `None` if nobody does. Changes nothing.
    fn holder(&self, path: &str) -> io::Result<Option<String>>;

    /// Free and total bytes.
    fn space(&self) -> io::Result<Space>;

    /// `path` as a person would type it, for messages.
    fn display(&self, path: &str) -> PathBuf;

    /// A random number: from the system, or seeded in a simulation.
    fn random(&self) -> u64;

    /// Wall clock in microseconds since 1970: of the system, or of a simulation.
    fn now_micros(&self) -> u64;
}

/// An open file. Methods take `&self`; concurrent calls are allowed.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait File: Send + Sync + Debug + 'static {
    /// Reads into `buffer` from `offset`; returns how many bytes, 0 only at the end of the file (or an empty buffer). May be short.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes from `buffer` at `offset`, growing the file where needed; returns how many bytes were taken (may be
    /// short, never 0 unless the buffer is empty). Written bytes are seen by every reader at once and are durable only after a sync.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes every write that returned before this call durable, with the size. Not the name: that is
    /// [`Fs::sync_dir`]. After an error nothing is known of any byte since the last success, **and a later success says
    /// nothing about them either**: an error is told once.
    fn sync_data(&self) -> io::Result<()>;

    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Sets the size; new bytes read as zero. Durable after a sync.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// A number that tells the file from all others of its directory, whatever names they have: two names of one file give the same.
    /// `None` if it cannot be told; then two names of one file pass for two files.
    fn identity(&self) -> io::Result<Option<u64>>;

    /// Asks that later reads come from the device and not from memory. Clean pages only; call it after a sync. Returns
    /// false where the system cannot promise it.
    fn evict(&self) -> io::Result<bool>;

    /// Asks that reads by this handle fetch what they ask for and nothing ahead of it, so that they do not occupy the device for longer.
    /// Nothing where the system knows no such thing.
    fn read_nothing_ahead(&self) -> io::Result<()> {
        Ok(())
    }

    /// Fills `buffer` from `offset`, as far as the file reaches; returns how many bytes. Repeats calls that were interrupted or short.
    fn read_up_to(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    /// Fills all of `buffer` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_up_to(buffer, offset)? == buffer.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Writes all of `buffer` at `offset`: a short write is continued, an interrupted one repeated; any other error is final.
    fn write_all_at(&self, mut buffer: &[u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.write_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) if removed(mutant::Rule::ShortWriteGoesOn) => return Ok(()),
                Ok(n) => {
                    buffer = &buffer[n..];
                    offset += n as u64;
                }
                Err(e)
                    if e.kind() == io::ErrorKind::Interrupted
                        && !removed(mutant::Rule::InterruptedRepeats) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The line of this process in the lock files that it holds.
pub(crate) fn holder_line() -> String {
    let program = std::env::args().next().unwrap_or_default();
    let name = std::path::Path::new(&program)
        .file_name()
        .map(|n| n.to_string_lossy().into_owned());
    // Miri's `uname` leaves bytes behind the strings unset, and rustix takes all of them for set.
    let host = match cfg!(miri) {
        true => "miri".into(),
        false => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    format!(
        "pid {} ({}) on {host}",
        std::process::id(),
        name.unwrap_or_default()
    )
}

/// Refuses what is not a path below the root: empty parts, `.`, `..`, a leading or closing `/`.
pub(crate) fn check_path(path: &str) -> io::Result<()> {
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
    if !path.is_empty() && path.split('/').any(bad) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("not a path below the root: {path:?}"),
        ));
    }
    Ok(())
}
