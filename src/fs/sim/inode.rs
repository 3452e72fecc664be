//! One simulated file: what every reader sees, what a power cut is sure to leave, and the changes between the two.

use super::Kept;
use super::content::{BLOCK, Content, as_len};
use super::lazy::Unseen;
use crate::sync::Arc;
use std::collections::{BTreeMap, BTreeSet};

/// Invariant: replaying `pending` over `durable` gives `visible`, until a sync has failed (`diverged`).
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Content,
    pub(super) durable_len: u64,
    pub(super) visible: Content,
    pub(super) visible_len: u64,
    /// Since the last sync, in order.
    pub(super) pending: Vec<Pending>,
    pub(super) limbo: Limbo,
    /// Sectors whose reading fails.
    pub(super) bad: BTreeSet<u64>,
    /// How many visible names it has.
    pub(super) names: u64,
    /// How many handles are open.
    pub(super) handles: u64,
    /// Not synced since it was created.
    pub(super) fresh: bool,
    /// A background write-back failed and no sync has told it yet.
    pub(super) late_error: bool,
    /// What is visible may differ from durable-plus-pending: a sync has failed since the last evict.
    pub(super) diverged: bool,
    /// What is still open since a power cut; a file of which that is anything has nothing to be read there.
    pub(super) unseen: Unseen,
}

/// One change that no sync has covered.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Number of the call that made it.
    pub(super) op: u64,
    pub(super) change: Change,
    /// The size after it, where it changed.
    pub(super) len: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Whole sectors from `offset` on, as they were after the write.
    Write { offset: u64, bytes: Arc<[u8]> },
    /// The file ends at `to`; what was behind is zero should it grow again. The zeroed rest of its last block (whole sectors,
    /// from the one with the end on) is data like any other: it may be on the disk before the size.
    Cut { to: u64, rest: Arc<[u8]> },
    /// Only the size.
    Grow,
}

/// What a failed sync has marked clean although it may not be durable: a later sync says nothing about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Limbo {
    /// The contents of each sector, with the call that wrote each.
    pub(super) sectors: BTreeMap<u64, Vec<Lost>>,
    /// Sizes with the call that set each.
    pub(super) lens: Vec<(u64, u64)>,
    /// Sectors that a power cut left open, and no failed sync: all their contents count as durable ones.
    pub(super) left_open: BTreeSet<u64>,
}

impl Limbo {
    /// The file ends at `to`: what is behind it is lost for good, in the sector that holds the end, too.
    fn cut(&mut self, to: u64, sector: u64) {
        self.sectors.retain(|number, _| number * sector < to);
        for (_, data) in self.sectors.get_mut(&(to / sector)).into_iter().flatten() {
            let mut bytes = data.to_vec();
            bytes[as_len(to % sector)..].fill(0);
            *data = bytes.into();
        }
    }
}

/// A content and the call that wrote it.
pub(super) type Lost = (u64, Arc<[u8]>);

impl Inode {
    /// A file with nothing pending.
    pub(super) fn at_rest(content: Content, len: u64) -> Inode {
        Inode {
            durable: content.clone(),
            durable_len: len,
            visible: content,
            visible_len: len,
            ..Inode::default()
        }
    }

    /// What a power cut leaves as it is.
    pub(super) fn surviving(&self) -> Inode {
        if self.is_at_rest() {
            return Inode {
                bad: self.bad.clone(),
                ..Inode::at_rest(self.durable.clone(), self.durable_len)
            };
        }
        Inode {
            late_error: false,
            ..self.clone()
        }
    }

    /// Whether a power cut has nothing to decide.
    pub(super) fn is_at_rest(&self) -> bool {
        self.pending.is_empty() && self.limbo.sectors.is_empty() && self.limbo.lens.is_empty()
    }

    /// Sectors with pending writes.
    pub(super) fn written_sectors(&self, size: u64) -> BTreeSet<u64> {
        let writes = self.pending.iter().map(|pending| match &pending.change {
            Change::Write { offset, bytes } => (offset / size, bytes.len() as u64),
            Change::Cut { to, rest } => (to / size, rest.len() as u64),
            Change::Grow => (0, 0),
        });
        writes
            .flat_map(|(first, len)| first..first + len.div_ceil(size))
            .collect()
    }

    pub(super) fn write(&mut self, op: u64, sector: u64, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        self.visible.write(offset, bytes);
        let len = (end > self.visible_len).then_some(end);
        self.visible_len = self.visible_len.max(end);
        let start = offset / sector * sector;
        let bytes = self.visible.bytes(start..end.div_ceil(sector) * sector).into();
        self.pending.push(Pending {
            op,
            change: Change::Write { offset: start, bytes },
            len,
        });
    }

