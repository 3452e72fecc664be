//! The machinery of the kernel: a loop device over the exported disk, and file systems mounted from it. What is set up is taken
//! down again in the opposite order, also when the proof fails.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use fuser::BackgroundSession;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::disk::Image;
use crate::fuse::{FILE_NAME, SharedDisk, export};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

/// A disk, its device, and a place to mount it.
pub(crate) struct Machine {
    pub(crate) kind: Kind,
    pub(crate) disk: SharedDisk,
    /// A fresh file system.
    pub(crate) blank: Image,
    root: PathBuf,
    device: LoopDevice,
    _export: BackgroundSession,
}

/// A mounted file system; dropped, it is unmounted.
pub(crate) struct Mounted {
    pub(crate) root: PathBuf,
}

/// Detached when dropped.
struct LoopDevice(PathBuf);

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }

    /// XFS refuses to be smaller than 300 MiB.
    fn bytes(self) -> u64 {
        match self {
            Kind::Ext4 => 24 << 20,
            Kind::Xfs => 300 << 20,
        }
    }

    /// Nothing is left to be initialised in the background, and the log is small, so that an image mounts fast.
    fn make(self, device: &Path) -> Command {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Kind::Ext4 => command.args([
                "-q",
                "-F",
                "-b",
                "4096",
                "-J",
                "size=4",
                "-N",
                "256",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
            ]),
            Kind::Xfs => command.args(["-q", "-f", "-K"]),
        };
        command.arg(device);
        command
    }
}

impl Machine {
    /// Sets everything up below `dir`.
    pub(crate) fn new(kind: Kind, dir: &Path) -> io::Result<Machine> {
        let (exported, root) = (dir.join("exported"), dir.join("mounted"));
        fs::create_dir(&exported)?;
        fs::create_dir(&root)?;
        let disk = SharedDisk::new(kind.bytes());
        let session = export(&disk, &exported)?;
        let device = LoopDevice::attach(&exported.join(FILE_NAME))?;
        run(&mut kind.make(&device.0))?;
        let blank = disk.lock().image();
        Ok(Machine {
            kind,
            disk,
            blank,
            root,
            device,
            _export: session,
        })
    }

    /// Puts `image` into the disk and mounts it: here the kernel replays the file system's own journal.
    pub(crate) fn mount(&self, image: Image, options: &str) -> io::Result<Mounted> {
        self.disk.lock().load(image);
        let options = CString::new(options)?;
        mount(
            &self.device.0,
            &self.root,
            self.kind.name(),
            MountFlags::NOATIME,
            options.as_c_str(),
        )?;
        Ok(Mounted {
            root: self.root.clone(),
        })
    }
}

impl Mounted {
    /// Writes everything back, as the kernel does on its own now and then.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs::File::open(&self.root)?)?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            match unmount(&self.root, UnmountFlags::empty()) {
                Err(Errno::BUSY) => std::thread::yield_now(),
                Ok(()) => return,
                Err(error) => {
                    eprintln!("cannot unmount {}: {error}", self.root.display());
                    return;
                }
            }
        }
        eprintln!("{} is busy; unmounted lazily", self.root.display());
        let _ = unmount(&self.root, UnmountFlags::DETACH);
    }
}

impl LoopDevice {
    /// Another process may take the free device between the question for it and the use of it.
    fn attach(file: &Path) -> io::Result<LoopDevice> {
        let mut last = io::Error::other("never tried");
        for _ in 0..20 {
            let mut command = Command::new("losetup");
            command.args(["--find", "--show", "--direct-io=on"]).arg(file);
            match run(&mut command) {
                Ok(device) => return Ok(LoopDevice(PathBuf::from(device.trim()))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("losetup").arg("--detach").arg(&self.0)) {
            eprintln!("cannot detach {}: {error}", self.0.display());
        }
    }
}

/// The output of a command that must succeed.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{command:?}: {text}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Unmounting right after a process has let go of its files may find it busy for a moment.
const TRIES: u32 = 100_000;
