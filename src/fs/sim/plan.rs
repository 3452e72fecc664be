//! How a power cut is decided where not every outcome can be looked at: the corners where mistakes hide, and samples.

use super::crash::Choice;
use super::inode::Pending;
use super::random::{Random, mix};
use super::state::State;

/// Answers the n-th question of a power cut.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    /// What was durable stays.
    Nothing,
    /// Nothing is lost.
    Everything,
    /// Everything up to a call took effect, nothing after it.
    Prefix(u64),
    /// Only what a later call did took effect.
    Suffix(u64),
    /// Everything but these.
    Drop(Vec<usize>),
    /// Only these.
    Keep(Vec<usize>),
    /// A row of an array in which any three atoms meet in all eight ways: old or new each.
    Cover { row: usize, columns: usize },
    /// A prefix with one atom otherwise.
    Bent { prefix: u64, at: usize },
    /// Anything.
    Uniform(Random),
}

impl Plan {
    pub(super) fn answer(&mut self, n: usize, choice: Choice<'_>) -> usize {
        let newest = choice.newest();
        let keep = |kept| if kept { newest } else { 0 };
        match self {
            Plan::Nothing => 0,
            Plan::Everything => newest,
            Plan::Prefix(op) => choice.as_of(*op),
            Plan::Suffix(op) => keep(choice.history.last().is_some_and(|last| last.0 > *op)),
            Plan::Drop(these) => keep(!these.contains(&n)),
            Plan::Keep(these) => keep(these.contains(&n)),
            Plan::Cover { row, columns } if covered(*row, n, *columns) => {
                // Which of the new contents it is goes round from row to row.
                1 + (*row / 2 + n) % (choice.options - 1)
            }
            Plan::Cover { .. } => 0,
            Plan::Bent { prefix, at } if *at == n => {
                if choice.as_of(*prefix) == 0 {
                    newest
                } else {
                    0
                }
            }
            Plan::Bent { prefix, .. } => choice.as_of(*prefix),
            Plan::Uniform(random) => random.below(choice.options),
        }
    }
}

/// The Sylvester-Hadamard matrix above its own negative is an orthogonal array of strength three.
fn covered(row: usize, column: usize, columns: usize) -> bool {
    let odd = ((row % columns) & (column % columns)).count_ones() % 2 == 1;
    odd != (row >= columns)
}

/// All corners of a power cut in `before` that has about `atoms` atoms, then `samples` seeded ones.
pub(super) fn plans(before: &State, atoms: usize, samples: usize, seed: u64) -> Vec<Plan> {
    let calls = calls(before);
    let mut plans = vec![Plan::Nothing, Plan::Everything];
    plans.extend(calls.iter().map(|op| Plan::Prefix(*op)));
    plans.extend(calls.iter().map(|op| Plan::Suffix(*op)));
    plans.extend((0..atoms).map(|n| Plan::Drop(vec![n])));
    plans.extend((0..atoms).map(|n| Plan::Keep(vec![n])));
    let columns = atoms.max(4).next_power_of_two();
    plans.extend((0..2 * columns).map(|row| Plan::Cover { row, columns }));
    let mut random = Random::new(mix(seed));
    for sample in 0..samples {
        let mut any = || random.below(atoms);
        // All single ones are among the corners: a quarter each goes one step further.
        plans.push(match sample % 4 {
            0 => Plan::Bent {
                at: any(),
                prefix: calls.get(random.below(calls.len())).copied().unwrap_or(0),
            },
            1 => Plan::Drop(vec![any(), any()]),
            2 => Plan::Keep(vec![any(), any()]),
            _ => Plan::Uniform(Random::new(random.next())),
        });
    }
    plans
}

/// Numbers of the calls whose effect is pending.
fn calls(before: &State) -> Vec<u64> {
    let data = before.inodes.values().flat_map(|inode| &inode.pending);
    let names = before.names.pending.iter().map(|change| change.op);
    let mut calls: Vec<u64> = names.chain(data.map(|Pending { op, .. }| *op)).collect();
    calls.sort_unstable();
    calls.dedup();
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn any_three_atoms_meet_in_all_eight_ways() {
        // Miri is slow.
        let all: &[usize] = if cfg!(miri) { &[4, 8] } else { &[4, 8, 16] };
        for columns in all.iter().copied() {
            for (a, b, c) in triples(columns) {
                let met: BTreeSet<_> = (0..2 * columns)
                    .map(|row| [a, b, c].map(|column| covered(row, column, columns)))
                    .collect();
                assert_eq!(met.len(), 8, "atoms {a}, {b}, {c} of {columns}");
            }
        }
    }

    fn triples(columns: usize) -> Vec<(usize, usize, usize)> {
        let pairs = (0..columns).flat_map(|a| (0..a).map(move |b| (a, b)));
        pairs.flat_map(|(a, b)| (0..b).map(move |c| (a, b, c))).collect()
    }
}
