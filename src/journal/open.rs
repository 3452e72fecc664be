//! Opening a journal: recover, carry what is not proven, start the threads.

use std::collections::{BTreeMap, BTreeSet};

use super::background::Backstage;
use super::commit::Writer;
use super::completions::Completions;
use super::create::{self, First};
use super::prepare::{Found, MARK_ROOM, Pool, Prepared, Sizes, carry_file_len};
use super::queue::Queue;
use super::recover::{Mode, Recovered, recover};
use super::room::Bound;
use super::{Chore, Core, Shared, Uuid, background, files};
use crate::config::{Alignment, Background, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BATCHES_AT, COPY_AT, End, OPENING_LEN};
use crate::fs::{Access, Fs, Lock};
use crate::metrics::Counters;
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::segment::cache::BlockCache;
use crate::sync::atomic::AtomicBool;
use crate::sync::{Arc, Instant, Mutex};

/// What `open` does about a directory with or without a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Existing,
    New,
    Either,
}

/// What a segment keeps free for its closing mark.
fn mark_room(config: &Config) -> u64 {
    match config.alignment {
        _ if removed(Rule::MarkRoom) => 0,
        Alignment::Bytes8 => MARK_ROOM,
        Alignment::Bytes4096 => 4096,
    }
}

/// The salt of a new segment: not zero, and no other one has it.
pub(super) fn draw_salt(fs: &dyn Fs) -> u64 {
    if removed(Rule::SaltIsDrawn) {
        return 1;
    }
    fs.random() | 1
}

pub(super) fn align_shift(config: &Config) -> u16 {
    match config.alignment {
        Alignment::Bytes8 => 3,
        Alignment::Bytes4096 => 12,
    }
}

/// Opens the journal in `fs` (or creates it), and returns when everything that an earlier life acknowledged, and everything
/// else of it that was found, is durable.
pub(super) fn open(fs: &Arc<dyn Fs>, config: Config, want: Want) -> Result<Arc<Shared>> {
    config.validate()?;
    let started = Instant::now();
    // Without a journal not even a lock is made.
    find(fs, want)?;
    let lock = create::lock(fs)?;
    // What was there may have gone meanwhile: a creation that failed, a disk that was unmounted.
    let exists = find(fs, want)?;
    if exists && want == Want::New {
        let text = "there is a journal here already; open it instead";
        return Err(Error::at(ErrorKind::Invalid, fs.display(""), text));
    }
    let created = !exists;
    let first = if exists {
        None
    } else {
        Some(create::create(fs, &config)?)
    };
    let mut recovered = recover(fs, &config, Mode::Writer)?;
    if !created {
        sync_names(fs)?;
    }
    let tail = std::mem::take(&mut recovered.tail);
    let carries = !tail.is_empty() && !removed(Rule::CarryTail) || recovered.hollow;
    let carries = carries || removed(Rule::MarksAreNotCarried);
    let fresh = !created && !carries && recovered.pred.is_none();
    let mut shared = build(fs, config, recovered, first, lock)?;
    if removed(Rule::DeleteAfterOpening) {
        let discard = std::mem::take(&mut shared.writer.lock().discard);
        shared.remove_files(&discard);
    }
    let carrying = Instant::now();
    if carries {
        shared.carry(&tail)?;
        if !removed(Rule::SupersededGoes) {
            shared.remove_superseded();
        }
    }
    if fresh {
        shared.name_anew()?;
    }
    shared.pool.remove_surplus();
    shared.report.carry = carrying.elapsed();
    shared.report.total = started.elapsed();
    if created {
        shared.fill_reserve();
    }
    let shared = Arc::new(shared);
    if let Err(error) = background::start(&shared) {
        shared.shut()?;
        return Err(error);
    }
    Ok(shared)
}

/// Whether there is a journal; `NotFound` if there must be one.
fn find(fs: &Arc<dyn Fs>, want: Want) -> Result<bool> {
    let exists = create::exists(fs)?;
    if !exists && want == Want::Existing {
        let text = "there is no journal here; check that the disk is mounted, or create one";
        return Err(Error::at(ErrorKind::NotFound, fs.display(""), text));
    }
    Ok(exists)
}

/// A life that was killed may have named its segments and not synced the names: what was read here must be there after a power cut.
fn sync_names(fs: &Arc<dyn Fs>) -> Result<()> {
    for (dir, rule) in [("", Rule::OpenRootSync), (files::JOURNAL, Rule::OpenNamesSync)] {
        if !removed(rule) {
            fs.sync_dir(dir)
                .map_err(|e| Error::io(fs.display(dir), "sync the directory", e))?;
        }
    }
    Ok(())
}

