//! The process that is killed: opens the machine, says what it has come to, and executes commands from every writer, while
//! checkpoints are taken, until it dies.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use everlog::engine::Engine;
use everlog::snapshot::{Draft, Retention, Store};
use everlog::{EntryId, Error, ErrorKind, LogKey, Result};

use super::super::child::{die_of_panics, opened, report};
use super::super::entries::Entries;
use super::super::protocol::{self, Record, Stage};
use super::brief::Brief;
use super::map::Map;
use super::plan::{How, Plan};
use super::stages::Stages;
use super::world::World;
use crate::exit::{Exit, Failure, Outcome};
use crate::journal;

/// Runs the child of a drilled machine in `dir`; returns only when it cannot go on.
pub(crate) fn run(dir: &Path) -> Outcome {
    let lost = |e: io::Error| Failure::io("talk to the drill", &e);
    die_of_panics();
    let mut input = BufReader::new(io::stdin());
    let brief: Brief = protocol::read_line(&mut input).map_err(lost)?;
    let entries = Entries::read(&mut input).map_err(lost)?;
    let reports = Arc::new(File::from(
        io::stdout().as_fd().try_clone_to_owned().map_err(lost)?,
    ));
    thread::spawn(move || {
        // The end of the input is the end of the drill, and so is an error.
        let _ = input.read(&mut [0]);
        process::exit(0);
    });
    let stages = Arc::new(Stages::told(Arc::clone(&reports)));
    let world = World::open(dir, &brief.settings, &stages, brief.forgets).map_err(|e| failure(dir, e))?;
    if let Some(what) = world.surprise() {
        return Err(Failure::new(Exit::Finding, what));
    }
    for record in world.state().map_err(|e| failure(dir, e))? {
        report(&reports, &[record]);
    }
    report(&reports, &[opened(&world.journal)]);
    let child = Child {
        dir,
        brief: &brief,
        plan: Plan::new(brief.seed, writers(&brief)?, brief.keys, &entries),
        entries: &entries,
        engine: &world.engine,
        store: &world.store,
        reports: &reports,
        stages: &stages,
        executed: AtomicU64::new(0),
    };
    child.work();
    Ok(Exit::Fine)
}

fn writers(brief: &Brief) -> std::result::Result<u32, Failure> {
    u32::try_from(brief.next.len()).map_err(|_| Failure::usage("too many writers"))
}

/// What stopped the child. After a mere kill everything is a finding that does not come from the system.
fn failure(dir: &Path, error: Error) -> Failure {
    match error.kind() {
        ErrorKind::NoSpace | ErrorKind::Io | ErrorKind::Locked | ErrorKind::Unknown => {
            journal::refused(dir, error)
        }
        _ => Failure::new(Exit::Finding, format!("{}: {error}", dir.display())),
    }
}

/// What all threads of the child share.
struct Child<'a> {
    dir: &'a Path,
    brief: &'a Brief,
    plan: Plan,
    entries: &'a Entries,
    engine: &'a Engine<Map>,
    store: &'a Store,
    reports: &'a File,
    stages: &'a Stages,
    /// Commands of this life.
    executed: AtomicU64,
}

