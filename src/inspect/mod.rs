//! Looking into a journal without changing it: damaged, torn, or in use by another process as it may be.
//!
//! [`View`] shows what the logs hold, [`verify`] reads everything and lists what is wrong, [`dump`] shows the bytes
//! structure by structure, [`find`] says whether a directory is a journal. Nothing here writes, locks, or repairs.
//!
//! Beside a live writer, what it has not yet proven to be durable is not there yet, and is neither torn nor damaged.
//! With no writer a view shows what the next [`Journal::open`](crate::Journal::open) would find.

pub mod decode;
mod dump;
mod find;
mod verify;
mod view;

pub use self::dump::{BatchKind, DumpItem, dump, dump_on};
pub use self::find::{Found, find};
pub use self::verify::{Progress, Verification, verify, verify_on};
pub use self::view::{Entries, LogView, SegmentInfo, View};
pub use crate::journal::{Finding, FindingKind};

use std::path::Path;

use crate::error::{Error, Result};
use crate::fs::{Fs, RealFs};
use crate::sync::Arc;

/// The directory of a journal, after seeing that it is one.
fn real(dir: &Path) -> Result<Arc<dyn Fs>> {
    find(dir)?;
    let fs = RealFs::open(dir).map_err(|e| Error::io(dir, "open the directory", e))?;
    Ok(Arc::new(fs))
}

#[cfg(test)]
mod tests;
