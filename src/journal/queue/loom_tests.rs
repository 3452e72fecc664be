//! The queue under loom.
