//! The preparer: names and zeros ahead of need, so that a commit waits for neither.
//!
//! A file is created under a name that means nothing (`<n>.tmp`), written full of zeros, synced, and renamed to `<n>.spare`. One
//! spare is given the next segment's name ahead of time, and the directory is synced: from then on a commit may write to it. A
//! segment id that has been overtaken by a larger one is never used: its file goes back to the spares. Ids so rise along the chain.
//!
//! Zeros are written, not merely allocated: a write into allocated space makes each later sync commit file-system metadata.
//!
//! The *reserve* is one spare that appends never take and one that is large enough for whatever a crash may leave to be carried.
//! With them a full disk still opens, sets cells, truncates, purges and deletes.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use super::files;
use crate::error::{Error, ErrorKind, Result};
use crate::format::BATCHES_AT;
use crate::fs::{File, Fs};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::sync::{Arc, Mutex, MutexGuard};

/// What a segment keeps free at its end for the closing mark: its block, and what fills up to it.
pub(crate) const MARK_ROOM: u64 = 4096 + 96;
/// Spares kept for operations that free space, beside those for appends.
const RESERVE_FILES: usize = 1;

/// A zeroed file; its name is known to the directory as it is.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) path: String,
    pub(crate) file: Arc<dyn File>,
    pub(crate) len: u64,
}

/// Zeroed files and the names of segments to come.
#[derive(Debug)]
pub(crate) struct Pool {
    fs: Arc<dyn Fs>,
    segment_bytes: u64,
    mark_room: u64,
    ahead: usize,
    state: Mutex<State>,
    /// Held by whoever makes or names a file. Taken before `state`.
    maker: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Named `.seg` and synced in the directory: the next segment.
    named: Option<(u64, Prepared)>,
    /// Of the usual size.
    spares: VecDeque<Prepared>,
    /// For entries larger than a segment: made, and spoken for in the order of their writes.
    large: Vec<Prepared>,
    large_claimed: VecDeque<Prepared>,
    /// For a tail to be carried.
    carry: Option<Prepared>,
    /// Left-overs that nothing will use.
    surplus: Vec<String>,
    /// Files on their way between the two, while the disk renames them: whoever asks meanwhile must not find one missing.
    moving: usize,
    /// How many of `named`, `spares` and `moving` are spoken for by admitted writes.
    claimed: usize,
    /// Size that `carry` must have.
    carry_len: u64,
    next_id: u64,
    next_number: u64,
    /// The disk was full at the last attempt.
    full: bool,
    /// The journal was closed, and perhaps opened again by somebody else.
    closed: bool,
}

/// Which file a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// One of the usual size, out of those for appends.
    Usual,
    /// One of the usual size, the reserve included.
    Reserve,
    /// One of its own, of at least this many bytes.
    Large(u64),
}

impl Pool {
    /// Takes over what earlier lives prepared, as far as it can be used; ids and numbers continue above all seen.
    pub(crate) fn new(fs: Arc<dyn Fs>, sizes: Sizes, found: Found) -> Pool {
        let mut spares = VecDeque::new();
        let mut others = Vec::new();
        for spare in found.spares {
            if spare.len == sizes.segment_bytes && spares.len() < sizes.ahead + RESERVE_FILES {
                spares.push_back(spare);
            } else {
                others.push(spare);
            }
        }
        let largest = (0..others.len()).max_by_key(|at| others[*at].len);
        let carry = largest.map(|at| others.swap_remove(at));
        let mut surplus = found.surplus;
        surplus.extend(others.into_iter().map(|file| file.path));
        let state = State {
            named: None,
            spares,
            large: Vec::new(),
            large_claimed: VecDeque::new(),
            carry,
            surplus,
            moving: 0,
            claimed: 0,
            carry_len: sizes.carry_len,
            next_id: found.next_id,
            next_number: found.next_number,
            full: false,
            closed: false,
        };
        Pool {
            fs,
            segment_bytes: sizes.segment_bytes,
            mark_room: sizes.mark_room,
            ahead: sizes.ahead,
            state: Mutex::new(state),
            maker: Mutex::new(()),
        }
    }

    /// Bytes of batches that a file of the usual size holds.
    pub(crate) fn usual_room(&self) -> u64 {
        self.segment_bytes - BATCHES_AT - self.mark_room
    }

