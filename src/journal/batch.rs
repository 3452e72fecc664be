//! What a caller hands in: operations for any logs of the journal, atomic at a crash.

use bytes::Bytes;

use crate::format::{Frame, FrameSpec, Kind, payload_crc, term_changes};
use crate::types::{EntryId, LogKey, Term};

/// The caller's atomic unit: operations for any logs of one journal, applied in order; after a crash all of them stand or none.
///
/// Payloads are copied in and checksummed here, outside every lock. At most 16,000 operations and about 1 GiB; more is `Invalid` when it
/// is handed in.
///
/// ```
/// use everlog::{LogKey, WriteBatch};
/// let mut batch = WriteBatch::new();
/// batch.append(LogKey(1), b"entry").set(LogKey(1), 0, b"vote");
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub(crate) ops: Vec<Wish>,
    buffer: Vec<u8>,
    /// The incarnation that the log must have; `None` where the caller means whatever log has the key.
    pub(crate) incarnation: Option<u64>,
    /// Handed in by the engine that holds the log.
    pub(crate) by_holder: bool,
}

/// One operation as asked for: not yet checked against the log.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) log: LogKey,
    pub(crate) what: What,
    start: usize,
    len: usize,
    pub(crate) crc: u32,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Append,
    AppendAt(EntryId),
    TruncateFrom(u64),
    PurgeTo(u64),
    PurgeThrough(EntryId),
    Reset(EntryId),
    Set(u8),
    Create(u64),
    Delete,
    /// Says again what holds, so that the segment that said it can go.
    RestateFacts,
    RestateCell(u8),
    /// The floor rises to this segment.
    Floor(u64),
}

impl What {
    /// Appends are refused when the disk is nearly full; everything else may use the reserve.
    pub(crate) fn is_append(self) -> bool {
        matches!(self, What::Append | What::AppendAt(_))
    }
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Appends an entry at the log's next index, with the term of its last entry.
    pub fn append(&mut self, log: LogKey, payload: impl AsRef<[u8]>) -> &mut Self {
        self.push(log, What::Append, payload.as_ref())
    }

    /// Appends an entry whose id the caller's consensus chose: the index must be the log's next, the term no lower than its last.
    pub fn append_at(&mut self, log: LogKey, id: EntryId, payload: impl AsRef<[u8]>) -> &mut Self {
        self.push(log, What::AppendAt(id), payload.as_ref())
    }

    /// Drops the entries from `index` on. At or beyond the end nothing happens; below the first entry it is `Invalid`.
    pub fn truncate_from(&mut self, log: LogKey, index: u64) -> &mut Self {
        self.push(log, What::TruncateFrom(index), &[])
    }

    /// Drops the entries before `index`. Beyond the end the log is empty afterwards and goes on at `index`, and its last
    /// purged id has the term of its last entry.
    pub fn purge_to(&mut self, log: LogKey, index: u64) -> &mut Self {
        self.push(log, What::PurgeTo(index), &[])
    }

    /// Drops the entries up to and including `id`, which may lie beyond the end.
    pub fn purge_through(&mut self, log: LogKey, id: EntryId) -> &mut Self {
        self.push(log, What::PurgeThrough(id), &[])
    }

    /// Empties the log; `last` counts as its last purged entry and the next one is `last.index + 1`. For an installed snapshot.
    pub fn reset(&mut self, log: LogKey, last: EntryId) -> &mut Self {
        self.push(log, What::Reset(last), &[])
    }

    /// Sets a cell, a small value of the log of which the last statement counts. All cells of a log together hold at most 64 KiB.
    pub fn set(&mut self, log: LogKey, cell: u8, value: impl AsRef<[u8]>) -> &mut Self {
        self.push(log, What::Set(cell), value.as_ref())
    }

    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Payload bytes of all operations.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.buffer.len() as u64
    }

    pub(crate) fn push(&mut self, log: LogKey, what: What, payload: &[u8]) -> &mut Self {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(payload);
        let crc = payload_crc(payload);
        self.ops.push(Wish {
            log,
            what,
            start,
            len: payload.len(),
            crc,
        });
        self
    }

    /// An empty batch of the engine that holds the log.
    #[cfg(feature = "snapshot")]
    pub(crate) fn of_holder() -> WriteBatch {
        WriteBatch {
            by_holder: true,
            ..WriteBatch::default()
        }
    }

    /// Appends an entry whose payload comes in two parts.
    #[cfg(feature = "snapshot")]
    pub(crate) fn append_parts(&mut self, log: LogKey, head: &[u8], rest: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(rest);
        let crc = payload_crc(&self.buffer[start..]);
        self.ops.push(Wish {
            log,
            what: What::Append,
            start,
            len: head.len() + rest.len(),
            crc,
        });
    }

    /// One operation of a handle: it is for the log of that incarnation, and for no later one of the key.
    pub(crate) fn bound(log: LogKey, incarnation: u64, what: What, payload: &[u8]) -> WriteBatch {
        let mut batch = WriteBatch {
            ops: Vec::with_capacity(1),
            buffer: Vec::with_capacity(payload.len()),
            incarnation: Some(incarnation),
            by_holder: false,
        };
        batch.push(log, what, payload);
        batch
    }

    /// Length of the longest payload.
    pub(crate) fn longest(&self) -> u64 {
        self.ops.iter().map(|op| op.len).max().unwrap_or(0) as u64
    }

    /// The payloads, one for each operation, sharing one allocation.
    pub(crate) fn freeze(self) -> (Vec<Wish>, Bytes) {
        (self.ops, Bytes::from(self.buffer))
    }
}

