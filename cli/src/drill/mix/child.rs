//! The process that is killed: every worker does what its plan says, reports before and after, and goes on until it dies.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use everlog::fs::{FaultFs, RealFs, Watch};
use everlog::{Error, ErrorKind, Journal, LogKey, Result, Ticket, Written};

use super::super::child::{die_of_panics, opened, report};
use super::super::protocol::{self, Counted, OPENING, Record};
use super::brief::{self, Brief, Hand};
use super::model::Group;
use super::plan::{How, Op, Worker, batch};
use crate::exit::{Exit, Failure, Outcome};
use crate::journal;

/// Runs the child of a mixed drill in `dir`; returns only when it cannot go on.
pub(crate) fn run(dir: &Path) -> Outcome {
    let lost = |e: io::Error| Failure::io("talk to the drill", &e);
    die_of_panics();
    let mut input = BufReader::new(io::stdin());
    let brief: Brief = protocol::read_line(&mut input).map_err(lost)?;
    let reports = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(lost)?);
    let lives = thread::spawn(move || {
        // The end of the input is the end of the drill, and so is an error.
        let _ = input.read(&mut [0]);
        process::exit(0);
    });
    let fs = RealFs::open(dir).map_err(|e| Failure::io("open the directory", &e))?;
    let fs = FaultFs::new(Arc::new(fs));
    let faults = brief.faults.then(|| brief::faults(brief.life));
    let (opening, working) = faults.map_or_else(Default::default, |faults| (faults.opening, faults.working));
    let watches = opening.into_iter().map(|rule| fs.add(rule)).collect();
    let line = Line {
        dir: dir.into(),
        reports: Arc::new(reports),
        faults: Arc::new(Mutex::new(watches)),
        fired: Arc::default(),
    };
    match Journal::open_on(Arc::new(fs.clone()), brief::config(brief.life)) {
        Ok(journal) => {
            line.watch(working.into_iter().map(|rule| fs.add(rule)));
            work(&brief, &journal, &line)?;
        }
        Err(e) if line.excuses(&e) => line.tell(Record::Failed { writer: OPENING }),
        Err(e) => return Err(journal::refused(dir, e)),
    }
    match lives.join() {
        Ok(never) => never,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Does what the brief says until every worker was stopped by an error that was planned.
fn work(brief: &Brief, journal: &Journal, line: &Line) -> std::result::Result<(), Failure> {
    line.tell(opened(journal));
    if brief.idle {
        return Ok(());
    }
    let workers = u32::try_from(brief.workers.len()).map_err(|_| Failure::usage("too many workers"))?;
    thread::scope(|scope| {
        for (worker, hand) in (0..).zip(&brief.workers) {
            let plan = Worker {
                seed: brief.seed,
                worker,
                workers,
                logs: brief.logs,
            };
            scope.spawn(move || Work::new(plan, hand, journal, line).run());
        }
    });
    Ok(())
}

/// The line to the drill, and what excuses an error.
#[derive(Clone)]
struct Line {
    dir: Arc<Path>,
    reports: Arc<File>,
    faults: Arc<Mutex<Vec<Watch>>>,
    /// How many calls had failed when the counters were told last.
    fired: Arc<AtomicU64>,
}

struct Work<'a> {
    plan: Worker,
    next: u64,
    group: Group,
    journal: &'a Journal,
    line: &'a Line,
    /// Submitted and waited for later: number, ticket, and whether it promises durability.
    tickets: VecDeque<(u64, Ticket<Written>, bool)>,
}

