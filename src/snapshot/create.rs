//! Creating a snapshot: bytes in, chunks cut, shared or stored, and at the end one index.
//!
//! The order is the whole of it. A chunk is shared only with a committed snapshot, and only when it was read there, past the
//! cache, and is what it should be; its pack is held from the moment that it is asked for. New chunks go into one pack, which is synced
//! and named, and its name synced, before the index is; the index is synced before it is named. So an index that is found
//! implies its chunks.

use std::collections::HashMap;
use std::io::{self, Write};

use super::cut::{self, Sizes};
use super::info::{Committed, Count, Draft, ReadBack, Snapshot};
use super::names::{self, ChunkName, SnapshotId};
use super::pack_upload::PackUpload;
use super::packs::Packs;
use super::store::{Shared, later, read_all};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChunkPlace, METADATA_LEN_MAX, PACK_HEADER_LEN, SnapshotIndex};
use crate::mutant::{Rule, removed};
use crate::sync::Arc;

/// A snapshot that is being written. Bytes go in by [`io::Write`], in pieces of any size; they are in the snapshot once
/// [`commit`](Creation::commit) has returned. Dropped before that, nothing of it remains.
///
/// After an error every further call returns the same one: create the snapshot anew. Those that were there before are not touched.
///
/// Memory: some five times the largest chunk, and about 200 bytes for each chunk.
pub struct Creation {
    shared: Arc<Shared>,
    draft: Draft,
    /// Bytes that are not cut yet, from `cut` on.
    buffer: Vec<u8>,
    cut: usize,
    chunks: Vec<ChunkPlace>,
    /// Every chunk so far: what comes twice in one state is stored once.
    known: HashMap<ChunkName, ChunkPlace>,
    pack: Option<PackUpload>,
    /// Packs of chunks that are shared, once for each time that one was asked for.
    held: Vec<u64>,
    /// Reads chunks that may be shared.
    hits: Packs,
    len: u64,
    shares: Count,
    healed: Count,
    failed: Option<Error>,
}

const PERHAPS: &str = "the snapshot may or may not be there when the store is opened again";

