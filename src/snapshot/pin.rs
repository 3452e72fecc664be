//! A pin as a guard.

use super::names::SnapshotId;
use super::store::Shared;
use crate::sync::Arc;

/// Keeps a snapshot from being collected until it expires or is dropped; see [`Store::pin`](super::Store::pin).
#[must_use = "a pin that is dropped holds nothing"]
pub struct Pin {
    shared: Arc<Shared>,
    id: SnapshotId,
    owner: String,
    number: u64,
    kept: bool,
}

impl Pin {
    pub(super) fn new(shared: Arc<Shared>, id: SnapshotId, owner: &str, number: u64) -> Pin {
        Pin {
            shared,
            id,
            owner: owner.to_owned(),
            number,
            kept: false,
        }
    }

    /// Leaves the pin to its expiry.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin")
            .field("id", &self.id)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.kept {
            self.shared.state.lock().unpin_number(self.number);
        }
    }
}
