//! What a store is told to do and what it must hold: events, and the states of disks that are allowed after some of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use everlog::fs::SimFs;
use everlog::snapshot::{Retention, Store, StoreConfig};

use super::small::{config, read, state, try_create};

/// What changes the list of snapshots. Snapshots are known by the index that they cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Opened,
    Created(u64, Vec<u8>),
    Removed(u64),
}

/// The snapshots that a store holds, with their states.
pub(crate) type Held = BTreeMap<u64, Vec<u8>>;

pub(crate) fn after(events: &[Event]) -> Held {
    let mut held = Held::new();
    for event in events {
        match event {
            Event::Opened => {}
            Event::Created(index, state) => drop(held.insert(*index, state.clone())),
            Event::Removed(index) => drop(held.remove(index)),
        }
    }
    held
}

/// Everything that is listed, read to its end; and nothing is damaged.
pub(crate) fn held(store: &Store) -> Result<Held, String> {
    let list = store.list().map_err(|e| format!("the list fails: {e:?}"))?;
    let mut held = Held::new();
    for snapshot in list {
        let bytes =
            read(store, snapshot.id).map_err(|e| format!("reading {} fails: {e:?}", snapshot.covers))?;
        held.insert(snapshot.covers.index, bytes);
    }
    let found = store
        .verify_all()
        .map_err(|e| format!("verifying fails: {e:?}"))?;
    match found.damage.first() {
        Some(damage) => Err(format!("damage: {damage:?}")),
        None => Ok(held),
    }
}

/// A process with a store, and what it has told it so far.
pub(crate) struct Life {
    pub(crate) disk: SimFs,
    pub(crate) store: Option<Store>,
    pub(crate) now: Held,
    made: u64,
}

impl Life {
    pub(crate) fn new(disk: &SimFs) -> Life {
        Life {
            disk: disk.clone(),
            store: None,
            now: Held::new(),
            made: 0,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open")
    }

    pub(crate) fn open(&mut self, config: StoreConfig) -> everlog::Result<()> {
        self.store = None;
        self.store = Some(Store::open_on(Arc::new(self.disk.clone()), config)?);
        Ok(())
    }

    /// The next state: one that has nothing in common with those before, or most of it with the newest one.
    pub(crate) fn next_state(&mut self, shares: bool) -> (u64, Vec<u8>) {
        self.made += 1;
        let mut bytes = match self.now.last_key_value() {
            Some((_, newest)) if shares => newest.clone(),
            _ => state(self.made, 1500),
        };
        if shares {
            let at = bytes.len() - 200;
            bytes[at..].copy_from_slice(&state(1000 + self.made, 200));
        }
        (self.made, bytes)
    }

    pub(crate) fn create(&mut self, index: u64, bytes: Vec<u8>) -> everlog::Result<()> {
        try_create(self.store(), index, &bytes)?;
        self.now.insert(index, bytes);
        Ok(())
    }

    pub(crate) fn remove(&mut self, index: u64) -> everlog::Result<()> {
        let list = self.store().list()?;
        let snapshot = list.iter().find(|snapshot| snapshot.covers.index == index);
        self.store().remove(snapshot.expect("it is listed").id)?;
        self.now.remove(&index);
        Ok(())
    }

    /// Rewrites every pack of which anything is not needed, and removes no snapshot.
    pub(crate) fn rewrite(&mut self) -> everlog::Result<()> {
        self.open(config().rewrite_below_percent(100))?;
        self.store().collect(&Retention::new().newest(100))?;
        Ok(())
    }
}
