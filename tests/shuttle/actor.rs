//! One thread of a schedule: a few writes in every manner that there is, reads, and what else callers do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use everlog::inspect::View;
use everlog::{Config, EntryId, Error, ErrorKind, Journal, LogKey, Term, Ticket, WriteBatch, Written};
use shuttle::future::block_on;

use super::judge;
use super::model::{LogModel, Model, Step};
use super::random::{Random, bytes};
use super::story::Story;
use super::world::{Fate, LEDGER, Loss, Moment, SHARED, Seen, World, own_log};

pub(crate) struct Actor {
    pub(crate) number: usize,
    pub(crate) journal: Journal,
    pub(crate) world: Arc<World>,
    pub(crate) story: Story,
    pub(crate) random: Random,
    /// Tickets to be waited for at the end.
    pub(crate) later: Vec<(usize, Ticket<Written>, Fate)>,
    /// The next index of its own log, and the first.
    pub(crate) own: std::ops::Range<u64>,
}

/// How a batch is handed in, and who hears of its end.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Write,
    Relaxed,
    Submit,
    SubmitRelaxed,
    Try,
    Permit,
}

impl Actor {
    pub(crate) fn run(mut self, deeds: u64) {
        for _ in 0..deeds {
            self.deed();
        }
        for (number, ticket, fate) in std::mem::take(&mut self.later) {
            let ended = ticket.wait().map(drop);
            self.told(number, &ended, fate);
        }
        if self.story.closer == Some(self.number) {
            self.close();
        }
    }

    fn close(&self) {
        let ended = self.journal.clone().close();
        assert!(
            ended.is_ok() || self.may_fail(),
            "closing failed: {:?}",
            ended.unwrap_err()
        );
    }

    fn deed(&mut self) {
        match self.random.below(20) {
            0..=10 => self.write(),
            11..=13 => self.control(),
            14 | 15 => self.read(),
            16 => self.sync(),
            17 => self.reclaim(),
            18 => self.give_up_room(),
            _ if self.random.one_in(4) => self.view(),
            _ => self.read(),
        }
    }

    /// A write that is in the ledger.
    fn write(&mut self) {
        let key = own_log(self.number).0;
        let (size, tag) = (self.story.entry_bytes, self.random.next());
        let mut steps = Vec::new();
        if self.random.one_in(2) {
            steps.push(Step::Append(key, bytes(tag, self.random.below(size))));
            self.own.end += 1;
        }
        for n in 0..self.random.below(3) {
            steps.push(Step::Append(
                SHARED.0,
                bytes(tag ^ (n + 1), self.random.below(size)),
            ));
        }
        if self.random.one_in(5) {
            steps.extend(self.shrink());
        }
        let number = self.world.issue(self.number, |number| {
            let entry = Step::Append(LEDGER.0, number.to_le_bytes().to_vec().into());
            steps.into_iter().chain([entry]).collect()
        });
        let manners = [
            Manner::Write,
            Manner::Write,
            Manner::Relaxed,
            Manner::Submit,
            Manner::Submit,
            Manner::Submit,
            Manner::SubmitRelaxed,
            Manner::Try,
            Manner::Permit,
        ];
        let manner = self.random.pick(&manners);
        let taken = self.hand_in(number, manner);
        if !taken
            && self.world.notes().ops[number]
                .steps
                .iter()
                .any(|step| step.key() == key)
        {
            self.own.end -= 1;
        }
    }

    /// Drops a part of the logs that all write to, so that segments can go.
    fn shrink(&mut self) -> Vec<Step> {
        let Ok(log) = self.journal.log(SHARED) else {
            return Vec::new();
        };
        let Ok(bounds) = log.bounds() else {
            return Vec::new();
        };
        let cut = bounds.start + self.random.below(bounds.end - bounds.start + 1);
        if self.random.one_in(3) {
            return vec![Step::Truncate(SHARED.0, cut)];
        }
        let mut steps = vec![Step::PurgeTo(SHARED.0, cut)];
        // Once a place in the ledger is purged, nobody can say any more who had it.
        if !self.may_fail()
            && let Ok(bounds) = self.journal.log(LEDGER).and_then(|log| log.bounds())
        {
            steps.push(Step::PurgeTo(LEDGER.0, bounds.end));
        }
        steps
    }

