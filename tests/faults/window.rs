//! The states that a crash may leave: those after each write that was issued and not yet acknowledged, in order.

use super::model::Model;

/// Every state since the journal was created, and which of them a crash may leave.
#[derive(Clone)]
pub(crate) struct Window {
    states: Vec<Model>,
    /// Everything up to this one was acknowledged as durable.
    pub(crate) base: usize,
    /// Everything up to this one was given to the system: a kill must not lose it, whatever failed before. A failed sync costs the
    /// disk what it covered, and the system calls such pages clean; but they stay in memory until it needs their room, and until then
    /// a process that comes after the kill reads them. Only a power cut takes what was written and not synced.
    pub(crate) written: usize,
    /// The journal may not be there at all.
    pub(crate) unborn: bool,
}

impl Window {
    pub(crate) fn new() -> Window {
        Window {
            states: vec![Model::default()],
            base: 0,
            written: 0,
            unborn: true,
        }
    }

    pub(crate) fn push(&mut self, after: Model) {
        self.states.push(after);
    }

    /// The newest write was refused: nothing happened.
    pub(crate) fn pop(&mut self) {
        self.states.pop();
    }

    /// Everything up to `position` is durable.
    pub(crate) fn ack(&mut self, position: usize) {
        self.base = self.base.max(position);
        self.written = self.written.max(position);
        self.unborn = false;
    }

    /// Recovery found the state at `position`: what came after it never happened, and what it found is durable.
    pub(crate) fn found(&mut self, position: usize) {
        self.states.truncate(position + 1);
        self.ack(position);
    }

    pub(crate) fn now(&self) -> &Model {
        &self.states[self.issued()]
    }

    pub(crate) fn issued(&self) -> usize {
        self.states.len() - 1
    }

    /// The highest position from `from` on whose state is `found`.
    pub(crate) fn find(&self, found: &Model, from: usize) -> Option<usize> {
        (from..=self.issued())
            .rev()
            .find(|position| self.states[*position] == *found)
    }

    /// The states from `from` on, for a person.
    pub(crate) fn describe(&self, from: usize) -> String {
        let states = (from..=self.issued())
            .map(|position| format!("after write {position}:\n{}", self.states[position]));
        states.collect()
    }
}
