//! One run of a workload, with calls that fail: what the journal says must be true, and what a crash leaves must be allowed.

use std::sync::Arc;

use everlog::fs::{Fs, SimFs};
use everlog::inspect::{FindingKind, View, dump_on, verify_on};
use everlog::{Error, ErrorKind, Journal, Ticket, WriteBatch, Written};

use super::harm::Plan;
use super::judge::{Depth, Judge, check_refused_opening, goes_on, loosen, write};
use super::model::{Model, Step};
use super::random::mix;
use super::saboteur::{Saboteur, Site, Struck};
use super::tally::Tally;
use super::window::Window;
use super::workloads::{Act, Manner, Start, Workload};

/// Where a run begins: a disk with, perhaps, a journal on it, and what that may hold.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) disk: SimFs,
    pub(crate) window: Window,
}

pub(crate) struct Run<'a> {
    judge: Judge<'a>,
    saboteur: Saboteur,
    journal: Option<Journal>,
    window: Window,
    tickets: Vec<(Ticket<Written>, usize, bool)>,
    /// It closed to writers after two failures.
    failed: bool,
    /// The disk is full, or was.
    tight: bool,
    /// What happened so far, for a person.
    story: String,
}

/// What stood before an act.
#[derive(Clone, Copy)]
struct Before {
    struck: Struck,
    base: usize,
    written: usize,
    unborn: bool,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        workload: &Workload,
        ground: &Ground,
        plans: &[Plan],
        depth: Depth,
        tally: &'a Tally,
    ) -> Run<'a> {
        let snaps = match depth {
            Depth::Slice => 2,
            Depth::Whole => 5,
        };
        let seed = plans.iter().fold(mix(workload.seed()), |seed, plan| {
            mix(seed ^ plan.at ^ ((plan.harm as u64) << 20) ^ ((plan.span as u64) << 30))
        });
        Run {
            judge: Judge {
                config: workload.config.clone(),
                depth,
                seed,
                tally,
            },
            saboteur: Saboteur::new(ground.disk.fork(), plans, snaps),
            journal: None,
            window: ground.window.clone(),
            tickets: Vec::new(),
            failed: false,
            tight: false,
            story: String::new(),
        }
    }

    /// Does everything; what fails is a panic that tells the story. The calls that were made.
    pub(crate) fn whole(mut self, acts: &[Act]) -> Vec<Site> {
        for act in acts {
            self.act(act);
        }
        self.end();
        self.judge.tally.struck(&self.saboteur);
        self.saboteur.trace()
    }

    /// The ground that `acts`, in which nothing fails, leave.
    pub(crate) fn ground(mut self, acts: &[Act]) -> Ground {
        for act in acts {
            self.act(act);
        }
        assert!(self.journal.is_none(), "a prelude ends with the life");
        Ground {
            disk: self.saboteur.disk.fork(),
            window: self.window,
        }
    }

    fn act(&mut self, act: &Act) {
        self.story.push_str(&format!("\n  {act:?}"));
        let before = Before {
            struck: self.saboteur.struck(),
            base: self.window.base,
            written: self.window.written,
            unborn: self.window.unborn,
        };
        match act {
            Act::Open(start) => {
                // Until it returns, everything that it may find is as open as before.
                let window = self.window.clone();
                self.open(*start);
                self.examine_within(&window);
            }
            Act::Write(steps, manner) => self.write(steps, *manner, before),
            Act::Wait => self.wait(),
            Act::Sync => {
                if let Some(journal) = self.journal.clone() {
                    let result = journal.sync();
                    self.ended(result, before, true);
                }
            }
            Act::Work => {
                if let Some(journal) = self.journal.clone() {
                    let result = journal.work();
                    self.ended(result, before, false);
                }
            }
            Act::Reclaim => {
                if let Some(journal) = self.journal.clone() {
                    let result = journal.reclaim();
                    self.ended(result, before, false);
                }
            }
            Act::Read => self.read(before),
            Act::View => self.view(before),
            Act::Verify => self.verify(before),
            Act::Close => self.close(before),
            Act::Kill => self.die(|disk| disk.kill(), true),
            Act::Cut(seed) => self.die(|disk| disk.crash(*seed), false),
            Act::Spoil(spoil) => spoil.apply(&self.saboteur.disk),
            Act::Tight(bytes) => {
                let space = self.saboteur.disk.space().expect("the disk is there");
                self.saboteur.disk.set_capacity(space.total - space.free + bytes);
                self.tight = true;
            }
            Act::Loose => loosen(&self.saboteur.disk),
        }
        self.examine(before);
    }

    /// Judges the crash states that were taken since `before`.
    fn examine(&mut self, before: Before) {
        let mut window = self.window.clone();
        window.base = before.base.min(window.issued());
        window.written = before.written.min(window.issued());
        window.unborn = before.unborn;
        self.examine_within(&window);
    }

    fn examine_within(&mut self, window: &Window) {
        for snap in self.saboteur.take_snaps() {
            let story = format!("{}\ncrashed meanwhile", self.story);
            self.judge.crashes(&snap, window, &story);
        }
    }

    fn end(&mut self) {
        let story = format!("{}\ncrashed at the end", self.story);
        let snap = self.saboteur.disk.fork();
        self.judge.crashes(&snap, &self.window, &story);
        self.saboteur.heal();
        loosen(&self.saboteur.disk);
        let Some(journal) = self.journal.take() else {
            return;
        };
        self.check_shown(&journal);
        let step = goes_on(self.window.now(), self.judge.seed);
        self.story.push_str(&format!("\n  all is well again; {step:?}"));
        match write(&journal, &step) {
            Ok(()) => {
                let after = self.window.now().after(&[step]).expect("it fits");
                self.window.push(after);
                self.window.ack(self.window.issued());
                self.bad(self.failed, "a journal that closed to writers takes a write");
            }
            Err(error) => {
                // The background may have been told, and nobody else.
                let closed = self.may_fail() && error.kind() == ErrorKind::Closed;
                self.bad(!closed, &format!("a healthy disk refuses a write: {error:?}"));
            }
        }
        let snap = self.saboteur.disk.fork();
        self.judge.crashes(&snap, &self.window, &self.story);
    }

    /// Fails the run with its story.
    fn bad(&self, bad: bool, what: &str) {
        assert!(!bad, "{}\n{what}", self.story);
    }

    fn struck_since(&self, before: Before) -> u64 {
        self.saboteur.struck().failed - before.struck.failed
    }

    /// Two things went wrong, a full disk being one, so that a write may be of unknown outcome.
    fn may_fail(&self) -> bool {
        self.failed || self.saboteur.struck().failed + u64::from(self.tight) >= 2
    }

    fn open(&mut self, start: Start) {
        let from = match start {
            Start::AfterKill => self.window.written,
            _ => self.window.base,
        };
        for attempt in 0..3 {
            if attempt == 2 {
                // It cannot be opened while this lasts.
                self.saboteur.heal();
                loosen(&self.saboteur.disk);
            }
            let fs: Arc<dyn Fs> = Arc::new(self.saboteur.clone());
            let config = self.judge.config.clone();
            let struck = self.saboteur.struck().failed;
            let opened = match start {
                Start::Create if attempt == 0 => Journal::create_on(fs, config),
                Start::Create | Start::Either => Journal::open_or_create_on(fs, config),
                Start::AfterKill | Start::AfterCut => Journal::open_on(fs, config),
            };
            match opened {
                Ok(journal) => {
                    let found = self.saboteur.aside(|| Model::read(&journal));
                    let found = found.unwrap_or_else(|e| panic!("{}\nreading failed: {e:?}", self.story));
                    let position = self.judge.position(&found, &self.window, from, &self.story);
                    self.window.found(position);
                    self.failed = false;
                    self.journal = Some(journal);
                    return;
                }
                Err(error) => {
                    self.story.push_str(&format!("\n    failed: {error:?}"));
                    self.judge.tally.not_opened.add(1);
                    check_refused_opening(&error, &self.saboteur, &self.story);
                    let struck = self.saboteur.struck().failed - struck;
                    let full = self.tight && error.kind() == ErrorKind::NoSpace;
                    self.bad(
                        struck == 0 && !full,
                        "an opening failed, and none of its calls did",
                    );
                }
            }
        }
        panic!("{}\nit cannot be opened", self.story);
    }

    fn write(&mut self, steps: &[Step], manner: Manner, before: Before) {
        let Some(journal) = self.journal.clone() else {
            return;
        };
        for attempt in 0..2 {
            match self.window.now().after(steps) {
                Ok(after) => self.window.push(after),
                Err(kind) => return self.write_that_does_not_fit(&journal, steps, kind),
            }
            let was_quiet = self.saboteur.is_quiet();
            match self.hand_in(&journal, steps, manner) {
                Ok(()) => {
                    self.bad(self.failed, "a journal that closed to writers takes a write");
                    return;
                }
                Err(error) => {
                    self.refused(&error, manner, before);
                    let again = matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace);
                    self.bad(
                        attempt == 1 && was_quiet && again && !self.tight,
                        "the cause is gone, and the write is refused again",
                    );
                    if !again || !self.saboteur.is_quiet() {
                        return;
                    }
                }
            }
        }
    }

    /// An earlier write was refused, so that this one is wrong.
    fn write_that_does_not_fit(&mut self, journal: &Journal, steps: &[Step], kind: ErrorKind) {
        let result = match steps {
            [step] => write(journal, step),
            steps => {
                let mut batch = WriteBatch::new();
                steps.iter().for_each(|step| step.push(&mut batch));
                journal.write(batch).map(drop)
            }
        };
        let expected = if self.failed { ErrorKind::Closed } else { kind };
        match result {
            Ok(()) => self.bad(true, &format!("it should be refused as {expected:?}")),
            Err(error) => self.bad(
                error.kind() != expected,
                &format!("it should be refused as {expected:?}: {error:?}"),
            ),
        }
    }

    fn hand_in(&mut self, journal: &Journal, steps: &[Step], manner: Manner) -> everlog::Result<()> {
        if let [step @ (Step::Create(..) | Step::Delete(_))] = steps {
            write(journal, step)?;
            self.acked(self.window.issued());
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        steps.iter().for_each(|step| step.push(&mut batch));
        let position = self.window.issued();
        let relaxed = matches!(manner, Manner::Relaxed | Manner::SubmitRelaxed);
        let ticket = match manner {
            Manner::Durable => {
                journal.write(batch)?;
                self.acked(position);
                return Ok(());
            }
            Manner::Relaxed => {
                journal.write_relaxed(batch)?;
                self.window.written = position;
                return Ok(());
            }
            Manner::Submit => journal.submit(batch)?,
            Manner::SubmitRelaxed => journal.submit_relaxed(batch)?,
            Manner::Try => journal.try_submit(batch).map_err(|refused| refused.error)?,
        };
        self.tickets.push((ticket, position, relaxed));
        Ok(())
    }

    /// Everything up to `position` is durable, and everybody knows it.
    fn acked(&mut self, position: usize) {
        self.window.ack(position);
        for (ticket, _, _) in self.tickets.extract_if(.., |(_, at, _)| *at <= position) {
            assert!(
                ticket.is_done(),
                "{}\na later write is durable, and a ticket does not know it",
                self.story
            );
        }
    }

    /// The newest write was not done, or nobody knows.
    fn refused(&mut self, error: &Error, manner: Manner, before: Before) {
        self.told(error, before);
        match error.kind() {
            ErrorKind::Unknown => return,
            ErrorKind::Closed => {}
            ErrorKind::Busy => self.bad(manner != Manner::Try, "only try_submit is refused as busy"),
            ErrorKind::NoSpace => self.judge.tally.no_space.add(1),
            ErrorKind::Io => self.judge.tally.refused.add(1),
            kind => panic!("{}\n{kind:?} is no error for a write", self.story),
        }
        self.window.pop();
    }

    /// Checks an error that is not about the arguments.
    fn told(&mut self, error: &Error, before: Before) {
        self.story.push_str(&format!("\n    failed: {error:?}"));
        let struck = self.saboteur.struck();
        self.bad(error.to_string().contains("panicked"), "something panicked");
        let full = self.tight && error.kind() == ErrorKind::NoSpace;
        self.bad(
            struck.failed == 0 && error.kind() != ErrorKind::Busy && !full,
            "nothing went wrong",
        );
        self.bad(
            self.failed && !matches!(error.kind(), ErrorKind::Closed | ErrorKind::Unknown),
            "the journal is closed to writers, and the error does not say so",
        );
        match error.kind() {
            ErrorKind::Unknown | ErrorKind::Closed => {
                self.bad(
                    !self.may_fail(),
                    "only one call failed, which a fresh segment cures",
                );
                self.judge
                    .tally
                    .unknown
                    .add(u64::from(error.kind() == ErrorKind::Unknown));
                self.failed = true;
            }
            ErrorKind::NoSpace => self.bad(struck.full == 0 && !self.tight, "the disk is not full"),
            ErrorKind::Io => self.bad(self.struck_since(before) == 0, "no call failed meanwhile"),
            _ => {}
        }
    }

    fn wait(&mut self) {
        for (ticket, position, relaxed) in std::mem::take(&mut self.tickets) {
            let before = Before {
                struck: self.saboteur.struck(),
                base: self.window.base,
                written: self.window.written,
                unborn: self.window.unborn,
            };
            match ticket.wait() {
                Ok(_) if relaxed => self.window.written = self.window.written.max(position),
                Ok(_) => self.window.ack(position),
                Err(error) => {
                    self.told(&error, before);
                    self.bad(
                        error.kind() != ErrorKind::Unknown,
                        "a ticket of what was taken in says that nothing was done",
                    );
                }
            }
            self.examine(before);
        }
    }

    /// Something that is no write came to an end; `all`: and if it went well, everything is durable.
    fn ended<T>(&mut self, result: everlog::Result<T>, before: Before, all: bool) {
        match result {
            Ok(_) if all => self.acked(self.window.issued()),
            Ok(_) => {}
            Err(error) => {
                self.told(&error, before);
                let fits = matches!(
                    error.kind(),
                    ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Unknown | ErrorKind::Closed
                );
                self.bad(!fits, "the wrong kind");
            }
        }
    }

    fn close(&mut self, before: Before) {
        let Some(journal) = self.journal.take() else {
            return;
        };
        match journal.close() {
            Ok(()) => {
                self.bad(self.failed, "closing goes well after what failed");
                self.acked(self.window.issued());
            }
            Err(error) => {
                self.told(&error, before);
                self.bad(error.kind() != ErrorKind::Unknown, "the wrong kind");
            }
        }
        self.tickets.clear();
    }

    fn die(&mut self, leave: impl Fn(&SimFs) -> SimFs, kill: bool) {
        let left = leave(&self.saboteur.disk);
        self.saboteur.next_life(left);
        self.journal = None;
        self.tickets.clear();
        if !kill {
            self.window.written = self.window.base;
        }
    }

    /// What the journal shows is what was issued.
    fn check_shown(&self, journal: &Journal) {
        let found = self.saboteur.aside(|| Model::read(journal));
        let found = found.unwrap_or_else(|e| panic!("{}\nreading failed: {e:?}", self.story));
        let now = self.window.now();
        assert!(
            found == *now,
            "{}\nit shows\n{found}and should show\n{now}",
            self.story
        );
    }

    fn read(&mut self, before: Before) {
        let Some(journal) = self.journal.clone() else {
            return;
        };
        match Model::read(&journal) {
            Ok(found) => {
                let now = self.window.now();
                assert!(
                    found == *now,
                    "{}\nit shows\n{found}and should show\n{now}",
                    self.story
                );
            }
            Err(error) => self.unreadable(&error, before),
        }
        self.check_shown(&journal);
    }

    /// A read failed, as the system's call did.
    fn unreadable(&mut self, error: &Error, before: Before) {
        self.story.push_str(&format!("\n    failed: {error:?}"));
        self.bad(error.kind() != ErrorKind::Io, "the wrong kind");
        self.bad(self.struck_since(before) == 0, "no call failed meanwhile");
    }

    fn view(&mut self, before: Before) {
        let fs: Arc<dyn Fs> = Arc::new(self.saboteur.clone());
        let ops = self.saboteur.disk.ops();
        let view = View::open_on(fs, self.judge.config.clone());
        let found = view.and_then(|view| {
            let unread = view.findings().iter().any(|f| f.kind == FindingKind::Unreadable);
            for finding in view.findings() {
                let fits = !finding.is_damage() || finding.kind == FindingKind::Unreadable;
                assert!(fits, "{}\na view finds {finding}", self.story);
            }
            assert!(
                !unread || self.struck_since(before) > 0,
                "{}\na view finds what it cannot read: {:?}",
                self.story,
                view.findings()
            );
            Ok((Model::view(&view)?, unread))
        });
        self.bad(self.saboteur.disk.ops() != ops, "a view changed something");
        match found {
            Ok((_, true)) => {}
            Ok((found, false)) => {
                self.judge.position(&found, &self.window, 0, &self.story);
            }
            Err(error) => self.unreadable(&error, before),
        }
    }

    fn verify(&mut self, before: Before) {
        let fs: Arc<dyn Fs> = Arc::new(self.saboteur.clone());
        let ops = self.saboteur.disk.ops();
        match verify_on(Arc::clone(&fs), self.judge.config.clone(), &mut |_| {}) {
            Ok(verified) => {
                for finding in &verified.findings {
                    let unreadable = finding.kind == FindingKind::Unreadable && self.struck_since(before) > 0;
                    let fits = !finding.is_damage() || unreadable;
                    assert!(fits, "{}\nverify finds {finding}", self.story);
                }
            }
            Err(error) => self.unreadable(&error, before),
        }
        if let Err(error) = dump_on(fs, None, &mut |_| Ok(())) {
            self.unreadable(&error, before);
        }
        self.bad(self.saboteur.disk.ops() != ops, "verify changed something");
    }
}
