//! Standard output, and how numbers and commands are written for people.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::exit::Failure;

/// Version of every JSON object that is printed.
const SCHEMA: u32 = 1;

/// Buffered standard output. A reader who goes away ends the command quietly.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Takes standard output for the rest of the command.
    pub(crate) fn new() -> Output {
        Output {
            out: BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()),
        }
    }

    /// Prints `text` and a newline.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.bytes(text.as_ref().as_bytes())?;
        self.bytes(b"\n")
    }

    /// Prints `object`, with the schema in front, on a line of its own.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(
            &mut self.out,
            &Versioned {
                schema: SCHEMA,
                object,
            },
        )
        .map_err(|e| failed(&e.into()))?;
        self.bytes(b"\n")
    }

    /// Prints `bytes` as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|e| failed(&e))
    }

    /// Hands everything printed so far to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|e| failed(&e))
    }
}

/// Whether standard output is a person's terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// `n` of a noun: `1 entry`, `1,204 entries`.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
}

/// A number with its thousands set apart.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the unit a person would choose.
pub(crate) fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut unit = 1u64 << 10;
    for name in ["KiB", "MiB", "GiB", "TiB"] {
        if n < unit << 10 || name == "TiB" {
            let tenths = u128::from(n) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        unit <<= 10;
    }
    unreachable!("the last unit takes every number")
}

/// A duration with three digits that matter.
pub(crate) fn time(d: Duration) -> String {
    let micros = d.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        m if m < 1e3 => (m, "us"),
        m if m < 1e6 => (m / 1e3, "ms"),
        m => (m / 1e6, "s"),
    };
    let decimals = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {unit}")
}

/// How many per second, rounded down.
pub(crate) fn rate(n: u64, d: Duration) -> u64 {
    let nanos = d.as_nanos().max(1);
    u64::try_from(u128::from(n) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// `path` as a word that a shell reads back as the same path.
pub(crate) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text;
    }
    let quoted = format!("'{}'", text.replace('\'', r"'\''"));
    if text.starts_with('-') {
        format!("./{quoted}")
    } else {
        quoted
    }
}

#[derive(Serialize)]
struct Versioned<'a, T: Serialize> {
    schema: u32,
    #[serde(flatten)]
    object: &'a T,
}

fn failed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::quiet(),
        _ => Failure::io("write to standard output", error),
    }
}

const BUFFER_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(time(Duration::from_micros(12)), "12.0 us");
        assert_eq!(time(Duration::from_micros(1_234)), "1.23 ms");
        assert_eq!(time(Duration::from_secs(125)), "125 s");
        assert_eq!(rate(10, Duration::from_millis(500)), 20);
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
    }

    #[test]
    fn a_path_in_a_command_can_be_pasted() {
        assert_eq!(word(Path::new("/a/b-1.seg")), "/a/b-1.seg");
        assert_eq!(word(Path::new("a b")), "'a b'");
        assert_eq!(word(Path::new("it's")), r"'it'\''s'");
        assert_eq!(word(Path::new("-x")), "./'-x'");
    }
}
