//! A power cut whose outcome is decided piece by piece, when somebody looks: names at once, the size of a file at the first
//! call on the file itself, a sector when it is read.
//!
//! Nothing can tell a disk that decides late from one that decided at the power cut, because every piece is independent of all
//! that was seen before it was looked at, and once decided it stays. A sector that is overwritten whole before it was read is
//! never decided: no reader can see it any more. A second power cut before that write is synced may bring it back, so its
//! possible contents stay where those of a failed sync stand, in the limbo of the file. A sync decides nothing: what survived a
//! power cut is on the disk, whichever it is.

use super::crash::{Atom, Choice, Ground, Pick, surviving};
use super::inode::{Inode, Limbo};
use super::script::Sheet;
use super::state::State;
use crate::sync::{Arc, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

/// What of a file nobody has looked at since a power cut.
#[derive(Clone, Debug, Default)]
pub(super) enum Unseen {
    #[default]
    Nothing,
    /// Not even its size. The rest of the inode is as it was before the power cut.
    All {
        path: Arc<str>,
        ground: Arc<Ground>,
        /// Sectors that an earlier power cut had left open and that nobody wrote since.
        at_rest: BTreeSet<u64>,
    },
    /// These sectors. Option 0 is what is durable, the others stand in the limbo.
    Sectors {
        path: Arc<str>,
        sectors: BTreeMap<u64, History>,
    },
}

/// Which option stands for which call.
type History = Arc<[(u64, usize)]>;

/// What is asked: a name, or a number of a file and a sector (or the number of a call) of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Names(Atom),
    Size(u64),
    Cut(u64, u64),
    Sector(u64, u64),
}

/// Who decides.
pub(super) type Answers = Arc<Mutex<Sheet>>;

/// The disk after a power cut in `before`, with all files still open.
pub(super) fn crash_lazily(before: &State, answers: Answers) -> State {
    let ground = Arc::new(Ground::of(before));
    let mut pick = |choice: Choice<'_>| {
        let key = Key::Names(choice.atom.clone());
        answers.lock().answer(&key, choice).unwrap_or(0)
    };
    let mut after = surviving(before, &mut pick, &mut |inode, path, names, _| {
        let unseen = match &inode.unseen {
            // It is as it was: whatever cut came first, nobody has seen what it left.
            all @ Unseen::All { .. } => all.clone(),
            _ if inode.is_at_rest() => Unseen::Nothing,
            Unseen::Nothing => Unseen::All {
                path: path.clone(),
                ground: ground.clone(),
                at_rest: BTreeSet::new(),
            },
            Unseen::Sectors { sectors, .. } => Unseen::All {
                path: path.clone(),
                ground: ground.clone(),
                at_rest: sectors.keys().copied().collect(),
            },
        };
        Inode {
            names,
            handles: 0,
            unseen,
            ..inode.surviving()
        }
    });
    after.answers = Some(answers);
    after
}

impl State {
    /// Decides the size of a file, before a call that it matters to.
    pub(super) fn look(&mut self, id: u64) {
        let Some(answers) = self.answers.clone() else {
            return;
        };
        if let Some(inode) = self.inodes.get_mut(&id)
            && let Unseen::All { .. } = inode.unseen
            && let Some(known) = look_at_size(inode, id, &answers)
        {
            *inode = known;
        }
    }

    /// Decides a range of a file, before a call that shows it or builds on it.
    pub(super) fn look_at(&mut self, id: u64, range: Range<u64>) {
        self.look(id);
        let sector = self.sector;
        let (Some(answers), Some(inode)) = (self.answers.clone(), self.inodes.get_mut(&id)) else {
            return;
        };
        if range.is_empty() {
            return;
        }
        look_at_sectors(
            inode,
            id,
            sector,
            range.start / sector..=(range.end - 1) / sector,
            &answers,
        );
    }

