//! The commit: what the leader of a group does. One batch is one contiguous write; a segment is written by one life only, and
//! what follows a segment is submitted only after every byte of it that counts was synced.
//!
//! After a failed write or sync nothing is retried on that file. Everything that no sync covered is still in memory and goes once
//! into a fresh segment, which names the last synced batch of the old one as its predecessor's end; if that fails too, the
//! journal closes to writers.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::batch::Write;
use super::completions::panic_text;
use super::prepare::{Need, Prepared, carry_file_len};
use super::{Chore, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BATCHES_AT, BatchHeader, BatchSpec, End, FRAME_HEADER_LEN, Flags, Frame, FrameSpec, IndexBuilder, Kind,
    Opening, batch_len, encode_batch, header_at, write_opening_blocks,
};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::sync::{Arc, Instant};

/// Most frames of a batch.
pub(crate) const FRAMES_MAX: usize = 60_000;
/// Most operations of one write, and most changes of term in a batch and in what is written and not synced. What a crash leaves to be carried is at most twice the two
/// together, and goes into one batch, whose table of terms takes 65,535.
pub(crate) const TERMS_MAX: usize = 16_000;
const _: () = assert!(4 * TERMS_MAX <= crate::format::TERMS_MAX);
/// A group larger than this becomes several batches under one sync.
const BATCH_BYTES_MAX: u64 = 1 << 30;

/// What the one who commits owns. Held across the write and the sync; taken before the core lock.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) active: Option<Active>,
    /// Where the segment before the next opening ends.
    pub(crate) pred: Option<End>,
    /// Sequenced and not written.
    pub(super) todo: VecDeque<Write>,
    /// Written and not synced, in order. All in the active segment.
    pub(super) unsynced: Vec<Placed>,
    pub(super) unsynced_bytes: u64,
    pub(super) unsynced_terms: usize,
    /// How many of `todo`, from its front, still stand in the segment that failed, and nowhere else.
    pub(super) rehomed: usize,
    pub(crate) next_sequence: u64,
    pub(crate) last_time: u64,
    /// Highest floor that a sync covered.
    pub(crate) floor: u64,
    /// A sync of this life covered an opening: files that it superseded may go.
    pub(crate) opened: bool,
    /// Files that may go then.
    pub(crate) discard: Vec<String>,
    /// Why nothing is written any more.
    pub(super) failed: Option<Error>,
    out: Vec<u8>,
}

/// The segment that is written now.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// The opening has not been submitted yet: it goes with the first batch.
    pub(crate) pristine: bool,
    /// The opening has not been submitted, and goes behind the batches: what they take over stands in the segment before, which a
    /// kill would end too early if the opening were there first.
    pub(super) opens_last: bool,
    /// Where the next batch goes.
    pub(crate) at: u64,
    chain: u32,
    /// Sequence of the last batch written (or of the opening).
    sequence: u64,
    /// Sequence of the last batch with frames.
    pub(crate) data: u64,
    /// The durable-through that the last written header states, and the one that a synced header states.
    pub(crate) witnessed: u64,
    pub(crate) witnessed_synced: u64,
    pub(crate) closing: bool,
    /// End of what the last good sync covered.
    pub(crate) durable: Option<End>,
    /// What is durable of it.
    index: IndexBuilder,
}

/// Writes that share a batch on disk.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) writes: Vec<Write>,
    /// Where the first frame header stands; the others follow.
    frames_at: u64,
    /// Where the first payload stands; the others follow.
    payloads_at: u64,
}

impl Writer {
    /// A writer that goes on behind `pred`; it opens its first segment at the first write.
    pub(crate) fn new(pred: Option<End>, next_sequence: u64, last_time: u64, floor: u64) -> Writer {
        Writer {
            active: None,
            pred,
            todo: VecDeque::new(),
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            unsynced_terms: 0,
            rehomed: 0,
            next_sequence,
            last_time,
            floor,
            opened: false,
            discard: Vec::new(),
            failed: None,
            out: Vec::new(),
        }
    }

    /// Nothing waits for a sync.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsynced.is_empty() && self.todo.is_empty()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The time that the next header states, by the clock if that has not gone back.
    pub(crate) fn time(&mut self, clock: u64) -> u64 {
        if self.last_time < clock || removed(Rule::TimeNeverFalls) {
            self.last_time = clock;
        }
        self.last_time
    }

    fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence - 1
    }
}

impl Active {
    /// Room for batches with frames, which leave room for a mark.
    pub(crate) fn room(&self, mark_room: u64) -> u64 {
        self.segment
            .opening
            .len
            .saturating_sub(mark_room)
            .saturating_sub(self.at)
    }

