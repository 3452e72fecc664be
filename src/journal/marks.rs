//! Marks: empty batches that bear witness to the batches before them.
//!
//! The last acknowledged batch has no later header that says it was durable. Once nothing was written for a while a mark says so;
//! it is not synced at first (after a kill it is there all the same), then synced, as is the one that `close` writes. A synced mark begins
//! in a block of its own, so that one bad block does not take a batch together with its witness. A mark never opens a segment.

use super::Shared;
use super::commit::Writer;
use crate::error::{Error, Result};
use crate::format::{BATCH_HEADER_LEN, Flags, encode_batch, skip_len};
use crate::mutant::{Rule, removed};

const BLOCK: u64 = 4096;

/// Which mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Written behind the last batch, not synced.
    Idle,
    /// In a block of its own, synced.
    Synced,
    /// The same, written by `close`: the journal was closed in order.
    Closing,
}

impl Shared {
    /// Writes `mark` if the last batch needs it and there is room; true if it did. A failure costs nothing but the segment: the
    /// next write opens a fresh one.
    pub(crate) fn mark(&self, mark: Mark) -> bool {
        let mut writer = self.writer.lock();
        if writer.has_failed() || !self.wants(&writer, mark) {
            return false;
        }
        let written = self.write_mark(&mut writer, mark);
        if let Err(error) = &written {
            tracing::warn!(%error, "a mark could not be written; the segment is left as it is");
            self.give_up_after_mark(&mut writer);
            self.core.lock().room = 0;
        }
        written.is_ok()
    }

    /// A mark failed: nobody knows how much of it stands there, so nothing more is written behind it.
    pub(crate) fn give_up_after_mark(&self, writer: &mut Writer) {
        if !removed(Rule::FailedMarkEnds) {
            self.abandon_active(writer);
        }
    }

    /// Whether the last batch with frames still lacks the witness that `mark` would be, and there is room for it.
    fn wants(&self, writer: &Writer, mark: Mark) -> bool {
        let Some(active) = writer.active.as_ref().filter(|active| !active.pristine) else {
            return false;
        };
        if !writer.is_settled() || active.durable.is_none() {
            return false;
        }
        let lacks = match mark {
            Mark::Idle => active.witnessed < active.data && !removed(Rule::IdleMark),
            Mark::Synced => active.witnessed_synced < active.data && !removed(Rule::SyncedMark),
            Mark::Closing => {
                let said = active.closing && active.witnessed_synced >= active.data;
                !said && !removed(Rule::ClosingMark)
            }
        };
        let need = self.mark_bytes(active.at, mark);
        let mut core = self.core.lock();
        // Room is given out at admission: what is admitted and not yet written comes first.
        let fits = match mark {
            Mark::Closing => active.at + need <= active.segment.opening.len,
            Mark::Idle | Mark::Synced => core.unwritten == 0 && need <= active.room(self.mark_room),
        };
        if lacks && fits {
            core.room = core.room.saturating_sub(need);
        }
        lacks && fits
    }

    /// Bytes that `mark` takes from `at` on, what fills up to its block included.
    fn mark_bytes(&self, at: u64, mark: Mark) -> u64 {
        let len = (BATCH_HEADER_LEN as u64).next_multiple_of(1 << self.align_shift);
        match mark {
            Mark::Idle => len,
            Mark::Synced | Mark::Closing if at.is_multiple_of(BLOCK) => len,
            Mark::Synced | Mark::Closing => skip_len(at) + len,
        }
    }

    pub(crate) fn write_mark(&self, writer: &mut Writer, mark: Mark) -> Result<()> {
        let time = writer.time(self.fs.now_micros());
        let own_block = mark != Mark::Idle;
        let sequences = [writer.next_sequence, writer.next_sequence + 1];
        let Some(active) = writer.active.as_mut() else {
            return Ok(());
        };
        let from = active.at;
        let fills = own_block && !from.is_multiple_of(BLOCK) && !removed(Rule::MarkBlock);
        let last = if mark == Mark::Closing {
            Flags::MARK | Flags::CLOSING
        } else {
            Flags::MARK
        };
        let parts = if fills {
            &[Flags::SKIP, last][..]
        } else {
            &[last][..]
        };
        writer.next_sequence += parts.len() as u64;
        let mut out = Vec::new();
        for (flags, sequence) in parts.iter().zip(sequences) {
            let header = encode_batch(&self.spec(active, sequence, time, *flags), &[], &mut out);
            active.wrote(&header);
        }
        let path = &active.segment.path;
        active
            .segment
            .file
            .write_all_at(&out, from)
            .map_err(|e| Error::io(path, "write a mark", e))?;
        if own_block {
            if !removed(Rule::MarkSync) {
                let synced = active.segment.file.sync_data();
                synced.map_err(|e| Error::io(path, "sync a mark", e))?;
            }
            active.synced();
            self.counters.syncs.add(1);
        }
        self.counters.bytes_written.add(out.len() as u64);
        self.counters.marks.add(1);
        Ok(())
    }
}
