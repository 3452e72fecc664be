//! A machine whose state is the list of all commands that it applied, so that one which is lost, doubled or out of place shows; and small
//! worlds of a journal and a store on one disk.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use everlog::engine::{Capture, Engine, EngineConfig, StateMachine};
use everlog::fs::SimFs;
use everlog::snapshot::{Store, StoreConfig};
use everlog::{EntryId, Journal, LogKey, Result};

use super::support::{A, dynamic, small};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) commands: Vec<String>,
    /// Whether it can apply "boom".
    pub(crate) brave: bool,
}

impl List {
    pub(crate) fn brave() -> List {
        List {
            brave: true,
            ..List::default()
        }
    }
}

impl StateMachine for List {
    fn apply(&mut self, _: EntryId, command: &[u8]) -> Bytes {
        let command = String::from_utf8(command.to_vec()).expect("text");
        let boom = command == "boom" && !self.brave;
        self.commands.push(command);
        // Half of its effect is there.
        assert!(!boom, "this machine cannot apply it");
        self.commands.len().to_string().into()
    }

    fn capture(&self) -> Capture {
        let commands = self.commands.clone();
        Capture::new(move |into| {
            commands
                .iter()
                .try_for_each(|command| writeln!(into, "{command}"))
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.commands = io::read_to_string(from)?.lines().map(str::to_owned).collect();
        Ok(())
    }

    fn clear(&mut self) {
        self.commands.clear();
    }
}

/// A process: a journal, a store, and the engine of log `A`.
pub(crate) struct World {
    pub(crate) journal: Journal,
    pub(crate) store: Store,
    pub(crate) engine: Engine<List>,
}

pub(crate) fn store_config() -> StoreConfig {
    StoreConfig::new().chunk_bytes(64, 256, 1024)
}

pub(crate) fn base(disk: &SimFs) -> Result<(Journal, Store)> {
    let journal = Journal::open_or_create_on(dynamic(disk), small())?;
    let store = Store::open_on(Arc::new(disk.clone()), store_config())?;
    Ok((journal, store))
}

pub(crate) fn try_world(disk: &SimFs, machine: List, config: EngineConfig) -> Result<World> {
    let (journal, store) = base(disk)?;
    let engine = Engine::open(&journal, A, &store, machine, config)?;
    Ok(World {
        journal,
        store,
        engine,
    })
}

pub(crate) fn world(disk: &SimFs) -> World {
    try_world(disk, List::default(), EngineConfig::new()).expect("the world opens")
}

impl World {
    /// Executes commands of these numbers.
    pub(crate) fn execute(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.engine
                .execute(command(number))
                .expect("the command is executed");
        }
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        state(&self.engine)
    }
}

pub(crate) fn command(number: u32) -> String {
    // Long enough for a few of them to fill a chunk.
    format!("command {number} {}", "x".repeat(40))
}

pub(crate) fn commands(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(command).collect()
}

pub(crate) fn state(engine: &Engine<List>) -> Vec<String> {
    engine
        .read(|list| list.commands.clone())
        .expect("the engine is open")
}

pub(crate) const B: LogKey = LogKey(2);
