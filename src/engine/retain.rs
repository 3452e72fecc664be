//! Which snapshots an opening may fall back to: they decide how far the log is purged, and which older ones go.
//!
//! Nothing of this is believed without reading. Snapshots share chunks, so one bit may spoil all of them, and a chunk that was good a day ago
//! may have rotted since. So before anything goes, the snapshot behind which the log will begin is read as a whole, past the cache: as long as
//! it stands, it and the log are the state, whatever becomes of the newer ones.

use std::collections::BTreeSet;

use super::report::EngineReport;
use crate::error::{Error, ErrorKind, Result};
use crate::mutant::{Rule, removed};
use crate::snapshot::{Pace, Snapshot, SnapshotId, Store};
use crate::sync::Mutex;
use crate::types::{EntryId, LogKey};

/// Snapshots that are nothing to fall back to, as opening and checkpoints of this life have seen.
#[derive(Debug, Default)]
pub(super) struct Unsound(Mutex<BTreeSet<SnapshotId>>);

impl Unsound {
    /// Those which opening could not restore.
    pub(super) fn new(report: &EngineReport) -> Unsound {
        let refused = report.refused.iter().map(|(snapshot, _)| snapshot.id);
        Unsound(Mutex::new(refused.collect()))
    }

    pub(super) fn has(&self, store: &Store, id: SnapshotId) -> bool {
        self.0.lock().contains(&id) || store.is_damaged(id)
    }

    fn note(&self, id: SnapshotId) {
        self.0.lock().insert(id);
    }

    /// It was written anew, and read back.
    pub(super) fn forget(&self, id: SnapshotId) {
        self.0.lock().remove(&id);
    }
}

/// The snapshots of one log, as a checkpoint sees them.
pub(super) struct Retention<'a> {
    pub(super) store: &'a Store,
    pub(super) key: LogKey,
    /// How many are kept.
    pub(super) retain: usize,
    pub(super) unsound: &'a Unsound,
    pub(super) pace: Option<Pace>,
}

/// What [`Retention::thin_out`] did.
#[derive(Debug, Default)]
pub(super) struct Thinned {
    /// What the oldest snapshot that stays covers, if there are as many sound ones as are to be kept.
    pub(super) oldest: Option<EntryId>,
    pub(super) removed: usize,
    pub(super) not_freed: Option<Error>,
}

impl Retention<'_> {
    /// The snapshots of entries up to `reached`, the newest first. One that was received and lies ahead is of a state that nobody has here: it
    /// takes nobody's place, and no log goes because of it.
    fn behind(&self, reached: EntryId) -> Result<Vec<Snapshot>> {
        let mut behind = self.store.list_of(self.key)?;
        if !removed(Rule::AheadIsNotCounted) {
            behind.retain(|one| one.covers <= reached && one.covers.index <= reached.index);
        }
        Ok(behind)
    }

    /// The newest of them that is not known to be damaged.
    pub(super) fn newest(&self, reached: EntryId) -> Result<Option<Snapshot>> {
        let mut behind = self.behind(reached)?.into_iter();
        Ok(behind.find(|one| removed(Rule::DamagedIsTakenAnew) || !self.unsound.has(self.store, one.id)))
    }

    /// Removes the snapshots that are older than the newest `retain` sound ones, of which the oldest is read first; nothing while there are
    /// fewer. One that is pinned or being read stays, and keeps the log behind it.
    pub(super) fn thin_out(&self, reached: EntryId) -> Result<Thinned> {
        let behind = self.behind(reached)?;
        let Some(oldest) = self.oldest(&behind)? else {
            return Ok(Thinned::default());
        };
        let mut done = Thinned {
            oldest: Some(behind[oldest].covers),
            ..Thinned::default()
        };
        for snapshot in &behind[oldest + 1..] {
            match self.store.remove(snapshot.id) {
                Ok(collected) => {
                    done.removed += 1;
                    done.not_freed = collected.kept_because.or(done.not_freed);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Busy => {
                    if !self.unsound.has(self.store, snapshot.id) {
                        done.oldest = done.oldest.min(Some(snapshot.covers));
                    }
                }
                // What stays takes space; what is kept was read, and the log may go on its account.
                Err(error) => done.not_freed = Some(error),
            }
        }
        if let Some(error) = &done.not_freed {
            tracing::warn!(key = %self.key, %error, "the space of older snapshots was not freed");
        }
        Ok(done)
    }

    /// The place of the oldest one that is kept, if there are so many sound ones. It was read; what that finds may spoil others, too, which
    /// are then looked at anew.
    fn oldest(&self, behind: &[Snapshot]) -> Result<Option<usize>> {
        loop {
            let sound = |one: &Snapshot| !self.unsound.has(self.store, one.id);
            let mut places = (0..behind.len()).filter(|n| sound(&behind[*n]));
            let Some(oldest) = places.nth(self.retain - 1) else {
                return Ok(None);
            };
            if removed(Rule::FallbackIsRead) {
                return Ok(Some(oldest));
            }
            let id = behind[oldest].id;
            let wrong = match self.store.check(id, self.pace.clone()) {
                Ok(None) => return Ok(Some(oldest)),
                Ok(Some(error)) => error,
                Err(error) if error.kind() == ErrorKind::NotFound => error,
                Err(error) => return Err(error),
            };
            tracing::warn!(key = %self.key, %id, error = %wrong, "a snapshot is nothing to fall back to");
            self.unsound.note(id);
        }
    }
}
