//! everlog: a write-ahead log and recovery engine that can be embedded.

mod config;
mod error;
pub mod fs;
mod journal;
mod metrics;
mod sync;
mod types;

pub use config::{Alignment, Background, Config, OnDamage};
pub use error::{Error, ErrorKind, Result};
pub use journal::{Permit, Room, Ticket};
pub use metrics::{Histogram, Metrics};
pub use types::{Entry, EntryId, LogKey, Term, TermRun};
