//! What a power cut leaves: every legal outcome is a sequence of choices, one for each atom whose state is open.

use super::Profile;
use super::content::{Block, Content, as_len};
use super::inode::{Change, Inode};
use super::names::{Dir, Entries, NameOp, Names, Node, ROOT, apply};
use super::random::{Random, mix};
use super::state::{Power, State};
use crate::sync::Arc;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// One thing that a power cut decides.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// What is decided.
    pub atom: &'a Atom,
    /// How many different outcomes there are, at least 2; the answer is below it. 0 is always what was durable.
    pub options: usize,
    /// Which option stands for which call, in order: `(number of the call, option)`, the first being `(0, 0)`. Options
    /// that no call stands for are damage (profile `Hostile`).
    pub history: &'a [(u64, usize)],
}

/// What a [`Choice`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Atom {
    /// How many of the pending changes of all directories took effect (`Ext4`: they do so in order).
    Journal,
    /// Whether the change of a directory that this call made took effect (`PosixWeak`).
    Entry {
        /// Number of the call.
        op: u64,
    },
    /// What a name stands for (`Hostile`).
    Name {
        /// Number of the directory.
        dir: u64,
        /// The name in it.
        name: Arc<str>,
    },
    /// The size of a file.
    Size {
        /// Path of the file.
        file: Arc<str>,
    },
    /// Whether the bytes behind a cut come back when the file grows again (`Hostile`).
    Cut {
        /// Path of the file.
        file: Arc<str>,
        /// Number of the call that cut it.
        op: u64,
    },
    /// The content of a sector.
    Sector {
        /// Path of the file.
        file: Arc<str>,
        /// Offset divided by the sector size.
        sector: u64,
    },
}

/// Answers each choice.
pub(super) type Pick<'p> = dyn FnMut(Choice<'_>) -> usize + 'p;

impl Choice<'_> {
    /// The option in which nothing is lost.
    pub fn newest(&self) -> usize {
        self.history.last().map_or(0, |last| last.1)
    }

    /// The option in which everything up to the call `op` took effect and nothing after it.
    pub fn as_of(&self, op: u64) -> usize {
        let count = self.history.partition_point(|(at, _)| *at <= op);
        self.history[..count].last().map_or(0, |last| last.1)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Journal => write!(f, "changes of directories"),
            Atom::Entry { op } => write!(f, "change of a directory by call {op}"),
            Atom::Name { dir, name } => write!(f, "name {name} in directory {dir}"),
            Atom::Size { file } => write!(f, "size of {file}"),
            Atom::Cut { file, op } => write!(f, "bytes of {file} behind the cut by call {op}"),
            Atom::Sector { file, sector } => write!(f, "sector {sector} of {file}"),
        }
    }
}

/// The disk after a power cut in `before`, which stays as it is.
pub(super) fn crash(before: &State, pick: &mut Pick<'_>) -> State {
    let ground = Ground::of(before);
    surviving(before, pick, &mut |inode, path, names, pick| {
        let (content, len) = ground.file(inode, path, pick);
        Inode {
            bad: inode.bad.clone(),
            names,
            ..Inode::at_rest(content, len)
        }
    })
}

/// What becomes of a file that has a name: the file before, its first path, the number of its names.
pub(super) type Survive<'f> = dyn FnMut(&Inode, &Arc<str>, u64, &mut Pick<'_>) -> Inode + 'f;

/// The disk after a power cut in `before`, with files as `survive` makes them.
pub(super) fn surviving(before: &State, pick: &mut Pick<'_>, survive: &mut Survive<'_>) -> State {
    let mut dirs = Crash { before, pick }.directories();
    let found = reachable(&mut dirs);
    let mut inodes = BTreeMap::new();
    for (id, (path, names)) in found {
        if let Some(inode) = before.inodes.get(&id) {
            inodes.insert(id, survive(inode, &path, names, pick));
        }
    }
    let mut random = before.random.clone();
    State {
        profile: before.profile,
        sector: before.sector,
        op: before.op,
        names: Names {
            dirs: dirs
                .into_iter()
                .map(|(id, e)| {
                    (
                        id,
                        Dir {
                            durable: e.clone(),
                            visible: e,
                        },
                    )
                })
                .collect(),
            pending: Vec::new(),
        },
        inodes,
        next_id: before.next_id,
        life: 0,
        power: Power::On,
        locks: BTreeMap::new(),
        plans: Vec::new(),
        random: Random::new(mix(random.next())),
        clock: before.clock + DARK_MICROS,
        capacity: before.capacity,
        freed: before.freed.clone(),
        answers: None,
        watch: None,
    }
}

struct Crash<'s, 'p> {
    before: &'s State,
    pick: &'s mut Pick<'p>,
}

/// What a name stood for from a call on.
type Meaning = (u64, Option<Node>);

