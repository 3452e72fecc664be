//! Small file systems of one's own: tmpfs, and ext4 in a loop device. Root only. Unmounted when dropped, after a panic as well.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tmpfs,
    Ext4,
}

pub(crate) struct Mount {
    /// Holds the image and the mount point; anybody may pass through it.
    root: TempDir,
    device: Option<String>,
    mounted: bool,
}

/// Whether mounting is asked for and possible; says so, if not.
pub(crate) fn is_allowed() -> bool {
    let asked = std::env::var("EVERLOG_ROOT").is_ok_and(|value| value == "1");
    let root = asked && run("id", &["-u"]).is_ok_and(|id| id == "0");
    if !root {
        println!("skipped: this mounts file systems; as root, with EVERLOG_ROOT=1, it runs");
    }
    root
}

/// Runs a program; what it printed, or how it failed.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("{program} {args:?}: {}: {said}", output.status))
    }
}

impl Mount {
    /// A file system of `bytes`.
    pub(crate) fn new(kind: Kind, bytes: u64) -> Mount {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut mount = Mount {
            root,
            device: None,
            mounted: false,
        };
        fs::create_dir(mount.path()).unwrap();
        let point = mount.path().display().to_string();
        match kind {
            Kind::Tmpfs => {
                let size = format!("size={bytes},mode=755");
                run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &point]).unwrap();
            }
            Kind::Ext4 => {
                let image = mount.root.path().join("image");
                File::create(&image).unwrap().set_len(bytes).unwrap();
                let image = image.display().to_string();
                run("mkfs.ext4", &["-q", "-F", "-m", "0", &image]).unwrap();
                let device = attach(&image);
                mount.device = Some(device.clone());
                run("mount", &["-t", "ext4", &device, &point]).unwrap();
            }
        }
        mount.mounted = true;
        mount
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("disk")
    }

    /// Mounts it anew with these options.
    pub(crate) fn remount(&self, options: &str) {
        let point = self.path().display().to_string();
        run("mount", &["-o", &format!("remount,{options}"), &point]).unwrap();
    }

    /// A file that takes what is left, to the last byte.
    pub(crate) fn ballast(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for len in [64 << 10, 4 << 10, 1] {
            let bytes = vec![7; len];
            loop {
                match file.write(&bytes).and_then(|_| file.sync_all()) {
                    Ok(()) => {}
                    Err(e) if e.kind() == ErrorKind::StorageFull => break,
                    Err(e) => panic!("{}: {e}", path.display()),
                }
            }
        }
        path
    }
}

/// Attaches a loop device. Another one may take the free one first, and then it is tried again.
fn attach(image: &str) -> String {
    let mut last = String::new();
    for _ in 0..10 {
        match run("losetup", &["-f", "--show", image]) {
            Ok(device) => return device,
            Err(error) => last = error,
        }
    }
    panic!("{last}");
}

impl Drop for Mount {
    fn drop(&mut self) {
        let point = self.path().display().to_string();
        if self.mounted
            && let Err(error) = run("umount", &[&point]).or_else(|_| run("umount", &["-l", &point]))
        {
            eprintln!("{error}");
        }
        if let Some(device) = &self.device
            && let Err(error) = run("losetup", &["-d", device])
        {
            eprintln!("{error}");
        }
    }
}

/// Bytes that a user may still write below `path`.
pub(crate) fn free(path: &Path) -> u64 {
    let said = run("df", &["--output=avail", "-B1", &path.display().to_string()]).unwrap();
    said.lines().last().unwrap().trim().parse().unwrap()
}
