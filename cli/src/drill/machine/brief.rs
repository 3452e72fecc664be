//! What a child of a drilled machine is told: one line of JSON down its standard input, and the entries behind it.

use std::time::Duration;

use everlog::Config;
use everlog::engine::EngineConfig;
use everlog::snapshot::StoreConfig;
use serde::{Deserialize, Serialize};

use super::super::entries::Random;
use crate::journal;

/// The task of one life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Brief {
    /// Seed of the drill, which decides the commands.
    pub(crate) seed: u64,
    pub(crate) keys: u64,
    /// For each writer, which of its commands comes next.
    pub(crate) next: Vec<u64>,
    pub(crate) settings: Settings,
    /// After so many commands a checkpoint is taken by hand, or snapshots are collected; only the background takes them otherwise.
    pub(crate) tend_every: Option<u64>,
    /// See [`Map::new`](super::map::Map::new).
    pub(crate) forgets: bool,
}

/// How journal, store and engine are opened: this may differ from one life to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) segment_bytes: u64,
    pub(crate) retain: usize,
    /// After so many entries the background takes a checkpoint; by the budget alone otherwise.
    pub(crate) checkpoint_entries: Option<u64>,
    pub(crate) restart_within: Duration,
}

impl Settings {
    /// Draws them. Checkpoints are left to the budget.
    pub(crate) fn draw(random: &mut Random, restart_within: Duration) -> Settings {
        let mut pick = |of: [u64; 4]| of[usize::try_from(random.between(0..4)).unwrap_or(0)];
        Settings {
            segment_bytes: pick([256 << 10, 1 << 20, 1 << 20, 4 << 20]),
            retain: usize::try_from(pick([1, 2, 2, 3])).unwrap_or(2),
            checkpoint_entries: None,
            restart_within,
        }
    }

    pub(crate) fn journal(&self) -> Config {
        Config::new()
            .segment_bytes(self.segment_bytes)
            .max_entry_bytes(journal::ENTRY_BYTES_MAX)
    }

    /// Always the same chunks, or nothing would be shared; small ones, so that a small state has many.
    pub(crate) fn store() -> StoreConfig {
        StoreConfig::new().chunk_bytes(8 << 10, 32 << 10, 256 << 10)
    }

    pub(crate) fn engine(&self) -> EngineConfig {
        EngineConfig::new()
            .retain(self.retain)
            .restart_within(self.restart_within)
            .checkpoint_bytes(None)
            .checkpoint_entries(self.checkpoint_entries)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::protocol;
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let brief = Brief {
            seed: u64::MAX,
            keys: 7,
            next: vec![0, 9],
            settings: Settings::draw(&mut Random::new(1), Duration::from_millis(1500)),
            tend_every: Some(3),
            forgets: true,
        };
        let mut pipe = Vec::new();
        protocol::write_line(&brief, &mut pipe).unwrap();
        assert_eq!(protocol::read_line::<Brief>(&mut pipe.as_slice()).unwrap(), brief);
    }
}
