//! Long reads and writes that leave room at the disk for those who wait for it.
//!
//! A disk serves what it is given. Handed 64 MiB to sync, or asked for 8 MiB ahead of a reader, it lets the sync of one page wait
//! until it is through. So the work is cut into pieces, each of which is done before the next one is asked for, and for as long as somebody
//! else is at work there is a rest after each. A busy disk makes the pieces slow, and so the rests long.

use std::fmt;
use std::time::Duration;

use crate::sync::{Arc, Instant, thread};

/// How gently a snapshot is written and read.
#[derive(Clone)]
pub(crate) struct Pace {
    busy: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// What a disk does in about a millisecond.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Rest for each unit of time that a piece took.
const REST: u32 = 2;
/// However slow a piece was.
const REST_MAX: Duration = Duration::from_millis(100);

impl Pace {
    /// Rests as long as `busy`, which is asked after each piece, says that others have been at work since it was asked before.
    pub(crate) fn yielding(busy: impl Fn() -> bool + Send + Sync + 'static) -> Pace {
        Pace { busy: Arc::new(busy) }
    }

    /// Does a piece, and rests.
    pub(super) fn piece<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        if let Some(rest) = self.rest_after(started.elapsed()) {
            thread::sleep(rest);
        }
        done
    }

    /// Whether others have been at work since this was asked before.
    pub(crate) fn is_busy(&self) -> bool {
        (self.busy)()
    }

    /// How long to rest after a piece that took so long.
    fn rest_after(&self, took: Duration) -> Option<Duration> {
        self.is_busy().then(|| (took * REST).min(REST_MAX))
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
    use crate::sync::plain::{AtomicU64, Ordering};
    use crate::{EntryId, LogKey};
    use std::io::Write;

    const MILLI: Duration = Duration::from_millis(1);

    fn pace(busy: bool) -> Pace {
        Pace::yielding(move || busy)
    }

    #[test]
    fn a_rest_is_twice_as_long_as_the_piece_while_others_are_at_work() {
        assert_eq!(pace(true).rest_after(MILLI * 3), Some(MILLI * 6));
        assert_eq!(pace(true).rest_after(Duration::from_secs(9)), Some(REST_MAX));
        assert_eq!(pace(false).rest_after(MILLI * 3), None);
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
        let pieces = (4 << 20) / PIECE_BYTES as u64;
        let rests = asked.swap(0, Ordering::Relaxed);
        assert!(
            rests >= 2 * pieces,
            "written and read back: {rests} for {pieces} pieces"
        );
        assert!(store.check(id, Some(counting)).expect("it is there").is_none());
        assert_eq!(asked.load(Ordering::Relaxed), pieces);
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
