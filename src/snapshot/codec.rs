//! The stored form of a chunk. A chunk is stored compressed only where that is smaller.

use crate::format::Codec;

use super::config::Compression;

/// Why a stored form does not give a chunk.
pub(super) enum Failure {
    /// This build cannot know.
    #[cfg_attr(feature = "zstd", expect(dead_code, reason = "this build can"))]
    Unsupported,
    /// It is not the form of such a chunk.
    #[cfg_attr(not(feature = "zstd"), expect(dead_code, reason = "this build cannot know"))]
    Damaged(String),
}

/// The codec and the stored form of `chunk`; `scratch` may hold the latter.
pub(super) fn encode<'a>(
    compression: Compression,
    chunk: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> (Codec, &'a [u8]) {
    match compression {
        Compression::None => (Codec::Raw, chunk),
        Compression::Zstd(level) => match compress(level, chunk, scratch) {
            true => (Codec::Zstd, scratch),
            false => (Codec::Raw, chunk),
        },
    }
}

/// False if it would not be smaller.
#[cfg(feature = "zstd")]
fn compress(level: i32, chunk: &[u8], into: &mut Vec<u8>) -> bool {
    // No room for a form that is not smaller: then it fails, and the chunk is stored as it is.
    into.resize(chunk.len() - 1, 0);
    match zstd::bulk::compress_to_buffer(chunk, &mut into[..], level) {
        Ok(len) => {
            into.truncate(len);
            true
        }
        Err(_) => false,
    }
}

#[cfg(not(feature = "zstd"))]
fn compress(_level: i32, _chunk: &[u8], _into: &mut Vec<u8>) -> bool {
    false
}

/// Fills `into` with the `len` bytes of a chunk. Never allocates more than that, whatever `stored` claims.
#[cfg(feature = "zstd")]
pub(super) fn decompress(stored: &[u8], len: usize, into: &mut Vec<u8>) -> Result<(), Failure> {
    into.resize(len, 0);
    match zstd::bulk::decompress_to_buffer(stored, &mut into[..]) {
        Ok(found) if found == len => Ok(()),
        Ok(found) => Err(Failure::Damaged(format!(
            "decompresses to {found} bytes, not {len}"
        ))),
        Err(e) => Err(Failure::Damaged(format!(
            "does not decompress to {len} bytes: {e}"
        ))),
    }
}

#[cfg(not(feature = "zstd"))]
pub(super) fn decompress(_stored: &[u8], _len: usize, _into: &mut Vec<u8>) -> Result<(), Failure> {
    Err(Failure::Unsupported)
}