    fn end(&self) -> End {
        End {
            segment: self.segment.id,
            offset: self.at,
            sequence: self.sequence,
            chain: self.chain,
        }
    }

    pub(crate) fn durable_through(&self) -> u64 {
        match (&self.durable, self.segment.opening.pred) {
            _ if removed(Rule::DurableThroughIsStated) => 0,
            _ if removed(Rule::DurableThroughIsSynced) => self.sequence,
            (Some(end), _) => end.sequence,
            (None, Some(pred)) if removed(Rule::DurableThroughOfSegment) => pred.sequence,
            (None, _) => 0,
        }
    }

    /// What is durable of the segment, for its index: a frame whose header and payload stand at these offsets. The index
    /// is the same, byte for byte, as one built from the segment.
    pub(crate) fn index(&mut self, mut frame: Frame, header_at: u64, payload_at: u64, payload: &[u8]) {
        frame.payload_at = u32::try_from(payload_at - header_at).unwrap_or(u32::MAX);
        let inline = matches!(frame.kind, Kind::Facts | Kind::Floor).then_some(payload);
        self.index.push(&frame, header_at, inline);
    }

    /// A batch was written up to `at`.
    pub(crate) fn wrote(&mut self, header: &BatchHeader) {
        self.pristine = false;
        self.at = header.offset + u64::from(header.len);
        self.chain = header.crc;
        self.sequence = header.sequence;
        self.witnessed = header.durable_through;
        self.closing = header.flags.has(Flags::CLOSING);
        if header.frames > 0 {
            self.data = header.sequence;
        }
    }

    /// Writes the opening, if it goes behind the batches.
    fn open_last(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.opens_last) {
            return Ok(());
        }
        let mut blocks = Vec::new();
        write_opening_blocks(&self.segment.opening, &mut blocks);
        let written = self.segment.file.write_all_at(&blocks, 0);
        written.map_err(|e| Error::io(&self.segment.path, "write an opening", e))
    }

    /// A sync covered everything written.
    pub(crate) fn synced(&mut self) {
        self.witnessed_synced = self.witnessed;
        self.durable = Some(self.end());
    }
}

impl Shared {
    /// Writes `items` in order, and syncs if one of them needs it. On an error that no fresh segment cured, everything unsynced is
    /// `Unknown` and the journal is closed to writers.
    pub(crate) fn commit(&self, items: Vec<Write>, sync: bool) -> Result<()> {
        let mut writer = self.writer.lock();
        for item in &items {
            self.counters.queue.record(item.submitted.elapsed());
        }
        writer
            .todo
            .extend(items.into_iter().filter(|item| !item.ops.is_empty()));
        let result = self.run(&mut writer, sync);
        self.committed(&writer);
        result
    }

    /// Syncs what is written, if anything is unsynced.
    pub(crate) fn sync_written(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        // What failed is not waiting for a sync, and is not durable either.
        if let Some(failed) = &writer.failed {
            return Err(failed.clone());
        }
        if writer.unsynced.is_empty() {
            return Ok(());
        }
        self.counters.relaxed_syncs.add(1);
        let result = self.run(&mut writer, true);
        self.committed(&writer);
        result
    }

    fn run(&self, writer: &mut Writer, sync: bool) -> Result<()> {
        if let Some(failed) = &writer.failed {
            return Err(failed.clone());
        }
        let run = AssertUnwindSafe(|| {
            self.drive(writer, sync).or_else(|error| {
                if removed(Rule::FailedFileEnds) {
                    return self.drive(writer, sync);
                }
                self.rehome(writer, &error)
            })
        });
        // Whoever waits for room or for the next flush would wait for ever.
        let result = catch_unwind(run).unwrap_or_else(|panic| {
            let text = format!("a flush panicked: {}", panic_text(panic.as_ref()));
            Err(Error::new(ErrorKind::Unknown, text))
        });
        result.map_err(|error| self.fail(writer, &error))
    }

    pub(super) fn drive(&self, writer: &mut Writer, sync: bool) -> Result<()> {
        while let Some(first) = writer.todo.front() {
            let cost = first.charge;
            // Cells and the like never queue for room: what a crash leaves of them must still fit into the file for it.
            let over = writer.unsynced_bytes + cost > self.unsynced_max(writer);
            let over = over && !removed(Rule::UnsyncedBound);
            // In other batches than before the same writes may have more terms; a sync ends the segment where they still stand.
            let taken_over = writer.rehomed > 0 && !removed(Rule::RehomedTermsAreOne);
            if (writer.unsynced_terms > TERMS_MAX && !taken_over) || over {
                self.sync_active(writer, Rule::BatchSync)?;
            }
            let fits = self.fitting(writer);
            if fits > 0 {
                self.write_batch(writer, fits)?;
                continue;
            }
            if writer.active.is_some() {
                self.sync_active(writer, Rule::SyncBeforeRotation)?;
                self.seal_active(writer);
                self.counters.rotations.add(1);
            }
            self.open_next(writer, cost)?;
        }
        // Whoever waits for room is let in by a sync, and may be a relaxed write again.
        let most = self.config.relaxed_bytes.min(self.config.in_flight_bytes);
        let full = writer.unsynced_bytes >= most && !removed(Rule::RelaxedBytesSync);
        let full = full || self.bound.has_waiters();
        if sync || full {
            self.sync_active(writer, Rule::BatchSync)
        } else {
            Ok(())
        }
    }

