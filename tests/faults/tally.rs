//! What a sweep reached.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::harm::Harm;
use super::saboteur::{Saboteur, Site};

#[derive(Default)]
pub(crate) struct Tally {
    /// Runs with one fault, and with two.
    pub(crate) singles: Count,
    pub(crate) pairs: Count,
    /// Calls that failed, lied or stopped short.
    pub(crate) calls: Count,
    /// Disks as a crash left them that were opened and compared.
    pub(crate) crashes: Count,
    /// Openings after a crash in which calls failed.
    pub(crate) nested: Count,
    /// Disks of a journal that nobody was ever told of, refused as damaged.
    pub(crate) stillborn: Count,
    /// Writes refused because the disk was full, for another reason, and of unknown outcome.
    pub(crate) no_space: Count,
    pub(crate) refused: Count,
    pub(crate) unknown: Count,
    /// Openings that failed.
    pub(crate) not_opened: Count,
    /// Which calls were made, and which were struck by what.
    pub(crate) sites: Mutex<BTreeSet<Site>>,
    pub(crate) hit: Mutex<BTreeSet<(Site, Harm)>>,
}

#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// Adds what `saboteur` did.
    pub(crate) fn struck(&self, saboteur: &Saboteur) {
        let (sites, hit) = saboteur.reached();
        self.calls.add(saboteur.struck().calls);
        self.sites.lock().expect("no panic while held").extend(sites);
        self.hit.lock().expect("no panic while held").extend(hit);
    }

    /// The line that is published.
    pub(crate) fn figure(&self, workloads: usize, violations: usize) -> String {
        format!(
            "figure: faults: {workloads} workloads, {} call sites, {} of site and fault, {} single faults, {} pairs, \
             {} failed calls, {} crashes, {} with faults in recovery, {violations} violations",
            self.sites.lock().expect("no panic while held").len(),
            self.hit.lock().expect("no panic while held").len(),
            self.singles.get(),
            self.pairs.get(),
            self.calls.get(),
            self.crashes.get(),
            self.nested.get(),
        )
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} writes refused as the disk was full, {} refused as a call failed, {} of unknown outcome, {} openings refused, \
             {} disks stillborn",
            self.no_space.get(),
            self.refused.get(),
            self.unknown.get(),
            self.not_opened.get(),
            self.stillborn.get()
        )?;
        for site in self.sites.lock().expect("no panic while held").iter() {
            let hit = self.hit.lock().expect("no panic while held");
            let harms = hit.iter().filter(|(at, _)| at == site).map(|(_, harm)| harm);
            writeln!(
                f,
                "  {:?} {:?}: {:?}",
                site.op,
                site.on,
                harms.collect::<Vec<_>>()
            )?;
        }
        Ok(())
    }
}
