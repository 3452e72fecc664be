//! The handle: `Engine`, and what all of its handles and threads share.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Weak;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::background::Background;
use super::cadence::{Cadence, Tail};
use super::config::EngineConfig;
use super::core::{Core, about};
use super::machine::{Persistence, StateMachine};
use super::open;
use super::reply::{Reply, Settle, Slot, only, wait};
use super::report::{Checkpoint, EngineMetrics, EngineReport};
use super::retain::Unsound;
use super::sessions::earlier_reply;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{COMMAND_HEAD_MAX, Command};
use crate::journal::{self, Holding, Journal, Ticket, WriteBatch, inside_waker, wake};
use crate::log::Log;
use crate::metrics::Counter;
use crate::mutant::{Rule, removed};
use crate::snapshot::Store;
use crate::sync::atomic::AtomicBool;
use crate::sync::{Arc, Instant, Mutex};
use crate::types::{EntryId, LogKey};

/// A state machine made durable. Cheap to clone; all clones are the same engine, for any number of threads.
///
/// See the [module](super) for what it promises. The last one to go ends the engine; in a completion callback or a waker, where nothing may be
/// waited for, the thread that takes checkpoints then ends a little later, and so may the journal.
pub struct Engine<M: StateMachine> {
    pub(super) shared: Arc<Shared<M>>,
    /// Ends the thread that takes checkpoints, with the last handle.
    background: Arc<Background>,
}

impl<M: StateMachine> Clone for Engine<M> {
    fn clone(&self) -> Engine<M> {
        Engine {
            shared: Arc::clone(&self.shared),
            background: Arc::clone(&self.background),
        }
    }
}

/// Lock order: `checkpointing`, then `order` or `core`, then `pending`; `gate` and `cadence` are leaves. `order` is held while a write finds its
/// place in the journal, which may wait for room, but for nothing that needs another of these locks.
pub(super) struct Shared<M> {
    pub(super) log: Log,
    pub(super) store: Store,
    pub(super) config: EngineConfig,
    pub(super) report: EngineReport,
    pub(super) core: Mutex<Core<M>>,
    pub(super) cadence: Arc<Mutex<Cadence>>,
    pub(super) checkpointing: Mutex<()>,
    pub(super) unsound: Unsound,
    /// No checkpoint is to go on.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) counters: Counters,
    holding: Mutex<Option<Holding>>,
    /// So that `pending` has the order of the log.
    order: Mutex<()>,
    /// Writes that were handed to the log and not applied yet.
    pending: Mutex<VecDeque<Pending>>,
    /// Why no command is taken in.
    gate: Mutex<Option<Error>>,
}

#[derive(Default)]
pub(super) struct Counters {
    applied: Counter,
    pub(super) checkpoints: Counter,
    pub(super) checkpoints_failed: Counter,
}

struct Pending {
    commands: Vec<(EntryId, Command)>,
    ticket: Ticket<()>,
    slot: Arc<Slot>,
}

/// A write that was handed in.
struct Submitted {
    first: EntryId,
    ticket: Ticket<()>,
    slot: Arc<Slot>,
}

impl<M: StateMachine> Engine<M> {
    /// Opens the engine of log `key`: restores the newest snapshot that verifies, and replays what the log has behind it. The log is created if
    /// neither it nor a snapshot of it is there. `machine` is as it was before the first entry, or as it persisted itself.
    ///
    /// On return everything that was ever replied to is applied, and durable; so may be commands whose caller was told
    /// [`Unknown`](ErrorKind::Unknown). The log then takes nothing from anybody else.
    ///
    /// # Errors
    /// `Damaged`: the log ends before what a checkpoint or the machine has seen, begins behind all snapshots that verify, or has damaged entries.
    /// To accept a lost end, call [`Log::reset`] with the entry that the snapshot covers. `ApplyFailed`: the machine cannot apply an
    /// [entry](Error::entry); see [`skip`](super::skip). `Busy`: another engine or replica stands on the log. `Unsupported`: the log or a
    /// snapshot is not one of an engine, or of a newer one, or the machine refuses its bytes. Otherwise those of reading and writing.
    pub fn open(
        journal: &Journal,
        key: LogKey,
        store: &Store,
        machine: M,
        config: EngineConfig,
    ) -> Result<Engine<M>> {
        let shared = Arc::new(open::open(journal, key, store, machine, config)?);
        let threads = journal.shared.config.background == config::Background::Threads;
        let background = match threads {
            true => Background::start(&shared)?,
            false => Background::none(&shared),
        };
        background.wake();
        Ok(Engine {
            shared,
            background: Arc::new(background),
        })
    }

