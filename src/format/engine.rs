//! What an engine writes: the head of a command in its log, and of its snapshots what stands around the bytes of the machine.
//!
//! ```text
//! command:  kind u8 = 1 | the caller's bytes
//!           kind u8 = 2 | client u64 | sequence u64 | clients u32 | the caller's bytes
//! metadata of a snapshot, 32 bytes, then those of the caller
//! offset  size  field
//!      0     8  magic          "EVENGINE"
//!      8     2  version        1
//!     10     6  zero           refused otherwise
//!     16     8  machine_len    bytes of the machine, with which the state begins
//!     24     8  zero           refused otherwise
//! state:    the machine | tables
//! tables:   count u64 | each client: client u64, sequence u64, index u64, length u64, the reply
//!           count u64 | each skipped entry: term u128, index u64
//! ```
//!
//! *clients* is how many clients are remembered from that command on: were it not in the entry, replay under another setting would take as new
//! what was answered from memory then, or the other way round.
//!
//! The skipped entries stand in a cell of the log, too, encoded as in the tables. No checksums of their own: entries, cells and chunks
//! have them.

use core::ops::Range;

use bytes::Bytes;

use super::field::{array, field, get_u16, get_u32, get_u64, is_zero, put};
use super::{Bad, require};
use crate::types::{EntryId, Term};

const MAGIC: Range<usize> = field(0, 8);
const VERSION_AT: Range<usize> = field(MAGIC.end, 2);
const ZERO: Range<usize> = field(VERSION_AT.end, 6);
const MACHINE_LEN: Range<usize> = field(ZERO.end, 8);
const MORE_ZERO: Range<usize> = field(MACHINE_LEN.end, 8);

/// Bytes of the header in a snapshot's metadata.
pub(crate) const ENGINE_HEADER_LEN: usize = MORE_ZERO.end;
const _: () = assert!(ENGINE_HEADER_LEN == 32); // the table above

const MAGIC_BYTES: [u8; 8] = *b"EVENGINE";
const ENGINE_VERSION: u16 = 1;
/// [`Bad::is_newer`] measures every version by the journal's.
const _: () = assert!(ENGINE_VERSION == super::VERSION);

/// What a command has in front, at most.
pub(crate) const COMMAND_HEAD_MAX: usize = 21;
const PLAIN: u8 = 1;
const ONCE: u8 = 2;

/// An entry of an engine's log, with the caller's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command<B = Bytes> {
    Plain(B),
    /// Takes effect once, however often it stands in the log.
    Once {
        client: u64,
        sequence: u64,
        /// How many clients are remembered from then on.
        clients: u32,
        command: B,
    },
}

impl<'a> Command<&'a [u8]> {
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Command<&'a [u8]>, Bad> {
        match payload.first() {
            None => Err(Bad::Short),
            Some(&PLAIN) => Ok(Command::Plain(&payload[1..])),
            Some(&ONCE) if payload.len() < COMMAND_HEAD_MAX => Err(Bad::Short),
            Some(&ONCE) => Ok(Command::Once {
                client: get_u64(payload, 1..9),
                sequence: get_u64(payload, 9..17),
                clients: get_u32(payload, 17..21),
                command: &payload[COMMAND_HEAD_MAX..],
            }),
            Some(_) => Err(Bad::Magic),
        }
    }
}

impl<B> Command<B> {
    /// What stands in front of the caller's bytes.
    pub(crate) fn head(&self) -> Vec<u8> {
        match self {
            Command::Plain(_) => vec![PLAIN],
            Command::Once {
                client,
                sequence,
                clients,
                ..
            } => {
                let mut head = vec![ONCE];
                head.extend_from_slice(&client.to_le_bytes());
                head.extend_from_slice(&sequence.to_le_bytes());
                head.extend_from_slice(&clients.to_le_bytes());
                head
            }
        }
    }

    /// The caller's bytes.
    pub(crate) fn body(&self) -> &B {
        match self {
            Command::Plain(command) | Command::Once { command, .. } => command,
        }
    }
}

/// With what the metadata of an engine's snapshot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineHeader {
    pub(crate) machine_len: u64,
}

impl EngineHeader {
    pub(crate) fn encode(&self) -> [u8; ENGINE_HEADER_LEN] {
        let mut bytes = [0; ENGINE_HEADER_LEN];
        put(&mut bytes, MAGIC, MAGIC_BYTES);
        put(&mut bytes, VERSION_AT, ENGINE_VERSION.to_le_bytes());
        put(&mut bytes, MACHINE_LEN, self.machine_len.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(metadata: &[u8]) -> Result<EngineHeader, Bad> {
        let bytes = metadata.get(..ENGINE_HEADER_LEN).ok_or(Bad::Short)?;
        if array::<8>(bytes, MAGIC) != MAGIC_BYTES {
            return Err(Bad::Magic);
        }
        match get_u16(bytes, VERSION_AT) {
            ENGINE_VERSION => {}
            version => return Err(Bad::Version(version)),
        }
        require(is_zero(&bytes[ZERO]) && is_zero(&bytes[MORE_ZERO]), "zero")?;
        Ok(EngineHeader {
            machine_len: get_u64(bytes, MACHINE_LEN),
        })
    }
}

/// What is remembered of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    pub(crate) client: u64,
    pub(crate) sequence: u64,
    /// The entry of its last command.
    pub(crate) index: u64,
    pub(crate) reply: Bytes,
}

/// What stands behind the machine in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) sessions: Vec<SessionRecord>,
    pub(crate) skipped: Vec<EntryId>,
}

