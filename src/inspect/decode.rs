//! The decoders of the format, one structure at a time: for fuzzers, and for people with a few bytes in hand.
//!
//! Each takes any bytes and answers, without a panic, whether they are what it says. `Invalid` otherwise, with the
//! reason; `Unsupported` if a newer everlog may know better.

use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BATCH_HEADER_LEN, Bad, BatchHeader, Facts, Floor, Index, IndexOp, Opening, decode_block, decode_each,
    decode_frame, decode_tables, header_at,
};
use crate::types::Term;

/// An opening stands at the start of `bytes`.
pub fn opening(bytes: &[u8]) -> Result<()> {
    Opening::decode(bytes).map(drop).map_err(refused)
}

/// A whole batch, payloads included, stands at the start of `bytes`.
pub fn batch(bytes: &[u8]) -> Result<()> {
    let header = BatchHeader::decode(bytes).map_err(refused)?;
    let tables = &bytes[BATCH_HEADER_LEN..];
    let alone = decode_each(&header, tables).map_err(refused)?;
    let frames = decode_tables(&header, tables).map_err(refused)?;
    debug_assert!(alone.len() == frames.len());
    for (i, frame) in frames.iter().enumerate() {
        let from = frame.payload_offset(header_at(header.offset, i)) - header.offset;
        let payload = usize::try_from(from)
            .ok()
            .and_then(|from| bytes.get(from..)?.get(..len(frame.len)));
        frame
            .check_payload(payload.ok_or(Bad::Short).map_err(refused)?)
            .map_err(refused)?;
    }
    Ok(())
}

/// The salt of a segment (8 bytes), a term (16) and a frame header of that segment and term stand at the start of
/// `bytes`.
pub fn frame(bytes: &[u8]) -> Result<()> {
    let (salt, rest) = bytes.split_first_chunk().ok_or(Bad::Short).map_err(refused)?;
    let (term, rest) = rest.split_first_chunk().ok_or(Bad::Short).map_err(refused)?;
    let term = Term(u128::from_le_bytes(*term));
    decode_frame(u64::from_le_bytes(*salt), term, rest)
        .map(drop)
        .map_err(refused)
}

/// `bytes` are the payload of a frame that restates the facts of a log.
pub fn facts(bytes: &[u8]) -> Result<()> {
    let facts = Facts::decode(bytes).map_err(refused)?;
    debug_assert!(facts.encode() == bytes, "one value, one form");
    Ok(())
}

/// `bytes` are the payload of a frame that raises the floor.
pub fn floor(bytes: &[u8]) -> Result<()> {
    let floor = Floor::decode(bytes).map_err(refused)?;
    debug_assert!(floor.encode() == bytes, "one value, one form");
    Ok(())
}

/// `bytes` are an index file: header, summary, and every block.
pub fn index(bytes: &[u8]) -> Result<()> {
    let index = Index::decode_summary(bytes).map_err(refused)?;
    for op in &index.ops {
        if let IndexOp::Run(run) = op {
            let from = usize::try_from(run.block_at).unwrap_or(usize::MAX);
            let len = usize::try_from(run.block_len()).unwrap_or(usize::MAX);
            let block = bytes.get(from..).and_then(|rest| rest.get(..len));
            decode_block(
                block.ok_or(Bad::Short).map_err(refused)?,
                run.block_crc,
                run.count,
            )
            .map_err(refused)?;
        }
    }
    Ok(())
}

/// `bytes` are the index file of a snapshot.
#[cfg(feature = "snapshot")]
pub fn snapshot_index(bytes: &[u8]) -> Result<()> {
    let index = crate::format::SnapshotIndex::decode(bytes).map_err(refused)?;
    debug_assert!(crate::format::SnapshotIndex::decode(&index.encode()) == Ok(index));
    Ok(())
}

/// The header of a pack stands at the start of `bytes`.
#[cfg(feature = "snapshot")]
pub fn pack(bytes: &[u8]) -> Result<()> {
    crate::format::PackHeader::decode(bytes)
        .map(drop)
        .map_err(refused)
}

/// `bytes` are the file of a pin.
#[cfg(feature = "snapshot")]
pub fn pin(bytes: &[u8]) -> Result<()> {
    let pin = crate::format::SnapshotPin::decode(bytes).map_err(refused)?;
    debug_assert!(crate::format::SnapshotPin::decode(&pin.encode()) == Ok(pin));
    Ok(())
}

/// The header of an export stands at the start of `bytes`.
#[cfg(feature = "snapshot")]
pub fn export(bytes: &[u8]) -> Result<()> {
    crate::format::ExportHeader::decode(bytes)
        .map(drop)
        .map_err(refused)
}

fn len(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn refused(bad: Bad) -> Error {
    let kind = if bad.is_newer() {
        ErrorKind::Unsupported
    } else {
        ErrorKind::Invalid
    };
    Error::new(kind, bad.to_string())
}
