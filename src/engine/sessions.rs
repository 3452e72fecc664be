//! The table behind `execute_once`: of each client the last command, and what was replied.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::format::SessionRecord;

/// What a client's command is, seen from what is remembered of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is the next one.
    New,
    /// It was the last one, and this was the reply.
    Again(Bytes),
    /// A later one has been applied: this number.
    Old(u64),
}

/// Changed by entries only, so that it is a part of the state like the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    clients: BTreeMap<u64, Session>,
    /// Clients by their last entry: the first one is forgotten first.
    by_age: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug)]
struct Session {
    sequence: u64,
    index: u64,
    reply: Bytes,
}

impl Sessions {
    pub(super) fn look(&self, client: u64, sequence: u64) -> Seen {
        match self.clients.get(&client) {
            Some(session) if session.sequence == sequence => Seen::Again(session.reply.clone()),
            Some(session) if session.sequence > sequence => Seen::Old(session.sequence),
            _ => Seen::New,
        }
    }

    /// The command `sequence` of `client`, in the entry `index`, was replied to.
    pub(super) fn note(&mut self, client: u64, sequence: u64, index: u64, reply: Bytes, most: usize) {
        let session = Session {
            sequence,
            index,
            reply,
        };
        if let Some(old) = self.clients.insert(client, session) {
            self.by_age.remove(&old.index);
        }
        self.by_age.insert(index, client);
        while self.clients.len() > most.max(1) {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                return;
            };
            self.clients.remove(&oldest);
        }
    }

    pub(super) fn records(&self) -> Vec<SessionRecord> {
        let clients = self.clients.iter();
        clients
            .map(|(client, session)| SessionRecord {
                client: *client,
                sequence: session.sequence,
                index: session.index,
                reply: session.reply.clone(),
            })
            .collect()
    }

    pub(super) fn from_records(records: Vec<SessionRecord>) -> Sessions {
        let mut sessions = Sessions::default();
        for record in records {
            // Copied out of the snapshot's bytes, which would otherwise stay in memory with it.
            let reply = Bytes::copy_from_slice(&record.reply);
            sessions.note(record.client, record.sequence, record.index, reply, usize::MAX);
        }
        sessions
    }
}

/// What a client is told whose command is older than its last one.
pub(super) fn too_old(client: u64, sequence: u64, last: u64) -> Error {
    let text = format!(
        "command {sequence} of client {client} comes after {last}; its reply is no longer kept, and it was not applied again"
    );
    Error::new(ErrorKind::Invalid, text)
}

/// The reply of a command that was seen before, if it was.
pub(super) fn earlier_reply(sessions: &Sessions, client: u64, sequence: u64) -> Result<Option<Bytes>> {
    match sessions.look(client, sequence) {
        Seen::New => Ok(None),
        Seen::Again(reply) => Ok(Some(reply)),
        Seen::Old(last) => Err(too_old(client, sequence, last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_last_command_and_the_least_recent_one_is_forgotten() {
        let mut sessions = Sessions::default();
        let reply = |text: &'static str| Bytes::from_static(text.as_bytes());
        sessions.note(1, 5, 10, reply("a"), 2);
        sessions.note(2, 1, 11, reply("b"), 2);
        assert_eq!(sessions.look(1, 5), Seen::Again(reply("a")));
        assert_eq!(sessions.look(1, 4), Seen::Old(5));
        assert_eq!(sessions.look(1, 6), Seen::New);
        sessions.note(1, 6, 12, reply("c"), 2);
        sessions.note(3, 1, 13, reply("d"), 2);
        assert_eq!(sessions.look(2, 1), Seen::New, "it was the least recent one");
        let again = Sessions::from_records(sessions.records());
        assert_eq!(again.look(1, 6), Seen::Again(reply("c")));
        assert_eq!(again.records(), sessions.records());
        assert!(earlier_reply(&again, 1, 3).is_err());
    }
}
