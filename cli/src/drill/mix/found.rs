//! What a kill left, and whether it is right.
//!
//! The operations of a worker leave its logs in one state after the other. After a kill they must be in one of them:
//!
//! ```text
//! state                                              is
//! before the last acknowledged operation             Lost
//! after it, up to the last operation that was issued right: the whole operation, or nothing of it
//! any other                                          Changed, Invented
//! ```

use std::collections::BTreeMap;

use everlog::inspect::View;
use everlog::{EntryId, Journal};

use super::super::check::{Kind, Violation};
use super::model::{Group, LogState};

/// Everything that a journal holds.
pub(crate) type Found = BTreeMap<u64, FoundLog>;

/// One log as it was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundLog {
    start: u64,
    end: u64,
    entries: Vec<(u128, Vec<u8>)>,
    purged: Option<EntryId>,
    cells: BTreeMap<u8, Vec<u8>>,
}

/// Reads every log, be the journal open or in a view: both have the same methods.
macro_rules! read {
    ($of:expr) => {{
        let mut found = Found::new();
        for key in $of.logs() {
            let log = $of.log(key)?;
            let bounds = log.bounds()?;
            let mut read = FoundLog {
                start: bounds.start,
                end: bounds.end,
                purged: log.purged()?,
                ..FoundLog::default()
            };
            for entry in log.read(bounds) {
                let entry = entry?;
                read.entries.push((entry.id.term.0, entry.payload.to_vec()));
            }
            for cell in log.cells()? {
                let value = log.cell(cell)?;
                read.cells
                    .insert(cell, value.map_or_else(Vec::new, |value| value.to_vec()));
            }
            found.insert(key.0, read);
        }
        found
    }};
}

/// What `journal` holds.
pub(crate) fn journal(journal: &Journal) -> everlog::Result<Found> {
    Ok(read!(journal))
}

/// What `view` shows.
pub(crate) fn view(view: &View) -> everlog::Result<Found> {
    Ok(read!(view))
}

/// Whether the logs of `group` are what was found; `own` says which logs belong to the worker.
pub(crate) fn is(group: &Group, found: &Found, own: impl Fn(u64) -> bool) -> bool {
    let mut theirs = found.iter().filter(|(key, _)| own(**key));
    let mut ours = group.0.iter();
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some((key, state)), Some((other, log))) if key == other && difference(state, log).is_none() => {}
            _ => return false,
        }
    }
}

/// In words, why what was found is none of `states`, which are not empty and begin with the acknowledged one.
pub(crate) fn violation(who: &str, states: &[Group], found: &Found, own: impl Fn(u64) -> bool) -> Violation {
    let keys: Vec<u64> = found.keys().copied().filter(|key| own(*key)).collect();
    let mut all: Vec<u64> = states.iter().flat_map(|state| state.0.keys().copied()).collect();
    all.extend(keys);
    all.sort_unstable();
    all.dedup();
    for key in all {
        let fits = |state: &Group| match (state.0.get(&key), found.get(&key)) {
            (None, None) => true,
            (Some(state), Some(log)) => difference(state, log).is_none(),
            _ => false,
        };
        if !states.iter().any(fits) {
            return explain(who, key, states, found.get(&key));
        }
    }
    let what = format!(
        "the logs of {who}: each alone is as an operation left it, but not all after the same one: \
         an operation stands in part, or an acknowledged one is missing in one of them"
    );
    Violation::new(Kind::Changed, what)
}

/// Why log `key` is as no operation left it. Told by what it has of the first state, the acknowledged one.
fn explain(who: &str, key: u64, states: &[Group], found: Option<&FoundLog>) -> Violation {
    let known = states.iter().filter_map(|state| state.0.get(&key));
    let count = states.len() - 1;
    let head = format!("log {key} of {who} is as none of its last {count} unacknowledged operations left it");
    let Some(found) = found else {
        return Violation::new(Kind::Lost, format!("{head}: it is not there"));
    };
    let Some(first) = states[0].0.get(&key) else {
        return Violation::new(Kind::Invented, format!("{head}: it was deleted"));
    };
    let what = difference(first, found).unwrap_or_default();
    let known: Vec<&LogState> = known.collect();
    let kind = if found.end < known.iter().map(|state| state.end()).min().unwrap_or(0) {
        Kind::Lost
    } else if found.end > known.iter().map(|state| state.end()).max().unwrap_or(0) {
        Kind::Invented
    } else {
        Kind::Changed
    };
    Violation::new(kind, format!("{head}; beside the last acknowledged state {what}"))
}

/// The first thing in which a log differs from the model.
fn difference(state: &LogState, found: &FoundLog) -> Option<String> {
    let (ours, theirs) = (state.start..state.end(), found.start..found.end);
    if ours != theirs {
        return Some(format!("it holds entries {theirs:?} and not {ours:?}"));
    }
    if found.entries.len() as u64 != found.end - found.start {
        return Some(format!(
            "only {} of {theirs:?} could be read",
            found.entries.len()
        ));
    }
    let purged = state.purged.map(EntryId::from);
    if purged != found.purged {
        return Some(format!("{:?} was purged and not {purged:?}", found.purged));
    }
    for ((index, stamp), (term, payload)) in (state.start..).zip(&state.entries).zip(&found.entries) {
        if u128::from(stamp.term) != *term {
            return Some(format!("entry {index} has term {term} and not {}", stamp.term));
        }
        if stamp.payload.bytes() != *payload {
            return Some(format!("entry {index} has other bytes"));
        }
    }
    if !state.cells.keys().eq(found.cells.keys()) {
        return Some(format!("it has other cells: {:?}", found.cells.keys()));
    }
    let mut cells = state.cells.iter().zip(found.cells.values());
    let other = cells.find(|((_, payload), value)| payload.bytes() != **value)?;
    Some(format!("cell {} has another value", other.0.0))
}

#[cfg(test)]
mod tests {
    use everlog::fs::{Profile, SimFs};
    use everlog::{Config, LogKey};

    use super::super::plan::{Op, Worker, batch};
    use super::*;

    /// The model and the journal agree on every operation that is planned; and what is not there is seen.
    #[test]
    fn a_journal_is_what_the_model_says() {
        let disk = SimFs::new(1, Profile::PosixWeak);
        let config = Config::new()
            .segment_bytes(16 << 10)
            .in_flight_bytes(64 << 10)
            .max_entry_bytes(64 << 10)
            .background(everlog::Background::Caller);
        let open = Journal::create_on(std::sync::Arc::new(disk), config).unwrap();
        let worker = Worker {
            seed: 3,
            worker: 0,
            workers: 1,
            logs: 3,
        };
        let mut group = Group::default();
        for number in 0..600 {
            let op = worker.plan(number, &group);
            let before = group.clone();
            let ids = group.apply(&op);
            match &op {
                Op::Write { steps, .. } => {
                    let written = open.write(batch(steps, &before)).unwrap();
                    assert_eq!(written.ids, ids, "operation {number}, {op:?}");
                }
                Op::Create { log, first } => drop(open.create_log(LogKey(*log), *first).unwrap()),
                Op::Delete { log } => open.delete_log(LogKey(*log)).unwrap(),
                Op::Sync => open.sync().unwrap(),
                Op::Reclaim => drop(open.reclaim().unwrap()),
            }
            let found = journal(&open).unwrap();
            assert!(
                is(&group, &found, |_| true),
                "operation {number}, {op:?}: {}",
                violation("worker 0", &[group], &found, |_| true).what
            );
            if before != group {
                assert!(!is(&before, &found, |_| true), "operation {number}, {op:?}");
            }
        }
    }
}
