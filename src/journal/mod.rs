//! The journal: a directory of segments with one writer.

mod completions;
mod group;
mod queue;
mod ticket;

pub use ticket::Ticket;
