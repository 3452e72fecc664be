//! Directories of the simulated disk: which names are durable, which are visible, and the changes between the two.

use crate::sync::Arc;
use std::collections::{BTreeMap, BTreeSet};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Dir(u64),
}

pub(super) type Entries = BTreeMap<Arc<str>, Node>;

#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) durable: Entries,
    pub(super) visible: Entries,
}

/// One change of one directory that no sync of it has covered; atomic.
#[derive(Clone, Debug)]
pub(super) struct NameOp {
    /// Number of the call that made it.
    pub(super) op: u64,
    pub(super) dir: u64,
    /// New meaning of each name; two of them for a rename within the directory.
    pub(super) sets: Vec<(Arc<str>, Option<Node>)>,
    /// The old name of a file that moved to another directory goes only when the new one is there.
    pub(super) after_addition: bool,
}

/// All directories (the root is number 0) and the pending changes of all, in order.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) dirs: BTreeMap<u64, Dir>,
    pub(super) pending: Vec<NameOp>,
}

pub(super) const ROOT: u64 = 0;

impl Names {
    pub(super) fn new() -> Names {
        Names {
            dirs: BTreeMap::from([(ROOT, Dir::default())]),
            pending: Vec::new(),
        }
    }

    /// Makes `name` in `dir` stand for `node` from now on.
    pub(super) fn set(&mut self, op: u64, dir: u64, name: &str, node: Option<Node>) {
        let name: Arc<str> = name.into();
        self.show(dir, &name, node);
        self.pending.push(NameOp {
            op,
            dir,
            sets: vec![(name, node)],
            after_addition: false,
        });
    }

    /// Moves `node` from one name to another. Within a directory that is one change; across two it is an addition and a
    /// removal, each durable with the sync of its own directory.
    pub(super) fn rename(&mut self, op: u64, from: (u64, &str), to: (u64, &str), node: Node) {
        let (old, new): (Arc<str>, Arc<str>) = (from.1.into(), to.1.into());
        self.show(from.0, &old, None);
        self.show(to.0, &new, Some(node));
        let mut addition = NameOp {
            op,
            dir: to.0,
            sets: vec![(new, Some(node))],
            after_addition: false,
        };
        if from.0 == to.0 {
            addition.sets.push((old, None));
            self.pending.push(addition);
        } else {
            self.pending.push(addition);
            self.pending.push(NameOp {
                op,
                dir: from.0,
                sets: vec![(old, None)],
                after_addition: true,
            });
        }
    }

    /// A sync of `dir` succeeds: its changes are durable, and those that they depend on.
    pub(super) fn persist(&mut self, dir: u64) {
        let needed = self.needed_by(|op| op.dir == dir);
        self.settle(&needed, &BTreeSet::new());
    }

    /// Everything is durable, as after a commit of a journalling file system.
    pub(super) fn persist_through(&mut self, op: u64) {
        let needed = self.needed_by(|pending| pending.op <= op);
        self.settle(&needed, &BTreeSet::new());
    }

    /// A sync of `dir` fails: each change of it is durable (`keep` says so) or forgotten, and the next sync says Ok.
    pub(super) fn fail(&mut self, dir: u64, keep: &mut dyn FnMut() -> bool) {
        let needed = self.needed_by(|op| op.dir == dir);
        let mut lost = BTreeSet::new();
        let mut lost_names = BTreeSet::new();
        for index in &needed {
            let change = &self.pending[*index];
            let orphan = change.after_addition && lost.contains(&(index - 1));
            let blocked = change
                .sets
                .iter()
                .any(|(name, _)| lost_names.contains(&(change.dir, name.clone())));
            if orphan || blocked || !keep() {
                lost.insert(*index);
                lost_names.extend(change.sets.iter().map(|(name, _)| (change.dir, name.clone())));
            }
        }
        self.settle(&needed, &lost);
    }

    /// Indexes of the pending changes that `wanted` names, with all earlier ones on the same names.
    fn needed_by(&self, wanted: impl Fn(&NameOp) -> bool) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (index, change) in self.pending.iter().enumerate().rev() {
            let touched = change
                .sets
                .iter()
                .any(|(name, _)| names.contains(&(change.dir, name.clone())));
            let has_dependent = self
                .pending
                .get(index + 1)
                .is_some_and(|next| next.after_addition);
            if wanted(change) || touched || (has_dependent && needed.contains(&(index + 1))) {
                needed.insert(index);
                names.extend(change.sets.iter().map(|(name, _)| (change.dir, name.clone())));
            }
        }
        needed
    }

    fn settle(&mut self, needed: &BTreeSet<usize>, lost: &BTreeSet<usize>) {
        let mut later = Vec::new();
        for (index, mut change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if needed.contains(&index) {
                if let Some(dir) = self.dirs.get_mut(&change.dir).filter(|_| !lost.contains(&index)) {
                    apply(&mut dir.durable, &change.sets);
                }
                continue;
            }
            // The addition that a removal waits for stands directly before it, and takes it along when it is lost.
            let before = index.wrapping_sub(1);
            if !(change.after_addition && lost.contains(&before)) {
                change.after_addition &= !needed.contains(&before);
                later.push(change);
            }
        }
        self.pending = later;
    }

    fn show(&mut self, dir: u64, name: &Arc<str>, node: Option<Node>) {
        if let Some(dir) = self.dirs.get_mut(&dir) {
            apply(&mut dir.visible, &[(name.clone(), node)]);
        }
    }
}

pub(super) fn apply(entries: &mut Entries, sets: &[(Arc<str>, Option<Node>)]) {
    for (name, node) in sets {
        match node {
            Some(node) => entries.insert(name.clone(), *node),
            None => entries.remove(name),
        };
    }
}
