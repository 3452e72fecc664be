//! What an enumeration has looked at, and what it found.

use super::Script;
use std::fmt;
use std::ops::AddAssign;

/// What an [`Enumerator`](super::Enumerator) has looked at. Those of several workloads add up.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Coverage {
    /// Workloads.
    pub workloads: u64,
    /// Moments at which the power was cut.
    pub moments: u64,
    /// Of those: how many had every crash state visited.
    pub exhaustive: u64,
    /// Of those: how many had too many, so that corners and samples were visited.
    pub sampled: u64,
    /// Moments that were the same, byte by byte, as one that had been visited.
    pub repeated: u64,
    /// Crash states that exist: all outcomes of all atoms.
    pub raw: f64,
    /// Checks run: a state stands for all that differ from it only in what the check never looked at.
    pub canonical: u64,
    /// Of those: how many belong to exhaustive moments.
    pub in_exhaustive: u64,
    /// Moments of checks at which the power could be cut again.
    pub nested_moments: u64,
    /// Of those: how many were visited.
    pub nested_visited: u64,
    /// Of those: how many had every crash state visited.
    pub nested_exhaustive: u64,
    /// Checks run there.
    pub nested_states: u64,
    /// Most atoms that one check decided.
    pub deepest: u64,
    /// Most states of one moment.
    pub widest: u64,
}

/// A crash state in which the check failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Violation {
    /// What the check says.
    pub what: String,
    /// Leads there again, by [`Enumerator::replay`](super::Enumerator::replay).
    pub script: Script,
    /// Before which calls the power was cut.
    pub moments: Vec<String>,
    /// What the last power cut decided.
    pub decided: Vec<String>,
    /// How many items were issued, and how many of them acknowledged.
    pub issued: usize,
    /// See `issued`.
    pub acknowledged: usize,
    /// What had been looked at by then.
    pub coverage: Coverage,
}

impl AddAssign<&Coverage> for Coverage {
    fn add_assign(&mut self, other: &Coverage) {
        self.workloads += other.workloads;
        self.moments += other.moments;
        self.exhaustive += other.exhaustive;
        self.sampled += other.sampled;
        self.repeated += other.repeated;
        self.raw += other.raw;
        self.canonical += other.canonical;
        self.in_exhaustive += other.in_exhaustive;
        self.nested_moments += other.nested_moments;
        self.nested_visited += other.nested_visited;
        self.nested_exhaustive += other.nested_exhaustive;
        self.nested_states += other.nested_states;
        self.deepest = self.deepest.max(other.deepest);
        self.widest = self.widest.max(other.widest);
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} workloads, {} moments ({} exhaustive, {} sampled, {} repeated), {} canonical states (raw {:.1e}), at most {} of \
             one moment and {} atoms deep; nested: {} of {} moments ({} exhaustive), {} states",
            self.workloads,
            self.moments,
            self.exhaustive,
            self.sampled,
            self.repeated,
            self.canonical,
            self.raw,
            self.widest,
            self.deepest,
            self.nested_visited,
            self.nested_moments,
            self.nested_exhaustive,
            self.nested_states
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        writeln!(
            f,
            "power cut before {}; {} issued, {} acknowledged; it decided",
            self.moments.join(", and again before "),
            self.issued,
            self.acknowledged
        )?;
        for decided in &self.decided {
            writeln!(f, "  {decided}")?;
        }
        write!(f, "script: {}", self.script)
    }
}

impl std::error::Error for Violation {}
