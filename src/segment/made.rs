//! Segments made by hand with the encoder, for tests: what a writer, a crash or rot may leave.

use crate::format::{
    BATCHES_AT, BatchHeader, BatchSpec, End, Facts, Flags, Floor, FrameSpec, Kind, Opening, encode_batch,
    payload_crc, write_opening_blocks,
};
use crate::fs::{Fs, Profile, SimFs};
use crate::segment::{JOURNAL_DIR, Segment};
use crate::types::{LogKey, Term};

/// Miri is slow.
pub(crate) const FILE_LEN: u64 = if cfg!(miri) { 32 << 10 } else { 64 << 10 };
pub(crate) const UUID: [u8; 16] = *b"a journal's uuid";

/// One frame to be written.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) cell: u8,
    pub(crate) log: u64,
    pub(crate) incarnation: u64,
    pub(crate) index: u64,
    pub(crate) term: u128,
    pub(crate) payload: Vec<u8>,
}

fn item(kind: Kind, log: u64, index: u64, payload: &[u8]) -> Item {
    Item {
        kind,
        cell: 0,
        log,
        incarnation: 1,
        index,
        term: 0,
        payload: payload.to_vec(),
    }
}

pub(crate) fn create(log: u64) -> Item {
    item(Kind::Create, log, 0, b"")
}

pub(crate) fn entry(log: u64, index: u64, payload: &[u8]) -> Item {
    Item {
        term: 7,
        ..item(Kind::Append, log, index, payload)
    }
}

pub(crate) fn set(log: u64, cell: u8, value: &[u8]) -> Item {
    Item {
        cell,
        ..item(Kind::Cell, log, 0, value)
    }
}

pub(crate) fn floor(segment: u64) -> Item {
    Item {
        incarnation: 0,
        ..item(Kind::Floor, 0, segment, &Floor { incarnation_next: 9 }.encode())
    }
}

pub(crate) fn facts(log: u64, next: u64, facts: Facts) -> Item {
    item(Kind::Facts, log, next, &facts.encode())
}

/// A segment in the making.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) opening: Opening,
    /// Batches, from [`BATCHES_AT`] on.
    pub(crate) batches: Vec<u8>,
    pub(crate) headers: Vec<BatchHeader>,
}

impl Made {
    /// The segment `id`, whose opening has `sequence`, continuing `pred`.
    pub(crate) fn new(id: u64, sequence: u64, pred: Option<End>) -> Made {
        let opening = Opening {
            uuid: UUID,
            align_shift: 3,
            features: 0,
            compat: 0,
            segment: id,
            salt: 0x5a17_0000 + id,
            sequence,
            time: 1_000_000 + sequence,
            pred,
            carry_len: 0,
            carry_crc: 0,
            floor: 0,
            len: FILE_LEN,
            incarnation_next: 2,
        };
        Made {
            opening,
            batches: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Lets the opening carry `items`.
    pub(crate) fn carry(mut self, items: &[Item]) -> Made {
        let header = self.push(0, 0, Flags::CARRY, items);
        self.opening.carry_len = u64::from(header.len);
        self.opening.carry_crc = header.crc;
        self
    }

    /// Adds a batch that names `durable_through`.
    pub(crate) fn batch(&mut self, durable_through: u64, items: &[Item]) -> BatchHeader {
        let chain = self.end().chain;
        self.push(durable_through, chain, Flags::NONE, items)
    }

    /// Adds a mark.
    pub(crate) fn mark(&mut self, durable_through: u64, closing: bool) -> BatchHeader {
        let flags = if closing {
            Flags::MARK | Flags::CLOSING
        } else {
            Flags::MARK
        };
        let chain = self.end().chain;
        self.push(durable_through, chain, flags, &[])
    }

    fn push(&mut self, durable_through: u64, chain: u32, flags: Flags, items: &[Item]) -> BatchHeader {
        let spec = BatchSpec {
            segment: self.opening.segment,
            salt: self.opening.salt,
            offset: self.end().offset,
            sequence: self.end().sequence + 1,
            durable_through,
            time: self.opening.time + self.headers.len() as u64 + 1,
            chain,
            flags,
            align_shift: self.opening.align_shift,
        };
        let frames: Vec<FrameSpec<'_>> = items.iter().map(spec_of).collect();
        let header = encode_batch(&spec, &frames, &mut self.batches);
        self.headers.push(header);
        header
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> End {
        let segment = self.opening.segment;
        match self.headers.last() {
            Some(h) => End {
                segment,
                offset: h.end(),
                sequence: h.sequence,
                chain: h.crc,
            },
            None => End {
                segment,
                offset: BATCHES_AT,
                sequence: self.opening.sequence,
                chain: if self.opening.carry_len == 0 {
                    self.opening.chain()
                } else {
                    0
                },
            },
        }
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_opening_blocks(&self.opening, &mut out);
        out.extend_from_slice(&self.batches);
        out.resize(usize::try_from(FILE_LEN).unwrap(), 0);
        out
    }

    /// Writes the file and makes it durable.
    pub(crate) fn save(&self, disk: &SimFs) {
        save(disk, &Segment::name(self.opening.segment), &self.bytes());
    }
}

fn spec_of(item: &Item) -> FrameSpec<'_> {
    FrameSpec {
        kind: item.kind,
        cell: item.cell,
        log: LogKey(item.log),
        incarnation: item.incarnation,
        index: item.index,
        term: Term(item.term),
        payload: &item.payload,
        payload_crc: payload_crc(&item.payload),
    }
}

/// A disk with an empty directory for segments.
pub(crate) fn disk() -> SimFs {
    let disk = SimFs::new(1, Profile::PosixWeak);
    disk.create_dir(JOURNAL_DIR).unwrap();
    disk
}

/// Writes a whole file and makes it durable.
pub(crate) fn save(disk: &SimFs, path: &str, bytes: &[u8]) {
    let file = disk.create(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(JOURNAL_DIR).unwrap();
}
