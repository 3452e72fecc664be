//! The file system of the machine, below one directory. Durability is what the kernel promises: data by `fdatasync`,
//! names by `fsync` of the directory.
//!
//! The directory is opened once, and every path is taken from there: if it is moved, and another one made in its place, or the
//! process changes its working directory, nothing is named or removed where it does not belong.

use super::{Access, File, Fs, Lock, Space, check_path, sys};
use crate::sync::{Arc, Mutex};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::{self, TryLockError};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A directory of the machine as an [`Fs`].
///
/// ```
/// use everlog::fs::{Access, Fs, RealFs};
///
/// # let parent = tempfile::tempdir()?;
/// let fs = RealFs::create(parent.path().join("data/node-1"))?;
/// let file = fs.create("hello")?;
/// file.write_all_at(b"hello, disk", 0)?;
/// file.sync_data()?; // the bytes are durable
/// fs.sync_dir("")?; // and now the name is, too
/// assert_eq!(fs.open("hello", Access::Read)?.len()?, 11);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RealFs {
    /// As it was given, for messages.
    root: PathBuf,
    dir: Arc<fs::File>,
    /// Directories that were synced. Whoever ran out of descriptors can still sync them: without that a name which is there could be
    /// neither kept nor given up for good.
    synced: Arc<Mutex<BTreeMap<String, Arc<fs::File>>>>,
}

/// So many are held.
const SYNCED_MAX: usize = 8;

/// What lies under a [`RealFs`], for a report that says what was measured or tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Kind of file system: `ext4`, `xfs`, `tmpfs`, `overlay`, `nfs4`, ... or `unknown`.
    pub kind: String,
    /// What is mounted, mostly a block device: `/dev/nvme0n1p2`; empty if unknown.
    pub device: String,
    /// Where it is mounted; empty if unknown.
    pub mount: PathBuf,
}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
}

#[derive(Debug)]
struct RealLock {
    file: fs::File,
}

impl RealFs {
    /// Makes the directory `path` with all its parents if it is not there, and opens it. The directory itself is durable
    /// on return: every parent that got an entry has been synced.
    pub fn create(path: impl AsRef<Path>) -> io::Result<RealFs> {
        create_durably(path.as_ref())?;
        RealFs::open(path)
    }

    /// Opens the directory `path`. `NotFound` if there is none, `NotADirectory` if it is a file. Changes nothing.
    pub fn open(path: impl AsRef<Path>) -> io::Result<RealFs> {
        let root = path.as_ref().to_path_buf();
        let dir = open_at(rustix::fs::CWD, &root, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let dir = Arc::new(dir);
        Ok(RealFs {
            root,
            dir,
            synced: Arc::default(),
        })
    }

    /// The directory as it was given.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What file system holds the directory. Never fails: what cannot be found out is `unknown` or empty.
    pub fn medium(&self) -> Medium {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        medium_of(&root, &table).unwrap_or(Medium {
            kind: "unknown".to_string(),
            device: String::new(),
            mount: PathBuf::new(),
        })
    }

    /// The directory that stands at `path` now. One that is held keeps its number to itself, so that another one in its place is noticed.
    fn directory(&self, path: &str) -> io::Result<Arc<fs::File>> {
        let mut synced = self.synced.lock();
        let there = rustix::fs::statat(&*self.dir, below(path)?, AtFlags::empty())?;
        if let Some(held) = synced.get(path) {
            let held_is = rustix::fs::fstat(&**held)?;
            if (held_is.st_dev, held_is.st_ino) == (there.st_dev, there.st_ino) {
                return Ok(Arc::clone(held));
            }
        }
        let opened = Arc::new(self.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY)?);
        if synced.len() >= SYNCED_MAX {
            synced.clear();
        }
        synced.insert(path.into(), Arc::clone(&opened));
        Ok(opened)
    }

    fn open_file(&self, path: &str, flags: OFlags) -> io::Result<fs::File> {
        open_at(&*self.dir, below(path)?, flags)
    }
}