/// The content of a sector from a call on.
type Version<'i> = (u64, &'i [u8]);

/// The distinct contents that a sector may have.
#[derive(Default)]
pub(super) struct Options<'i> {
    pub(super) contents: Vec<Cow<'i, [u8]>>,
    pub(super) history: Vec<(u64, usize)>,
}

/// Takes the number of a sector, what was written to it, and what damage may leave.
pub(super) type VisitSector<'v> = dyn FnMut(u64, &Options<'_>, &[Cow<'static, [u8]>]) + 'v;

/// Size and cuts of a file after a power cut: what remains is which version each sector holds.
pub(super) struct Shape {
    pub(super) len: u64,
    /// (call, new end)
    cuts: Vec<(u64, u64)>,
    /// The durable content, cut.
    pub(super) durable: Content,
}

/// The moment of a power cut, as far as it matters to the content of files.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    profile: Profile,
    pub(super) sector: u64,
    op: u64,
    freed: Arc<[Arc<Block>]>,
}

/// Asks, where there is something to ask: `damage` options come behind those of the history.
fn ask(pick: &mut Pick<'_>, atom: &Atom, history: &[(u64, usize)], damage: usize) -> usize {
    let options = history.iter().map(|(_, option)| option + 1).max().unwrap_or(1) + damage;
    if options < 2 {
        return 0;
    }
    pick(Choice {
        atom,
        options,
        history,
    })
    .min(options - 1)
}

impl Crash<'_, '_> {
    fn ask(&mut self, atom: &Atom, history: &[(u64, usize)], damage: usize) -> usize {
        ask(self.pick, atom, history, damage)
    }

    fn directories(&mut self) -> BTreeMap<u64, Entries> {
        let names = &self.before.names;
        let mut dirs = names
            .dirs
            .iter()
            .map(|(id, dir)| (*id, dir.durable.clone()))
            .collect();
        match self.before.profile {
            Profile::Ext4 => self.in_order(&names.pending, &mut dirs),
            Profile::PosixWeak => self.closed_subset(&names.pending, &mut dirs),
            Profile::Hostile => self.name_by_name(&names.pending, &mut dirs),
        }
        dirs
    }

    fn in_order(&mut self, pending: &[NameOp], dirs: &mut BTreeMap<u64, Entries>) {
        let mut history = vec![(0, 0)];
        history.extend(pending.iter().map(|change| change.op).zip(1..));
        let count = self.ask(&Atom::Journal, &history, 0);
        for change in &pending[..count] {
            apply(dirs.entry(change.dir).or_default(), &change.sets);
        }
    }

    /// A change takes effect only if the earlier ones on its names did, and a removal that belongs to a move only if the
    /// addition did. Changes of a directory that is itself lost are not asked for.
    fn closed_subset(&mut self, pending: &[NameOp], dirs: &mut BTreeMap<u64, Entries>) {
        let mut blocked = BTreeSet::new();
        let mut last_taken = false;
        let mut alive = live_dirs(dirs);
        for change in pending {
            let names = change.sets.iter().map(|(name, _)| (change.dir, name.clone()));
            let possible = alive.contains(&change.dir)
                && (!change.after_addition || last_taken)
                && !names.clone().any(|name| blocked.contains(&name));
            let atom = Atom::Entry { op: change.op };
            last_taken = possible && self.ask(&atom, &[(0, 0), (change.op, 1)], 0) == 1;
            if last_taken {
                apply(dirs.entry(change.dir).or_default(), &change.sets);
                alive.extend(change.sets.iter().filter_map(|(_, node)| node.and_then(as_dir)));
            } else {
                blocked.extend(names);
            }
        }
    }

    /// Every name takes any of its meanings, whatever the others do.
    fn name_by_name(&mut self, pending: &[NameOp], dirs: &mut BTreeMap<u64, Entries>) {
        let mut meanings: BTreeMap<(u64, Arc<str>), Vec<Meaning>> = BTreeMap::new();
        for change in pending {
            for (name, node) in &change.sets {
                meanings
                    .entry((change.dir, name.clone()))
                    .or_default()
                    .push((change.op, *node));
            }
        }
        let mut alive = live_dirs(dirs);
        for ((dir, name), later) in meanings {
            if !alive.contains(&dir) {
                continue;
            }
            let mut options = vec![dirs.get(&dir).and_then(|entries| entries.get(&name)).copied()];
            let mut history = vec![(0, 0)];
            for (op, node) in later {
                let known = options.iter().position(|option| *option == node);
                history.push((op, known.unwrap_or(options.len())));
                if known.is_none() {
                    options.push(node);
                }
            }
            let chosen = options[self.ask(
                &Atom::Name {
                    dir,
                    name: name.clone(),
                },
                &history,
                0,
            )];
            alive.extend(chosen.and_then(as_dir));
            apply(dirs.entry(dir).or_default(), &[(name, chosen)]);
        }
    }
}

