//! What may be found after a power cut.

use std::cell::RefCell;
use std::collections::HashMap;

use everlog::fs::SimFs;
use everlog::fs::sim::Crashed;
use everlog::inspect::View;
use everlog::{Config, Error, ErrorKind, Journal, LogKey, WriteBatch};

use super::alphabet::dynamic;
use super::model::Model;

/// What a journal is opened with, and on what kind of disk.
#[derive(Debug)]
pub(crate) struct Oracle {
    config: Config,
    /// Damage may be found, if it is said.
    hostile: bool,
    /// How often a recovery ended like this: the write that it found, and what it reports.
    ends: RefCell<HashMap<(usize, String), u32>>,
}

/// Recoveries that end alike are all compared with the model; of those beyond so many only some must also go on and open once more.
const ALIKE_MAX: u32 = 8;
const ALIKE_ONE_IN: u32 = 8;

impl Oracle {
    pub(crate) fn new(config: Config, hostile: bool) -> Oracle {
        Oracle {
            config,
            hostile,
            ends: RefCell::default(),
        }
    }

    /// Opens what a power cut left: it must be a state after some write, no earlier one than was acknowledged; found again by
    /// the next opening; and the journal must go on from there.
    pub(crate) fn check(&self, crashed: &Crashed<'_, Model>) -> Result<(), String> {
        let disk = crashed.disk();
        let untouched = disk.fork();
        let calls = disk.ops();
        let journal = match self.open(&disk) {
            Ok(journal) => journal,
            Err(error) => return self.refused(crashed, &error, &disk, calls),
        };
        let found = match Model::read(&journal) {
            Ok(found) => found,
            Err(error) if self.hostile && is_damage(error.kind()) => return Ok(()),
            Err(error) => return Err(format!("reading failed: {error:?}")),
        };
        let position = position(crashed, &found)
            .map_err(|allowed| format!("found\n{found}allowed:\n{allowed}{:?}", journal.report()))?;
        crashed.recovered_exactly(position);
        if self.is_one_of_many(position, &journal) {
            return Ok(());
        }
        if !self.hostile {
            self.see(&untouched, &found)?;
        }
        go_on(&journal, &found)?;
        drop(journal);
        let journal = match self.open(&disk) {
            Ok(journal) => journal,
            // Where a rename is not atomic a blank file may stand under two names, and has the wrong one once it is used.
            Err(error) if self.hostile && is_damage(error.kind()) => return Ok(()),
            Err(error) => return Err(format!("the second opening failed: {error:?}")),
        };
        let again = Model::read(&journal).map_err(|e| format!("reading again failed: {e:?}"))?;
        go_on_from(&found, &again)
    }

    fn open(&self, disk: &SimFs) -> everlog::Result<Journal> {
        Journal::open_on(dynamic(disk), self.config.clone())
    }

    /// The verdict needs nothing to be written: a view of the disk as it was shows the same, no damage, and writes nothing.
    fn see(&self, disk: &SimFs, found: &Model) -> Result<(), String> {
        let calls = disk.ops();
        let told = |e: Error| format!("a view fails: {e:?}");
        let view = View::open_on(dynamic(disk), self.config.clone()).map_err(told)?;
        let seen = Model::view(&view).map_err(told)?;
        if seen != *found {
            return Err(format!("a view shows\n{seen}and the journal\n{found}"));
        }
        if let Some(damage) = view.findings().iter().find(|finding| finding.is_damage()) {
            return Err(format!("a view finds damage: {damage:?}"));
        }
        if disk.ops() != calls {
            return Err("a view writes something".to_string());
        }
        Ok(())
    }

    fn is_one_of_many(&self, position: usize, journal: &Journal) -> bool {
        let report = journal.report();
        let cut = report
            .cut
            .iter()
            .map(|cut| format!("{}-{}", cut.offset, cut.bytes));
        let end = format!(
            "{:?} {} {}",
            report.verdict,
            report.carried_batches,
            cut.collect::<String>()
        );
        let mut ends = self.ends.borrow_mut();
        let count = ends.entry((position, end)).or_default();
        *count += 1;
        *count > ALIKE_MAX && !count.is_multiple_of(ALIKE_ONE_IN)
    }

    fn refused(
        &self,
        crashed: &Crashed<'_, Model>,
        error: &Error,
        disk: &SimFs,
        calls: u64,
    ) -> Result<(), String> {
        let unborn = crashed.acknowledged() == 0 && error.kind() == ErrorKind::NotFound;
        let damaged = self.hostile && is_damage(error.kind());
        if !(unborn || damaged) {
            return Err(format!("opening failed: {error:?}"));
        }
        // The lock file may be new.
        if disk.ops() > calls + 1 {
            return Err(format!(
                "the opening wrote something before it refused: {error:?}"
            ));
        }
        if unborn {
            Journal::open_or_create_on(dynamic(disk), self.config.clone())
                .map_err(|e| format!("nothing can be created after a creation that was cut short: {e:?}"))?;
        }
        Ok(())
    }
}

/// How many writes the state `found` comes after; otherwise the states that are allowed.
fn position(crashed: &Crashed<'_, Model>, found: &Model) -> Result<usize, String> {
    let issued = crashed.issued();
    let allowed = crashed.acknowledged().max(1)..=issued.len();
    let at = allowed.clone().rev().find(|count| issued[count - 1] == *found);
    at.ok_or_else(|| {
        let states = allowed.map(|count| format!("after write {count}:\n{}", issued[count - 1]));
        states.collect()
    })
}

const PROBE: &[u8] = b"goes on";

/// Everything that was found is durable, and each log takes an entry.
fn go_on(journal: &Journal, found: &Model) -> Result<(), String> {
    let mut batch = WriteBatch::new();
    for (key, model) in &found.0 {
        let told = |e: Error| format!("log {key} cannot be asked: {e:?}");
        let log = journal.log(LogKey(*key)).map_err(told)?;
        let end = log.durable_end().map_err(told)?;
        if end != model.end() {
            return Err(format!(
                "log {key} was found up to {} and calls {end} durable",
                model.end()
            ));
        }
        batch.append(LogKey(*key), PROBE);
    }
    let written = journal
        .write(batch)
        .map_err(|e| format!("it does not go on: {e:?}"))?;
    let ends = written.ids.iter().map(|id| id.index);
    if ends.eq(found.0.values().map(|log| log.end())) {
        return Ok(());
    }
    Err(format!("it goes on at {:?} behind\n{found}", written.ids))
}

/// `again` is `found` with what [`go_on`] added.
fn go_on_from(found: &Model, again: &Model) -> Result<(), String> {
    let mut expected = found.clone();
    for key in found.0.keys() {
        let step = super::model::Step::Append(*key, PROBE.into());
        expected = expected
            .after(&[step])
            .map_err(|e| format!("the model refuses it: {e:?}"))?;
    }
    if expected == *again {
        return Ok(());
    }
    Err(format!(
        "the second opening finds\n{again}and should find\n{expected}"
    ))
}

/// What a journal may say of a disk that has harmed what was being written.
fn is_damage(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Damaged | ErrorKind::Invalid | ErrorKind::Unsupported
    )
}
