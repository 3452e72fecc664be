//! What a machine must have come to after a kill, kept beside it out of what was heard.
//!
//! A writer says what it issues before, and where each command stands afterwards. So the place of each acknowledged command
//! is known. Of those that a kill left unacknowledged each may stand or not. After a restart the machine says how many commands
//! are in it, where the newest of each writer stand, and its digest. Out of that the model finds what stands at each index:
//!
//! ```text
//! at an index below the end                      otherwise
//! the command acknowledged there                 Lost (end below it), Changed
//! or one that was issued and not acknowledged:   Invented
//!   each once, in its writer's order, a batch
//!   whole and in a row
//! ```
//!
//! It applies them, in order, to a map of its own, and the digests must be equal. The machine cannot deceive it by what it says of
//! unacknowledged commands: whatever their order was, the digest covers it. What did not stand must not come back.

use std::collections::{BTreeMap, VecDeque};

use super::super::check::{Kind, Violation};
use super::super::entries::Entries;
use super::super::protocol::Record;
use super::digest::{Chain, Digest};
use super::plan::{How, Plan, STEP_MAX};

/// A command: writer and number.
type Issued = (u32, u64);

/// Everything that was heard so far.
pub(crate) struct Model<'a> {
    plan: Plan,
    entries: &'a Entries,
    writers: Vec<Writer>,
    /// Acknowledged since the last restart, by index.
    acknowledged: BTreeMap<u64, Issued>,
    /// What the machine said stands where, since it began to say so.
    stands: Vec<(Issued, u64)>,
    // The state up to the last restart:
    applied: u64,
    chain: Chain,
    /// Which entry each key has.
    pairs: BTreeMap<u64, usize>,
}

#[derive(Default)]
struct Writer {
    /// What it issues next.
    next: u64,
    /// The numbers of a step that was issued and not acknowledged to its end; only the newest may be under way.
    under_way: Option<UnderWay>,
    /// Where its newest acknowledged command stands.
    last: Option<u64>,
    /// The newest that stand as of the last restart, the oldest first: number and index.
    newest: VecDeque<(u64, u64)>,
}

#[derive(Clone, Copy)]
struct UnderWay {
    how: How,
    first: u64,
    /// Those below it were acknowledged.
    left: u64,
    end: u64,
}

/// What a restart showed of commands in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) lost: u64,
    /// Issued, not acknowledged, and there.
    pub(crate) survived: u64,
    /// Issued, not acknowledged, and not there.
    pub(crate) vanished: u64,
}

