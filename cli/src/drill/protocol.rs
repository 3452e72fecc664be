//! How the drill and its child talk.
//!
//! Down the child's standard input goes a [`Start`], then the entries; the pipe stays open, and its end tells the child
//! that nobody is left to report to. Up its standard output come [`Record`]s of 32 bytes, each written whole by one
//! system call of at most [`PIPE_ATOMIC_BYTES`], so that a kill leaves no half record and threads do not mix theirs.
//!
//! A writer reports `Issue` before it appends and `Ack` after the append returned. So whatever a kill leaves in the
//! journal was reported as issued before, and of each writer at most one issued entry is not acknowledged.

use std::io::{self, BufRead, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entries::read_number;

/// Reads what [`write_line`] wrote.
pub(super) fn read_line<T: DeserializeOwned>(input: &mut impl BufRead) -> io::Result<T> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Hands a brief to a child, as one line of JSON.
pub(super) fn write_line(brief: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, brief)?;
    out.write_all(b"\n")
}

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
    /// Of a drilled machine: it enters a stage.
    Begins { stage: Stage },
    /// Of a drilled machine: a stage is over, and took so long.
    Ends { stage: Stage, micros: u64 },
    /// Of a drilled machine, after a restart: a part of what the restart was made of.
    Restarted { part: u32, words: [u64; 3] },
    /// Of a drilled machine, after a restart: one of the newest commands of a writer stands at `index`.
    Stands { writer: u32, number: u64, index: u64 },
    /// Of a drilled machine, after a restart and behind every `Stands`: so many commands are in it, which give this digest.
    Stated { applied: u64, digest: u128 },
    /// Of a drilled machine: how long a restart would take now, as the engine says, and whether it says that its budget
    /// cannot be kept.
    Predicted { micros: u64, unattainable: bool },
}

/// What a drilled machine is doing when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The journal, the store and the engine are opened; the two that follow are parts of it.
    Opening,
    /// The newest snapshot is restored.
    Restore,
    /// The entries behind it are replayed.
    Replay,
    /// A checkpoint: captured, written, read back, and what it makes superfluous removed and purged.
    Checkpoint,
    /// Snapshots that nobody needs are removed, and their space is freed.
    Collection,
}

impl Stage {
    /// All of them.
    pub(crate) const ALL: [Stage; 5] = [
        Stage::Opening,
        Stage::Restore,
        Stage::Replay,
        Stage::Checkpoint,
        Stage::Collection,
    ];

    /// Whether it comes before the child works.
    pub(crate) fn is_opening(self) -> bool {
        matches!(self, Stage::Opening | Stage::Restore | Stage::Replay)
    }

    fn read(number: u32) -> io::Result<Stage> {
        let found = Stage::ALL.into_iter().find(|stage| *stage as u32 == number);
        found.ok_or_else(|| io::Error::other(format!("the child reports something unknown, stage {number}")))
    }
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
        Record::decode(head, [a, b, c]).map(Some)
    }

    /// What [`encode`](Record::encode) made of it.
    fn decode(head: u64, [a, b, c]: [u64; 3]) -> io::Result<Record> {
        let writer = u32::try_from(head >> 32).map_err(io::Error::other)?;
        Ok(match head & 0xffff_ffff {
            TAG_OPENED => Record::Opened(Opened {
                cut: (writer == 1).then_some(a),
                carried_bytes: b,
                micros: c,
            }),
            TAG_ISSUE => Record::Issue { writer, number: a },
            TAG_ACK => Record::Ack {
                writer,
                number: a,
                index: b,
            },
            TAG_DONE => Record::Done {
                writer,
                number: a,
                durable: b == 1,
            },
            TAG_FAILED => Record::Failed { writer },
            TAG_COUNTED => Record::Counted(Counted {
                rehomings: writer,
                faults: a,
                rotations: b,
                freed: c,
            }),
            TAG_BEGINS => Record::Begins {
                stage: Stage::read(writer)?,
            },
            TAG_ENDS => Record::Ends {
                stage: Stage::read(writer)?,
                micros: a,
            },
            TAG_RESTARTED => Record::Restarted {
                part: writer,
                words: [a, b, c],
            },
            TAG_STANDS => Record::Stands {
                writer,
                number: a,
                index: b,
            },
            TAG_STATED => Record::Stated {
                applied: a,
                digest: u128::from(b) << 64 | u128::from(c),
            },
            TAG_PREDICTED => Record::Predicted {
                micros: a,
                unattainable: b == 1,
            },
            tag => {
                let what = format!("the child reports something unknown, {tag}");
                return Err(io::Error::other(what));
            }
        })
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
            Record::Begins { stage } => (TAG_BEGINS, stage as u32, [0; 3]),
            Record::Ends { stage, micros } => (TAG_ENDS, stage as u32, [micros, 0, 0]),
            Record::Restarted { part, words } => (TAG_RESTARTED, part, words),
            Record::Stands {
                writer,
                number,
                index,
            } => (TAG_STANDS, writer, [number, index, 0]),
            Record::Stated { applied, digest } => (TAG_STATED, 0, [applied, high(digest), low(digest)]),
            Record::Predicted { micros, unattainable } => {
                (TAG_PREDICTED, 0, [micros, u64::from(unattainable), 0])
            }
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

fn high(number: u128) -> u64 {
    low(number >> 64)
}

fn low(number: u128) -> u64 {
    u64::try_from(number & u128::from(u64::MAX)).unwrap_or(u64::MAX)
}

/// Size of a [`Record`].
pub(crate) const RECORD_BYTES: usize = 32;
/// The longest write that POSIX keeps whole on a pipe.
const PIPE_ATOMIC_BYTES: usize = 512;
/// How many records one write may have.
pub(crate) const RECORDS_MAX: usize = PIPE_ATOMIC_BYTES / RECORD_BYTES;
/// Who failed, of a child that could not open the journal, which a planned fault explains: it waits for its end.
pub(crate) const OPENING: u32 = u32::MAX;

const TAG_OPENED: u64 = 1;
const TAG_ISSUE: u64 = 2;
const TAG_ACK: u64 = 3;
const TAG_DONE: u64 = 4;
const TAG_FAILED: u64 = 5;
const TAG_COUNTED: u64 = 6;
const TAG_BEGINS: u64 = 7;
const TAG_ENDS: u64 = 8;
const TAG_RESTARTED: u64 = 9;
const TAG_STANDS: u64 = 10;
const TAG_STATED: u64 = 11;
const TAG_PREDICTED: u64 = 12;

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
            Record::Ends {
                stage: Stage::Restore,
                micros: 5,
            },
            Record::Restarted {
                part: 2,
                words: [1, u64::MAX, 3],
            },
            Record::Stands {
                writer: 1,
                number: 2,
                index: 3,
            },
            Record::Stated {
                applied: 9,
                digest: 7 << 100 | 5,
            },
            Record::Predicted {
                micros: 1,
                unattainable: true,
            },
        ];
        let begins = Stage::ALL.map(|stage| Record::Begins { stage });
        let records = [&records[..], &begins].concat();
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
