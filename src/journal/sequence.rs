//! Sequencing: a batch is checked whole, then given its places in the logs. Runs under the journal's core lock and does no
//! I/O; the order in which batches pass here is their order on disk.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::batch::{Op, What, Wish, WriteBatch};
use super::hold;
use super::state::{Cell, LogState, Logs};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Facts, Floor, Kind, payload_crc};
use crate::mutant::{Rule, removed};
use crate::types::{EntryId, LogKey, Term, TermRun};

/// All cells of a log together.
pub(crate) const CELL_BYTES_MAX: usize = 64 << 10;

fn invalid<T>(text: String) -> Result<T> {
    Err(Error::new(ErrorKind::Invalid, text))
}

/// Checks every operation of `batch` against the logs as they will be when it is reached. Changes nothing.
pub(crate) fn check(logs: &Logs, batch: &WriteBatch) -> Result<()> {
    if let Some(incarnation) = batch.incarnation {
        // The log may have been deleted, and another one created under its key, while the batch waited for its place.
        let other = |op: &&Wish| logs.get(op.log).is_none_or(|log| log.incarnation != incarnation);
        if let Some(op) = batch.ops.iter().find(other) {
            return Err(missing(op.log));
        }
    }
    if !logs.held.is_empty() {
        hold::check(&logs.held, batch)?;
    }
    let mut shadows: BTreeMap<LogKey, Option<Shadow<'_>>> = BTreeMap::new();
    let plain = batch.ops.iter().all(|op| op.what == What::Append);
    if plain {
        for op in &batch.ops {
            let log = logs.get(op.log).ok_or_else(|| missing(op.log))?;
            if log.end.checked_add(batch.ops.len() as u64).is_none() {
                return invalid(format!("log {} has no index left", op.log));
            }
        }
        return Ok(());
    }
    for op in &batch.ops {
        let shadow = shadows
            .entry(op.log)
            .or_insert_with(|| logs.get(op.log).map(Shadow::of));
        check_one(op, shadow)?;
    }
    Ok(())
}

fn missing(log: LogKey) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no log {log}"))
}

/// A log as it will be after the operations checked so far.
struct Shadow<'a> {
    base: Option<&'a LogState>,
    /// The base holds below this index; `added` from it on.
    cut: u64,
    added: Vec<TermRun>,
    start: u64,
    end: u64,
    purged: Option<EntryId>,
    cells: BTreeMap<u8, usize>,
}

impl<'a> Shadow<'a> {
    fn of(base: &'a LogState) -> Shadow<'a> {
        Shadow {
            base: Some(base),
            cut: base.end,
            added: Vec::new(),
            start: base.start,
            end: base.end,
            purged: base.purged,
            cells: base
                .cells
                .iter()
                .map(|(id, cell)| (*id, cell.value.as_ref().map_or(0, Bytes::len)))
                .collect(),
        }
    }

    fn new(first: u64) -> Shadow<'a> {
        let (base, added, cells) = (None, Vec::new(), BTreeMap::new());
        Shadow {
            base,
            cut: first,
            added,
            start: first,
            end: first,
            purged: None,
            cells,
        }
    }

    fn term_at(&self, index: u64) -> Option<Term> {
        if index >= self.end {
            return None;
        }
        if index >= self.cut {
            let after = self.added.partition_point(|run| run.first <= index);
            return after.checked_sub(1).map(|at| self.added[at].term);
        }
        self.base.and_then(|base| base.term_at(index))
    }

    fn last(&self) -> Option<EntryId> {
        if self.start == self.end {
            return self.purged;
        }
        let index = self.end - 1;
        self.term_at(index).map(|term| EntryId { term, index })
    }

    fn append(&mut self, term: Term) {
        if self.added.last().is_none_or(|run| run.term != term) {
            self.added.push(TermRun {
                first: self.end,
                term,
            });
        }
        self.end += 1;
    }

    fn truncate(&mut self, from: u64) {
        self.end = from;
        self.cut = self.cut.min(from);
        self.added.retain(|run| run.first < from);
    }

    fn empty_at(&mut self, next: u64, purged: Option<EntryId>) {
        self.added.clear();
        self.cut = next;
        self.start = next;
        self.end = next;
        self.purged = purged;
    }
}

