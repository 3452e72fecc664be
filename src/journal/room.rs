//! The bound on bytes in flight: who may submit, who waits for room, and in which order.
//!
//! ```text
//!            free --- try_take, take_blocking, force ---> in flight --- give_back (synced) ---> free
//!              '--- Room resolves ---> reserved (Permit) --- submit_with ---^
//!                                          '--- dropped ---> free
//! ```
//!
//! Those who find no room queue in one line, blocked threads and tasks alike, and room that comes free goes to the head of
//! it; nobody who comes later overtakes, so nobody starves. Control writes take what they need at once. Two exceptions keep
//! the line moving. Something larger than the bound goes when nothing else is held. And when the disk owes nothing (all
//! that is held is permits, which a task may keep as long as it likes, perhaps while its own thread stands in this line)
//! the first blocked thread is let through over the bound: room that only other callers can give back never blocks a thread.
//! So what is in flight stays below the bound and one item more (the larger of the bound and the largest item), control
//! writes apart.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::error::{Error, ErrorKind, Result};
use crate::journal::completions::{inside_callback, wake};
use crate::journal::ticket::Driver;
use crate::sync::{Arc, Mutex, Signal};

/// See the module.
pub(crate) struct Bound {
    limit: u64,
    /// Never held over a wake-up.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Submitted and not given back. Includes what was granted to a blocked thread that has not woken yet.
    in_flight: u64,
    /// Held by permits, and by rooms that were granted and not polled since.
    reserved: u64,
    line: VecDeque<Waiting>,
    /// Numbers of those who left the line with what they asked for and have not noticed yet.
    granted: BTreeSet<u64>,
    next_number: u64,
    closed: Option<Error>,
}

struct Waiting {
    number: u64,
    bytes: u64,
    who: Who,
}

enum Who {
    Thread(Arc<Signal>),
    Task(Waker),
}

impl Bound {
    pub(crate) fn new(limit: u64) -> Bound {
        Bound {
            limit,
            state: Mutex::new(State::default()),
        }
    }

    /// Takes room if there is some and nobody waits for it.
    pub(crate) fn try_take(&self, bytes: u64) -> Result<bool> {
        let mut state = self.state.lock();
        state.check_open()?;
        let fits = state.line.is_empty() && state.fits(bytes, self.limit);
        if fits {
            state.in_flight += bytes;
        }
        Ok(fits)
    }

    /// Takes room, waiting in line for it if need be. Then `on_wait` is called first, once and under no lock: whoever calls
    /// sees to it there that the disk gives room back. Inside a callback it does not wait (`Busy`).
    pub(crate) fn take_blocking(&self, bytes: u64, on_wait: &mut dyn FnMut()) -> Result<()> {
        if self.try_take(bytes)? {
            return Ok(());
        }
        if inside_callback() {
            return Err(Error::new(
                ErrorKind::Busy,
                "no room for bytes in flight, and a completion callback cannot wait for it",
            ));
        }
        let signal = Arc::new(Signal::new());
        let number = self.change(|state| state.queue(bytes, Who::Thread(signal.clone())))?;
        on_wait();
        loop {
            {
                let mut state = self.state.lock();
                if state.granted.remove(&number) {
                    return Ok(());
                }
                state.check_open()?;
            }
            signal.wait(None);
        }
    }

    /// Takes bytes whether there is room or not: control writes never queue.
    pub(crate) fn force(&self, bytes: u64) {
        self.state.lock().in_flight += bytes;
    }

    /// Bytes taken, forced or submitted with a permit are no longer in flight.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.change(|state| {
            debug_assert!(bytes <= state.in_flight, "{bytes} of {}", state.in_flight);
            state.in_flight = state.in_flight.saturating_sub(bytes);
        });
    }

    /// Somebody waits for room. As long as this is so the journal syncs what it writes, relaxed or not: those who are
    /// let in may be relaxed writes again.
    pub(crate) fn has_waiters(&self) -> bool {
        !self.state.lock().line.is_empty()
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.state.lock().in_flight
    }

    /// Whoever waits, and whoever asks from now on, gets `error`. What is held stays held until given back.
    pub(crate) fn close(&self, error: Error) {
        let line = {
            let mut state = self.state.lock();
            state.closed = Some(error);
            std::mem::take(&mut state.line)
        };
        line.into_iter().for_each(Waiting::wake);
    }

    /// Changes the state, gives room to those whose turn it is, and wakes them without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (value, granted) = {
            let mut state = self.state.lock();
            let value = change(&mut state);
            (value, state.grant(self.limit))
        };
        granted.into_iter().for_each(Waiting::wake);
        value
    }
}

impl State {
    fn check_open(&self) -> Result<()> {
        self.closed.clone().map_or(Ok(()), Err)
    }

    /// Within the limit; alone, whatever it needs.
    fn fits(&self, bytes: u64, limit: u64) -> bool {
        // A permit may be for more bytes than there are.
        let held = self.in_flight.saturating_add(self.reserved);
        held == 0 || held.saturating_add(bytes) <= limit
    }

    /// Joins the line, if it is open: nobody would look after a place in a closed one.
    fn queue(&mut self, bytes: u64, who: Who) -> Result<u64> {
        self.check_open()?;
        let number = self.next_number;
        self.next_number += 1;
        self.line.push_back(Waiting { number, bytes, who });
        Ok(number)
    }

