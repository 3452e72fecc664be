//! What no caller waits for: flushing submitted tickets, syncing relaxed writes, marks, files to come, indexes, freeing space. Done by
//! two threads, or by the caller in `Journal::work`.

use std::io;
use std::time::Duration;

use super::commit::Writer;
use super::completions::inside_callback;
use super::marks::Mark;
use super::{Chore, Shared, closed_by_owner};
use crate::config::Background;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::File;
use crate::mutant::{Rule, removed};
use crate::segment::{IndexBytes, Segment};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Instant, Mutex, SegQueue, Signal};

/// A sync that takes longer is reported while it still runs.
const SYNC_HANGS: Duration = Duration::from_secs(5);
/// How often a running sync is looked at.
const SYNC_WATCH: Duration = Duration::from_millis(10);
/// How often a full disk is tried again.
const FULL_DISK_RETRY: Duration = Duration::from_millis(200);

/// What the threads of the journal, and whoever needs them, share.
pub(super) struct Backstage {
    pub(super) committer: Arc<Signal>,
    pub(super) preparer: Signal,
    chores: SegQueue<Chore>,
    /// The floor may have room to rise.
    reclaim_due: AtomicBool,
    /// It could not: to be tried again when there is one file more.
    reclaim_failed: AtomicBool,
    activity: Mutex<Activity>,
    /// The committer sleeps, perhaps longer than what a commit makes due: whoever commits wakes it.
    asleep: AtomicBool,
    /// Somebody waits for in-flight room that relaxed writes hold.
    pub(super) sync_wanted: AtomicBool,
    stopping: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// When what happened last, for marks and relaxed writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activity {
    last: Instant,
    unsynced_since: Option<Instant>,
    marked: bool,
    mark_synced: bool,
    /// Since when a sync runs, and whether it was reported as hanging.
    syncing: Option<(Instant, bool)>,
}

impl Backstage {
    /// With nothing to do but `chores`.
    pub(super) fn new(chores: impl IntoIterator<Item = Chore>) -> Backstage {
        let activity = Activity {
            last: Instant::now(),
            unsynced_since: None,
            marked: true,
            mark_synced: true,
            syncing: None,
        };
        let queue = SegQueue::new();
        chores.into_iter().for_each(|chore| queue.push(chore));
        Backstage {
            committer: Arc::new(Signal::new()),
            preparer: Signal::new(),
            chores: queue,
            reclaim_due: AtomicBool::new(false),
            reclaim_failed: AtomicBool::new(false),
            activity: Mutex::new(activity),
            asleep: AtomicBool::new(false),
            sync_wanted: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
        }
    }
}

/// Starts the threads, if the settings ask for them.
pub(super) fn start(shared: &Arc<Shared>) -> Result<()> {
    if shared.config.background == Background::Caller {
        return Ok(());
    }
    let committer = Arc::clone(shared);
    let preparer = Arc::clone(shared);
    let mut threads = shared.backstage.threads.lock();
    let io = |e| Error::io(shared.fs.display(""), "start a thread", e);
    threads.push(thread::spawn("everlog-commit", move || committer.committer_loop()).map_err(io)?);
    threads.push(thread::spawn("everlog-prepare", move || preparer.preparer_loop()).map_err(io)?);
    Ok(())
}

impl Shared {
    fn committer_loop(&self) {
        while !self.backstage.stopping.load(Ordering::Acquire) {
            let led = self.queue.lead(self);
            let seen = self.backstage.activity.lock().stamp();
            let now = Instant::now();
            // Between the groups, too: a stream of relaxed writes that never pauses must not put off the sync of the first of them.
            let deadline = self.tend(now);
            if led {
                continue;
            }
            // What a commit makes due comes after one of these; a later deadline must not be slept through.
            let near = self.config.relaxed_delay.min(self.config.mark_delay);
            if deadline.is_none_or(|at| at.saturating_duration_since(now) > near) {
                self.backstage.asleep.store(true, Ordering::SeqCst);
                if self.backstage.activity.lock().stamp() != seen {
                    self.backstage.asleep.store(false, Ordering::SeqCst);
                    continue;
                }
            }
            self.backstage.committer.wait(deadline);
        }
    }

    fn preparer_loop(&self) {
        while !self.backstage.stopping.load(Ordering::Acquire) {
            while self.maintain() {}
            let retry = self.pool.is_full().then(|| Instant::now() + FULL_DISK_RETRY);
            self.backstage.preparer.wait(retry);
        }
    }

