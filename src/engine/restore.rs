//! Opening, first half: the newest snapshot that verifies, and whether it and the log belong together.
//!
//! ```text
//! newest snapshot, or machine    log                        decision
//! machine that persists itself,  any                        the snapshot is verified, restored, and the log reset to it where it
//! and an installed one ahead                                does not reach it: the process ended before or while that was done
//! own checkpoint                 ends before it, or has     Damaged: the log has lost its end; only Log::reset, called by
//!                                another term there         hand, accepts that
//! installed                      the same                   the log is reset to it: the process ended between the two
//! any                            begins behind it + 1       Damaged, naming both: entries between them are gone
//! any                            has it, or begins at it + 1  restored, and replay goes on behind it
//! does not verify                                           the next older one, with a warning, or what the machine has itself
//! installed, ahead, and the device does not give it         Io: the next opening may have it, and reset the log to it
//! an index that the device does not give                    Io: it may be that of such a one
//! none is left                   never purged               an empty machine, and all of the log
//! none is left                   purged                     Damaged
//! ```

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::config::{EngineConfig, Progress};
use super::core::Core;
use super::machine::{Persistence, StateMachine};
use super::report::EngineReport;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{EngineHeader, Tables};
use crate::log::Log;
use crate::mutant::{Rule, removed};
use crate::snapshot::{Origin, Snapshot, Store};
use crate::types::{EntryId, LogKey};

/// What the machine is restored from, and whose.
pub(super) struct Source<'a> {
    pub(super) store: &'a Store,
    pub(super) key: LogKey,
    /// `None` for a replica whose owner keeps the log elsewhere.
    pub(super) log: Option<&'a Log>,
    pub(super) config: &'a EngineConfig,
}