    /// A write that appends nothing: it never waits for room.
    fn control(&mut self) {
        let key = own_log(self.number).0;
        let step = match self.random.below(6) {
            0 => {
                let to = self.own.start + self.random.below(self.own.end - self.own.start + 2);
                self.own = to..self.own.end.max(to);
                Step::PurgeTo(key, to)
            }
            1 => {
                let from = self.own.start + self.random.below(self.own.end - self.own.start + 1);
                self.own.end = from;
                Step::Truncate(key, from)
            }
            2 => {
                let last = EntryId::new(0, self.own.end);
                self.own = last.index + 1..last.index + 1;
                Step::Reset(
                    key,
                    EntryId {
                        term: Term(0),
                        ..last
                    },
                )
            }
            _ => Step::Set(
                key,
                u8::try_from(self.random.below(2)).expect("small"),
                bytes(self.random.next(), 9),
            ),
        };
        let number = self.world.issue(self.number, |_| vec![step]);
        let manner = self
            .random
            .pick(&[Manner::Write, Manner::Write, Manner::Relaxed, Manner::Submit]);
        self.hand_in(number, manner);
    }

    /// False if nothing has happened.
    fn hand_in(&mut self, number: usize, manner: Manner) -> bool {
        let mut batch = WriteBatch::new();
        self.world
            .steps(number)
            .iter()
            .for_each(|step| step.push(&mut batch));
        let (result, fate) = match manner {
            Manner::Write => return self.blocking(number, Journal::write, batch, Fate::Durable),
            Manner::Relaxed => return self.blocking(number, Journal::write_relaxed, batch, Fate::Written),
            Manner::Submit => (self.journal.submit(batch), Fate::Durable),
            Manner::SubmitRelaxed => (self.journal.submit_relaxed(batch), Fate::Written),
            Manner::Try => (
                self.journal.try_submit(batch).map_err(|refused| refused.error),
                Fate::Durable,
            ),
            Manner::Permit => (self.with_permit(batch), Fate::Durable),
        };
        match result {
            Ok(ticket) => {
                self.world.accepted(number, &ticket.value().ids);
                self.hear(number, ticket, fate);
                true
            }
            Err(error) => {
                let busy = error.kind() == ErrorKind::Busy && matches!(manner, Manner::Try | Manner::Permit);
                self.refused(number, &error, busy);
                false
            }
        }
    }

    fn blocking(
        &mut self,
        number: usize,
        call: fn(&Journal, WriteBatch) -> everlog::Result<Written>,
        batch: WriteBatch,
        fate: Fate,
    ) -> bool {
        match call(&self.journal, batch) {
            Ok(written) => {
                self.world.accepted(number, &written.ids);
                self.told(number, &Ok(()), fate);
                true
            }
            Err(error) if error.kind() == ErrorKind::Unknown => {
                self.told(number, &Err(error), fate);
                true
            }
            Err(error) => {
                self.refused(number, &error, false);
                false
            }
        }
    }

    fn with_permit(&mut self, batch: WriteBatch) -> everlog::Result<Ticket<Written>> {
        let room = self.journal.room(200 + self.random.below(3000));
        let permit = block_on(room)?;
        self.journal.submit_with(permit, batch)
    }

    /// Waits for the end of a write in one of the ways that there are.
    fn hear(&mut self, number: usize, mut ticket: Ticket<Written>, fate: Fate) {
        match self.random.below(7) {
            0 => {
                let ended = ticket.wait().map(drop);
                self.told(number, &ended, fate);
            }
            1 => drop(ticket),
            2 => {
                let ended = block_on(ticket).map(drop);
                self.told(number, &ended, fate);
            }
            3 => {
                // Asks once and goes away.
                if let Poll::Ready(ended) = poll_once(&mut ticket) {
                    self.told(number, &ended.map(drop), fate);
                }
            }
            4 => match ticket.wait_timeout(Duration::from_millis(self.random.below(50))) {
                Ok(ended) => self.told(number, &ended.map(drop), fate),
                Err(ticket) => self.later.push((number, ticket, fate)),
            },
            5 => self.later.push((number, ticket, fate)),
            _ => self.call_back(number, ticket, fate),
        }
    }