    /// How many of the waiting writes fit into the active segment as one batch.
    fn fitting(&self, writer: &Writer) -> usize {
        let Some(active) = &writer.active else { return 0 };
        let room = active.room(self.mark_room).min(BATCH_BYTES_MAX);
        let (mut frames, mut terms, mut payload, mut count) = (0, 0, 0, 0);
        let mut charged = writer.unsynced_bytes;
        let most = self.unsynced_max(writer);
        for write in &writer.todo {
            charged += write.charge;
            if count > 0 && charged > most {
                break;
            }
            frames += write.ops.len();
            terms += write.terms();
            payload += write.payload_bytes();
            let len = batch_len(frames, terms, payload, self.align_shift);
            let fits = len <= room && frames <= FRAMES_MAX && terms <= TERMS_MAX;
            // One alone goes as it is: admission found it a place.
            if !fits && (count > 0 || write.charge > active.room(self.mark_room)) {
                break;
            }
            count += 1;
            if !fits {
                break;
            }
        }
        count
    }

    /// Names the next segment; its opening is written with the first batch.
    pub(super) fn open_next(&self, writer: &mut Writer, cost: u64) -> Result<()> {
        let need = if cost > self.pool.usual_room() {
            Need::Large(carry_file_len(cost))
        } else {
            Need::Reserve
        };
        let (id, file) = self.pool.take(need)?;
        let opening = self.opening(writer, id, file.len);
        self.backstage.preparer.wake();
        self.activate(writer, id, &file, opening);
        Ok(())
    }

    /// The opening of the segment `id`, with nothing carried.
    pub(crate) fn opening(&self, writer: &mut Writer, id: u64, len: u64) -> Opening {
        let time = writer.time(self.fs.now_micros());
        Opening {
            uuid: self.uuid.0,
            align_shift: self.align_shift,
            features: 0,
            compat: 0,
            segment: id,
            salt: super::open::draw_salt(&*self.fs),
            sequence: writer.take_sequence(),
            time,
            pred: writer.pred,
            carry_len: 0,
            carry_crc: 0,
            floor: writer.floor,
            len,
            incarnation_next: self.core.lock().logs.stated_incarnation(),
        }
    }

    pub(crate) fn activate(&self, writer: &mut Writer, id: u64, file: &Prepared, opening: Opening) {
        let segment = Arc::new(Segment::new(
            id,
            Arc::clone(&file.file),
            self.fs.display(&file.path),
            opening.clone(),
        ));
        tracing::debug!(segment = id, bytes = opening.len, "a new segment");
        writer.active = Some(Active {
            index: IndexBuilder::new(id, opening.salt),
            segment,
            pristine: true,
            opens_last: false,
            at: BATCHES_AT,
            chain: opening.chain(),
            sequence: opening.sequence,
            data: opening.sequence,
            witnessed: 0,
            witnessed_synced: 0,
            closing: false,
            durable: None,
        });
    }

    /// What the header of the next batch in the active segment says.
    pub(crate) fn spec(&self, active: &Active, sequence: u64, time: u64, flags: Flags) -> BatchSpec {
        BatchSpec {
            segment: active.segment.id,
            salt: active.segment.opening.salt,
            offset: active.at,
            sequence,
            durable_through: active.durable_through(),
            time,
            chain: active.chain,
            flags,
            align_shift: self.align_shift,
        }
    }

