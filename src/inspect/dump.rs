//! The bytes of segments, structure by structure, in the order of the files.

use std::fmt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{BATCHES_AT, BatchHeader, COPY_AT, Flags, Frame, Kind, OPENING_LEN, Opening, header_at};
use crate::fs::{Access, File, Fs};
use crate::journal::Uuid;
use crate::segment::scan::{Identity, WINDOW_WHOLE, Window, scan};
use crate::segment::walk::{BadPlace, Batch, Depth, Step, Walk};
use crate::segment::{JOURNAL_DIR, Segment};
use crate::sync::Arc;
use crate::types::{LogKey, Term};

/// A structure of a segment, with the offset in the file where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpItem {
    /// A copy of an opening that verifies.
    #[non_exhaustive]
    Opening {
        /// The segment.
        segment: u64,
        /// Where it begins.
        offset: u64,
        /// The journal.
        uuid: Uuid,
        /// Its sequence.
        sequence: u64,
        /// Microseconds since 1970.
        time: u64,
        /// What batches are aligned to, in bytes.
        align: u64,
        /// The segment that this one continues, and the offset where that one ends.
        pred: Option<(u64, u64)>,
        /// Bytes of the batch that it carries; 0 if none.
        carry_bytes: u64,
        /// Lowest segment that the journal needed; 0 or 1: all.
        floor: u64,
        /// Bytes of the file when it was written.
        file_bytes: u64,
    },
    /// A batch header that verifies.
    #[non_exhaustive]
    Batch {
        /// The segment.
        segment: u64,
        /// Where it begins.
        offset: u64,
        /// With frames, payloads and padding.
        bytes: u64,
        /// Its sequence.
        sequence: u64,
        /// The highest sequence of its segment that a returned sync had covered when it was written; 0: none.
        durable_through: u64,
        /// Microseconds since 1970.
        time: u64,
        /// What sort of batch.
        kind: BatchKind,
        /// How many frames.
        frames: u32,
        /// Sum of the payloads' lengths.
        payload_bytes: u64,
    },
    /// A frame whose header verifies.
    #[non_exhaustive]
    Frame {
        /// The segment.
        segment: u64,
        /// Where its header begins.
        offset: u64,
        /// What it does: `append`, `truncate`, `purge`, `reset`, `cell`, `create`, `delete`, `facts`, `floor`.
        kind: &'static str,
        /// The log.
        log: LogKey,
        /// Tells the log from an earlier one of the same key.
        incarnation: u64,
        /// The index, where the kind has one.
        index: u64,
        /// The term.
        term: Term,
        /// The cell, if it sets one.
        cell: Option<u8>,
        /// Where its payload begins.
        payload_offset: u64,
        /// Length of its payload.
        payload_bytes: u64,
        /// Whether the payload verifies.
        sound: bool,
    },
    /// Bytes that are not what should be there, and not blank. At the end of a segment they may be a torn or
    /// superseded end; [`verify`](super::verify) knows.
    #[non_exhaustive]
    Bad {
        /// The segment.
        segment: u64,
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
        /// What is wrong.
        what: String,
    },
}

/// What sort of batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BatchKind {
    /// Written for somebody.
    Ordinary,
    /// A witness, without frames.
    Mark,
    /// The mark that `close` writes.
    ClosingMark,
    /// Fills up to a block, so that a mark has its own.
    Skip,
    /// What an opening carries from an earlier life.
    Carry,
}

impl fmt::Display for BatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BatchKind::Ordinary => "ordinary",
            BatchKind::Mark => "mark",
            BatchKind::ClosingMark => "closing mark",
            BatchKind::Skip => "skip",
            BatchKind::Carry => "carry",
        })
    }
}

/// Hands every structure of the journal in `dir` to `sink`, segment by segment, whatever becomes of the journal as a
/// whole; of one segment only, if it is named. What is bad is an item, and the dump goes on behind it.
///
/// Errors: those of [`find`](super::find), `NotFound` if the named segment is not there, and whatever `sink` returns.
pub fn dump(dir: &Path, segment: Option<u64>, sink: &mut dyn FnMut(DumpItem) -> Result<()>) -> Result<()> {
    dump_on(super::real(dir)?, segment, sink)
}

/// [`dump`] in a given file system.
pub fn dump_on(
    fs: Arc<dyn Fs>,
    segment: Option<u64>,
    sink: &mut dyn FnMut(DumpItem) -> Result<()>,
) -> Result<()> {
    let names = fs
        .list(JOURNAL_DIR)
        .map_err(|e| Error::io(fs.display(JOURNAL_DIR), "list the segments", e))?;
    let ids: Vec<u64> = names
        .iter()
        .filter_map(|name| Segment::parse_name(name))
        .collect();
    if let Some(id) = segment.filter(|id| !ids.contains(id)) {
        let path = fs.display(&Segment::name(id));
        return Err(Error::at(
            ErrorKind::NotFound,
            path,
            format!("there is no segment {id}"),
        ));
    }
    for id in ids
        .into_iter()
        .filter(|id| segment.is_none_or(|only| only == *id))
    {
        match fs.open(&Segment::name(id), Access::Read) {
            Ok(file) => Dump { id, sink: &mut *sink }.segment(&fs, file)?,
            // Freed by a writer meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(fs.display(&Segment::name(id)), "open the segment", e)),
        }
    }
    Ok(())
}

struct Dump<'a> {
    id: u64,
    sink: &'a mut dyn FnMut(DumpItem) -> Result<()>,
}

