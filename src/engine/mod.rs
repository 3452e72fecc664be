//! A state machine made durable: its commands in a log, its state in snapshots, and after a crash both brought together again.
//!
//! An [`Engine`] orders the commands of one [`StateMachine`] by its own log: it writes a command, waits until it is durable, applies it, and
//! replies. Checkpoints keep the log short. A [`Replica`] is the same without the ordering, for a machine whose commands a consensus
//! engine orders.
//!
//! ```
//! use std::io::{self, Read};
//! use everlog::engine::{Capture, Engine, EngineConfig, StateMachine};
//! use everlog::snapshot::{Store, StoreConfig};
//! use everlog::{Config, EntryId, Journal, LogKey};
//!
//! #[derive(Default)]
//! struct Sum(u64);
//!
//! impl StateMachine for Sum {
//!     fn apply(&mut self, _: EntryId, command: &[u8]) -> bytes::Bytes {
//!         self.0 += command.len() as u64;
//!         self.0.to_string().into()
//!     }
//!     fn capture(&self) -> Capture {
//!         let sum = self.0;
//!         Capture::new(move |into| into.write_all(&sum.to_le_bytes()))
//!     }
//!     fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
//!         let mut sum = [0; 8];
//!         from.read_exact(&mut sum)?;
//!         self.0 = u64::from_le_bytes(sum);
//!         Ok(())
//!     }
//!     fn clear(&mut self) {
//!         self.0 = 0;
//!     }
//! }
//!
//! # let dir = tempfile::tempdir()?;
//! let journal = Journal::open_or_create(dir.path(), Config::new().segment_bytes(1 << 20))?;
//! let store = Store::open(dir.path(), StoreConfig::new())?;
//! let open = || Engine::open(&journal, LogKey(1), &store, Sum::default(), EngineConfig::new());
//! let engine = open()?;
//! assert_eq!(engine.execute(b"four")?, "4"); // durable, and applied
//! engine.checkpoint()?; // the background does this, too
//! assert_eq!(engine.execute_once(77, 1, b"two")?, "7");
//! assert_eq!(engine.execute_once(77, 1, b"two")?, "7"); // once, however often
//! engine.close()?;
//!
//! let engine = open()?; // the snapshot, and the one entry behind it
//! assert_eq!(engine.read(|sum| sum.0)?, 7);
//! assert_eq!(engine.report().replayed_entries, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - **A reply means durable and applied.** What was replied to is there after every crash; what was not may be, whole.
//! - **In order.** Entries are applied in the order of the log, each once, and only when a sync covers them. Replies come in that order.
//! - **Nothing is purged that no snapshot holds.** The log is purged when a snapshot was committed and read back, and only to the oldest that
//!   is [kept](EngineConfig::retain), which is read as a whole just before. Opening falls back to an older snapshot if the newest does not verify, says
//!   so, and loses nothing. Snapshots share chunks: one that rots after that read may spoil all of them, against which only another store helps.
//! - **A lost end is noticed.** A log that ends before what a checkpoint has seen is `Damaged`. Nothing goes on as if it were whole.
//! - **Several engines** stand in one journal, each on a log of its own, and share its syncs; and in one store.
//!
//! # When `apply` panics
//!
//! The entry is durable, so it would panic again. Its caller, and the next opening, are told [`ApplyFailed`](crate::ErrorKind::ApplyFailed) with the
//! [entry](crate::Error::entry); the engine takes no more commands, and no checkpoint is taken of a machine that may have done half of something.
//! The log can be read. Open it with a machine that can apply the entry, or [`skip`] it: then the state lacks its effect, and every
//! [report](EngineReport::skipped) says so for ever. A program that aborts on panics ends at each opening instead, until one of both is done.
//!
//! # What is not
//!
//! - An entry's effect on the world outside (a mail that `apply` sends) happens again at each replay. Send when the reply has come.
//! - The state is read and changed under one lock. Readers that take long should clone what is cheap to clone, and look at that.
//! - No replication: that is a [`Replica`] under a consensus engine.

mod background;
mod cadence;
mod checkpoint;
mod clock;
mod config;
mod core;
mod handle;
mod machine;
mod open;
mod replay;
mod replica;
mod reply;
mod report;
mod restore;
mod retain;
mod sessions;
#[cfg(test)]
mod tests;

pub use config::{EngineConfig, Progress};
pub use handle::Engine;
pub use machine::{Capture, Persistence, StateMachine};
pub use open::skip;
pub use replica::Replica;
pub use reply::Reply;
pub use report::{Checkpoint, EngineMetrics, EngineReport};
