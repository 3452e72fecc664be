//! What a journal or a view of it gives out, error by error, and whether that is what a model says.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use everlog::inspect::View;
use everlog::{EntryId, Error, ErrorKind, Journal, LogKey, Term};

use super::model::Model;

/// All logs by key.
pub(crate) type Found = BTreeMap<u64, FoundLog>;

#[derive(Debug)]
pub(crate) struct FoundLog {
    pub(crate) bounds: Range<u64>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) last: Option<EntryId>,
    pub(crate) entries: BTreeMap<u64, Result<(Term, Bytes), Error>>,
    pub(crate) cells: BTreeMap<u8, Result<Bytes, Error>>,
}

/// An entry or a cell of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Entry(u64),
    Cell(u8),
}

/// By log, indexes of entries that are read.
pub(crate) type Selection = BTreeMap<u64, Vec<Range<u64>>>;

/// Reads everything, or of the entries only some, on behind each error.
macro_rules! read_all {
    ($from:expr, $some:expr) => {{
        let some: Option<&Selection> = $some;
        let mut found = Found::new();
        for key in $from.logs() {
            let log = $from.log(key)?;
            let bounds = log.bounds()?;
            let mut entries = BTreeMap::new();
            let all = [bounds.clone()];
            let ranges = some.map_or(&all[..], |some| some.get(&key.0).map_or(&[], |ranges| ranges));
            for range in ranges {
                let end = range.end.min(bounds.end);
                let mut next = range.start.max(bounds.start);
                while next < end {
                    for entry in log.read(next..end) {
                        let entry = entry.map(|entry| (entry.id.term, entry.payload));
                        entries.insert(next, entry);
                        next += 1;
                    }
                }
            }
            let mut cells = BTreeMap::new();
            for cell in log.cells()? {
                let value = log.cell(cell).map(|value| value.unwrap_or_default());
                cells.insert(cell, value);
            }
            let (purged, last) = (log.purged()?, log.last()?);
            let log = FoundLog {
                bounds,
                purged,
                last,
                entries,
                cells,
            };
            found.insert(key.0, log);
        }
        found
    }};
}

pub(crate) fn of_journal(journal: &Journal) -> everlog::Result<Found> {
    Ok(read_all!(journal, None))
}

/// All bounds and cells, but only some of the entries.
pub(crate) fn some_of_journal(journal: &Journal, some: &Selection) -> everlog::Result<Found> {
    Ok(read_all!(journal, Some(some)))
}

pub(crate) fn of_view(view: &View) -> everlog::Result<Found> {
    Ok(read_all!(view, None))
}

/// One entry alone.
pub(crate) fn entry(journal: &Journal, key: u64, index: u64) -> everlog::Result<(Term, Bytes)> {
    let entry = journal.log(LogKey(key))?.entry(index)?;
    Ok((entry.id.term, entry.payload))
}

/// The errors that reading met, by log.
pub(crate) fn errors(found: &Found) -> impl Iterator<Item = (u64, Item, &Error)> {
    found.iter().flat_map(|(key, log)| {
        let entries = log.entries.iter();
        let entries =
            entries.filter_map(|(index, entry)| Some((*key, Item::Entry(*index), entry.as_ref().err()?)));
        let cells = log.cells.iter();
        let cells = cells.filter_map(|(cell, value)| Some((*key, Item::Cell(*cell), value.as_ref().err()?)));
        entries.chain(cells)
    })
}

/// Whether everything that was read is what `model` holds, and everything that it holds is there, but for errors; and if
/// not, the first difference.
pub(crate) fn differs(found: &Found, model: &Model) -> Option<String> {
    for key in found.keys() {
        if !model.0.contains_key(key) {
            return Some(format!("there is a log {key}"));
        }
    }
    for (key, expected) in &model.0 {
        let Some(log) = found.get(key) else {
            return Some(format!("log {key} is not there"));
        };
        let bounds = expected.start..expected.end();
        if log.bounds != bounds {
            return Some(format!("log {key} is {:?} and not {bounds:?}", log.bounds));
        }
        if (log.purged, log.last) != (expected.purged, expected.last()) {
            return Some(format!("log {key}: purged {:?}, last {:?}", log.purged, log.last));
        }
        for (index, entry) in &log.entries {
            if entry
                .as_ref()
                .is_ok_and(|entry| Some(entry) != expected.entry(*index))
            {
                return Some(format!("log {key}: entry {index} is another"));
            }
        }
        if !log.cells.keys().eq(expected.cells.keys()) {
            return Some(format!("log {key} has cells {:?}", log.cells.keys()));
        }
        for (cell, value) in &log.cells {
            if value.as_ref().is_ok_and(|value| *value != expected.cells[cell]) {
                return Some(format!("log {key}: cell {cell} has another value"));
            }
        }
    }
    None
}

/// Whether two readings are the same, errors included.
pub(crate) fn same(one: &Found, other: &Found) -> bool {
    let kind = |error: &Error| error.kind();
    let logs = one.iter().zip(other);
    one.len() == other.len()
        && logs.into_iter().all(|((key, a), (other_key, b))| {
            (key, &a.bounds, a.purged, a.last) == (other_key, &b.bounds, b.purged, b.last)
                && equal(&a.entries, &b.entries, &kind)
                && equal(&a.cells, &b.cells, &kind)
        })
}

fn equal<K: PartialEq, V: PartialEq>(
    one: &BTreeMap<K, Result<V, Error>>,
    other: &BTreeMap<K, Result<V, Error>>,
    kind: &dyn Fn(&Error) -> ErrorKind,
) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((key, a), (other_key, b))| {
            key == other_key
                && match (a, b) {
                    (Ok(a), Ok(b)) => a == b,
                    (Err(a), Err(b)) => kind(a) == kind(b),
                    _ => false,
                }
        })
}
