//! Admission: whatever is taken in has a place, in memory and on disk, before it gets a sequence.
//!
//! Memory: everything submitted and unsynced counts against the in-flight bound. Disk: the bytes, their padding, the remainder that a
//! rotation wastes, the opening and the mark come out of prepared, zero-written files, minus the reserve. `Core::room` follows the
//! position that the commit would reach if every admitted write became a batch of its own; the commit, which packs them, is never
//! behind it. A full disk is so met here, where nothing has happened yet.

use super::batch::{Refused, What, Write, WriteBatch, Written};
use super::commit::TERMS_MAX as OPS_MAX;
use super::completions::{inside_callback, inside_waker};
use super::group::Group;
use super::prepare::{MARK_ROOM, Need, carry_file_len};
use super::room::Permit;
use super::sequence;
use super::state::Logs;
use super::{Core, Shared};
use crate::config::Background;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BATCH_LEN_MAX, BATCHES_AT, FACTS_LEN, FLOOR_LEN, batch_len};
use crate::mutant::{Rule, removed};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Instant, MutexGuard};

/// How a batch is handed in.
#[derive(Debug)]
pub(crate) struct Manner {
    /// Durable, rather than only written.
    pub(crate) sync: bool,
    /// Refused rather than waited for.
    pub(crate) try_only: bool,
    /// Room that the caller holds already.
    pub(crate) permit: Option<Permit>,
}

impl Manner {
    pub(crate) const DURABLE: Manner = Manner {
        sync: true,
        try_only: false,
        permit: None,
    };
    pub(crate) const RELAXED: Manner = Manner {
        sync: false,
        try_only: false,
        permit: None,
    };
}

/// A batch that is on its way.
pub(crate) struct Admitted {
    pub(crate) written: Written,
    pub(crate) group: Arc<Group>,
    /// Nobody flushes: wait, or nudge.
    pub(crate) idle: bool,
}

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    /// A file for this write.
    File,
    /// The reserve, which comes first.
    Reserve,
}

/// What stood before a write was given its place, to be put back if the write has no effect.
struct Claimed {
    room: u64,
    reserve_stands: bool,
    file: Option<Need>,
}

impl Shared {
    /// Takes `batch` in: checks it, finds it room, gives it its place. On a refusal nothing has happened.
    pub(crate) fn admit(&self, batch: WriteBatch, mut manner: Manner) -> Result<Admitted, Refused> {
        if batch.is_empty() {
            let open = check_open(&self.core.lock());
            return match open {
                Ok(()) => {
                    let group = self.queue.ended_group();
                    Ok(Admitted {
                        written: Written::default(),
                        group,
                        idle: false,
                    })
                }
                Err(error) => Err(Refused { error, batch }),
            };
        }
        match self.admit_or(&batch, &mut manner) {
            Ok((core, charge, claimed)) => Ok(self.sequence(core, batch, charge, &claimed, manner.sync)),
            Err(error) => {
                if error.kind() == ErrorKind::NoSpace {
                    self.counters.appends_refused_no_space.add(1);
                }
                Err(Refused { error, batch })
            }
        }
    }

    /// Admits a write of the journal itself, which may use the reserve, and waits until it is durable.
    pub(crate) fn write_control(&self, batch: WriteBatch) -> Result<()> {
        let manner = if removed(Rule::FloorSync) {
            Manner::RELAXED
        } else {
            Manner::DURABLE
        };
        let admitted = self.admit(batch, manner).map_err(|refused| refused.error)?;
        self.queue.wait(&admitted.group, self, None).unwrap_or(Ok(()))
    }

    fn admit_or(
        &self,
        batch: &WriteBatch,
        manner: &mut Manner,
    ) -> Result<(MutexGuard<'_, Core>, u64, Claimed)> {
        self.check_sizes(batch)?;
        let appends = batch.ops.iter().any(|op| op.what.is_append());
        let mut charge = {
            let core = self.core.lock();
            check_open(&core)?;
            sequence::check(&core.logs, batch)?;
            self.estimate(&core.logs, batch)
        };
        if charge > self.config.in_flight_bytes && !removed(Rule::CarryFileGrows) {
            self.pool
                .make_carry(super::open::tail_max(&self.config, charge))?;
        }
        self.take_in_flight(charge, appends, manner)?;
        match self.take_place(batch, &mut charge, appends, manner.try_only) {
            Ok((core, claimed)) => Ok((core, charge, claimed)),
            Err(error) => {
                self.bound.give_back(charge);
                Err(error)
            }
        }
    }

