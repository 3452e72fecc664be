//! Reading chunks: open packs, their headers checked, and each chunk verified by its name.

use std::io;

use super::codec;
use super::names::{self, ChunkName};
use super::objects::{Object, Objects};
use super::pace::{Pace, READ_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Bad, ChunkPlace, Codec, PACK_HEADER_LEN, PackHeader};
use crate::mutant::{Rule, removed};
use crate::sync::Arc;

/// Open packs of one reader, the last used first; bounds the descriptors that it holds.
#[derive(Debug)]
pub(super) struct Packs {
    objects: Arc<dyn Objects>,
    open: Vec<Pack>,
    /// Each pack is asked to forget what memory holds of it when it is opened.
    past_cache: bool,
    pace: Option<Pace>,
    /// The stored form of the last chunk.
    stored: Vec<u8>,
}

#[derive(Debug)]
struct Pack {
    number: u64,
    object: Arc<dyn Object>,
    len: u64,
    /// Reads come from the device.
    evicted: bool,
}

const OPEN_MAX: usize = 32;

impl Packs {
    /// Reads through the cache.
    pub(super) fn new(objects: &Arc<dyn Objects>) -> Packs {
        Packs {
            objects: Arc::clone(objects),
            open: Vec::new(),
            past_cache: false,
            pace: None,
            stored: Vec::new(),
        }
    }

    /// Reads what is kept, and not what memory holds of it: a pack never changes, so whatever comes into memory after it
    /// was told to forget came from the device.
    pub(super) fn past_cache(objects: &Arc<dyn Objects>) -> Packs {
        Packs {
            past_cache: !removed(Rule::VerifiesPastCache),
            ..Packs::new(objects)
        }
    }

    /// The same, gently.
    pub(super) fn paced(self, pace: Option<Pace>) -> Packs {
        Packs { pace, ..self }
    }

    /// Reads the chunk at `place` into `into`, and verifies it. True if it surely came from the device.
    ///
    /// `Damaged` with the pack and the offset if it is not there as it should be, `NotFound` if the pack is missing,
    /// `Unsupported` if this build cannot read it, `Io` if the system refused.
    pub(super) fn read(&mut self, place: &ChunkPlace, into: &mut Vec<u8>) -> Result<bool> {
        self.open(place.pack)?;
        let Packs {
            open,
            stored,
            objects,
            pace,
            ..
        } = self;
        let pack = &open[0];
        let path = || objects.display(&names::pack(place.pack));
        let damaged = |what: String| Error::at_offset(ErrorKind::Damaged, path(), place.offset, what);
        let end = place.offset + u64::from(place.stored_len);
        if end > pack.len {
            let (name, len) = (ChunkName(place.name), pack.len);
            return Err(damaged(format!(
                "the pack ends at {len}, within chunk {name} up to {end}"
            )));
        }
        let buffer = match place.codec {
            Codec::Raw => &mut *into,
            Codec::Zstd => &mut *stored,
        };
        buffer.resize(place.stored_len as usize, 0);
        read(&*pack.object, buffer, place.offset, pace.as_ref()).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged(format!("the pack ends before {end}")),
            _ => Error::io_at(path(), place.offset, "read a chunk", e),
        })?;
        if place.codec == Codec::Zstd {
            codec::decompress(stored, place.len as usize, into).map_err(|e| match e {
                codec::Failure::Unsupported => Error::at_offset(
                    ErrorKind::Unsupported,
                    path(),
                    place.offset,
                    "the chunk is compressed with zstd; this build lacks the cargo feature `zstd`",
                ),
                codec::Failure::Damaged(what) => damaged(what),
            })?;
        }
        let sound = ChunkName::of(into).0 == place.name;
        if !sound && !removed(Rule::ChunkIsVerified) {
            let name = ChunkName(place.name);
            return Err(damaged(format!(
                "the {} bytes here are not those of chunk {name}",
                place.stored_len
            )));
        }
        Ok(pack.evicted)
    }

    /// Whether the pack ends before the chunk does.
    pub(super) fn is_short(&mut self, place: &ChunkPlace) -> bool {
        let end = place.offset + u64::from(place.stored_len);
        self.open(place.pack).is_ok() && self.open[0].len < end
    }

    /// Brings the pack to the front.
    fn open(&mut self, number: u64) -> Result<()> {
        if let Some(at) = self.open.iter().position(|pack| pack.number == number) {
            self.open[..=at].rotate_right(1);
            return Ok(());
        }
        let pack = self.open_anew(number)?;
        self.open.truncate(OPEN_MAX - 1);
        self.open.insert(0, pack);
        Ok(())
    }

    fn open_anew(&self, number: u64) -> Result<Pack> {
        let name = names::pack(number);
        let path = || self.objects.display(&name);
        let io = |doing: &'static str| {
            move |e: io::Error| Error::io(self.objects.display(&names::pack(number)), doing, e)
        };
        let object = self.objects.get(&name).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::at(ErrorKind::NotFound, path(), "the pack is missing"),
            _ => Error::io(path(), "open the pack", e),
        })?;
        let evicted = self.past_cache && object.evict().map_err(io("ask for reads past the cache"))?;
        if self.pace.is_some() {
            object
                .read_nothing_ahead()
                .map_err(io("ask for reads without more behind them"))?;
        }
        let len = object.len().map_err(io("ask for the size of the pack"))?;
        let mut header = [0; PACK_HEADER_LEN];
        let read = match len >= PACK_HEADER_LEN as u64 {
            true => object.read_exact_at(&mut header, 0),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let found = match read {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Bad::Short),
            Err(e) => return Err(Error::io_at(path(), 0, "read the header of the pack", e)),
            Ok(()) => PackHeader::decode(&header),
        };
        match found {
            Ok(found) if found.number == number => Ok(Pack {
                number,
                object,
                len,
                evicted,
            }),
            Ok(found) => {
                let text = format!("the header says that this is pack {:016x}", found.number);
                Err(Error::at_offset(ErrorKind::Damaged, path(), 0, text))
            }
            Err(bad) => Err(refused(bad, path(), "the header of the pack")),
        }
    }
}

/// Reads at once, or piece by piece.
fn read(object: &dyn Object, buffer: &mut [u8], offset: u64, pace: Option<&Pace>) -> io::Result<()> {
    let Some(pace) = pace else {
        return object.read_exact_at(buffer, offset);
    };
    let mut at = offset;
    for piece in buffer.chunks_mut(READ_BYTES) {
        pace.read(|| object.read_exact_at(piece, at))?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// What `bad` means of the object at `path`.
pub(super) fn refused(bad: Bad, path: std::path::PathBuf, what: &str) -> Error {
    let kind = match bad.is_newer() {
        true => ErrorKind::Unsupported,
        false => ErrorKind::Damaged,
    };
    Error::at_offset(kind, path, 0, format!("{what}: {bad}"))
}
