//! The machine with its position: what one entry after the other changes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::machine::{Capture, StateMachine};
use super::sessions::{Seen, Sessions, too_old};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Command, Tables};
use crate::types::{EntryId, Term};

/// Changed under one lock, by entries in the order of the log.
pub(super) struct Core<M> {
    pub(super) machine: M,
    /// The last entry whose effect is in the machine.
    pub(super) applied: Option<EntryId>,
    pub(super) sessions: Sessions,
    /// Entries that are passed over, ascending by index and term.
    pub(super) skipped: Vec<EntryId>,
    /// Why the machine is not to be looked at any more: it failed, or the engine was closed.
    pub(super) closed: Option<Error>,
    /// A write was not found durable: entries from there on are for the next opening.
    pub(super) lost: Option<Error>,
}

/// A state at one moment, with the entry that it reaches.
pub(super) struct Image {
    pub(super) capture: Capture,
    pub(super) covers: EntryId,
    pub(super) tables: Tables,
}

impl<M: StateMachine> Core<M> {
    pub(super) fn new(machine: M) -> Core<M> {
        Core {
            machine,
            applied: None,
            sessions: Sessions::default(),
            skipped: Vec::new(),
            closed: None,
            lost: None,
        }
    }

    /// Applies one entry of an engine's log. The outer error ends the machine; the inner one is the answer to the command.
    pub(super) fn apply<B: AsRef<[u8]>>(
        &mut self,
        id: EntryId,
        command: &Command<B>,
    ) -> Result<Result<Bytes>> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if self.is_skipped(id) {
            self.applied = Some(id);
            let text = format!("entry {id} is skipped");
            return Ok(Err(about(ErrorKind::ApplyFailed, id, text)));
        }
        if let Command::Once { client, sequence, .. } = command {
            match self.sessions.look(*client, *sequence) {
                Seen::New => {}
                Seen::Again(reply) => {
                    self.applied = Some(id);
                    return Ok(Ok(reply));
                }
                Seen::Old(last) => {
                    self.applied = Some(id);
                    return Ok(Err(too_old(*client, *sequence, last)));
                }
            }
        }
        let reply = self.apply_bytes(id, command.body().as_ref())?;
        if let Command::Once {
            client,
            sequence,
            clients,
            ..
        } = command
        {
            self.sessions
                .note(*client, *sequence, id.index, reply.clone(), *clients as usize);
        }
        Ok(Ok(reply))
    }

    /// Applies the bytes of one entry. After an error the machine is closed.
    pub(super) fn apply_bytes(&mut self, id: EntryId, command: &[u8]) -> Result<Bytes> {
        let machine = &mut self.machine;
        match catch_unwind(AssertUnwindSafe(|| machine.apply(id, command))) {
            Ok(reply) => {
                self.applied = Some(id);
                Ok(reply)
            }
            Err(panic) => {
                let said = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "a panic without a message".into());
                let text = format!("the machine cannot apply entry {id}: {said}");
                tracing::error!(%id, said, "the machine cannot apply an entry");
                let error = about(ErrorKind::ApplyFailed, id, text);
                self.closed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Of another term it is another entry.
    fn is_skipped(&self, id: EntryId) -> bool {
        self.skipped
            .binary_search_by_key(&by_index(&id), by_index)
            .is_ok()
    }

    /// The state as it is now; `None` before the first entry.
    pub(super) fn image(&self) -> Result<Option<Image>> {
        use crate::mutant::{Rule, removed};
        if let Some(error) = &self.closed
            && !(removed(Rule::FailedIsNotCaptured) && error.kind() == ErrorKind::ApplyFailed)
        {
            return Err(error.clone());
        }
        let Some(covers) = self.applied else {
            return Ok(None);
        };
        let mut tables = Tables {
            sessions: self.sessions.records(),
            skipped: self.skipped.clone(),
        };
        if removed(Rule::SessionsAreKept) {
            tables.sessions.clear();
        }
        let capture = self.machine.capture();
        Ok(Some(Image {
            capture,
            covers,
            tables,
        }))
    }

    /// Takes over what stood around the machine in a snapshot.
    pub(super) fn restored(&mut self, covers: EntryId, tables: Tables) {
        self.applied = Some(covers);
        self.sessions = Sessions::from_records(tables.sessions);
        self.skip(tables.skipped);
    }

    /// These are passed over.
    pub(super) fn skip(&mut self, more: Vec<EntryId>) {
        self.skipped.extend(more);
        self.skipped.sort_by_key(by_index);
        self.skipped.dedup();
    }
}

fn by_index(id: &EntryId) -> (u64, Term) {
    (id.index, id.term)
}

/// An error about an entry.
pub(super) fn about(kind: ErrorKind, id: EntryId, text: String) -> Error {
    Error::about_entry(kind, (id.term.0, id.index), text)
}