    /// After a commit: what is unsynced and unmarked, for the committer.
    pub(super) fn committed(&self, writer: &Writer) {
        // What failed for good waits for no sync.
        let unsynced = !writer.is_settled() && !writer.has_failed();
        {
            let mut activity = self.backstage.activity.lock();
            let now = Instant::now();
            activity.last = now;
            activity.marked = false;
            activity.mark_synced = false;
            activity.unsynced_since = if unsynced {
                Some(activity.unsynced_since.unwrap_or(now))
            } else {
                None
            };
        }
        self.rouse();
    }

    /// Wakes the committer if it may sleep too long.
    fn rouse(&self) {
        if self.backstage.asleep.swap(false, Ordering::SeqCst) {
            self.backstage.committer.wake();
        }
    }

    /// Syncs a segment, watched by the committer.
    pub(super) fn sync_watched(&self, file: &dyn File) -> io::Result<()> {
        let started = Instant::now();
        self.backstage.activity.lock().syncing = Some((started, false));
        self.rouse();
        let synced = file.sync_data();
        self.backstage.activity.lock().syncing = None;
        self.counters.sync.record(started.elapsed());
        synced
    }

    /// Does what is due at `now`; returns when something will be, `None` if nothing.
    fn tend(&self, now: Instant) -> Option<Instant> {
        let activity = *self.backstage.activity.lock();
        if let Some((started, told)) = activity.syncing {
            if !told && now >= started + SYNC_HANGS {
                self.counters.syncs_hung.add(1);
                tracing::error!(
                    seconds = SYNC_HANGS.as_secs(),
                    "a sync has not returned; the disk may hang"
                );
                if let Some((_, told)) = &mut self.backstage.activity.lock().syncing {
                    *told = true;
                }
            }
            // Whatever else is due would wait for it, and nobody would watch.
            return Some(now + SYNC_WATCH);
        }
        let since = activity
            .unsynced_since
            .filter(|_| !removed(Rule::RelaxedDelaySync));
        // A wish that comes before the write that it is about is kept for it.
        let wanted = since.is_some() && self.backstage.sync_wanted.swap(false, Ordering::AcqRel);
        let mut next: Option<Instant> = None;
        let mut due = |from: Instant, delay: Duration| {
            // A delay beyond the end of the clock is never over.
            let Some(at) = from.checked_add(delay) else {
                return false;
            };
            let is_due = now >= at;
            if !is_due {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
            is_due
        };
        if since.is_some_and(|since| due(since, self.config.relaxed_delay) || wanted) {
            // The outcome is the writers' own, and theirs was that the write was taken; a failure closes the journal.
            if let Err(error) = self.sync_written() {
                tracing::error!(%error, "relaxed writes could not be synced");
            }
            return Some(now);
        }
        // Said before it is done: a commit beside it, which the mark may not cover, says otherwise.
        if !activity.marked && due(activity.last, self.config.mark_delay) {
            self.backstage.activity.lock().marked = true;
            self.mark(Mark::Idle);
            return Some(now);
        }
        if !activity.mark_synced && due(activity.last, self.config.mark_sync_delay) {
            {
                let mut activity = self.backstage.activity.lock();
                activity.marked = true;
                activity.mark_synced = true;
            }
            self.mark(Mark::Synced);
            return Some(now);
        }
        next
    }

    /// One step of maintenance; true if there was one.
    fn maintain(&self) -> bool {
        if let Some(chore) = self.backstage.chores.pop() {
            self.run_chore(chore);
            return true;
        }
        if self.backstage.reclaim_due.swap(false, Ordering::AcqRel) {
            if let Err(error) = self.reclaim() {
                tracing::warn!(%error, "no segment could be freed");
                self.backstage.reclaim_failed.store(true, Ordering::Release);
            }
            return true;
        }
        match self.pool.step() {
            Ok(made) => {
                if made {
                    self.reclaim_again();
                }
                made
            }
            Err(error) => {
                tracing::debug!(%error, "no segment could be prepared");
                false
            }
        }
    }

    pub(super) fn add_chore(&self, chore: Chore) {
        self.backstage.chores.push(chore);
        self.backstage.preparer.wake();
    }

    /// Removes what the opening that carried a tail superseded, before `open` returns: a process that is killed again and
    /// again before it does anything else must not leave a segment each time.
    pub(super) fn remove_superseded(&self) {
        let chores: Vec<Chore> = std::iter::from_fn(|| self.backstage.chores.pop()).collect();
        for chore in chores {
            match chore {
                Chore::Remove(_) => self.run_chore(chore),
                later => self.backstage.chores.push(later),
            }
        }
    }

    /// Sees in the background whether the floor can rise.
    pub(super) fn reclaim_later(&self) {
        if !self.backstage.reclaim_due.swap(true, Ordering::AcqRel) {
            self.backstage.preparer.wake();
        }
    }

    /// A file was made: what the full disk kept from being freed may go now. Whoever purged does not ask again.
    pub(super) fn reclaim_again(&self) {
        if self.backstage.reclaim_failed.swap(false, Ordering::AcqRel) {
            self.reclaim_later();
        }
    }

    /// What a life carried has its witness, which is not synced: in time that follows, though nothing is written any more.
    pub(super) fn carried(&self) {
        let mut activity = self.backstage.activity.lock();
        activity.last = Instant::now();
        activity.mark_synced = removed(Rule::CarriedMarkSync);
    }

    fn run_chore(&self, chore: Chore) {
        match chore {
            Chore::Index {
                segment,
                builder,
                end,
            } => {
                let bytes = bytes::Bytes::from(builder.finish(end));
                segment.seal(end, IndexBytes::Memory(bytes.clone()));
                self.write_index(&segment, &bytes);
                if let Some(covered) = crate::segment::index::coverage(&bytes) {
                    self.core.lock().logs.adopt_blocks(segment.id, &covered);
                }
            }
            Chore::Rebuilt { segment, bytes } => self.write_index(&segment, &bytes),
            Chore::Remove(names) => self.remove_files(&names),
        }
    }

    /// Writes the index of a sealed segment. Not synced: a bad one is found by its checksum and built again.
    fn write_index(&self, segment: &Segment, bytes: &bytes::Bytes) {
        let temporary = format!("{}/{:016x}.tmp-idx", super::files::JOURNAL, segment.id);
        let path = Segment::index_name(segment.id);
        let written = self.fs.create(&temporary).and_then(|file| {
            file.write_all_at(bytes, 0)?;
            self.fs.rename(&temporary, &path)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                if let Some(end) = segment.end() {
                    segment.seal(end, IndexBytes::File(file));
                }
                // Whoever takes a segment out of the chain removes its index, if there is one already.
                if !self.core.lock().chain.contains_key(&segment.id) {
                    self.remove_index(segment.id);
                }
            }
            Err(error) => {
                tracing::debug!(segment = segment.id, %error, "an index could not be written; it stays in memory");
                if let Err(error) = self.fs.remove(&temporary) {
                    tracing::trace!(%error, "nor removed");
                }
            }
        }
    }

    /// Everything that is pending, done by the caller; true if there was anything. For `Background::Caller`.
    pub(crate) fn work(&self) -> Result<bool> {
        if self.config.background == Background::Threads {
            let text = "the journal has threads of its own; open it with Background::Caller to do its work";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if self.check_readable().is_err() && !removed(Rule::ClosedMakesNothing) {
            return Ok(self.completions.run_pending());
        }
        let mut any = self.queue.lead(self);
        if self.backstage.activity.lock().unsynced_since.is_some() {
            self.sync_written()?;
            any = true;
        }
        while self.maintain() {
            any = true;
        }
        let unmarked = !std::mem::replace(&mut self.backstage.activity.lock().marked, true);
        any |= unmarked && self.mark(Mark::Idle);
        any |= self.completions.run_pending();
        Ok(any)
    }

    /// Closes the journal: takes nothing more, finishes everything, says so in a closing mark, lets go of the directory.
    pub(crate) fn shut(&self) -> Result<()> {
        // In a callback nobody may be waited for: the one who shuts down waits for the callbacks.
        let shutting = match inside_callback() {
            true => self.shutting.try_lock(),
            false => Some(self.shutting.lock()),
        };
        let Some(_shutting) = shutting else { return Ok(()) };
        {
            let mut core = self.core.lock();
            core.closed.get_or_insert_with(closed_by_owner);
            // Under the lock of the core: whoever was let in before is drained below.
            if self.shut.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
        }
        self.bound.close(closed_by_owner());
        self.queue.drain(self);
        let synced = if removed(Rule::CloseSync) {
            Ok(())
        } else {
            self.sync_written()
        };
        self.backstage.stopping.store(true, Ordering::Release);
        self.backstage.committer.wake();
        self.backstage.preparer.wake();
        let threads = std::mem::take(&mut *self.backstage.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal panicked");
            }
        }
        while let Some(chore) = self.backstage.chores.pop() {
            self.run_chore(chore);
        }
        self.mark(Mark::Closing);
        if !inside_callback() || self.config.background == Background::Threads {
            self.completions.shutdown();
        }
        // Callers that still make files or free segments must be done before the directory is another life's.
        drop(self.reclaiming.lock());
        self.pool.close();
        *self.lock.lock() = None;
        tracing::info!(dir = %self.fs.display("").display(), "the journal was closed");
        synced
    }
}

impl Activity {
    /// Changes with each commit and each sync.
    fn stamp(&self) -> (Instant, Option<Instant>) {
        (self.last, self.syncing.map(|(started, _)| started))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
