//! The caller's state machine.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::types::EntryId;

/// A state that commands change, one after the other.
///
/// # What is asked of it
///
/// - **Deterministic.** The same commands with the same ids give the same state and the same replies, today and after every restart: no
///   clock, no random numbers, no iteration order of hash maps, nothing that another version of the program would do otherwise. Whatever
///   varies belongs into the command, where the log keeps it.
/// - **It cannot fail.** A command that is refused is one whose reply says so. A panic stops the engine, for good: see
///   [the module](super#when-apply-panics).
/// - **It does not call the engine**, which would wait for itself.
///
/// # Three kinds
///
/// *A persistent map*: `capture` clones a pointer, and writing the snapshot goes on beside new commands. Best with a map whose versions share nodes
/// (`imbl::OrdMap`); with a plain one behind an `Arc`, as here, the first command after a capture copies the map if it is still being written.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::io::{self, Read};
/// use std::sync::Arc;
/// use everlog::EntryId;
/// use everlog::engine::{Capture, StateMachine};
///
/// #[derive(Default)]
/// struct Names {
///     names: Arc<BTreeMap<u64, String>>,
/// }
///
/// impl StateMachine for Names {
///     fn apply(&mut self, id: EntryId, command: &[u8]) -> bytes::Bytes {
///         Arc::make_mut(&mut self.names).insert(id.index, String::from_utf8_lossy(command).into_owned());
///         format!("{} names", self.names.len()).into()
///     }
///
///     fn capture(&self) -> Capture {
///         let names = Arc::clone(&self.names); // O(1)
///         Capture::new(move |into| names.iter().try_for_each(|(index, name)| writeln!(into, "{index} {name}")))
///     }
///
///     fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
///         let text = io::read_to_string(from)?;
///         let parse = |line: &str| {
///             let (index, name) = line.split_once(' ')?;
///             Some((index.parse().ok()?, name.to_owned()))
///         };
///         self.names = Arc::new(text.lines().filter_map(parse).collect());
///         Ok(())
///     }
///
///     fn clear(&mut self) {
///         self.names = Arc::default();
///     }
/// }
/// ```
///
/// *A plain sorted map* (`BTreeMap`): `capture` must copy it, and while it does nothing is applied and nothing is read: some 50 to 100 ns for each
/// entry of the map, so 0.1 s for a million, and its memory once more until the snapshot is written. Sorted, so that two snapshots of
/// nearly the same state share nearly all of their chunks; a hash map would shuffle them.
///
/// *A machine that persists itself* (a database): it says so in [`persistence`](StateMachine::persistence), stores the id with the effect of
/// each entry in one transaction, and is asked for no capture.
pub trait StateMachine: Send + 'static {
    /// Applies the command of the entry `id`, and returns the reply to whoever handed it in. Entries come in the order of the log, each once in
    /// the life of a state, and only when they are durable.
    fn apply(&mut self, id: EntryId, command: &[u8]) -> Bytes;

    /// The state as it is now, to be written later, on another thread, while commands go on to change this one. Nothing is applied or
    /// read until this returns, so it should be cheap.
    fn capture(&self) -> Capture;

    /// Replaces the whole state by one that a [`Capture`] wrote; `from` ends where that did. Each byte was verified. After an error the state may be
    /// anything: it is restored or cleared again before it is used.
    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()>;

    /// Back to the state before the first entry.
    fn clear(&mut self);

    /// Who keeps the state across restarts. Default: snapshots do.
    fn persistence(&self) -> Persistence {
        Persistence::Snapshots
    }
}

/// Who keeps the state of a machine across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The machine lives in memory; snapshots of it are restored.
    Snapshots,
    /// The machine itself. The effect of this entry and of all before it is durable in it, and no effect of a later one is visible after
    /// a crash; `None` if it has none at all. A checkpoint purges the log up to here and takes no snapshot.
    Itself(Option<EntryId>),
}

/// A state at one moment, to be written once. Holds what it needs: a clone of a persistent map, say.
pub struct Capture(WriteOnce);

type WriteOnce = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

impl Capture {
    /// What `write` writes. Equal states should give equal bytes, and similar ones similar bytes: then snapshots share chunks.
    pub fn new(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Capture {
        Capture(Box::new(write))
    }

    pub(super) fn write(self, into: &mut dyn Write) -> io::Result<()> {
        (self.0)(into)
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}
