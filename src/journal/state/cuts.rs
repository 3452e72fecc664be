//! What was cut off the end of a log while somebody may have been reading it.

use std::collections::VecDeque;

/// How many cuts are told apart. Of more, the oldest are taken together: a reader that is so slow ends at the lowest of them.
const HELD: usize = 16;

/// From where on a log was cut, each time that it was.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    count: u64,
    /// Number of a cut, and the lowest index that it or a later one took. Both rise.
    lowest: VecDeque<(u64, u64)>,
}

impl Cuts {
    /// The entries from `from` on are gone.
    pub(crate) fn add(&mut self, from: u64) {
        self.count += 1;
        while self.lowest.back().is_some_and(|(_, lowest)| *lowest >= from) {
            self.lowest.pop_back();
        }
        self.lowest.push_back((self.count, from));
        if self.lowest.len() > HELD
            && let Some((_, from)) = self.lowest.pop_front()
            && let Some((_, lowest)) = self.lowest.front_mut()
        {
            *lowest = from;
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether a cut after the first `seen` ones took entries below `index`.
    pub(crate) fn took_below(&self, index: u64, seen: u64) -> bool {
        let later = self.lowest.iter().find(|(number, _)| *number > seen);
        later.is_some_and(|(_, lowest)| *lowest < index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the list of all cuts: never a cut that is missed; none that is made up, as long as few are held.
    #[test]
    fn no_cut_is_missed() {
        for pattern in 0..64_u64 {
            let (mut cuts, mut all) = (Cuts::default(), Vec::new());
            for step in 0..40_u64 {
                let from = (step * (pattern + 1)) % (7 + pattern);
                cuts.add(from);
                all.push(from);
                assert_eq!(cuts.count(), step + 1);
                for seen in 0..=all.len() {
                    for index in 0..80 {
                        let took = all[seen..].iter().any(|from| *from < index);
                        let told = cuts.took_below(index, seen as u64);
                        let exact = all.len() <= HELD;
                        assert!(
                            told == took || (told && !exact),
                            "{all:?}, {seen} seen, below {index}"
                        );
                    }
                }
            }
        }
    }

    /// Of more cuts than are held the oldest count as one, and none is missed.
    #[test]
    fn cuts_that_rise_for_long_are_taken_together() {
        let mut cuts = Cuts::default();
        for from in 10..60 {
            cuts.add(from);
        }
        assert_eq!(cuts.lowest.len(), HELD);
        assert!(cuts.took_below(11, 0), "the lowest cut is known for ever");
        assert!(!cuts.took_below(10, 0));
        assert!(cuts.took_below(60, 49) && !cuts.took_below(59, 49));
        assert!(!cuts.took_below(u64::MAX, 50));
    }
}
