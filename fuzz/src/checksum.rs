//! Makes the checksums of arbitrary bytes agree, so that the fuzzer reaches the checks behind them. Where each checksum
//! stands is told by `src/format`; a place that is wrong here costs depth, never a false alarm.

const BATCH_HEADER: usize = 96;
const FRAME_HEADER: usize = 48;
const TERM: usize = 16;
const INDEX_HEADER: usize = 64;

/// An opening: the checksum at 8 covers bytes 12 to 256.
pub fn opening(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 256 {
        let crc = crc32fast::hash(&bytes[12..256]);
        put(&mut bytes, 8, crc);
    }
    bytes
}

/// A frame behind its salt (8 bytes) and its term (16): the checksum at 24 covers both and the frame's bytes 4 to 48.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 24 + FRAME_HEADER {
        let crc = frame_crc(&bytes[..8], &bytes[8..24], &bytes[24..24 + FRAME_HEADER]);
        put(&mut bytes, 24, crc);
    }
    bytes
}

/// A batch: payloads, frame headers, both tables together, header, from the inside out.
pub fn batch(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() < BATCH_HEADER {
        return bytes;
    }
    let terms_count = usize::from(u16::from_le_bytes([bytes[72], bytes[73]]));
    let frames = get(&bytes, 60) as usize;
    let terms_at = frames
        .checked_mul(FRAME_HEADER)
        .and_then(|len| len.checked_add(BATCH_HEADER));
    let end = terms_at.and_then(|at| at.checked_add(terms_count * TERM));
    if let (Some(terms_at), Some(end)) = (terms_at, end)
        && end <= bytes.len()
    {
        for number in 0..frames {
            fix_frame(
                &mut bytes,
                BATCH_HEADER + number * FRAME_HEADER,
                terms_at,
                terms_count,
            );
        }
        let crc = crc32fast::hash(&bytes[BATCH_HEADER..end]);
        put(&mut bytes, 68, crc);
    }
    let crc = crc32fast::hash(&bytes[4..BATCH_HEADER]);
    put(&mut bytes, 0, crc);
    bytes
}

fn fix_frame(bytes: &mut [u8], at: usize, terms_at: usize, terms_count: usize) {
    let payload = at.saturating_add(get(bytes, at + 40) as usize);
    let end = payload.saturating_add(get(bytes, at + 32) as usize);
    if let Some(crc) = bytes.get(payload..end).map(crc32fast::hash) {
        put(bytes, at + 36, crc);
    }
    let slot = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
    let mut term = [0; TERM];
    if slot < terms_count {
        let from = terms_at + slot * TERM;
        term.copy_from_slice(&bytes[from..from + TERM]);
    }
    let crc = frame_crc(&bytes[16..24], &term, &bytes[at..at + FRAME_HEADER]);
    put(bytes, at, crc);
}

/// An index file: the checksums of the blocks in their runs, then the one at 8, which covers everything from 12 to the
/// end of the summary. Its length stands at 52, the number of operations at 56.
pub fn index(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() < INDEX_HEADER {
        return bytes;
    }
    let mut at = INDEX_HEADER;
    for _ in 0..get(&bytes, 56) {
        match next_op(&mut bytes, at) {
            Some(next) => at = next,
            None => break,
        }
    }
    let end = INDEX_HEADER.saturating_add(get(&bytes, 52) as usize);
    let end = end.min(bytes.len());
    let crc = crc32fast::hash(&bytes[12..end]);
    put(&mut bytes, 8, crc);
    bytes
}

/// Makes a run agree with its block; returns where the operation behind the one at `at` stands.
fn next_op(bytes: &mut [u8], at: usize) -> Option<usize> {
    let op = bytes.get(at..)?;
    let is_run = op.first() == Some(&1);
    if op.len() < if is_run { 56 } else { 72 } {
        return None;
    }
    if !is_run {
        return Some(at + 72 + get(op, 64) as usize);
    }
    let (count, terms) = (get(op, 4) as usize, get(op, 52) as usize);
    let block = usize::try_from(u64::from(get(op, 40)) | u64::from(get(op, 44)) << 32).ok()?;
    let end = count.checked_mul(4).and_then(|len| block.checked_add(len));
    if let Some(crc) = end.and_then(|end| bytes.get(block..end)).map(crc32fast::hash) {
        put(bytes, at + 48, crc);
    }
    terms.checked_mul(24).and_then(|len| (at + 56).checked_add(len))
}

/// The index of a snapshot: the checksum at 8 covers everything behind it.
pub fn snapshot_index(bytes: &[u8]) -> Vec<u8> {
    to_end(bytes, usize::MAX)
}

/// The header of a pack, 64 bytes: the same.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    to_end(bytes, 64)
}

fn to_end(bytes: &[u8], end: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let end = end.min(bytes.len());
    if end >= 12 {
        let crc = crc32fast::hash(&bytes[12..end]);
        put(&mut bytes, 8, crc);
    }
    bytes
}

fn frame_crc(salt: &[u8], term: &[u8], header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(salt);
    crc.update(term);
    crc.update(&header[4..]);
    crc.finalize()
}

fn get(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
