//! One frame alone, verified; and the offsets of sealed entries, through a bounded cache.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{FRAME_HEADER_LEN, Frame, Kind, decode_block, decode_frame};
use crate::mutant::{Rule, removed};
use crate::segment::{BlockRef, Segment, Slot, index};
use crate::sync::{Arc, Mutex};
use crate::types::{LogKey, Term};

/// Read at once: a small entry comes with its header.
const FIRST_READ: u64 = 4096;
/// Read at once by whoever reads on.
const READ_AHEAD: u64 = 256 << 10;

/// What a frame must say to be the right one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    pub(crate) cell: u8,
    pub(crate) log: LogKey,
    pub(crate) incarnation: u64,
    /// The index of an entry; not looked at for a cell.
    pub(crate) index: u64,
    pub(crate) term: Term,
}

impl Wanted {
    fn accepts(&self, frame: &Frame) -> bool {
        removed(Rule::FrameIsWanted)
            || frame.kind == self.kind
                && frame.cell == self.cell
                && frame.log == self.log
                && frame.incarnation == self.incarnation
                && (frame.index == self.index || self.kind == Kind::Cell)
    }
}

/// The payload of the frame whose header stands at `header_at`: header and payload verify and are those of `wanted`, or
/// the error says `Damaged` with the place. A read error is `Io`.
pub(crate) fn read_payload(segment: &Segment, header_at: u64, wanted: &Wanted) -> Result<Bytes> {
    let (mut head, mut body) = (Window::new(FIRST_READ), Window::new(0));
    verified(segment, header_at, wanted, &mut head, &mut body)
}

/// Reads entry after entry through windows: headers stand together in front of their payloads, so each has its own.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    headers: Window,
    payloads: Window,
}

impl ReadAhead {
    pub(crate) fn new() -> ReadAhead {
        ReadAhead {
            headers: Window::new(READ_AHEAD),
            payloads: Window::new(READ_AHEAD),
        }
    }

    /// As [`read_payload`].
    pub(crate) fn read_payload(
        &mut self,
        segment: &Segment,
        header_at: u64,
        wanted: &Wanted,
    ) -> Result<Bytes> {
        let ReadAhead { headers, payloads } = self;
        match verified(segment, header_at, wanted, headers, payloads) {
            // A window may be older than the entry: only the file itself is evidence.
            Err(error) if error.kind() == ErrorKind::Damaged && !removed(Rule::WindowIsNoEvidence) => {
                *self = ReadAhead::new();
                read_payload(segment, header_at, wanted)
            }
            read => read,
        }
    }
}

/// Some bytes of a segment.
#[derive(Debug)]
struct Window {
    segment: u64,
    at: u64,
    bytes: Bytes,
    /// Bytes to read at once.
    ahead: u64,
}

impl Window {
    fn new(ahead: u64) -> Window {
        Window {
            segment: 0,
            at: 0,
            bytes: Bytes::new(),
            ahead,
        }
    }

    /// `len` bytes at `at`, of a file of `file_len` bytes in which they lie.
    fn get(&mut self, segment: &Segment, at: u64, len: u64, file_len: u64) -> Result<Bytes> {
        if let Some(bytes) = self.held(segment, at, len) {
            return Ok(bytes);
        }
        let ahead = len.max(self.ahead).min(file_len.saturating_sub(at));
        // A sector behind the entry that cannot be read is not this entry's trouble.
        let bytes = Bytes::from(read(segment, at, ahead).or_else(|_| read(segment, at, len))?);
        *self = Window {
            segment: segment.id,
            at,
            bytes,
            ahead: self.ahead,
        };
        self.held(segment, at, len).ok_or_else(|| {
            Error::at_offset(
                ErrorKind::Damaged,
                &segment.path,
                at,
                "the file ends before the frame",
            )
        })
    }

