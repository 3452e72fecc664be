//! Pin: somebody's word that a snapshot stays until a time, in a file of its own, so that it outlives the process. Written
//! once, synced, and never changed: a later word of the same owner is another file, of a higher generation.
//!
//! ```text
//! offset  size  field
//!      0     8  magic       "EVERLOGN"
//!      8     4  crc         over bytes 12.. to the end of the file, in every version
//!     12     2  version     1
//!     14     2  zero        refused otherwise
//!     16     8  features    features a reader must know; an unknown one is refused
//!     24     8  compat      features a reader may ignore
//!     32    32  id          of the snapshot; it stands in the file's name, too
//!     64     8  generation  of one owner's pins on a snapshot the highest counts; it stands in the file's name, too
//!     72     8  created     microseconds since 1970
//!     80     8  expires     microseconds since 1970; all bits set: never
//!     88    16  key_id      zero (reserved for encryption), refused otherwise
//!    104     8  zero        refused otherwise
//!    112        owner       UTF-8, 1 to 255 bytes, to the end of the file
//! ```

use core::ops::Range;

use crate::format::field::{array, field, get_u16, get_u32, get_u64, is_zero, put};
use crate::format::{Bad, require};

use super::{SNAPSHOT_VERSION, check_version};

const MAGIC: Range<usize> = field(0, 8);
const CRC: Range<usize> = field(MAGIC.end, 4);
const VERSION_AT: Range<usize> = field(CRC.end, 2);
const ZERO_1: Range<usize> = field(VERSION_AT.end, 2);
const FEATURES: Range<usize> = field(ZERO_1.end, 8);
const COMPAT: Range<usize> = field(FEATURES.end, 8);
const ID: Range<usize> = field(COMPAT.end, 32);
const GENERATION: Range<usize> = field(ID.end, 8);
const CREATED: Range<usize> = field(GENERATION.end, 8);
const EXPIRES: Range<usize> = field(CREATED.end, 8);
const KEY_ID: Range<usize> = field(EXPIRES.end, 16);
const ZERO_2: Range<usize> = field(KEY_ID.end, 8);
const HEADER_LEN: usize = ZERO_2.end;
const _: () = assert!(HEADER_LEN == 112); // the table above
const MAGIC_BYTES: [u8; 8] = *b"EVERLOGN";

/// Bound on the name of an owner in bytes.
pub(crate) const OWNER_LEN_MAX: usize = 255;
/// Bound on the bytes of a pin: nobody reads a larger file in the belief that it is one.
pub(crate) const PIN_LEN_MAX: u64 = (HEADER_LEN + OWNER_LEN_MAX) as u64;
const _: () = assert!(PIN_LEN_MAX == 112 + 255);

/// A decoded pin; the fields are those of the table above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotPin {
    pub id: [u8; 32],
    pub generation: u64,
    /// Microseconds since 1970.
    pub created: u64,
    /// Microseconds since 1970; `u64::MAX`: never.
    pub expires: u64,
    pub owner: String,
}

impl SnapshotPin {
    /// Reads and checks a whole file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SnapshotPin, Bad> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Bad::Short)?;
        if header[MAGIC] != MAGIC_BYTES {
            return Err(if is_zero(bytes) { Bad::Blank } else { Bad::Magic });
        }
        if crc32fast::hash(&bytes[CRC.end..]) != get_u32(header, CRC) {
            return Err(Bad::Crc);
        }
        check_version(get_u16(header, VERSION_AT), get_u64(header, FEATURES))?;
        require(is_zero(&header[ZERO_1]) && is_zero(&header[ZERO_2]), "zero")?;
        require(is_zero(&header[KEY_ID]), "key_id")?;
        let owner = core::str::from_utf8(&bytes[HEADER_LEN..]).map_err(|_| Bad::Field("owner"))?;
        require((1..=OWNER_LEN_MAX).contains(&owner.len()), "owner")?;
        Ok(SnapshotPin {
            id: array(header, ID),
            generation: get_u64(header, GENERATION),
            created: get_u64(header, CREATED),
            expires: get_u64(header, EXPIRES),
            owner: owner.to_owned(),
        })
    }

    /// The file's bytes, crc included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        debug_assert!((1..=OWNER_LEN_MAX).contains(&self.owner.len()), "no such owner");
        let mut out = vec![0; HEADER_LEN];
        put(&mut out, MAGIC, MAGIC_BYTES);
        put(&mut out, VERSION_AT, SNAPSHOT_VERSION.to_le_bytes());
        put(&mut out, ID, self.id);
        put(&mut out, GENERATION, self.generation.to_le_bytes());
        put(&mut out, CREATED, self.created.to_le_bytes());
        put(&mut out, EXPIRES, self.expires.to_le_bytes());
        out.extend_from_slice(self.owner.as_bytes());
        let crc = crc32fast::hash(&out[CRC.end..]);
        put(&mut out, CRC, crc.to_le_bytes());
        out
    }
}
