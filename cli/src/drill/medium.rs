//! What a drill stands on: file system, device, and how long a flush takes there; and what of that makes a drill say
//! less than it seems to.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use everlog::fs::{Medium, RealFs};

use crate::exit::Failure;
use crate::output;

/// The ground of a drill.
pub(crate) struct Ground {
    /// File system and device.
    pub(crate) medium: Medium,
    /// Median time of a flush of one written block.
    pub(crate) flush: Duration,
}

impl Ground {
    /// Looks at `dir`, and writes and flushes a small file there, which is gone afterwards.
    pub(crate) fn measure(dir: &Path) -> Result<Ground, Failure> {
        let failed = |e: io::Error| Failure::io(&format!("measure a flush in {}", dir.display()), &e);
        let medium = RealFs::open(dir).map_err(failed)?.medium();
        let path = dir.join("flush.tmp");
        let flush = median_flush(&path);
        fs::remove_file(&path).map_err(failed)?;
        Ok(Ground {
            medium,
            flush: flush.map_err(failed)?,
        })
    }

    /// One line: `ext4 on /dev/vda, mounted at /`.
    pub(crate) fn line(&self) -> String {
        let mut text = self.medium.kind.clone();
        if !self.medium.device.is_empty() {
            text += &format!(" on {}", self.medium.device);
        }
        if !self.medium.mount.as_os_str().is_empty() {
            text += &format!(", mounted at {}", self.medium.mount.display());
        }
        text
    }

    /// Why this drill proves less here than on a disk.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let kind = self.medium.kind.as_str();
        let mut warnings = Vec::new();
        if MEMORY.contains(&kind) {
            warnings.push(format!(
                "{kind} keeps files in memory: nothing here outlives the machine"
            ));
        }
        if LAYERED.contains(&kind) {
            warnings.push(format!(
                "{kind} lies over another file system: what it flushes and how fast says little of the disk below"
            ));
        }
        if NETWORK.contains(&kind) || kind.starts_with("fuse") {
            warnings.push(format!(
                "{kind} is served by another machine or program: locks and flushes may mean less than on a local disk"
            ));
        }
        if self.flush < FLUSH_PLAUSIBLE {
            warnings.push(format!(
                "a flush takes {}, faster than a disk that really writes: something may only say that it flushed",
                output::time(self.flush)
            ));
        }
        warnings
    }
}

/// Writes into a file that was zeroed and synced before, as the journal does, so that only data is flushed.
fn median_flush(path: &Path) -> io::Result<Duration> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    let block = [0x5a; BLOCK];
    file.write_all_at(&[0; BLOCK * FLUSHES], 0)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(FLUSHES);
    for at in 0..FLUSHES {
        let start = Instant::now();
        file.write_all_at(&block, (at * BLOCK) as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[FLUSHES / 2])
}

const MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
const LAYERED: [&str; 4] = ["overlay", "overlayfs", "aufs", "unionfs"];
const NETWORK: [&str; 14] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "virtiofs",
];
/// No disk that keeps data without power is known to flush faster.
const FLUSH_PLAUSIBLE: Duration = Duration::from_micros(20);
const FLUSHES: usize = 15;
const BLOCK: usize = 4096;
