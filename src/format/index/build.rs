//! Making an index file: frames are pushed as they are written or read, and the file comes out at the end.

use std::collections::HashMap;

use crate::format::field::put;
use crate::format::{End, Frame, Kind, digest};
use crate::types::{LogKey, TermRun};

use super::{
    CRC, END_CHAIN, END_OFFSET, END_SEQUENCE, INDEX_HEADER_LEN, INDEX_VERSION, IndexRun, MAGIC, MAGIC_BYTES,
    OP_FRAME, OP_RUN, OPS, PLACE_LEN, SALT, SEGMENT, SUMMARY_LEN, VERSION_AT, is_inline, other, place_of,
    run,
};

/// Gathers the frames of a segment, in journal order, and writes its index file.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    segment: u64,
    salt: u64,
    ops: Vec<Op>,
    /// Which of `ops` is the run that the next entry of a log may extend.
    open: HashMap<LogKey, usize>,
    /// Which of `ops` holds a cell of a log's incarnation.
    cells: HashMap<(LogKey, u64, u8), usize>,
}

/// An operation whose block has no place in the file yet.
#[derive(Debug)]
enum Op {
    Run {
        run: IndexRun,
        places: Vec<u32>,
    },
    Frame {
        frame: Frame,
        header_at: u64,
        payload: Vec<u8>,
    },
}

impl IndexBuilder {
    /// An index of the segment with this id and salt, which has no frames yet.
    pub(crate) fn new(segment: u64, salt: u64) -> IndexBuilder {
        IndexBuilder {
            segment,
            salt,
            ops: Vec::new(),
            open: HashMap::new(),
            cells: HashMap::new(),
        }
    }

    /// Adds the next frame of the segment, whose header stands at `header_at`. Facts and Floor need their payload
    /// (without it the index will be refused by its readers); that of others is not looked at.
    pub(crate) fn push(&mut self, frame: &Frame, header_at: u64, payload: Option<&[u8]>) {
        if frame.kind == Kind::Append {
            self.push_entry(frame, header_at);
            return;
        }
        // Cells and entries do not touch each other, and a floor is of no log.
        if !matches!(frame.kind, Kind::Cell | Kind::Floor) {
            self.open.remove(&frame.log);
        }
        let op = Op::Frame {
            frame: *frame,
            header_at,
            payload: if is_inline(frame.kind) {
                payload.unwrap_or_default().to_vec()
            } else {
                Vec::new()
            },
        };
        if frame.kind == Kind::Cell {
            let cell = (frame.log, frame.incarnation, frame.cell);
            let place = *self.cells.entry(cell).or_insert(self.ops.len());
            if place < self.ops.len() {
                self.ops[place] = op;
                return;
            }
        }
        self.ops.push(op);
    }

    /// The index file of the segment, which ends at `end`. Empty if the summary is longer than its length can tell:
    /// such a segment is walked instead.
    pub(crate) fn finish(self, end: End) -> Vec<u8> {
        let summary_len = self.ops.iter().map(Op::summary_len).sum::<usize>();
        let (Ok(summary_len_u32), Ok(ops)) = (u32::try_from(summary_len), u32::try_from(self.ops.len()))
        else {
            return Vec::new();
        };
        let mut header = [0; INDEX_HEADER_LEN];
        put(&mut header, MAGIC, MAGIC_BYTES);
        put(&mut header, VERSION_AT, INDEX_VERSION.to_le_bytes());
        put(&mut header, SEGMENT, self.segment.to_le_bytes());
        put(&mut header, SALT, self.salt.to_le_bytes());
        put(&mut header, END_OFFSET, end.offset.to_le_bytes());
        put(&mut header, END_SEQUENCE, end.sequence.to_le_bytes());
        put(&mut header, END_CHAIN, end.chain.to_le_bytes());
        put(&mut header, SUMMARY_LEN, summary_len_u32.to_le_bytes());
        put(&mut header, OPS, ops.to_le_bytes());

        let summary_end = INDEX_HEADER_LEN + summary_len;
        let blocks_len: usize = self.ops.iter().map(Op::block_len).sum();
        let mut out = Vec::with_capacity(summary_end + blocks_len);
        out.extend_from_slice(&header);
        let mut blocks = Vec::with_capacity(blocks_len);
        for op in &self.ops {
            op.encode(summary_end, &mut out, &mut blocks);
        }
        debug_assert_eq!(out.len(), summary_end);
        let crc = crc32fast::hash(&out[CRC.end..]);
        put(&mut out, CRC, crc.to_le_bytes());
        out.append(&mut blocks);
        out
    }

