//! Snapshots carried elsewhere in one file, and taken in from one. The layout stands in `format::snapshot::export`.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::info::{Committed, Draft, Origin, Snapshot};
use super::names::{ChunkName, SnapshotId};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Bad, EXPORT_HEADER_LEN, ExportHeader, SnapshotIndex};

impl Store {
    /// Writes the snapshot `id` with its metadata as one stream that [`Import`] reads, each chunk verified before it is written. `progress` is
    /// told how many bytes are written, and of how many. The stream is whole once this has returned: one that was cut short is
    /// refused by whoever reads it.
    ///
    /// Errors: `NotFound` if there is no such snapshot; those of reading it; `Io` or `NoSpace`, without a path, from `into`.
    pub fn export(
        &self,
        id: SnapshotId,
        into: &mut dyn Write,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Snapshot> {
        let mut reader = self.reader(id)?;
        let mut index = SnapshotIndex::clone(&reader.index);
        (index.generation, index.new_len) = (0, 0);
        let end = index.place_in_export();
        let encoded = index.encode();
        let header = ExportHeader {
            index_len: encoded.len() as u64,
        };
        let mut out = Counted {
            into,
            written: 0,
            end,
            progress,
        };
        out.write(&header.encode())?;
        out.write(&encoded)?;
        let mut known = HashSet::new();
        for (number, place) in index.chunks.iter().enumerate() {
            if known.insert(place.name) {
                out.write(&reader.chunk(number)?)?;
            }
        }
        out.into.flush().map_err(|e| unwritten(&e))?;
        Ok(reader.snapshot())
    }
}

struct Counted<'a> {
    into: &'a mut dyn Write,
    written: u64,
    end: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.into.write_all(bytes).map_err(|e| unwritten(&e))?;
        self.written += bytes.len() as u64;
        (self.progress)(self.written, self.end);
        Ok(())
    }
}

fn unwritten(e: &io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cannot write the export: {e}"))
}

/// A snapshot that is read from an [export](Store::export), file or pipe.
///
/// ```
/// use std::io::Write;
/// use everlog::snapshot::{Draft, Import, Store, StoreConfig};
/// use everlog::{EntryId, LogKey};
///
/// # let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let here = Store::open(here.path(), StoreConfig::new())?;
/// let mut creation = here.create(Draft::new(LogKey(7), EntryId::new(1, 1000)))?;
/// creation.write_all(b"the state after entry 1000")?;
/// let id = creation.commit()?.snapshot.id;
/// let mut file = Vec::new();
/// here.export(id, &mut file, &mut |_, _| {})?;
///
/// let there = Store::open(there.path(), StoreConfig::new())?;
/// let import = Import::open(&file[..], "the export")?;
/// let origin = import.snapshot().origin;
/// let committed = import.into_store(&there, origin, &mut |_, _| {})?;
/// assert_eq!(committed.snapshot.id, id); // the same snapshot, verified
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Import<R> {
    from: R,
    path: PathBuf,
    index: SnapshotIndex,
    /// Bytes read.
    at: u64,
    end: u64,
}

impl<R: Read> Import<R> {
    /// Reads what is exported in `from`, but for the chunks; `path` is its name in messages.
    ///
    /// Errors, each with path and offset: `Invalid` if it is no export, `Unsupported` if a newer everlog wrote it, `Damaged` if it is
    /// cut short or does not verify, `Io` from reading.
    pub fn open(mut from: R, path: impl Into<PathBuf>) -> Result<Import<R>> {
        let path = path.into();
        let header = read_up_to(&mut from, &path, 0, EXPORT_HEADER_LEN as u64)?;
        let header =
            ExportHeader::decode(&header).map_err(|bad| refused(bad, &path, header.len() as u64, 0))?;
        let at = EXPORT_HEADER_LEN as u64;
        let index = read_up_to(&mut from, &path, at, header.index_len)?;
        let read = at + index.len() as u64;
        if (index.len() as u64) < header.index_len {
            return Err(short(&path, read, "within its index"));
        }
        let index =
            SnapshotIndex::decode(&index).and_then(|index| index.check_export().map(|end| (index, end)));
        let (index, end) = index.map_err(|bad| refused(bad, &path, read, at))?;
        Ok(Import {
            from,
            path,
            index,
            at: read,
            end,
        })
    }

    /// What is exported. Its chunks were not read yet.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.index)
    }

    /// Bytes of the export, from its first to its last.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.end
    }

    /// Takes the snapshot into `store`, each chunk verified, and commits it like any other; until then nothing of it is there. Where the store
    /// has it already, chunks that are damaged there are stored anew. `progress` is told how many bytes of the export were read, and of how
    /// many.
    ///
    /// Errors: `Damaged`, with path and offset, if the export is cut short, goes on behind its end, or does not verify; `Io` from reading it;
    /// those of [`commit`](super::Creation::commit).
    pub fn into_store(
        mut self,
        store: &Store,
        origin: Origin,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Committed> {
        let mut draft = Draft::new(self.index.log, self.index.covers)
            .origin(origin)
            .metadata(self.index.metadata.clone())
            .created_micros(self.index.created);
        draft.digest = self.index.digest;
        let mut creation = store.create(draft)?;
        let count = self.index.chunks.len();
        for number in 0..count {
            let place = self.index.chunks[number];
            let name = ChunkName(place.name);
            if place.offset < self.at {
                // Read before, and a part of this creation since.
                creation.append_known(&name)?;
                continue;
            }
            let bytes = read_up_to(&mut self.from, &self.path, self.at, u64::from(place.len))?;
            let read = self.at + bytes.len() as u64;
            if read < self.at + u64::from(place.len) {
                let within = format!("within chunk {} of {count}", number + 1);
                return Err(short(&self.path, read, &within));
            }
            if ChunkName::of(&bytes) != name {
                let text = format!("the {} bytes here are not those of chunk {name}", bytes.len());
                return Err(Error::at_offset(ErrorKind::Damaged, &self.path, self.at, text));
            }
            creation.append_chunk(&name, &bytes)?;
            self.at = read;
            progress(self.at, self.end);
        }
        if !read_up_to(&mut self.from, &self.path, self.at, 1)?.is_empty() {
            let text = "there is more behind the end of the export";
            return Err(Error::at_offset(ErrorKind::Damaged, &self.path, self.at, text));
        }
        creation.commit()
    }
}

/// `len` bytes, or as many as there are: nothing is allocated because a length says so.
fn read_up_to(from: &mut impl Read, path: &Path, at: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(len).read_to_end(&mut bytes);
    read.map_err(|e| Error::io_at(path, at + bytes.len() as u64, "read the export", e))?;
    Ok(bytes)
}

fn short(path: &Path, at: u64, within: &str) -> Error {
    let text = format!("the export ends here, {within}: it was cut short");
    Error::at_offset(ErrorKind::Damaged, path, at, text)
}

/// What `bad` means of an export of which `read` bytes were read; the structure begins at `at`.
fn refused(bad: Bad, path: &Path, read: u64, at: u64) -> Error {
    let kind = match bad {
        Bad::Short => return short(path, read, "within its header or index"),
        Bad::Magic | Bad::Blank if at == 0 => {
            let text = format!("this is no export of a snapshot: {bad}");
            return Error::at_offset(ErrorKind::Invalid, path, at, text);
        }
        bad if bad.is_newer() => ErrorKind::Unsupported,
        _ => ErrorKind::Damaged,
    };
    Error::at_offset(kind, path, at, format!("the export: {bad}"))
}
