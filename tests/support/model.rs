//! What a journal should hold: the same operations on plain maps.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use everlog::inspect::View;
use everlog::{EntryId, ErrorKind, Journal, LogKey, Term, WriteBatch};

/// All logs. Copies share every log that differs in none of them.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Model(pub(crate) BTreeMap<u64, Arc<LogModel>>);

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LogModel {
    pub(crate) start: u64,
    pub(crate) entries: VecDeque<(Term, Bytes)>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) cells: BTreeMap<u8, Bytes>,
}

/// One operation of a write.
#[derive(Clone, PartialEq)]
pub(crate) enum Step {
    Append(u64, Bytes),
    AppendAt(u64, EntryId, Bytes),
    Truncate(u64, u64),
    PurgeTo(u64, u64),
    PurgeThrough(u64, EntryId),
    Reset(u64, EntryId),
    Set(u64, u8, Bytes),
    Create(u64, u64),
    Delete(u64),
}

const CELL_BYTES_MAX: usize = 64 << 10;

impl LogModel {
    pub(crate) fn new(first: u64) -> LogModel {
        LogModel {
            start: first,
            ..LogModel::default()
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&(Term, Bytes)> {
        let at = index.checked_sub(self.start)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    pub(crate) fn last(&self) -> Option<EntryId> {
        match self.entries.back() {
            Some((term, _)) => Some(EntryId {
                term: *term,
                index: self.end() - 1,
            }),
            None => self.purged,
        }
    }

    fn truncate(&mut self, from: u64) -> Result<(), ErrorKind> {
        if from >= self.end() {
            return Ok(());
        }
        let kept = from.checked_sub(self.start).ok_or(ErrorKind::Invalid)?;
        self.entries.truncate(usize::try_from(kept).expect("a small log"));
        Ok(())
    }

    fn append(&mut self, id: Option<EntryId>, payload: &Bytes) -> Result<(), ErrorKind> {
        let last = self.last();
        let term = id.map_or_else(|| last.map_or(Term(0), |last| last.term), |id| id.term);
        let fits = id.is_none_or(|id| id.index == self.end()) && last.is_none_or(|last| last.term <= term);
        if !fits {
            return Err(ErrorKind::Invalid);
        }
        self.entries.push_back((term, payload.clone()));
        Ok(())
    }

    fn purge(&mut self, to: u64, id: Option<EntryId>) {
        if to <= self.start {
            return;
        }
        let known = self.entry(to - 1).map(|(term, _)| *term);
        let term = known.or(self.last().map(|id| id.term)).unwrap_or_default();
        self.purged = Some(id.unwrap_or(EntryId { term, index: to - 1 }));
        let gone = usize::try_from(to.min(self.end()) - self.start).expect("a small log");
        self.entries.drain(..gone);
        self.start = to;
    }

    fn purge_through(&mut self, id: EntryId) -> Result<(), ErrorKind> {
        if id.index < self.start {
            return Ok(());
        }
        let bad = match self.entry(id.index) {
            Some((term, _)) => *term != id.term,
            None => self.last().is_some_and(|last| last.term > id.term),
        };
        if bad {
            return Err(ErrorKind::Invalid);
        }
        self.purge(id.index + 1, Some(id));
        Ok(())
    }

    fn reset(&mut self, last: EntryId) {
        self.entries.clear();
        self.start = last.index + 1;
        self.purged = Some(last);
    }

    fn set(&mut self, cell: u8, value: &Bytes) -> Result<(), ErrorKind> {
        self.cells.insert(cell, value.clone());
        let total: usize = self.cells.values().map(Bytes::len).sum();
        if total > CELL_BYTES_MAX {
            Err(ErrorKind::Invalid)
        } else {
            Ok(())
        }
    }
}

/// Everything that a log has, be it open or in a view.
macro_rules! read_log {
    ($log:expr) => {{
        let (log, key) = (&$log, $log.key());
        let bounds = log.bounds()?;
        let mut model = LogModel {
            purged: log.purged()?,
            ..LogModel::new(bounds.start)
        };
        for (index, entry) in bounds.clone().zip(log.read(bounds.clone())) {
            let entry = entry?;
            assert_eq!(entry.id.index, index, "log {key}: not the entries of {bounds:?}");
            model.entries.push_back((entry.id.term, entry.payload));
        }
        assert_eq!(
            model.end(),
            bounds.end,
            "log {key}: fewer entries than its bounds say"
        );
        assert_eq!(log.last()?, model.last(), "log {key}: the last id");
        for cell in log.cells()? {
            let value = log.cell(cell)?.expect("a cell that is listed has a value");
            model.cells.insert(cell, value);
        }
        model
    }};
}

impl Model {
    /// The model after a write, or how the journal should refuse it.
    pub(crate) fn after(&self, write: &[Step]) -> Result<Model, ErrorKind> {
        let mut next = self.clone();
        for step in write {
            next.apply(step)?;
        }
        Ok(next)
    }

    /// The ids that a write, which must fit, gives its entries.
    pub(crate) fn ids(&self, write: &[Step]) -> Vec<EntryId> {
        let mut next = self.clone();
        let mut ids = Vec::new();
        for step in write {
            next.apply(step).expect("the write fits");
            if step.is_append() {
                ids.extend(next.0[&step.key()].last());
            }
        }
        ids
    }

    fn apply(&mut self, step: &Step) -> Result<(), ErrorKind> {
        match step {
            Step::Create(key, _) if self.0.contains_key(key) => return Err(ErrorKind::Invalid),
            Step::Create(key, first) => {
                self.0.insert(*key, Arc::new(LogModel::new(*first)));
                return Ok(());
            }
            Step::Delete(key) => return self.0.remove(key).map(drop).ok_or(ErrorKind::NotFound),
            _ => {}
        }
        let log = Arc::make_mut(self.0.get_mut(&step.key()).ok_or(ErrorKind::NotFound)?);
        match step {
            Step::Append(_, payload) => log.append(None, payload),
            Step::AppendAt(_, id, payload) => log.append(Some(*id), payload),
            Step::Truncate(_, from) => log.truncate(*from),
            Step::PurgeTo(_, to) => {
                log.purge(*to, None);
                Ok(())
            }
            Step::PurgeThrough(_, id) => log.purge_through(*id),
            Step::Reset(_, last) => {
                log.reset(*last);
                Ok(())
            }
            Step::Set(_, cell, value) => log.set(*cell, value),
            Step::Create(..) | Step::Delete(_) => Ok(()),
        }
    }

    /// What `journal` holds, read through its public face.
    pub(crate) fn read(journal: &Journal) -> everlog::Result<Model> {
        let mut found = Model::default();
        for key in journal.logs() {
            let log = journal.log(key)?;
            found.0.insert(key.0, Arc::new(read_log!(log)));
        }
        Ok(found)
    }

    /// The same of a view.
    pub(crate) fn view(view: &View) -> everlog::Result<Model> {
        let mut found = Model::default();
        for key in view.logs() {
            let log = view.log(key)?;
            found.0.insert(key.0, Arc::new(read_log!(log)));
        }
        Ok(found)
    }
}

impl Step {
    pub(crate) fn key(&self) -> u64 {
        match self {
            Step::Append(key, _)
            | Step::AppendAt(key, ..)
            | Step::Truncate(key, _)
            | Step::PurgeTo(key, _)
            | Step::PurgeThrough(key, _)
            | Step::Reset(key, _)
            | Step::Set(key, ..)
            | Step::Create(key, _)
            | Step::Delete(key) => *key,
        }
    }

    pub(crate) fn is_append(&self) -> bool {
        matches!(self, Step::Append(..) | Step::AppendAt(..))
    }

    /// Adds the operation to `batch`; creating and deleting have calls of their own.
    pub(crate) fn push(&self, batch: &mut WriteBatch) {
        match self {
            Step::Append(key, payload) => batch.append(LogKey(*key), payload),
            Step::AppendAt(key, id, payload) => batch.append_at(LogKey(*key), *id, payload),
            Step::Truncate(key, from) => batch.truncate_from(LogKey(*key), *from),
            Step::PurgeTo(key, to) => batch.purge_to(LogKey(*key), *to),
            Step::PurgeThrough(key, id) => batch.purge_through(LogKey(*key), *id),
            Step::Reset(key, last) => batch.reset(LogKey(*key), *last),
            Step::Set(key, cell, value) => batch.set(LogKey(*key), *cell, value),
            Step::Create(..) | Step::Delete(_) => unreachable!("never part of a batch"),
        };
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Append(key, payload) => write!(f, "append({key}, {} bytes)", payload.len()),
            Step::AppendAt(key, id, payload) => write!(f, "append_at({key}, {id}, {} bytes)", payload.len()),
            Step::Truncate(key, from) => write!(f, "truncate_from({key}, {from})"),
            Step::PurgeTo(key, to) => write!(f, "purge_to({key}, {to})"),
            Step::PurgeThrough(key, id) => write!(f, "purge_through({key}, {id})"),
            Step::Reset(key, last) => write!(f, "reset({key}, {last})"),
            Step::Set(key, cell, value) => write!(f, "set({key}, {cell}, {} bytes)", value.len()),
            Step::Create(key, first) => write!(f, "create({key}, {first})"),
            Step::Delete(key) => write!(f, "delete({key})"),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, log) in &self.0 {
            write!(f, "log {key}: {}..{}", log.start, log.end())?;
            for (at, (term, payload)) in log.entries.iter().enumerate() {
                let run_begins = at == 0 || log.entries[at - 1].0 != *term;
                if run_begins {
                    write!(f, " t{term}:")?;
                }
                write!(f, " {}", short(payload))?;
            }
            if let Some(id) = log.purged {
                write!(f, ", purged {id}")?;
            }
            for (cell, value) in &log.cells {
                write!(f, ", cell {cell}={}", short(value))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Enough of a payload to tell it from others.
fn short(payload: &[u8]) -> String {
    let head = payload
        .iter()
        .take(3)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("{head}*{}", payload.len())
}