    /// Takes those out of the line whose turn it is.
    fn grant(&mut self, limit: u64) -> Vec<Waiting> {
        let mut granted = Vec::new();
        while self.line.front().is_some_and(|head| self.fits(head.bytes, limit)) {
            granted.extend(self.take_at(0));
        }
        if self.in_flight == 0 {
            let thread = self.line.iter().position(|w| matches!(w.who, Who::Thread(_)));
            granted.extend(thread.and_then(|at| self.take_at(at)));
        }
        granted
    }

    fn take_at(&mut self, at: usize) -> Option<Waiting> {
        let waiting = self.line.remove(at)?;
        match waiting.who {
            Who::Thread(_) => self.in_flight += waiting.bytes,
            Who::Task(_) => self.reserved += waiting.bytes,
        }
        self.granted.insert(waiting.number);
        Some(waiting)
    }
}

impl Waiting {
    fn wake(self) {
        match self.who {
            Who::Thread(signal) => signal.wake(),
            Who::Task(waker) => wake(waker),
        }
    }
}

/// A future that resolves to a [`Permit`] for the bytes asked for, in the order in which such futures were first polled
/// (blocked `submit` calls stand in the same line). More than the bound is granted when nothing else is in flight. Dropping
/// it gives up the place in the line, or the room.
#[must_use = "a room is asked for when it is first polled"]
pub struct Room {
    bound: Arc<Bound>,
    driver: Arc<dyn Driver>,
    bytes: u64,
    place: Place,
}

enum Place {
    /// Not polled yet.
    Outside,
    /// In the line, or granted, under this number.
    Line(u64),
    /// Resolved.
    Over,
}

impl Room {
    pub(crate) fn new(bound: Arc<Bound>, driver: Arc<dyn Driver>, bytes: u64) -> Room {
        Room {
            bound,
            driver,
            bytes,
            place: Place::Outside,
        }
    }

    fn permit(&mut self) -> Poll<Result<Permit>> {
        self.place = Place::Over;
        Poll::Ready(Ok(Permit {
            bound: self.bound.clone(),
            bytes: self.bytes,
        }))
    }

    /// Joins the line; true if there was room at once.
    fn enter(&mut self, waker: &Waker) -> Result<bool> {
        let mut state = self.bound.state.lock();
        if state.line.is_empty() && state.fits(self.bytes, self.bound.limit) {
            state.check_open()?;
            state.reserved += self.bytes;
            return Ok(true);
        }
        let number = state.queue(self.bytes, Who::Task(waker.clone()))?;
        drop(state);
        self.place = Place::Line(number);
        // The disk may owe nothing until it is asked: relaxed writes wait for their time.
        self.driver.nudge();
        Ok(false)
    }

    /// True if the turn of `number` has come; otherwise `waker` is woken when it has.
    fn look(&self, number: u64, waker: &Waker) -> Result<bool> {
        let mut state = self.bound.state.lock();
        if state.granted.remove(&number) {
            return Ok(true);
        }
        state.check_open()?;
        let place = state.line.iter_mut().find(|w| w.number == number);
        let old = place.map(|waiting| std::mem::replace(&mut waiting.who, Who::Task(waker.clone())));
        drop(state);
        drop(old); // without the lock: this may drop a task, with whatever that holds
        Ok(false)
    }
}

impl Future for Room {
    type Output = Result<Permit>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Permit>> {
        let waker = context.waker();
        let granted = match self.place {
            Place::Outside => self.enter(waker),
            Place::Line(number) => self.look(number, waker),
            Place::Over => Err(Error::new(
                ErrorKind::Invalid,
                "a Room was polled after it resolved",
            )),
        };
        match granted {
            Ok(true) => self.permit(),
            Ok(false) => Poll::Pending,
            Err(error) => {
                self.place = Place::Over;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Place::Line(number) = self.place else { return };
        let bytes = self.bytes;
        let left = self.bound.change(|state| {
            if state.granted.remove(&number) {
                state.reserved -= bytes;
                return None;
            }
            let at = state.line.iter().position(|waiting| waiting.number == number)?;
            state.line.remove(at)
        });
        drop(left); // without the lock, as its waker may drop a task
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Room for some bytes in flight, held until it is used by `Journal::submit_with` or dropped.
#[must_use = "dropping a permit gives its room to others"]
pub struct Permit {
    bound: Arc<Bound>,
    bytes: u64,
}

impl Permit {
    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is room below `bound`, not that of another journal.
    pub(crate) fn is_of(&self, bound: &Arc<Bound>) -> bool {
        Arc::ptr_eq(&self.bound, bound)
    }

    /// Turns the reserved bytes into `bytes` in flight; what was reserved beyond them goes to others. More than was
    /// reserved is taken as [`force`](Bound::force) does: the caller decides whether that is allowed.
    pub(crate) fn redeem(mut self, bytes: u64) {
        let reserved = std::mem::take(&mut self.bytes);
        self.bound.change(|state| {
            state.reserved -= reserved;
            state.in_flight += bytes;
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let bytes = self.bytes;
        if bytes > 0 {
            self.bound.change(|state| state.reserved -= bytes);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("bytes", &self.bytes).finish()
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
