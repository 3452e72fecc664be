//! The states that a crash may leave: those after each write that was issued and not yet acknowledged as durable, in order.

use std::collections::{BTreeMap, VecDeque};

use everlog::{Journal, LogKey};

use super::model::Model;
use super::probe::Loss;

/// A window on the states of a journal, each named by its *position*, the number of writes issued before it.
#[derive(Clone)]
pub(crate) struct Timeline {
    /// Position of the first: everything up to it was acknowledged as durable.
    base: u64,
    states: VecDeque<Model>,
    /// Everything up to this position was given to the system: a kill must not lose it, whatever failed before. A failed sync costs
    /// the disk what it covered, and the system calls such pages clean; but they stay in memory until it needs their room, and until
    /// then a process that comes after the kill reads them. Only a power cut takes what was written and not synced.
    pub(crate) written: u64,
    /// The journal may not be there at all.
    pub(crate) unborn: bool,
}

/// For each log the entries that the journal called durable, as they were read at that moment.
#[derive(Clone, Default)]
pub(crate) struct Claims(BTreeMap<u64, (u64, u64)>);

impl Timeline {
    pub(crate) fn new() -> Timeline {
        Timeline {
            base: 0,
            states: VecDeque::from([Model::default()]),
            written: 0,
            unborn: true,
        }
    }

    pub(crate) fn now(&self) -> &Model {
        self.states.back().expect("never empty")
    }

    /// Position up to which everything is known to be durable.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Position of the newest state.
    pub(crate) fn issued(&self) -> u64 {
        self.base + self.states.len() as u64 - 1
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.states.len() == 1
    }

    /// A write is about to be handed in.
    pub(crate) fn push(&mut self, after: Model) {
        self.states.push_back(after);
    }

    /// The newest write was refused: nothing happened.
    pub(crate) fn pop(&mut self) {
        self.states.pop_back();
    }

    /// Everything up to `position` is durable.
    pub(crate) fn ack(&mut self, position: u64) {
        while self.base < position {
            self.states.pop_front();
            self.base += 1;
        }
        self.written = self.written.max(position);
        self.unborn = false;
    }

    /// Recovery found the state at `position`: what came after it never happened, what it is was written.
    pub(crate) fn found(&mut self, position: u64) {
        while self.issued() > position {
            self.pop();
        }
        self.written = position;
        self.unborn = false;
    }

    /// What a crash of kind `inner` may leave that comes while an opening after one of kind `outer` has not returned, if that opening
    /// would find the state at `position`.
    pub(crate) fn within(&self, outer: Loss, inner: Loss, position: u64) -> Timeline {
        let mut window = self.clone();
        match (outer, inner) {
            // Everything on the disk is durable already, or none of it is lost.
            (Loss::Power, _) => {
                window.found(position);
                window.ack(position);
            }
            // Visible as it was; but a power cut after that may still take whatever the kills had left to the system, and show what
            // stands behind it.
            (Loss::Kill, Loss::Kill) => window.written = position,
            (Loss::Kill, Loss::Power) => {}
        }
        window
    }

    /// The highest position from `from` on whose state is `found`.
    pub(crate) fn find(&self, found: &Model, from: u64) -> Option<u64> {
        (from.max(self.base)..=self.issued())
            .rev()
            .find(|position| self.at(*position) == found)
    }

    pub(crate) fn at(&self, position: u64) -> &Model {
        let at = usize::try_from(position - self.base).expect("a small window");
        &self.states[at]
    }

    /// What the states from `from` on are, for a person.
    pub(crate) fn describe(&self, from: u64) -> String {
        let window = from.max(self.base)..=self.issued();
        let states = window.map(|position| format!("after write {position}:\n{}", self.at(position)));
        states.collect()
    }
}

impl Claims {
    /// What `journal`, which shows `now`, calls durable.
    pub(crate) fn of(journal: &Journal, now: &Model) -> Claims {
        let mut claims = BTreeMap::new();
        for (key, log) in &now.0 {
            let end = journal
                .log(LogKey(*key))
                .and_then(|log| log.durable_end())
                .expect("the log is there");
            assert!(
                end <= log.end(),
                "log {key}: durable_end is {end}, behind the end {}",
                log.end()
            );
            claims.insert(*key, (log.start, end));
        }
        Claims(claims)
    }

    /// Whether everything in `now` was called durable.
    pub(crate) fn cover(&self, now: &Model) -> bool {
        now.0
            .iter()
            .all(|(key, log)| self.0.get(key).is_some_and(|(_, end)| *end == log.end()))
    }

    /// What is wrong with `found`, the state after a crash at or before the moment of the claims, which showed `then`.
    pub(crate) fn broken_by(&self, found: &Model, then: &Model) -> Option<String> {
        for (key, (start, end)) in &self.0 {
            let Some(log) = then.0.get(key) else { continue };
            for index in *start..*end {
                let there = found.0.get(key).and_then(|found| found.entry(index));
                if there != log.entry(index) {
                    return Some(format!(
                        "entry {index} of log {key} was called durable (durable_end {end})"
                    ));
                }
            }
        }
        None
    }
}