impl Tables {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(self.sessions.len() as u64).to_le_bytes());
        for session in &self.sessions {
            for number in [session.client, session.sequence, session.index] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&(session.reply.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&session.reply);
        }
        bytes.extend_from_slice(&encode_skips(&self.skipped));
        bytes
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Tables, Bad> {
        let mut rest = Rest { bytes, at: 0 };
        let mut tables = Tables::default();
        for _ in 0..rest.u64()? {
            let (client, sequence, index) = (rest.u64()?, rest.u64()?, rest.u64()?);
            let len = usize::try_from(rest.u64()?).map_err(|_| Bad::Short)?;
            let reply = rest.take(len)?;
            tables.sessions.push(SessionRecord {
                client,
                sequence,
                index,
                reply: bytes.slice(reply),
            });
        }
        tables.skipped = rest.skips()?;
        Ok(tables)
    }
}

pub(crate) fn encode_skips(skipped: &[EntryId]) -> Vec<u8> {
    let mut bytes = (skipped.len() as u64).to_le_bytes().to_vec();
    for id in skipped {
        bytes.extend_from_slice(&id.term.0.to_le_bytes());
        bytes.extend_from_slice(&id.index.to_le_bytes());
    }
    bytes
}

pub(crate) fn decode_skips(bytes: &Bytes) -> Result<Vec<EntryId>, Bad> {
    Rest { bytes, at: 0 }.skips()
}

/// What is not decoded yet. Nothing is allocated by a count that was not met in bytes.
struct Rest<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Rest<'_> {
    fn take(&mut self, len: usize) -> Result<Range<usize>, Bad> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let range = self.at..end.ok_or(Bad::Short)?;
        self.at = range.end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let range = self.take(N)?;
        Ok(array(self.bytes, range))
    }

    fn u64(&mut self) -> Result<u64, Bad> {
        self.array().map(u64::from_le_bytes)
    }

    /// The skipped entries, with which everything ends.
    fn skips(&mut self) -> Result<Vec<EntryId>, Bad> {
        let mut skipped = Vec::new();
        for _ in 0..self.u64()? {
            let term = Term(self.array().map(u128::from_le_bytes)?);
            skipped.push(EntryId {
                term,
                index: self.u64()?,
            });
        }
        require(self.at == self.bytes.len(), "end")?;
        Ok(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let session = |client: u64, reply: &'static [u8]| SessionRecord {
            client,
            sequence: client + 7,
            index: client * 3,
            reply: Bytes::from_static(reply),
        };
        Tables {
            sessions: vec![session(1, b""), session(u64::MAX / 4, b"a reply")],
            skipped: vec![EntryId::new(u128::MAX, 9)],
        }
    }

    #[test]
    fn commands_headers_and_tables_read_back_as_they_were_written() {
        let body = &b"command"[..];
        let once = Command::Once {
            client: 5,
            sequence: 6,
            clients: 7,
            command: body,
        };
        let empty = Command::Once {
            client: u64::MAX,
            sequence: 0,
            clients: 1,
            command: &[][..],
        };
        for command in [Command::Plain(body), Command::Plain(&[][..]), once, empty] {
            let mut bytes = command.head();
            bytes.extend_from_slice(command.body());
            assert_eq!(Command::decode(&bytes), Ok(command));
        }
        let header = EngineHeader { machine_len: 77 };
        assert_eq!(EngineHeader::decode(&header.encode()), Ok(header));
        assert_eq!(Tables::decode(&tables().encode().into()), Ok(tables()));
    }

    #[test]
    fn what_no_engine_wrote_is_refused() {
        assert_eq!(Command::decode(&[]), Err(Bad::Short));
        assert_eq!(Command::decode(&[0, 1]), Err(Bad::Magic));
        assert_eq!(Command::decode(&[2; 20]), Err(Bad::Short));
        for zero in [ZERO, MORE_ZERO] {
            let mut header = EngineHeader { machine_len: 77 }.encode();
            header[zero.start] = 1;
            assert_eq!(EngineHeader::decode(&header), Err(Bad::Field("zero")));
        }
        let mut header = EngineHeader { machine_len: 77 }.encode();
        assert_eq!(EngineHeader::decode(&header[..31]), Err(Bad::Short));
        header[8] = 2;
        assert_eq!(EngineHeader::decode(&header), Err(Bad::Version(2)));
        header[0] ^= 1;
        assert_eq!(EngineHeader::decode(&header), Err(Bad::Magic));
        let whole = tables().encode();
        for len in 0..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..len]);
            assert!(Tables::decode(&cut).is_err(), "{len} bytes");
        }
        let mut more = whole;
        more.push(0);
        assert_eq!(Tables::decode(&more.into()), Err(Bad::Field("end")));
        let huge = Bytes::from_static(&[255; 8]);
        assert!(Tables::decode(&huge).is_err() && decode_skips(&huge).is_err());
    }
}
