//! One frame alone, verified.

use std::ops::Range;

use bytes::Bytes;

use super::ahead::{ReadAhead, Which};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FRAME_HEADER_LEN, Frame, FrameDecoder, Kind};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::types::{LogKey, Term};

/// A payload below this length does not keep a window in memory.
const COPIED: usize = 16 << 10;

/// What a frame must say to be the right one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    pub(crate) cell: u8,
    pub(crate) log: LogKey,
    pub(crate) incarnation: u64,
    /// The index of an entry; not looked at for a cell.
    pub(crate) index: u64,
    pub(crate) term: Term,
}

impl Wanted {
    fn accepts(&self, frame: &Frame) -> bool {
        removed(Rule::FrameIsWanted)
            || frame.kind == self.kind
                && frame.cell == self.cell
                && frame.log == self.log
                && frame.incarnation == self.incarnation
                && (frame.index == self.index || self.kind == Kind::Cell)
    }

    fn name(&self) -> String {
        match self.kind {
            Kind::Cell => format!("cell {}", self.cell),
            _ => format!("entry {}", self.index),
        }
    }
}

/// The payload of the frame whose header stands at `header_at`: header and payload verify and are those of `wanted`, or
/// the error says `Damaged` with the place. A read error is `Io`.
pub(crate) fn read_payload(segment: &Segment, header_at: u64, wanted: &Wanted) -> Result<Bytes> {
    let decoder = FrameDecoder::new(segment.opening.salt, wanted.term);
    let mut ahead = ReadAhead::of_one();
    verified(&decoder, segment, header_at, wanted, &mut ahead, part_of)
}

/// A part of a window on its own; a small one does not keep the window in memory.
pub(crate) fn part_of(window: &Bytes, part: &Range<usize>) -> Bytes {
    match part.len() < COPIED && part.len() < window.len() {
        true => Bytes::copy_from_slice(&window[part.clone()]),
        false => window.slice(part.clone()),
    }
}

/// As [`read_payload`], of bytes that come through `ahead`, with the decoder of the segment's salt and the wanted term: what `take` makes of
/// the payload, which is a part of a window.
#[inline]
pub(super) fn verified<T>(
    decoder: &FrameDecoder,
    segment: &Segment,
    header_at: u64,
    wanted: &Wanted,
    ahead: &mut ReadAhead,
    take: impl FnOnce(&Bytes, &Range<usize>) -> T,
) -> Result<T> {
    let damaged = |at: u64, what: String| {
        let (log, name) = (wanted.log, wanted.name());
        let text = format!("{what} (log {log}, {name}); `everlog verify` lists all damage");
        Error::at_offset(ErrorKind::Damaged, &segment.path, at, text)
    };
    let header = ahead.find(Which::Headers, segment, header_at, FRAME_HEADER_LEN as u64)?;
    let Some((window, part)) = header else {
        return Err(damaged(header_at, "the file ends before the frame".into()));
    };
    // By reference: what was just written in pieces is slow to move as a whole.
    let decoded = decoder.decode(&window[part]);
    let frame = match &decoded {
        Ok(frame) => frame,
        Err(bad) => return Err(damaged(header_at, format!("the frame header is bad: {bad}"))),
    };
    if !wanted.accepts(frame) {
        return Err(damaged(
            header_at,
            format!("another frame stands here: {frame:?}"),
        ));
    }
    let from = frame.payload_offset(header_at);
    let Some((window, part)) = ahead.find(Which::Payloads, segment, from, u64::from(frame.len))? else {
        return Err(damaged(from, "the file ends before the payload".into()));
    };
    match frame.check_payload(&window[part.clone()]) {
        Ok(()) => Ok(take(window, &part)),
        Err(bad) => Err(damaged(from, format!("the payload is bad: {bad}"))),
    }
}