impl Ground {
    pub(super) fn of(before: &State) -> Ground {
        Ground {
            profile: before.profile,
            sector: before.sector,
            op: before.op,
            freed: before.freed.as_slice().into(),
        }
    }

    /// Content and size of one file.
    fn file(&self, inode: &Inode, path: &Arc<str>, pick: &mut Pick<'_>) -> (Content, u64) {
        let shape = self.shape(inode, path, pick);
        let mut content = shape.durable.clone();
        self.each_sector(inode, &shape, &BTreeSet::new(), &mut |sector, options, damage| {
            let atom = Atom::Sector {
                file: path.clone(),
                sector,
            };
            let chosen = ask(pick, &atom, &options.history, damage.len());
            if let Some(bytes) = options.contents.iter().chain(damage).nth(chosen) {
                content.write_if_new(sector * self.sector, bytes);
            }
        });
        content.clear_from(shape.len);
        (content, shape.len)
    }

    /// Decides the size of a file and what that implies.
    pub(super) fn shape(&self, inode: &Inode, path: &Arc<str>, pick: &mut Pick<'_>) -> Shape {
        let mut sizes = vec![(0, inode.durable_len)];
        sizes.extend(&inode.limbo.lens);
        sizes.extend(
            inode
                .pending
                .iter()
                .filter_map(|pending| Some((pending.op, pending.len?))),
        );
        sizes.sort_by_key(|(op, _)| *op);
        let history: Vec<_> = sizes.iter().map(|(op, _)| *op).zip(0..).collect();
        let (as_of, len) = sizes[ask(pick, &Atom::Size { file: path.clone() }, &history, 0)];
        let cuts = self.cuts(inode, path, as_of, len, pick);
        let mut durable = inode.durable.clone();
        cuts.iter().for_each(|(_, to)| durable.clear_from(*to));
        Shape { len, cuts, durable }
    }

    /// The cuts that a size set by the call `as_of` implies, as (call, new end).
    fn cuts(
        &self,
        inode: &Inode,
        path: &Arc<str>,
        as_of: u64,
        len: u64,
        pick: &mut Pick<'_>,
    ) -> Vec<(u64, u64)> {
        let mut cuts = Vec::new();
        for pending in inode.pending.iter().filter(|pending| pending.op <= as_of) {
            if let Change::Cut { to, .. } = pending.change {
                let atom = Atom::Cut {
                    file: path.clone(),
                    op: pending.op,
                };
                let hostile = self.profile == Profile::Hostile && len > to;
                if !hostile || ask(pick, &atom, &[(0, 0)], 1) == 0 {
                    cuts.push((pending.op, to));
                }
            }
        }
        cuts
    }

    /// Visits each sector whose content is open with what it may hold: what was written, oldest first, and damage. Sectors
    /// `at_rest` were not being written, so that nothing can have damaged them.
    pub(super) fn each_sector(
        &self,
        inode: &Inode,
        shape: &Shape,
        at_rest: &BTreeSet<u64>,
        visit: &mut VisitSector<'_>,
    ) {
        let size = self.sector;
        for (sector, versions) in self.versions(inode) {
            let range = sector * size..(sector + 1) * size;
            if range.start >= shape.len {
                break;
            }
            let old = shape.durable.slice(range.clone());
            let options = options(old, range.start, &versions, &shape.cuts, shape.len);
            let damage = if at_rest.contains(&sector) {
                Vec::new()
            } else {
                self.damage(inode, &range, &options, shape.len)
            };
            visit(sector, &options, &damage);
        }
    }

