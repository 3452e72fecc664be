//! The seam between the store and what keeps its bytes: objects with names, put once and never changed.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use crate::fs::Lock;
use crate::sync::Arc;

/// Where a store keeps its packs and indexes. Shaped for object stores: whole objects, put if absent, listed, deleted; no
/// rename, no append, no directories. [`Directory`](super::Directory) is the default, [`Memory`](super::Memory) serves tests,
/// and every implementation passes [`contract`](super::contract).
///
/// Names are of letters, digits, `-` and `.`, at most 96 bytes.
pub trait Objects: Send + Sync + Debug + 'static {
    /// Makes the place ready for its one writer, and everything that [`list`](Objects::list) shows then durable: it was
    /// perhaps put by a process that did not live to know. Unfinished uploads of earlier processes go.
    fn settle(&self) -> io::Result<()>;

    /// The names of all objects, sorted. `NotFound` if the place was never made ready.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Begins the upload of a new object.
    fn put(&self, name: &str) -> io::Result<Box<dyn Upload>>;

    /// The object `name`. `NotFound` if there is none.
    fn get(&self, name: &str) -> io::Result<Arc<dyn Object>>;

    /// Removes objects; those that are not there are no error. On return their names are gone for good. After an error each may be
    /// there or not, and may come back.
    fn delete(&self, names: &[String]) -> io::Result<()>;

    /// The right to change anything, as long as the guard lives; `WouldBlock` if another process has it. `holder` is a line for
    /// people.
    fn lock(&self, holder: &str) -> io::Result<Box<dyn Lock>>;

    /// The line of whoever has the lock.
    fn holder(&self) -> io::Result<Option<String>>;

    /// `name` (empty: the whole place) as a person would type it, for messages.
    fn display(&self, name: &str) -> PathBuf;

    /// A random number.
    fn random(&self) -> u64;

    /// Wall clock in microseconds since 1970.
    fn now_micros(&self) -> u64;
}

/// An object on its way. Nobody sees it before [`publish`](Upload::publish); dropped before that, it was never there.
pub trait Upload: Send + Debug {
    /// Takes the next bytes of the object.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was taken so far durable, so that [`sync`](Upload::sync) has little left to do at the end. Called now and then in an
    /// upload that is to go gently; nothing is promised by it. After an error the upload is of no use.
    fn sync_early(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Makes the bytes durable, and not yet visible. After an error the upload is of no use.
    fn sync(&mut self) -> io::Result<()>;

    /// Gives the object its name: on return it is there, whole and durable. `AlreadyExists` if there is one of that name, which
    /// stays. After any other error it may be there or not.
    fn publish(self: Box<Self>) -> io::Result<()>;
}

/// An object that is there. It can be read to its end even when its name is deleted meanwhile.
#[expect(clippy::len_without_is_empty, reason = "no object is empty")]
pub trait Object: Send + Sync + Debug {
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`; `UnexpectedEof` if the object ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Asks that later reads come from where the bytes are kept and not from memory. False where that cannot be promised.
    fn evict(&self) -> io::Result<bool>;

    /// Asks that reads fetch what they ask for and nothing ahead of it.
    fn read_nothing_ahead(&self) -> io::Result<()> {
        Ok(())
    }
}