    /// Before a write: decides what it covers in part, and forgets what it covers whole.
    pub(super) fn look_around(&mut self, id: u64, range: &Range<u64>) {
        self.look(id);
        let sector = self.sector;
        let (Some(answers), Some(inode)) = (self.answers.clone(), self.inodes.get_mut(&id)) else {
            return;
        };
        if range.is_empty() || !matches!(inode.unseen, Unseen::Sectors { .. }) {
            return;
        }
        let (first, last) = (range.start / sector, (range.end - 1) / sector);
        let len = inode.visible_len;
        for number in [first, last] {
            let whole = range.start <= number * sector && range.end >= ((number + 1) * sector).min(len);
            if !whole {
                look_at_sectors(inode, id, sector, number..=number, &answers);
            }
        }
        if let Unseen::Sectors { sectors, .. } = &mut inode.unseen {
            sectors.retain(|number, _| !(first..=last).contains(number));
        }
    }

    /// Decides all of a file.
    pub(super) fn look_at_file(&mut self, id: u64) {
        self.look_at(id, 0..u64::MAX);
    }

    /// Decides everything.
    pub(super) fn look_at_all(&mut self) {
        let ids: Vec<u64> = self.inodes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.look_at_file(id));
    }
}

/// The file with its size decided and its sectors open; `None` if the size stays open.
fn look_at_size(inode: &Inode, id: u64, answers: &Answers) -> Option<Inode> {
    let Unseen::All {
        path,
        ground,
        at_rest,
    } = &inode.unseen
    else {
        return None;
    };
    let mut stays_open = false;
    let pick: &mut Pick<'_> = &mut |choice| {
        let key = match choice.atom {
            Atom::Cut { op, .. } => Key::Cut(id, *op),
            _ => Key::Size(id),
        };
        let answer = answers.lock().answer(&key, choice);
        stays_open |= answer.is_none();
        answer.unwrap_or(0)
    };
    let shape = ground.shape(inode, path, pick);
    if stays_open {
        return None;
    }
    let mut content = shape.durable.clone();
    let mut sectors = BTreeMap::new();
    let mut limbo = Limbo::default();
    // A sector under a pending write is none of those at rest.
    let written = inode.written_sectors(ground.sector);
    let at_rest = at_rest.difference(&written).copied().collect();
    ground.each_sector(inode, &shape, &at_rest, &mut |sector, options, damage| {
        let mut contents = options.contents.iter().chain(damage);
        if let Some(first) = contents.next() {
            content.write_if_new(sector * ground.sector, first);
        }
        let op_of = |option| {
            let said = options.history.iter().find(|(_, of)| *of == option);
            said.map_or(0, |(op, _)| *op)
        };
        let later: Vec<_> = (1..)
            .zip(contents)
            .map(|(n, bytes)| (op_of(n), bytes.as_ref().into()))
            .collect();
        if !later.is_empty() {
            limbo.sectors.insert(sector, later);
            limbo.left_open.insert(sector);
            sectors.insert(sector, options.history.as_slice().into());
        }
    });
    content.clear_from(shape.len);
    Some(Inode {
        limbo,
        bad: inode.bad.clone(),
        names: inode.names,
        handles: inode.handles,
        unseen: Unseen::Sectors {
            path: path.clone(),
            sectors,
        },
        ..Inode::at_rest(content, shape.len)
    })
}

fn look_at_sectors(inode: &mut Inode, id: u64, size: u64, numbers: RangeInclusive<u64>, answers: &Answers) {
    let Unseen::Sectors { path, sectors } = &mut inode.unseen else {
        return;
    };
    let open: Vec<u64> = sectors.range(numbers).map(|(number, _)| *number).collect();
    for number in open {
        let (history, lost) = (&sectors[&number], &inode.limbo.sectors[&number]);
        let atom = Atom::Sector {
            file: path.clone(),
            sector: number,
        };
        let choice = Choice {
            atom: &atom,
            options: lost.len() + 1,
            history,
        };
        let Some(answer) = answers.lock().answer(&Key::Sector(id, number), choice) else {
            continue;
        };
        if let Some((_, bytes)) = answer.checked_sub(1).and_then(|at| lost.get(at)) {
            inode.durable.write(number * size, bytes);
            inode.visible.write(number * size, bytes);
        }
        sectors.remove(&number);
        inode.limbo.sectors.remove(&number);
    }
}