fn build(
    fs: &Arc<dyn Fs>,
    config: Config,
    recovered: Recovered,
    first: Option<First>,
    lock: Box<dyn Lock>,
) -> Result<Shared> {
    let mark_room = mark_room(&config);
    let sizes = Sizes {
        segment_bytes: config.segment_bytes,
        mark_room,
        ahead: config.segments_ahead,
        carry_len: carry_file_len(tail_max(&config, 0)),
    };
    let pool = Pool::new(Arc::clone(fs), sizes, preparations(fs, &recovered)?);
    let completions = match config.background {
        Background::Threads => Completions::threaded(),
        Background::Caller => Completions::inline(),
    };
    let rebuilt = recovered.missing_indexes;
    let backstage = Backstage::new(rebuilt.into_iter().map(|missing| Chore::Rebuilt {
        segment: missing.segment,
        bytes: missing.bytes,
    }));
    let floor = if recovered.floor_proven {
        recovered.floor
    } else {
        0
    };
    let Recovered {
        pred,
        next_sequence,
        last_time,
        ..
    } = recovered;
    let mut writer = Writer::new(pred, next_sequence, last_time, floor);
    writer.discard = recovered.discard;
    let mut core = Core::new(recovered.logs, recovered.floor, &recovered.chain);
    core.logs.incarnation_next = core.logs.incarnation_next.max(recovered.incarnation_next);
    let shared = Shared {
        uuid: Uuid(recovered.uuid),
        report: recovered.report,
        counters: Counters::default(),
        core: Mutex::new(core).into(),
        cache: BlockCache::new(config.index_cache_bytes),
        align_shift: align_shift(&config),
        mark_room,
        writer: Mutex::new(writer).into(),
        queue: Queue::new(completions.clone(), Arc::clone(&backstage.committer)).into(),
        pool,
        bound: Arc::new(Bound::new(config.in_flight_bytes)),
        completions,
        backstage,
        shut: AtomicBool::new(false),
        shutting: Mutex::new(()),
        reclaiming: Mutex::new(()),
        lock: Mutex::new(Some(lock)),
        fs: Arc::clone(fs),
        config,
    };
    if let Some(first) = first {
        shared.go_on_in(first);
    }
    Ok(shared)
}

/// Bytes that a crash may leave to be carried, once an entry of `charge` bytes was taken in: the last synced group and one in flight,
/// each up to the bound and one item above it.
pub(super) fn tail_max(config: &Config, charge: u64) -> u64 {
    2 * (config.in_flight_bytes + charge.max(config.in_flight_bytes))
}

/// What earlier lives prepared and did not use.
fn preparations(fs: &Arc<dyn Fs>, recovered: &Recovered) -> Result<Found> {
    let dir = fs.display(files::JOURNAL);
    let names = fs
        .list(files::JOURNAL)
        .map_err(|e| Error::io(&dir, "list the directory", e))?;
    let mut found = Found {
        next_id: recovered.next_segment,
        next_number: 1,
        ..Found::default()
    };
    // Named for a rotation that did not come: as good as a spare, or each restart would leave one behind.
    let mut blank = Vec::new();
    for id in &recovered.blank {
        blank.push(prepared(fs, Segment::name(*id))?);
    }
    let mut unfinished = Vec::new();
    for name in names {
        let Some((number, extension)) = name.split_once('.') else {
            continue;
        };
        let path = format!("{}/{name}", files::JOURNAL);
        // A number that leaves no room above it is none that this module gave.
        match (
            number.parse::<u64>().map(|number| number.min(u64::MAX / 2)),
            extension,
        ) {
            (Ok(number), "spare") => {
                found.next_number = found.next_number.max(number + 1);
                blank.extend(spare(fs, path)?);
            }
            (Ok(number), "tmp") => {
                found.next_number = found.next_number.max(number + 1);
                unfinished.push(path);
            }
            // Never finished.
            (_, "tmp" | "tmp-idx") => unfinished.push(path),
            _ => {}
        }
    }
    sort_out(fs, &mut found, blank, unfinished, &recovered.in_use)?;
    Ok(found)
}

