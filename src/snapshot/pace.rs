//! Long reads and writes that leave room at the disk for those who wait for it.
//!
//! A disk serves what it is given. Handed 64 MiB to sync, or asked for 8 MiB ahead of a reader, it lets the sync of one page wait
//! until it is through. So the work is cut into pieces, each of which is done before the next one is asked for, and for as long as somebody
//! else is at work there is a rest after each. A busy disk makes the pieces slow, and so the rests long. Whoever syncs a page then meets
//! a piece once in a while, and seldom enough that one sync of a hundred takes hardly longer than without.

use std::fmt;
use std::time::Duration;

use crate::sync::plain::{AtomicU64, Ordering};
use crate::sync::{Arc, Instant, thread};

/// How gently a snapshot is written and read.
#[derive(Clone)]
pub(crate) struct Pace {
    busy: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Nanoseconds.
    rested: Arc<AtomicU64>,
}

/// Written and synced at once. The sync of a file that grows takes some writes of its own, which smaller pieces would need as well.
pub(super) const WRITE_BYTES: usize = 256 << 10;
/// Read at once: without such company smaller ones keep others waiting for less.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Rest for each unit of time that a piece took.
const WRITE_REST: u32 = 8;
const READ_REST: u32 = 4;
/// However slow a piece was.
const REST_MAX: Duration = Duration::from_millis(250);

impl Pace {
    /// Rests as long as `busy`, which is asked after each piece, says that others have been at work since it was asked before.
    pub(crate) fn yielding(busy: impl Fn() -> bool + Send + Sync + 'static) -> Pace {
        Pace {
            busy: Arc::new(busy),
            rested: Arc::default(),
        }
    }

    /// Writes and syncs a piece, and rests.
    pub(super) fn write<T>(&self, work: impl FnOnce() -> T) -> T {
        self.piece(WRITE_REST, work)
    }

    /// Reads a piece, and rests.
    pub(super) fn read<T>(&self, work: impl FnOnce() -> T) -> T {
        self.piece(READ_REST, work)
    }

    fn piece<T>(&self, rest: u32, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        if let Some(rest) = self.rest_after(started.elapsed(), rest) {
            let started = Instant::now();
            thread::sleep(rest);
            let rested = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.rested.fetch_add(rested, Ordering::Relaxed);
        }
        done
    }

    /// How long all rests were so far, those of its clones included.
    pub(crate) fn rested(&self) -> Duration {
        Duration::from_nanos(self.rested.load(Ordering::Relaxed))
    }

    /// Whether others have been at work since this was asked before.
    pub(crate) fn is_busy(&self) -> bool {
        (self.busy)()
    }

    /// How long to rest after a piece that took so long.
    fn rest_after(&self, took: Duration, rest: u32) -> Option<Duration> {
        self.is_busy().then(|| (took * rest).min(REST_MAX))
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Fault, FaultFs, Fs, Op, Profile, Rule, SimFs};
    use crate::snapshot::cut::tests::state;
    use crate::snapshot::{Draft, Store, StoreConfig};
    use crate::{EntryId, LogKey};
    use std::io::Write;

    const MILLI: Duration = Duration::from_millis(1);

    fn pace(busy: bool) -> Pace {
        Pace::yielding(move || busy)
    }

    #[test]
    fn a_rest_is_some_times_as_long_as_the_piece_while_others_are_at_work() {
        assert_eq!(pace(true).rest_after(MILLI * 3, 5), Some(MILLI * 15));
        assert_eq!(pace(true).rest_after(Duration::from_secs(9), 5), Some(REST_MAX));
        assert_eq!(pace(false).rest_after(MILLI * 3, 5), None);
    }

    #[test]
    fn rests_are_counted_by_all_clones() {
        let [idle, busy] = [false, true].map(pace);
        idle.write(|| ());
        assert_eq!(idle.rested(), Duration::ZERO);
        busy.write(|| ());
        let written = busy.rested();
        assert!(written > Duration::ZERO);
        busy.clone().read(|| ());
        assert!(busy.rested() > written);
    }

    /// A state whose chunks are larger than a piece, and how it is stored.
    fn stored(pace: Option<Pace>) -> (FaultFs, Store, crate::snapshot::SnapshotId) {
        let disk: Arc<dyn Fs> = Arc::new(SimFs::new(1, Profile::Ext4));
        let fs = FaultFs::new(disk);
        let config = StoreConfig::new().chunk_bytes(1 << 20, 1 << 20, 1 << 20);
        let store = Store::open_on(Arc::new(fs.clone()), config).expect("the store opens");
        fs.clear();
        let mut creation = store
            .create(Draft::new(LogKey(1), EntryId::new(1, 1)).paced(pace))
            .expect("a creation");
        creation.write_all(&state(4 << 20)).expect("the state is written");
        let id = creation.commit().expect("the snapshot is committed").snapshot.id;
        (fs, store, id)
    }

    #[test]
    fn a_paced_creation_syncs_and_rests_after_each_piece() {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let counting = Pace::yielding(move || {
            count.fetch_add(1, Ordering::Relaxed);
            false
        });
        let (gentle, store, id) = stored(Some(counting.clone()));
        let (pieces, reads) = [WRITE_BYTES, READ_BYTES]
            .map(|bytes| (4 << 20) / bytes as u64)
            .into();
        let rests = asked.swap(0, Ordering::Relaxed);
        assert!(
            rests >= pieces + reads,
            "written and read back: {rests} for {pieces} pieces and {reads}"
        );
        assert!(store.check(id, Some(counting)).expect("it is there").is_none());
        assert_eq!(asked.load(Ordering::Relaxed), reads);
        let (at_once, ..) = stored(None);
        let more = gentle.count(Op::SyncData) - at_once.count(Op::SyncData);
        assert!(
            (pieces - 2..=pieces).contains(&more),
            "{more} for {pieces} pieces"
        );
    }

    #[test]
    fn a_piece_that_does_not_sync_ends_the_creation() {
        let disk: Arc<dyn Fs> = Arc::new(SimFs::new(1, Profile::Ext4));
        let fs = FaultFs::new(disk);
        let store = Store::open_on(Arc::new(fs.clone()), StoreConfig::new()).expect("the store opens");
        let mut creation = store
            .create(Draft::new(LogKey(1), EntryId::new(1, 1)).paced(Some(pace(false))))
            .expect("a creation");
        let failing = fs.add(Rule::on(Op::SyncData, Fault::io_error()).path(".pack"));
        let failed = creation
            .write_all(&state(6 << 20))
            .and_then(|()| Ok(creation.commit()?));
        assert!(failed.is_err());
        assert_eq!(
            (failing.fired(), failing.matched()),
            (1, 1),
            "it is not synced again"
        );
        assert!(store.list().expect("the store lists").is_empty());
    }
}