impl Dump<'_> {
    fn segment(&mut self, fs: &Arc<dyn Fs>, file: Arc<dyn File>) -> Result<()> {
        let path = fs.display(&Segment::name(self.id));
        let len = file.len().map_err(|e| Error::io(&path, "read its size", e))?;
        let mut opening = None;
        for at in [0, COPY_AT] {
            let mut window = Window::new(&*file, &path, len, OPENING_LEN, true);
            let bytes = window.get(at, OPENING_LEN as u64)?;
            match Opening::decode(bytes) {
                Ok(good) => {
                    self.opening(at, &good)?;
                    opening = Some(good);
                }
                Err(bad) if bytes.iter().any(|byte| *byte != 0) => {
                    self.bad(at, OPENING_LEN as u64, format!("the opening is bad: {bad}"))?;
                }
                Err(_) if window.hole_in(at..at + 1).is_some() => {
                    self.bad(at, OPENING_LEN as u64, "the opening cannot be read".to_owned())?;
                }
                Err(_) => {}
            }
        }
        match opening {
            Some(opening) => self.batches(&Segment::new(self.id, file, path, opening)),
            None => self.without_opening(&*file, &path, len),
        }
    }

    fn batches(&mut self, segment: &Segment) -> Result<()> {
        let len = segment.readable_len()?;
        let mut walk = Walk::new(segment, len, Depth::Payloads, true)?;
        loop {
            match walk.step()? {
                Step::Full => return Ok(()),
                Step::Batch(Batch { header, frames }) => {
                    self.batch(&header)?;
                    for (i, frame) in frames.iter().enumerate() {
                        self.frame(frame, header_at(header.offset, i), true)?;
                    }
                }
                Step::Bad(bad) => {
                    if !self.bad_place(&mut walk, bad, len)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Shows what is left of a bad place; false if nothing follows it.
    fn bad_place(&mut self, walk: &mut Walk<'_>, bad: BadPlace, len: u64) -> Result<bool> {
        if let Some(rest) = bad.rest {
            self.batch(&rest.header)?;
            for (i, frame, sound) in &rest.frames {
                let i = usize::try_from(*i).unwrap_or(usize::MAX);
                self.frame(frame, header_at(rest.header.offset, i), *sound)?;
            }
            self.bad(rest.header.offset, u64::from(rest.header.len), bad.what)?;
            walk.skip(&rest.header);
            return Ok(true);
        }
        let here = walk.scan(bad.at, None)?;
        if here.end == bad.at && walk.window().hole_in(bad.at..len).is_none() {
            return Ok(false);
        }
        let next = walk.scan(bad.at + 1, Some(bad.sequence))?.stop;
        let end = next.as_ref().map_or(here.end, |header| header.offset);
        self.bad(bad.at, end - bad.at, bad.what)?;
        if let Some(header) = &next {
            walk.resume(header);
        }
        Ok(next.is_some())
    }

    fn without_opening(&mut self, file: &dyn File, path: &Path, len: u64) -> Result<()> {
        let mut window = Window::new(file, path, len, WINDOW_WHOLE, true);
        let seen = scan(
            &mut window,
            Identity::unknown(self.id),
            BATCHES_AT..len.max(BATCHES_AT),
            None,
        )?;
        if seen.end > BATCHES_AT {
            let what = format!(
                "no opening, and behind it {} batch headers of this segment",
                seen.headers
            );
            self.bad(BATCHES_AT, seen.end - BATCHES_AT, what)?;
        }
        Ok(())
    }

    fn opening(&mut self, offset: u64, opening: &Opening) -> Result<()> {
        (self.sink)(DumpItem::Opening {
            segment: self.id,
            offset,
            uuid: Uuid(opening.uuid),
            sequence: opening.sequence,
            time: opening.time,
            align: 1 << opening.align_shift,
            pred: opening.pred.map(|pred| (pred.segment, pred.offset)),
            carry_bytes: opening.carry_len,
            floor: opening.floor,
            file_bytes: opening.len,
        })
    }

    fn batch(&mut self, header: &BatchHeader) -> Result<()> {
        (self.sink)(DumpItem::Batch {
            segment: self.id,
            offset: header.offset,
            bytes: u64::from(header.len),
            sequence: header.sequence,
            durable_through: header.durable_through,
            time: header.time,
            kind: batch_kind(header.flags),
            frames: header.frames,
            payload_bytes: u64::from(header.payload_len),
        })
    }

    fn frame(&mut self, frame: &Frame, offset: u64, sound: bool) -> Result<()> {
        (self.sink)(DumpItem::Frame {
            segment: self.id,
            offset,
            kind: frame_kind(frame.kind),
            log: frame.log,
            incarnation: frame.incarnation,
            index: frame.index,
            term: frame.term,
            cell: (frame.kind == Kind::Cell).then_some(frame.cell),
            payload_offset: frame.payload_offset(offset),
            payload_bytes: u64::from(frame.len),
            sound,
        })
    }

    fn bad(&mut self, offset: u64, bytes: u64, what: String) -> Result<()> {
        (self.sink)(DumpItem::Bad {
            segment: self.id,
            offset,
            bytes,
            what,
        })
    }
}

fn batch_kind(flags: Flags) -> BatchKind {
    if flags.has(Flags::CLOSING) {
        BatchKind::ClosingMark
    } else if flags.has(Flags::MARK) {
        BatchKind::Mark
    } else if flags.has(Flags::SKIP) {
        BatchKind::Skip
    } else if flags.has(Flags::CARRY) {
        BatchKind::Carry
    } else {
        BatchKind::Ordinary
    }
}

fn frame_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Append => "append",
        Kind::Truncate => "truncate",
        Kind::Purge => "purge",
        Kind::Reset => "reset",
        Kind::Cell => "cell",
        Kind::Create => "create",
        Kind::Delete => "delete",
        Kind::Facts => "facts",
        Kind::Floor => "floor",
        Kind::CellUnknown => "cell unknown",
        Kind::Lost => "lost",
        Kind::Relocated => "relocated",
    }
}
