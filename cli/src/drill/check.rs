//! What is right after a kill, and what the drill knows of the journal.
//!
//! ```text
//! at an index of a log               must be                             otherwise
//! found by an earlier check          inside the bounds (its bytes: at    Lost (Changed)
//!                                    the last check, or before a purge)
//! acknowledged since                 the entry acknowledged there        Lost, Changed
//! neither, and inside the bounds     an entry issued and not             Invented
//!                                    acknowledged, each once, in its
//!                                    writer's order
//! ```
//!
//! An entry that was issued, not acknowledged, and is not there either is no violation, and must not come back later.

use std::collections::BTreeMap;
use std::ops::Range;

use everlog::inspect::Finding;
use everlog::{ErrorKind, Log};

use super::child::position;
use super::entries::Entries;
use super::protocol::{Record, Start};
use super::report::Tally;

/// A broken promise, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which promise.
    pub(crate) kind: Kind,
    /// Where, and what was found.
    pub(crate) what: String,
}

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An acknowledged entry is gone.
    Lost,
    /// An acknowledged entry has other bytes.
    Changed,
    /// There is an entry that nobody issued, or not there.
    Invented,
    /// The journal does not open, or calls itself damaged, after a mere kill.
    Refused,
    /// A restart took longer than it was to.
    Late,
}

/// Everything that was reported and found so far.
pub(crate) struct Model {
    logs: Vec<LogModel>,
    writers: Vec<WriterModel>,
}

#[derive(Default)]
struct LogModel {
    /// First index that is not purged.
    first: u64,
    /// Which entry stands at each index from `first` on, as the last check found it.
    found: Vec<u32>,
    /// What was acknowledged since the last check, by index.
    acknowledged: BTreeMap<u64, Issued>,
    /// What was issued since the last check and not acknowledged.
    outstanding: Vec<Outstanding>,
}

/// Entry `number` of `writer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Issued {
    writer: u32,
    number: u64,
}

struct Outstanding {
    issued: Issued,
    /// It stands behind this index, if anywhere: where the writer's entry before it was acknowledged.
    after: Option<u64>,
    /// And before this one: where a later entry of the writer was acknowledged, by a child that came after.
    before: u64,
}

#[derive(Default)]
struct WriterModel {
    /// What it issues next.
    next: u64,
    /// Where its newest acknowledged entry stands.
    last: Option<u64>,
}

impl Model {
    /// Nothing issued yet. Two writers share a log, so that both the mixing inside a log and the mixing of logs are
    /// drilled.
    pub(crate) fn new(writers: u32) -> Model {
        let logs = writers.div_ceil(2);
        Model {
            logs: (0..logs).map(|_| LogModel::default()).collect(),
            writers: (0..writers).map(|_| WriterModel::default()).collect(),
        }
    }

