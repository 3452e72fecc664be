//! Pack: a header, and behind it chunks, one behind the other, in the form in which they are stored. Where each begins
//! stands in the indexes that name it. A pack is written once, synced, and never changed.
//!
//! ```text
//! offset  size  field
//!      0     8  magic     "EVERLOGP"
//!      8     4  crc       over bytes 12..64, in every version
//!     12     2  version   1
//!     14     2  zero      refused otherwise
//!     16     8  features  features a reader must know; an unknown one is refused
//!     24     8  compat    features a reader may ignore
//!     32     8  number    of the pack, random, not zero; its name on disk
//!     40    16  key_id    zero (reserved for encryption), refused otherwise
//!     56     8  zero      refused otherwise
//!     64        chunks
//! ```

use core::ops::Range;

use crate::format::field::{field, get_u16, get_u32, get_u64, is_zero, put};
use crate::format::{Bad, require};

use super::{SNAPSHOT_VERSION, check_version};

const MAGIC: Range<usize> = field(0, 8);
const CRC: Range<usize> = field(MAGIC.end, 4);
const VERSION_AT: Range<usize> = field(CRC.end, 2);
const ZERO_1: Range<usize> = field(VERSION_AT.end, 2);
const FEATURES: Range<usize> = field(ZERO_1.end, 8);
const COMPAT: Range<usize> = field(FEATURES.end, 8);
const NUMBER: Range<usize> = field(COMPAT.end, 8);
const KEY_ID: Range<usize> = field(NUMBER.end, 16);
const ZERO_2: Range<usize> = field(KEY_ID.end, 8);

/// Bytes of the header; the first chunk stands behind it.
pub(crate) const PACK_HEADER_LEN: usize = ZERO_2.end;
const _: () = assert!(PACK_HEADER_LEN == 64); // the table above
const MAGIC_BYTES: [u8; 8] = *b"EVERLOGP";

/// A decoded header of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackHeader {
    pub compat: u64,
    pub number: u64,
}

impl PackHeader {
    /// Reads and checks the header at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<PackHeader, Bad> {
        let bytes: &[u8; PACK_HEADER_LEN] = bytes.first_chunk().ok_or(Bad::Short)?;
        if bytes[MAGIC] != MAGIC_BYTES {
            return Err(if is_zero(bytes) { Bad::Blank } else { Bad::Magic });
        }
        if crc32fast::hash(&bytes[CRC.end..]) != get_u32(bytes, CRC) {
            return Err(Bad::Crc);
        }
        check_version(get_u16(bytes, VERSION_AT), get_u64(bytes, FEATURES))?;
        require(is_zero(&bytes[ZERO_1]) && is_zero(&bytes[ZERO_2]), "zero")?;
        require(is_zero(&bytes[KEY_ID]), "key_id")?;
        let header = PackHeader {
            compat: get_u64(bytes, COMPAT),
            number: get_u64(bytes, NUMBER),
        };
        require(header.number != 0, "number")?;
        Ok(header)
    }

    /// The header's bytes, crc included.
    pub(crate) fn encode(&self) -> [u8; PACK_HEADER_LEN] {
        let mut out = [0; PACK_HEADER_LEN];
        put(&mut out, MAGIC, MAGIC_BYTES);
        put(&mut out, VERSION_AT, SNAPSHOT_VERSION.to_le_bytes());
        put(&mut out, COMPAT, self.compat.to_le_bytes());
        put(&mut out, NUMBER, self.number.to_le_bytes());
        let crc = crc32fast::hash(&out[CRC.end..]);
        put(&mut out, CRC, crc.to_le_bytes());
        out
    }
}
