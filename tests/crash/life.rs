//! One life of a journal: operations, each with what it should do, and crashes in the middle of them.

use std::sync::Arc;

use everlog::fs::Fs;
use everlog::inspect::View;
use everlog::{Config, Error, ErrorKind, Journal, LogKey, Ticket, WriteBatch, Written};

use super::choose::{Action, Manner};
use super::explore::{Explorer, Said, check_view, is_tight, loosen};
use super::model::Step;
use super::probe::{Loss, Moment, Probe};
use super::timeline::{Claims, Timeline};

/// An open journal beside its model.
pub(crate) struct Life {
    /// `None` once it is closed.
    pub(crate) journal: Option<Journal>,
    pub(crate) probe: Probe,
    pub(crate) timeline: Timeline,
    tickets: Vec<Pending>,
    depth: usize,
    /// It closed to writers after two failures.
    failed: bool,
    /// The disk answers nothing any more.
    dead: bool,
    /// It was closed in order.
    closed: bool,
    /// The disk was full once.
    was_tight: bool,
    /// The disk became full when the reserve stood, and nothing was written since.
    reserve_stands: bool,
}

struct Pending {
    ticket: Ticket<Written>,
    position: u64,
    relaxed: bool,
}

/// What became of a write.
enum Outcome {
    /// It is durable, with everything before it.
    Durable,
    /// It was given to the system, with everything before it.
    Written,
    /// Nobody knows yet.
    Open,
}

impl Life {
    pub(crate) fn new(journal: Journal, probe: Probe, timeline: Timeline, depth: usize) -> Life {
        let (tickets, failed) = (Vec::new(), false);
        let was_tight = is_tight(&probe.disk);
        Life {
            journal: Some(journal),
            probe,
            timeline,
            tickets,
            depth,
            failed,
            dead: false,
            closed: false,
            was_tight,
            reserve_stands: false,
        }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("the journal is open")
    }

    /// Nothing was done to the disk that a healthy one would not do.
    pub(crate) fn is_healthy(&self) -> bool {
        !self.dead && !self.failed && self.probe.fired() == 0 && !is_tight(&self.probe.disk)
    }

    /// Two things went wrong, so that a write may be lost or refused for ever.
    fn may_fail(&self) -> bool {
        let tight = u32::from(is_tight(&self.probe.disk));
        self.dead || self.failed || self.probe.fired() + tight >= 2
    }

    fn lived(&self, explorer: &Explorer<'_>) {
        if let Some(journal) = &self.journal {
            explorer.tally.lived(&journal.metrics());
        }
        explorer.tally.unlinked.add(self.probe.removed_segments());
        explorer.tally.faults.add(u64::from(self.probe.fired()));
        explorer.tally.dir_faults.add(u64::from(self.probe.dir_failed()));
    }
}

