//! Creating a journal: its directory, its lock, its first opening, all synced before `create` returns.

use super::files;
use super::prepare::{Prepared, write_zeros};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BATCHES_AT, Opening, write_opening_blocks};
use crate::fs::{Access, Fs, Lock, holder_line};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::sync::Arc;
use std::io;

/// The first segment, in which the life that created it may go on.
pub(super) struct First {
    pub(super) file: Prepared,
    pub(super) opening: Opening,
}

const TEMPORARY: &str = "journal/create.tmp";
const TEMPORARY_NAME: &str = "create.tmp";

/// Writes the first opening of a journal into `fs`, which holds none.
///
/// The file gets its name only when it is synced with its opening in it, so that a directory in which a crash interrupted
/// this is one without a journal, and not a damaged one.
pub(super) fn create(fs: &Arc<dyn Fs>, config: &Config) -> Result<First> {
    let io = |path: &'static str, doing: &'static str| {
        let at = fs.display(path);
        move |e| Error::io(at, doing, e)
    };
    directory(&**fs)?;
    let salt = super::open::draw_salt(&**fs);
    let [high, low] = [fs.random(), fs.random()];
    let opening = Opening {
        uuid: (u128::from(high) << 64 | u128::from(low)).to_le_bytes(),
        align_shift: super::open::align_shift(config),
        features: 0,
        compat: 0,
        segment: 1,
        salt,
        sequence: 1,
        time: fs.now_micros(),
        pred: None,
        carry_len: 0,
        carry_crc: 0,
        floor: 1,
        len: config.segment_bytes,
        incarnation_next: 1,
    };
    let file = match fs.create(TEMPORARY) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let file = fs
                .open(TEMPORARY, Access::Write)
                .map_err(io(TEMPORARY, "open a left-over file"))?;
            file.set_len(0).map_err(io(TEMPORARY, "empty a left-over file"))?;
            file
        }
        file => file.map_err(io(TEMPORARY, "create the first segment"))?,
    };
    let mut blocks = Vec::new();
    write_opening_blocks(&opening, &mut blocks);
    write_zeros(&*file, BATCHES_AT..opening.len)
        .map_err(io(TEMPORARY, "fill the first segment with zeros"))?;
    file.write_all_at(&blocks, 0)
        .map_err(io(TEMPORARY, "write the first opening"))?;
    if !removed(Rule::FirstOpeningSync) {
        file.sync_data()
            .map_err(io(TEMPORARY, "sync the first segment"))?;
    }
    let path = Segment::name(1);
    let named = fs
        .rename(TEMPORARY, &path)
        .and_then(|()| match removed(Rule::FirstNameSync) {
            true => Ok(()),
            false => fs.sync_dir(files::JOURNAL),
        });
    if let Err(e) = named {
        // The name may be forgotten for good, although the next sync says Ok: nothing must be there to be believed.
        forget([fs.remove(TEMPORARY), fs.remove(&path)]);
        return Err(io(TEMPORARY, "name the first segment")(e));
    }
    tracing::info!(dir = %fs.display("").display(), "a journal was created");
    Ok(First {
        file: Prepared {
            path,
            file,
            len: opening.len,
        },
        opening,
    })
}

/// Makes the directory of the segments, for good. One that is there already may be a name that its parent has forgotten, after a
/// sync of it failed, and then no later sync brings it back: it is made anew.
fn directory(fs: &dyn Fs) -> Result<()> {
    let io = |path: &'static str, doing: &'static str| {
        let at = fs.display(path);
        move |e| Error::io(at, doing, e)
    };
    match fs.create_dir(files::JOURNAL) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let left = fs
                .list(files::JOURNAL)
                .map_err(io(files::JOURNAL, "list the directory"))?;
            // With the files of others in it, it has been there for long.
            if left.iter().all(|name| name == TEMPORARY_NAME) {
                forget(left.iter().map(|_| fs.remove(TEMPORARY)));
                fs.remove_dir(files::JOURNAL)
                    .and_then(|()| fs.create_dir(files::JOURNAL))
                    .map_err(io(files::JOURNAL, "make the directory anew"))?;
            }
        }
        made => made.map_err(io(files::JOURNAL, "create the directory"))?,
    }
    let synced = match removed(Rule::RootSync) {
        true => Ok(()),
        false => fs.sync_dir(""),
    };
    if synced.is_err() {
        forget([fs.remove_dir(files::JOURNAL)]);
    }
    synced.map_err(io("", "sync the directory"))
}

/// What cannot be removed is there for the next attempt.
fn forget(removed: impl IntoIterator<Item = io::Result<()>>) {
    for error in removed.into_iter().filter_map(io::Result::err) {
        tracing::debug!(%error, "what a failed creation left could not be removed");
    }
}

/// Whether `fs` holds segments.
pub(super) fn exists(fs: &Arc<dyn Fs>) -> Result<bool> {
    match fs.list(files::JOURNAL) {
        Ok(names) => Ok(names.iter().any(|name| Segment::parse_name(name).is_some())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(fs.display(files::JOURNAL), "list the directory", e)),
    }
}

/// Takes the lock of the directory, or says who has it.
pub(super) fn lock(fs: &Arc<dyn Fs>) -> Result<Box<dyn Lock>> {
    fs.lock(files::LOCK, &holder_line()).map_err(|e| {
        let path = fs.display(files::LOCK);
        if e.kind() != io::ErrorKind::WouldBlock {
            return Error::io(path, "take the lock", e);
        }
        let holder = fs
            .holder(files::LOCK)
            .ok()
            .flatten()
            .filter(|holder| !holder.is_empty())
            .unwrap_or_else(|| "another process".into());
        Error::at(
            ErrorKind::Locked,
            path,
            format!("the journal is open in {holder}; close it there first"),
        )
    })
}
