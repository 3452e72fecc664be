//! What comes of a write or sync that failed: nothing is retried on that file. What no sync covered is still in memory and goes once into a
//! fresh segment; if that fails too, nobody can say what is durable, and the journal closes to writers.

use super::Shared;
use super::commit::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::mutant::{Rule, removed};

impl Shared {
    /// The active segment failed. All that no sync covered goes into a fresh one, under a fresh sync.
    pub(super) fn rehome(&self, writer: &mut Writer, cause: &Error) -> Result<()> {
        self.counters.rehomings.add(1);
        tracing::warn!(error = %cause, "a segment failed; what was not synced goes into a fresh one");
        let written = writer.unsynced_bytes;
        self.abandon_active(writer);
        if !removed(Rule::RehomingTakesReserve) {
            // It takes whatever file there is, the reserve's too: appends look again whether that stands.
            self.core.lock().reserve_stands = false;
        }
        if written > 0 && !removed(Rule::RehomedOpensLast) {
            self.open_for(writer, written)?;
        }
        self.drive(writer, !removed(Rule::RehomedSync))
    }

    /// A fresh segment for all that was written to the one that failed, where a kill would leave it: relaxed writes survive one. Its
    /// opening, which cuts them off there, follows when they stand here.
    fn open_for(&self, writer: &mut Writer, written: u64) -> Result<()> {
        if written <= self.pool.usual_room() {
            self.open_next(writer, written)?;
        } else {
            let (id, file) = match self.pool.take_for_carry(written) {
                // It is one write then, larger than a usual segment (`unsynced_max`): whole in a file of its own, or not at all.
                Err(error) if error.kind() == ErrorKind::NoSpace => return Ok(()),
                taken => taken?,
            };
            self.backstage.preparer.wake();
            let opening = self.opening(writer, id, file.len);
            self.activate(writer, id, &file, opening);
        }
        if let Some(active) = writer.active.as_mut() {
            active.opens_last = true;
        }
        Ok(())
    }

    /// Leaves the active segment as it is: it ends at its last good sync. What no sync covered waits again.
    pub(crate) fn abandon_active(&self, writer: &mut Writer) {
        self.seal_active(writer);
        (writer.unsynced_bytes, writer.unsynced_terms) = (0, 0);
        let unsynced = std::mem::take(&mut writer.unsynced).into_iter().rev();
        for placed in unsynced.filter(|_| !removed(Rule::UnsyncedIsRehomed)) {
            for write in placed.writes.into_iter().rev() {
                writer.todo.push_front(write);
                writer.rehomed += 1;
            }
        }
    }

    /// The fresh segment failed, too. Nobody can say what of it is durable.
    pub(super) fn fail(&self, writer: &mut Writer, cause: &Error) -> Error {
        let unknown = cause.recast(
            ErrorKind::Unknown,
            "whether the write is durable is not known; reopen the journal to find out",
        );
        let closed = cause.recast(
            ErrorKind::Closed,
            "the journal closed to writers after two failures in a row",
        );
        if removed(Rule::TwoFailuresClose) {
            return unknown;
        }
        writer.failed = Some(unknown.clone());
        let closed = self.core.lock().closed.get_or_insert(closed).clone();
        self.bound.close(closed);
        tracing::error!(error = %cause, "the journal closes to writers");
        unknown
    }
}