/// A file that stands under two names (a directory that forgot a rename, after a sync of it failed, shows that) is not used: as two
/// spares it would become two segments. It goes, if it is not a segment already.
fn sort_out(
    fs: &Arc<dyn Fs>,
    found: &mut Found,
    blank: Vec<Prepared>,
    unfinished: Vec<String>,
    in_use: &BTreeSet<u64>,
) -> Result<()> {
    let mut files: BTreeMap<Option<u64>, Vec<Prepared>> = BTreeMap::new();
    for file in blank {
        let io = |e| Error::io(fs.display(&file.path), "ask which file it is", e);
        let identity = file.file.identity().map_err(io)?;
        files.entry(identity).or_default().push(file);
    }
    for (identity, names) in files {
        let segment = identity.is_some_and(|identity| in_use.contains(&identity));
        let one = names.len() == 1 && !segment || removed(Rule::FileIsOneSegment);
        if identity.is_none() || one {
            found.spares.extend(names);
        } else if !segment {
            found.surplus.extend(names.into_iter().map(|file| file.path));
        }
    }
    for path in unfinished {
        let identity = fs.open(&path, Access::Read).and_then(|file| file.identity());
        // What cannot be asked is left alone.
        if identity.is_ok_and(|identity| identity.is_none_or(|identity| !in_use.contains(&identity))) {
            found.surplus.push(path);
        }
    }
    Ok(())
}

/// The spare at `path`; `None` if it holds a segment (or cannot be opened or read), and then it is left as it is: a directory that
/// forgot a rename, after a sync of it failed, may show a segment under the name that it had as a spare, and to write to it would be to
/// write to the segment. To pass one over hides nothing: no bytes are ever looked for under such a name.
fn spare(fs: &Arc<dyn Fs>, path: String) -> Result<Option<Prepared>> {
    let spare = match prepared(fs, path) {
        Err(error) if !removed(Rule::SpareIsUsable) => {
            tracing::warn!(%error, "a spare file cannot be used; it is left alone");
            return Ok(None);
        }
        spare => spare?,
    };
    let blank = [0, COPY_AT].into_iter().all(|at| {
        let mut bytes = [0; OPENING_LEN];
        let read = spare.file.read_exact_at(&mut bytes, at);
        let ends = |e: std::io::Error| e.kind() == std::io::ErrorKind::UnexpectedEof;
        bytes.iter().all(|byte| *byte == 0) && read.map_or_else(ends, |()| true)
    });
    let blank = blank || removed(Rule::SpareIsBlank);
    if !blank {
        tracing::warn!(path = %fs.display(&spare.path).display(), "a spare file is not blank; it is left alone");
    }
    Ok(blank.then_some(spare))
}

fn prepared(fs: &Arc<dyn Fs>, path: String) -> Result<Prepared> {
    let io = |e| Error::io(fs.display(&path), "open a file that was prepared", e);
    let file = fs.open(&path, Access::Write).map_err(io)?;
    let len = file.len().map_err(io)?;
    Ok(Prepared { path, file, len })
}

impl Shared {
    /// The life that created the journal goes on in its first segment.
    fn go_on_in(&self, first: First) {
        let mut writer = self.writer.lock();
        let id = first.opening.segment;
        let end = End {
            segment: id,
            offset: BATCHES_AT,
            sequence: first.opening.sequence,
            chain: first.opening.chain(),
        };
        self.activate(&mut writer, id, &first.file, first.opening);
        writer.pred = None;
        writer.opened = true;
        // Recovery took the segment for an unproven one, which the next opening would supersede; it is synced.
        writer.discard.clear();
        if let Some(active) = writer.active.as_mut() {
            active.pristine = false;
            active.durable = Some(end);
            let mut core = self.core.lock();
            core.chain.insert(id, Arc::clone(&active.segment));
            core.room = active.room(self.mark_room);
        }
    }

    /// Nothing was ever proven, so that the journal is its first opening. The life that wrote it may have been killed before it synced
    /// its name, and a failed sync may have forgotten that for good: an opening of this life has a name that is sure. Without room
    /// for one the first has to do.
    fn name_anew(&self) -> Result<()> {
        match self.carry(&[]) {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                tracing::warn!(%error, "no room for another opening");
                Ok(())
            }
            named => {
                self.remove_superseded();
                named
            }
        }
    }

    /// A new journal stands with its reserve. Later lives replace what they used of it in the background, and appends wait for that.
    fn fill_reserve(&self) {
        loop {
            match self.pool.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "the reserve is not complete");
                    return;
                }
            }
        }
    }

    /// Removes files that count for nothing, for good: a disk that forgets each unlink at the next power cut must not fill up
    /// with them. One that cannot be removed is left to a later life.
    pub(super) fn remove_files(&self, names: &[String]) {
        for name in names {
            if let Some(id) = name.rsplit('/').next().and_then(Segment::parse_name) {
                self.remove_segment(id);
            } else if let Err(error) = self.fs.remove(name) {
                tracing::debug!(name, %error, "a left-over file could not be removed");
            }
        }
        if names.is_empty() {
            return;
        }
        if !removed(Rule::UnlinkSync)
            && let Err(error) = self.pool.sync_removals()
        {
            tracing::debug!(%error, "left-over files were removed, perhaps not for good");
        }
    }
}
