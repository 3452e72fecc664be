//! The machine that is drilled: a map from numbers to lines, whose versions share nodes, so that a capture copies nothing.

use std::collections::VecDeque;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use everlog::EntryId;
use everlog::engine::{Capture, StateMachine};
use imbl::OrdMap;

use super::super::entries::read_number;
use super::super::protocol::{Record, Stage};
use super::digest::{Chain, Digest};
use super::plan::{STEP_MAX, decode};
use super::stages::Stages;

/// The machine.
pub(crate) struct Map {
    state: State,
    stages: Arc<Stages>,
    /// Loses a key when it is restored: the drill must notice.
    forgets: bool,
}

/// What it has become. Cheap to clone.
#[derive(Clone, Debug, Default)]
struct State {
    pairs: OrdMap<u64, Bytes>,
    /// Of each writer the newest commands, the oldest first: number and index.
    newest: OrdMap<u32, VecDeque<(u64, u64)>>,
    /// How many commands; the last one has the index before.
    applied: u64,
    chain: Chain,
}

impl Map {
    /// An empty one, which tells `stages` what it goes through.
    pub(crate) fn new(stages: Arc<Stages>, forgets: bool) -> Map {
        Map {
            state: State::default(),
            stages,
            forgets,
        }
    }

    /// What it holds, for whoever knows what it should hold: see [`Record::Stated`].
    pub(crate) fn state(&self) -> Vec<Record> {
        let state = &self.state;
        let mut records = Vec::new();
        let mut digest = Digest::new(state.applied, &state.chain);
        for (writer, newest) in &state.newest {
            digest.writer(*writer, newest.iter().copied());
            records.extend(newest.iter().map(|(number, index)| Record::Stands {
                writer: *writer,
                number: *number,
                index: *index,
            }));
        }
        for (key, value) in &state.pairs {
            digest.pair(*key, value);
        }
        records.push(Record::Stated {
            applied: state.applied,
            digest: digest.finish(),
        });
        records
    }
}

impl StateMachine for Map {
    /// Replies with the index, which is how a writer learns it.
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes {
        let state = &mut self.state;
        state.chain.push(id.index, command);
        state.applied = id.index + 1;
        // What is no command is in the chain, which nobody else has then.
        if let Some((writer, number, key, value)) = decode(command) {
            let newest = state.newest.entry(writer).or_default();
            newest.push_back((number, id.index));
            if newest.len() > STEP_MAX {
                newest.pop_front();
            }
            match value {
                Some(value) => state.pairs.insert(key, Bytes::copy_from_slice(value)),
                None => state.pairs.remove(&key),
            };
        }
        Bytes::copy_from_slice(&id.index.to_le_bytes())
    }

    fn capture(&self) -> Capture {
        self.stages.begin(Stage::Checkpoint);
        let state = self.state.clone();
        debug_assert!(state.pairs.ptr_eq(&self.state.pairs), "not one node was copied");
        Capture::new(move |into| {
            let mut into = BufWriter::with_capacity(BUFFER_BYTES, into);
            state.write(&mut into)?;
            into.flush()
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.stages.begin(Stage::Restore);
        self.state = State::read(&mut BufReader::with_capacity(BUFFER_BYTES, from))?;
        if self.forgets {
            let first = self.state.pairs.get_min().map(|(key, _)| *key);
            first.and_then(|key| self.state.pairs.remove(&key));
        }
        self.stages.end(Stage::Restore);
        Ok(())
    }

    fn clear(&mut self) {
        self.state = State::default();
    }
}

impl State {
    /// In the order of writers and keys, so that two snapshots of nearly the same state share chunks.
    fn write(&self, into: &mut impl Write) -> io::Result<()> {
        let mut number = |number: u64, bytes: &[u8]| {
            into.write_all(&number.to_le_bytes())?;
            into.write_all(bytes)
        };
        number(self.applied, &self.chain.0)?;
        number(self.newest.len() as u64, &[])?;
        for (writer, newest) in &self.newest {
            number(u64::from(*writer), &[])?;
            number(newest.len() as u64, &[])?;
            for (at, index) in newest {
                number(*at, &index.to_le_bytes())?;
            }
        }
        number(self.pairs.len() as u64, &[])?;
        for (key, value) in &self.pairs {
            number(*key, &[])?;
            number(value.len() as u64, value)?;
        }
        Ok(())
    }

    fn read(from: &mut impl Read) -> io::Result<State> {
        let mut state = State {
            applied: read_number(from)?,
            ..State::default()
        };
        from.read_exact(&mut state.chain.0)?;
        for _ in 0..read_number(from)? {
            let writer = u32::try_from(read_number(from)?).map_err(io::Error::other)?;
            let mut newest = VecDeque::new();
            for _ in 0..read_number(from)? {
                newest.push_back((read_number(from)?, read_number(from)?));
            }
            state.newest.insert(writer, newest);
        }
        for _ in 0..read_number(from)? {
            let key = read_number(from)?;
            let mut value = vec![0; usize::try_from(read_number(from)?).map_err(io::Error::other)?];
            from.read_exact(&mut value)?;
            state.pairs.insert(key, value.into());
        }
        Ok(state)
    }
}

const BUFFER_BYTES: usize = 256 << 10;
