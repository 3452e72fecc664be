//! What every worker was heard to do since the last look, and which states that allows.

use super::super::check::{Kind, Violation};
use super::super::protocol::Record;
use super::brief::Hand;
use super::found::{self, Found};
use super::model::Group;
use super::plan::{How, Op, Step, Worker};
use super::report::Tally;

/// All workers.
pub(crate) struct History {
    workers: Vec<Past>,
}

/// One worker's operations since the last look.
struct Past {
    plan: Worker,
    /// What the last look found.
    base: Group,
    /// The number of the first operation behind it.
    first: u64,
    /// The number of the next operation: those from `first` on were issued.
    next: u64,
    /// Operations below this one were acknowledged as durable.
    durable: u64,
    /// Operations below this one survive a kill.
    written: u64,
}

/// Which states are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Nothing that was given to the system is missing.
    Killed,
    /// A file may have been given up, and with it what was not yet synced.
    Faulty,
    /// Seen beside the living child: any state since the last look.
    Beside,
}

impl History {
    /// Nothing was done yet.
    pub(crate) fn new(seed: u64, workers: u32, logs: u64) -> History {
        let past = |worker| Past {
            plan: Worker {
                seed,
                worker,
                workers,
                logs,
            },
            base: Group::default(),
            first: 0,
            next: 0,
            durable: 0,
            written: 0,
        };
        History {
            workers: (0..workers).map(past).collect(),
        }
    }

    /// Where the next child goes on.
    pub(crate) fn hands(&self) -> Vec<Hand> {
        let hands = self.workers.iter().map(|past| Hand {
            next: past.next,
            group: past.base.clone(),
        });
        hands.collect()
    }

    /// Takes in what a child reported.
    pub(crate) fn hear(&mut self, records: &[Record], tally: &mut Tally) -> Result<(), Violation> {
        for record in records {
            let fits = match *record {
                Record::Issue { writer, number } => self.of(writer).is_some_and(|past| past.issue(number)),
                Record::Done {
                    writer,
                    number,
                    durable,
                } => self
                    .of(writer)
                    .is_some_and(|past| past.acknowledge(number, durable)),
                Record::Opened(opened) => {
                    tally.child_opened(opened);
                    true
                }
                Record::Failed { .. } => {
                    tally.stopped += 1;
                    true
                }
                // Told as of the whole life: the last one counts, see `Tally::life`.
                Record::Counted(_) => true,
                // Those of other drills.
                _ => false,
            };
            if !fits {
                let what = format!("reported out of its order: {record:?}");
                return Err(Violation::new(Kind::Invented, what));
            }
        }
        tally.life(records);
        Ok(())
    }

    /// Judges what was found.
    pub(crate) fn judge(&self, found: &Found, bound: Bound) -> Vec<Violation> {
        let workers = self.workers.iter();
        workers
            .filter_map(|past| past.place(found, bound).err())
            .collect()
    }

    /// Goes on from what was found, which was judged to be right; what was in flight and is not there must not come back.
    pub(crate) fn settle(&mut self, found: &Found, bound: Bound, tally: &mut Tally) {
        for past in &mut self.workers {
            if let Ok(place) = past.place(found, bound) {
                past.settle(place, tally);
            }
        }
    }

    fn of(&mut self, worker: u32) -> Option<&mut Past> {
        self.workers.get_mut(usize::try_from(worker).ok()?)
    }
}

impl Past {
    fn issue(&mut self, number: u64) -> bool {
        let fits = number == self.next;
        self.next += u64::from(fits);
        fits
    }

    fn acknowledge(&mut self, number: u64, durable: bool) -> bool {
        let fits = (self.first..self.next).contains(&number);
        self.written = self.written.max(number + 1);
        if durable {
            self.durable = self.durable.max(number + 1);
        }
        fits
    }

    /// How many of the operations since the last look are in what was found.
    fn place(&self, found: &Found, bound: Bound) -> Result<u64, Violation> {
        let own = |key: u64| key % u64::from(self.plan.workers) == u64::from(self.plan.worker);
        let lowest = match bound {
            Bound::Killed => self.written,
            Bound::Faulty => self.durable,
            Bound::Beside => self.first,
        };
        let mut states = Vec::new();
        let mut place = None;
        let mut state = self.base.clone();
        for number in self.first..=self.next {
            if number >= lowest {
                if found::is(&state, found, own) {
                    place = Some(number);
                }
                states.push(state.clone());
            }
            if number < self.next {
                let op = self.plan.plan(number, &state);
                state.apply(&op);
            }
        }
        let who = format!("worker {}", self.plan.worker);
        place.ok_or_else(|| found::violation(&who, &states, found, own))
    }

    fn settle(&mut self, place: u64, tally: &mut Tally) {
        let mut state = self.base.clone();
        for number in self.first..self.next {
            let op = self.plan.plan(number, &state);
            if number < place {
                tally.did(&op);
                state.apply(&op);
            }
        }
        tally.acknowledged += self.written.saturating_sub(self.first);
        tally.survived += place.saturating_sub(self.written);
        tally.vanished += self.next - place.max(self.written);
        self.base = state;
        self.first = self.next;
        self.durable = self.next;
        self.written = self.next;
    }
}