impl Source<'_> {
    /// Brings the machine to the newest state that can be had, and the log to where that state can go on.
    pub(super) fn restore<M: StateMachine>(
        &self,
        core: &mut Core<M>,
        report: &mut EngineReport,
    ) -> Result<()> {
        let started = self.config.clock.now();
        let restored = self.restore_newest(core, report);
        report.restore = self.config.clock.since(started);
        restored
    }

    fn restore_newest<M: StateMachine>(&self, core: &mut Core<M>, report: &mut EngineReport) -> Result<()> {
        let snapshots = self.store.list_of(self.key)?;
        for damage in self.store.damage() {
            if damage.error.kind() == ErrorKind::Io && !removed(Rule::UnreadEndsOpening) {
                return Err(index_unread(&damage.error));
            }
            report.warn(format!("an index of a snapshot cannot be read: {}", damage.error));
        }
        let own = core.machine.persistence();
        if let Persistence::Itself(durable) = own
            && self.machine_is_newest(durable, &snapshots)?
        {
            core.applied = durable;
            return Ok(());
        }
        for (number, snapshot) in snapshots.iter().enumerate() {
            let resets = self.meets_log(snapshot)?;
            let persists = matches!(own, Persistence::Itself(_));
            match self.try_one(core, snapshot, persists)? {
                Ok(()) => {
                    self.finish_reset(resets, snapshot, report)?;
                    if !report.refused.is_empty() {
                        report.warn(format!(
                            "log {}: fell back to snapshot {} of entry {}",
                            self.key, snapshot.id, snapshot.covers
                        ));
                    }
                    report.snapshot = Some(snapshot.clone());
                    return Ok(());
                }
                Err(error)
                    if resets && error.kind() == ErrorKind::Io && !removed(Rule::UnreadEndsOpening) =>
                {
                    return Err(unread(snapshot, &error));
                }
                Err(error) => {
                    let text = format!("snapshot {} of entry {}: {error}", snapshot.id, snapshot.covers);
                    report.warn(text);
                    report.refused.push((snapshot.clone(), error));
                }
            }
            if let Persistence::Itself(durable) = own
                && self.machine_is_newest(durable, &snapshots[number + 1..])?
            {
                report.warn(format!(
                    "log {}: the machine goes on with what it has itself",
                    self.key
                ));
                core.applied = durable;
                return Ok(());
            }
        }
        self.begin_empty(core, report)
    }

    /// Restores a snapshot. The inner error says that it is damaged or cannot be read, and an older one may do. A machine that persists
    /// itself is given nothing that was not read as a whole before: half of a snapshot in place of what it has cannot be taken back.
    fn try_one<M: StateMachine>(
        &self,
        core: &mut Core<M>,
        snapshot: &Snapshot,
        persists: bool,
    ) -> Result<Result<()>> {
        let is_damage = |error: &Error| [ErrorKind::Damaged, ErrorKind::Io].contains(&error.kind());
        let verifies = persists && !removed(Rule::VerifiedBeforeItself);
        if verifies && let Some(error) = self.store.check(snapshot.id, None)? {
            return Ok(Err(error));
        }
        match self.restore_one(core, snapshot) {
            Ok(()) => Ok(Ok(())),
            Err(error) if is_damage(&error) && !verifies => {
                // Read to its end, so that the store knows what of it is damaged, and counts it among nothing.
                self.store.verify(snapshot.id)?;
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    /// A machine that persists itself goes on by itself if the log has what it lacks, and nothing newer was installed.
    fn machine_is_newest(&self, durable: Option<EntryId>, snapshots: &[Snapshot]) -> Result<bool> {
        let reached = match (self.log, durable) {
            (Some(log), Some(durable)) => log.journal().expect_at_least(self.key, durable),
            _ => Ok(()),
        };
        // Asked before the log is: the power may have gone when the machine had made the snapshot durable, and the log was not reset to it.
        let installed = snapshots.first().filter(|newest| {
            let is_ahead = |durable| durable < newest.covers || durable == newest.covers && reached.is_err();
            newest.origin == Origin::Installed && durable.is_none_or(is_ahead)
        });
        if installed.is_some() && !removed(Rule::InstalledBeforeLog) {
            return Ok(false);
        }
        let Some(log) = self.log else {
            return Ok(durable.is_some());
        };
        if !removed(Rule::SnapshotAheadIsDamage) {
            reached.map_err(|error| error.recast(ErrorKind::Damaged, "the machine is ahead of its log"))?;
        }
        let start = log.bounds()?.start;
        Ok(match durable {
            Some(durable) => durable.index + 1 >= start,
            None => log.purged()?.is_none(),
        })
    }

    /// Whether replay can go on behind the snapshot; true if the log must be reset to it first.
    fn meets_log(&self, snapshot: &Snapshot) -> Result<bool> {
        let Some(log) = self.log else {
            return Ok(false);
        };
        let covers = snapshot.covers;
        let reached = log.journal().expect_at_least(self.key, covers);
        match snapshot.origin {
            Origin::Installed if reached.is_err() => return Ok(true),
            _ if removed(Rule::SnapshotAheadIsDamage) => {}
            _ => reached.map_err(|error| {
                let text = format!("snapshot {} is ahead of its log", snapshot.id);
                error.recast(ErrorKind::Damaged, &text)
            })?,
        }
        let start = log.bounds()?.start;
        if start > covers.index + 1 && !removed(Rule::FallbackReachesLog) {
            let text = format!(
                "log {} begins at {start}, and snapshot {} ends with entry {covers}: what stood between them is gone",
                self.key, snapshot.id
            );
            return Err(Error::new(ErrorKind::Damaged, text));
        }
        Ok(false)
    }

    fn finish_reset(&self, resets: bool, snapshot: &Snapshot, report: &mut EngineReport) -> Result<()> {
        let Some(log) = self.log.filter(|_| resets && !removed(Rule::InstallIsFinished)) else {
            return Ok(());
        };
        reset(log, snapshot.covers)?;
        report.reset_to = Some(snapshot.covers);
        report.warn(format!(
            "log {} was reset to the installed snapshot {} of entry {}",
            self.key, snapshot.id, snapshot.covers
        ));
        Ok(())
    }

    /// Replaces the machine by the snapshot. `Damaged` or `Io` if it cannot be read.
    fn restore_one<M: StateMachine>(&self, core: &mut Core<M>, snapshot: &Snapshot) -> Result<()> {
        let header = header(snapshot)?;
        self.restore_from(core, snapshot, &header)
    }

    /// The same of a snapshot whose header was read.
    pub(super) fn restore_from<M: StateMachine>(
        &self,
        core: &mut Core<M>,
        snapshot: &Snapshot,
        header: &EngineHeader,
    ) -> Result<()> {
        let refused = |what: &str| refused(snapshot, what);
        let mut from = Watched {
            from: self.store.reader(snapshot.id)?,
            error: None,
            read: 0,
            of: snapshot.bytes,
            config: self.config,
        };
        let machine = &mut core.machine;
        // A panic would go through every opening; it is told like a refusal.
        let restored = catch_unwind(AssertUnwindSafe(|| {
            machine.restore(&mut (&mut from).take(header.machine_len))
        }));
        let restored = restored.unwrap_or_else(|panic| {
            let said = crate::journal::panic_text(panic.as_ref());
            Err(io::Error::other(format!("a panic while it was restored: {said}")))
        });
        // What the machine did not ask for is read all the same: the tables stand behind it.
        let unread = header.machine_len.saturating_sub(from.read);
        let rest = restored.and_then(|()| {
            io::copy(&mut (&mut from).take(unread), &mut io::sink())?;
            let mut tables = Vec::new();
            from.read_to_end(&mut tables).map(|_| tables)
        });
        match (rest, from.error.take()) {
            (_, Some(error)) => Err(error),
            (Err(error), None) => Err(refused(&format!("the machine refuses it: {error}"))),
            (Ok(tables), None) => {
                let tables = Tables::decode(&Bytes::from(tables)).map_err(|bad| refused(&bad.to_string()))?;
                core.restored(snapshot.covers, tables);
                Ok(())
            }
        }
    }

    /// No snapshot is left: all of the log is replayed, if it is there.
    fn begin_empty<M: StateMachine>(&self, core: &mut Core<M>, report: &mut EngineReport) -> Result<()> {
        let is_whole = match self.log {
            Some(log) => log.purged()?.is_none(),
            None => report.refused.is_empty() && self.store.damage().is_empty(),
        };
        if is_whole {
            if !report.refused.is_empty() {
                report.warn(format!(
                    "log {}: no snapshot verifies; all of the log is replayed",
                    self.key
                ));
            }
            core.machine.clear();
            core.applied = None;
            return Ok(());
        }
        let begins = match self.log {
            Some(log) => format!("log {} begins at {}", self.key, log.bounds()?.start),
            None => format!("log {} had snapshots", self.key),
        };
        let why = report.refused.first().map(|(_, error)| format!(" ({error})"));
        let text = format!(
            "{begins}, and no snapshot can be restored{}",
            why.unwrap_or_default()
        );
        Err(Error::new(ErrorKind::Damaged, text))
    }
}

/// What stands in front of the caller's metadata; `Unsupported` if the snapshot is not of an engine.
pub(super) fn header(snapshot: &Snapshot) -> Result<EngineHeader> {
    EngineHeader::decode(&snapshot.metadata).map_err(|bad| refused(snapshot, &bad.to_string()))
}

fn refused(snapshot: &Snapshot, what: &str) -> Error {
    let text = format!("snapshot {} of entry {}: {what}", snapshot.id, snapshot.covers);
    Error::new(ErrorKind::Unsupported, text)
}

/// An installed snapshot that the device does not give now may be given to the next opening, which would put it in the place of what is
/// acknowledged until then.
fn unread(snapshot: &Snapshot, error: &Error) -> Error {
    let text = format!(
        "snapshot {} of entry {} was installed, lies ahead of its log, and cannot be read; open again, or remove it from the store first",
        snapshot.id, snapshot.covers
    );
    error.recast(ErrorKind::Io, &text)
}

/// The same of an index: nobody knows whose it is.
fn index_unread(error: &Error) -> Error {
    let text = "an index of a snapshot that may be this log's cannot be read; open the store again, or give it up first (`remove_unreadable`, \
                `everlog snapshot gc --give-up-unreadable`)";
    error.recast(ErrorKind::Io, text)
}

/// Empties the log behind an installed snapshot.
pub(super) fn reset(log: &Log, covers: EntryId) -> Result<()> {
    let mut batch = crate::journal::WriteBatch::of_holder();
    batch.reset(log.key(), covers);
    log.journal().write(batch).map(drop)
}

/// Reads a snapshot for a machine, tells how far it is, and keeps what the store said of a failure: a machine may pass on any error.
struct Watched<'a, R> {
    from: R,
    error: Option<Error>,
    read: u64,
    of: u64,
    config: &'a EngineConfig,
}

/// How often the progress of one part is told, about.
pub(super) const TOLD: u64 = 100;

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.from.read(buffer) {
            Ok(count) => {
                let step = (self.of / TOLD).max(1);
                let before = self.read / step;
                self.read += count as u64;
                if self.read / step > before || self.read == self.of {
                    let (bytes, of) = (self.read, self.of);
                    self.config.tell(Progress::Restore { bytes, of });
                }
                Ok(count)
            }
            Err(error) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                self.error = Some(match inner {
                    Some(inner) => inner.clone(),
                    None => Error::new(ErrorKind::Io, format!("cannot read the snapshot: {error}")),
                });
                Err(error)
            }
        }
    }
}
