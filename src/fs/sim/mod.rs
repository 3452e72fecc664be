//! A simulated disk that crashes on demand: what a power cut may leave is every outcome that the rules of its
//! [`Profile`] allow, and which one it leaves is decided by a seed or by the caller. The same seed and the same calls
//! give the same disk.
//!
//! The rules, in short: a sector that was written since its last sync holds the durable content or any of the later
//! ones, independently of all others; the size of a file is an atom of its own; names become durable only by a sync of
//! their directory; a sync covers only what had returned before it was called; after a failed sync everything that it
//! covered counts as clean, and the next sync says Ok.

mod content;
mod control;
mod coverage;
mod crash;
mod enumerate;
mod handle;
mod inode;
mod lazy;
mod names;
mod plan;
mod random;
mod script;
mod seeded;
mod state;
mod watch;

pub use control::PendingSync;
pub use coverage::{Coverage, Violation};
pub use crash::{Atom, Choice};
pub use enumerate::{Crashed, Enumerator, Ledger};
pub use script::Script;

use crate::sync::{Arc, Mutex};
use state::State;

/// Which outcomes of a power cut are possible. Each one allows what those before it allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Linux ext4 with `data=ordered`: changes of directories take effect in order, and the sync of a new or grown file
    /// makes the earlier ones durable. Sectors and sizes are independent, as anywhere: a size may run ahead of its data, which
    /// then reads zero (`dioread_nolock`, the default), and the zeroed rest of a cut block may come before the size. The
    /// package `tests/kernel` compares it with the kernel.
    Ext4,
    /// What POSIX does not forbid: sectors, sizes and names are independent, except that changes of one name stay in
    /// order and a rename is atomic within its directory. The default gate.
    PosixWeak,
    /// Beyond that: torn sectors, garbage where a write was in flight, bytes of removed files in grown ones, every name
    /// old or new on its own.
    Hostile,
}

/// What a failed sync leaves durable of the data that it covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// None of it.
    Nothing,
    /// All of it: only the answer was an error.
    Everything,
    /// Of each sector the old or the new content: open until an evict (which draws from the seed) or a crash.
    Undecided,
}

/// A simulated disk, and one process's handle on it. Clones are the same process; [`kill`](SimFs::kill) ends it and
/// [`crash`](SimFs::crash) copies what survives to a new disk.
///
/// ```
/// use everlog::fs::{Access, Fs, Profile, SimFs};
///
/// let disk = SimFs::new(1, Profile::PosixWeak);
/// let file = disk.create("log")?;
/// disk.sync_dir("")?;
/// file.write_all_at(b"durable", 0)?;
/// file.sync_data()?;
/// file.write_all_at(b"perhaps", 0)?;
/// for seed in 0..20 {
///     let after = disk.crash(seed);
///     let found = after.read_raw("log")?;
///     assert!(found == b"durable" || found == b"perhaps", "seed {seed}");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct SimFs {
    state: Arc<Mutex<State>>,
    life: u64,
}