impl Tally {
    /// Counts an operation that stands.
    fn did(&mut self, op: &Op) {
        let Op::Write { steps, how } = op else {
            self.logs_made_or_deleted += u64::from(!matches!(op, Op::Sync | Op::Reclaim));
            return;
        };
        self.relaxed += u64::from(matches!(how, How::Relaxed | How::SubmitRelaxed));
        self.submitted += u64::from(matches!(how, How::Submit | How::SubmitRelaxed));
        let first = steps.first().map(Step::log);
        self.across += u64::from(steps.iter().any(|step| Some(step.log()) != first));
        for step in steps {
            match step {
                Step::Append { .. } | Step::AppendAt { .. } => self.appends += 1,
                Step::Truncate { .. } => self.truncates += 1,
                Step::PurgeTo { .. } | Step::PurgeThrough { .. } => self.purges += 1,
                Step::Reset { .. } => self.resets += 1,
                Step::Set { .. } => self.cells += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use everlog::fs::{Profile, SimFs};
    use everlog::{Background, Config, Journal, LogKey};

    use super::super::plan::batch;
    use super::*;

    const WORKER: Worker = Worker {
        seed: 5,
        worker: 0,
        workers: 1,
        logs: 2,
    };
    /// Some writes go to both logs by then.
    const OPERATIONS: u64 = 60;

    /// The states of the worker's logs, from the empty one on, and the operations between them.
    fn story() -> (Vec<Group>, Vec<Op>) {
        let mut states = vec![Group::default()];
        let mut ops = Vec::new();
        for number in 0..OPERATIONS {
            let mut state = states[states.len() - 1].clone();
            let op = WORKER.plan(number, &state);
            state.apply(&op);
            states.push(state);
            ops.push(op);
        }
        (states, ops)
    }

    /// What a journal holds after each of `ops`, and before all of them.
    fn found_after(ops: &[Op]) -> Vec<Found> {
        let disk = Arc::new(SimFs::new(1, Profile::PosixWeak));
        let config = Config::new()
            .segment_bytes(64 << 10)
            .max_entry_bytes(64 << 10)
            .background(Background::Caller);
        let journal = Journal::create_on(disk, config).unwrap();
        let mut group = Group::default();
        let mut found = vec![Found::new()];
        for op in ops {
            match op {
                Op::Write { steps, .. } => drop(journal.write(batch(steps, &group)).unwrap()),
                Op::Create { log, first } => drop(journal.create_log(LogKey(*log), *first).unwrap()),
                Op::Delete { log } => journal.delete_log(LogKey(*log)).unwrap(),
                Op::Sync | Op::Reclaim => {}
            }
            group.apply(op);
            found.push(found::journal(&journal).unwrap());
        }
        found
    }

    /// A drill that heard of all operations, and of the end of those below `durable` and `written`.
    fn heard(durable: u64, written: u64) -> History {
        let mut history = History::new(WORKER.seed, WORKER.workers, WORKER.logs);
        let mut records: Vec<Record> = Vec::new();
        for number in 0..OPERATIONS {
            records.push(Record::Issue { writer: 0, number });
            if number < written {
                records.push(Record::Done {
                    writer: 0,
                    number,
                    durable: number < durable,
                });
            }
        }
        history.hear(&records, &mut Tally::default()).unwrap();
        history
    }

    /// Which prefixes of the story a bound takes, as far as their states differ from every state that is right.
    fn taken(history: &History, found: &[Found], bound: Bound, lowest: usize) {
        let (states, _) = story();
        for (end, found) in found.iter().enumerate() {
            let right = states[lowest..].contains(&states[end]);
            let bad = history.judge(found, bound);
            assert_eq!(bad.is_empty(), right, "{end} operations, {bound:?}: {bad:?}");
        }
    }

    #[test]
    fn what_was_acknowledged_must_stand_and_what_was_issued_may() {
        let history = heard(20, 40);
        let found = found_after(&story().1);
        taken(&history, &found, Bound::Killed, 40);
        taken(&history, &found, Bound::Faulty, 20);
        taken(&history, &found, Bound::Beside, 0);
    }

    #[test]
    fn half_of_a_write_is_seen() {
        let history = heard(0, 0);
        let (mut states, mut ops) = story();
        let across = |op: &Op| matches!(op, Op::Write { steps, .. } if steps.iter().any(|s| s.log() != steps[0].log()));
        let at = ops.iter().rposition(across).unwrap();
        ops.truncate(at + 1);
        let Some(Op::Write { steps, .. }) = ops.last_mut() else {
            unreachable!("the write across logs");
        };
        let other = steps[0].log();
        steps.retain(|step| step.log() == other);
        let whole = states.swap_remove(at + 1);
        let bad = history.judge(&found_after(&ops)[at + 1], Bound::Killed);
        assert_eq!(bad.len(), 1, "the whole would be {whole:?}");
        assert_eq!(bad[0].kind, Kind::Changed);
        assert!(bad[0].what.contains("in part"), "{}", bad[0].what);
    }

    #[test]
    fn what_had_vanished_must_not_come_back() {
        let mut history = heard(20, 20);
        let (_, ops) = story();
        let found = found_after(&ops);
        history.settle(&found[20], Bound::Killed, &mut Tally::default());
        assert_eq!(history.judge(&found[20], Bound::Killed), []);
        let back = history.judge(&found[ops.len()], Bound::Killed);
        assert_eq!(back.len(), 1);
    }

    #[test]
    fn reports_out_of_order_are_refused() {
        let issue = |number| Record::Issue { writer: 0, number };
        let done = |writer, number| Record::Done {
            writer,
            number,
            durable: true,
        };
        for records in [
            &[issue(1)][..],
            &[issue(0), issue(0)],
            &[done(0, 0)],
            &[issue(0), done(1, 0)],
        ] {
            let mut history = History::new(1, 1, 1);
            history.hear(records, &mut Tally::default()).unwrap_err();
        }
    }
}
