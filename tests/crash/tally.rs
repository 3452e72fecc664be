//! What a campaign reached: counts that are printed, and that must not be zero.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use everlog::{Metrics, OpenReport, Verdict};

macro_rules! tally {
    ($($(#[doc = $doc:literal])* $name:ident,)+) => {
        #[derive(Default)]
        pub(crate) struct Tally {
            $($(#[doc = $doc])* pub(crate) $name: Count,)+
        }

        impl Tally {
            fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }
    };
}

tally! {
    /// Seeds.
    workloads,
    /// Disks as a crash left them that were opened and compared with the model.
    states,
    /// Of those: power cuts.
    power_cuts,
    /// Of those: kills.
    kills,
    /// Of those: crashes while a crash was recovered from.
    nested,
    /// Openings that were followed by operations.
    lives,
    /// Writes handed in.
    writes,
    /// Entries and cells compared.
    entries,
    /// States with the verdict.
    clean,
    unclean,
    torn,
    /// States after which something was carried.
    carried,
    /// States that lacked a write that had been issued, and states that held one that was not acknowledged.
    lost_writes,
    kept_writes,
    rotations,
    rehomings,
    marks,
    relaxed_syncs,
    /// Segments removed.
    unlinked,
    /// Of those: because the floor rose.
    freed,
    /// Faults that happened, and writes of which nobody knows.
    faults,
    unknown,
    /// Refusals because the disk was full.
    no_space,
    /// Writes on a full disk that the reserve is there for.
    by_reserve,
    /// Openings that failed because of a fault or a full disk.
    open_failed,
    /// Lives in which a sync of the directory failed, so that it may forget names.
    dir_faults,
    /// Operations that were wrong and refused.
    invalid,
    /// Entries larger than a segment.
    large,
    reopened,
    closed,
    /// Logs emptied, everything freed and the size of the directory looked at.
    drained,
    /// Views of a disk as a crash left it, and beside the process that writes.
    views,
    live_views,
    /// A hostile disk: openings and reads refused as damaged.
    hostile_states,
    hostile_damaged,
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
    pub(crate) fn opened(&self, report: &OpenReport) {
        match report.verdict {
            Verdict::Clean => self.clean.add(1),
            Verdict::Torn => self.torn.add(1),
            _ => self.unclean.add(1),
        }
        self.carried.add(u64::from(report.carried_batches > 0));
    }

    /// A life ended.
    pub(crate) fn lived(&self, metrics: &Metrics) {
        self.rotations.add(metrics.rotations);
        self.rehomings.add(metrics.rehomings);
        self.marks.add(metrics.marks);
        self.relaxed_syncs.add(metrics.relaxed_syncs);
        self.freed.add(metrics.segments_freed);
    }

    /// The line for PROOFS.md.
    pub(crate) fn figure(&self) -> String {
        format!(
            "figure: crash: {} workloads, {} crash states ({} power cuts, {} kills, {} nested, {} of a hostile disk), {} faults, \
             {} tails carried, {} segments freed, 0 violations",
            self.workloads.get(),
            self.states.get(),
            self.power_cuts.get(),
            self.kills.get(),
            self.nested.get(),
            self.hostile_states.get(),
            self.faults.get(),
            self.carried.get(),
            self.freed.get(),
        )
    }

    /// Names of what was never reached.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        self.counts()
            .into_iter()
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.counts().chunks(4) {
            for (name, count) in line {
                write!(f, "{name:>16} {count:<9}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