impl<'a> Model<'a> {
    /// Nothing was issued yet.
    pub(crate) fn new(plan: Plan, entries: &'a Entries) -> Model<'a> {
        Model {
            plan,
            entries,
            writers: (0..plan.writers).map(|_| Writer::default()).collect(),
            acknowledged: BTreeMap::new(),
            stands: Vec::new(),
            applied: 0,
            chain: Chain::default(),
            pairs: BTreeMap::new(),
        }
    }

    /// What each writer issues next.
    pub(crate) fn next(&self) -> Vec<u64> {
        self.writers.iter().map(|writer| writer.next).collect()
    }

    /// How many keys the machine has, as of the last restart.
    pub(crate) fn keys(&self) -> usize {
        self.pairs.len()
    }

    /// How many commands it has applied, as of the last restart.
    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// Takes in a report of a child; with the last one of a restart returns what that showed.
    pub(crate) fn hear(&mut self, record: &Record) -> Result<Option<Settled>, Vec<Violation>> {
        let heard = match *record {
            Record::Issue { writer, number } => self.issue(writer, number),
            Record::Ack {
                writer,
                number,
                index,
            } => self.acknowledge((writer, number), index),
            Record::Stands {
                writer,
                number,
                index,
            } => {
                self.stands.push(((writer, number), index));
                Ok(())
            }
            Record::Stated { applied, digest } => return self.settle(applied, digest).map(Some),
            _ => Ok(()),
        };
        heard.map(|()| None).map_err(|violation| vec![violation])
    }

    fn issue(&mut self, writer: u32, number: u64) -> Result<(), Violation> {
        let step = self.plan.step(writer, number);
        let of = self.writer((writer, number))?;
        if of.next != number || of.under_way.is_some() {
            return Err(confused((writer, number)));
        }
        of.next += step.count;
        of.under_way = Some(UnderWay {
            how: step.how,
            first: number,
            left: number,
            end: of.next,
        });
        Ok(())
    }

    fn acknowledge(&mut self, issued: Issued, index: u64) -> Result<(), Violation> {
        let settled = self.applied;
        let of = self.writer(issued)?;
        let Some(mut step) = of.under_way.filter(|step| step.left == issued.1) else {
            return Err(confused(issued));
        };
        if index < settled || of.last.is_some_and(|last| index <= last) {
            let what = format!(
                "{} was acknowledged at index {index}, which was taken",
                name(issued)
            );
            return Err(Violation::new(Kind::Changed, what));
        }
        if step.how == How::Batch && step.left > step.first && of.last != index.checked_sub(1) {
            let what = format!("{} stands at index {index}, apart from its batch", name(issued));
            return Err(Violation::new(Kind::Changed, what));
        }
        step.left += 1;
        of.under_way = Some(step).filter(|step| step.left < step.end);
        of.last = Some(index);
        if let Some(other) = self.acknowledged.insert(index, issued) {
            let what = format!(
                "{} and {} were both acknowledged at index {index}",
                name(issued),
                name(other)
            );
            return Err(Violation::new(Kind::Changed, what));
        }
        Ok(())
    }

    /// The machine has restarted with so many commands, and this digest.
    fn settle(&mut self, applied: u64, digest: u128) -> Result<Settled, Vec<Violation>> {
        let mut bad = Vec::new();
        let mut settled = Settled {
            lost: self.lost(applied, &mut bad),
            ..Settled::default()
        };
        self.survivors(applied, &mut settled, &mut bad);
        if bad.is_empty() {
            self.apply(applied, &mut bad);
        }
        if bad.is_empty() && self.digest() != digest {
            let what = format!(
                "the machine with {applied} commands has digest {digest:032x}, and should have {:032x}: it restored or \
                 applied something else than was acknowledged",
                self.digest()
            );
            bad.push(Violation::new(Kind::Changed, what));
        }
        self.stands.clear();
        match bad.is_empty() {
            true => Ok(settled),
            false => Err(bad),
        }
    }

    /// Acknowledged commands beyond the end.
    fn lost(&self, applied: u64, bad: &mut Vec<Violation>) -> u64 {
        let known = self.applied;
        let mut lost = known.saturating_sub(applied);
        if lost > 0 {
            let what = format!("the machine has {applied} commands; it had {known} after an earlier restart");
            bad.push(Violation::new(Kind::Lost, what));
        }
        let mut beyond = self.acknowledged.range(applied..);
        if let Some((index, issued)) = beyond.next() {
            let more = beyond.count();
            lost += 1 + more as u64;
            let what = format!(
                "the machine has {applied} commands; {} was acknowledged at index {index}, and {more} more behind it",
                name(*issued)
            );
            bad.push(Violation::new(Kind::Lost, what));
        }
        lost
    }

    /// Finds which commands in flight stand, and where: then they are like acknowledged ones.
    fn survivors(&mut self, applied: u64, settled: &mut Settled, bad: &mut Vec<Violation>) {
        let mut stands: BTreeMap<Issued, u64> = BTreeMap::new();
        for (issued, index) in self.stands.drain(..) {
            if index >= self.applied && index < applied {
                stands.insert(issued, index);
            }
        }
        for (writer, of) in (0..).zip(&mut self.writers) {
            let Some(step) = of.under_way.take() else {
                continue;
            };
            let found: Vec<Option<u64>> = (step.left..step.end)
                .map(|number| stands.get(&(writer, number)).copied())
                .collect();
            let count = found.iter().flatten().count();
            let places = found.iter().map_while(|index| *index);
            let mut last = of.last;
            let in_order = places.clone().all(|index| last.replace(index) < Some(index));
            let first = (writer, step.left);
            if places.clone().count() < count || !in_order {
                let what = format!(
                    "{} and those of its writer behind it stand in another order",
                    name(first)
                );
                bad.push(Violation::new(Kind::Changed, what));
            }
            if step.how == How::Batch && !is_whole(step, &found, of.last) {
                let what = format!(
                    "the batch of {} and {} more stands in part, or not in a row",
                    name((writer, step.first)),
                    step.end - step.first - 1
                );
                bad.push(Violation::new(Kind::Changed, what));
            }
            for (number, index) in (step.left..).zip(places) {
                if let Some(other) = self.acknowledged.insert(index, (writer, number)) {
                    let what = format!(
                        "{} stands at index {index}, where {} was acknowledged",
                        name((writer, number)),
                        name(other)
                    );
                    bad.push(Violation::new(Kind::Changed, what));
                }
                of.last = Some(index);
            }
            settled.survived += count as u64;
            settled.vanished += (found.len() - count) as u64;
        }
    }

    /// Applies what stands at each index.
    fn apply(&mut self, applied: u64, bad: &mut Vec<Violation>) {
        let acknowledged = std::mem::take(&mut self.acknowledged);
        for (expected, (index, issued)) in (self.applied..).zip(acknowledged) {
            if index != expected {
                bad.push(invented(expected));
                return;
            }
            let command = self.plan.command(issued.0, issued.1, self.entries);
            self.chain.push(index, &command.encode(self.entries));
            match command.line {
                Some(line) => self.pairs.insert(command.key, line),
                None => self.pairs.remove(&command.key),
            };
            if let Ok(of) = self.writer(issued) {
                of.newest.push_back((issued.1, index));
                if of.newest.len() > STEP_MAX {
                    of.newest.pop_front();
                }
            }
            self.applied = index + 1;
        }
        if self.applied < applied {
            bad.push(invented(self.applied));
        }
    }

    fn digest(&self) -> u128 {
        let mut digest = Digest::new(self.applied, &self.chain);
        for (writer, of) in (0..).zip(&self.writers) {
            if !of.newest.is_empty() {
                digest.writer(writer, of.newest.iter().copied());
            }
        }
        for (key, line) in &self.pairs {
            digest.pair(*key, self.entries.get(*line));
        }
        digest.finish()
    }

    fn writer(&mut self, issued: Issued) -> Result<&mut Writer, Violation> {
        let at = usize::try_from(issued.0).unwrap_or(usize::MAX);
        self.writers.get_mut(at).ok_or_else(|| confused(issued))
    }
}

/// Whether all of a batch stands in a row, or nothing of it. A part of it may have been acknowledged.
fn is_whole(step: UnderWay, found: &[Option<u64>], last: Option<u64>) -> bool {
    let begun = step.left > step.first;
    if !begun && found.iter().all(Option::is_none) {
        return true;
    }
    let first = match begun {
        true => last.map(|last| last + 1),
        false => found.first().copied().flatten(),
    };
    let row = first.into_iter().flat_map(|first| first..).map(Some);
    row.take(found.len()).eq(found.iter().copied())
}

fn name((writer, number): Issued) -> String {
    format!("command {number} of writer {writer}")
}

fn confused(issued: Issued) -> Violation {
    let what = format!("{} was reported out of its order", name(issued));
    Violation::new(Kind::Invented, what)
}

fn invented(index: u64) -> Violation {
    let what = format!("the machine has applied a command at index {index} that no writer had issued");
    Violation::new(Kind::Invented, what)
}

#[cfg(test)]
mod tests;
