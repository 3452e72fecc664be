//! The names in a journal's directory.

/// The directory of segments, below the root.
pub(crate) const JOURNAL: &str = "journal";
/// The lock file, in the root.
pub(crate) const LOCK: &str = "lock";
