//! Payloads of the journal's own frames: what is restated of a log (`Facts`), and the counter that travels with a new
//! floor (`Floor`).
//!
//! ```text
//! Facts, 64 bytes; the next index stands in the frame header, so the last entry's index is that minus 1
//! offset  size  field
//!      0     8  first          first index that the log was created with
//!      8     1  has_purged     1: entries up to the next two fields' id have been purged; 0: both are 0
//!      9     7  zero           refused otherwise
//!     16     8  purged_index
//!     24    16  purged_term
//!     40     1  has_last       1: the next field is the term of the last id; 0: there is none, the field is 0
//!     41     7  zero           refused otherwise
//!     48    16  last_term
//!
//! Floor, 16 bytes; the segment id of the floor stands in the frame header
//! offset  size  field
//!      0     8  incarnation_next  lowest incarnation not yet given to a log
//!      8     8  zero              refused otherwise
//! ```

use core::ops::Range;

use crate::types::{EntryId, Term};

use super::field::{field, get_u64, get_u128, is_zero, put};
use super::{Bad, NUMBER_MAX, require};

const FIRST: Range<usize> = field(0, 8);
const HAS_PURGED: Range<usize> = field(FIRST.end, 1);
const PURGED_ZERO: Range<usize> = field(HAS_PURGED.end, 7);
const PURGED_INDEX: Range<usize> = field(PURGED_ZERO.end, 8);
const PURGED_TERM: Range<usize> = field(PURGED_INDEX.end, 16);
const HAS_LAST: Range<usize> = field(PURGED_TERM.end, 1);
const LAST_ZERO: Range<usize> = field(HAS_LAST.end, 7);
const LAST_TERM: Range<usize> = field(LAST_ZERO.end, 16);

/// Bytes of the payload of a `Facts` frame.
pub(crate) const FACTS_LEN: usize = LAST_TERM.end;
const _: () = assert!(FACTS_LEN == 64); // the table above

const INCARNATION_NEXT: Range<usize> = field(0, 8);
const FLOOR_ZERO: Range<usize> = field(INCARNATION_NEXT.end, 8);

/// Bytes of the payload of a `Floor` frame.
pub(crate) const FLOOR_LEN: usize = FLOOR_ZERO.end;
const _: () = assert!(FLOOR_LEN == 16); // the table above

/// What a `Facts` frame restates of its log, beside the next index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// First index that the log was created with.
    pub first: u64,
    /// Id of the last purged entry.
    pub purged: Option<EntryId>,
    /// Term of the last id: of the last entry, or of the last purged one in an empty log.
    pub last: Option<Term>,
}

impl Facts {
    /// Reads the payload of a `Facts` frame; it is exactly [`FACTS_LEN`] bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Facts, Bad> {
        let bytes = exactly::<FACTS_LEN>(bytes)?;
        require(is_zero(&bytes[PURGED_ZERO]) && is_zero(&bytes[LAST_ZERO]), "zero")?;
        let purged = match bytes[HAS_PURGED.start] {
            0 => {
                let empty = is_zero(&bytes[PURGED_INDEX]) && is_zero(&bytes[PURGED_TERM]);
                require(empty, "purged")?;
                None
            }
            1 => Some(EntryId {
                term: Term(get_u128(bytes, PURGED_TERM)),
                index: get_u64(bytes, PURGED_INDEX),
            }),
            _ => return Err(Bad::Field("has_purged")),
        };
        let last = match bytes[HAS_LAST.start] {
            0 => {
                require(is_zero(&bytes[LAST_TERM]), "last_term")?;
                None
            }
            1 => Some(Term(get_u128(bytes, LAST_TERM))),
            _ => return Err(Bad::Field("has_last")),
        };
        let first = get_u64(bytes, FIRST);
        Ok(Facts { first, purged, last })
    }

    /// The payload of a `Facts` frame.
    pub(crate) fn encode(&self) -> [u8; FACTS_LEN] {
        let mut out = [0; FACTS_LEN];
        put(&mut out, FIRST, self.first.to_le_bytes());
        if let Some(purged) = self.purged {
            put(&mut out, HAS_PURGED, [1]);
            put(&mut out, PURGED_INDEX, purged.index.to_le_bytes());
            put(&mut out, PURGED_TERM, purged.term.0.to_le_bytes());
        }
        if let Some(term) = self.last {
            put(&mut out, HAS_LAST, [1]);
            put(&mut out, LAST_TERM, term.0.to_le_bytes());
        }
        out
    }
}

/// What a `Floor` frame says beside the new floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Lowest incarnation not yet given to a log.
    pub incarnation_next: u64,
}

impl Floor {
    /// Reads the payload of a `Floor` frame; it is exactly [`FLOOR_LEN`] bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Floor, Bad> {
        let bytes = exactly::<FLOOR_LEN>(bytes)?;
        require(is_zero(&bytes[FLOOR_ZERO]), "zero")?;
        let incarnation_next = get_u64(bytes, INCARNATION_NEXT);
        require(incarnation_next <= NUMBER_MAX, "incarnation_next")?;
        Ok(Floor { incarnation_next })
    }

    /// The payload of a `Floor` frame.
    pub(crate) fn encode(&self) -> [u8; FLOOR_LEN] {
        let mut out = [0; FLOOR_LEN];
        put(&mut out, INCARNATION_NEXT, self.incarnation_next.to_le_bytes());
        out
    }
}

/// `bytes` as an array if it has just that length.
fn exactly<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], Bad> {
    if bytes.len() < N {
        return Err(Bad::Short);
    }
    bytes.try_into().map_err(|_| Bad::Field("len"))
}