    /// The versions of each dirty sector, oldest first.
    fn versions<'i>(&self, inode: &'i Inode) -> BTreeMap<u64, Vec<Version<'i>>> {
        let size = self.sector;
        let mut versions: BTreeMap<u64, Vec<Version<'i>>> = BTreeMap::new();
        for (sector, lost) in &inode.limbo.sectors {
            versions.insert(*sector, lost.iter().map(|(op, data)| (*op, &data[..])).collect());
        }
        for pending in &inode.pending {
            let (first, bytes) = match &pending.change {
                Change::Write { offset, bytes } => (offset / size, bytes),
                Change::Cut { to, rest } => (to / size, rest),
                Change::Grow => continue,
            };
            for (sector, data) in (first..).zip(bytes.chunks(as_len(size))) {
                versions.entry(sector).or_default().push((pending.op, data));
            }
        }
        versions
    }

    /// What a hostile disk may leave in a sector that was being written: two versions mixed, garbage, or the bytes of a
    /// removed file.
    fn damage(
        &self,
        inode: &Inode,
        range: &Range<u64>,
        options: &Options<'_>,
        len: u64,
    ) -> Vec<Cow<'static, [u8]>> {
        if self.profile != Profile::Hostile {
            return Vec::new();
        }
        let mut random = Random::new(mix(range.start) ^ mix(self.op));
        let split = 1 + random.below(as_len(self.sector) - 1);
        let mixed = |(old, new): (&[u8], &[u8])| Cow::Owned([&new[..split], &old[split..]].concat());
        let mut damage: Vec<_> = self.torn(inode, range, options).into_iter().map(mixed).collect();
        damage.push(Cow::Owned(random.bytes(as_len(self.sector))));
        if range.start >= inode.durable_len && !self.freed.is_empty() {
            let block = &self.freed[random.below(self.freed.len())];
            let at = as_len(range.start % block.len() as u64);
            damage.push(Cow::Owned(block[at..at + as_len(self.sector)].to_vec()));
        }
        damage
            .iter_mut()
            .for_each(|bytes| zero_behind(bytes, range.start, len));
        damage
    }

    /// What may be mixed: each content that may be the durable one, with the newest that differs.
    fn torn<'o>(
        &self,
        inode: &Inode,
        range: &Range<u64>,
        options: &'o Options<'_>,
    ) -> Vec<(&'o [u8], &'o [u8])> {
        let number = range.start / self.sector;
        let is_open = inode.limbo.left_open.contains(&number);
        let in_limbo = inode.limbo.sectors.get(&number).map_or(0, Vec::len);
        let bases = if is_open { in_limbo + 1 } else { 1 };
        let distinct = |history: &[(u64, usize)]| {
            let mut found = Vec::new();
            for (_, option) in history {
                if !found.contains(option) {
                    found.push(*option);
                }
            }
            found
        };
        let (durable, later) = options.history.split_at(bases.min(options.history.len()));
        let later = distinct(later);
        let pair = |old: usize| {
            let new = later.iter().rfind(|new| **new != old)?;
            Some((&*options.contents[old], &*options.contents[*new]))
        };
        distinct(durable).into_iter().filter_map(pair).collect()
    }
}

/// The distinct contents of the sector at `start`: the durable one, cut already, and its versions.
fn options<'i>(
    durable: &'i [u8],
    start: u64,
    versions: &[Version<'i>],
    cuts: &[(u64, u64)],
    len: u64,
) -> Options<'i> {
    let mut options = Options::default();
    for (op, data) in std::iter::once(&(0, durable)).chain(versions) {
        let mut data = Cow::Borrowed(*data);
        let cuts_after = cuts.iter().filter(|(cut, _)| cut > op);
        cuts_after.for_each(|(_, to)| zero_behind(&mut data, start, *to));
        zero_behind(&mut data, start, len);
        let known = options.contents.iter().position(|old| *old == data);
        let op = if options.history.is_empty() { 0 } else { *op };
        options
            .history
            .push((op, known.unwrap_or(options.contents.len())));
        if known.is_none() {
            options.contents.push(data);
        }
    }
    options
}

/// Zeroes what lies at or behind the file offset `end` in `bytes`, which begin at `start`.
fn zero_behind(bytes: &mut Cow<'_, [u8]>, start: u64, end: u64) {
    let kept = as_len(end.saturating_sub(start));
    if kept < bytes.len() {
        bytes.to_mut()[kept..].fill(0);
    }
}

fn as_dir(node: Node) -> Option<u64> {
    match node {
        Node::Dir(id) => Some(id),
        Node::File(_) => None,
    }
}

/// The directories that the root leads to. A parent has a lower number than what is made in it.
fn live_dirs(dirs: &BTreeMap<u64, Entries>) -> BTreeSet<u64> {
    let mut alive = BTreeSet::from([ROOT]);
    for (id, entries) in dirs {
        if alive.contains(id) {
            alive.extend(entries.values().filter_map(|node| as_dir(*node)));
        }
    }
    alive
}

/// Drops lost directories; finds each file's first path and the number of its names.
fn reachable(dirs: &mut BTreeMap<u64, Entries>) -> BTreeMap<u64, (Arc<str>, u64)> {
    let alive = live_dirs(dirs);
    dirs.retain(|id, _| alive.contains(id));
    let mut prefixes = BTreeMap::from([(ROOT, String::new())]);
    let mut files: BTreeMap<u64, (Arc<str>, u64)> = BTreeMap::new();
    for (id, entries) in dirs {
        let prefix = prefixes.get(id).cloned().unwrap_or_default();
        for (name, node) in entries {
            let path = format!("{prefix}{name}");
            match node {
                Node::Dir(dir) => drop(prefixes.insert(*dir, format!("{path}/"))),
                Node::File(file) => files.entry(*file).or_insert((path.into(), 0)).1 += 1,
            }
        }
    }
    files
}

/// The machine is dark for a second.
const DARK_MICROS: u64 = 1_000_000;
