//! The journal: a directory of segments with one writer.

mod completions;
mod group;
mod queue;
mod room;
mod ticket;

pub use room::{Permit, Room};
pub use ticket::Ticket;