    /// Hands a command to the log, waits until it is durable, applies it, and returns the machine's reply. Commands of many threads share syncs.
    ///
    /// # Errors
    /// `Unknown`: it may or may not be durable; if it is, it takes effect at the next opening. `ApplyFailed`: it is durable, and the machine
    /// could not apply it. With every other kind it has no effect, now or later: `NoSpace`, `Invalid` (too large), `Closed`.
    pub fn execute(&self, command: impl AsRef<[u8]>) -> Result<Bytes> {
        self.run(Command::Plain(Bytes::copy_from_slice(command.as_ref())))
    }

    /// As [`execute`](Engine::execute), but returns once the command has its place in the log (after waiting for in-flight room, if there is none).
    /// The reply comes when it is durable and applied; it needs nobody to wait for it.
    ///
    /// # Errors
    /// As for `execute`, but for those that the [`Reply`] tells. In a completion callback or a waker `Busy` instead of waiting for room.
    pub fn submit(&self, command: impl AsRef<[u8]>) -> Result<Reply> {
        let command = Command::Plain(Bytes::copy_from_slice(command.as_ref()));
        let submitted = self.shared.submit(vec![command])?;
        self.shared.settle_when_done(&submitted.ticket, &self.background);
        Ok(Reply {
            id: submitted.first,
            slot: submitted.slot,
            ticket: submitted.ticket,
            engine: Arc::<Shared<M>>::clone(&self.shared),
        })
    }

    /// Executes commands one behind the other, with nothing between them, all or none of them at a crash; the replies are in their order.
    ///
    /// # Errors
    /// As for [`execute`](Engine::execute), for all of them together; `Invalid` for more than 16,000.
    pub fn execute_batch<C: AsRef<[u8]>>(&self, commands: impl IntoIterator<Item = C>) -> Result<Vec<Bytes>> {
        let commands: Vec<Command> = commands
            .into_iter()
            .map(|command| Command::Plain(Bytes::copy_from_slice(command.as_ref())))
            .collect();
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        journal::Shared::may_block()?;
        let submitted = self.shared.submit(commands)?;
        let answers = self.wait(submitted)?;
        answers.into_iter().collect()
    }

    /// Executes a command that takes effect once, however often it is handed in: the way to try again after [`Unknown`](ErrorKind::Unknown), a crash or a
    /// lost connection. `client` is any number that its caller has alone; `sequence` rises with each of its commands, and it has one
    /// command under way at a time. A command that was applied already gives the reply it gave then.
    ///
    /// The table of clients is a part of the state and of its snapshots; [how many](EngineConfig::clients) it remembers is a setting.
    ///
    /// # Errors
    /// As for [`execute`](Engine::execute). `Invalid` if the client has had a later command, whose reply replaced this one's; and with a machine that
    /// [persists itself](Persistence::Itself), which would have to keep such a table with its state.
    pub fn execute_once(&self, client: u64, sequence: u64, command: impl AsRef<[u8]>) -> Result<Bytes> {
        {
            let core = self.shared.core.lock();
            if core.machine.persistence() != Persistence::Snapshots {
                let text = "a machine that persists itself must keep the table of its clients itself, too";
                return Err(Error::new(ErrorKind::Invalid, text));
            }
            if let Some(error) = &core.closed {
                return Err(closed_because(error));
            }
            if let Some(reply) = earlier_reply(&core.sessions, client, sequence)? {
                return Ok(reply);
            }
        }
        self.run(Command::Once {
            client,
            sequence,
            clients: u32::try_from(self.shared.config.clients).unwrap_or(u32::MAX),
            command: Bytes::copy_from_slice(command.as_ref()),
        })
    }

