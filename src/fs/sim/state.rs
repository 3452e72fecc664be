//! All of the simulated disk behind one lock: what each call does to what is visible and to what is pending.

use super::content::{BLOCK, Block, Content, as_len};
use super::inode::Inode;
use super::lazy::Answers;
use super::names::{Names, Node, ROOT};
use super::random::Random;
use super::watch::Watch;
use super::{Kept, Profile};
use crate::fs::{Access, Space, check_path};
use crate::sync::Arc;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) profile: Profile,
    /// Sector size in bytes.
    pub(super) sector: u64,
    /// Number of the last call that reached the disk.
    pub(super) op: u64,
    pub(super) names: Names,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_id: u64,
    /// Handles of earlier lives are dead.
    pub(super) life: u64,
    pub(super) power: Power,
    /// Held locks by inode.
    pub(super) locks: BTreeMap<u64, Held>,
    pub(super) plans: Vec<SyncPlan>,
    pub(super) random: Random,
    pub(super) clock: u64,
    pub(super) capacity: u64,
    /// Blocks of removed files, for stale bytes.
    pub(super) freed: Vec<Arc<Block>>,
    /// Who decides what a power cut has left open; see [`super::lazy`].
    pub(super) answers: Option<Answers>,
    /// Who wants to see the disk as it is before a call.
    pub(super) watch: Option<Watch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// Goes off at the call after so many.
    OffAfter(u64),
    Off,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) token: u64,
    pub(super) holder: String,
}

/// Fails a sync of a file (or of a directory) in the future.
#[derive(Clone, Debug)]
pub(super) struct SyncPlan {
    pub(super) target: Target,
    /// Matching calls that still succeed.
    pub(super) spare: u64,
    pub(super) kept: Kept,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A file whose path contains this.
    File(String),
    /// Exactly this directory.
    Dir(String),
}

impl State {
    pub(super) fn new(seed: u64, profile: Profile, sector: u64) -> State {
        State {
            profile,
            sector,
            op: 0,
            names: Names::new(),
            inodes: BTreeMap::new(),
            next_id: ROOT + 1,
            life: 0,
            power: Power::On,
            locks: BTreeMap::new(),
            plans: Vec::new(),
            random: Random::new(seed),
            clock: CLOCK_START,
            capacity: CAPACITY,
            freed: Vec::new(),
            answers: None,
            watch: None,
        }
    }

    /// Counts a call that changes or syncs something; fails once the power is off.
    pub(super) fn reach(&mut self) -> io::Result<u64> {
        if let Some(watch) = &self.watch {
            watch.before_call(self);
        }
        match self.power {
            Power::Off => return Err(Errno::IO.into()),
            Power::OffAfter(0) => {
                self.power = Power::Off;
                return Err(Errno::IO.into());
            }
            Power::OffAfter(left) => self.power = Power::OffAfter(left - 1),
            Power::On => {}
        }
        self.op += 1;
        Ok(self.op)
    }

    pub(super) fn create_dir(&mut self, path: &str) -> io::Result<()> {
        let (dir, name) = self.free_name(path)?;
        let op = self.reach()?;
        let id = self.new_id();
        self.names.dirs.insert(id, Default::default());
        self.names.set(op, dir, name, Some(Node::Dir(id)));
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &str) -> io::Result<()> {
        let id = self.dir(path)?;
        let (dir, name) = self.split(path)?;
        if self
            .names
            .dirs
            .get(&id)
            .is_some_and(|dir| !dir.visible.is_empty())
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let op = self.reach()?;
        self.names.set(op, dir, name, None);
        Ok(())
    }