impl<'a> Work<'a> {
    fn new(plan: Worker, hand: &Hand, journal: &'a Journal, line: &'a Line) -> Work<'a> {
        Work {
            plan,
            next: hand.next,
            group: hand.group.clone(),
            journal,
            line,
            tickets: VecDeque::new(),
        }
    }

    /// Goes on until an operation fails.
    fn run(mut self) {
        let writer = self.plan.worker;
        loop {
            let number = self.next;
            let op = self.plan.plan(number, &self.group);
            self.line.tell(Record::Issue { writer, number });
            let done = self.perform(number, &op);
            self.line
                .count(self.journal, writer == 0 && number.is_multiple_of(COUNTED_ONE_IN));
            if let Err(error) = done {
                self.line.failed(writer, &error);
                return;
            }
            self.next += 1;
        }
    }

    fn perform(&mut self, number: u64, op: &Op) -> Result<()> {
        let before = self.group.clone();
        let ids = self.group.apply(op);
        let steps = match op {
            Op::Write { steps, .. } => batch(steps, &before),
            _ => Default::default(),
        };
        let check = |written: &Written| {
            if written.ids != ids {
                let what = format!("operation {number} was given {:?} and not {ids:?}", written.ids);
                end(&Failure::new(Exit::Finding, what));
            }
        };
        match op {
            Op::Write {
                how: How::Durable, ..
            } => check(&self.journal.write(steps)?),
            Op::Write {
                how: How::Relaxed, ..
            } => {
                check(&self.journal.write_relaxed(steps)?);
                self.line.done(self.plan.worker, number, false);
                return Ok(());
            }
            Op::Write { how, .. } => {
                let durable = *how == How::Submit;
                let ticket = match durable {
                    true => self.journal.submit(steps)?,
                    false => self.journal.submit_relaxed(steps)?,
                };
                check(ticket.value());
                return self.later(number, ticket, durable);
            }
            Op::Create { log, first } => drop(self.journal.create_log(LogKey(*log), *first)?),
            Op::Delete { log } => self.journal.delete_log(LogKey(*log))?,
            Op::Sync => self.journal.sync()?,
            Op::Reclaim => {
                self.journal.reclaim()?;
                // It promises nothing of what was submitted before.
                return Ok(());
            }
        }
        self.line.done(self.plan.worker, number, true);
        Ok(())
    }

    /// Half of the tickets are told by a callback, the others waited for when a few have come together.
    fn later(&mut self, number: u64, ticket: Ticket<Written>, durable: bool) -> Result<()> {
        let writer = self.plan.worker;
        if number.is_multiple_of(2) {
            let line = self.line.clone();
            ticket.on_done(move |outcome| match outcome {
                Ok(_) => line.done(writer, number, durable),
                Err(error) => line.failed(writer, &error),
            });
            return Ok(());
        }
        self.tickets.push_back((number, ticket, durable));
        if self.tickets.len() < TICKETS_MAX {
            return Ok(());
        }
        for (number, ticket, durable) in self.tickets.drain(..) {
            ticket.wait()?;
            self.line.done(writer, number, durable);
        }
        Ok(())
    }
}

impl Line {
    fn tell(&self, record: Record) {
        report(&self.reports, &[record]);
    }

    fn done(&self, writer: u32, number: u64, durable: bool) {
        self.tell(Record::Done {
            writer,
            number,
            durable,
        });
    }

    fn failed(&self, writer: u32, error: &Error) {
        match self.excuses(error) {
            true => self.tell(Record::Failed { writer }),
            false => end(&journal::refused(&self.dir, error.clone())),
        }
    }

    /// Tells the counters if it is `due`, or if a call failed since they were told last.
    fn count(&self, journal: &Journal, due: bool) {
        let faults = self.faults();
        let new = self.fired.fetch_max(faults, Ordering::Relaxed) < faults;
        if !due && !new {
            return;
        }
        let metrics = journal.metrics();
        self.tell(Record::Counted(Counted {
            rehomings: u32::try_from(metrics.rehomings).unwrap_or(u32::MAX),
            faults,
            rotations: metrics.rotations,
            freed: metrics.segments_freed,
        }));
    }

    fn watch(&self, watches: impl Iterator<Item = Watch>) {
        self.locked().extend(watches);
    }

    /// How many calls failed so far.
    fn faults(&self) -> u64 {
        self.locked().iter().map(Watch::fired).sum()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Watch>> {
        // A thread that panics ends the process.
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A planned fault explains an error, but never damage, and no complaint about the arguments.
    fn excuses(&self, error: &Error) -> bool {
        let kinds = [
            ErrorKind::Io,
            ErrorKind::NoSpace,
            ErrorKind::Unknown,
            ErrorKind::Closed,
        ];
        self.faults() > 0 && kinds.contains(&error.kind())
    }
}

/// Ends the process and tells why: the drill knows the row of the table of exit codes.
fn end(failure: &Failure) -> ! {
    process::exit(i32::from(failure.tell().code()));
}

/// How many tickets come together before they are waited for.
const TICKETS_MAX: usize = 4;
/// One of so many operations of the first worker is followed by a report of the counters.
const COUNTED_ONE_IN: u64 = 4;