/// `path`, if it is one below the root, as the system takes it from there.
fn below(path: &str) -> io::Result<&str> {
    check_path(path)?;
    Ok(if path.is_empty() { "." } else { path })
}

fn open_at(dir: impl AsFd, path: impl rustix::path::Arg + Copy, flags: OFlags) -> io::Result<fs::File> {
    let flags = flags | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&dir, path, flags, Mode::from_raw_mode(0o666));
    Ok(rustix::io::retry_on_intr(open)?.into())
}

impl Fs for RealFs {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(
            &*self.dir,
            below(path)?,
            Mode::from_raw_mode(0o777),
        )?)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(
            &*self.dir,
            below(path)?,
            AtFlags::REMOVEDIR,
        )?)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let dir = self.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let file = self.open_file(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        let file = self.open_file(path, flags)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(
            &*self.dir,
            below(from)?,
            &*self.dir,
            below(to)?,
        )?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&*self.dir, below(path)?, AtFlags::empty())?)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.directory(path)?.sync_all()
    }

    fn lock(&self, path: &str, holder: &str) -> io::Result<Box<dyn Lock>> {
        let file = self.open_file(path, OFlags::RDWR | OFlags::CREATE)?;
        lock_patiently(&file)?;
        let lock = RealLock { file };
        lock.file.set_len(0)?;
        match lock.file.write_all_at(holder.as_bytes(), 0) {
            // The line is for people. Without it the lock is as good, and a full disk must be opened to be emptied.
            Err(e) if is_full(&e) => lock.file.set_len(0)?,
            written => written?,
        }
        Ok(Box::new(lock))
    }

    fn holder(&self, path: &str) -> io::Result<Option<String>> {
        let mut file = match self.open_file(path, OFlags::RDONLY) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut tries_left = LOCK_TRIES;
        loop {
            match file.try_lock_shared() {
                Ok(()) => return file.unlock().map(|()| None),
                Err(TryLockError::Error(e)) => return Err(e),
                Err(TryLockError::WouldBlock) => {}
            }
            // Empty for a moment while the owner is still writing its line, or is letting go.
            let mut text = String::new();
            file.rewind()?;
            file.read_to_string(&mut text)?;
            if !text.is_empty() || tries_left == 0 {
                return Ok(Some(text));
            }
            tries_left -= 1;
            sys::pause(LOCK_PAUSE);
        }
    }

    fn space(&self) -> io::Result<Space> {
        sys::space(&self.dir)
    }

    fn display(&self, path: &str) -> PathBuf {
        if path.is_empty() {
            self.root.clone()
        } else {
            self.root.join(path)
        }
    }

    /// From the system; should that fail (it does not on any supported one), from the clock and the address space.
    fn random(&self) -> u64 {
        sys::random().unwrap_or_else(|_| {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(self.now_micros())
        })
    }

    fn now_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn identity(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.file.metadata()?.ino()))
    }

    fn evict(&self) -> io::Result<bool> {
        sys::evict(&self.file)
    }

    fn read_nothing_ahead(&self) -> io::Result<()> {
        sys::read_nothing_ahead(&self.file)
    }
}

impl Lock for RealLock {}

impl Drop for RealLock {
    /// Unlocks rather than only closing: a child process that inherited the descriptor must not keep the lock. The line
    /// goes first, so that the next owner is never taken for this one.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Takes the lock, waiting for the momentary shared one of a [`Fs::holder`] to pass, but not for an owner.
fn lock_patiently(file: &fs::File) -> io::Result<()> {
    let mut tries_left = LOCK_TRIES;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(e),
            Err(TryLockError::WouldBlock) if tries_left == 0 => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::WouldBlock) => sys::pause(LOCK_PAUSE),
        }
        tries_left -= 1;
    }
}

