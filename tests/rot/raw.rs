//! The bytes of a journal, read by the format and not by the library: what stands where, what the journal consists of, and
//! what bears witness to what. This is the judge's own opinion, so nothing of it is taken from the code under test.

use std::collections::BTreeMap;
use std::ops::Range;

use super::support::{size, u32_at, u64_at};

/// All files of a directory, by path.
pub(crate) type Dump = BTreeMap<String, Vec<u8>>;

pub(crate) const SECTOR: u64 = 512;
pub(crate) const BLOCK: u64 = 4096;
pub(crate) const BATCHES_AT: u64 = 8192;
pub(crate) const COPY_AT: u64 = 4096;
pub(crate) const OPENING_LEN: u64 = 256;
const HEADER_LEN: u64 = 96;
const FRAME_LEN: u64 = 48;
const TERM_LEN: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawOpening {
    pub(crate) uuid: u128,
    pub(crate) segment: u64,
    pub(crate) salt: u64,
    pub(crate) sequence: u64,
    pub(crate) pred_segment: u64,
    pub(crate) pred_offset: u64,
    pub(crate) carry_len: u64,
    pub(crate) carry_crc: u32,
    pub(crate) floor: u64,
    pub(crate) len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawHeader {
    pub(crate) crc: u32,
    pub(crate) segment: u64,
    pub(crate) salt: u64,
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
    pub(crate) durable_through: u64,
    pub(crate) len: u64,
    pub(crate) frames: u64,
    pub(crate) terms: u64,
    pub(crate) payload_len: u64,
    pub(crate) flags: u8,
}

impl RawHeader {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Header, frame headers, terms and payloads: everything but the padding, which no checksum covers.
    pub(crate) fn used(&self) -> Range<u64> {
        let tables = self.frames * FRAME_LEN + self.terms * TERM_LEN;
        self.offset..self.offset + HEADER_LEN + tables + self.payload_len
    }
}

#[derive(Clone, Debug)]
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) cell: u8,
    pub(crate) log: u64,
    pub(crate) index: u64,
    pub(crate) term: u128,
    pub(crate) header: Range<u64>,
    pub(crate) payload: Range<u64>,
    /// Its entry of the term table; empty without a term.
    pub(crate) term_at: Range<u64>,
}

pub(crate) const APPEND: u8 = 1;
pub(crate) const CELL: u8 = 5;
pub(crate) const FLOOR: u8 = 9;

#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    pub(crate) header: RawHeader,
    pub(crate) frames: Vec<RawFrame>,
}

/// A segment of the chain, up to where it ends.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) path: String,
    pub(crate) opening: RawOpening,
    /// Where its successor says that it ends; of the last one, where its valid batches end.
    pub(crate) end: u64,
    pub(crate) batches: Vec<RawBatch>,
}

pub(crate) fn name(id: u64) -> String {
    format!("journal/{id:016x}.seg")
}

/// The id in the path of a segment.
pub(crate) fn id_of(path: &str) -> Option<u64> {
    let digits = path.strip_prefix("journal/")?.strip_suffix(".seg")?;
    u64::from_str_radix(digits, 16).ok()
}

pub(crate) fn opening_at(bytes: &[u8], at: u64) -> Option<RawOpening> {
    let bytes = bytes.get(size(at)..size(at + OPENING_LEN))?;
    let sound = bytes[..8] == *b"EVERLOGS" && crc32fast::hash(&bytes[12..]) == u32_at(bytes, 8);
    sound.then(|| RawOpening {
        uuid: u128_at(bytes, 32),
        segment: u64_at(bytes, 48),
        salt: u64_at(bytes, 56),
        sequence: u64_at(bytes, 64),
        pred_segment: u64_at(bytes, 80),
        pred_offset: u64_at(bytes, 88),
        carry_crc: u32_at(bytes, 108),
        carry_len: u64_at(bytes, 112),
        floor: u64_at(bytes, 120),
        len: u64_at(bytes, 128),
    })
}

/// The opening of the file of segment `id`: either copy.
pub(crate) fn opening(bytes: &[u8], id: u64) -> Option<RawOpening> {
    let mut copies = [0, COPY_AT].into_iter().filter_map(|at| opening_at(bytes, at));
    copies.find(|opening| opening.segment == id)
}

/// A batch header whose checksum and own offset hold.
pub(crate) fn header_at(bytes: &[u8], at: u64) -> Option<RawHeader> {
    let bytes = bytes.get(size(at)..size(at + HEADER_LEN))?;
    let sound = bytes[4..8] == *b"BTCH" && crc32fast::hash(&bytes[4..]) == u32_at(bytes, 0);
    let header = RawHeader {
        crc: u32_at(bytes, 0),
        segment: u64_at(bytes, 8),
        salt: u64_at(bytes, 16),
        offset: u64_at(bytes, 24),
        sequence: u64_at(bytes, 32),
        durable_through: u64_at(bytes, 40),
        len: u64::from(u32_at(bytes, 56)),
        frames: u64::from(u32_at(bytes, 60)),
        terms: u64::from(u16::from_le_bytes([bytes[72], bytes[73]])),
        flags: bytes[74],
        payload_len: u64::from(u32_at(bytes, 76)),
    };
    (sound && header.offset == at).then_some(header)
}

