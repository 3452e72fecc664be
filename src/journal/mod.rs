//! The journal: all segments of a directory, one writer, many logs.
//!
//! ```text
//!  caller: check, sequence, push       leader: encode, write, sync           later
//!  [core lock] ------> queue ------> [writer lock] ------> segment file ---> settle [core lock], wake
//! ```
//!
//! Lock order: `shutting`, then `reclaiming`, `writer`, `core`, the pool's `maker` and `state`, the queue, the bound; the other locks are
//! leaves (tests/shuttle watches it). No lock but `writer` (and `maker`, for files to come) is held across a system call that writes or syncs.

mod admit;
mod background;
mod batch;
mod carry;
mod commit;
mod completions;
mod create;
mod files;
mod floor;
mod group;
mod handle;
mod hold;
mod marks;
mod open;
mod prepare;
mod queue;
pub(crate) mod read;
pub(crate) mod recover;
mod rehome;
mod report;
mod room;
mod sequence;
pub(crate) mod state;
mod ticket;

use std::collections::BTreeMap;
use std::fmt;

pub use self::batch::{Refused, WriteBatch, Written};
pub(crate) use self::batch::{What, Write};
#[cfg(feature = "snapshot")]
pub(crate) use self::completions::{inside_callback, inside_waker, panic_text, wake};
pub use self::floor::Reclaimed;
pub use self::handle::Journal;
#[cfg(feature = "snapshot")]
pub(crate) use self::hold::{HELD_CELL, Holder, Holding};
pub use self::report::{Cut, Finding, FindingKind, OpenReport, Verdict};
pub use self::room::{Permit, Room};
pub use self::ticket::Ticket;

use self::background::Backstage;
use self::batch::Op;
use self::commit::Writer;
use self::completions::Completions;
use self::prepare::Pool;
use self::queue::{Flush, Queue};
use self::room::Bound;
use self::state::Logs;
use self::ticket::Driver;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{End, IndexBuilder, Kind};
use crate::fs::{Fs, Lock};
use crate::metrics::Counters;
use crate::segment::Segment;
use crate::segment::cache::BlockCache;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, CachePadded, Instant, Mutex};

/// Names a journal, for ever: drawn when it was created, and written in every opening.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            if matches!(n, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What all handles and threads of an open journal share.
pub(crate) struct Shared {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) config: Config,
    pub(crate) uuid: Uuid,
    pub(crate) report: OpenReport,
    pub(crate) counters: Counters,
    pub(crate) core: CachePadded<Mutex<Core>>,
    pub(crate) cache: BlockCache,
    align_shift: u16,
    /// What a segment keeps free for its closing mark.
    mark_room: u64,
    writer: CachePadded<Mutex<Writer>>,
    queue: CachePadded<Queue<Write>>,
    pool: Pool,
    bound: Arc<Bound>,
    completions: Completions,
    backstage: Backstage,
    /// `close` was called, or the last handle dropped: not even reads.
    shut: AtomicBool,
    /// Held while the journal shuts down; `close` waits for whoever else does it.
    shutting: Mutex<()>,
    reclaiming: Mutex<()>,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// What sequencing changes; held for microseconds, never across a system call that writes.
pub(crate) struct Core {
    pub(crate) logs: Logs,
    /// Numbers operations, so that an entry is told from a later one with its index.
    serial: u64,
    /// Why nothing more is accepted.
    pub(crate) closed: Option<Error>,
    /// Admitted writes that no sync has covered.
    unwritten: usize,
    /// Room in the last segment that admitted writes will reach. Invariant: the commit is never behind it.
    room: u64,
    /// The reserve stood when it was last looked at, and only appends took files since.
    reserve_stands: bool,
    /// The floor that a sync covered.
    pub(crate) floor: u64,
    /// Segments with a durable opening, from the floor on.
    pub(crate) chain: BTreeMap<u64, Arc<Segment>>,
    /// When the chain has so many segments the floor is looked at without a purge, too: cells that are set again and again, and
    /// lives that write little, must not fill the disk.
    pub(crate) reclaim_at: usize,
}

/// Work that no caller waits for.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Write the index of a sealed segment.
    Index {
        segment: Arc<Segment>,
        builder: IndexBuilder,
        end: End,
    },
    /// Write an index that recovery had to rebuild.
    Rebuilt {
        segment: Arc<Segment>,
        bytes: bytes::Bytes,
    },
    /// Remove files that an opening of this life superseded.
    Remove(Vec<String>),
}

/// So many segments are not worth a look.
const RECLAIM_SEGMENTS_MIN: usize = 8;

impl Core {
    /// Says when the floor is to be looked at again, after it was.
    fn look_again(&mut self) {
        self.reclaim_at = (self.chain.len() * 2).max(RECLAIM_SEGMENTS_MIN);
    }

    /// What recovery found, with no room given out.
    fn new(logs: Logs, floor: u64, chain: &[Arc<Segment>]) -> Core {
        let chain = chain
            .iter()
            .map(|segment| (segment.id, Arc::clone(segment)))
            .collect();
        Core {
            logs,
            serial: 0,
            closed: None,
            unwritten: 0,
            reclaim_at: RECLAIM_SEGMENTS_MIN,
            room: 0,
            reserve_stands: false,
            floor,
            chain,
        }
    }

    /// A sync covered `op`, whose frame stands at `header_at` of `segment`.
    fn settle(&mut self, op: &Op, segment: &Arc<Segment>, header_at: u64) {
        let Some(log) = self
            .logs
            .get_mut(op.log)
            .filter(|log| log.incarnation == op.incarnation)
        else {
            return;
        };
        match op.kind {
            Kind::Append => log.settle(op.index, op.serial, segment, header_at),
            Kind::Cell => {
                if let Some(cell) = log
                    .cells
                    .get_mut(&op.cell)
                    .filter(|cell| cell.serial == op.serial)
                {
                    cell.place = Some((Arc::clone(segment), header_at));
                }
            }
            Kind::Create => log.identity_at = segment.id,
            Kind::Purge => log.purged_at = segment.id,
            Kind::Facts | Kind::Reset => {
                log.identity_at = segment.id;
                log.purged_at = segment.id;
            }
            _ => {}
        }
    }
}

impl Shared {
    /// `Closed` once the journal was shut: then it is not even read.
    pub(crate) fn check_readable(&self) -> Result<()> {
        if self.shut.load(Ordering::Acquire) {
            return Err(closed_by_owner());
        }
        Ok(())
    }
}

impl Flush<Write> for Shared {
    fn flush(&self, items: Vec<Write>, sync: bool) -> Result<()> {
        self.commit(items, sync)
    }
}

impl Driver for Shared {
    fn wait(&self, group: &Arc<group::Group>, deadline: Option<Instant>) -> Option<Result<()>> {
        let outcome = self.queue.wait(group, self, deadline);
        if let Some(finished) = group.finished() {
            self.counters.wake.record(finished.elapsed());
        }
        outcome
    }

    fn nudge(&self) {
        if self.bound.has_waiters() {
            self.backstage.sync_wanted.store(true, Ordering::Release);
            self.backstage.committer.wake();
        }
        self.queue.nudge();
    }
}

pub(crate) fn closed_by_owner() -> Error {
    Error::new(ErrorKind::Closed, "the journal was closed")
}