fn check_one(op: &Wish, shadow: &mut Option<Shadow<'_>>) -> Result<()> {
    let key = op.log;
    match op.what {
        What::Create(first) if shadow.is_none() => {
            *shadow = Some(Shadow::new(first));
            return Ok(());
        }
        What::Create(_) => return invalid(format!("log {key} exists")),
        What::Floor(_) => return Ok(()),
        // The log may have gone since somebody saw that its facts are to be said again: then nothing is.
        What::RestateFacts | What::RestateCell(_) => return Ok(()),
        _ => {}
    }
    let log = shadow.as_mut().ok_or_else(|| missing(key))?;
    match op.what {
        What::Append => check_append(log, key, None),
        What::AppendAt(id) => check_append(log, key, Some(id)),
        What::TruncateFrom(from) if from >= log.end => Ok(()),
        What::TruncateFrom(from) if from < log.start => invalid(format!(
            "log {key} begins at {}; it cannot be truncated from {from}",
            log.start
        )),
        What::TruncateFrom(from) => {
            log.truncate(from);
            Ok(())
        }
        What::PurgeTo(to) => {
            purge(log, to, None);
            Ok(())
        }
        What::PurgeThrough(id) => check_purge_through(log, key, id),
        What::Reset(last) => {
            let next = next_index(key, last.index)?;
            log.empty_at(next, Some(last));
            Ok(())
        }
        What::Set(cell) => {
            log.cells.insert(cell, op.payload_len());
            let total: usize = log.cells.values().sum();
            if total > CELL_BYTES_MAX {
                return invalid(format!(
                    "the cells of log {key} would hold {total} bytes; at most {CELL_BYTES_MAX}"
                ));
            }
            Ok(())
        }
        What::Delete => {
            *shadow = None;
            Ok(())
        }
        What::RestateFacts | What::RestateCell(_) | What::Create(_) | What::Floor(_) => Ok(()),
    }
}

fn next_index(key: LogKey, index: u64) -> Result<u64> {
    match index.checked_add(1) {
        Some(next) => Ok(next),
        None => invalid(format!("log {key} has no index after {index}")),
    }
}

fn check_append(log: &mut Shadow<'_>, key: LogKey, id: Option<EntryId>) -> Result<()> {
    next_index(key, log.end)?;
    let last = log.last();
    let term = id.map_or_else(|| last.map_or(Term(0), |last| last.term), |id| id.term);
    if let Some(id) = id.filter(|id| id.index != log.end) {
        return invalid(format!(
            "the next index of log {key} is {}, not {}",
            log.end, id.index
        ));
    }
    if let Some(last) = last.filter(|last| last.term > term) {
        return invalid(format!(
            "the last entry of log {key} is {last}; a term of {term} is lower"
        ));
    }
    log.append(term);
    Ok(())
}

fn purge(log: &mut Shadow<'_>, to: u64, id: Option<EntryId>) {
    if to <= log.start {
        return;
    }
    let purged = id.or_else(|| purged_id(to, log.term_at(to - 1), log.last()));
    if to >= log.end {
        log.empty_at(to, purged);
    } else {
        log.start = to;
        log.purged = purged;
    }
}

/// Id of the last purged entry after a purge to `to`: beyond the end it takes the term of the last entry.
fn purged_id(to: u64, term: Option<Term>, last: Option<EntryId>) -> Option<EntryId> {
    let term = term.or(last.map(|id| id.term)).unwrap_or_default();
    to.checked_sub(1).map(|index| EntryId { term, index })
}

fn check_purge_through(log: &mut Shadow<'_>, key: LogKey, id: EntryId) -> Result<()> {
    let to = next_index(key, id.index)?;
    if to <= log.start {
        return Ok(());
    }
    match log.term_at(id.index) {
        Some(term) if term != id.term => {
            return invalid(format!(
                "entry {} of log {key} has term {term}, not {}",
                id.index, id.term
            ));
        }
        None if log.last().is_some_and(|last| last.term > id.term) => {
            return invalid(format!("the last entry of log {key} has a higher term than {id}"));
        }
        _ => {}
    }
    purge(log, to, Some(id));
    Ok(())
}

