//! Writing a pack: chunks, one behind the other, then a sync, then the name.

use std::io;

use super::codec;
use super::names::{self, ChunkName};
use super::objects::Upload;
use super::pace::{Pace, WRITE_BYTES};
use super::store::Shared;
use crate::error::{Error, Result};
use crate::format::{ChunkPlace, Codec, PACK_HEADER_LEN, PackHeader};

/// A pack that is being written. Dropped before it is finished, it was never there.
pub(super) struct PackUpload {
    /// `None` once it has its name.
    upload: Option<Box<dyn Upload>>,
    pub(super) number: u64,
    pub(super) at: u64,
    /// Small chunks gather here.
    gathered: Vec<u8>,
    /// The stored form of a chunk.
    scratch: Vec<u8>,
    pace: Option<Pace>,
    /// Bytes that were written since the last sync.
    unsynced: usize,
}

/// So many bytes are written at once, unless a chunk is larger.
const GATHER_BYTES: usize = 1 << 20;

impl PackUpload {
    pub(super) fn new(shared: &Shared, pace: Option<Pace>) -> Result<PackUpload> {
        let number = shared.objects.random().max(1);
        let name = names::pack(number);
        let upload = shared
            .objects
            .put(&name)
            .map_err(|e| Error::io(shared.objects.display(&name), "create the pack", e))?;
        let header = PackHeader { compat: 0, number };
        Ok(PackUpload {
            upload: Some(upload),
            number,
            at: PACK_HEADER_LEN as u64,
            gathered: header.encode().to_vec(),
            scratch: Vec::new(),
            pace,
            unsynced: 0,
        })
    }

    /// Appends a chunk.
    pub(super) fn append(&mut self, shared: &Shared, name: ChunkName, bytes: &[u8]) -> Result<ChunkPlace> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let (codec, stored) = codec::encode(shared.config.compression, bytes, &mut scratch);
        let place = self.append_stored(shared, name, bytes.len(), codec, stored);
        self.scratch = scratch;
        place
    }

    fn append_stored(
        &mut self,
        shared: &Shared,
        name: ChunkName,
        len: usize,
        codec: Codec,
        stored: &[u8],
    ) -> Result<ChunkPlace> {
        let place = ChunkPlace {
            name: name.0,
            pack: self.number,
            offset: self.at,
            stored_len: u32::try_from(stored.len()).expect("no chunk is as long"),
            len: u32::try_from(len).expect("no chunk is as long"),
            codec,
        };
        if stored.len() > GATHER_BYTES / 4 || self.gathered.len() + stored.len() > GATHER_BYTES {
            self.write_gathered(shared)?;
        }
        if stored.len() > GATHER_BYTES / 4 {
            self.write(shared, stored)?;
        } else {
            self.gathered.extend_from_slice(stored);
        }
        self.at += stored.len() as u64;
        Ok(place)
    }

    /// Whether it has been handed over: it has its name, or failed to get it.
    pub(super) fn is_finished(&self) -> bool {
        self.upload.is_none()
    }

    /// Syncs the pack, and gives it its name for good.
    pub(super) fn finish(&mut self, shared: &Shared) -> Result<()> {
        self.write_gathered(shared)?;
        let Some(mut upload) = self.upload.take() else {
            return Ok(());
        };
        upload.sync().map_err(|e| self.io(shared, "sync the pack", e))?;
        upload.publish().map_err(|e| self.io(shared, "name the pack", e))
    }

    fn write_gathered(&mut self, shared: &Shared) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        self.write(shared, &gathered)?;
        self.gathered = gathered;
        self.gathered.clear();
        Ok(())
    }

    fn write(&mut self, shared: &Shared, bytes: &[u8]) -> Result<()> {
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        let written = match &self.pace {
            None if bytes.is_empty() => Ok(()),
            None => upload.write_all(bytes),
            Some(pace) => bytes.chunks(WRITE_BYTES).try_for_each(|piece| {
                pace.write(|| {
                    upload.write_all(piece)?;
                    self.unsynced += piece.len();
                    if self.unsynced < WRITE_BYTES {
                        return Ok(());
                    }
                    self.unsynced = 0;
                    upload.sync_early()
                })
            }),
        };
        written.map_err(|e| self.io(shared, "write the pack", e))
    }

    fn io(&self, shared: &Shared, doing: &str, e: io::Error) -> Error {
        Error::io(shared.objects.display(&names::pack(self.number)), doing, e)
    }
}