impl Child<'_> {
    fn work(&self) {
        let (tend, due) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            scope.spawn(move || self.end_with(self.tend(&due)));
            for (writer, next) in (0..).zip(&self.brief.next) {
                let tend = tend.clone();
                scope.spawn(move || self.end_with(self.write(writer, *next, &tend)));
            }
        });
    }

    /// Ends the process with what stopped one of its threads.
    fn end_with(&self, stopped: Result<()>) {
        if let Err(error) = stopped {
            end(&failure(self.dir, error));
        }
    }

    /// Executes commands until one fails.
    fn write(&self, writer: u32, mut next: u64, tend: &SyncSender<()>) -> Result<()> {
        let issue = |number| Record::Issue { writer, number };
        report(self.reports, &[issue(next)]);
        for turn in 0u64.. {
            let step = self.plan.step(writer, next);
            let numbers = next..next + step.count;
            let commands = numbers.clone().map(|number| {
                self.plan
                    .command(writer, number, self.entries)
                    .encode(self.entries)
            });
            let indices = self.execute(step.how, commands)?;
            let acks = numbers.zip(indices).map(|(number, index)| Record::Ack {
                writer,
                number,
                index,
            });
            next += step.count;
            let records: Vec<Record> = acks.chain([issue(next)]).collect();
            report(self.reports, &records);
            self.count(step.count, tend);
            if writer == 0 && turn.is_multiple_of(PREDICTED_ONE_IN) {
                self.look()?;
            }
        }
        Ok(())
    }

    /// Executes the commands of one step; returns where they stand.
    fn execute(&self, how: How, commands: impl Iterator<Item = Vec<u8>>) -> Result<Vec<u64>> {
        let replies = match how {
            How::Alone => commands
                .map(|command| self.engine.execute(command))
                .collect::<Result<Vec<_>>>()?,
            How::Submitted => {
                let replies: Vec<_> = commands
                    .map(|command| self.engine.submit(command))
                    .collect::<Result<_>>()?;
                replies
                    .into_iter()
                    .map(|reply| reply.wait())
                    .collect::<Result<_>>()?
            }
            How::Batch => self.engine.execute_batch(commands)?,
        };
        let index = |reply: &bytes::Bytes| reply.as_ref().try_into().map_or(u64::MAX, u64::from_le_bytes);
        Ok(replies.iter().map(index).collect())
    }

    /// So many commands more were executed; it may be time to tend to the snapshots.
    fn count(&self, more: u64, tend: &SyncSender<()>) {
        let before = self.executed.fetch_add(more, Ordering::Relaxed);
        let Some(every) = self.brief.tend_every else {
            return;
        };
        if before / every < (before + more) / every {
            // If it is being done already, that is enough.
            let _ = tend.try_send(());
        }
    }

    /// Says what the engine thinks of itself.
    fn look(&self) -> Result<()> {
        let metrics = self.stages.look(self.engine);
        let record = Record::Predicted {
            micros: u64::try_from(metrics.predicted_restart.as_micros()).unwrap_or(u64::MAX),
            unattainable: metrics.budget_unattainable,
        };
        report(self.reports, &[record]);
        if metrics.checkpoints_failed > 0 {
            // Why the background failed stands in its events; if the cause is still there, this one meets it, too.
            self.engine.checkpoint()?;
            let what = "a checkpoint in the background failed, and the next one did not";
            end(&Failure::new(Exit::Finding, what));
        }
        Ok(())
    }

    /// Whenever it is due, a checkpoint, another one, or a collection.
    fn tend(&self, due: &Receiver<()>) -> Result<()> {
        for (turn, ()) in due.iter().enumerate() {
            if turn % 3 < 2 {
                self.engine.checkpoint()?;
                self.stages.look(self.engine);
                continue;
            }
            self.scratch()?;
            self.stages.begin(Stage::Collection);
            let collected = self.store.collect(&Retention::new().newest(1))?;
            self.stages.end(Stage::Collection);
            if let Some(error) = collected.kept_because {
                return Err(error);
            }
        }
        Ok(())
    }

    /// A snapshot of another log, of which the next collection keeps the newest, so that it always has something to do.
    fn scratch(&self) -> Result<()> {
        let number = self.executed.load(Ordering::Relaxed);
        let mut creation = self.store.create(Draft::new(SCRATCH, EntryId::new(0, number)))?;
        for at in 0..self.entries.len().min(SCRATCH_ENTRIES) {
            let written = creation
                .write_all(self.entries.get(at))
                .and_then(|()| creation.write_all(&number.to_le_bytes()));
            if written.is_err() {
                // The commit says why.
                break;
            }
        }
        creation.commit().map(drop)
    }
}

/// Ends the process and tells why: the drill knows the row of the table of exit codes.
fn end(failure: &Failure) -> ! {
    process::exit(i32::from(failure.tell().code()));
}

/// One of so many steps of the first writer is followed by what the engine predicts.
const PREDICTED_ONE_IN: u64 = 16;
/// A log that has snapshots and nothing else.
const SCRATCH: LogKey = LogKey(2);
const SCRATCH_ENTRIES: usize = 500;
