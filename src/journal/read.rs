//! Reading entries, for a log that is open and for one that is only looked at.

use std::ops::Range;

use super::state::{LogState, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Kind;
use crate::segment::read::{BlockCache, ReadAhead, Wanted, read_payload};
use crate::types::{Entry, EntryId, LogKey};

/// An entry that is there, and where.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) id: EntryId,
    place: Place,
}

/// Finds the entry `index`: `Purged`, `NotFound` beyond the end, `Damaged` if damage took it.
pub(crate) fn locate(state: &LogState, key: LogKey, index: u64) -> Result<Located> {
    if index < state.start || index >= state.end {
        return Err(outside(state, key, index));
    }
    let term = state.term_at(index);
    match (term, state.place(index)) {
        (Some(term), Some(place)) => Ok(Located {
            id: EntryId { term, index },
            place,
        }),
        _ => {
            let text = format!("entry {index} of log {key} is damaged; `everlog verify` lists all damage");
            Err(Error::new(ErrorKind::Damaged, text))
        }
    }
}

/// Finds the entries of `range`, at most `most`, up to the first that cannot be found.
pub(crate) fn locate_some(
    state: &LogState,
    key: LogKey,
    range: Range<u64>,
    most: usize,
) -> (Vec<Located>, Option<Error>) {
    let mut found = Vec::new();
    for index in range.take(most) {
        match locate(state, key, index) {
            Ok(located) => found.push(located),
            Err(error) => return (found, Some(error)),
        }
    }
    (found, None)
}

/// Why there is no entry `index`.
pub(crate) fn outside(state: &LogState, key: LogKey, index: u64) -> Error {
    if index < state.start {
        let text = format!(
            "entry {index} of log {key} was purged; the log begins at {}",
            state.start
        );
        return Error::new(ErrorKind::Purged, text);
    }
    let text = format!("log {key} has no entry {index}; it ends at {}", state.end);
    Error::new(ErrorKind::NotFound, text)
}

/// Reads and verifies what was located; through `ahead` if more will be read behind it.
pub(crate) fn fetch(
    located: Located,
    key: LogKey,
    incarnation: u64,
    cache: &BlockCache,
    ahead: Option<&mut ReadAhead>,
) -> Result<Entry> {
    let Located { id, place } = located;
    let payload = match place {
        Place::Memory(payload) => payload,
        Place::Disk(disk) => {
            let header_at = cache.offset(&disk.segment, disk.slot)?;
            let wanted = Wanted {
                kind: Kind::Append,
                cell: 0,
                log: key,
                incarnation,
                index: id.index,
                term: id.term,
            };
            match ahead {
                Some(ahead) => ahead.read_payload(&disk.segment, header_at, &wanted)?,
                None => read_payload(&disk.segment, header_at, &wanted)?,
            }
        }
    };
    Ok(Entry { id, payload })
}
