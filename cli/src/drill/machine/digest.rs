//! What machine and model are compared by: two hashes that each of them feeds with what it knows itself.

use std::fmt;

/// A running hash over all commands, in their order.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) [u8; 32]);

impl Chain {
    /// `command` was applied as the entry `index`.
    pub(crate) fn push(&mut self, index: u64, command: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&index.to_le_bytes());
        hasher.update(command);
        self.0 = *hasher.finalize().as_bytes();
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// A hash over a whole state: the history in one number, each writer's newest commands, each key and value.
pub(crate) struct Digest(blake3::Hasher);

impl Digest {
    /// Of a state that has applied so many commands, which gave this chain.
    pub(crate) fn new(applied: u64, chain: &Chain) -> Digest {
        let mut digest = Digest(blake3::Hasher::new());
        digest.number(applied);
        digest.0.update(&chain.0);
        digest
    }

    /// The newest commands of `writer`, each with its number and index. Writers come in their order.
    pub(crate) fn writer(&mut self, writer: u32, newest: impl ExactSizeIterator<Item = (u64, u64)>) {
        self.number(u64::from(writer));
        self.number(newest.len() as u64);
        for (number, index) in newest {
            self.number(number);
            self.number(index);
        }
    }

    /// A key and its value. Keys come in their order, behind all writers.
    pub(crate) fn pair(&mut self, key: u64, value: &[u8]) {
        self.number(key);
        self.number(value.len() as u64);
        self.0.update(value);
    }

    /// What two states are compared by.
    pub(crate) fn finish(&self) -> u128 {
        let hash = self.0.finalize();
        let half = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        u128::from_le_bytes(half)
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_state_changes_its_digest() {
        let mut chain = Chain::default();
        chain.push(0, b"a");
        let mut other = Chain::default();
        other.push(1, b"a");
        let digest = |applied, chain: &Chain, writer, newest: &[(u64, u64)], key, value: &[u8]| {
            let mut digest = Digest::new(applied, chain);
            digest.writer(writer, newest.iter().copied());
            digest.pair(key, value);
            digest.finish()
        };
        let mut all = vec![
            digest(1, &chain, 1, &[(2, 3)], 4, b"five"),
            digest(2, &chain, 1, &[(2, 3)], 4, b"five"),
            digest(1, &other, 1, &[(2, 3)], 4, b"five"),
            digest(1, &chain, 2, &[(2, 3)], 4, b"five"),
            digest(1, &chain, 1, &[(3, 3)], 4, b"five"),
            digest(1, &chain, 1, &[(2, 4)], 4, b"five"),
            digest(1, &chain, 1, &[], 4, b"five"),
            digest(1, &chain, 1, &[(2, 3)], 5, b"five"),
            digest(1, &chain, 1, &[(2, 3)], 4, b"fives"),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9);
    }

    #[test]
    fn the_order_of_commands_is_in_their_chain() {
        let chain = |commands: [&[u8]; 2]| {
            let mut chain = Chain::default();
            (0..)
                .zip(commands)
                .for_each(|(index, command)| chain.push(index, command));
            chain
        };
        assert_ne!(chain([b"a", b"b"]), chain([b"b", b"a"]));
        assert_ne!(chain([b"ab", b""]), chain([b"a", b"b"]));
    }
}
