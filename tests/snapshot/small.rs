//! Small stores, and states to put into them.

use std::io::{Read, Write};
use std::sync::Arc;

use everlog::fs::{Profile, SimFs};
use everlog::snapshot::{Committed, Draft, Reader, SnapshotId, Store, StoreConfig};
use everlog::{EntryId, LogKey, Result};

pub(crate) const LOG: LogKey = LogKey(7);

/// Chunks of 64 to 1024 bytes.
pub(crate) fn config() -> StoreConfig {
    StoreConfig::new().chunk_bytes(64, 256, 1024)
}

pub(crate) fn disk() -> SimFs {
    SimFs::new(1, Profile::PosixWeak)
}

pub(crate) fn open(disk: &SimFs) -> Store {
    Store::open_on(Arc::new(disk.clone()), config()).expect("the store opens")
}

pub(crate) fn draft(index: u64) -> Draft {
    Draft::new(LOG, EntryId::new(1, index))
}

pub(crate) fn try_create(store: &Store, index: u64, state: &[u8]) -> Result<Committed> {
    let mut creation = store.create(draft(index))?;
    creation.write_all(state).map_err(unwrapped)?;
    creation.commit()
}

pub(crate) fn create(store: &Store, index: u64, state: &[u8]) -> Committed {
    try_create(store, index, state).expect("the snapshot is committed")
}

/// The library's error inside that of `io`.
pub(crate) fn unwrapped(error: std::io::Error) -> everlog::Error {
    let inner = error.into_inner().expect("an error of the library");
    *inner.downcast().expect("an error of the library")
}

pub(crate) fn read(store: &Store, id: SnapshotId) -> Result<Vec<u8>> {
    read_all(store.reader(id)?)
}

pub(crate) fn read_all(mut reader: Reader) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(unwrapped)?;
    Ok(bytes)
}

/// `len` bytes that no other `tag` gives.
pub(crate) fn state(tag: u64, len: u64) -> Vec<u8> {
    super::random::bytes(tag, len).to_vec()
}

/// The files of packs.
pub(crate) fn packs(disk: &SimFs) -> Vec<String> {
    ending(disk, ".pack")
}

/// The files of indexes.
pub(crate) fn indexes(disk: &SimFs) -> Vec<String> {
    ending(disk, ".snap")
}

fn ending(disk: &SimFs, with: &str) -> Vec<String> {
    disk.files()
        .into_keys()
        .filter(|path| path.ends_with(with))
        .collect()
}
