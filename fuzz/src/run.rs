//! Runs a sequence of calls against a journal on a simulated disk and against the model, with kills, power cuts and failing
//! syncs in between. After each of them the journal must be in a state that the model was in: none before the last
//! acknowledged one, and none that was never asked for.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::Arbitrary;
use everlog::fs::{Fs, Kept, Profile, SimFs};
use everlog::inspect::View;
use everlog::{
    Alignment, Background, Config, EntryId, Error, ErrorKind, Journal, LogKey, Ticket, WriteBatch, Written,
};

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
    /// The disk has so many blocks left.
    Fill {
        blocks: u8,
    },
    /// A look from outside, beside the writer.
    View,
    /// Part of a log is read, by its limits.
    Read {
        log: u8,
        from: u8,
        bytes: u16,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum How {
    Durable,
    Relaxed,
    Submit,
    SubmitRelaxed,
    /// Told by a callback.
    Callback,
    /// Refused where it would have to wait.
    Try,
    /// With room that was reserved before.
    Room,
}

const CALLS_MAX: usize = 48;
const STEPS_MAX: usize = 6;
/// Bytes of room that are asked for at most: half of the bound.
const ROOM_MAX: u64 = 32 << 10;
const BLOCK: u64 = 4096;
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
    /// What callbacks will be told, with the states.
    callbacks: Vec<(Arc<OnceLock<Result<Written, Error>>>, usize)>,
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
        callbacks: Vec::new(),
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
            Call::Fill { blocks } => {
                let used: u64 = self
                    .disk
                    .files()
                    .values()
                    .map(|len| len.next_multiple_of(BLOCK))
                    .sum();
                self.disk.set_capacity(used + BLOCK * u64::from(blocks));
                self.tolerant = true;
            }
            Call::View => self.view(),
            Call::Read { log, from, bytes } => self.read(log, from, u64::from(bytes)),
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
            How::Try => match self.journal().try_submit(batch) {
                Err(refused) if refused.error.kind() == ErrorKind::Busy => {
                    self.states.pop();
                }
                tried => self.submitted(|_| tried.map_err(|refused| refused.error), &ids, true),
            },
            How::Room => match poll(&mut self.journal().room(batch.bytes().min(ROOM_MAX))) {
                Poll::Ready(Ok(permit)) => {
                    self.submitted(|journal| journal.submit_with(permit, batch), &ids, true);
                }
                Poll::Ready(Err(e)) => self.failed(&e),
                Poll::Pending => {
                    self.states.pop();
                }
            },
            How::Callback => self.called_back(batch, &ids),
        }
    }

    fn called_back(&mut self, batch: WriteBatch, ids: &[EntryId]) {
        match self.journal().submit(batch) {
            Ok(ticket) => {
                assert_eq!(ticket.value().ids, ids, "ids of the ticket");
                let told = Arc::new(OnceLock::new());
                let tell = Arc::clone(&told);
                ticket.on_done(move |outcome| {
                    assert!(tell.set(outcome).is_ok(), "a callback is called once");
                });
                self.callbacks.push((told, self.states.len() - 1));
                self.compare();
            }
            Err(e) => self.failed(&e),
        }
    }

    /// What a view shows beside the writer is a state since the journal was opened, and it changes nothing.
    fn view(&mut self) {
        if self.disk.is_off() || self.tolerant {
            return;
        }
        let before = self.disk.dump();
        let view = View::open_on(as_fs(&self.disk), self.config.clone()).expect("a view opens");
        assert_eq!(view.findings(), [], "a view of what no failure touched");
        let found = State::view(&view);
        assert!(
            self.states.contains(&found),
            "a view shows {found:?}\nwhich is none of the states since the opening: {:#?}",
            self.states
        );
        assert!(before == self.disk.dump(), "a view changed a file");
    }

    /// As many entries as fit, but at least one; and what is outside the log is an error.
    fn read(&mut self, log: u8, from: u8, bytes: u64) {
        let key = LogKey(u64::from(log % 4));
        if self.disk.is_off() {
            return;
        }
        let Some(state) = self.present().logs.get(&key) else {
            assert!(self.journal().log(key).is_err(), "log {key} is not there");
            return;
        };
        let log = self.journal().log(key).expect("the log is there");
        let from = state.start + u64::from(from) % (state.end() - state.start + 1);
        let found = log
            .read_limited(from..state.end(), bytes)
            .expect("entries are read");
        let expected = state
            .entries
            .iter()
            .skip(usize::try_from(from - state.start).expect("a small log"));
        let total = |count: usize| {
            found[..count]
                .iter()
                .map(|entry| entry.payload.len() as u64)
                .sum::<u64>()
        };
        assert!(
            found.len() <= 1 || total(found.len()) <= bytes,
            "more than {bytes} bytes"
        );
        assert_eq!(found.is_empty(), from == state.end(), "at least one entry");
        for (entry, (term, payload)) in found.iter().zip(expected) {
            assert_eq!((entry.id.term, &entry.payload[..]), (*term, &payload.0[..]));
        }
        assert!(log.get(state.end()).is_err(), "nothing stands beyond the end");
        assert!(
            log.durable_end().expect("a log says it") <= state.end(),
            "durable beyond the end"
        );
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
        let (told, silent): (Vec<_>, Vec<_>) = self
            .callbacks
            .drain(..)
            .partition(|(told, _)| told.get().is_some());
        self.callbacks = silent;
        for (told, state) in told {
            match told.get() {
                Some(Err(e)) => assert!(self.excused(e), "a callback was told: {e:?}"),
                _ => self.resolved(state, true),
            }
        }
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
        self.forget();
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
        self.forget();
        self.disk.set_capacity(u64::MAX);
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

    /// What was promised and not yet kept is promised no more.
    fn forget(&mut self) {
        self.tickets.clear();
        self.callbacks.clear();
    }

    /// The handles of the old life die with it, on the old disk.
    fn end_life(&mut self, disk: SimFs, nested: Option<u8>) {
        self.forget();
        self.journal = None;
        self.disk = disk;
        self.disk.set_capacity(u64::MAX);
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

/// Polls once, for a task that nobody wakes.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn as_fs(disk: &SimFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}
