//! Crash outcomes by a seed: mostly the corners where mistakes hide, sometimes anything.

use super::crash::{Atom, Choice, crash};
use super::random::{Random, mix};
use super::state::State;

enum Strategy {
    None,
    All,
    /// Everything up to a call, nothing after it.
    Prefix(u64),
    /// All but one atom.
    Drop(usize),
    /// Names and sizes, and of the sectors only one.
    Keep(usize),
    Uniform,
}

pub(super) fn crash_by_seed(before: &State, seed: u64) -> State {
    let mut random = Random::new(mix(seed));
    let strategy = strategy(before, &mut random);
    let mut atoms = 0;
    let mut sectors = 0;
    let mut after = crash(before, &mut |choice| {
        let is_sector = matches!(choice.atom, Atom::Sector { .. });
        atoms += 1;
        sectors += usize::from(is_sector);
        match strategy {
            Strategy::None => 0,
            Strategy::All => choice.newest(),
            Strategy::Prefix(op) => choice.as_of(op),
            Strategy::Drop(one) if one + 1 == atoms => 0,
            Strategy::Keep(one) if is_sector && one + 1 != sectors => 0,
            Strategy::Drop(_) | Strategy::Keep(_) => choice.newest(),
            Strategy::Uniform => random.below(choice.options),
        }
    });
    // Two crashes of one disk lead to different random numbers, and none to those drawn before.
    after.random = Random::new(mix(after.random.next() ^ seed));
    after
}

fn strategy(before: &State, random: &mut Random) -> Strategy {
    match random.below(20) {
        0 => Strategy::None,
        1 => Strategy::All,
        2..=6 => Strategy::Prefix(prefix_end(before, random)),
        7..=10 => {
            let (atoms, _) = count(before);
            Strategy::Drop(random.below(atoms))
        }
        11..=14 => {
            let (_, sectors) = count(before);
            Strategy::Keep(random.below(sectors))
        }
        _ => Strategy::Uniform,
    }
}

/// A call somewhere among those that are pending.
fn prefix_end(before: &State, random: &mut Random) -> u64 {
    let names = before.names.pending.iter().map(|change| change.op);
    let data = before
        .inodes
        .values()
        .flat_map(|inode| inode.pending.iter().map(|pending| pending.op));
    let first = names.chain(data).min().unwrap_or(before.op);
    let span = usize::try_from(before.op - first).unwrap_or(usize::MAX - 1);
    first.saturating_sub(1) + random.below(span + 2) as u64
}

/// Atoms, and sectors among them, when nothing is lost.
fn count(before: &State) -> (usize, usize) {
    let (mut atoms, mut sectors) = (0, 0);
    crash(before, &mut |choice: Choice<'_>| {
        atoms += 1;
        sectors += usize::from(matches!(choice.atom, Atom::Sector { .. }));
        choice.newest()
    });
    (atoms, sectors)
}
