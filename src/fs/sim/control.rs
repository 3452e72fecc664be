//! What a test does to the simulated disk: crash it, kill the process, break it, look at it. None of this counts as a
//! call, and all of it works on the handle of a process that is dead.

use super::content::BLOCK;
use super::crash::{Choice, crash};
use super::random::{Random, hash, mix};
use super::seeded::crash_by_seed;
use super::state::{Power, State, SyncPlan, Target};
use super::{Kept, Profile, SimFs};
use crate::sync::{Arc, Mutex};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Duration;

/// A sync that has been called and has not returned; see [`SimFs::begin_sync`]. Dropped without an end, it has done
/// nothing.
#[derive(Debug)]
#[must_use = "a sync that is not finished does nothing"]
pub struct PendingSync {
    fs: SimFs,
    inode: u64,
    path: String,
    through: u64,
}

impl SimFs {
    /// An empty disk with sectors of 512 bytes. Everything random about it comes from `seed`.
    pub fn new(seed: u64, profile: Profile) -> SimFs {
        SimFs::with_sector_bytes(seed, profile, 512)
    }

    /// The same with sectors of `sector_bytes`.
    ///
    /// # Panics
    ///
    /// If that is not a power of two from 512 to 4096.
    pub fn with_sector_bytes(seed: u64, profile: Profile, sector_bytes: u64) -> SimFs {
        assert!(
            sector_bytes.is_power_of_two() && (512..=BLOCK).contains(&sector_bytes),
            "a sector has 512, 1024, 2048 or 4096 bytes, not {sector_bytes}"
        );
        SimFs::from_state(State::new(seed, profile, sector_bytes))
    }

    pub(super) fn from_state(state: State) -> SimFs {
        SimFs {
            life: state.life,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A power cut: a new disk with one legal outcome, chosen by `seed`. This one stays as it is, so that many outcomes
    /// of the same moment can be looked at.
    #[must_use]
    pub fn crash(&self, seed: u64) -> SimFs {
        let mut state = self.state.lock();
        state.look_at_all();
        SimFs::from_state(crash_by_seed(&state, seed))
    }

    /// A power cut whose outcome `pick` chooses: it answers each [`Choice`] with an option, in an order that depends only
    /// on the disk and on the answers given before. An answer that is too high counts as the last option. `pick` must not use
    /// this disk: it is locked meanwhile.
    #[must_use]
    pub fn crash_with(&self, pick: &mut dyn FnMut(Choice<'_>) -> usize) -> SimFs {
        let mut state = self.state.lock();
        state.look_at_all();
        SimFs::from_state(crash(&state, pick))
    }

    /// Visits every outcome of a power cut, at most `limit` of them. Returns how many it visited, and whether that was
    /// all.
    ///
    /// ```
    /// use everlog::fs::{Fs, Profile, SimFs};
    ///
    /// let disk = SimFs::new(1, Profile::PosixWeak);
    /// disk.create("new")?;
    /// let mut seen = Vec::new();
    /// let (count, all) = disk.each_crash(100, &mut |after| seen.push(after.files().len()));
    /// assert_eq!((count, all, seen), (2, true, vec![0, 1]));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn each_crash(&self, limit: u64, visit: &mut dyn FnMut(SimFs)) -> (u64, bool) {
        let mut script: Vec<(usize, usize)> = Vec::new();
        for count in 0..limit {
            let mut asked = 0;
            let after = self.crash_with(&mut |choice| {
                if asked == script.len() {
                    script.push((0, choice.options));
                }
                asked += 1;
                script[asked - 1].0
            });
            visit(after);
            while script
                .pop_if(|(answer, options)| *answer + 1 == *options)
                .is_some()
            {}
            match script.last_mut() {
                Some((answer, _)) => *answer += 1,
                None => return (count + 1, true),
            }
        }
        (limit, false)
    }

    /// `kill -9`: this process and all its handles are dead (their calls fail, their locks are free). Returns the handle
    /// of the next process on the same disk, which sees everything that was written; what was pending is still pending.
    #[must_use]
    pub fn kill(&self) -> SimFs {
        let life = self.state.lock().next_life();
        SimFs {
            state: self.state.clone(),
            life,
        }
    }

    /// What [`kill`](SimFs::kill) would leave, on a disk of its own: what was pending is still pending there. This one stays
    /// as it is, and its process lives on, so that many outcomes of the same moment can be looked at.
    #[must_use]
    pub fn fork(&self) -> SimFs {
        let mut state = self.state.lock().clone();
        state.watch = None;
        state.next_life();
        state.forget_unreachable();
        SimFs::from_state(state)
    }

    /// After `calls` further calls that change or sync something, the power goes off: every call fails with EIO. A write
    /// that meets this moment may leave whole pages from its beginning on. [`crash`](SimFs::crash) or
    /// [`kill`](SimFs::kill) come next.
    pub fn stop_after(&self, calls: u64) {
        self.state.lock().power = Power::OffAfter(calls);
    }

    /// The power goes off now.
    pub fn stop_now(&self) {
        self.state.lock().power = Power::Off;
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.state.lock().power == Power::Off
    }

    /// How many calls have changed or synced something since the disk was new; crashes and kills do not reset it.
    pub fn ops(&self) -> u64 {
        self.state.lock().op
    }

    /// Begins a sync of the file at `path` that covers the writes that have returned so far, and ends when the caller
    /// says. Several may overlap.
    pub fn begin_sync(&self, path: &str) -> io::Result<PendingSync> {
        self.call(|state| {
            let inode = state.file(path)?;
            Ok(PendingSync {
                fs: self.clone(),
                inode,
                path: path.to_string(),
                through: state.op,
            })
        })
    }

    /// Makes a later sync fail with EIO, once: the one after `spare` successful ones, of files whose path contains `part`.
    pub fn fail_sync(&self, part: &str, spare: u64, kept: Kept) {
        let target = Target::File(part.to_string());
        self.state.lock().plans.push(SyncPlan { target, spare, kept });
    }

    /// The same for the directory at exactly `path`. What is [`Undecided`](Kept::Undecided) is drawn from the seed when
    /// it fails.
    pub fn fail_sync_dir(&self, path: &str, spare: u64, kept: Kept) {
        let target = Target::Dir(path.to_string());
        self.state.lock().plans.push(SyncPlan { target, spare, kept });
    }

    /// The system fails to write the pending data of the file at `path` back on its own: the next sync that ends tells it,
    /// once.
    pub fn fail_writeback(&self, path: &str, kept: Kept) -> io::Result<()> {
        let mut state = self.state.lock();
        let (id, through) = (state.file(path)?, state.op);
        state.look_at_file(id);
        state.fail(id, through, kept);
        state.inode_mut(id)?.late_error = true;
        Ok(())
    }

    /// Makes reads of `sectors` (offsets divided by the sector size) of the file fail with EIO, or no longer.
    pub fn set_unreadable(&self, path: &str, sectors: Range<u64>, unreadable: bool) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.file(path)?;
        let bad = &mut state.inode_mut(id)?.bad;
        if unreadable {
            bad.extend(sectors);
        } else {
            bad.retain(|sector| !sectors.contains(sector));
        }
        Ok(())
    }

    /// Sets the size of the disk in bytes; writes that need more blocks than that are cut short or fail with ENOSPC.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = bytes;
    }