    fn push_entry(&mut self, frame: &Frame, header_at: u64) {
        let digest = digest(frame.index, frame.term, frame.payload_crc);
        let place = place_of(header_at);
        let open = self.open.get(&frame.log).and_then(|op| self.ops.get_mut(*op));
        if let Some(Op::Run { run, places }) = open
            && run.incarnation == frame.incarnation
            && run.first.checked_add(u64::from(run.count)) == Some(frame.index)
            && run.count < u32::MAX
        {
            if run.terms.last().is_none_or(|last| last.term != frame.term) {
                run.terms.push(TermRun {
                    first: frame.index,
                    term: frame.term,
                });
            }
            run.count += 1;
            run.digest = run.digest.wrapping_add(digest);
            places.push(place);
            return;
        }
        self.open.insert(frame.log, self.ops.len());
        let run = IndexRun {
            log: frame.log,
            incarnation: frame.incarnation,
            first: frame.index,
            count: 1,
            digest,
            terms: vec![TermRun {
                first: frame.index,
                term: frame.term,
            }],
            block_at: 0,
            block_crc: 0,
        };
        self.ops.push(Op::Run {
            run,
            places: vec![place],
        });
    }
}

impl Op {
    fn summary_len(&self) -> usize {
        match self {
            Op::Run { run, .. } => run::LEN + run.terms.len() * run::TERM_LEN,
            Op::Frame { payload, .. } => other::LEN + payload.len(),
        }
    }

    fn block_len(&self) -> usize {
        match self {
            Op::Run { places, .. } => places.len() * PLACE_LEN,
            Op::Frame { .. } => 0,
        }
    }

    /// Appends the operation to `summary`, and the block of a run to `blocks`, which stand in the file from
    /// `blocks_at` on.
    fn encode(&self, blocks_at: usize, summary: &mut Vec<u8>, blocks: &mut Vec<u8>) {
        match self {
            Op::Run { run, places } => {
                let start = blocks.len();
                blocks.extend(places.iter().flat_map(|place| place.to_le_bytes()));
                let block_crc = crc32fast::hash(&blocks[start..]);
                encode_run(run, (blocks_at + start) as u64, block_crc, summary);
            }
            Op::Frame {
                frame,
                header_at,
                payload,
            } => {
                encode_other(frame, *header_at, payload.len(), summary);
                summary.extend_from_slice(payload);
            }
        }
    }
}

fn encode_run(run: &IndexRun, block_at: u64, block_crc: u32, summary: &mut Vec<u8>) {
    let terms = u32::try_from(run.terms.len()).expect("no more than entries");
    let mut out = [0; run::LEN];
    put(&mut out, run::OP, [OP_RUN]);
    put(&mut out, run::COUNT, run.count.to_le_bytes());
    put(&mut out, run::LOG, run.log.0.to_le_bytes());
    put(&mut out, run::INCARNATION, run.incarnation.to_le_bytes());
    put(&mut out, run::FIRST, run.first.to_le_bytes());
    put(&mut out, run::DIGEST, run.digest.to_le_bytes());
    put(&mut out, run::BLOCK_AT, block_at.to_le_bytes());
    put(&mut out, run::BLOCK_CRC, block_crc.to_le_bytes());
    put(&mut out, run::TERMS, terms.to_le_bytes());
    summary.extend_from_slice(&out);
    for next in &run.terms {
        let mut out = [0; run::TERM_LEN];
        put(&mut out, run::TERM_FIRST, next.first.to_le_bytes());
        put(&mut out, run::TERM, next.term.0.to_le_bytes());
        summary.extend_from_slice(&out);
    }
}

fn encode_other(frame: &Frame, header_at: u64, inline: usize, summary: &mut Vec<u8>) {
    let inline = u32::try_from(inline).expect("only the small payloads of Facts and Floor");
    let mut out = [0; other::LEN];
    put(&mut out, other::OP, [OP_FRAME]);
    put(&mut out, other::KIND, [frame.kind as u8]);
    put(&mut out, other::CELL, [frame.cell]);
    put(&mut out, other::PAYLOAD_LEN, frame.len.to_le_bytes());
    put(&mut out, other::LOG, frame.log.0.to_le_bytes());
    put(&mut out, other::INCARNATION, frame.incarnation.to_le_bytes());
    put(&mut out, other::INDEX, frame.index.to_le_bytes());
    put(&mut out, other::TERM, frame.term.0.to_le_bytes());
    put(&mut out, other::HEADER_AT, header_at.to_le_bytes());
    put(&mut out, other::PAYLOAD_CRC, frame.payload_crc.to_le_bytes());
    put(&mut out, other::PAYLOAD_AT, frame.payload_at.to_le_bytes());
    put(&mut out, other::INLINE, inline.to_le_bytes());
    summary.extend_from_slice(&out);
}