/// Every valid header of segment `id` in a file, wherever it stands.
pub(crate) fn headers(bytes: &[u8], id: u64, salt: u64) -> impl Iterator<Item = RawHeader> {
    let places = (BATCHES_AT..bytes.len() as u64).step_by(8);
    places
        .filter_map(|at| header_at(bytes, at))
        .filter(move |header| header.segment == id && header.salt == salt)
}

/// Whether tables and payloads of the batch are what its header says.
pub(crate) fn is_whole(bytes: &[u8], header: &RawHeader) -> bool {
    let Some(batch) = bytes.get(size(header.offset)..size(header.end())) else {
        return false;
    };
    let tables = size(HEADER_LEN + header.frames * FRAME_LEN + header.terms * TERM_LEN);
    crc32fast::hash(&batch[96..tables]) == u32_at(batch, 68)
        && frames(bytes, header).iter().enumerate().all(|(n, frame)| {
            let payload = &bytes[size(frame.payload.start)..size(frame.payload.end)];
            crc32fast::hash(payload) == u32_at(batch, 96 + 48 * n + 36)
        })
}

/// The frames of a batch whose tables are sound.
fn frames(bytes: &[u8], header: &RawHeader) -> Vec<RawFrame> {
    let tables_at = header.offset + HEADER_LEN;
    let terms_at = tables_at + header.frames * FRAME_LEN;
    let one = |n: u64| {
        let at = tables_at + n * FRAME_LEN;
        let frame = &bytes[size(at)..size(at + FRAME_LEN)];
        let slot = u64::from(u16::from_le_bytes([frame[6], frame[7]]));
        let term_at = match slot {
            0xffff => 0..0,
            slot => terms_at + slot * TERM_LEN..terms_at + (slot + 1) * TERM_LEN,
        };
        let payload = at + u64::from(u32_at(frame, 40));
        RawFrame {
            kind: frame[4],
            cell: frame[5],
            log: u64_at(frame, 8),
            index: u64_at(frame, 24),
            term: if term_at.is_empty() {
                0
            } else {
                u128_at(bytes, size(term_at.start))
            },
            header: at..at + FRAME_LEN,
            payload: payload..payload + u64::from(u32_at(frame, 32)),
            term_at,
        }
    };
    (0..header.frames).map(one).collect()
}

/// The chain of an undamaged directory, from the floor to the last segment.
pub(crate) fn chain(dump: &Dump) -> Vec<Link> {
    let ids = dump.keys().rev().filter_map(|path| id_of(path));
    let last = ids
        .filter(|id| opening(&dump[&name(*id)], *id).is_some())
        .find(|id| unit_is_whole(&dump[&name(*id)], *id))
        .expect("a segment with an opening");
    let mut links = vec![link(dump, last, None)];
    let mut floor = 0;
    loop {
        let lowest = links.last().expect("begun with one");
        let floors = lowest.batches.iter().flat_map(|batch| &batch.frames);
        let stated = floors
            .filter(|frame| frame.kind == FLOOR)
            .map(|frame| frame.index);
        floor = stated.chain([lowest.opening.floor]).fold(floor, u64::max);
        let RawOpening {
            pred_segment: pred,
            pred_offset: end,
            ..
        } = lowest.opening;
        if pred == 0 || pred < floor {
            break;
        }
        links.push(link(dump, pred, Some(end)));
    }
    links.retain(|link| link.id >= floor);
    links.reverse();
    links
}

/// Whether the batch that the opening carries is there, and whole.
pub(crate) fn unit_is_whole(bytes: &[u8], id: u64) -> bool {
    let Some(opening) = opening(bytes, id) else {
        return false;
    };
    opening.carry_len == 0
        || header_at(bytes, BATCHES_AT)
            .is_some_and(|header| header.crc == opening.carry_crc && is_whole(bytes, &header))
}

fn link(dump: &Dump, id: u64, end: Option<u64>) -> Link {
    let path = name(id);
    let bytes = &dump[&path];
    let opening = opening(bytes, id).expect("a segment of the chain has an opening");
    let mut batches = Vec::new();
    let mut at = BATCHES_AT;
    while end.is_none_or(|end| at < end) {
        let header = header_at(bytes, at)
            .filter(|header| header.segment == id && header.salt == opening.salt && is_whole(bytes, header));
        let Some(header) = header else { break };
        let frames = frames(bytes, &header);
        at = header.end();
        batches.push(RawBatch { header, frames });
    }
    assert_eq!(
        end.unwrap_or(at),
        at,
        "{path} does not end where its successor says"
    );
    Link {
        id,
        path,
        opening,
        end: at,
        batches,
    }
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("16 bytes"))
}