impl Explorer<'_> {
    /// Does `steps` things; false if there is nothing to go on with.
    pub(crate) fn live(&mut self, life: &mut Life, steps: u64) -> bool {
        self.tally.lives.add(1);
        for _ in 0..steps {
            let action = self.chooser.action(life.timeline.now(), &life.probe.disk);
            if !self.perform(life, action) {
                return false;
            }
            if life.journal.is_some() && !life.dead && self.chooser.random.one_in(6) && !self.look(life) {
                return false;
            }
            if (life.dead || life.failed) && self.chooser.random.one_in(3) {
                break;
            }
        }
        true
    }

    /// The state that a crash at the end of `life` leaves.
    pub(crate) fn end(&mut self, life: &mut Life) -> (Moment, Timeline, Said) {
        let said = self.said(life, false);
        let loss = self.chooser.random.pick(&[Loss::Power, Loss::Power, Loss::Kill]);
        let mut moment = life.probe.moment(loss, "at the end of a life");
        moment.closed = life.closed;
        life.lived(self);
        (moment, life.timeline.clone(), said)
    }

    /// Closes the journal; everything is durable if it says so. False if a fault kept it from that.
    pub(crate) fn close(&mut self, life: &mut Life) -> bool {
        let Some(journal) = life.journal.take() else {
            return false;
        };
        self.note("close".into());
        self.arm(life, 1);
        let closed = journal.clone().close();
        let healthy = life.is_healthy();
        let metrics = journal.metrics();
        self.tally.lived(&metrics);
        // A life that writes nothing has no segment for a closing mark.
        let marks = healthy && metrics.bytes_written > 0;
        self.crashes(life, &Said::default());
        life.tickets.clear();
        match closed {
            Ok(()) => {
                let all = life.timeline.issued();
                life.timeline.ack(all);
                life.closed = marks;
                self.tally.closed.add(1);
                true
            }
            Err(error) => {
                assert!(!healthy, "closing failed: {error:?}");
                false
            }
        }
    }

    fn perform(&mut self, life: &mut Life, action: Action) -> bool {
        if !matches!(action, Action::Write(..)) {
            self.note(format!("{action:?}"));
        }
        match action {
            Action::Write(steps, manner) => self.write(life, &steps, manner),
            Action::Wait(n) => self.wait(life, n),
            Action::Sync => self.sync(life),
            Action::Work => self.work(life),
            Action::Reclaim => self.reclaim(life),
            Action::Drain => return self.drain(life),
            Action::Reopen { clean } => return self.reopen(life, clean),
            Action::Fault(fault) if !self.ground.is_hostile() => life.probe.plan(fault),
            Action::Tight(blocks) if life.is_healthy() && !self.ground.is_hostile() => {
                self.work(life);
                let space = life.probe.disk.space().expect("the disk is there");
                life.probe
                    .disk
                    .set_capacity(space.total - space.free + blocks * 4096);
                life.was_tight = true;
                life.reserve_stands = life.probe.fired() == 0;
            }
            Action::Loose => loosen(&life.probe.disk),
            Action::Dead if !self.ground.is_hostile() && life.depth == 0 && self.chooser.random.one_in(4) => {
                life.probe.disk.stop_now();
                life.dead = true;
            }
            Action::Fault(_) | Action::Tight(_) | Action::Dead => {}
        }
        true
    }

    /// What it shows is what was issued.
    fn look(&mut self, life: &Life) -> bool {
        let Some(found) = self.read(life.journal()) else {
            return false;
        };
        if !self.ground.is_hostile() && self.chooser.random.one_in(3) {
            let fs: Arc<dyn Fs> = Arc::new(life.probe.disk.clone());
            let view = View::open_on(fs, Config::new()).expect("a view beside the writer");
            assert!(view.live(), "somebody holds the journal");
            check_view(&view);
            self.tally.live_views.add(1);
        }
        let now = life.timeline.now();
        assert!(found == *now, "it shows\n{found}\nand should show\n{now}");
        let claims = Claims::of(life.journal(), now);
        if life.timeline.is_settled() && !life.failed {
            assert!(
                claims.cover(now),
                "everything is durable, and durable_end does not say so"
            );
        }
        true
    }

    fn said(&mut self, life: &Life, in_progress: bool) -> Said {
        match &life.journal {
            Some(journal) if self.chooser.random.one_in(2) => {
                let then = life.timeline.now().clone();
                Said {
                    claims: Claims::of(journal, &then),
                    then,
                    in_progress,
                }
            }
            _ => Said::default(),
        }
    }

    fn arm(&mut self, life: &Life, weight: u64) {
        let chance = [350, 250, 120, 0][life.depth.min(3)] / weight;
        life.probe.arm(chance, if life.depth == 0 { 3 } else { 1 });
    }

    /// Examines the crash states that were taken in the middle of the last call.
    fn crashes(&mut self, life: &mut Life, said: &Said) {
        for moment in life.probe.take() {
            self.examine(moment, life.timeline.clone(), said, life.depth + 1);
        }
    }

    fn write(&mut self, life: &mut Life, steps: &[Step], manner: Manner) {
        let expected = life.timeline.now().after(steps);
        let said = self.said(life, expected.is_ok());
        self.note(format!("{manner:?} {steps:?}"));
        self.tally.writes.add(1);
        self.tally.large.add(u64::from(steps.iter().any(is_large)));
        let ids = if expected.is_ok() {
            life.timeline.now().ids(steps)
        } else {
            Vec::new()
        };
        if let Ok(after) = &expected {
            life.timeline.push(after.clone());
        }
        self.arm(life, 1);
        let result = self.hand_in(life, steps, manner);
        let promised = std::mem::take(&mut life.reserve_stands) && expected.is_ok();
        self.tally
            .by_reserve
            .add(u64::from(promised && !steps.iter().any(Step::is_append)));
        match (result, expected) {
            (Ok((written, outcome)), Ok(_)) => {
                if let Some(written) = written {
                    assert_eq!(written.ids, ids, "the ids given");
                }
                self.crashes(life, &said);
                self.came(life, life.timeline.issued(), &outcome);
            }
            (Err(error), Ok(_)) => {
                self.note(format!("failed: {error:?}"));
                let kept = promised && life.probe.fired() == 0 && !steps.iter().any(Step::is_append);
                assert!(!kept, "a full disk refuses what the reserve is for: {error:?}");
                self.failed(life, &error);
                self.crashes(life, &said);
            }
            (Err(error), Err(kind)) => {
                let closed = error.kind() == ErrorKind::Closed && life.may_fail();
                assert!(
                    error.kind() == kind || closed,
                    "should be refused as {kind:?}: {error:?}"
                );
                life.failed |= closed;
                self.tally.invalid.add(1);
                life.probe.take();
            }
            (Ok(_), Err(kind)) => panic!("should have been refused as {kind:?}"),
        }
    }

    fn hand_in(
        &mut self,
        life: &mut Life,
        steps: &[Step],
        manner: Manner,
    ) -> everlog::Result<(Option<Written>, Outcome)> {
        let journal = life.journal().clone();
        match steps {
            [Step::Create(key, first)] => {
                return journal
                    .create_log(LogKey(*key), *first)
                    .map(|_| (None, Outcome::Durable));
            }
            [Step::Delete(key)] => {
                return journal
                    .delete_log(LogKey(*key))
                    .map(|()| (None, Outcome::Durable));
            }
            _ => {}
        }
        let mut batch = WriteBatch::new();
        if steps.is_empty() {
            // Nothing is promised of nothing, so what came before it may still be lost.
            return journal.write(batch).map(|written| (Some(written), Outcome::Open));
        }
        steps.iter().for_each(|step| step.push(&mut batch));
        let relaxed = matches!(manner, Manner::Relaxed | Manner::SubmitRelaxed);
        let ticket = match manner {
            Manner::Durable => {
                return journal
                    .write(batch)
                    .map(|written| (Some(written), Outcome::Durable));
            }
            Manner::Relaxed => {
                return journal
                    .write_relaxed(batch)
                    .map(|written| (Some(written), Outcome::Written));
            }
            Manner::Submit => journal.submit(batch)?,
            Manner::SubmitRelaxed => journal.submit_relaxed(batch)?,
            Manner::Try => journal.try_submit(batch).map_err(|refused| refused.error)?,
        };
        let written = ticket.value().clone();
        life.tickets.push(Pending {
            ticket,
            position: life.timeline.issued(),
            relaxed,
        });
        Ok((Some(written), Outcome::Open))
    }

    /// The write at `position` came to an end.
    fn came(&mut self, life: &mut Life, position: u64, outcome: &Outcome) {
        match outcome {
            Outcome::Durable => {
                life.timeline.ack(position);
                for pending in life
                    .tickets
                    .extract_if(.., |pending| pending.position <= position)
                {
                    assert!(
                        pending.ticket.is_done(),
                        "a later write is durable, and a ticket does not know it"
                    );
                }
            }
            Outcome::Written => life.timeline.written = life.timeline.written.max(position),
            Outcome::Open => {}
        }
    }

    /// The newest write failed: whether it may have happened, and whether it may fail at all.
    fn failed(&mut self, life: &mut Life, error: &Error) {
        let fired = life.probe.fired() > 0 || life.dead;
        match error.kind() {
            ErrorKind::Unknown => {
                assert!(
                    life.may_fail(),
                    "nobody knows, and too little went wrong for that: {error:?}"
                );
                assert!(!error.to_string().contains("panicked"), "{error:?}");
                self.tally.unknown.add(1);
                life.failed = true;
                return;
            }
            ErrorKind::Closed => {
                assert!(
                    life.may_fail(),
                    "closed, and too little went wrong for that: {error:?}"
                );
                life.failed = true;
            }
            ErrorKind::NoSpace => {
                assert!(fired || life.was_tight, "the disk is not full: {error:?}");
                self.tally.no_space.add(1);
            }
            ErrorKind::Io => assert!(fired, "nothing went wrong: {error:?}"),
            ErrorKind::Busy => {}
            _ => panic!("not an error for this: {error:?}"),
        }
        life.timeline.pop();
    }

    fn wait(&mut self, life: &mut Life, n: usize) {
        if life.tickets.is_empty() {
            return;
        }
        let Pending {
            ticket,
            position,
            relaxed,
        } = life.tickets.remove(n % life.tickets.len());
        let said = self.said(life, false);
        self.arm(life, 1);
        let result = ticket.wait();
        self.crashes(life, &said);
        match result {
            Ok(_) if relaxed => self.came(life, position, &Outcome::Written),
            Ok(_) => self.came(life, position, &Outcome::Durable),
            Err(error) => self.failed_late(life, &error),
        }
    }

    /// Something that is no write failed.
    fn failed_late(&mut self, life: &mut Life, error: &Error) {
        self.note(format!("failed: {error:?}"));
        assert!(!life.is_healthy(), "on a healthy disk: {error:?}");
        assert!(!error.to_string().contains("panicked"), "{error:?}");
        if matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Closed) {
            assert!(life.may_fail(), "too little went wrong for that: {error:?}");
            life.failed = true;
        }
    }

    fn sync(&mut self, life: &mut Life) {
        let said = self.said(life, false);
        self.arm(life, 1);
        let result = life.journal().sync();
        self.crashes(life, &said);
        match result {
            Ok(()) => self.came(life, life.timeline.issued(), &Outcome::Durable),
            Err(error) => self.failed_late(life, &error),
        }
    }

    fn work(&mut self, life: &mut Life) {
        let said = self.said(life, false);
        self.arm(life, 2);
        let result = life.journal().work();
        self.crashes(life, &said);
        match result {
            // Nobody is told how the writes of others went; on a healthy disk they went well.
            Ok(_) if life.is_healthy() => self.came(life, life.timeline.issued(), &Outcome::Durable),
            Ok(_) => {}
            Err(error) => self.failed_late(life, &error),
        }
    }

    fn reclaim(&mut self, life: &mut Life) {
        let said = self.said(life, false);
        self.arm(life, 2);
        let result = life.journal().reclaim();
        self.crashes(life, &said);
        if let Err(error) = result {
            self.failed_late(life, &error);
        }
    }

    /// Empties every log and frees what that frees; then the directory must be small.
    pub(crate) fn drain(&mut self, life: &mut Life) -> bool {
        let purges = life
            .timeline
            .now()
            .0
            .iter()
            .map(|(key, log)| Step::PurgeTo(*key, log.end()));
        let steps: Vec<Step> = purges.collect();
        if !steps.is_empty() {
            self.write(life, &steps, Manner::Durable);
        }
        self.sync(life);
        self.work(life);
        self.reclaim(life);
        self.work(life);
        // A life that has written nothing removes nothing.
        if life.is_healthy() && life.journal().metrics().batches > 0 {
            self.tally.drained.add(1);
            super::growth::check_small(&life.probe.disk.files(), life.timeline.now());
        }
        true
    }

    fn reopen(&mut self, life: &mut Life, clean: bool) -> bool {
        if life.dead {
            return true;
        }
        if clean && !self.close(life) {
            return false;
        }
        self.tally.reopened.add(1);
        let (moment, timeline, said) = self.end(life);
        match self.enter(moment, timeline, &said, life.depth) {
            Some(next) => {
                *life = next;
                true
            }
            None => false,
        }
    }
}

fn is_large(step: &Step) -> bool {
    match step {
        Step::Append(_, payload) | Step::AppendAt(_, _, payload) => payload.len() > 64 << 10,
        _ => false,
    }
}