    /// Takes in what a child reported.
    pub(crate) fn hear(&mut self, records: &[Record], tally: &mut Tally) -> Result<(), Violation> {
        for record in records {
            match *record {
                Record::Opened(opened) => tally.opens.child_opened(opened),
                Record::Issue { writer, number } => self.issue(Issued { writer, number })?,
                Record::Ack {
                    writer,
                    number,
                    index,
                } => {
                    self.acknowledge(Issued { writer, number }, index)?;
                    tally.acknowledged += 1;
                }
                // Those of other drills.
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks what a kill left of `log`; `whole` reads again what earlier checks found. Violations are added to `bad`.
    pub(crate) fn check(
        &mut self,
        log: &Log,
        entries: &Entries,
        whole: bool,
        tally: &mut Tally,
        bad: &mut Vec<Violation>,
    ) -> everlog::Result<()> {
        let key = log.key().0;
        let writers = self.writers.len() as u64;
        let model = &mut self.logs[usize::try_from(key).unwrap_or(usize::MAX)];
        let bounds = log.bounds()?;
        let known = model.end();
        if !model.is_within(key, &bounds, tally, bad) {
            return Ok(());
        }
        let mut next = if whole {
            bounds.start
        } else {
            known.min(bounds.end)
        };
        let mut read = log.read(next..bounds.end);
        while next < bounds.end {
            let payload = match read.next() {
                Some(Ok(entry)) if entry.id.index == next => Some(entry.payload),
                Some(Err(e)) if e.kind() == ErrorKind::Damaged => {
                    tally.lost += 1;
                    bad.push(Violation::new(
                        Kind::Lost,
                        format!("log {key} at index {next}: {e}"),
                    ));
                    read = log.read(next + 1..bounds.end);
                    None
                }
                Some(Err(e)) => return Err(e),
                other => {
                    let gave = other
                        .and_then(Result::ok)
                        .map_or("nothing".into(), |entry| entry.id.to_string());
                    let what = format!("log {key}: reading index {next} of {bounds:?} gave {gave}");
                    bad.push(Violation::new(Kind::Changed, what));
                    return Ok(());
                }
            };
            let index = next;
            model.at(
                Place { key, index, writers },
                payload.as_deref(),
                entries,
                tally,
                bad,
            );
            next += 1;
        }
        model.close(key, bounds.end, tally, bad);
        Ok(())
    }

    /// Forgets most of what was found in log `key`; returns the index to purge to.
    pub(crate) fn purge(&mut self, key: u64) -> u64 {
        let model = &mut self.logs[usize::try_from(key).unwrap_or(usize::MAX)];
        let drop = model.found.len() / 4 * 3;
        model.found.drain(..drop);
        model.first += drop as u64;
        model.first
    }

    /// What the next child is told.
    pub(crate) fn start(&self) -> Start {
        Start {
            logs: self.logs(),
            next: self.writers.iter().map(|writer| writer.next).collect(),
        }
    }

    /// How many logs there are; their keys count from 0.
    pub(crate) fn logs(&self) -> u64 {
        self.logs.len() as u64
    }

    fn issue(&mut self, issued: Issued) -> Result<(), Violation> {
        let (log, writer) = self.of(issued)?;
        if writer.next != issued.number {
            return Err(Violation::confused(issued));
        }
        writer.next += 1;
        log.outstanding.push(Outstanding {
            issued,
            after: writer.last,
            before: u64::MAX,
        });
        Ok(())
    }

    fn acknowledge(&mut self, issued: Issued, index: u64) -> Result<(), Violation> {
        let (log, writer) = self.of(issued)?;
        let Some(at) = log.outstanding.iter().position(|o| o.issued == issued) else {
            return Err(Violation::confused(issued));
        };
        log.outstanding.remove(at);
        if index < log.end() || writer.last.is_some_and(|last| index <= last) {
            let what = format!("{issued} was acknowledged at index {index}, which was taken");
            return Err(Violation::new(Kind::Changed, what));
        }
        if let Some(other) = log.acknowledged.insert(index, issued) {
            let what = format!("{issued} and {other} were both acknowledged at index {index}");
            return Err(Violation::new(Kind::Changed, what));
        }
        writer.last = Some(index);
        for earlier in &mut log.outstanding {
            if earlier.issued.writer == issued.writer {
                earlier.before = earlier.before.min(index);
            }
        }
        Ok(())
    }

    fn of(&mut self, issued: Issued) -> Result<(&mut LogModel, &mut WriterModel), Violation> {
        let log = u64::from(issued.writer) % self.logs.len() as u64;
        let log = usize::try_from(log).ok().and_then(|at| self.logs.get_mut(at));
        let writer = usize::try_from(issued.writer)
            .ok()
            .and_then(|at| self.writers.get_mut(at));
        log.zip(writer).ok_or_else(|| Violation::confused(issued))
    }
}

#[derive(Clone, Copy)]
struct Place {
    key: u64,
    index: u64,
    writers: u64,
}

impl LogModel {
    /// Behind the last index that was found.
    fn end(&self) -> u64 {
        self.first + self.found.len() as u64
    }

    /// Whether `bounds` hold everything that was found before; false if there is no sense in reading on.
    fn is_within(&self, key: u64, bounds: &Range<u64>, tally: &mut Tally, bad: &mut Vec<Violation>) -> bool {
        let known = self.end();
        if bounds.end < known {
            tally.lost += known - bounds.end;
            let what = format!(
                "log {key} ends at index {}; up to {known} it was there",
                bounds.end
            );
            bad.push(Violation::new(Kind::Lost, what));
        }
        if bounds.start != self.first {
            let what = format!(
                "log {key} begins at index {}, not at {}",
                bounds.start, self.first
            );
            bad.push(Violation::new(Kind::Lost, what));
        }
        bounds.start == self.first
    }

    /// Judges one index. `payload` is `None` where reading it was a violation already.
    fn at(
        &mut self,
        place: Place,
        payload: Option<&[u8]>,
        entries: &Entries,
        tally: &mut Tally,
        bad: &mut Vec<Violation>,
    ) {
        let Place { key, index, writers } = place;
        let spot = |issued: &Issued| position(issued.writer, writers, issued.number, entries.len());
        let offset = index
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok());
        let known = offset.and_then(|at| self.found.get(at)).map(|at| *at as usize);
        let new = known.is_none();
        let expected = known.or_else(|| self.acknowledged.remove(&index).as_ref().map(spot));
        let expected = match (expected, payload) {
            (Some(expected), Some(payload)) if entries.get(expected) != payload => {
                bad.push(Violation::new(
                    Kind::Changed,
                    format!("log {key} at index {index}: other bytes than acknowledged"),
                ));
                Some(expected)
            }
            (None, Some(payload)) => {
                let survivor = self.survivor(index, |issued| entries.get(spot(issued)) == payload);
                match survivor {
                    Some(_) => tally.survived += 1,
                    None => bad.push(Violation::new(
                        Kind::Invented,
                        format!(
                            "log {key} at index {index}: {} bytes that no writer had issued",
                            payload.len()
                        ),
                    )),
                }
                survivor.as_ref().map(spot)
            }
            (expected, _) => expected,
        };
        if new {
            self.found
                .push(u32::try_from(expected.unwrap_or(0)).unwrap_or(u32::MAX));
        }
    }

    /// Takes the outstanding entry that stands at `index`. Of several with the same bytes, the one that has the fewest
    /// other places to be.
    fn survivor(&mut self, index: u64, is_same: impl Fn(&Issued) -> bool) -> Option<Issued> {
        let fits = |o: &Outstanding| {
            o.after.is_none_or(|after| after < index) && index < o.before && is_same(&o.issued)
        };
        let candidates = self.outstanding.iter().enumerate().filter(|(_, o)| fits(o));
        let (at, _) = candidates.min_by_key(|(_, o)| (o.before, o.issued.number))?;
        let taken = self.outstanding.remove(at).issued;
        for other in self
            .outstanding
            .iter_mut()
            .filter(|o| o.issued.writer == taken.writer)
        {
            if other.issued.number < taken.number {
                other.before = other.before.min(index);
            } else {
                other.after = other.after.max(Some(index));
            }
        }
        Some(taken)
    }

    /// Settles what was reported since the last check: every acknowledged entry must have been found.
    fn close(&mut self, key: u64, end: u64, tally: &mut Tally, bad: &mut Vec<Violation>) {
        tally.vanished += self.outstanding.len() as u64;
        self.outstanding.clear();
        tally.lost += self.acknowledged.len() as u64;
        if let Some((index, issued)) = self.acknowledged.pop_first() {
            let more = match self.acknowledged.len() {
                0 => String::new(),
                n => format!(", and {n} more behind it"),
            };
            let what =
                format!("log {key} ends at index {end}; {issued} was acknowledged at index {index}{more}");
            bad.push(Violation::new(Kind::Lost, what));
        }
        self.acknowledged.clear();
    }
}

impl std::fmt::Display for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entry {} of writer {}", self.number, self.writer)
    }
}

impl Violation {
    pub(super) fn new(kind: Kind, what: String) -> Violation {
        Violation { kind, what }
    }

    /// The library refuses to open, or to read, what a kill left.
    pub(crate) fn refused(error: &everlog::Error) -> Violation {
        Violation::new(Kind::Refused, error.to_string())
    }

    /// The child could not go on where a kill had left the journal.
    pub(crate) fn child(said: &str) -> Violation {
        Violation::new(
            Kind::Refused,
            format!("the process to kill stopped by itself: {said}"),
        )
    }

    /// The whole journal, read once more, has damage.
    pub(crate) fn finding(finding: &Finding) -> Violation {
        let what = format!(
            "{} at {}: {}",
            finding.path.display(),
            finding.offset,
            finding.what
        );
        Violation::new(Kind::Refused, what)
    }

    fn confused(issued: Issued) -> Violation {
        Violation::new(Kind::Invented, format!("{issued} was reported out of its order"))
    }
}

#[cfg(test)]
mod tests;
