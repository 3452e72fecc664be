//! What the writers of a drilled machine do: everything follows from the seed, so that child and drill agree without
//! telling each other.

use super::super::child::position;
use super::super::entries::{Entries, Random};

/// The commands of all writers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) writers: u32,
    /// How many keys there are.
    pub(crate) keys: u64,
    /// Each command is waited for: entries are long.
    pub(crate) alone: bool,
}

/// What a writer does in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) how: How,
    /// So many commands, at most [`STEP_MAX`].
    pub(crate) count: u64,
}

/// How commands are handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// One, waited for.
    Alone,
    /// One behind the other, and waited for afterwards.
    Submitted,
    /// All or none of them.
    Batch,
}

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) writer: u32,
    /// Counts the writer's commands.
    pub(crate) number: u64,
    pub(crate) key: u64,
    /// The entry that becomes the key's value; `None` deletes the key.
    pub(crate) line: Option<usize>,
}

impl Plan {
    /// That of a drill with this seed.
    pub(crate) fn new(seed: u64, writers: u32, keys: u64, entries: &Entries) -> Plan {
        Plan {
            seed,
            writers,
            keys,
            alone: entries.longest() > LONG,
        }
    }

    /// What `writer` does when `number` is its next command.
    pub(crate) fn step(&self, writer: u32, number: u64) -> Step {
        let mut random = self.random(writer, number, 1);
        let how = match random.between(0..10) {
            _ if self.alone => How::Alone,
            0..6 => How::Alone,
            6..8 => How::Submitted,
            _ => How::Batch,
        };
        let count = match how {
            How::Alone => 1,
            How::Submitted | How::Batch => random.between(2..STEP_MAX as u64 + 1),
        };
        Step { how, count }
    }

    /// The command `number` of `writer`.
    pub(crate) fn command(&self, writer: u32, number: u64, entries: &Entries) -> Command {
        let mut random = self.random(writer, number, 2);
        let line = position(writer, u64::from(self.writers), number, entries.len());
        Command {
            writer,
            number,
            key: random.between(0..self.keys),
            line: (random.between(0..DELETES_ONE_IN) > 0).then_some(line),
        }
    }

    fn random(&self, writer: u32, number: u64, what: u64) -> Random {
        let seed = Random::new(self.seed ^ what << 56 ^ u64::from(writer) << 24).next();
        Random::new(seed ^ number)
    }
}

impl Command {
    /// What the log gets.
    pub(crate) fn encode(&self, entries: &Entries) -> Vec<u8> {
        let value = self.line.map(|line| entries.get(line));
        let mut bytes = Vec::with_capacity(HEAD_BYTES + value.map_or(0, <[u8]>::len));
        bytes.extend_from_slice(&self.writer.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.key.to_le_bytes());
        bytes.push(u8::from(value.is_some()));
        bytes.extend_from_slice(value.unwrap_or_default());
        bytes
    }
}

/// What a machine reads out of the bytes of a command: writer, number, key, and the value if it has one.
pub(crate) fn decode(command: &[u8]) -> Option<(u32, u64, u64, Option<&[u8]>)> {
    let (writer, rest) = command.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    let (has_value, value) = rest.split_first()?;
    Some((
        u32::from_le_bytes(*writer),
        u64::from_le_bytes(*number),
        u64::from_le_bytes(*key),
        (*has_value == 1).then_some(value),
    ))
}

/// A writer has at most so many commands under way, and the machine remembers so many of each.
pub(crate) const STEP_MAX: usize = 12;
/// One command in so many deletes its key.
const DELETES_ONE_IN: u64 = 8;
const HEAD_BYTES: usize = 4 + 8 + 8 + 1;
/// Where an entry is longer than this, commands come alone.
const LONG: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_reads_what_was_planned() {
        let entries = Entries::made_up(&mut Random::new(3));
        let plan = Plan::new(5, 3, 100, &entries);
        let mut deletes = 0;
        for number in 0..200 {
            let command = plan.command(2, number, &entries);
            deletes += u64::from(command.line.is_none());
            let value = command.line.map(|line| entries.get(line));
            let bytes = command.encode(&entries);
            assert_eq!(decode(&bytes), Some((2, number, command.key, value)));
            assert!(command.key < 100);
            let step = plan.step(2, number);
            assert!((1..=STEP_MAX as u64).contains(&step.count), "{step:?}");
        }
        assert!((5..100).contains(&deletes), "{deletes}");
        assert_eq!(decode(&[0; HEAD_BYTES - 1]), None);
    }

    #[test]
    fn long_entries_come_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b'x'; LONG + 1]).unwrap();
        let entries = Entries::of_file(file.path()).unwrap();
        let plan = Plan::new(5, 1, 1, &entries);
        assert!((0..100).all(|number| plan.step(0, number).how == How::Alone));
    }
}
