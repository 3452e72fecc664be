//! Every segment file that is there, with its opening if one of the two copies verifies.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Bad, COPY_AT, NUMBER_MAX, OPENING_LEN, Opening};
use crate::fs::{Access, File};
use crate::mutant::{Rule, removed};
use crate::segment::{JOURNAL_DIR, Segment};
use crate::sync::Arc;

use super::super::Uuid;
use super::super::report::FindingKind;
use super::Context;
use super::chain::Chain;

/// Ids above this are nobody's: half of what the format allows.
const ID_MAX: u64 = NUMBER_MAX >> 1;
/// No life, and no row of lives that wrote nothing, skips so many ids.
const ID_GAP_MAX: u64 = 1 << 32;

/// The files of a journal's directory.
pub(super) struct Candidates {
    pub(super) all: BTreeMap<u64, Candidate>,
    /// Files whose openings are those of other segments.
    pub(super) misnamed: Vec<Misnamed>,
    /// Ids of the index files.
    pub(super) indexes: BTreeSet<u64>,
}

/// One segment file.
pub(super) struct Candidate {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) len: u64,
    /// `None` if no copy of its opening verifies, and then why.
    pub(super) segment: Option<Arc<Segment>>,
    /// Where the other copy stands, if one verifies and the other does not, and what is wrong with it: rot, or the system does
    /// not give it.
    pub(super) bad_copy: Option<BadCopy>,
    pub(super) why: String,
}

/// A file with the opening of another segment than its name says.
pub(super) struct Misnamed {
    pub(super) id: u64,
    pub(super) opening: Opening,
    path: PathBuf,
    file: Arc<dyn File>,
    /// It is that segment's own file, under a second name.
    pub(super) second: bool,
}

/// What stands under a segment's name.
enum Named {
    Right(Candidate),
    Wrong(Misnamed),
}

/// Lists the directory and reads both copies of every opening. Refuses a journal of a newer version, and files that
/// belong elsewhere; nothing else is judged yet.
pub(super) fn read(context: &mut Context<'_>) -> Result<Candidates> {
    let names = list(context)?;
    let (mut all, mut misnamed) = (BTreeMap::new(), Vec::new());
    for id in names.iter().filter_map(|name| Segment::parse_name(name)) {
        if id > ID_MAX && !removed(Rule::IdBound) {
            return Err(stray(context.fs.display(&Segment::name(id))));
        }
        match read_one(context, id)? {
            Some(Named::Right(candidate)) => drop(all.insert(id, candidate)),
            Some(Named::Wrong(file)) => misnamed.push(file),
            None => {}
        }
    }
    let indexes = names
        .iter()
        .filter_map(|name| Segment::parse_index_name(name))
        .collect();
    let mut candidates = Candidates {
        all,
        misnamed,
        indexes,
    };
    candidates.find_second_names(context)?;
    if candidates.all.is_empty() {
        candidates.refuse_misnamed(&[])?;
        return Err(no_journal(context));
    }
    if !removed(Rule::OpeningJournal) {
        candidates.check_uuids()?;
    }
    candidates.check_ids(context)?;
    Ok(candidates)
}

fn stray(path: PathBuf) -> Error {
    let what = "no journal has had so many segments, and the next one would have an id above this; move the file away";
    Error::at(ErrorKind::Invalid, path, what)
}

fn list(context: &Context<'_>) -> Result<Vec<String>> {
    match context.fs.list(JOURNAL_DIR) {
        Ok(names) => Ok(names),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(no_journal(context)),
        Err(e) => Err(Error::io(context.fs.display(JOURNAL_DIR), "list the segments", e)),
    }
}

fn no_journal(context: &Context<'_>) -> Error {
    let what = "there is no journal here; if there should be one, see that its disk is mounted, and if not, create it";
    Error::at(ErrorKind::NotFound, context.fs.display(""), what)
}