impl Wish {
    pub(crate) fn payload(&self, buffer: &Bytes) -> Bytes {
        buffer.slice(self.start..self.start + self.len)
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.len
    }
}

/// What a [`WriteBatch`] became: known at once, before it is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The ids of the appended entries, in order.
    pub ids: Vec<EntryId>,
}

/// A batch that `try_submit` did not take, given back with the reason.
#[derive(Debug)]
pub struct Refused {
    /// `Busy` (try again), `NoSpace`, or what `submit` would have said.
    pub error: crate::error::Error,
    /// The batch, unchanged.
    pub batch: WriteBatch,
}

/// A sequenced operation: what its frame will say.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) cell: u8,
    pub(crate) log: LogKey,
    pub(crate) incarnation: u64,
    pub(crate) index: u64,
    pub(crate) term: Term,
    pub(crate) payload: Bytes,
    pub(crate) crc: u32,
    pub(crate) serial: u64,
}

/// A sequenced batch on its way to the disk. Never split: its frames go into one batch on disk.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) ops: Vec<Op>,
    /// Bytes it takes on disk as a batch of its own, at most; as many it holds of the in-flight bound.
    pub(crate) charge: u64,
    pub(crate) submitted: crate::sync::Instant,
}

impl Op {
    /// What readers would decode, for the index and the logs.
    pub(crate) fn frame(&self) -> Frame {
        Frame {
            kind: self.kind,
            cell: self.cell,
            log: self.log,
            incarnation: self.incarnation,
            index: self.index,
            term: self.term,
            len: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
            payload_crc: self.crc,
            payload_at: 0,
        }
    }

    /// Whether a segment may be free because of it.
    pub(crate) fn frees_space(&self) -> bool {
        matches!(
            self.kind,
            Kind::Purge | Kind::Truncate | Kind::Reset | Kind::Delete
        )
    }
}

impl Write {
    /// Entries that it needs in a batch's table of terms, at most.
    pub(crate) fn terms(&self) -> usize {
        term_changes(self.ops.iter().map(|op| op.term)) + usize::from(!self.ops.is_empty())
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.ops.iter().map(|op| op.payload.len() as u64).sum()
    }

    pub(crate) fn frames(&self) -> impl Iterator<Item = FrameSpec<'_>> {
        self.ops.iter().map(|op| FrameSpec {
            kind: op.kind,
            cell: op.cell,
            log: op.log,
            incarnation: op.incarnation,
            index: op.index,
            term: op.term,
            payload: &op.payload,
            payload_crc: op.crc,
        })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    impl WriteBatch {
        /// A batch that holds so many bytes, which nobody had to write or sum up.
        pub(crate) fn of_bytes(bytes: usize) -> WriteBatch {
            WriteBatch {
                buffer: vec![0; bytes],
                ..WriteBatch::default()
            }
        }
    }

    fn write(terms: &[u128]) -> Write {
        let op = |term: &u128| Op {
            kind: Kind::Append,
            cell: 0,
            log: LogKey(1),
            incarnation: 1,
            index: 0,
            term: Term(*term),
            payload: Bytes::from_static(b"four"),
            crc: 0,
            serial: 0,
        };
        Write::new(terms.iter().map(op).collect(), 0)
    }

    /// However writes are packed into batches, the table of terms is no longer than they said.
    #[test]
    fn writes_state_no_fewer_terms_than_their_batch_needs() {
        for parts in [
            &[&[5, 5][..], &[5]][..],
            &[&[1, 2, 1], &[0, 1]],
            &[&[0], &[3], &[0]],
            &[&[]],
        ] {
            let stated: usize = parts.iter().map(|part| write(part).terms()).sum();
            let whole: Vec<Term> = parts.concat().into_iter().map(Term).collect();
            assert!(stated >= term_changes(whole), "{parts:?}");
            for part in parts {
                assert!(write(part).terms() <= part.len() + 1, "{part:?}");
                assert_eq!(write(part).payload_bytes(), 4 * part.len() as u64);
            }
        }
    }
}