    fn check_sizes(&self, batch: &WriteBatch) -> Result<()> {
        let (longest, limit) = (batch.longest(), self.config.max_entry_bytes);
        if longest > limit {
            let text = format!("an entry of {longest} bytes is larger than max_entry_bytes, {limit}");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let whole = batch_len(batch.len(), batch.len(), batch.bytes(), 12);
        if whole > BATCH_LEN_MAX / 4 || batch.len() > OPS_MAX {
            let text = format!(
                "a batch of {} operations and {} bytes is too large to be atomic: at most {} and about {}",
                batch.len(),
                batch.bytes(),
                OPS_MAX,
                BATCH_LEN_MAX / 4
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        Ok(())
    }

    /// Bytes on disk as a batch of its own, at most.
    fn estimate(&self, logs: &Logs, batch: &WriteBatch) -> u64 {
        let restated = |what: What, log| match what {
            What::RestateFacts => FACTS_LEN,
            What::Floor(_) => FLOOR_LEN,
            What::RestateCell(id) => logs
                .get(log)
                .and_then(|log| log.cells.get(&id))
                .and_then(|cell| cell.value.as_ref())
                .map_or(0, bytes::Bytes::len),
            _ => 0,
        };
        let more: usize = batch.ops.iter().map(|op| restated(op.what, op.log)).sum();
        batch_len(
            batch.len(),
            batch.len(),
            batch.bytes() + more as u64,
            self.align_shift,
        )
    }

    fn take_in_flight(&self, charge: u64, appends: bool, manner: &mut Manner) -> Result<()> {
        if let Some(permit) = manner.permit.take() {
            if !permit.is_of(&self.bound) {
                return Err(Error::new(ErrorKind::Invalid, "the permit is of another journal"));
            }
            if charge > permit.bytes() && !self.bound.try_take(charge - permit.bytes())? {
                let text = format!(
                    "the permit holds {} bytes; the batch takes {charge}",
                    permit.bytes()
                );
                return Err(Error::new(ErrorKind::Busy, text));
            }
            let held = permit.bytes();
            permit.redeem(charge.min(held));
            return Ok(());
        }
        if !appends {
            self.bound.force(charge);
            return Ok(());
        }
        if self.bound.try_take(charge)? {
            return Ok(());
        }
        if manner.try_only {
            return Err(Error::new(ErrorKind::Busy, "the in-flight bound is reached"));
        }
        if self.config.background == Background::Caller {
            return self.take_in_turn(charge);
        }
        self.bound.take_blocking(charge, &mut || {
            self.backstage.sync_wanted.store(true, Ordering::Release);
            self.backstage.committer.wake();
        })
    }

    /// Takes room without a thread to wait for: the caller flushes and syncs until there is some.
    fn take_in_turn(&self, charge: u64) -> Result<()> {
        while !self.bound.try_take(charge)? {
            check_open(&self.core.lock())?;
            if inside_waker() {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "no room for bytes in flight, and a waker cannot wait for it",
                ));
            }
            if self.bound.in_flight() == 0 {
                // All that is held is permits, perhaps by this very thread: no flush will ever give room back.
                self.bound.force(charge);
                return Ok(());
            }
            if !self.queue.lead(self) && self.sync_written().is_err() {
                // What failed is the writes that hold the room, and their outcome; this one never had a place.
                check_open(&self.core.lock())?;
            }
        }
        Ok(())
    }

    /// Finds `batch` its place on disk and returns with the core locked, so that it is sequenced there and then.
    fn take_place(
        &self,
        batch: &WriteBatch,
        charge: &mut u64,
        appends: bool,
        try_only: bool,
    ) -> Result<(MutexGuard<'_, Core>, Claimed)> {
        let restates = batch.ops.iter().any(|op| matches!(op.what, What::RestateCell(_)));
        loop {
            let mut core = self.core.lock();
            check_open(&core)?;
            sequence::check(&core.logs, batch)?;
            if restates && !removed(Rule::RestatedBytes) {
                // It says what the cells hold now, and they may have grown since the estimate.
                let now = self.estimate(&core.logs, batch);
                self.bound.force(now.saturating_sub(*charge));
                *charge = now.max(*charge);
            }
            let cost = *charge;
            let short = match self.claim(&mut core, cost, appends) {
                Ok(claimed) => return Ok((core, claimed)),
                Err(short) => short,
            };
            drop(core);
            if try_only {
                self.backstage.preparer.wake();
                let kind = if self.pool.has_no_room() {
                    ErrorKind::NoSpace
                } else {
                    ErrorKind::Busy
                };
                return Err(Error::new(kind, "no prepared segment has room"));
            }
            // The caller makes the missing file itself, or waits for whoever does: the one wait for the disk. Where nothing is
            // missing any more somebody else made it, and whoever comes first claims it.
            if short == Short::File && cost > self.pool.usual_room() {
                self.pool.make_large(carry_file_len(cost))?;
            } else if self.pool.step()? {
                self.reclaim_again();
            }
        }
    }

    fn claim(&self, core: &mut Core, cost: u64, appends: bool) -> Result<Claimed, Short> {
        // Recovery, or something that frees space, may have used the reserve: appends wait until it stands again, even where
        // the segment has room, and nothing else does.
        if appends && !core.reserve_stands && !removed(Rule::ReserveFirst) {
            core.reserve_stands = self.pool.reserve_stands();
            if !core.reserve_stands {
                return Err(Short::Reserve);
            }
        }
        let mut claimed = Claimed {
            room: core.room,
            reserve_stands: core.reserve_stands,
            file: None,
        };
        if cost <= core.room {
            core.room -= cost;
            return Ok(claimed);
        }
        let usual = self.pool.usual_room();
        if cost <= usual {
            let need = if appends { Need::Usual } else { Need::Reserve };
            if !self.pool.claim(need) {
                return Err(Short::File);
            }
            claimed.file = Some(need);
            core.reserve_stands &= appends;
            core.room = usual - cost;
        } else {
            let len = carry_file_len(cost);
            if !self.pool.claim(Need::Large(len)) {
                return Err(Short::File);
            }
            claimed.file = Some(Need::Large(len));
            core.room = (len - BATCHES_AT - MARK_ROOM).saturating_sub(cost);
        }
        Ok(claimed)
    }

    fn sequence(
        &self,
        mut core: MutexGuard<'_, Core>,
        batch: WriteBatch,
        charge: u64,
        claimed: &Claimed,
        sync: bool,
    ) -> Admitted {
        let Core { logs, serial, .. } = &mut *core;
        let (ops, ids) = sequence::apply(logs, batch, serial);
        let write = Write::new(ops, charge);
        if write.ops.is_empty() {
            // Nothing will be written, and so nothing settled, that would give its place back.
            self.bound.give_back(charge);
            core.room = claimed.room;
            core.reserve_stands = claimed.reserve_stands;
            if let Some(need) = claimed.file {
                self.pool.unclaim(need);
            }
        } else {
            core.unwritten += 1;
        }
        self.counters.writes.add(1);
        self.counters.entries.add(ids.len() as u64);
        self.counters.bytes_payload.add(write.payload_bytes());
        let pushed = self.queue.push(write, sync);
        drop(core);
        Admitted {
            written: Written { ids },
            group: pushed.group,
            idle: pushed.idle,
        }
    }

    /// Everything submitted before is durable on return.
    pub(crate) fn sync(&self) -> Result<()> {
        let pushed = {
            let core = self.core.lock();
            check_open(&core)?;
            self.queue.push(Write::new(Vec::new(), 0), true)
        };
        self.queue.wait(&pushed.group, self, None).unwrap_or(Ok(()))
    }

    /// `Invalid` inside a completion callback, where waiting would stop all callbacks.
    pub(crate) fn may_block() -> Result<()> {
        if inside_callback() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a blocking call inside a completion callback",
            ));
        }
        Ok(())
    }
}

