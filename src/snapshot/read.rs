//! Reading a snapshot.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;

use super::info::{ChunkInfo, Snapshot};
use super::names::{ChunkName, SnapshotId};
use super::packs::Packs;
use super::store::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChunkPlace, SnapshotIndex};
use crate::mutant::{Rule, removed};
use crate::sync::Arc;

/// The bytes of a snapshot, in order or from anywhere. A chunk is read whole and verified before a byte of it is returned; where it is
/// not as it should be, reading fails with an [`Error`] inside the `io::Error`, naming pack and offset, and never
/// returns wrong bytes. Memory: one chunk, and 8 bytes for each chunk of the snapshot.
///
/// What is verified is what the system returns, perhaps from its cache: to see what the medium holds, [`verify`](super::Store::verify).
pub struct Reader {
    shared: Arc<Shared>,
    pub(super) index: Arc<SnapshotIndex>,
    packs: Packs,
    /// Where each chunk ends.
    ends: Vec<u64>,
    at: u64,
    /// The chunk in `bytes`, if any.
    loaded: Option<usize>,
    bytes: Vec<u8>,
}

impl Reader {
    pub(super) fn open(shared: Arc<Shared>, id: SnapshotId) -> Result<Reader> {
        shared.look_again()?;
        let index = {
            let mut state = shared.state.lock();
            let found = state.snapshots.get(&id).cloned();
            let index = found.ok_or_else(|| shared.no_snapshot(id))?;
            state.read(&index);
            index
        };
        let ends = index.chunks.iter().scan(0, |end, place| {
            *end += u64::from(place.len);
            Some(*end)
        });
        Ok(Reader {
            ends: ends.collect(),
            packs: Packs::new(&shared.objects),
            at: 0,
            loaded: None,
            bytes: Vec::new(),
            index,
            shared,
        })
    }

    /// What is read.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.index)
    }

    /// Bytes of the state.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.index.len
    }

    /// Whether the state has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.len == 0
    }

    /// Its chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkInfo> + '_ {
        let chunks = self.index.chunks.iter().zip(&self.ends);
        chunks.map(|(place, end)| ChunkInfo {
            name: ChunkName(place.name),
            at: end - u64::from(place.len),
            bytes: place.len,
        })
    }

    /// The bytes of its `number`th chunk, verified. `Invalid` if it has no such chunk; otherwise the errors of reading.
    pub fn chunk(&mut self, number: usize) -> Result<Bytes> {
        if number >= self.ends.len() {
            let text = format!("there is no chunk {number} of {}", self.ends.len());
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        self.load(number)?;
        Ok(Bytes::copy_from_slice(&self.bytes))
    }

    /// Brings the chunk into `bytes`.
    fn load(&mut self, number: usize) -> Result<()> {
        if self.loaded == Some(number) {
            return Ok(());
        }
        self.loaded = None;
        let place = self.index.chunks[number];
        match self.packs.read(&place, &mut self.bytes) {
            Ok(_) => {}
            Err(error) => self.load_elsewhere(number, &place, error)?,
        }
        self.loaded = Some(number);
        Ok(())
    }

    /// The chunk is not where the index says. Beside a writer its pack may have been rewritten meanwhile, so the index is read
    /// again, once; and the chunk may be stored twice.
    fn load_elsewhere(&mut self, number: usize, place: &ChunkPlace, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::NotFound && !removed(Rule::MissingPackLooksAgain) {
            self.shared.look_again()?;
        }
        let (newer, places) = {
            let state = self.shared.state.lock();
            let index = state.snapshots.get(&SnapshotId(self.index.id)).cloned();
            let known = state.chunk(&ChunkName(place.name)).map(|known| known.place);
            let moved = index.as_ref().map(|index| index.chunks[number]);
            // Where it is known need not be where it is good: that may have been judged in an earlier life.
            let mut places: Vec<ChunkPlace> = moved.into_iter().chain(known).collect();
            places.extend(state.places_of(&ChunkName(place.name)));
            (index, places)
        };
        let mut tried = vec![*place];
        for other in places {
            if tried.contains(&other) {
                continue;
            }
            if self.packs.read(&other, &mut self.bytes).is_ok() {
                return Ok(());
            }
            tried.push(other);
        }
        match error.kind() {
            ErrorKind::NotFound if newer.is_none() => {
                let what = "the snapshot was removed while it was read";
                Err(error.recast(ErrorKind::NotFound, what))
            }
            ErrorKind::NotFound => {
                Err(error.recast(ErrorKind::Damaged, "a pack that the snapshot needs is lost"))
            }
            _ => Err(error),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.at >= self.index.len {
            return Ok(0);
        }
        let number = self.ends.partition_point(|end| *end <= self.at);
        self.load(number)?;
        let left = usize::try_from(self.ends[number] - self.at).unwrap_or(usize::MAX);
        let from = self.bytes.len() - left;
        let count = left.min(buffer.len());
        buffer[..count].copy_from_slice(&self.bytes[from..from + count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader {
    /// To anywhere; beyond the end there is nothing to read.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.index.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the start, or beyond 2^64"))?;
        Ok(self.at)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("id", &SnapshotId(self.index.id))
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.state.lock().end_read(&self.index);
    }
}
