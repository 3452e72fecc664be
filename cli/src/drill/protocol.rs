//! How the drill and its child talk.
//!
//! Down the child's standard input goes a [`Start`], then the entries; the pipe stays open, and its end tells the child
//! that nobody is left to report to. Up its standard output come [`Record`]s of 32 bytes, each written whole by one
//! system call of at most [`PIPE_ATOMIC_BYTES`], so that a kill leaves no half record and threads do not mix theirs.
//!
//! A writer reports `Issue` before it appends and `Ack` after the append returned. So whatever a kill leaves in the
//! journal was reported as issued before, and of each writer at most one issued entry is not acknowledged.

use std::io::{self, Read};

use super::entries::read_number;

/// What a child needs to go on where the last one was killed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Number of logs; writer `w` appends to log `w % logs`.
    pub(crate) logs: u64,
    /// For each writer, which of its entries it issues next.
    pub(crate) next: Vec<u64>,
}

/// What a child reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The journal is open, and the writers start.
    Opened(Opened),
    /// A writer is about to append its entry `number`.
    Issue { writer: u32, number: u64 },
    /// The append of entry `number` returned: it is durable at `index`.
    Ack { writer: u32, number: u64, index: u64 },
    /// Of a mixed drill: operation `number`, issued before, returned; it survives a kill, and if `durable` a failed sync, too.
    Done { writer: u32, number: u64, durable: bool },
    /// Of a mixed drill: an operation of the writer failed, which a planned fault explains; the opening, if it is [`OPENING`].
    Failed { writer: u32 },
    /// Of a mixed drill: the counters of this life so far.
    Counted(Counted),
}

/// Counters of a life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Files that were given up, and their bytes saved into fresh ones.
    pub(crate) rehomings: u32,
    /// Calls that failed as planned.
    pub(crate) faults: u64,
    /// Segments that were filled.
    pub(crate) rotations: u64,
    /// Segments that were freed.
    pub(crate) freed: u64,
}

/// What the child's opening did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Bytes of torn ends that were cut, and whether there was one.
    pub(crate) cut: Option<u64>,
    /// Bytes of an unproven tail that were carried forward.
    pub(crate) carried_bytes: u64,
    /// How long it took, in microseconds.
    pub(crate) micros: u64,
}

impl Start {
    /// Reads what [`Start::write`] wrote.
    pub(crate) fn read(input: &mut impl Read) -> io::Result<Start> {
        let logs = read_number(input)?;
        let writers = read_number(input)?;
        let next = (0..writers)
            .map(|_| read_number(input))
            .collect::<io::Result<_>>()?;
        Ok(Start { logs, next })
    }

    /// Hands it to the child.
    pub(crate) fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        out.write_all(&self.logs.to_le_bytes())?;
        out.write_all(&(self.next.len() as u64).to_le_bytes())?;
        self.next.iter().try_for_each(|n| out.write_all(&n.to_le_bytes()))
    }
}

impl Record {
    /// Reads the next record; `None` when the child is gone.
    pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Record>> {
        let mut bytes = [0; RECORD_BYTES];
        match input.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        let mut words = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word));
        let (Some(head), Some(a), Some(b), Some(c)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            unreachable!("a record has four words");
        };
        let writer = u32::try_from(head >> 32).map_err(io::Error::other)?;
        match head & 0xffff_ffff {
            TAG_OPENED => Ok(Some(Record::Opened(Opened {
                cut: (writer == 1).then_some(a),
                carried_bytes: b,
                micros: c,
            }))),
            TAG_ISSUE => Ok(Some(Record::Issue { writer, number: a })),
            TAG_ACK => Ok(Some(Record::Ack {
                writer,
                number: a,
                index: b,
            })),
            TAG_DONE => Ok(Some(Record::Done {
                writer,
                number: a,
                durable: b == 1,
            })),
            TAG_FAILED => Ok(Some(Record::Failed { writer })),
            TAG_COUNTED => Ok(Some(Record::Counted(Counted {
                rehomings: writer,
                faults: a,
                rotations: b,
                freed: c,
            }))),
            tag => Err(io::Error::other(format!(
                "the child reports something unknown, {tag}"
            ))),
        }
    }

    /// The bytes of the record.
    pub(crate) fn encode(self) -> [u8; RECORD_BYTES] {
        let (tag, writer, words) = match self {
            Record::Opened(o) => (
                TAG_OPENED,
                u32::from(o.cut.is_some()),
                [o.cut.unwrap_or(0), o.carried_bytes, o.micros],
            ),
            Record::Issue { writer, number } => (TAG_ISSUE, writer, [number, 0, 0]),
            Record::Ack {
                writer,
                number,
                index,
            } => (TAG_ACK, writer, [number, index, 0]),
            Record::Done {
                writer,
                number,
                durable,
            } => (TAG_DONE, writer, [number, u64::from(durable), 0]),
            Record::Failed { writer } => (TAG_FAILED, writer, [0; 3]),
            Record::Counted(c) => (TAG_COUNTED, c.rehomings, [c.faults, c.rotations, c.freed]),
        };
        let mut bytes = [0; RECORD_BYTES];
        let head = tag | u64::from(writer) << 32;
        bytes[..8].copy_from_slice(&head.to_le_bytes());
        for (chunk, word) in bytes[8..].as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }
}

/// Size of a [`Record`].
pub(crate) const RECORD_BYTES: usize = 32;
/// The longest write that POSIX keeps whole on a pipe.
const PIPE_ATOMIC_BYTES: usize = 512;
const _: () = assert!(2 * RECORD_BYTES <= PIPE_ATOMIC_BYTES);
/// Who failed, of a child that could not open the journal, which a planned fault explains: it waits for its end.
pub(crate) const OPENING: u32 = u32::MAX;

const TAG_OPENED: u64 = 1;
const TAG_ISSUE: u64 = 2;
const TAG_ACK: u64 = 3;
const TAG_DONE: u64 = 4;
const TAG_FAILED: u64 = 5;
const TAG_COUNTED: u64 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received() {
        let opened = |cut| {
            Record::Opened(Opened {
                cut,
                carried_bytes: 5,
                micros: 6,
            })
        };
        let records = [
            opened(None),
            opened(Some(0)),
            opened(Some(9)),
            Record::Issue { writer: 3, number: 4 },
            Record::Ack {
                writer: u32::MAX,
                number: 4,
                index: u64::MAX,
            },
            Record::Done {
                writer: 1,
                number: 2,
                durable: true,
            },
            Record::Failed { writer: 7 },
            Record::Counted(Counted {
                rehomings: 1,
                faults: 2,
                rotations: 3,
                freed: 4,
            }),
        ];
        let pipe: Vec<u8> = records.iter().flat_map(|r| r.encode()).collect();
        let mut input = pipe.as_slice();
        for record in records {
            assert_eq!(Record::read(&mut input).unwrap(), Some(record));
        }
        assert_eq!(Record::read(&mut input).unwrap(), None);
        let start = Start {
            logs: 2,
            next: vec![0, 7, 1],
        };
        let mut pipe = Vec::new();
        start.write(&mut pipe).unwrap();
        assert_eq!(Start::read(&mut pipe.as_slice()).unwrap(), start);
    }
}