    /// Speaks for a file; false if there is none to speak for.
    pub(crate) fn claim(&self, need: Need) -> bool {
        let mut state = self.state.lock();
        let reserve = if removed(Rule::ReserveSpare) {
            0
        } else {
            RESERVE_FILES
        };
        let spoken = match need {
            Need::Usual => state.free() > reserve && state.carry_is_ready(),
            Need::Reserve => state.free() > 0,
            Need::Large(len) => {
                let at = state.large.iter().position(|file| file.len >= len);
                let file = at.map(|at| state.large.swap_remove(at));
                let found = file.is_some();
                state.large_claimed.extend(file);
                return found;
            }
        };
        state.claimed += usize::from(spoken);
        spoken
    }

    /// Takes back the last claim, which was for `need`: the write has no effect.
    pub(crate) fn unclaim(&self, need: Need) {
        let mut state = self.state.lock();
        if let Need::Large(_) = need {
            let file = state.large_claimed.pop_back();
            state.large.extend(file);
        } else {
            state.claimed = state.claimed.saturating_sub(1);
        }
    }

    /// The same, and nothing was freed since that would do for a file.
    pub(crate) fn has_no_room(&self) -> bool {
        let (full, len) = {
            let state = self.state.lock();
            (state.full, self.segment_bytes.max(state.carry_len))
        };
        full && !self.fs.space().is_ok_and(|space| space.free >= len)
    }

    /// Whether everything that appends never take is there.
    pub(crate) fn reserve_stands(&self) -> bool {
        let state = self.state.lock();
        state.free() >= RESERVE_FILES && state.carry_is_ready()
    }

    /// Whether a file stands ready for whatever must be carried or re-homed.
    pub(crate) fn carry_stands(&self) -> bool {
        self.state.lock().carry_is_ready()
    }

    /// Forgets every claim: all admitted writes have their place.
    pub(crate) fn settle_claims(&self) {
        let mut state = self.state.lock();
        state.claimed = 0;
        let unused = std::mem::take(&mut state.large_claimed);
        state.large.extend(unused);
    }

    /// The disk was full when a file was last asked for.
    pub(crate) fn is_full(&self) -> bool {
        self.state.lock().full
    }

    /// Sees to it that a file for a tail of `bytes` stands ready, from now on. If there is no room for it, all is as before:
    /// what is smaller still goes in.
    pub(crate) fn make_carry(&self, bytes: u64) -> Result<()> {
        let len = carry_file_len(bytes);
        let _maker = self.making()?;
        if self.state.lock().carry.as_ref().is_none_or(|c| c.len < len) {
            let made = self.make(len)?;
            self.replace_carry(made);
        }
        let mut state = self.state.lock();
        state.carry_len = state.carry_len.max(len);
        Ok(())
    }

    /// Nothing is made or named any more: the directory may be another life's. Waits for whoever does it now.
    pub(crate) fn close(&self) {
        let _maker = self.maker.lock();
        self.state.lock().closed = true;
    }

