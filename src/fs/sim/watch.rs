//! Takes the state of the disk before the calls at which a power cut is worth looking at.

use super::Profile;
use super::inode::Change;
use super::names::Node;
use super::random::{hash, mix};
use super::state::{Power, State};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use std::fmt;

/// What was issued and acknowledged so far, as numbers.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) issued: AtomicUsize,
    pub(super) acknowledged: AtomicUsize,
    /// Nothing is taken while this holds.
    pub(super) paused: AtomicBool,
}

/// A disk, and what its owner knew then.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) state: State,
    pub(super) issued: usize,
    pub(super) acknowledged: usize,
    /// Before which call it was taken.
    pub(super) before: String,
}

#[derive(Clone)]
pub(super) struct Watch {
    marks: Arc<Marks>,
    every_call: bool,
    watched: Watched,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    moments: Vec<Moment>,
    count: u64,
}

/// What is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    Nothing,
    /// Only how many there are.
    Count,
    Keep,
}

impl Watch {
    pub(super) fn new(marks: Arc<Marks>, every_call: bool, watched: Watched) -> Watch {
        Watch {
            marks,
            every_call,
            watched,
            taken: Arc::default(),
        }
    }

    pub(super) fn take(&self) -> Vec<Moment> {
        std::mem::take(&mut self.taken.lock().moments)
    }

    /// How many moments there were.
    pub(super) fn count(&self) -> u64 {
        self.taken.lock().count
    }

    /// A sync of `path` is about to take effect.
    pub(super) fn before_sync(&self, state: &State, path: &str) {
        if !self.every_call {
            self.add(state, &|| format!("the sync of {path:?}, call {}", state.op + 1));
        }
    }

    pub(super) fn before_call(&self, state: &State) {
        if self.every_call {
            self.add(state, &|| format!("call {}", state.op + 1));
        }
    }

    pub(super) fn add(&self, state: &State, before: &dyn Fn() -> String) {
        if state.power == Power::Off || self.marks.paused.load(Ordering::Relaxed) {
            return;
        }
        if self.watched != Watched::Nothing {
            self.taken.lock().count += 1;
        }
        if self.watched != Watched::Keep {
            return;
        }
        let state = State {
            watch: None,
            ..state.clone()
        };
        self.taken.lock().moments.push(Moment {
            state,
            issued: self.marks.issued.load(Ordering::Relaxed),
            acknowledged: self.marks.acknowledged.load(Ordering::Relaxed),
            before: before(),
        });
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Moment {
    /// A hash by which equal moments are recognised.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut sum = mix(self.issued as u64 ^ ((self.acknowledged as u64) << 32));
        if self.state.profile == Profile::Hostile {
            // The garbage differs from call to call.
            sum = mix(sum ^ self.state.op);
        }
        for (dir, entries) in &self.state.names.dirs {
            for (name, node) in &entries.durable {
                sum = mix(sum ^ dir) ^ hash(sum, name.as_bytes()) ^ number(Some(*node));
            }
        }
        for change in &self.state.names.pending {
            sum = mix(sum ^ change.dir ^ u64::from(change.after_addition));
            for (name, node) in &change.sets {
                sum = mix(hash(sum, name.as_bytes()) ^ number(*node));
            }
        }
        for (id, inode) in &self.state.inodes {
            sum = mix(mix(sum ^ id) ^ inode.durable_len);
            for (block, bytes) in inode.durable.numbered() {
                // A block of zeros and an absent one are the same.
                if bytes.iter().any(|byte| *byte != 0) {
                    sum = hash(mix(sum ^ block), bytes);
                }
            }
            for pending in &inode.pending {
                sum = mix(sum ^ pending.len.map_or(1, |len| len << 2));
                match &pending.change {
                    Change::Write { offset, bytes } => sum = hash(mix(sum ^ offset), bytes),
                    Change::Cut { to, rest } => sum = hash(mix(sum ^ to ^ 2), rest),
                    Change::Grow => sum = mix(sum ^ 3),
                }
            }
            for (sector, contents) in &inode.limbo.sectors {
                sum = mix(sum ^ sector);
                sum = contents.iter().fold(sum, |sum, (_, bytes)| hash(sum, bytes));
            }
            let lens = inode.limbo.lens.iter();
            sum = lens.fold(sum, |sum, (_, len)| mix(sum ^ len));
            sum = inode.bad.iter().fold(sum, |sum, sector| mix(sum ^ sector));
        }
        sum
    }
}

fn number(node: Option<Node>) -> u64 {
    match node {
        None => 0,
        Some(Node::File(id)) => id << 1,
        Some(Node::Dir(id)) => (id << 1) | 1,
    }
}
