//! Every segment file that is there, with its opening if one of the two copies verifies.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Bad, COPY_AT, NUMBER_MAX, OPENING_LEN, Opening};
use crate::fs::{Access, File};
use crate::segment::{JOURNAL_DIR, Segment};
use crate::sync::Arc;

use super::super::Uuid;
use super::super::report::FindingKind;
use super::Context;

/// Ids above this are nobody's: half of what the format allows.
const ID_MAX: u64 = NUMBER_MAX >> 1;
/// No life, and no row of lives that wrote nothing, skips so many ids.
const ID_GAP_MAX: u64 = 1 << 32;

/// The files of a journal's directory.
pub(super) struct Candidates {
    pub(super) all: BTreeMap<u64, Candidate>,
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
    /// Where the other copy stands, if one verifies and the other does not.
    pub(super) bad_copy: Option<u64>,
    pub(super) why: String,
}

/// Lists the directory and reads both copies of every opening. Refuses a journal of a newer version, and files that
/// belong elsewhere; nothing else is judged yet.
pub(super) fn read(context: &mut Context<'_>) -> Result<Candidates> {
    let names = list(context)?;
    let mut all = BTreeMap::new();
    for id in names.iter().filter_map(|name| Segment::parse_name(name)) {
        if id > ID_MAX {
            return Err(stray(context.fs.display(&Segment::name(id))));
        }
        if let Some(candidate) = read_one(context, id)? {
            all.insert(id, candidate);
        }
    }
    let indexes = names
        .iter()
        .filter_map(|name| Segment::parse_index_name(name))
        .collect();
    if all.is_empty() {
        return Err(no_journal(context));
    }
    let candidates = Candidates { all, indexes };
    candidates.check_uuids()?;
    candidates.check_ids()?;
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

fn read_one(context: &mut Context<'_>, id: u64) -> Result<Option<Candidate>> {
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
    let copies = [
        read_copy(&*file, &path, len, 0),
        read_copy(&*file, &path, len, COPY_AT),
    ];
    let (opening, bad_copy, why) = choose(context, id, &path, copies)?;
    let segment = opening.map(|opening| Arc::new(Segment::new(id, Arc::clone(&file), path.clone(), opening)));
    Ok(Some(Candidate {
        id,
        path,
        file,
        len,
        segment,
        bad_copy,
        why,
    }))
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

/// The opening that counts, where the other copy is bad, and why. One good copy is enough.
fn choose(
    context: &mut Context<'_>,
    id: u64,
    path: &Path,
    copies: [Copy; 2],
) -> Result<(Option<Opening>, Option<u64>, String)> {
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
                failed = Some(e);
            }
        }
    }
    if let Some(other) = good.iter().find(|opening| opening.segment != id) {
        let what = format!(
            "the file is named as segment {id:016x} and holds segment {:016x}: it was renamed or copied here; move it \
             away or give it its name back",
            other.segment
        );
        return Err(Error::at(ErrorKind::Invalid, path, what));
    }
    if let [one, other] = &good[..]
        && one != other
    {
        let what = "the two copies of the opening verify and differ";
        return Err(context.refusal(FindingKind::Damaged, path.to_owned(), 0..COPY_AT, what));
    }
    let (at, why) = bad
        .pop()
        .map_or((None, String::new()), |(at, why)| (Some(at), why));
    match (good.pop(), failed) {
        (Some(opening), _) => Ok((Some(opening), at, why)),
        (None, Some(failed)) => {
            context.unreadable(failed)?;
            Ok((None, None, why))
        }
        (None, None) => Ok((None, None, why)),
    }
}

impl Candidates {
    /// The next segment's id is above that of every file: one that was put here must not push it so far up that a later opening
    /// refuses what this journal wrote.
    fn check_ids(&self) -> Result<()> {
        let opened = |candidate: &&Candidate| candidate.segment.is_some();
        let newest = self.all.values().rev().find(opened).map(|newest| newest.id);
        match (newest, self.all.values().next_back()) {
            (Some(newest), Some(highest)) if highest.id - newest > ID_GAP_MAX => {
                Err(stray(highest.path.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The uuid of the newest opening that verifies; all others must have the same.
    fn check_uuids(&self) -> Result<()> {
        let mut segments = self
            .all
            .values()
            .rev()
            .filter_map(|candidate| candidate.segment.as_ref());
        let Some(newest) = segments.next() else {
            return Ok(());
        };
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
