//! What a drill appends: the lines of a file, or made-up entries; and the random numbers of a drill.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use crate::exit::Failure;
use crate::output;

/// A list of payloads, kept as one piece of memory.
#[derive(Default)]
pub(crate) struct Entries {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Entries {
    /// The lines of `file`, without their newlines. Of a very long file the first lines: they start over anyway.
    pub(crate) fn of_file(file: &Path) -> Result<Entries, Failure> {
        let failed = |e: io::Error| Failure::io(&format!("read {}", file.display()), &e);
        let mut text = Vec::new();
        let input = File::open(file).map_err(failed)?;
        input.take(BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        if text.last().is_some_and(|byte| *byte != b'\n') && text.len() as u64 == BYTES_MAX {
            let whole = text.iter().rposition(|byte| *byte == b'\n').ok_or_else(|| {
                let most = output::bytes(BYTES_MAX);
                Failure::usage(format!("{}: a line is longer than {most}", file.display()))
            })?;
            text.truncate(whole + 1);
        }
        let mut entries = Entries::default();
        let lines = text.strip_suffix(b"\n").unwrap_or(&text);
        if text.is_empty() {
            return Err(Failure::usage(format!(
                "{}: has no line to append",
                file.display()
            )));
        }
        for line in lines.split(|byte| *byte == b'\n') {
            entries.push(line);
        }
        Ok(entries)
    }

    /// Entries of all sizes, most of them small, with every byte value.
    pub(crate) fn made_up(random: &mut Random) -> Entries {
        let mut entries = Entries::default();
        let mut payload = Vec::new();
        for _ in 0..MADE_UP {
            let len = match random.between(0..100) {
                0 => 0,
                1..80 => random.between(1..300),
                80..98 => random.between(300..5_000),
                _ => random.between(5_000..100_000),
            };
            payload.clear();
            while (payload.len() as u64) < len {
                payload.extend_from_slice(&random.next().to_le_bytes());
            }
            payload.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            entries.push(&payload);
        }
        entries
    }

    /// Reads what [`Entries::write`] wrote.
    pub(crate) fn read(input: &mut impl Read) -> io::Result<Entries> {
        let count = read_number(input)?;
        let mut entries = Entries::default();
        for _ in 0..count {
            let end = usize::try_from(read_number(input)?).map_err(io::Error::other)?;
            entries.ends.push(end);
        }
        let len = entries.ends.last().copied().unwrap_or(0);
        entries.bytes.resize(len, 0);
        input.read_exact(&mut entries.bytes)?;
        Ok(entries)
    }

    /// Hands the entries to another process.
    pub(crate) fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        out.write_all(&(self.ends.len() as u64).to_le_bytes())?;
        for end in &self.ends {
            out.write_all(&(*end as u64).to_le_bytes())?;
        }
        out.write_all(&self.bytes)
    }

    /// How many there are; never none.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The length of the longest one.
    pub(crate) fn longest(&self) -> usize {
        (0..self.len())
            .map(|position| self.get(position).len())
            .max()
            .unwrap_or(0)
    }

    /// The payload at `position`, counted from 0.
    pub(crate) fn get(&self, position: usize) -> &[u8] {
        let start = position.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[position]]
    }

    fn push(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
    }
}

/// A little-endian number.
pub(crate) fn read_number(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Seeded random numbers (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `range`, which is not empty.
    pub(crate) fn between(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }
}

/// More of a file is not read: a drill goes over its lines again and again.
const BYTES_MAX: u64 = 64 << 20;
const MADE_UP: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> Vec<Vec<u8>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let entries = Entries::of_file(file.path()).unwrap();
        (0..entries.len()).map(|i| entries.get(i).to_vec()).collect()
    }

    #[test]
    fn lines_are_kept_byte_for_byte() {
        assert_eq!(of(b"a\r\n\nb"), [&b"a\r"[..], b"", b"b"]);
        assert_eq!(of(b"a\nb\n"), [b"a", b"b"]);
        assert_eq!(of(b"\n"), [b""]);
    }

    #[test]
    fn entries_reach_the_other_process_whole() {
        let entries = Entries::made_up(&mut Random::new(7));
        let mut pipe = Vec::new();
        entries.write(&mut pipe).unwrap();
        let read = Entries::read(&mut pipe.as_slice()).unwrap();
        assert_eq!(read.len(), entries.len());
        for i in 0..entries.len() {
            assert_eq!(read.get(i), entries.get(i), "entry {i}");
        }
    }
}
