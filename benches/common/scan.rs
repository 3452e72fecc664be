//! The floor of recovery and of reads: the bytes of a journal's segments read in order, or here and there, and their CRC.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use everlog::{Config, Journal};

use super::Random;

const WINDOW: usize = 1 << 20;

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("journal")).expect("a journal");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a directory that lists").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    paths.sort();
    paths
}

/// Reads the segments of the journal at `dir` in order, up to `limit` bytes: CRC-32 of them all.
pub(crate) fn read_and_crc(dir: &Path, limit: u64) -> u32 {
    read_each(dir, limit, &mut |_| {})
}

/// The same, and hands each piece that was read to `each`.
pub(crate) fn read_each(dir: &Path, limit: u64, each: &mut dyn FnMut(&[u8])) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    let mut window = vec![0; WINDOW];
    let mut left = limit;
    for path in segments(dir) {
        let mut file = File::open(path).expect("a segment").take(left);
        loop {
            let got = file.read(&mut window).expect("a segment that reads");
            if got == 0 {
                break;
            }
            crc.update(&window[..got]);
            each(&window[..got]);
            left -= got as u64;
        }
    }
    crc.finalize()
}

/// Reads of `size` bytes at random places of the first segment, with their CRC.
pub(crate) struct Places {
    file: File,
    buffer: Vec<u8>,
    random: Random,
    limit: u64,
}

impl Places {
    pub(crate) fn new(dir: &Path, size: usize) -> Places {
        let first = &segments(dir)[0];
        let file = File::open(first).expect("a segment");
        let len = file.metadata().expect("a segment has a size").len();
        Places {
            file,
            buffer: vec![0; size],
            random: Random(7),
            limit: len - size as u64,
        }
    }

    pub(crate) fn read(&mut self) -> u32 {
        let at = self.random.below(self.limit);
        self.file
            .read_exact_at(&mut self.buffer, at)
            .expect("a segment that reads");
        crc32fast::hash(&self.buffer)
    }
}

/// How long it takes to open the journal at `dir`; it is closed again outside that time.
pub(crate) fn time_open(dir: &Path, config: &Config) -> Duration {
    let start = Instant::now();
    let journal = Journal::open(dir, config.clone()).expect("the journal opens");
    let elapsed = start.elapsed();
    journal.close().expect("the journal closes");
    elapsed
}