/// The error of a journal that takes nothing any more.
pub(crate) fn check_open(core: &Core) -> Result<()> {
    core.closed.clone().map_or(Ok(()), Err)
}

impl Write {
    pub(crate) fn new(ops: Vec<super::batch::Op>, charge: u64) -> Write {
        Write {
            ops,
            charge,
            submitted: Instant::now(),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::fs::{Profile, SimFs};
    use crate::{Config, Journal};

    /// "About 1 GiB": the last batch that is taken in fills whole blocks up to the limit.
    #[test]
    fn a_batch_of_more_than_a_gigabyte_is_too_large() {
        let disk = Arc::new(SimFs::new(1, Profile::PosixWeak));
        let config = Config::new()
            .background(Background::Caller)
            .segment_bytes(16 << 10);
        let journal = Journal::create_on(disk, config).unwrap();
        let header = batch_len(0, 0, 0, 3);
        let most = (BATCH_LEN_MAX / 4).next_multiple_of(4096) - 4096 - header;
        for (bytes, fits) in [(0, true), (most, true), (most + 1, false), (2 * most, false)] {
            let batch = WriteBatch::of_bytes(usize::try_from(bytes).unwrap());
            let checked = journal.shared.check_sizes(&batch);
            assert_eq!(checked.is_ok(), fits, "{bytes} bytes");
        }
    }
}
