//! One frame alone, verified.

use bytes::Bytes;

use super::ahead::{ReadAhead, Which};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FRAME_HEADER_LEN, Frame, Kind, decode_frame};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::types::{LogKey, Term};

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
    verified(segment, header_at, wanted, &mut ReadAhead::of_one())
}

/// As [`read_payload`], of bytes that come through `ahead`.
pub(super) fn verified(
    segment: &Segment,
    header_at: u64,
    wanted: &Wanted,
    ahead: &mut ReadAhead,
) -> Result<Bytes> {
    let damaged = |at: u64, what: String| {
        let (log, name) = (wanted.log, wanted.name());
        let text = format!("{what} (log {log}, {name}); `everlog verify` lists all damage");
        Error::at_offset(ErrorKind::Damaged, &segment.path, at, text)
    };
    let header = ahead.bytes(Which::Headers, segment, header_at, FRAME_HEADER_LEN as u64)?;
    let header = header.ok_or_else(|| damaged(header_at, "the file ends before the frame".into()))?;
    let frame = decode_frame(segment.opening.salt, wanted.term, header)
        .map_err(|bad| damaged(header_at, format!("the frame header is bad: {bad}")))?;
    if !wanted.accepts(&frame) {
        return Err(damaged(
            header_at,
            format!("another frame stands here: {frame:?}"),
        ));
    }
    let from = frame.payload_offset(header_at);
    let payload = ahead.payload(segment, from, u64::from(frame.len))?;
    let payload = payload.ok_or_else(|| damaged(from, "the file ends before the payload".into()))?;
    frame
        .check_payload(&payload)
        .map_err(|bad| damaged(from, format!("the payload is bad: {bad}")))?;
    Ok(payload)
}