    /// Writes the first `count` waiting writes as one batch. They wait on until the write returned.
    fn write_batch(&self, writer: &mut Writer, count: usize) -> Result<()> {
        let encoding = Instant::now();
        let time = writer.time(self.fs.now_micros());
        let sequence = writer.take_sequence();
        let Writer {
            active, todo, out, ..
        } = &mut *writer;
        let Some(active) = active.as_mut() else {
            return Ok(());
        };
        let frames: Vec<FrameSpec<'_>> = todo.iter().take(count).flat_map(Write::frames).collect();
        out.clear();
        let opens = active.pristine && !active.opens_last;
        let from = if opens { 0 } else { active.at };
        if opens {
            write_opening_blocks(&active.segment.opening, out);
        }
        let spec = self.spec(active, sequence, time, Flags::NONE);
        let header = encode_batch(&spec, &frames, out);
        debug_assert!(
            u64::from(header.len) <= todo.iter().take(count).map(|write| write.charge).sum::<u64>(),
            "a batch is longer than its writes were charged"
        );
        self.counters.encode.record(encoding.elapsed());
        let writing = Instant::now();
        let written = active.segment.file.write_all_at(out, from);
        self.counters.write.record(writing.elapsed());
        written.map_err(|e| Error::io(&active.segment.path, "write a batch", e))?;
        self.counters.batches.add(1);
        self.counters.bytes_written.add(out.len() as u64);
        let frames_at = header_at(active.at, 0);
        active.wrote(&header);
        let writes: Vec<Write> = todo.drain(..count).collect();
        writer.rehomed = writer.rehomed.saturating_sub(count);
        writer.unsynced_terms += writes.iter().map(Write::terms).sum::<usize>();
        writer.unsynced_bytes += writes.iter().map(|write| write.charge).sum::<u64>();
        writer.unsynced.push(Placed {
            writes,
            frames_at,
            payloads_at: header.payloads_at(),
        });
        Ok(())
    }

    /// Syncs the active segment, as `rule` asks; everything written to it is durable then.
    fn sync_active(&self, writer: &mut Writer, rule: Rule) -> Result<()> {
        if writer.unsynced.is_empty() {
            return Ok(());
        }
        let Some(active) = writer.active.as_mut() else {
            return Ok(());
        };
        active.open_last()?;
        if !removed(rule) {
            let synced = self.sync_watched(&*active.segment.file);
            synced.map_err(|e| Error::io(&active.segment.path, "sync a segment", e))?;
        }
        self.counters.syncs.add(1);
        active.synced();
        self.opening_is_durable(writer);
        self.settle(writer);
        Ok(())
    }

    /// An opening of this life is durable: what it superseded may go.
    pub(crate) fn opening_is_durable(&self, writer: &mut Writer) {
        if let Some(active) = &writer.active {
            let mut core = self.core.lock();
            core.chain
                .entry(active.segment.id)
                .or_insert_with(|| Arc::clone(&active.segment));
            if core.chain.len() >= core.reclaim_at {
                // Twice as many, before this is looked at again: the look reads every log.
                core.reclaim_at = core.chain.len() * 2;
                self.reclaim_later();
            }
        }
        if !writer.opened {
            writer.opened = true;
            let names = std::mem::take(&mut writer.discard);
            self.add_chore(Chore::Remove(names));
        }
    }

    /// Tells the logs where their entries are now, and gives the in-flight bytes back.
    fn settle(&self, writer: &mut Writer) {
        let placed = std::mem::take(&mut writer.unsynced);
        (writer.unsynced_bytes, writer.unsynced_terms) = (0, 0);
        let Some(active) = writer.active.as_mut() else {
            return;
        };
        let segment = Arc::clone(&active.segment);
        let mut freed = 0;
        let mut frees_space = false;
        let mut core = self.core.lock();
        for batch in &placed {
            let (mut header_at, mut payload_at) = (batch.frames_at, batch.payloads_at);
            for write in &batch.writes {
                freed += write.charge;
                for op in &write.ops {
                    active.index(op.frame(), header_at, payload_at, &op.payload);
                    payload_at += op.payload.len() as u64;
                    core.settle(op, &segment, header_at);
                    frees_space |= op.frees_space();
                    header_at += FRAME_HEADER_LEN as u64;
                    if op.kind == Kind::Floor {
                        writer.floor = writer.floor.max(op.index);
                    }
                }
            }
            core.unwritten -= batch.writes.len();
        }
        if core.unwritten == 0 {
            core.room = active.room(self.mark_room);
            self.pool.settle_claims();
        }
        drop(core);
        self.bound.give_back(freed);
        if frees_space {
            self.reclaim_later();
        }
    }

    /// Nothing more is written to the active segment; its index can be. The next opening names its end.
    pub(crate) fn seal_active(&self, writer: &mut Writer) {
        let Some(active) = writer.active.take() else {
            return;
        };
        let durable = if removed(Rule::EndIsSynced) {
            Some(active.end())
        } else {
            active.durable
        };
        let Some(end) = durable else {
            // Nothing of it counts: once a later opening is synced the file may go.
            writer.discard.push(Segment::name(active.segment.id));
            writer.opened = false;
            return;
        };
        writer.pred = Some(end);
        self.add_chore(Chore::Index {
            segment: active.segment,
            builder: active.index,
            end,
        });
    }
}
