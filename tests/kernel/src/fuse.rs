//! The disk as the one file `disk.img` of a FUSE file system: each write of a loop device on it is one write here, each
//! flush one fsync.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

use crate::disk::Disk;

pub(crate) const FILE_NAME: &str = "disk.img";

/// The disk, shared by the file system's thread and the proof.
#[derive(Clone)]
pub(crate) struct SharedDisk(Arc<Mutex<Disk>>);

struct Export(SharedDisk);

impl SharedDisk {
    pub(crate) fn new(bytes: u64) -> SharedDisk {
        SharedDisk(Arc::new(Mutex::new(Disk::new(bytes))))
    }

    /// Whoever holds this must not touch a file on the disk: the answer would wait for the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `disk` at the directory `at` until the session is dropped.
pub(crate) fn export(disk: &SharedDisk, at: &Path) -> std::io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("everlog-kernel".into()), MountOption::RW];
    fuser::spawn_mount(Export(disk.clone()), at, &config)
}

impl Export {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_root = inode == INodeNo::ROOT;
        let size = if is_root { 0 } else { self.0.lock().bytes };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_root {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if is_root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Export {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE_NAME {
            reply.entry(&FOREVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let disk = self.0.lock();
        let left = disk.bytes.saturating_sub(offset).min(size.into());
        let mut buffer = vec![0; usize::try_from(left).expect("a size of a read")];
        disk.read(offset, &mut buffer);
        drop(disk);
        reply.data(&buffer);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.0.lock().write(offset, bytes);
        match u32::try_from(bytes.len()) {
            Ok(len) if done => reply.written(len),
            _ => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if self.0.lock().flush() {
            reply.ok();
        } else {
            reply.error(Errno::EIO);
        }
    }
}

const FILE: INodeNo = INodeNo(2);
const FOREVER: Duration = Duration::from_secs(1 << 20);
