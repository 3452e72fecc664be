//! Reading entries, for a log that is open and for one that is only looked at.

use std::collections::VecDeque;
use std::ops::Range;

use super::state::{DiskPlace, LogState, Place, Places, Stretch};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Kind;
use crate::segment::ahead::ReadAhead;
use crate::segment::cache::BlockCache;
use crate::segment::read::{Wanted, read_payload};
use crate::segment::run::{Limit, Take};
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
        _ => Err(lost(key, index)),
    }
}

fn lost(key: LogKey, index: u64) -> Error {
    let text = format!("entry {index} of log {key} is damaged; `everlog verify` lists all damage");
    Error::new(ErrorKind::Damaged, text)
}

/// Finds the entries of `range`, at most `most`, up to the first that cannot be found: where they are, and the index behind them.
pub(crate) fn locate_some(
    state: &LogState,
    key: LogKey,
    range: Range<u64>,
    most: u64,
) -> (VecDeque<Stretch>, u64, Option<Error>) {
    let mut found = VecDeque::new();
    let mut at = range.start;
    let end = range.end.min(at.saturating_add(most));
    while at < end {
        let error = if at < state.start || at >= state.end {
            outside(state, key, at)
        } else if let Some(stretch) = state.stretch(at..end) {
            at += stretch.len();
            found.push_back(stretch);
            continue;
        } else {
            lost(key, at)
        };
        return (found, at, Some(error));
    }
    (found, at, None)
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
        Place::Disk(DiskPlace { segment, slot }) => {
            let wanted = wanted(key, incarnation, id);
            match ahead {
                Some(ahead) => {
                    let header_at = ahead.offset(cache, &segment, slot)?;
                    ahead.read_payload(&segment, header_at, &wanted)?
                }
                None => read_payload(&segment, cache.offset(&segment, slot)?, &wanted)?,
            }
        }
    };
    Ok(Entry { id, payload })
}

/// Reads and verifies the next entries of a stretch, at least one unless there is none. After an error those before it were taken.
pub(crate) fn fetch_some(
    stretch: &mut Stretch,
    key: LogKey,
    incarnation: u64,
    cache: &BlockCache,
    ahead: &mut ReadAhead,
    limit: Limit,
    take: &mut impl Take,
) -> Result<()> {
    match &mut stretch.places {
        Places::Memory(payloads) => {
            for payload in payloads.take(limit.entries) {
                take(stretch.next, &payload, &(0..payload.len()));
                stretch.next.index += 1;
            }
            Ok(())
        }
        Places::Disk(_, slots) if slots.len() == 0 => Ok(()),
        Places::Disk(segment, slots) => {
            let mut wanted = wanted(key, incarnation, stretch.next);
            let done = ahead.read_run(cache, segment, slots, &mut wanted, limit, take);
            stretch.next.index = wanted.index;
            done
        }
    }
}

fn wanted(log: LogKey, incarnation: u64, id: EntryId) -> Wanted {
    Wanted {
        kind: Kind::Append,
        cell: 0,
        log,
        incarnation,
        index: id.index,
        term: id.term,
    }
}
