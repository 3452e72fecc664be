//! Names: of snapshots and chunks, and of the objects that hold them.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

macro_rules! hash_name {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads what `Display` writes: 64 hexadecimal digits in lower case.
            fn from_str(text: &str) -> Result<$name, Error> {
                parse_hash(text).map($name).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Invalid,
                        format!("not 64 hexadecimal digits: {text:?}"),
                    )
                })
            }
        }
    };
}

hash_name!(
    SnapshotId,
    "Names a snapshot by its contents: log, covered entry, time, metadata, digest and chunks. A copy on another machine has the same."
);
hash_name!(
    ChunkName,
    "Names a chunk: the blake3 hash of its uncompressed bytes."
);

impl ChunkName {
    /// The name of the chunk `bytes`.
    ///
    /// ```
    /// # use everlog::snapshot::ChunkName;
    /// assert!(ChunkName::of(b"").to_string().starts_with("af1349b9f5f9a1a6"));
    /// ```
    #[must_use]
    pub fn of(bytes: &[u8]) -> ChunkName {
        ChunkName(*blake3::hash(bytes).as_bytes())
    }
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = hex(digits[0])? << 4 | hex(digits[1])?;
    }
    Some(hash)
}

/// The value of a digit as [`fmt::Display`] writes it: one name, one spelling.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn parse_number(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|digit| hex(digit).is_some());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The object of the pack `number`.
pub(super) fn pack(number: u64) -> String {
    format!("{number:016x}{PACK}")
}

pub(super) fn parse_pack(name: &str) -> Option<u64> {
    parse_number(name.strip_suffix(PACK)?)
}

/// The object of an index.
pub(super) fn index(id: SnapshotId, generation: u64) -> String {
    format!("{id}-{generation:016x}{INDEX}")
}

pub(super) fn parse_index(name: &str) -> Option<(SnapshotId, u64)> {
    let (id, generation) = name.strip_suffix(INDEX)?.split_once('-')?;
    Some((SnapshotId(parse_hash(id)?), parse_number(generation)?))
}

/// The object of a pin: the snapshot that it holds can be told when it cannot be read.
pub(super) fn pin(id: SnapshotId, generation: u64) -> String {
    format!("{id}-{generation:016x}{PIN}")
}

pub(super) fn parse_pin(name: &str) -> Option<(SnapshotId, u64)> {
    let (id, generation) = name.strip_suffix(PIN)?.split_once('-')?;
    Some((SnapshotId(parse_hash(id)?), parse_number(generation)?))
}

const PACK: &str = ".pack";
const INDEX: &str = ".snap";
const PIN: &str = ".pin";
