//! Carry-forward: what a crash left behind the last proven point may exist in memory only, so the new life writes it again, inside
//! the unit that its opening forms with it. While that unit does not verify as a whole, the old tail stands.

use super::Shared;
use super::commit::Writer;
use super::marks::Mark;
use super::recover::TailFrame;
use super::state::Replayed;
use crate::error::{Error, ErrorKind, Result};
use crate::format::write_opening_blocks;
use crate::format::{
    BATCHES_AT, BatchHeader, Flags, FrameSpec, Kind, Opening, batch_len, encode_batch, header_at,
    term_changes,
};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;

impl Shared {
    /// Writes and syncs an opening that carries `tail`, and applies the tail to the logs at its new place. The first file may fail, the
    /// second may not. An empty tail makes for an opening alone, which settles for good where the segment before it ends.
    pub(super) fn carry(&self, tail: &[TailFrame]) -> Result<()> {
        let mut writer = self.writer.lock();
        let payload: u64 = tail.iter().map(|t| t.payload.len() as u64).sum();
        let terms = term_changes(tail.iter().map(|t| t.frame.term));
        let bytes = batch_len(tail.len(), terms, payload, self.align_shift);
        let carried = self.carry_once(&mut writer, tail, bytes).or_else(|error| {
            if removed(Rule::CarryTwice) {
                return Err(error);
            }
            tracing::warn!(%error, "carrying the tail failed; trying once more in a fresh file");
            self.counters.rehomings.add(1);
            leave(&mut writer);
            self.carry_once(&mut writer, tail, bytes)
        });
        if carried.is_err() && !removed(Rule::FailedCarryIsLeft) {
            leave(&mut writer);
        }
        let payloads_at = carried?;
        self.counters.carried_bytes.add(bytes);
        self.opening_is_durable(&mut writer);
        self.apply_tail(&mut writer, tail, payloads_at)?;
        // The witness, so that the next life need not carry all this again. A failure costs just that.
        let marked = if removed(Rule::CarryMark) {
            Ok(())
        } else {
            self.write_mark(&mut writer, Mark::Idle)
        };
        if let Err(error) = marked {
            tracing::warn!(%error, "the carried tail has no mark");
            self.give_up_after_mark(&mut writer);
        }
        if !tail.is_empty() {
            self.carried();
        }
        let room = writer
            .active
            .as_ref()
            .map_or(0, |active| active.room(self.mark_room));
        self.core.lock().room = room;
        Ok(())
    }

    /// Returns where the first payload stands.
    fn carry_once(&self, writer: &mut Writer, tail: &[TailFrame], bytes: u64) -> Result<u64> {
        let (id, file) = self.pool.take_for_carry(bytes)?;
        let mut opening = self.opening(writer, id, file.len);
        let mut batch = Vec::new();
        let header = (!tail.is_empty()).then(|| {
            let header = self.carrying(writer, &opening, tail, &mut batch);
            opening.carry_len = u64::from(header.len);
            opening.carry_crc = header.crc;
            header
        });
        let mut out = Vec::new();
        write_opening_blocks(&opening, &mut out);
        out.extend_from_slice(&batch);
        self.activate(writer, id, &file, opening);
        let Some(active) = writer.active.as_mut() else {
            return Ok(0);
        };
        let path = &active.segment.path;
        active
            .segment
            .file
            .write_all_at(&out, 0)
            .map_err(|e| Error::io(path, "carry the tail", e))?;
        if !removed(Rule::CarrySync) {
            let synced = active.segment.file.sync_data();
            synced.map_err(|e| Error::io(path, "sync the carried tail", e))?;
        }
        self.counters.bytes_written.add(out.len() as u64);
        self.counters.syncs.add(1);
        active.pristine = false;
        if let Some(header) = &header {
            active.wrote(header);
        }
        active.synced();
        Ok(header.map_or(0, |header| header.payloads_at()))
    }

    /// Encodes the batch that `opening` carries.
    fn carrying(
        &self,
        writer: &mut Writer,
        opening: &Opening,
        tail: &[TailFrame],
        out: &mut Vec<u8>,
    ) -> BatchHeader {
        let frames: Vec<FrameSpec<'_>> = tail.iter().map(spec).collect();
        let spec = crate::format::BatchSpec {
            segment: opening.segment,
            salt: opening.salt,
            offset: BATCHES_AT,
            sequence: opening.sequence + 1,
            durable_through: 0,
            time: opening.time,
            // The opening names this batch by its checksum; the other way round would be a circle.
            chain: 0,
            flags: Flags::CARRY,
            align_shift: self.align_shift,
        };
        writer.next_sequence = opening.sequence + 2;
        encode_batch(&spec, &frames, out)
    }

    /// How many bytes may wait for a sync together. While the file for a tail is not there (it was used, and the disk is full) a
    /// re-homing has but one of the usual size: in several, a kill between two would take relaxed writes. What is re-homed already
    /// was within the bound when it was written, and is not parted now.
    pub(super) fn unsynced_max(&self, writer: &Writer) -> u64 {
        let bound = self.config.in_flight_bytes;
        let rehoming = writer.active.as_ref().is_some_and(|active| active.opens_last);
        if rehoming || self.pool.carry_stands() || removed(Rule::UnsyncedIsRehomable) {
            bound
        } else {
            bound.min(self.pool.usual_room())
        }
    }

    fn apply_tail(&self, writer: &mut Writer, tail: &[TailFrame], mut payload_at: u64) -> Result<()> {
        let Some(active) = writer.active.as_mut() else {
            return Ok(());
        };
        let mut core = self.core.lock();
        for (n, carried) in tail.iter().enumerate() {
            let at = header_at(BATCHES_AT, n);
            active.index(carried.frame, at, payload_at, &carried.payload);
            payload_at += carried.payload.len() as u64;
            let payload = (carried.frame.kind != Kind::Append).then(|| carried.payload.clone());
            let item = Replayed::Frame {
                frame: &carried.frame,
                header_at: at,
                payload,
            };
            core.logs.replay(item, &active.segment).map_err(|bad| {
                Error::at_offset(
                    ErrorKind::Damaged,
                    &carried.segment.path,
                    carried.header_at,
                    bad.what,
                )
            })?;
        }
        core.floor = core.floor.max(core.logs.floor);
        writer.floor = writer.floor.max(core.logs.floor);
        Ok(())
    }
}

fn spec(carried: &TailFrame) -> FrameSpec<'_> {
    let frame = &carried.frame;
    FrameSpec {
        kind: frame.kind,
        cell: frame.cell,
        log: frame.log,
        incarnation: frame.incarnation,
        index: frame.index,
        term: frame.term,
        payload: &carried.payload,
        payload_crc: frame.payload_crc,
    }
}

/// The file that failed holds nothing that counts, and is not written to again.
fn leave(writer: &mut Writer) {
    if let Some(active) = writer.active.take() {
        writer.discard.push(Segment::name(active.segment.id));
    }
}
