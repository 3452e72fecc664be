//! Index of a snapshot: what it is of, and its chunks in order. The snapshot exists when its index has its name.
//!
//! ```text
//! offset  size  field
//!      0     8  magic          "EVERLOGX"
//!      8     4  crc            over bytes 12.. to the end of the file, in every version
//!     12     2  version        1
//!     14     1  origin         1 own checkpoint, 2 installed, 3 of a machine that persists itself
//!     15     1  flags          bit 0: there is a digest; the others are zero, refused otherwise
//!     16     8  features       features a reader must know; an unknown one is refused
//!     24     8  compat         features a reader may ignore
//!     32    32  id             of the snapshot, see below
//!     64     8  generation     counts the indexes of this snapshot: the one with the highest counts
//!     72     8  log            key of the log
//!     80    16  covers_term    id of the last entry whose effect is in the snapshot
//!     96     8  covers_index
//!    104     8  created        microseconds since 1970
//!    112     8  len            bytes of the state: the sum of the chunks' len
//!    120     8  new_len        bytes that were stored for it when it was created
//!    128    32  digest         of the state, by whatever its owner computes; zero without one
//!    160    16  key_id         zero (reserved for encryption), refused otherwise
//!    176     4  chunks         their number
//!    180     4  metadata_len   at most 1 MiB
//!    184     8  zero           refused otherwise
//!    192        chunks, 64 bytes each, in the order of the state
//!               metadata, to the end of the file
//!
//! Chunk:
//!      0    32  name           blake3 of its uncompressed bytes
//!     32     8  pack           number of the pack, not zero
//!     40     8  offset         in the pack, at least 64
//!     48     4  stored_len     bytes in the pack: `len` if raw, fewer if compressed
//!     52     4  len            uncompressed bytes, 1 to 16 MiB
//!     56     1  codec          0 raw, 1 zstd
//!     57     7  zero           refused otherwise
//! ```
//!
//! The id is the blake3 hash, in the mode and context of [`ID_CONTEXT`], of: log (8), covers_term (16), covers_index (8),
//! created (8), whether there is a digest (1), digest (32), metadata_len (4), metadata, and of each chunk its name (32) and
//! len (4). It covers what the snapshot is and not where its chunks lie, nor how they came here: a copy on another
//! machine, and one whose packs were rewritten, have the same.

use core::ops::Range;

use bytes::Bytes;

use crate::format::field::{array, field, get_u16, get_u32, get_u64, get_u128, is_zero, put};
use crate::format::{Bad, require};
use crate::mutant::{Rule, removed};
use crate::types::{EntryId, LogKey, Term};

use super::{CHUNK_LEN_MAX, Codec, PACK_HEADER_LEN, PACK_LEN_MAX, SNAPSHOT_VERSION, check_version};

const MAGIC: Range<usize> = field(0, 8);
const CRC: Range<usize> = field(MAGIC.end, 4);
const VERSION_AT: Range<usize> = field(CRC.end, 2);
const ORIGIN: Range<usize> = field(VERSION_AT.end, 1);
const FLAGS: Range<usize> = field(ORIGIN.end, 1);
const FEATURES: Range<usize> = field(FLAGS.end, 8);
const COMPAT: Range<usize> = field(FEATURES.end, 8);
const ID: Range<usize> = field(COMPAT.end, 32);
const GENERATION: Range<usize> = field(ID.end, 8);
const LOG: Range<usize> = field(GENERATION.end, 8);
const COVERS_TERM: Range<usize> = field(LOG.end, 16);
const COVERS_INDEX: Range<usize> = field(COVERS_TERM.end, 8);
const CREATED: Range<usize> = field(COVERS_INDEX.end, 8);
const LEN: Range<usize> = field(CREATED.end, 8);
const NEW_LEN: Range<usize> = field(LEN.end, 8);
const DIGEST: Range<usize> = field(NEW_LEN.end, 32);
const KEY_ID: Range<usize> = field(DIGEST.end, 16);
const CHUNKS: Range<usize> = field(KEY_ID.end, 4);
const METADATA_LEN: Range<usize> = field(CHUNKS.end, 4);
const ZERO: Range<usize> = field(METADATA_LEN.end, 8);
const HEADER_LEN: usize = ZERO.end;
const _: () = assert!(HEADER_LEN == 192); // the table above
const MAGIC_BYTES: [u8; 8] = *b"EVERLOGX";
const FLAG_DIGEST: u8 = 1;

/// The fields of a chunk.
mod chunk {
    use super::{Range, field};