    /// Moves the clock.
    pub fn advance(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut state = self.state.lock();
        state.clock = state.clock.saturating_add(micros);
    }

    /// Fills `range` of the file with garbage, at rest: on the medium and in memory.
    pub fn corrupt(&self, path: &str, range: Range<u64>, seed: u64) -> io::Result<()> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        self.write_raw(path, range.start, &Random::new(mix(seed)).bytes(len))
    }

    /// Flips bit `bit` (0..8) of the byte at `offset`, at rest.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u32) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.file(path)?;
        state.look_at_file(id);
        let inode = state.inode_mut(id)?;
        if offset >= inode.visible_len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let byte = inode.visible.bytes(offset..offset + 1)[0];
        inode.damage(offset, &[byte ^ (1u8 << (bit % 8))]);
        Ok(())
    }

    /// Replaces bytes at rest, past all rules; the file grows where needed.
    pub fn write_raw(&self, path: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.file(path)?;
        state.look_at_file(id);
        state.inode_mut(id)?.damage(offset, bytes);
        Ok(())
    }

    /// The whole visible content of a file, past all faults.
    pub fn read_raw(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        let id = state.file(path)?;
        state.look_at_file(id);
        let inode = state.inode(id)?;
        Ok(inode.visible.bytes(0..inode.visible_len))
    }

    /// All visible files with their sizes, by path.
    pub fn files(&self) -> BTreeMap<String, u64> {
        let mut state = self.state.lock();
        let files = state.files().into_iter();
        files
            .filter_map(|(path, id)| Some((path, state.len(id).ok()?)))
            .collect()
    }

    /// All visible files with their contents, by path.
    pub fn dump(&self) -> BTreeMap<String, Vec<u8>> {
        let paths = self.files().into_keys();
        paths
            .filter_map(|path| Some((path.clone(), self.read_raw(&path).ok()?)))
            .collect()
    }

    /// A hash of all visible names, sizes and bytes, by which equal images are recognised.
    pub fn digest(&self) -> u64 {
        let mut state = self.state.lock();
        state.look_at_all();
        state.files().iter().fold(0, |sum, (path, id)| {
            let inode = state.inodes.get(id);
            let sum = mix(sum ^ hash(0, path.as_bytes())) ^ inode.map_or(0, |inode| inode.visible_len);
            let blocks = inode.into_iter().flat_map(|inode| inode.visible.numbered());
            // A block of zeros and an absent one are the same image.
            let filled = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
            filled.fold(mix(sum), |sum, (number, block)| {
                mix(sum ^ mix(number) ^ hash(0, &block[..]))
            })
        })
    }

    /// The rules that it plays by.
    pub fn profile(&self) -> Profile {
        self.state.lock().profile
    }

    /// Sector size in bytes.
    pub fn sector_bytes(&self) -> u64 {
        self.state.lock().sector
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl PendingSync {
    /// The sync returns: what it covers and nobody else has dealt with is durable, unless a planned fault is due.
    pub fn finish(self) -> io::Result<()> {
        self.fs
            .call(|state| state.sync(self.inode, &self.path, self.through))
    }

    /// The sync returns an error, which nobody else is told: an overlapping one may say Ok for the same bytes.
    pub fn fail(self, kept: Kept) -> io::Error {
        let failed = self.fs.call(|state| {
            state.reach()?;
            Ok(state.fail(self.inode, self.through, kept))
        });
        failed.unwrap_or_else(|e| e)
    }
}
