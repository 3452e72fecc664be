//! What happens next: settings, operations and their sizes, drawn from a seed.

use std::time::Duration;

use bytes::Bytes;
use everlog::fs::{Kept, Profile, SimFs};
use everlog::{Alignment, Background, Config, EntryId};

use super::model::{LogModel, Model, Step};
use super::probe::Fault;
use super::random::{Random, bytes};

/// How a write is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Durable,
    Relaxed,
    Submit,
    SubmitRelaxed,
    Try,
}

/// What the owner of the journal does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Write(Vec<Step>, Manner),
    /// Waits for the n-th ticket, modulo how many there are.
    Wait(usize),
    Sync,
    Work,
    Reclaim,
    /// Purges every log to its end, and frees what that frees.
    Drain,
    Reopen {
        clean: bool,
    },
    Fault(Fault),
    /// The disk has so many free blocks from now on.
    Tight(u64),
    Loose,
    /// Every call fails from now on.
    Dead,
}

const KEYS: [u64; 4] = [1, 2, 7, u64::MAX];
const SEGMENT_BYTES: [u64; 4] = [16 << 10, 20 << 10, 32 << 10, 64 << 10];
pub(crate) const IN_FLIGHT_BYTES_MAX: u64 = 32 << 10;
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 10;
pub(crate) const SEGMENTS_AHEAD_MAX: u64 = 2;
const ENTRY_BYTES_MAX: u64 = 256 << 10;

/// What stays the same over all lives of a journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground {
    pub(crate) profile: Profile,
    pub(crate) sector_bytes: u64,
}

impl Ground {
    pub(crate) fn choose(random: &mut Random) -> Ground {
        let profile = match random.below(20) {
            0..=12 => Profile::PosixWeak,
            13..=16 => Profile::Ext4,
            _ => Profile::Hostile,
        };
        // A hostile disk tears sectors, so a batch must not share one with another batch.
        let sector_bytes = if random.one_in(5) { 4096 } else { 512 };
        Ground {
            profile,
            sector_bytes,
        }
    }

    pub(crate) fn is_hostile(self) -> bool {
        self.profile == Profile::Hostile
    }

    /// Settings of one life.
    pub(crate) fn config(self, random: &mut Random) -> Config {
        let dense = !self.is_hostile() && random.one_in(2);
        Config::new()
            .background(Background::Caller)
            .segment_bytes(if random.one_in(2) {
                SEGMENT_BYTES[0]
            } else {
                random.pick(&SEGMENT_BYTES)
            })
            .alignment(if dense {
                Alignment::Bytes8
            } else {
                Alignment::Bytes4096
            })
            .in_flight_bytes(random.pick(&[4 << 10, 8 << 10, IN_FLIGHT_BYTES_MAX]))
            .max_entry_bytes(ENTRY_BYTES_MAX)
            .relaxed_bytes(random.pick(&[1 << 10, 16 << 10, 1 << 20]))
            .segments_ahead(1 + random.index(2))
            .verify_on_open(random.one_in(4))
            .index_cache_bytes(random.pick(&[64, 1 << 20]))
            .mark_delays(Duration::from_millis(20), Duration::from_secs(1))
    }
}

/// Draws actions; every payload is told from all others by its tag.
#[derive(Clone, Debug)]
pub(crate) struct Chooser {
    pub(crate) random: Random,
    tag: u64,
}

impl Chooser {
    pub(crate) fn new(seed: u64) -> Chooser {
        Chooser {
            random: Random::new(seed),
            tag: seed << 20,
        }
    }

    pub(crate) fn action(&mut self, now: &Model, disk: &SimFs) -> Action {
        let random = &mut self.random;
        match random.below(1000) {
            0..=29 => Action::Wait(random.index(8)),
            30..=59 => Action::Sync,
            60..=119 => Action::Work,
            120..=139 => Action::Reclaim,
            140..=147 => Action::Drain,
            148..=167 => Action::Reopen {
                clean: !random.one_in(3),
            },
            168..=207 => Action::Fault(self.fault()),
            208..=217 => Action::Tight(random.below(24)),
            218..=237 => Action::Loose,
            238..=241 => Action::Dead,
            _ => {
                let write = self.write(now, disk);
                Action::Write(write, self.manner())
            }
        }
    }

    pub(crate) fn fault(&mut self) -> Fault {
        let random = &mut self.random;
        let spare = if random.one_in(2) {
            0
        } else {
            u32::try_from(random.below(4)).expect("small")
        };
        let kept = random.pick(&[Kept::Nothing, Kept::Everything, Kept::Undecided]);
        match random.below(10) {
            0..=4 => Fault::Sync { spare, kept },
            5..=7 => Fault::Write {
                spare,
                full: random.one_in(3),
            },
            8 if random.one_in(2) => Fault::Dir { spare, kept },
            _ => Fault::Any { spare: spare * 3 },
        }
    }