    fn run(&self, command: Command) -> Result<Bytes> {
        journal::Shared::may_block()?;
        let submitted = self.shared.submit(vec![command])?;
        self.wait(submitted).and_then(only)
    }

    fn wait(&self, submitted: Submitted) -> Result<Vec<Result<Bytes>>> {
        let answers = wait(&submitted.slot, submitted.ticket, &*self.shared);
        self.background.wake_if_due(&self.shared);
        answers
    }

    /// Looks at the machine. It has applied everything that was replied to before this call, and nothing that is not durable. Nothing is
    /// applied meanwhile: clone what is cheap to clone, and look at that outside.
    ///
    /// # Errors
    /// `Closed` if the machine failed, whose state may be half of something, or after [`close`](Engine::close). Not when the journal does:
    /// what was applied can be read as long as the engine is there.
    pub fn read<T>(&self, look: impl FnOnce(&M) -> T) -> Result<T> {
        let core = self.shared.core.lock();
        match &core.closed {
            Some(error) => Err(closed_because(error)),
            None => Ok(look(&core.machine)),
        }
    }

    /// Takes a checkpoint now: a snapshot of the state, read back, and then the log is purged to the oldest snapshot that is
    /// [kept](EngineConfig::retain), which is read as a whole before. Commands go on meanwhile, but for the time of the capture. Durable on return.
    /// If fewer sound ones stand than are kept, nothing is purged, which is no error.
    ///
    /// While the journal is at work it writes and reads a little at a time, and rests for some times as long as that took: commands hardly notice
    /// it, and it takes six to ten times as long. It does not rest any more when three quarters of the [budget](EngineConfig::restart_within) are
    /// used up, when the log behind the last snapshot is four times as long as [makes one due](EngineConfig::checkpoint_bytes), or when as many
    /// bytes of commands were applied meanwhile as the state has, and 64 MiB: a machine with an O(1) capture may then hold it twice. Nor does it
    /// if it is [told not to](EngineConfig::checkpoint_rests).
    ///
    /// # Errors
    /// `ApplyFailed` if the machine failed: its state is never kept. `NoSpace`, `Io` or `Damaged` from the store, and those of writing to the
    /// journal: the snapshots and the log before are untouched.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        self.shared.checkpoint()
    }

    /// Does what no caller waits for, if the journal was opened with [`Background::Caller`](config::Background::Caller): its work, applying what was submitted, and a
    /// checkpoint if one is due. True if there was any.
    ///
    /// # Errors
    /// `Invalid` with threads, which do it by themselves. Otherwise those of the journal's work and of [`checkpoint`](Engine::checkpoint).
    pub fn work(&self) -> Result<bool> {
        let worked = self.shared.log.journal().work()?;
        self.shared.settle();
        Ok(self.shared.checkpoint_if_due()?.0 || worked)
    }

    /// The last entry that was applied; `None` before the first.
    #[must_use]
    pub fn applied(&self) -> Option<EntryId> {
        self.shared.core.lock().applied
    }

    /// What opening found and did.
    #[must_use]
    pub fn report(&self) -> &EngineReport {
        &self.shared.report
    }

    /// How long a restart would take now: to restore the newest snapshot at the rate last measured, and to replay what came after it. Pessimistic.
    #[must_use]
    pub fn predicted_restart(&self) -> Duration {
        self.shared.cadence.lock().predicted()
    }

    /// How it is doing.
    #[must_use]
    pub fn metrics(&self) -> EngineMetrics {
        let counters = &self.shared.counters;
        let cadence = self.shared.cadence.lock();
        EngineMetrics {
            applied: counters.applied.get(),
            checkpoints: counters.checkpoints.get(),
            checkpoints_failed: counters.checkpoints_failed.get(),
            tail_entries: cadence.tail().entries,
            tail_bytes: cadence.tail().bytes,
            predicted_restart: cadence.predicted(),
            budget_unattainable: cadence.is_unattainable(),
            budget_warnings: cadence.warnings(),
        }
    }

    /// The log, to be read. It refuses to be written (`Busy`) as long as the engine stands on it.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Ends the engine for all clones: takes no more commands, waits until those that it took are durable and applied, gives up a checkpoint
    /// that is being written and waits until the machine has heard of it, and lets go of the log. The journal and the store stay open.
    ///
    /// # Errors
    /// If a command that was taken in is not durable, or could not be applied: that error.
    pub fn close(self) -> Result<()> {
        journal::Shared::may_block()?;
        let closed = Error::new(ErrorKind::Closed, "the engine was closed");
        {
            // Whoever is about to hand in has done so, or is refused.
            let _order = self.shared.order.lock();
            self.shared.gate.lock().get_or_insert(closed.clone());
        }
        self.background.end();
        self.shared.settle();
        while !self.shared.pending.lock().is_empty() {
            self.shared.wait_oldest();
            self.shared.settle();
        }
        // One that another thread takes is given up; none begins any more. It must not purge the log when somebody else may stand on it.
        let _none = self.shared.checkpointing.lock();
        let mut core = self.shared.core.lock();
        let failed = core.closed.replace(closed).or(core.lost.clone());
        drop(core);
        *self.shared.holding.lock() = None;
        match failed {
            Some(error) if error.kind() != ErrorKind::Closed => Err(error),
            _ => Ok(()),
        }
    }
}

