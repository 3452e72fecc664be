//! Runs a sequence of calls against a journal on a simulated disk and against the model, with kills, power cuts and failing
//! syncs in between. After each of them the journal must be in a state that the model was in: none before the last
//! acknowledged one, and none that was never asked for.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use everlog::fs::{Fs, Kept, Profile, SimFs};
use everlog::{Alignment, Background, Config, EntryId, Error, ErrorKind, Journal, LogKey, Ticket, Written};

use crate::model::{LogState, State};
use crate::step::{Step, plan};

/// A whole run.
#[derive(Arbitrary, Debug)]
pub struct Input {
    seed: u64,
    blocks: bool,
    ext4: bool,
    calls: Vec<Call>,
}

/// One thing that is done.
#[derive(Arbitrary, Debug)]
enum Call {
    Write {
        steps: Vec<Step>,
        how: How,
    },
    Create {
        log: u8,
        first: u8,
    },
    Delete {
        log: u8,
    },
    Sync,
    Work,
    Advance {
        millis: u16,
    },
    Reclaim,
    Reopen,
    /// `nested`: the power goes off again so many calls into the next life.
    Kill {
        nested: Option<u8>,
    },
    Crash {
        seed: u64,
        nested: Option<u8>,
    },
    CrashAfter {
        calls: u8,
    },
    FailSync {
        spare: u8,
        kept: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum How {
    Durable,
    Relaxed,
    Submit,
    SubmitRelaxed,
}

const CALLS_MAX: usize = 48;
const STEPS_MAX: usize = 6;
/// How often an opening is tried while planned failures are about.
const OPENINGS_MAX: usize = 20;

struct Run {
    disk: SimFs,
    config: Config,
    journal: Option<Journal>,
    /// The states of the model, from the last one known to be durable when the journal was opened to the present one.
    states: Vec<State>,
    /// The last state that was acknowledged as durable, and the last one that survives a kill.
    durable: usize,
    written: usize,
    /// Tickets with their states, and whether they promise durability.
    tickets: Vec<(Ticket<Written>, usize, bool)>,
    /// Whether a failure has been planned since the journal was opened, so that a call may fail.
    tolerant: bool,
    payloads: u64,
}

/// Runs `input`.
///
/// # Panics
///
/// If the journal breaks a promise.
pub fn run(input: &Input) {
    let profile = if input.ext4 {
        Profile::Ext4
    } else {
        Profile::PosixWeak
    };
    let disk = SimFs::new(input.seed, profile);
    let alignment = if input.blocks {
        Alignment::Bytes4096
    } else {
        Alignment::Bytes8
    };
    let config = Config::new()
        .segment_bytes(16 << 10)
        .alignment(alignment)
        .max_entry_bytes(64 << 10)
        .in_flight_bytes(64 << 10)
        .background(Background::Caller);
    let journal = Journal::create_on(as_fs(&disk), config.clone()).expect("a journal is created");
    let mut run = Run {
        disk,
        config,
        journal: Some(journal),
        states: vec![State::default()],
        durable: 0,
        written: 0,
        tickets: Vec::new(),
        tolerant: false,
        payloads: 0,
    };
    for call in input.calls.iter().take(CALLS_MAX) {
        run.call(call);
        run.poll_tickets();
    }
    run.reopen();
    run.power_cut(input.seed, None);
}

impl Run {
    fn call(&mut self, call: &Call) {
        match *call {
            Call::Write { ref steps, how } => self.write(steps, how),
            Call::Create { log, first } => self.create(log, first),
            Call::Delete { log } => self.delete(log),
            Call::Sync => {
                let done = self.journal().sync();
                self.acknowledge(done, true);
            }
            Call::Work => {
                // What is pending is finite: so is the work.
                for _ in 0..100 {
                    match self.journal().work() {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(e) => return self.failed(&e),
                    }
                }
                panic!("background work does not end");
            }
            Call::Advance { millis } => self.disk.advance(Duration::from_millis(u64::from(millis))),
            Call::Reclaim => {
                if let Err(e) = self.journal().reclaim() {
                    self.failed(&e);
                }
            }
            Call::Reopen => self.reopen(),
            Call::Kill { nested } => self.kill(nested),
            Call::Crash { seed, nested } => self.power_cut(seed, nested),
            Call::CrashAfter { calls } => {
                self.disk.stop_after(u64::from(calls));
                self.tolerant = true;
            }
            Call::FailSync { spare, kept } => {
                let kept = [Kept::Nothing, Kept::Everything, Kept::Undecided][usize::from(kept % 3)];
                self.disk.fail_sync("journal/", u64::from(spare % 8), kept);
                self.tolerant = true;
            }
        }
    }

    fn write(&mut self, steps: &[Step], how: How) {
        let mut next = self.present().clone();
        let steps = &steps[..steps.len().min(STEPS_MAX)];
        let (batch, ids) = plan(steps, &mut next, &mut self.payloads);
        if batch.is_empty() {
            return;
        }
        self.states.push(next);
        match how {
            How::Durable => self.written(|journal| journal.write(batch), &ids, true),
            How::Relaxed => self.written(|journal| journal.write_relaxed(batch), &ids, false),
            How::Submit => self.submitted(|journal| journal.submit(batch), &ids, true),
            How::SubmitRelaxed => self.submitted(|journal| journal.submit_relaxed(batch), &ids, false),
        }
    }

    fn written(
        &mut self,
        call: impl FnOnce(&Journal) -> Result<Written, Error>,
        ids: &[EntryId],
        durable: bool,
    ) {
        let done = call(self.journal()).map(|written| assert_eq!(written.ids, ids, "ids of the write"));
        self.acknowledge(done, durable);
    }

    fn submitted(
        &mut self,
        call: impl FnOnce(&Journal) -> Result<Ticket<Written>, Error>,
        ids: &[EntryId],
        durable: bool,
    ) {
        match call(self.journal()) {
            Ok(ticket) => {
                assert_eq!(ticket.value().ids, ids, "ids of the ticket");
                self.tickets.push((ticket, self.states.len() - 1, durable));
                self.compare();
            }
            Err(e) => self.failed(&e),
        }
    }

    fn create(&mut self, log: u8, first: u8) {
        let (key, first) = (LogKey(u64::from(log % 4)), u64::from(first));
        if self.present().logs.contains_key(&key) {
            return;
        }
        let mut next = self.present().clone();
        next.logs.insert(key, LogState::new(first));
        self.states.push(next);
        let done = self.journal().create_log(key, first).map(|_| ());
        self.acknowledge(done, true);
    }

    fn delete(&mut self, log: u8) {
        let key = LogKey(u64::from(log % 4));
        let mut next = self.present().clone();
        if next.logs.remove(&key).is_none() {
            return;
        }
        self.states.push(next);
        let done = self.journal().delete_log(key);
        self.acknowledge(done, true);
    }

    /// The call that led to the present state returned.
    fn acknowledge(&mut self, done: Result<(), Error>, durable: bool) {
        match done {
            Ok(()) => {
                self.resolved(self.states.len() - 1, durable);
                self.compare();
            }
            Err(e) => self.failed(&e),
        }
    }

    fn resolved(&mut self, state: usize, durable: bool) {
        self.written = self.written.max(state);
        if durable {
            self.durable = self.durable.max(state);
        }
    }

    fn poll_tickets(&mut self) {
        let (done, open): (Vec<_>, Vec<_>) = self
            .tickets
            .drain(..)
            .partition(|(ticket, _, _)| ticket.is_done());
        self.tickets = open;
        for (ticket, state, durable) in done {
            match ticket.wait() {
                Ok(_) => self.resolved(state, durable),
                Err(e) => assert!(self.excused(&e), "a ticket failed: {e:?}"),
            }
        }
    }

    /// A call failed, which only a planned failure explains; what it was to do may or may not have been done.
    fn failed(&mut self, error: &Error) {
        assert!(self.excused(error), "a call failed: {error:?}");
        // A journal that gave up says nothing any more of what it had only given to the system.
        self.poll_tickets();
        self.tickets.clear();
        self.written = self.durable;
        if self.disk.is_off() {
            self.power_cut(self.payloads, None);
        } else {
            self.kill(None);
        }
    }

    /// Planned failures explain an error, but never damage.
    fn excused(&self, error: &Error) -> bool {
        self.tolerant && error.kind() != ErrorKind::Damaged
    }

    fn reopen(&mut self) {
        self.tickets.clear();
        let journal = self.journal.take().expect("a journal is open");
        match journal.close() {
            Ok(()) => {
                self.durable = self.states.len() - 1;
                self.written = self.durable;
                self.open(self.durable);
            }
            Err(e) => self.failed(&e),
        }
    }

    fn kill(&mut self, nested: Option<u8>) {
        if self.disk.is_off() {
            return self.power_cut(self.payloads, nested);
        }
        self.poll_tickets();
        let next = self.disk.kill();
        self.end_life(next, nested);
        self.open(self.written);
    }

    fn power_cut(&mut self, seed: u64, nested: Option<u8>) {
        self.poll_tickets();
        self.disk.stop_now();
        let next = self.disk.crash(seed);
        // Planned failures do not outlive the machine.
        self.tolerant = false;
        self.end_life(next, nested);
        self.open(self.durable);
    }

    /// The handles of the old life die with it, on the old disk.
    fn end_life(&mut self, disk: SimFs, nested: Option<u8>) {
        self.tickets.clear();
        self.journal = None;
        self.disk = disk;
        if let Some(calls) = nested {
            self.disk.stop_after(u64::from(calls));
            self.tolerant = true;
        }
    }

    /// Opens the journal, through further planned failures if need be: it must be in a state from `lowest` on.
    fn open(&mut self, mut lowest: usize) {
        let mut errors = Vec::new();
        for _ in 0..OPENINGS_MAX {
            match Journal::open_on(as_fs(&self.disk), self.config.clone()) {
                Ok(journal) if !self.disk.is_off() => return self.opened(journal, lowest),
                // The power went off behind the last step that matters; nothing can be read.
                Ok(_) => {}
                Err(e) => {
                    assert!(self.excused(&e), "the journal does not open: {e:?}");
                    errors.push(e);
                }
            }
            if self.disk.is_off() {
                lowest = lowest.min(self.durable);
                self.disk = self.disk.crash(self.payloads);
            } else {
                self.disk = self.disk.kill();
            }
        }
        panic!("the journal does not open: {errors:#?}");
    }

    fn opened(&mut self, journal: Journal, lowest: usize) {
        let found = State::read(&journal);
        let possible = &self.states[lowest..];
        assert!(
            possible.contains(&found),
            "found {found:?}\nwhich is none of the states from number {lowest} on: {possible:#?}"
        );
        // What an opening shows is durable when it returns.
        self.states = vec![found];
        self.durable = 0;
        self.written = 0;
        self.journal = Some(journal);
    }

    /// What was submitted can be read at once.
    fn compare(&self) {
        if self.disk.is_off() {
            return;
        }
        assert_eq!(
            &State::read(self.journal()),
            self.present(),
            "the journal and the model"
        );
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("a journal is open")
    }

    fn present(&self) -> &State {
        self.states.last().expect("there is always a present state")
    }
}

fn as_fs(disk: &SimFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}