    pub(super) const NAME: Range<usize> = field(0, 32);
    pub(super) const PACK: Range<usize> = field(NAME.end, 8);
    pub(super) const OFFSET: Range<usize> = field(PACK.end, 8);
    pub(super) const STORED_LEN: Range<usize> = field(OFFSET.end, 4);
    pub(super) const LEN: Range<usize> = field(STORED_LEN.end, 4);
    pub(super) const CODEC: Range<usize> = field(LEN.end, 1);
    pub(super) const ZERO: Range<usize> = field(CODEC.end, 7);
    pub(super) const BYTES: usize = ZERO.end;
    const _: () = assert!(BYTES == 64); // the table above
}

/// What blake3 derives the key of ids from.
const ID_CONTEXT: &str = "everlog snapshot id, version 1";

/// Bound on the caller's metadata in bytes.
pub(crate) const METADATA_LEN_MAX: usize = 1 << 20;
const CHUNKS_MAX: u32 = 1 << 24;
/// Bound on the bytes of an index: nobody reads a larger file in the belief that it is one.
pub(crate) const INDEX_LEN_MAX: u64 =
    HEADER_LEN as u64 + CHUNKS_MAX as u64 * chunk::BYTES as u64 + METADATA_LEN_MAX as u64;
const _: () = assert!(INDEX_LEN_MAX == 192 + 0x4000_0000 + 0x10_0000); // 16 million chunks

/// A chunk of a snapshot, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    /// Blake3 of the uncompressed bytes.
    pub name: [u8; 32],
    pub pack: u64,
    pub offset: u64,
    pub stored_len: u32,
    /// Uncompressed bytes.
    pub len: u32,
    pub codec: Codec,
}

/// A decoded index; the fields are those of the table above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotIndex {
    pub id: [u8; 32],
    pub generation: u64,
    /// 1 to 3.
    pub origin: u8,
    pub log: LogKey,
    pub covers: EntryId,
    /// Microseconds since 1970.
    pub created: u64,
    pub len: u64,
    pub new_len: u64,
    pub digest: Option<[u8; 32]>,
    pub metadata: Bytes,
    pub chunks: Vec<ChunkPlace>,
}