/// Applies a checked batch to the logs, in order. Returns the operations as their frames will say them (one that changes
/// nothing has none) and the ids of the appended entries.
pub(crate) fn apply(logs: &mut Logs, batch: WriteBatch, serial: &mut u64) -> (Vec<Op>, Vec<EntryId>) {
    let (wishes, buffer) = batch.freeze();
    let mut ops = Vec::with_capacity(wishes.len());
    let mut ids = Vec::new();
    for wish in &wishes {
        *serial += 1;
        let payload = wish.payload(&buffer);
        if let Some(op) = apply_one(logs, wish, payload, *serial) {
            if op.kind == Kind::Append {
                ids.push(EntryId {
                    term: op.term,
                    index: op.index,
                });
            }
            ops.push(op);
        }
    }
    (ops, ids)
}

fn apply_one(logs: &mut Logs, wish: &Wish, payload: Bytes, serial: u64) -> Option<Op> {
    let key = wish.log;
    let mut op = Op {
        kind: Kind::Append,
        cell: 0,
        log: key,
        incarnation: 0,
        index: 0,
        term: Term(0),
        payload,
        crc: wish.crc,
        serial,
    };
    match wish.what {
        What::Create(first) => {
            op.kind = Kind::Create;
            op.index = first;
            op.incarnation = logs.incarnation_next.max(1);
            if removed(Rule::IncarnationIsFresh) {
                op.incarnation = 1;
            }
            logs.incarnation_next = op.incarnation + 1;
            logs.insert(key, LogState::new(op.incarnation, first));
            return Some(op);
        }
        What::Floor(segment) => {
            op.kind = Kind::Floor;
            op.index = segment;
            op.payload = Bytes::copy_from_slice(
                &Floor {
                    incarnation_next: logs.stated_incarnation(),
                }
                .encode(),
            );
            op.crc = payload_crc(&op.payload);
            return Some(op);
        }
        What::Delete => {
            op.kind = Kind::Delete;
            op.incarnation = logs.get(key)?.incarnation;
            logs.remove(key);
            return Some(op);
        }
        _ => {}
    }
    let log = logs.get_mut(key)?;
    op.incarnation = log.incarnation;
    apply_to(log, wish.what, op)
}

fn apply_to(log: &mut LogState, what: What, mut op: Op) -> Option<Op> {
    match what {
        What::Append | What::AppendAt(_) => {
            op.index = log.end;
            op.term = match what {
                What::AppendAt(id) => id.term,
                _ => log.last().map_or(Term(0), |last| last.term),
            };
            log.append(op.term, op.payload.clone(), op.serial);
        }
        What::TruncateFrom(from) => {
            if from >= log.end {
                return None;
            }
            op.kind = Kind::Truncate;
            op.index = from;
            log.truncate(from);
        }
        What::PurgeTo(to) => return apply_purge(log, to, None, op),
        What::PurgeThrough(id) => return apply_purge(log, id.index + 1, Some(id.term), op),
        What::Reset(last) => {
            op.kind = Kind::Reset;
            op.index = last.index + 1;
            op.term = last.term;
            log.reset(op.index, op.term);
        }
        What::Set(cell) => {
            op.kind = Kind::Cell;
            op.cell = cell;
            let place = log.cells.get(&cell).and_then(|cell| cell.place.clone());
            log.cells.insert(
                cell,
                Cell {
                    value: Some(op.payload.clone()),
                    place,
                    serial: op.serial,
                },
            );
        }
        What::RestateFacts => {
            op.kind = Kind::Facts;
            if !removed(Rule::RestateNext) {
                op.index = log.end;
            }
            if removed(Rule::RestateIncarnation) {
                op.incarnation = 0;
            }
            let facts: Facts = log.facts();
            op.payload = Bytes::copy_from_slice(&facts.encode());
            op.crc = payload_crc(&op.payload);
        }
        What::RestateCell(id) => {
            let cell = log.cells.get_mut(&id)?;
            op.kind = Kind::Cell;
            op.cell = id;
            op.payload = cell.value.clone()?;
            op.crc = payload_crc(&op.payload);
            cell.serial = op.serial;
        }
        What::Create(_) | What::Delete | What::Floor(_) => return None,
    }
    Some(op)
}

fn apply_purge(log: &mut LogState, to: u64, term: Option<Term>, mut op: Op) -> Option<Op> {
    if to <= log.start {
        return None;
    }
    let beyond = || purged_id(to, log.term_at(to - 1), log.last()).map_or(Term(0), |id| id.term);
    op.kind = Kind::Purge;
    op.index = to;
    op.term = term.unwrap_or_else(beyond);
    log.purge(to, op.term);
    Some(op)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