    fn held(&self, segment: &Segment, at: u64, len: u64) -> Option<Bytes> {
        let from = usize::try_from(at.checked_sub(self.at)?).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        (self.segment == segment.id && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

fn verified(
    segment: &Segment,
    header_at: u64,
    wanted: &Wanted,
    headers: &mut Window,
    payloads: &mut Window,
) -> Result<Bytes> {
    let damaged = |at: u64, what: String| {
        let log = wanted.log;
        let text = format!(
            "{what} (log {log}, {}); `everlog verify` lists all damage",
            name(wanted)
        );
        Error::at_offset(ErrorKind::Damaged, &segment.path, at, text)
    };
    let len = segment.readable_len()?;
    if len.saturating_sub(header_at) < FRAME_HEADER_LEN as u64 {
        return Err(damaged(header_at, "the file ends before the frame".into()));
    }
    let header = headers.get(segment, header_at, FRAME_HEADER_LEN as u64, len)?;
    let frame = decode_frame(segment.opening.salt, wanted.term, &header)
        .map_err(|bad| damaged(header_at, format!("the frame header is bad: {bad}")))?;
    if !wanted.accepts(&frame) {
        return Err(damaged(
            header_at,
            format!("another frame stands here: {frame:?}"),
        ));
    }
    let from = frame.payload_offset(header_at);
    let size = u64::from(frame.len);
    if from.saturating_add(size) > len {
        return Err(damaged(from, "the file ends before the payload".into()));
    }
    let payload = match headers.held(segment, from, size) {
        Some(payload) => payload,
        None => payloads.get(segment, from, size, len)?,
    };
    frame
        .check_payload(&payload)
        .map_err(|bad| damaged(from, format!("the payload is bad: {bad}")))?;
    // A small entry must not keep a whole window in memory.
    Ok(if size < READ_AHEAD / 4 {
        Bytes::copy_from_slice(&payload)
    } else {
        payload
    })
}

fn name(wanted: &Wanted) -> String {
    match wanted.kind {
        Kind::Cell => format!("cell {}", wanted.cell),
        _ => format!("entry {}", wanted.index),
    }
}

/// `len` bytes at `at`, which lie within the file.
fn read(segment: &Segment, at: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    segment
        .file
        .read_exact_at(&mut bytes, at)
        .map_err(|e| Error::io_at(&segment.path, at, "read", e))?;
    Ok(bytes)
}

/// Blocks of offsets of sealed segments, the least recently used ones dropped first. Bounded by its size in bytes, or by
/// one block if that is larger.
#[derive(Debug)]
pub(crate) struct BlockCache {
    bytes_max: usize,
    /// A leaf lock; not held while reading.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    blocks: HashMap<(u64, u64), Block>,
    /// When each block was last used, oldest first.
    order: BTreeMap<u64, (u64, u64)>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Block {
    eighths: Arc<[u32]>,
    used: u64,
}

impl BlockCache {
    pub(crate) fn new(bytes_max: usize) -> BlockCache {
        BlockCache {
            bytes_max,
            held: Mutex::new(Held::default()),
        }
    }

    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.lock().bytes
    }

    /// File offset of the frame header at `slot` of `segment`.
    pub(crate) fn offset(&self, segment: &Arc<Segment>, slot: Slot) -> Result<u64> {
        match slot {
            Slot::At(at) => Ok(at),
            Slot::InBlock(block, n) => {
                let eighths = self.slots(segment, &block)?;
                let eighth = eighths.get(n).copied().ok_or_else(|| {
                    Error::at(
                        ErrorKind::Damaged,
                        &segment.path,
                        "an index block is shorter than it was stated to be",
                    )
                })?;
                Ok(u64::from(eighth) * 8)
            }
        }
    }

    /// The offsets in `block`, divided by 8. If the index lacks it, the segment itself is walked.
    pub(crate) fn slots(&self, segment: &Arc<Segment>, block: &BlockRef) -> Result<Arc<[u32]>> {
        let key = (segment.id, block.at);
        if let Some(found) = self.held.lock().touch(key) {
            return Ok(found);
        }
        let eighths: Arc<[u32]> = Arc::from(load(segment, block)?);
        self.held.lock().insert(key, &eighths, self.bytes_max);
        Ok(eighths)
    }
}

impl Held {
    fn touch(&mut self, key: (u64, u64)) -> Option<Arc<[u32]>> {
        self.clock += 1;
        let block = self.blocks.get_mut(&key)?;
        self.order.remove(&block.used);
        block.used = self.clock;
        self.order.insert(self.clock, key);
        Some(Arc::clone(&block.eighths))
    }

    fn insert(&mut self, key: (u64, u64), eighths: &Arc<[u32]>, bytes_max: usize) {
        if self.touch(key).is_some() {
            return;
        }
        let used = self.clock;
        self.blocks.insert(
            key,
            Block {
                eighths: Arc::clone(eighths),
                used,
            },
        );
        self.order.insert(used, key);
        self.bytes += size_of_val(&eighths[..]);
        while self.bytes > bytes_max && self.order.len() > 1 {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some(block) = self.blocks.remove(&oldest) {
                self.bytes -= size_of_val(&block.eighths[..]);
            }
        }
    }
}

fn load(segment: &Arc<Segment>, block: &BlockRef) -> Result<Vec<u32>> {
    let held = segment.index().and_then(|index| load_from(&index, block));
    if let Some(eighths) = held {
        return Ok(eighths);
    }
    tracing::warn!(segment = %segment.path.display(), "an index block is missing or bad; walking the segment");
    let rebuilt = index::rebuild(segment)?;
    load_from(&rebuilt, block).ok_or_else(|| {
        let what = "the offsets of its entries can neither be read nor rebuilt; run `everlog verify`";
        Error::at(ErrorKind::Damaged, &segment.path, what)
    })
}

fn load_from(index: &crate::segment::IndexBytes, block: &BlockRef) -> Option<Vec<u32>> {
    let len = usize::try_from(block.count).ok()?.checked_mul(4)?;
    let bytes = index::read_block(index, block.at, len)?;
    decode_block(&bytes, block.crc, block.count).ok()
}