    fn making(&self) -> Result<MutexGuard<'_, ()>> {
        let maker = self.maker.lock();
        if self.state.lock().closed && !removed(Rule::ClosedMakesNothing) {
            return Err(super::closed_by_owner());
        }
        Ok(maker)
    }

    /// Makes one missing file, if any is missing; true if it made one. `NoSpace` if the disk is full.
    pub(crate) fn step(&self) -> Result<bool> {
        let _maker = self.making()?;
        let (want_carry, want_spare, want_name) = {
            let state = self.state.lock();
            let carry = !state.carry_is_ready();
            let spare = state.free() < self.ahead + RESERVE_FILES;
            (
                carry.then_some(state.carry_len),
                spare,
                state.named.is_none() && !state.spares.is_empty(),
            )
        };
        if want_name {
            return self.name_next().map(|()| true);
        }
        if want_spare {
            let made = self.make(self.segment_bytes)?;
            self.state.lock().spares.push_back(made);
            return Ok(true);
        }
        if let Some(len) = want_carry {
            let made = self.make(len)?;
            self.replace_carry(made);
            return Ok(true);
        }
        Ok(false)
    }

    /// Makes a file of `len` bytes for an entry larger than a segment.
    pub(crate) fn make_large(&self, len: u64) -> Result<()> {
        let _maker = self.making()?;
        if self.state.lock().large.iter().any(|file| file.len >= len) {
            return Ok(());
        }
        let made = self.make(len)?;
        self.state.lock().large.push(made);
        Ok(())
    }

    /// The file for the next segment, already named so and synced in the directory. Makes one if none is ready.
    pub(crate) fn take(&self, need: Need) -> Result<(u64, Prepared)> {
        let _maker = self.maker.lock();
        if let Need::Large(len) = need {
            let mut state = self.state.lock();
            let at = state.large_claimed.iter().position(|file| file.len >= len);
            let found = at.and_then(|at| state.large_claimed.remove(at));
            drop(state);
            let file = found.map_or_else(|| self.make(len), Ok)?;
            return self.name(file);
        }
        if self.state.lock().named.is_none() {
            if self.state.lock().spares.is_empty() {
                let made = self.make(self.segment_bytes)?;
                self.state.lock().spares.push_back(made);
            }
            self.name_next()?;
        }
        let mut state = self.state.lock();
        state.claimed = state.claimed.saturating_sub(1);
        let named = state.named.take();
        drop(state);
        named.ok_or_else(|| Error::new(ErrorKind::Busy, "no segment is ready"))
    }

    /// A file for an opening that carries `bytes`: the smallest that will do, made if there is none.
    pub(crate) fn take_for_carry(&self, bytes: u64) -> Result<(u64, Prepared)> {
        let len = carry_file_len(bytes);
        let _maker = self.maker.lock();
        let mut state = self.state.lock();
        let usual_fits = len <= self.segment_bytes && !state.spares.is_empty();
        let carry = state
            .carry
            .take_if(|c| c.len >= len && !(usual_fits && self.segment_bytes < c.len));
        let usual = if carry.is_none() && usual_fits {
            state.spares.pop_front()
        } else {
            None
        };
        drop(state);
        let file = carry.or(usual).map_or_else(|| self.make(len), Ok)?;
        self.name(file)
    }

    /// Gives the next segment's name to a spare, ahead of need. The caller holds `maker`.
    fn name_next(&self) -> Result<()> {
        let spare = {
            let mut state = self.state.lock();
            let Some(spare) = state.spares.pop_front() else {
                return Ok(());
            };
            state.moving += 1;
            spare
        };
        let named = self.name(spare);
        let mut state = self.state.lock();
        state.moving -= 1;
        state.named = Some(named?);
        Ok(())
    }

    /// Gives `file` the next segment's name, and the file that had it already a spare's: its id will never be used.
    fn name(&self, mut file: Prepared) -> Result<(u64, Prepared)> {
        let overtaken = self.retire_named();
        let id = {
            let mut state = self.state.lock();
            state.next_id += 1;
            state.next_id - 1
        };
        let path = Segment::name(id);
        let named = self.rename(&file.path, &path, Rule::NextNameSync);
        if let Err(e) = named {
            self.give_up(&[&file.path, &path]);
            overtaken.iter().for_each(|file| self.give_up(&[&file.path]));
            self.state.lock().moving -= overtaken.iter().len();
            return Err(Error::io(self.fs.display(&path), "name the next segment", e));
        }
        let mut state = self.state.lock();
        state.moving -= overtaken.iter().len();
        state.spares.extend(overtaken);
        drop(state);
        file.path = path;
        Ok((id, file))
    }

    /// Renames a file, and syncs its name as `rule` asks.
    fn rename(&self, from: &str, to: &str, rule: Rule) -> io::Result<()> {
        self.fs.rename(from, to)?;
        if removed(rule) {
            return Ok(());
        }
        self.fs.sync_dir(files::JOURNAL)
    }

    /// After a failed sync of the directory what it covered may be forgotten for good, whatever a later sync says: the file under
    /// these names may come back under another one, and stand under two if it got a third. It is not used again; it holds nothing,
    /// and goes.
    fn give_up(&self, names: &[&str]) {
        if !removed(Rule::FileIsOneSegment) {
            names.iter().for_each(|path| self.remove(path));
        }
    }

    /// Makes removals durable. Not beside somebody who names a file: the failure of a sync is told once, and it must be told to whoever
    /// goes on to use the name.
    pub(crate) fn sync_removals(&self) -> io::Result<()> {
        let _maker = self.maker.lock();
        self.fs.sync_dir(files::JOURNAL)
    }

    /// Takes the name from the segment that is overtaken; the sync of the directory is the caller's.
    fn retire_named(&self) -> Option<Prepared> {
        if removed(Rule::IdsRise) {
            return None;
        }
        let mut state = self.state.lock();
        let (_, mut file) = state.named.take()?;
        state.moving += 1;
        let path = state.number("spare");
        drop(state);
        let renamed = self.fs.rename(&file.path, &path);
        file.path = path;
        if renamed.is_err() {
            self.state.lock().moving -= 1;
        }
        renamed.is_ok().then_some(file)
    }

    /// A zeroed, synced file of `len` bytes under a spare's name. The caller holds `maker`.
    fn make(&self, len: u64) -> Result<Prepared> {
        let temporary = self.state.lock().number("tmp");
        let result = self.zeroed(&temporary, len);
        let mut state = self.state.lock();
        let file = match result {
            Ok(file) => file,
            Err(error) => {
                state.full = error.kind() == ErrorKind::NoSpace;
                drop(state);
                self.remove(&temporary);
                return Err(error);
            }
        };
        state.full = false;
        let path = state.number("spare");
        drop(state);
        let renamed = self.rename(&temporary, &path, Rule::SpareNameSync);
        if let Err(e) = renamed {
            self.give_up(&[&temporary, &path]);
            return Err(Error::io(self.fs.display(&path), "name a spare file", e));
        }
        Ok(Prepared { path, file, len })
    }

    fn zeroed(&self, path: &str, len: u64) -> Result<Arc<dyn File>> {
        let io = |doing: &'static str| move |e| Error::io(self.fs.display(path), doing, e);
        let file = self.fs.create(path).map_err(io("create a segment file"))?;
        write_zeros(&*file, 0..len).map_err(io("fill a segment file with zeros"))?;
        if !removed(Rule::SpareSync) {
            file.sync_data().map_err(io("sync a zeroed file"))?;
        }
        Ok(file)
    }

    fn replace_carry(&self, made: Prepared) {
        let old = self.state.lock().carry.replace(made);
        if let Some(old) = old {
            self.remove(&old.path);
        }
    }

    /// Removes what earlier lives prepared and this one has no use for: other sizes, or more than it keeps.
    pub(crate) fn remove_surplus(&self) {
        let surplus = std::mem::take(&mut self.state.lock().surplus);
        surplus.iter().for_each(|path| self.remove(path));
    }

    /// Removes a file that never held data.
    fn remove(&self, path: &str) {
        if let Err(error) = self.fs.remove(path) {
            tracing::debug!(path, %error, "a spare file could not be removed");
        }
    }
}