fn read_one(context: &mut Context<'_>, id: u64) -> Result<Option<Named>> {
    let name = Segment::name(id);
    let path = context.fs.display(&name);
    let file = match context.fs.open(&name, Access::Read) {
        Ok(file) => file,
        // Beside a writer, files go. Whether this one is missed turns out on the walk.
        Err(e) if e.kind() == io::ErrorKind::NotFound && context.live() => return Ok(None),
        Err(e) => return Err(Error::io(&path, "open the segment", e)),
    };
    let len = file
        .len()
        .map_err(|e| Error::io(&path, "read the size of the segment", e))?;
    let second = if removed(Rule::SecondCopyIsRead) {
        0
    } else {
        COPY_AT
    };
    let copies = [
        read_copy(&*file, &path, len, 0),
        read_copy(&*file, &path, len, second),
    ];
    if let Some(opening) = other_opening(id, &copies) {
        return Ok(Some(Named::Wrong(Misnamed {
            id,
            opening,
            path,
            file,
            second: false,
        })));
    }
    let (opening, bad_copy, why) = choose(context, &path, copies)?;
    let segment = opening.map(|opening| Arc::new(Segment::new(id, Arc::clone(&file), path.clone(), opening)));
    Ok(Some(Named::Right(Candidate {
        id,
        path,
        file,
        len,
        segment,
        bad_copy,
        why,
    })))
}

/// The opening of another segment than `id`, if a copy is one and none is of a newer version.
fn other_opening(id: u64, copies: &[Copy]) -> Option<Opening> {
    let read = || copies.iter().flatten();
    let newer = read().any(|copy| copy.as_ref().is_err_and(|bad| bad.is_newer()));
    let other = read().flatten().find(|opening| opening.segment != id);
    other.filter(|_| !newer).cloned()
}

/// One copy: the opening, what is wrong with it, or the error that reading it met.
type Copy = Result<std::result::Result<Opening, Bad>>;

fn read_copy(file: &dyn File, path: &Path, len: u64, at: u64) -> Copy {
    let mut bytes = [0; OPENING_LEN];
    if len < at + OPENING_LEN as u64 {
        return Ok(Err(if len == 0 { Bad::Blank } else { Bad::Short }));
    }
    file.read_exact_at(&mut bytes, at)
        .map_err(|e| Error::io_at(path, at, "read the opening", e))?;
    Ok(Opening::decode(&bytes))
}

/// A bad copy: where it stands, and what is wrong with it.
type BadCopy = (u64, FindingKind);

/// The opening that counts, where the other copy is bad, and why. One good copy is enough.
fn choose(
    context: &mut Context<'_>,
    path: &Path,
    copies: [Copy; 2],
) -> Result<(Option<Opening>, Option<BadCopy>, String)> {
    let mut good: Vec<Opening> = Vec::new();
    let mut failed = None;
    let mut bad = Vec::new();
    for (copy, at) in copies.into_iter().zip([0, COPY_AT]) {
        match copy {
            Ok(Ok(opening)) => good.push(opening),
            Ok(Err(newer)) if newer.is_newer() => {
                let what = format!("the segment needs a newer everlog: {newer}");
                return Err(Error::at_offset(ErrorKind::Unsupported, path, at, what));
            }
            Ok(Err(why)) => bad.push((at, why.to_string())),
            Err(e) => {
                bad.push((at, e.to_string()));
                failed = Some(e).filter(|_| !removed(Rule::UnreadableOpening));
            }
        }
    }
    if let [one, other] = &good[..]
        && one != other
        && !removed(Rule::CopiesAgree)
    {
        let what = "the two copies of the opening verify and differ";
        return Err(context.refusal(FindingKind::Damaged, path.to_owned(), 0..COPY_AT, what));
    }
    let (at, why) = bad
        .pop()
        .map_or((None, String::new()), |(at, why)| (Some(at), why));
    let kind = match &failed {
        Some(_) => FindingKind::Unreadable,
        None => FindingKind::Damaged,
    };
    match (good.pop(), failed) {
        (Some(opening), _) => Ok((Some(opening), at.map(|at| (at, kind)), why)),
        (None, Some(failed)) => {
            context.unreadable(failed)?;
            Ok((None, None, why))
        }
        (None, None) => Ok((None, None, why)),
    }
}

/// Whether two handles are of one file, as far as it can be told.
fn is_one_file(one: &dyn File, other: &dyn File) -> io::Result<bool> {
    Ok(one
        .identity()?
        .is_some_and(|identity| other.identity().is_ok_and(|other| other == Some(identity))))
}

