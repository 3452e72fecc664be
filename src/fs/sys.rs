//! The system calls that std does not have. Nothing here decides anything.

use super::Space;
use std::fs::File;
use std::io;
use std::time::Duration;

/// Tells the system that the cached pages of `file` are not needed, and looks whether they are gone. False where they
/// are not, or where the system cannot say.
#[cfg(target_os = "linux")]
pub(super) fn evict(file: &File) -> io::Result<bool> {
    use rustix::fs::{Advice, fadvise};
    fadvise(file, 0, None, Advice::DontNeed)?;
    let len = file.metadata()?.len();
    let probes = [0, len / 2, len.saturating_sub(1)];
    Ok(len == 0 || !probes.iter().any(|at| is_cached(file, *at)))
}

/// Whether the byte at `offset` can be read without going to the device (or this cannot be known).
#[cfg(target_os = "linux")]
fn is_cached(file: &File, offset: u64) -> bool {
    use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, preadv2};
    let mut byte = [0u8];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT) != Err(Errno::AGAIN)
}

/// Without a way to look, nothing is promised.
#[cfg(not(target_os = "linux"))]
pub(super) fn evict(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// Tells the system not to read ahead in `file`.
#[cfg(target_os = "linux")]
pub(super) fn read_nothing_ahead(file: &File) -> io::Result<()> {
    use rustix::fs::{Advice, fadvise};
    Ok(fadvise(file, 0, None, Advice::Random)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn read_nothing_ahead(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Free and total bytes of the file system that holds `file`.
pub(super) fn space(file: &File) -> io::Result<Space> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(Space {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Eight random bytes of the system as a number.
pub(super) fn random() -> io::Result<u64> {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut bytes = [0u8; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(u64::from_le_bytes(bytes))
}

/// Lets time pass while another process is expected to let go of something.
pub(super) fn pause(time: Duration) {
    crate::sync::thread::sleep(time);
}