    fn manner(&mut self) -> Manner {
        match self.random.below(20) {
            0..=9 => Manner::Durable,
            10..=12 => Manner::Relaxed,
            13..=16 => Manner::Submit,
            17 | 18 => Manner::SubmitRelaxed,
            _ => Manner::Try,
        }
    }

    fn write(&mut self, now: &Model, disk: &SimFs) -> Vec<Step> {
        let random = &mut self.random;
        let missing = KEYS.iter().find(|key| !now.0.contains_key(key));
        if let Some(key) = missing.filter(|_| now.0.is_empty() || random.one_in(24)) {
            let first = if random.one_in(2) { 0 } else { random.below(1000) };
            return vec![Step::Create(*key, first)];
        }
        if random.one_in(100) {
            return vec![Step::Delete(self.key(now))];
        }
        let mut count = if random.one_in(3) { 1 + random.below(5) } else { 1 };
        if random.one_in(60) {
            count += random.below(80);
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut after = now.clone();
        for _ in 0..count {
            let step = self.step(&after, disk);
            match after.after(std::slice::from_ref(&step)) {
                Ok(next) => after = next,
                // Something that must be refused, now and then, as the last of its batch.
                Err(_) if self.random.one_in(4) => {
                    steps.push(step);
                    break;
                }
                Err(_) => continue,
            }
            steps.push(step);
        }
        steps
    }

    fn key(&mut self, now: &Model) -> u64 {
        let keys: Vec<u64> = now.0.keys().copied().collect();
        if self.random.one_in(300) {
            4711
        } else {
            self.random.pick(&keys)
        }
    }

    fn step(&mut self, now: &Model, disk: &SimFs) -> Step {
        let key = self.key(now);
        let missing = LogModel::default();
        let log = now.0.get(&key).map_or(&missing, |log| &**log);
        let len = log.end() - log.start;
        match self.random.below(100) {
            0..=49 => Step::Append(key, self.payload(disk)),
            50..=64 => {
                let id = self.id(log, log.end());
                Step::AppendAt(key, id, self.payload(disk))
            }
            65..=72 => {
                let from = log.start + self.random.below(len + 2);
                Step::Truncate(
                    key,
                    if self.random.one_in(2) {
                        from.max(log.end().saturating_sub(3))
                    } else {
                        from
                    },
                )
            }
            73..=80 => {
                let beyond = if self.random.one_in(6) {
                    self.random.below(20)
                } else {
                    1
                };
                Step::PurgeTo(key, log.start + self.random.below(len + beyond + 1))
            }
            81..=84 => {
                let index = log.start + self.random.below(len + 3);
                let known = log.entry(index).map(|(term, _)| EntryId { term: *term, index });
                Step::PurgeThrough(key, known.unwrap_or_else(|| self.id(log, index)))
            }
            85 | 86 => {
                let index = self.random.below(log.end() + 10);
                let id = self.id(log, index);
                Step::Reset(key, id)
            }
            _ => {
                let cell = u8::try_from(self.random.below(3)).expect("small") * 100;
                let len = if self.random.one_in(8) {
                    self.random.below(3000)
                } else {
                    self.random.below(40)
                };
                Step::Set(key, cell, self.fresh(len))
            }
        }
    }

    /// An id at `index`, mostly of a term that may come next.
    fn id(&mut self, log: &LogModel, index: u64) -> EntryId {
        let last = log.last().map_or(0, |id| id.term.0);
        let random = &mut self.random;
        let term = match random.below(12) {
            0..=6 => last,
            7..=9 => last + u128::from(random.below(3)),
            10 => last + (u128::from(random.below(4)) << 70),
            _ => last.saturating_sub(1),
        };
        let index = if random.one_in(40) { index + 1 } else { index };
        EntryId::new(term, index)
    }

    fn payload(&mut self, disk: &SimFs) -> Bytes {
        let random = &mut self.random;
        let len = match random.below(100) {
            0..=4 => 0,
            5..=69 => 1 + random.below(120),
            70..=89 => random.below(1500),
            90..=96 => random.below(9000),
            97 => random.below(20_000),
            98 => random.below(150_000),
            _ => return self.copied(disk),
        };
        self.fresh(len)
    }

    /// Bytes out of a segment: a payload that looks like batches of this very journal.
    fn copied(&mut self, disk: &SimFs) -> Bytes {
        let paths: Vec<String> = disk
            .files()
            .into_keys()
            .filter(|path| path.ends_with(".seg"))
            .collect();
        if paths.is_empty() {
            return self.fresh(100);
        }
        let path = &paths[self.random.index(paths.len())];
        let bytes = disk.read_raw(path).expect("a listed file");
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let from = self.random.index(used / 8 + 1) * 8;
        let to = (from + self.random.index(6000)).min(used);
        Bytes::copy_from_slice(&bytes[from.min(to)..to])
    }

    fn fresh(&mut self, len: u64) -> Bytes {
        self.tag += 1;
        bytes(self.tag, len)
    }
}
