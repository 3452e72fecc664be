//! Export: a snapshot in one file that can be read from its start to its end, to be carried elsewhere. A header, the index as a
//! store would have it, and behind it the chunks, uncompressed, each once, in the order in which the state has them first.
//!
//! ```text
//! offset  size  field
//!      0     8  magic      "EVERLOGE"
//!      8     4  crc        over bytes 12..64, in every version
//!     12     2  version    1
//!     14     2  zero       refused otherwise
//!     16     8  features   features a reader must know; an unknown one is refused
//!     24     8  compat     features a reader may ignore
//!     32     8  index_len  bytes of the index
//!     40    16  key_id     zero (reserved for encryption), refused otherwise
//!     56     8  zero       refused otherwise
//!     64        index      its places are those in this file: pack 1, raw, one behind the other
//!               chunks     to the end of the file
//! ```

use core::ops::Range;
use std::collections::HashMap;

use crate::format::field::{field, get_u16, get_u32, get_u64, is_zero, put};
use crate::format::{Bad, require};

use super::{Codec, INDEX_LEN_MAX, SNAPSHOT_VERSION, SnapshotIndex, check_version};

const MAGIC: Range<usize> = field(0, 8);
const CRC: Range<usize> = field(MAGIC.end, 4);
const VERSION_AT: Range<usize> = field(CRC.end, 2);
const ZERO_1: Range<usize> = field(VERSION_AT.end, 2);
const FEATURES: Range<usize> = field(ZERO_1.end, 8);
const COMPAT: Range<usize> = field(FEATURES.end, 8);
const INDEX_LEN: Range<usize> = field(COMPAT.end, 8);
const KEY_ID: Range<usize> = field(INDEX_LEN.end, 16);
const ZERO_2: Range<usize> = field(KEY_ID.end, 8);

/// Bytes of the header; the index stands behind it.
pub(crate) const EXPORT_HEADER_LEN: usize = ZERO_2.end;
const _: () = assert!(EXPORT_HEADER_LEN == 64); // the table above
const MAGIC_BYTES: [u8; 8] = *b"EVERLOGE";
const PACK: u64 = 1;

/// A decoded header of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExportHeader {
    pub index_len: u64,
}

impl ExportHeader {
    /// Reads and checks the header at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<ExportHeader, Bad> {
        let magic = bytes.len().min(MAGIC.end);
        if bytes.is_empty() || bytes[..magic] != MAGIC_BYTES[..magic] {
            return Err(if is_zero(bytes) { Bad::Blank } else { Bad::Magic });
        }
        let bytes: &[u8; EXPORT_HEADER_LEN] = bytes.first_chunk().ok_or(Bad::Short)?;
        if crc32fast::hash(&bytes[CRC.end..]) != get_u32(bytes, CRC) {
            return Err(Bad::Crc);
        }
        check_version(get_u16(bytes, VERSION_AT), get_u64(bytes, FEATURES))?;
        require(is_zero(&bytes[ZERO_1]) && is_zero(&bytes[ZERO_2]), "zero")?;
        require(is_zero(&bytes[KEY_ID]), "key_id")?;
        let index_len = get_u64(bytes, INDEX_LEN);
        require(index_len <= INDEX_LEN_MAX, "index_len")?;
        Ok(ExportHeader { index_len })
    }

    /// The header's bytes, crc included.
    pub(crate) fn encode(self) -> [u8; EXPORT_HEADER_LEN] {
        let mut out = [0; EXPORT_HEADER_LEN];
        put(&mut out, MAGIC, MAGIC_BYTES);
        put(&mut out, VERSION_AT, SNAPSHOT_VERSION.to_le_bytes());
        put(&mut out, INDEX_LEN, self.index_len.to_le_bytes());
        let crc = crc32fast::hash(&out[CRC.end..]);
        put(&mut out, CRC, crc.to_le_bytes());
        out
    }
}

impl SnapshotIndex {
    /// Gives the chunks their places in an export; returns where it ends.
    pub(crate) fn place_in_export(&mut self) -> u64 {
        let index_len = self.encode().len();
        let mut end = (EXPORT_HEADER_LEN + index_len) as u64;
        let mut known = HashMap::new();
        for place in &mut self.chunks {
            let offset = *known.entry(place.name).or_insert_with(|| {
                let offset = end;
                end += u64::from(place.len);
                offset
            });
            (place.pack, place.offset) = (PACK, offset);
            (place.codec, place.stored_len) = (Codec::Raw, place.len);
        }
        end
    }

    /// Where the export ends whose index this is, if it is one.
    pub(crate) fn check_export(&self) -> Result<u64, Bad> {
        let mut placed = self.clone();
        let end = placed.place_in_export();
        require(placed.chunks == self.chunks, "places")?;
        Ok(end)
    }
}