    pub(super) fn set_len(&mut self, op: u64, sector: u64, len: u64) {
        if len == self.visible_len {
            return;
        }
        let change = if len < self.visible_len {
            let end = self.visible_len.min(len.next_multiple_of(BLOCK));
            self.visible.clear_from(len);
            let sectors = len / sector * sector..end.next_multiple_of(sector);
            let rest = if len.is_multiple_of(BLOCK) {
                Arc::from([])
            } else {
                self.visible.bytes(sectors).into()
            };
            Change::Cut { to: len, rest }
        } else {
            Change::Grow
        };
        self.visible_len = len;
        self.pending.push(Pending {
            op,
            change,
            len: Some(len),
        });
    }

    /// Changes bytes at rest: on the medium and in every cached copy that is clean.
    pub(super) fn damage(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        self.durable.write(offset, bytes);
        self.visible.write(offset, bytes);
        self.durable_len = self.durable_len.max(end);
        self.visible_len = self.visible_len.max(end);
    }

    /// Whether a sync of everything up to `through` also changes metadata (a size, or the file itself).
    pub(super) fn changes_metadata(&self, through: u64) -> bool {
        self.fresh || self.pending.iter().any(|p| p.op <= through && p.len.is_some())
    }

    /// A sync that covers every call up to `through` succeeds.
    pub(super) fn persist(&mut self, through: u64, sector: u64) {
        for pending in self.take_covered(through) {
            self.settle(pending, sector);
        }
        self.fresh = false;
    }

    /// A sync that covers every call up to `through` fails: all is marked clean, and of the data durable is what `kept`
    /// says. Changes of the size alone are journalled by the file system and stay.
    pub(super) fn fail(&mut self, through: u64, kept: Kept, sector: u64) {
        self.diverged = true;
        for pending in self.take_covered(through) {
            match (&pending.change, kept) {
                (Change::Write { .. }, Kept::Nothing) => {}
                (Change::Write { offset, bytes }, Kept::Undecided) => {
                    let first = offset / sector;
                    for (number, data) in (first..).zip(bytes.chunks(as_len(sector))) {
                        let versions = self.limbo.sectors.entry(number).or_default();
                        versions.push((pending.op, data.into()));
                        self.limbo.left_open.remove(&number);
                    }
                    self.limbo.lens.extend(pending.len.map(|len| (pending.op, len)));
                }
                _ => self.settle(pending, sector),
            }
        }
    }

    /// Drops clean cached pages, so that a reader sees what is durable. Decides what a failed sync left open by `pick`
    /// (given a number of options).
    pub(super) fn evict(&mut self, sector: u64, pick: &mut dyn FnMut(usize) -> usize) {
        if !self.diverged {
            return;
        }
        for (number, versions) in std::mem::take(&mut self.limbo.sectors) {
            if let Some(chosen) = pick(versions.len() + 1).checked_sub(1) {
                self.durable
                    .write(number * sector, &versions[chosen.min(versions.len() - 1)].1);
            }
        }
        self.visible = self.durable.clone();
        for pending in &self.pending {
            match &pending.change {
                Change::Write { offset, bytes } => self.visible.write(*offset, bytes),
                Change::Cut { to, .. } => self.visible.clear_from(*to),
                Change::Grow => {}
            }
        }
        self.visible.clear_from(self.visible_len);
        self.diverged = false;
    }

    /// Reads what is visible; stops before a bad sector, and fails if it begins in one.
    pub(super) fn read(&self, sector: u64, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let left = as_len(self.visible_len.saturating_sub(offset));
        let mut len = buffer.len().min(left);
        if len == 0 {
            return Some(0);
        }
        let sectors = offset / sector..=(offset + len as u64 - 1) / sector;
        if let Some(bad) = self.bad.range(sectors).next() {
            len = as_len((bad * sector).checked_sub(offset).filter(|n| *n > 0)?);
        }
        self.visible.read(offset, &mut buffer[..len]);
        Some(len)
    }

    fn take_covered(&mut self, through: u64) -> Vec<Pending> {
        let count = self.pending.partition_point(|p| p.op <= through);
        let later = self.pending.split_off(count);
        std::mem::replace(&mut self.pending, later)
    }

    fn settle(&mut self, pending: Pending, sector: u64) {
        match pending.change {
            Change::Write { offset, bytes } => {
                self.durable.write(offset, &bytes);
                let first = offset / sector;
                let count = bytes.len() as u64 / sector;
                self.limbo
                    .sectors
                    .retain(|number, _| *number < first || *number >= first + count);
            }
            Change::Cut { to, .. } => {
                self.durable.clear_from(to);
                self.limbo.cut(to, sector);
            }
            Change::Grow => {}
        }
        if let Some(len) = pending.len {
            self.durable_len = len;
            self.limbo.lens.retain(|(op, _)| *op > pending.op);
        }
    }
}