/// Creates `path` and its parents, topmost first, each synced into its parent before the next. A directory that is there
/// already is synced into its parent as well when it is empty: an earlier call may have been cut off before its sync.
fn create_durably(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(p) if p.as_os_str().is_empty() => Path::new("."),
        Some(p) => p,
        None => return Ok(()),
    };
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => {
            let empty = fs::read_dir(path)?.next().is_none();
            return if empty { sync_directory(parent) } else { Ok(()) };
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    create_durably(parent)?;
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    let synced = sync_directory(parent);
    if synced.is_err() {
        // The parent may forget the name for good, and say Ok the next time: then nothing must be there to be believed.
        let _ = fs::remove_dir(path);
    }
    synced
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = fs::File::open(path)?;
    if !directory.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    directory.sync_all()
}

/// The row of `/proc/self/mountinfo` that `path` lies under: the longest mount point, the last one where several are
/// mounted over each other.
fn medium_of(path: &Path, table: &str) -> Option<Medium> {
    let rows = table.lines().filter_map(medium_in_row);
    rows.filter(|row| path.starts_with(&row.mount))
        .max_by_key(|row| row.mount.components().count())
}

/// `36 35 98:0 /root-in-fs /mount rw,noatime shared:1 - ext4 /dev/sda1 rw`
fn medium_in_row(row: &str) -> Option<Medium> {
    let (left, right) = row.split_once(" - ")?;
    let mount = left.split(' ').nth(4)?;
    let mut right = right.split(' ');
    let (kind, device) = (right.next()?, right.next()?);
    Some(Medium {
        kind: unescape(kind),
        device: unescape(device),
        mount: PathBuf::from(unescape(mount)),
    })
}

/// mountinfo writes a space, tab, newline or backslash as three octal digits behind a backslash.
fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes
        .iter()
        .fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}

/// 50 ms in all: far longer than a holder probe takes, far shorter than a person notices.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_latest_mount_wins() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     30 22 8:2 / /data rw shared:2 - xfs /dev/sdb1 rw\n\
                     31 22 0:9 / /data rw - tmpfs none rw\n\
                     32 22 8:3 / /with\\040space rw - btrfs /dev/sdc rw\n";
        let kind = |path: &str| {
            medium_of(Path::new(path), table)
                .map(|m| m.kind)
                .unwrap_or_default()
        };
        assert_eq!(kind("/home/x"), "ext4");
        assert_eq!(kind("/data/journal"), "tmpfs");
        assert_eq!(kind("/database"), "ext4");
        assert_eq!(kind("/with space/x"), "btrfs");
    }

    #[test]
    fn a_directory_that_was_made_anew_is_the_one_that_is_synced() {
        let root = tempfile::tempdir().unwrap();
        let fs = RealFs::open(root.path()).unwrap();
        let number = || fs::metadata(root.path().join("a")).unwrap().ino();
        for _ in 0..3 {
            fs.create_dir("a").unwrap();
            fs.sync_dir("a").unwrap();
            let held = fs.synced.lock()["a"].metadata().unwrap().ino();
            assert_eq!(held, number());
            fs.remove_dir("a").unwrap();
            assert!(fs.sync_dir("a").is_err(), "it is gone");
        }
        for n in 0..3 * SYNCED_MAX {
            fs.create_dir(&format!("{n}")).unwrap();
            fs.sync_dir(&format!("{n}")).unwrap();
            assert!(fs.synced.lock().len() <= SYNCED_MAX);
        }
    }

    /// In a process of its own: others here need descriptors.
    #[test]
    fn a_directory_that_was_synced_before_is_synced_without_a_descriptor() {
        let own = std::env::current_exe().unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args([
            "-c",
            "ulimit -n 40 && exec \"$0\" --exact fs::real::tests::out_of_descriptors --ignored",
        ]);
        let ran = shell.arg(own).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "takes all descriptors of its process; run by the test before it"]
    fn out_of_descriptors() {
        let root = tempfile::tempdir().unwrap();
        let fs = RealFs::open(root.path()).unwrap();
        fs.create_dir("known").unwrap();
        fs.create_dir("new").unwrap();
        fs.sync_dir("known").unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok())
            .take(1000)
            .collect();
        let (known, new) = (fs.sync_dir("known"), fs.sync_dir("new"));
        let count = taken.len();
        drop(taken);
        assert!(count < 1000, "nothing limits descriptors");
        known.unwrap();
        new.unwrap_err();
    }
}