impl<M: StateMachine> Shared<M> {
    pub(super) fn new(
        log: Log,
        store: Store,
        config: EngineConfig,
        report: EngineReport,
        holding: Holding,
        core: Core<M>,
        cadence: Cadence,
    ) -> Shared<M> {
        let counters = Counters::default();
        counters.applied.add(report.replayed_entries);
        let unsound = Unsound::new(&report);
        Shared {
            log,
            store,
            config,
            report,
            core: Mutex::new(core),
            cadence: Arc::new(Mutex::new(cadence)),
            checkpointing: Mutex::new(()),
            unsound,
            stop: Arc::new(AtomicBool::new(false)),
            counters,
            holding: Mutex::new(Some(holding)),
            order: Mutex::new(()),
            pending: Mutex::new(VecDeque::new()),
            gate: Mutex::new(None),
        }
    }

    /// Gives commands their places in the log, in one write.
    fn submit(&self, commands: Vec<Command>) -> Result<Submitted> {
        let key = self.log.key();
        let mut batch = WriteBatch::of_holder();
        for command in &commands {
            let head = command.head();
            debug_assert!(head.len() <= COMMAND_HEAD_MAX);
            batch.append_parts(key, &head, command.body());
        }
        let slot = Arc::new(Slot::default());
        // Whoever has the lock may wait for room that the flush gives back in which this waker is run.
        let _order = match inside_waker() {
            true => self.order.try_lock().ok_or_else(|| {
                Error::new(
                    ErrorKind::Busy,
                    "another command waits for room, and a waker cannot wait for it",
                )
            })?,
            false => self.order.lock(),
        };
        if let Some(error) = &*self.gate.lock() {
            return Err(closed_because(error));
        }
        let written = self.log.journal().submit(batch)?;
        let ids = written.value().ids.clone();
        let first = *ids.first().expect("a write of at least one command");
        let ticket = written.map(drop);
        self.pending.lock().push_back(Pending {
            commands: ids.into_iter().zip(commands).collect(),
            ticket: ticket.also(()),
            slot: Arc::clone(&slot),
        });
        if removed(Rule::ApplyDurable) {
            self.settle();
        }
        Ok(Submitted { first, ticket, slot })
    }