    fn call_back(&mut self, number: usize, ticket: Ticket<Written>, fate: Fate) {
        self.world.notes().callbacks_due += 1;
        let (world, story) = (self.world.clone(), self.story);
        let deed = self.random.below(4);
        let journal = self.journal.clone();
        ticket.on_done(move |ended| {
            {
                let mut notes = world.notes();
                notes.callbacks_run += 1;
                let other = std::mem::replace(&mut notes.in_callback, true);
                if other {
                    notes.wrong.push("two callbacks at once".into());
                }
            }
            match &ended {
                Ok(_) => world.ended(number, fate),
                Err(error) if error.kind() == ErrorKind::Unknown => world.ended(number, Fate::Unknown),
                Err(error) => world.wrong(format!("a callback was told {error:?}")),
            }
            in_callback(deed, &journal, &world, story);
            // This may be the last handle.
            world.notes().in_callback = false;
            drop(journal);
        });
    }

    fn told(&self, number: usize, ended: &everlog::Result<()>, fate: Fate) {
        match ended {
            Ok(()) => {
                self.world.ended(number, fate);
                self.is_covered(number, fate);
            }
            Err(error) if error.kind() == ErrorKind::Unknown && self.may_fail() => {
                self.world.ended(number, Fate::Unknown);
            }
            Err(error) => panic!("write {number} ended with {error:?}"),
        }
    }

    /// What was acknowledged as durable in its own log, and not cut since, lies below `durable_end`.
    fn is_covered(&self, number: usize, fate: Fate) {
        let own = own_log(self.number);
        let (op, cut) = {
            let notes = self.world.notes();
            let mut later = notes.ops[number + 1..].iter().flat_map(|op| &op.steps);
            let cut = later.any(|step| step.key() == own.0 && !step.is_append());
            (notes.ops[number].clone(), cut)
        };
        let appended = op.steps.iter().filter(|step| step.is_append()).zip(&op.ids);
        let last = appended.filter(|(step, _)| step.key() == own.0).last();
        if fate == Fate::Durable
            && !cut
            && let Some((_, id)) = last
            && let Ok(end) = self.journal.log(own).and_then(|log| log.durable_end())
        {
            assert!(end > id.index, "entry {id} is durable and durable_end is {end}");
        }
    }

    fn refused(&self, number: usize, error: &Error, busy: bool) {
        let raced = self
            .world
            .steps(number)
            .iter()
            .any(|step| matches!(step, Step::Truncate(2, _)));
        let legal = match error.kind() {
            ErrorKind::Closed => self.story.closer.is_some() || self.may_fail(),
            ErrorKind::Invalid => raced,
            ErrorKind::NoSpace => self.story.tight || self.world.faults > 0,
            ErrorKind::Busy => busy,
            ErrorKind::Io => self.world.faults > 0 || self.story.power_off,
            _ => false,
        };
        assert!(legal, "write {number} was refused: {error:?}");
        self.world.ended(number, Fate::Refused);
    }

    /// Two things may go wrong in a row, and then the journal closes itself.
    fn may_fail(&self) -> bool {
        self.story.power_off || self.world.faults + u64::from(self.story.tight) >= 2
    }

    fn sync(&self) {
        let taken: Vec<usize> = {
            let notes = self.world.notes();
            let taken = notes.ops.iter().enumerate();
            let taken = taken.filter(|(_, op)| matches!(op.fate, Fate::Accepted | Fate::Written));
            taken.map(|(number, _)| number).collect()
        };
        match self.journal.sync() {
            Ok(()) => taken
                .iter()
                .for_each(|number| self.world.ended(*number, Fate::Durable)),
            Err(error) => {
                let closed = error.kind() == ErrorKind::Closed && self.story.closer.is_some();
                assert!(closed || self.may_fail(), "sync: {error:?}");
            }
        }
    }

