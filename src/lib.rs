//! everlog: a write-ahead log and recovery engine that can be embedded.

mod config;
mod error;
mod format;
pub mod fs;
pub mod inspect;
mod journal;
mod log;
mod metrics;
mod mutant;
mod segment;
#[cfg(feature = "snapshot")]
pub mod snapshot;
mod sync;
mod types;

pub use config::{Alignment, Background, Config, OnDamage};
pub use error::{Error, ErrorKind, Result};
pub use journal::{
    Cut, Journal, OpenReport, Permit, Reclaimed, Refused, Room, Ticket, Uuid, Verdict, WriteBatch, Written,
};
pub use log::{Entries, Log};
pub use metrics::{Histogram, Metrics};
pub use types::{Entry, EntryId, LogKey, Term, TermRun};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