impl SnapshotIndex {
    /// Reads and checks a whole index file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SnapshotIndex, Bad> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Bad::Short)?;
        if header[MAGIC] != MAGIC_BYTES {
            return Err(if is_zero(bytes) { Bad::Blank } else { Bad::Magic });
        }
        let sound = crc32fast::hash(&bytes[CRC.end..]) == get_u32(header, CRC);
        if !sound && !removed(Rule::SnapshotIndexCrc) {
            return Err(Bad::Crc);
        }
        check_version(get_u16(header, VERSION_AT), get_u64(header, FEATURES))?;
        require(is_zero(&header[ZERO]), "zero")?;
        require(is_zero(&header[KEY_ID]), "key_id")?;
        let chunks = chunk_count(header)?;
        let metadata_len = usize::try_from(get_u32(header, METADATA_LEN)).unwrap_or(usize::MAX);
        require(metadata_len <= METADATA_LEN_MAX, "metadata_len")?;
        let (table, metadata) = bytes[HEADER_LEN..]
            .split_at_checked(chunks * chunk::BYTES)
            .ok_or(Bad::Short)?;
        require(metadata.len() == metadata_len, "metadata_len")?;
        let index = SnapshotIndex {
            id: array(header, ID),
            generation: get_u64(header, GENERATION),
            origin: header[ORIGIN.start],
            log: LogKey(get_u64(header, LOG)),
            covers: EntryId {
                term: Term(get_u128(header, COVERS_TERM)),
                index: get_u64(header, COVERS_INDEX),
            },
            created: get_u64(header, CREATED),
            len: get_u64(header, LEN),
            new_len: get_u64(header, NEW_LEN),
            digest: decode_digest(header)?,
            metadata: Bytes::copy_from_slice(metadata),
            chunks: table
                .chunks_exact(chunk::BYTES)
                .map(decode_chunk)
                .collect::<Result<_, _>>()?,
        };
        index.check()?;
        require(index.id == index.compute_id(), "id")?;
        Ok(index)
    }

    /// The index's bytes, crc included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(self.check(), Ok(()));
        let count = u32::try_from(self.chunks.len()).expect("checked");
        let metadata_len = u32::try_from(self.metadata.len()).expect("checked");
        let flags = if self.digest.is_some() { FLAG_DIGEST } else { 0 };
        let table_len = self.chunks.len() * chunk::BYTES;
        let mut out = vec![0; HEADER_LEN];
        out.reserve_exact(table_len + self.metadata.len());
        put(&mut out, MAGIC, MAGIC_BYTES);
        put(&mut out, VERSION_AT, SNAPSHOT_VERSION.to_le_bytes());
        put(&mut out, ORIGIN, [self.origin]);
        put(&mut out, FLAGS, [flags]);
        put(&mut out, ID, self.id);
        put(&mut out, GENERATION, self.generation.to_le_bytes());
        put(&mut out, LOG, self.log.0.to_le_bytes());
        put(&mut out, COVERS_TERM, self.covers.term.0.to_le_bytes());
        put(&mut out, COVERS_INDEX, self.covers.index.to_le_bytes());
        put(&mut out, CREATED, self.created.to_le_bytes());
        put(&mut out, LEN, self.len.to_le_bytes());
        put(&mut out, NEW_LEN, self.new_len.to_le_bytes());
        put(&mut out, DIGEST, self.digest.unwrap_or_default());
        put(&mut out, CHUNKS, count.to_le_bytes());
        put(&mut out, METADATA_LEN, metadata_len.to_le_bytes());
        for place in &self.chunks {
            out.extend_from_slice(&encode_chunk(place));
        }
        out.extend_from_slice(&self.metadata);
        let crc = crc32fast::hash(&out[CRC.end..]);
        put(&mut out, CRC, crc.to_le_bytes());
        out
    }

    /// The id that the contents give.
    pub(crate) fn compute_id(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hasher.update(&self.log.0.to_le_bytes());
        hasher.update(&self.covers.term.0.to_le_bytes());
        hasher.update(&self.covers.index.to_le_bytes());
        hasher.update(&self.created.to_le_bytes());
        hasher.update(&[u8::from(self.digest.is_some())]);
        hasher.update(&self.digest.unwrap_or_default());
        let metadata_len = u32::try_from(self.metadata.len()).unwrap_or(u32::MAX);
        hasher.update(&metadata_len.to_le_bytes());
        hasher.update(&self.metadata);
        for place in &self.chunks {
            hasher.update(&place.name);
            hasher.update(&place.len.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Everything that holds for every index that is written, but for its id.
    pub(crate) fn check(&self) -> Result<(), Bad> {
        require((1..=3).contains(&self.origin), "origin")?;
        require(self.chunks.len() <= CHUNKS_MAX as usize, "chunks")?;
        require(self.metadata.len() <= METADATA_LEN_MAX, "metadata_len")?;
        self.chunks.iter().try_for_each(check_chunk)?;
        let sum: u64 = self.chunks.iter().map(|place| u64::from(place.len)).sum();
        require(sum == self.len, "len")
    }
}

fn chunk_count(header: &[u8; HEADER_LEN]) -> Result<usize, Bad> {
    let chunks = get_u32(header, CHUNKS);
    require(chunks <= CHUNKS_MAX, "chunks")?;
    usize::try_from(chunks).map_err(|_| Bad::Field("chunks"))
}

fn decode_digest(header: &[u8; HEADER_LEN]) -> Result<Option<[u8; 32]>, Bad> {
    let flags = header[FLAGS.start];
    require(flags & !FLAG_DIGEST == 0, "flags")?;
    let digest = array(header, DIGEST);
    if flags & FLAG_DIGEST != 0 {
        return Ok(Some(digest));
    }
    require(is_zero(&digest), "digest")?;
    Ok(None)
}

/// Reads the chunk in `bytes`, which are as many as a chunk has.
fn decode_chunk(bytes: &[u8]) -> Result<ChunkPlace, Bad> {
    require(is_zero(&bytes[chunk::ZERO]), "zero")?;
    Ok(ChunkPlace {
        name: array(bytes, chunk::NAME),
        pack: get_u64(bytes, chunk::PACK),
        offset: get_u64(bytes, chunk::OFFSET),
        stored_len: get_u32(bytes, chunk::STORED_LEN),
        len: get_u32(bytes, chunk::LEN),
        codec: Codec::from_u8(bytes[chunk::CODEC.start]).ok_or(Bad::Field("codec"))?,
    })
}

fn encode_chunk(place: &ChunkPlace) -> [u8; chunk::BYTES] {
    let mut out = [0; chunk::BYTES];
    put(&mut out, chunk::NAME, place.name);
    put(&mut out, chunk::PACK, place.pack.to_le_bytes());
    put(&mut out, chunk::OFFSET, place.offset.to_le_bytes());
    put(&mut out, chunk::STORED_LEN, place.stored_len.to_le_bytes());
    put(&mut out, chunk::LEN, place.len.to_le_bytes());
    put(&mut out, chunk::CODEC, [place.codec.to_u8()]);
    out
}

fn check_chunk(place: &ChunkPlace) -> Result<(), Bad> {
    require(place.pack != 0, "pack")?;
    let offsets = PACK_HEADER_LEN as u64..PACK_LEN_MAX;
    require(offsets.contains(&place.offset), "offset")?;
    require((1..=CHUNK_LEN_MAX).contains(&place.len), "len")?;
    let fits = match place.codec {
        Codec::Raw => place.stored_len == place.len,
        Codec::Zstd => (1..place.len).contains(&place.stored_len),
    };
    require(fits, "stored_len")
}