    /// Applies the write when it is durable, although nobody may wait for it.
    fn settle_when_done(self: &Arc<Shared<M>>, ticket: &Ticket<()>, background: &Arc<Background>) {
        let engine: Weak<Shared<M>> = Arc::downgrade(self);
        let background = Arc::downgrade(background);
        ticket.also(()).on_done(move |_| {
            if let Some(engine) = engine.upgrade() {
                engine.settle();
                if let Some(background) = background.upgrade() {
                    background.wake_if_due(&engine);
                }
            }
        });
    }

    /// Applies the oldest write if its outcome is known; false if there is none.
    fn settle_one(&self, core: &mut Core<M>, tail: &mut Tail, wakers: &mut Vec<Waker>) -> bool {
        let front = {
            let mut pending = self.pending.lock();
            let known = |front: &Pending| front.ticket.outcome().is_some() || removed(Rule::ApplyDurable);
            match pending.front().is_some_and(known) {
                true => pending.pop_front(),
                false => None,
            }
        };
        let Some(front) = front else {
            return false;
        };
        let lost = core.lost.clone().map_or(Ok(()), Err);
        let outcome = match lost.and(front.ticket.outcome().unwrap_or(Ok(()))) {
            Ok(()) => self.apply_all(core, front.commands, tail),
            Err(error) => {
                // Nothing that follows is applied, whatever becomes of it: there must be no gap.
                core.lost.get_or_insert_with(|| error.clone());
                self.gate.lock().get_or_insert_with(|| error.clone());
                Err(error)
            }
        };
        wakers.extend(front.slot.fill(outcome));
        true
    }

    fn apply_all(
        &self,
        core: &mut Core<M>,
        commands: Vec<(EntryId, Command)>,
        tail: &mut Tail,
    ) -> Result<Vec<Result<Bytes>>> {
        let mut answers = Vec::with_capacity(commands.len());
        for (id, command) in commands {
            if let Some(error) = core.closed.clone() {
                let text = format!("entry {id} is durable, and was not applied: {error}");
                return Err(about(ErrorKind::Unknown, error.entry().unwrap_or(id), text));
            }
            match core.apply(id, &command) {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    self.gate.lock().get_or_insert_with(|| error.clone());
                    return Err(error);
                }
            }
            tail.entries += 1;
            tail.bytes += command.body().len() as u64;
            if let Some(holding) = &*self.holding.lock() {
                holding.applied_to(id.index + 1);
            }
        }
        Ok(answers)
    }

    /// Takes a checkpoint if one is due. Whether it did, and when the next may be.
    pub(super) fn checkpoint_if_due(&self) -> Result<(bool, Option<Instant>)> {
        use super::cadence::Next;
        let next = self.cadence.lock().next(self.config.clock.now());
        match next {
            Next::Nothing => Ok((false, None)),
            Next::Wait(until) => Ok((false, self.config.clock.at(until))),
            Next::Checkpoint => self.checkpoint().map(|_| (true, None)),
        }
    }
}

impl<M: StateMachine> Settle for Shared<M> {
    fn settle(&self) {
        let mut wakers = Vec::new();
        let mut core = self.core.lock();
        let started = self.config.clock.now();
        let mut tail = Tail::default();
        while self.settle_one(&mut core, &mut tail, &mut wakers) {}
        if tail.entries > 0 {
            tail.apply = self.config.clock.since(started);
            self.counters.applied.add(tail.entries);
            self.cadence.lock().applied(tail);
        }
        drop(core);
        wakers.into_iter().for_each(wake);
    }

    fn wait_oldest(&self) {
        let oldest = self.pending.lock().front().map(|front| front.ticket.also(()));
        if let Some(ticket) = oldest {
            // How it ended is told to its own caller.
            let _ = ticket.wait();
        }
    }
}

/// What is said to those who come after the end.
fn closed_because(error: &Error) -> Error {
    match error.entry() {
        Some(id) => about(ErrorKind::Closed, id, format!("the engine is closed: {error}")),
        None => error.recast(ErrorKind::Closed, "the engine takes no commands"),
    }
}

impl<M: StateMachine> fmt::Debug for Engine<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("log", &self.shared.log.key())
            .finish_non_exhaustive()
    }
}
