//! Snapshots: the state of a machine as of one entry of its log, in chunks that are named by what is in them.
//!
//! A [`Store`] keeps any number of snapshots, of any number of logs. A snapshot is written as a stream and read as one; its bytes are cut
//! into chunks where their contents say so (FastCDC), each chunk is named by its blake3 hash, and a chunk that a snapshot before it
//! has is not stored again. It is usable without a journal and without an engine.
//!
//! ```
//! use std::io::{Read, Write};
//! use everlog::snapshot::{Draft, Retention, Store, StoreConfig};
//! use everlog::{EntryId, LogKey};
//!
//! # let dir = tempfile::tempdir()?;
//! let store = Store::open(dir.path(), StoreConfig::new())?;
//! let mut creation = store.create(Draft::new(LogKey(7), EntryId::new(1, 1000)))?;
//! creation.write_all(b"the state after entry 1000")?;
//! let snapshot = creation.commit()?.snapshot; // durable, listed, and read back
//!
//! let mut state = String::new();
//! store.reader(snapshot.id)?.read_to_string(&mut state)?;
//! assert_eq!(state, "the state after entry 1000");
//! assert_eq!(store.list()?[0].covers, EntryId::new(1, 1000));
//! store.collect(&Retention::new().newest(2))?; // the newest two of each log stay
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - **All or nothing.** A snapshot is listed once its [`commit`](Creation::commit) has returned, and whole from then on; one that was not
//!   committed leaves nothing. A creation that fails, on a full disk say, touches none of the others.
//! - **Durable means synced, in an order.** Chunks, their pack's name, the index, its name. So whatever index a crash leaves implies all of
//!   its chunks.
//! - **Nothing wrong is ever read.** Each chunk is verified by its name before a byte of it is returned.
//! - **Sharing rests on proof.** A chunk is shared with a committed snapshot only if it was read there, past the cache, and is
//!   what it should be, since the store was opened. One that is not is stored anew.
//! - **A pin holds** in every process until it expires or is taken back ([`pin_durably`](Store::pin_durably)); one that cannot be read holds, too.
//! - **Collecting is safe** beside creations, readers, other processes that look, and at a crash anywhere.
//!
//! # What is not
//!
//! - Snapshots that share chunks are not independent copies: damage of one chunk befalls all that have it. [`verify`](Store::verify) and
//!   [`scrub`](Store::scrub) say which. A second copy is one in another store.
//! - Where the system cannot read past its cache, reading back proves less: [`Committed::read_back`] and [`Verified::past_cache`] say so.
//! - Names find accidents, and nothing is encrypted.
//!
//! One process has a store open at a time; any number may have a [`view`](Store::view) of it.

mod behind;
mod codec;
mod collect;
mod config;
pub mod contract;
mod create;
mod cut;
mod directory;
mod doubles;
mod export;
mod info;
mod memory;
mod names;
mod objects;
mod pace;
mod pack_upload;
mod packs;
mod pin;
mod read;
mod state;
mod store;
mod verify;

pub use collect::Collected;
pub use config::{Compression, Retention, StoreConfig};
pub use create::Creation;
pub use directory::Directory;
pub use export::Import;
pub use info::{ChunkInfo, Committed, Count, Damage, Draft, Origin, ReadBack, Snapshot};
pub use memory::Memory;
pub use names::{ChunkName, SnapshotId};
pub use objects::{Object, Objects, Upload};
pub(crate) use pace::Pace;
pub use pin::{Pin, PinInfo};
pub use read::Reader;
pub use store::Store;
pub use verify::{ScrubPosition, Scrubbed, Verified};