impl State {
    /// Files that nobody has spoken for.
    fn free(&self) -> usize {
        (self.spares.len() + self.moving + usize::from(self.named.is_some())).saturating_sub(self.claimed)
    }

    /// A file stands ready for whatever a crash may leave to be carried.
    fn carry_is_ready(&self) -> bool {
        removed(Rule::CarryFile) || self.carry.as_ref().is_some_and(|c| c.len >= self.carry_len)
    }

    fn number(&mut self, extension: &str) -> String {
        self.next_number += 1;
        format!("{}/{}.{extension}", files::JOURNAL, self.next_number - 1)
    }
}

/// Settings of a [`Pool`], in bytes and files.
#[derive(Debug)]
pub(crate) struct Sizes {
    pub(crate) segment_bytes: u64,
    pub(crate) mark_room: u64,
    pub(crate) ahead: usize,
    pub(crate) carry_len: u64,
}

/// What `open` found of an earlier life's preparations.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) spares: Vec<Prepared>,
    pub(crate) surplus: Vec<String>,
    pub(crate) next_id: u64,
    pub(crate) next_number: u64,
}

/// Fills `range` of a new file with zeros that are written: space that is only allocated makes each later sync commit
/// what the file system knows of it, and may turn out not to be there.
pub(super) fn write_zeros(file: &dyn File, range: Range<u64>) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    if removed(Rule::WrittenZeros) {
        return file.set_len(range.end);
    }
    let mut at = range.start;
    while at < range.end {
        let step = usize::try_from(range.end - at)
            .unwrap_or(ZEROS.len())
            .min(ZEROS.len());
        file.write_all_at(&ZEROS[..step], at)?;
        at += step as u64;
    }
    Ok(())
}

/// Length of a file for an opening that carries a batch of `bytes`, with room for marks behind it.
pub(crate) fn carry_file_len(bytes: u64) -> u64 {
    (BATCHES_AT + bytes + 2 * MARK_ROOM).next_multiple_of(4096)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