    pub(super) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let dir = self.dir(path)?;
        let entries = self.names.dirs.get(&dir).map(|d| &d.visible);
        Ok(entries
            .into_iter()
            .flatten()
            .map(|(name, _)| name.to_string())
            .collect())
    }

    /// Creates a file with one handle.
    pub(super) fn create(&mut self, path: &str) -> io::Result<u64> {
        let (dir, name) = self.free_name(path)?;
        let op = self.reach()?;
        let id = self.new_id();
        self.inodes.insert(
            id,
            Inode {
                names: 1,
                handles: 1,
                fresh: true,
                ..Inode::default()
            },
        );
        self.names.set(op, dir, name, Some(Node::File(id)));
        Ok(id)
    }

    /// Opens a handle.
    pub(super) fn open(&mut self, path: &str) -> io::Result<u64> {
        let id = self.file(path)?;
        self.inode_mut(id)?.handles += 1;
        Ok(id)
    }

    pub(super) fn close(&mut self, id: u64) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.handles = inode.handles.saturating_sub(1);
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let id = self.file(from)?;
        let (old_dir, old_name) = self.split(from)?;
        let (new_dir, new_name) = self.split(to)?;
        let replaced = match self.node(to) {
            Ok(Node::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(Node::File(other)) => Some(other),
            Err(_) => None,
        };
        let op = self.reach()?;
        if replaced == Some(id) {
            return Ok(());
        }
        self.names
            .rename(op, (old_dir, old_name), (new_dir, new_name), Node::File(id));
        replaced.into_iter().for_each(|other| self.unname(other));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let id = self.file(path)?;
        let (dir, name) = self.split(path)?;
        let op = self.reach()?;
        self.names.set(op, dir, name, None);
        self.unname(id);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &str) -> io::Result<()> {
        let dir = self.dir(path)?;
        if let Some(watch) = &self.watch {
            watch.before_sync(self, path);
        }
        let op = self.reach()?;
        if let Some(kept) = self.planned(&Target::Dir(path.to_string())) {
            let random = &mut self.random;
            self.names.fail(dir, &mut || match kept {
                Kept::Everything => true,
                Kept::Nothing => false,
                Kept::Undecided => random.below(2) == 1,
            });
            return Err(Errno::IO.into());
        }
        match self.profile {
            Profile::Ext4 => self.names.persist_through(op),
            Profile::PosixWeak | Profile::Hostile => self.names.persist(dir),
        }
        self.forget_unreachable();
        Ok(())
    }

    /// Writes as much as there is room for.
    pub(super) fn write(&mut self, id: u64, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= MAX_LEN)
            .ok_or(Errno::FBIG)?;
        let before = self.power;
        let op = match self.reach() {
            Ok(op) => {
                self.look_around(id, &(offset..end));
                op
            }
            Err(e) => {
                if before != self.power {
                    self.write_torn(id, bytes, offset)?;
                }
                return Err(e);
            }
        };
        let room = self.space().free / BLOCK;
        let sector = self.sector;
        let inode = self.inode_mut(id)?;
        let mut missing = (offset / BLOCK..end.div_ceil(BLOCK)).filter(|block| !inode.visible.has(*block));
        let end = missing
            .nth(as_len(room))
            .map_or(end, |first_refused| first_refused * BLOCK);
        if end <= offset {
            return Err(Errno::NOSPC.into());
        }
        let taken = as_len(end - offset);
        inode.write(op, sector, offset, &bytes[..taken]);
        Ok(taken)
    }

    pub(super) fn set_len(&mut self, id: u64, len: u64) -> io::Result<()> {
        if len > MAX_LEN {
            return Err(Errno::FBIG.into());
        }
        let op = self.reach()?;
        self.look_at_file(id);
        let sector = self.sector;
        self.inode_mut(id)?.set_len(op, sector, len);
        Ok(())
    }

    pub(super) fn read(&mut self, id: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.look_at(id, offset..offset.saturating_add(buffer.len() as u64));
        let read = self.inode(id)?.read(self.sector, offset, buffer);
        read.ok_or_else(|| Errno::IO.into())
    }

    /// Ends a sync of everything up to the call `through`.
    pub(super) fn sync(&mut self, id: u64, path: &str, through: u64) -> io::Result<()> {
        if let Some(watch) = &self.watch {
            watch.before_sync(self, path);
        }
        self.reach()?;
        self.look(id);
        let planned = self.planned(&Target::File(path.to_string()));
        let late = std::mem::take(&mut self.inode_mut(id)?.late_error);
        if let Some(kept) = planned.or(late.then_some(Kept::Undecided)) {
            return Err(self.fail(id, through, kept));
        }
        let sector = self.sector;
        let inode = self.inode_mut(id)?;
        let commits = inode.changes_metadata(through);
        inode.persist(through, sector);
        if self.profile == Profile::Ext4 && commits {
            self.names.persist_through(through);
        }
        Ok(())
    }

    /// The sync of everything up to `through` fails.
    pub(super) fn fail(&mut self, id: u64, through: u64, kept: Kept) -> io::Error {
        let sector = self.sector;
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.fail(through, kept, sector);
        }
        Errno::IO.into()
    }

    pub(super) fn evict(&mut self, id: u64) -> io::Result<()> {
        self.look_at_file(id);
        let sector = self.sector;
        let mut random = Random::new(self.random.next());
        self.inode_mut(id)?
            .evict(sector, &mut |options| random.below(options));
        Ok(())
    }

    /// Takes the lock `path`, creating the file if needed; the number to release it by.
    pub(super) fn lock(&mut self, path: &str, holder: &str) -> io::Result<(u64, u64)> {
        let id = match self.file(path) {
            Ok(id) => id,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let id = self.create(path)?;
                self.close(id);
                id
            }
            Err(e) => return Err(e),
        };
        if self.locks.contains_key(&id) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // The text is for people while the lock is held: its crash states do not matter, and would only multiply.
        let mut text = Content::default();
        text.write(0, holder.as_bytes());
        let inode = self.inode_mut(id)?;
        let (names, handles) = (inode.names, inode.handles);
        *inode = Inode {
            names,
            handles,
            ..Inode::at_rest(text, holder.len() as u64)
        };
        let token = self.new_id();
        self.locks.insert(
            id,
            Held {
                token,
                holder: holder.to_string(),
            },
        );
        Ok((id, token))
    }

    pub(super) fn unlock(&mut self, id: u64, token: u64) {
        if self.locks.get(&id).is_some_and(|held| held.token == token) {
            self.locks.remove(&id);
        }
    }

    pub(super) fn holder(&self, path: &str) -> io::Result<Option<String>> {
        match self.file(path) {
            Ok(id) => Ok(self.locks.get(&id).map(|held| held.holder.clone())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn space(&self) -> Space {
        let live = self
            .inodes
            .values()
            .filter(|inode| inode.names > 0 || inode.handles > 0);
        let used = live.map(|inode| inode.visible.count() * BLOCK).sum::<u64>();
        Space {
            free: self.capacity.saturating_sub(used),
            total: self.capacity,
        }
    }

    /// A process begins: handles and locks of the earlier ones are dead, the power is on.
    pub(super) fn next_life(&mut self) -> u64 {
        self.life += 1;
        self.power = Power::On;
        self.locks.clear();
        self.inodes.values_mut().for_each(|inode| inode.handles = 0);
        self.life
    }

    /// Looks a file up by its path.
    pub(super) fn file(&self, path: &str) -> io::Result<u64> {
        match self.node(path)? {
            Node::File(id) => Ok(id),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn inode(&self, id: u64) -> io::Result<&Inode> {
        self.inodes.get(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn inode_mut(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes
            .get_mut(&id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Visible files with their paths, sorted by path.
    pub(super) fn files(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![(String::new(), ROOT)];
        while let Some((prefix, dir)) = dirs.pop() {
            for (name, node) in self
                .names
                .dirs
                .get(&dir)
                .map(|d| &d.visible)
                .into_iter()
                .flatten()
            {
                let path = format!("{prefix}{name}");
                match node {
                    Node::File(id) => drop(found.insert(path, *id)),
                    Node::Dir(id) => dirs.push((format!("{path}/"), *id)),
                }
            }
        }
        found
    }

    /// The power fails while a write runs: some whole pages of it, from the first one on, were taken.
    fn write_torn(&mut self, id: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let pages = (offset + bytes.len() as u64).div_ceil(BLOCK) - offset / BLOCK;
        let kept = self.random.below(as_len(pages)) as u64;
        let end = (offset / BLOCK + kept) * BLOCK;
        let (op, sector) = (self.op, self.sector);
        if let Some(taken) = end.checked_sub(offset).filter(|n| *n > 0) {
            self.look_around(id, &(offset..end));
            self.inode_mut(id)?
                .write(op, sector, offset, &bytes[..as_len(taken)]);
        }
        Ok(())
    }

    /// What a planned failure of this sync keeps, if one is due.
    fn planned(&mut self, target: &Target) -> Option<Kept> {
        let matches = |plan: &SyncPlan| match (&plan.target, target) {
            (Target::File(part), Target::File(path)) => path.contains(part.as_str()),
            (one, other) => one == other,
        };
        let mut due = None;
        self.plans.retain_mut(|plan| {
            if !matches(plan) {
                return true;
            }
            if plan.spare == 0 && due.is_none() {
                due = Some(plan.kept);
                return false;
            }
            plan.spare = plan.spare.saturating_sub(1);
            true
        });
        due
    }

    fn unname(&mut self, id: u64) {
        if self.profile == Profile::Hostile {
            // Its bytes may turn up in other files.
            self.look_at_file(id);
        }
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.names = inode.names.saturating_sub(1);
            let room = FREED_BLOCKS_MAX.saturating_sub(self.freed.len());
            self.freed.extend(inode.visible.blocks().take(room).cloned());
        }
    }

    /// Drops files that no name, no possible crash and no handle can reach.
    pub(super) fn forget_unreachable(&mut self) {
        let entries = self
            .names
            .dirs
            .values()
            .flat_map(|dir| dir.visible.values().chain(dir.durable.values()));
        let pending = self
            .names
            .pending
            .iter()
            .flat_map(|op| op.sets.iter().filter_map(|(_, node)| node.as_ref()));
        let reachable: BTreeSet<u64> = entries
            .chain(pending)
            .filter_map(|node| match node {
                Node::File(id) => Some(*id),
                Node::Dir(_) => None,
            })
            .collect();
        self.inodes
            .retain(|id, inode| inode.handles > 0 || reachable.contains(id));
    }

    /// Size of a file as everybody sees it.
    pub(super) fn len(&mut self, id: u64) -> io::Result<u64> {
        self.look(id);
        Ok(self.inode(id)?.visible_len)
    }

    fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Directory and name of a path whose name is free.
    fn free_name<'a>(&self, path: &'a str) -> io::Result<(u64, &'a str)> {
        let found = self.split(path)?;
        match self.node(path) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => Ok(found),
        }
    }

    fn node(&self, path: &str) -> io::Result<Node> {
        check_path(path)?;
        let mut node = Node::Dir(ROOT);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Node::Dir(dir) = node else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            let found = self.names.dirs.get(&dir).and_then(|d| d.visible.get(part));
            node = *found.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn dir(&self, path: &str) -> io::Result<u64> {
        match self.node(path)? {
            Node::Dir(id) => Ok(id),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn split<'a>(&self, path: &'a str) -> io::Result<(u64, &'a str)> {
        check_path(path)?;
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok((self.dir(dir)?, name))
    }
}

/// Whether a handle may write.
pub(super) fn check_writable(access: Access) -> io::Result<()> {
    match access {
        Access::Write => Ok(()),
        Access::Read => Err(Errno::BADF.into()),
    }
}

/// 14 November 2023, in microseconds since 1970.
const CLOCK_START: u64 = 1_700_000_000_000_000;
const CAPACITY: u64 = 1 << 40;
const MAX_LEN: u64 = 1 << 50;
const FREED_BLOCKS_MAX: usize = 64;