    fn reclaim(&self) {
        if let Err(error) = self.journal.reclaim() {
            let closed = error.kind() == ErrorKind::Closed && self.story.closer.is_some();
            assert!(
                closed || self.story.tight || self.world.faults > 0 || self.may_fail(),
                "reclaim: {error:?}"
            );
        }
    }

    /// Takes room and does not use it, or stands in the line and leaves.
    fn give_up_room(&mut self) {
        let mut room = self.journal.room(1 + self.random.below(6000));
        if self.random.one_in(2) {
            let _ = poll_once(&mut room);
            return;
        }
        match block_on(room) {
            Ok(permit) => drop(permit),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}"),
        }
    }

    fn read(&mut self) {
        let key = self.random.pick(&[SHARED, own_log(self.number)]);
        let Ok(log) = self.journal.log(key) else { return };
        let (Ok(durable), Ok(bounds)) = (log.durable_end(), log.bounds()) else {
            return;
        };
        let start = bounds.start + self.random.below(bounds.end - bounds.start + 1);
        assert!(
            key == SHARED || durable <= bounds.end,
            "durable_end {durable} of {bounds:?}"
        );
        for entry in log.read(start..bounds.end) {
            match entry {
                Ok(entry) => self.saw(key, entry.id, entry.payload),
                Err(error) => {
                    let meanwhile = matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Purged | ErrorKind::Closed
                    );
                    assert!(meanwhile || self.story.power_off, "log {key}: {error:?}");
                }
            }
        }
    }

    fn saw(&self, log: LogKey, id: EntryId, payload: bytes::Bytes) {
        self.world.notes().seen.push(Seen { log, id, payload });
    }

    /// What a reader beside the writer sees is what some crash may leave, if a crash takes all that is not proven.
    fn view(&mut self) {
        if self.story.power_off || self.world.faults > 0 {
            return;
        }
        let mut found = View::open_on(Arc::new(self.world.disk.clone()), Config::new())
            .and_then(|view| Model::view(&view))
            .unwrap_or_else(|e| panic!("a view beside the writer: {e}"));
        let (ops, fates) = {
            let notes = self.world.notes();
            (notes.ops.clone(), vec![Fate::Issued; notes.ops.len()])
        };
        // The last log that was created may not be proven yet.
        for LogKey(key) in [LEDGER, SHARED]
            .into_iter()
            .chain((0..=self.story.actors).map(own_log))
        {
            found.0.entry(key).or_insert_with(|| Arc::new(LogModel::new(0)));
        }
        let moment = Moment {
            disk: self.world.disk.clone(),
            loss: Loss::Power,
            fates,
            faulty: true,
            what: "a view beside the writer",
        };
        // A write whose call has not returned has no known place yet.
        if ops
            .iter()
            .all(|op| op.position.is_some() || !op.in_ledger || op.fate == Fate::Refused)
        {
            judge::legal(&found, &moment, &ops, moment.what);
        }
    }
}

/// Nothing in a callback may wait, and everything else may be done.
fn in_callback(deed: u64, journal: &Journal, world: &World, story: Story) {
    match deed {
        0 => {
            let refused = journal.sync().map_err(|e| e.kind());
            if refused != Err(ErrorKind::Invalid) {
                world.wrong(format!("a sync inside a callback: {refused:?}"));
            }
        }
        1 | 2 => {
            let number = world.issue(story.actors, |number| {
                vec![Step::Append(LEDGER.0, number.to_le_bytes().to_vec().into())]
            });
            let mut batch = WriteBatch::new();
            world.steps(number).iter().for_each(|step| step.push(&mut batch));
            match journal.submit(batch) {
                Ok(ticket) => world.accepted(number, &ticket.value().ids),
                Err(error) => {
                    world.ended(number, Fate::Refused);
                    let legal = matches!(error.kind(), ErrorKind::Busy | ErrorKind::Closed)
                        || (error.kind() == ErrorKind::NoSpace && (story.tight || world.faults > 0))
                        || (error.kind() == ErrorKind::Io && (world.faults > 0 || story.power_off));
                    if !legal {
                        world.wrong(format!("a submit inside a callback: {error:?}"));
                    }
                }
            }
        }
        _ => {}
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