impl Creation {
    pub(super) fn new(shared: Arc<Shared>, draft: Draft) -> Result<Creation> {
        if draft.metadata.len() > METADATA_LEN_MAX {
            let text = format!(
                "{} bytes of metadata; at most {METADATA_LEN_MAX}",
                draft.metadata.len()
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        Ok(Creation {
            buffer: Vec::new(),
            cut: 0,
            chunks: Vec::new(),
            known: HashMap::new(),
            pack: None,
            held: Vec::new(),
            hits: Packs::past_cache(&shared.objects).paced(draft.pace.clone()),
            len: 0,
            shares: Count::default(),
            healed: Count::default(),
            failed: None,
            draft,
            shared,
        })
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Sets the digest of the state, where it is known only now.
    pub fn set_digest(&mut self, digest: [u8; 32]) {
        self.draft.digest = Some(digest);
    }

    /// Sets the caller's metadata, where they are known only now; too many are refused by [`commit`](Creation::commit).
    pub fn set_metadata(&mut self, metadata: impl Into<bytes::Bytes>) {
        self.draft.metadata = metadata.into();
    }

    /// Takes a whole chunk as it was cut elsewhere, so that the copy of a snapshot gets the same chunks and the same id. What
    /// was written before it and is not cut yet is a chunk of its own.
    ///
    /// Errors: `Invalid` if `bytes` are not those of `name`, or too many; otherwise those of writing.
    pub fn append_chunk(&mut self, name: &ChunkName, bytes: &[u8]) -> Result<()> {
        self.going()?;
        let len_max = crate::format::CHUNK_LEN_MAX as usize;
        if bytes.is_empty() || bytes.len() > len_max || ChunkName::of(bytes) != *name {
            let text = format!("these {} bytes are not those of chunk {name}", bytes.len());
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let done = self.cut_all().and_then(|()| self.place(*name, bytes));
        self.len += bytes.len() as u64;
        self.keep_error(done)
    }

    /// The same for a chunk that the store has already: true if it is there as it should be, and is now a part of this snapshot.
    /// False if it is not, and nothing was done.
    ///
    /// Errors: those of writing.
    pub fn append_known(&mut self, name: &ChunkName) -> Result<bool> {
        self.going()?;
        let done = self.cut_all().and_then(|()| self.share_by_name(name));
        self.keep_error(done)
    }

    /// Makes the snapshot durable and lists it. On return its chunks, its index and their names have been synced, in this order,
    /// and, unless the setting says no, read back.
    ///
    /// Errors: `NoSpace` and `Io`: it is not there, and nothing else has changed. `Damaged`: what was stored does not read back; it is
    /// not there. `Unknown`: it may or may not be there when the store is opened again. `Invalid`: too many metadata.
    pub fn commit(mut self) -> Result<Committed> {
        let done = self.try_commit();
        match &done {
            // The index may come to light at the next opening: whatever it names stays until then.
            Err(error) if error.kind() == ErrorKind::Unknown => self.held.clear(),
            Err(_) => self.forget_pack(),
            Ok(_) => {}
        }
        done
    }

    /// A pack that no index will name is of no use. If it cannot be removed now, the next collection does it.
    fn forget_pack(&self) {
        let Some(pack) = self.pack.as_ref().filter(|pack| pack.is_finished()) else {
            return;
        };
        let _changing = self.shared.changing.lock();
        if let Err(error) = self.shared.objects.delete(&[names::pack(pack.number)]) {
            tracing::debug!(%error, "the pack of a failed creation could not be removed");
        }
    }

    fn try_commit(&mut self) -> Result<Committed> {
        self.going()?;
        self.cut_all()?;
        let number = self.pack.as_ref().map(|pack| pack.number);
        let index = self.index()?;
        let shared = Arc::clone(&self.shared);
        if removed(Rule::PackBeforeIndex) {
            let index = shared.put_index(index)?;
            self.finish_pack()?;
            return self.committed(index, ReadBack::No, None);
        }
        self.finish_pack()?;
        let read_back = self.read_back(number)?;
        let now = shared.objects.now_micros();
        let changing = shared.changing.lock();
        let put = shared.put_index(index).and_then(|index| {
            let past_cache = read_back == ReadBack::No || shared.read_index_back(&index)?;
            let read_back = match past_cache {
                true => read_back,
                false => ReadBack::PerhapsCached,
            };
            Ok((index, read_back))
        });
        let (index, read_back) = put?;
        let verified = (read_back != ReadBack::No).then_some(now);
        let committed = self.committed(index, read_back, verified);
        drop(changing);
        committed
    }

    fn committed(
        &self,
        index: SnapshotIndex,
        read_back: ReadBack,
        verified: Option<u64>,
    ) -> Result<Committed> {
        let snapshot = Snapshot::of(&index);
        let own = self.pack.as_ref().map(|pack| pack.number);
        self.shared.take_in(index, own, verified);
        tracing::info!(id = %snapshot.id, log = %snapshot.log, covers = %snapshot.covers, bytes = snapshot.bytes,
            new_bytes = snapshot.new_bytes, "a snapshot was committed");
        Ok(Committed {
            snapshot,
            shared: self.shares,
            healed: self.healed,
            read_back,
        })
    }

    /// The error that ended it.
    fn going(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn keep_error<T>(&mut self, done: Result<T>) -> Result<T> {
        if let Err(error) = &done {
            self.failed = Some(error.clone());
        }
        done
    }

    /// The index, but for its generation.
    fn index(&mut self) -> Result<SnapshotIndex> {
        let draft = &self.draft;
        let header = PACK_HEADER_LEN as u64;
        let mut index = SnapshotIndex {
            id: [0; 32],
            generation: 0,
            origin: draft.origin.to_u8(),
            log: draft.log,
            covers: draft.covers,
            created: draft
                .created_micros
                .unwrap_or_else(|| self.shared.objects.now_micros()),
            len: self.len,
            new_len: self.pack.as_ref().map_or(0, |pack| pack.at - header),
            digest: draft.digest,
            metadata: draft.metadata.clone(),
            chunks: std::mem::take(&mut self.chunks),
        };
        index
            .check()
            .map_err(|bad| Error::new(ErrorKind::Invalid, format!("no index can hold this: {bad}")))?;
        index.id = index.compute_id();
        Ok(index)
    }

    /// Cuts and places all chunks of which enough is there to know where they end.
    fn cut_full(&mut self) -> Result<()> {
        let least = self.shared.config.chunk_max as usize;
        self.cut_while(least)
    }

    /// Cuts and places everything.
    fn cut_all(&mut self) -> Result<()> {
        self.cut_while(0)?;
        self.buffer.clear();
        self.cut = 0;
        Ok(())
    }

    /// Cuts and places chunks as long as at least `least` bytes are left.
    fn cut_while(&mut self, least: usize) -> Result<()> {
        let config = &self.shared.config;
        let sizes = Sizes {
            min: config.chunk_min,
            average: config.chunk_average,
            max: config.chunk_max,
        };
        // Taken out, so that it can be borrowed while chunks are placed.
        let buffer = std::mem::take(&mut self.buffer);
        let rest = &buffer[self.cut..];
        let placed = cut::chunks(rest, sizes, least)
            .into_iter()
            .try_for_each(|(range, name)| {
                self.cut += range.len();
                self.place(name, &rest[range])
            });
        self.buffer = buffer;
        placed
    }

    /// Appends a chunk to the snapshot: what it has already, what the store has, or a new one.
    fn place(&mut self, name: ChunkName, bytes: &[u8]) -> Result<()> {
        if let Some(place) = self.known.get(&name) {
            self.chunks.push(*place);
            return Ok(());
        }
        let place = match self.shared_place(&name, Some(bytes))? {
            Some(place) => {
                self.shares.add(bytes.len());
                place
            }
            None => self.store(name, bytes)?,
        };
        self.known.insert(name, place);
        self.chunks.push(place);
        Ok(())
    }

    fn share_by_name(&mut self, name: &ChunkName) -> Result<bool> {
        let place = match self.known.get(name) {
            Some(place) => Some(*place),
            None => self.shared_place(name, None)?,
        };
        let Some(place) = place else {
            return Ok(false);
        };
        if self.known.insert(*name, place).is_none() {
            self.shares.add(place.len as usize);
        }
        self.len += u64::from(place.len);
        self.chunks.push(place);
        Ok(true)
    }

    /// Where a committed snapshot has the chunk, if it is there as it should be. Its pack is held from before it is looked at, so
    /// that no collection takes it.
    fn shared_place(&mut self, name: &ChunkName, bytes: Option<&[u8]>) -> Result<Option<ChunkPlace>> {
        let Some((known, held)) = self.shared.state.lock().hold_chunk(name) else {
            return Ok(None);
        };
        if held {
            self.held.push(known.place.pack);
        }
        let now = self.shared.objects.now_micros();
        let trusted = |verified: u64| later(verified, self.shared.config.trusted_for) > now;
        if known.verified_micros.is_some_and(trusted) || removed(Rule::SharesVerified) {
            return Ok(Some(known.place));
        }
        let mut found = Vec::new();
        let error = match self.hits.read(&known.place, &mut found) {
            Ok(_) => {
                self.shared.state.lock().judge(&known.place, Some(now));
                return Ok(Some(known.place));
            }
            Err(error) => error,
        };
        if removed(Rule::SharesWhole) && self.hits.is_short(&known.place) {
            return Ok(Some(known.place));
        }
        tracing::warn!(chunk = %name, %error, "a stored chunk does not read as it should");
        self.shared.state.lock().judge(&known.place, None);
        if let Some(bytes) = bytes {
            self.healed.add(bytes.len());
        }
        Ok(None)
    }

    /// Appends a new chunk to the pack.
    fn store(&mut self, name: ChunkName, bytes: &[u8]) -> Result<ChunkPlace> {
        let pack = match &mut self.pack {
            Some(pack) => pack,
            None => {
                let pack = PackUpload::new(&self.shared, self.draft.pace.clone())?;
                // From the moment that it has its name until an index names it, only this keeps it from being collected.
                if self.shared.state.lock().hold(pack.number) {
                    self.held.push(pack.number);
                }
                self.pack.insert(pack)
            }
        };
        let place = pack.append(&self.shared, name, bytes)?;
        self.shared.state.lock().learn_early(&place, u64::MAX);
        Ok(place)
    }

    fn finish_pack(&mut self) -> Result<()> {
        self.pack
            .as_mut()
            .map_or(Ok(()), |pack| pack.finish(&self.shared))
    }

    /// Reads the new chunks, past the cache.
    fn read_back(&self, number: Option<u64>) -> Result<ReadBack> {
        if !self.shared.config.read_back {
            return Ok(ReadBack::No);
        }
        let mut packs = Packs::past_cache(&self.shared.objects).paced(self.draft.pace.clone());
        let mut bytes = Vec::new();
        let mut places: Vec<&ChunkPlace> = self
            .known
            .values()
            .filter(|place| Some(place.pack) == number)
            .collect();
        places.sort_by_key(|place| place.offset);
        let mut past_cache = true;
        for place in places {
            match packs.read(place, &mut bytes) {
                Ok(evicted) => past_cache &= evicted,
                Err(_) if removed(Rule::ReadBackIsChecked) => {}
                Err(e) if [ErrorKind::NotFound, ErrorKind::Damaged].contains(&e.kind()) => {
                    return Err(e.recast(ErrorKind::Damaged, "a new chunk does not read back"));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(match past_cache {
            true => ReadBack::PastCache,
            false => ReadBack::PerhapsCached,
        })
    }
}

impl Write for Creation {
    /// Takes as much as there is room for, at least one byte.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.going()?;
        let room = 4 * self.shared.config.chunk_max as usize;
        if self.buffer.len() == room || self.cut == self.buffer.len() {
            self.buffer.drain(..self.cut);
            self.cut = 0;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(room);
        }
        let count = bytes.len().min(room - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        self.len += count as u64;
        if self.buffer.len() == room {
            // All at once, so that two threads share the work.
            let done = self.cut_full();
            self.keep_error(done)?;
        }
        Ok(count)
    }

    /// Does nothing: what is written is durable once it is committed.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        self.shared.state.lock().release(self.held.drain(..));
    }
}

impl std::fmt::Debug for Creation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Creation")
            .field("draft", &self.draft)
            .field("bytes", &self.len)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Puts the index under its next generation. `changing` is held.
    pub(super) fn put_index(&self, mut index: SnapshotIndex) -> Result<SnapshotIndex> {
        let id = SnapshotId(index.id);
        index.generation = self.state.lock().next_generation(id);
        let name = names::index(id, index.generation);
        let path = self.objects.display(&name);
        let io = |doing: &'static str| {
            let path = path.clone();
            move |e: io::Error| Error::io(path, doing, e)
        };
        let mut upload = self.objects.put(&name).map_err(io("create the index"))?;
        upload.write_all(&index.encode()).map_err(io("write the index"))?;
        upload.sync().map_err(io("sync the index"))?;
        upload.publish().map_err(|e| {
            let error = io("name the index")(e);
            error.recast(ErrorKind::Unknown, PERHAPS)
        })?;
        Ok(index)
    }

    /// Reads an index that was put, past the cache: true if it surely came from the device. If it does not read back, it goes again.
    pub(super) fn read_index_back(&self, index: &SnapshotIndex) -> Result<bool> {
        let objects = &self.objects;
        let name = names::index(SnapshotId(index.id), index.generation);
        let read = objects
            .get(&name)
            .and_then(|object| Ok((object.evict()?, read_all(&*object)?)));
        let read = read.map_err(|e| Error::io(objects.display(&name), "read the index back", e));
        let found =
            read.and_then(
                |(past_cache, bytes)| match bytes.map(|bytes| SnapshotIndex::decode(&bytes)) {
                    Some(Ok(found)) if found == *index => Ok(past_cache),
                    _ => {
                        let text = "the new index does not read back";
                        let path = objects.display(&name);
                        Err(Error::at_offset(ErrorKind::Damaged, path, 0, text))
                    }
                },
            );
        found.map_err(|error| match objects.delete(&[name]) {
            Ok(()) => error,
            Err(_) => error.recast(ErrorKind::Unknown, PERHAPS),
        })
    }

    /// Lists a committed snapshot; the chunks in the pack `own` are new, and were read back at `verified`. The indexes that it
    /// replaces go.
    pub(super) fn take_in(&self, index: SnapshotIndex, own: Option<u64>, verified: Option<u64>) {
        let index = Arc::new(index);
        let mut state = self.state.lock();
        let replaced = state.insert(Arc::clone(&index), own);
        for place in index.chunks.iter().filter(|place| Some(place.pack) == own) {
            if verified.is_some() {
                state.judge(place, verified);
            }
        }
        if let Some(old) = replaced {
            state.stale.push(names::index(SnapshotId(old.id), old.generation));
        }
        state.supersede_unreadable(SnapshotId(index.id));
    }
}