impl Candidates {
    /// A directory that forgot a rename, after a sync of it failed, may show a file under a name that it had before, too. Under its
    /// own name it is a segment; the other one says nothing, and is left alone.
    fn find_second_names(&mut self, context: &mut Context<'_>) -> Result<()> {
        for file in &mut self.misnamed {
            let segment = file.opening.segment;
            let Some(named) = self.all.get(&segment) else {
                continue;
            };
            let io = |e| Error::io(&file.path, "ask which file it is", e);
            file.second = is_one_file(&*file.file, &*named.file).map_err(io)?;
            file.second &= !removed(Rule::FileIsOneSegment);
            if file.second {
                let what = format!("the name is a second one of segment {segment:016x}; it is left alone");
                context.warn(&file.path, 0, &what);
            }
        }
        Ok(())
    }

    /// Refuses a file that holds another segment than its name says, unless `left_over` has its name.
    pub(super) fn refuse_misnamed(&self, left_over: &[u64]) -> Result<()> {
        let explained = |file: &&Misnamed| file.second || left_over.contains(&file.id);
        match self.misnamed.iter().find(|file| !explained(file)) {
            _ if removed(Rule::OpeningSegment) => Ok(()),
            None => Ok(()),
            Some(file) => {
                let what = format!(
                    "the file is named as segment {:016x} and holds segment {:016x}: it was renamed or copied here; \
                     move it away or give it its name back",
                    file.id, file.opening.segment
                );
                Err(Error::at(ErrorKind::Invalid, &file.path, what))
            }
        }
    }

    /// The names of files in which there is a segment that the journal does not need, under the name of another one: below the floor,
    /// or superseded, and its own name went before a second one. None of those that count goes back to it. What only a floor above
    /// `floor` lets go is left out.
    pub(super) fn left_over(&self, chain: &Chain, last: &Segment, floor: u64) -> Vec<u64> {
        let files = self.misnamed.iter().filter(|file| !file.second);
        let ours = files.filter(|file| file.opening.uuid == last.opening.uuid);
        let unneeded = ours.filter(|file| {
            let held = file.opening.segment;
            let below = file.id.max(held) < floor;
            let spared = chain.spares(held, last) && !(floor..chain.floor).contains(&held);
            below || (spared && !removed(Rule::SecondNameMayOutlive))
        });
        unneeded.map(|file| file.id).collect()
    }

    /// The identities of the files with a segment in them, which all but those of the ids `blank` are.
    pub(super) fn identities(&self, blank: &[u64]) -> Result<BTreeSet<u64>> {
        let used = self
            .all
            .values()
            .filter(|candidate| !blank.contains(&candidate.id));
        let files = used.map(|candidate| (&candidate.file, &candidate.path));
        let files = files.chain(self.misnamed.iter().map(|file| (&file.file, &file.path)));
        let mut found = BTreeSet::new();
        for (file, path) in files {
            let io = |e| Error::io(path, "ask which file it is", e);
            found.extend(file.identity().map_err(io)?);
        }
        Ok(found)
    }

    /// The highest id that a name has.
    pub(super) fn highest(&self) -> u64 {
        let misnamed = self.misnamed.iter().map(|file| file.id);
        misnamed.chain(self.all.keys().copied()).max().unwrap_or(0)
    }

    /// The segment of highest id that has an opening.
    fn newest(&self) -> Option<&Arc<Segment>> {
        self.all
            .values()
            .rev()
            .find_map(|candidate| candidate.segment.as_ref())
    }

    /// The next segment's id is above that of every file: one that was put here must not push it so far up that a later opening
    /// refuses what this journal wrote.
    fn check_ids(&self, context: &Context<'_>) -> Result<()> {
        let highest = self.highest();
        match self.newest() {
            Some(newest) if highest.saturating_sub(newest.id) > ID_GAP_MAX && !removed(Rule::IdBound) => {
                Err(stray(context.fs.display(&Segment::name(highest))))
            }
            _ => Ok(()),
        }
    }

    /// The uuid of the newest opening that verifies; all others must have the same.
    fn check_uuids(&self) -> Result<()> {
        let Some(newest) = self.newest() else {
            return Ok(());
        };
        let mut segments = self
            .all
            .values()
            .filter_map(|candidate| candidate.segment.as_ref());
        match segments.find(|segment| segment.opening.uuid != newest.opening.uuid) {
            None => Ok(()),
            Some(foreign) => {
                let what = format!(
                    "the segment belongs to journal {}, and the newest one here, {}, to journal {}: one of them was \
                     copied here; move it away",
                    Uuid(foreign.opening.uuid),
                    newest.path.display(),
                    Uuid(newest.opening.uuid)
                );
                Err(Error::at(ErrorKind::Invalid, &foreign.path, what))
            }
        }
    }
}
