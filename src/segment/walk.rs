//! The batches of a segment, one after another, each judged before it is given out.

use crate::error::Result;
use crate::format::{
    BATCH_HEADER_LEN, BATCHES_AT, Bad, BatchHeader, End, Frame, decode_each, decode_tables, header_at,
};
use crate::mutant::{Rule, removed};
use crate::segment::Segment;
use crate::segment::scan::{Identity, Scanned, WINDOW_TABLES, WINDOW_WHOLE, Window, scan};

/// How much of a batch must verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Header, chain, frame headers and terms.
    Tables,
    /// The payloads as well.
    Payloads,
}

/// A batch that verifies.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) header: BatchHeader,
    pub(crate) frames: Vec<Frame>,
}

/// A place where the next batch should be, and does not verify.
#[derive(Debug)]
pub(crate) struct BadPlace {
    pub(crate) at: u64,
    /// Sequence of the batch that should be here.
    pub(crate) sequence: u64,
    pub(crate) what: String,
    /// What still verifies of it: nothing, or the header and some frames.
    pub(crate) rest: Option<Rest>,
}

/// A batch whose header verifies and something else does not.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) header: BatchHeader,
    /// The frames whose headers verify, by position, and whether the payload does.
    pub(crate) frames: Vec<(u32, Frame, bool)>,
    /// Some frame headers do not: any log may be meant.
    pub(crate) unknown: bool,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    Batch(Batch),
    Bad(BadPlace),
    /// There is no room for another header.
    Full,
}

/// A walk along the batches of a segment.
pub(crate) struct Walk<'a> {
    window: Window<'a>,
    identity: Identity,
    depth: Depth,
    to: u64,
    at: u64,
    sequence: u64,
    /// `None` behind bytes that were skipped.
    chain: Option<u32>,
    /// The opening names its carry batch by checksum, so that batch cannot name the opening's: it names 0.
    carries: bool,
    segment: u64,
}

impl<'a> Walk<'a> {
    /// From the opening of `segment` to the file offset `to`. A tolerant one takes what cannot be read for zeros; ask
    /// [`Walk::window`] for the holes.
    pub(crate) fn new(segment: &'a Segment, to: u64, depth: Depth, tolerant: bool) -> Result<Walk<'a>> {
        let opening = &segment.opening;
        let ahead = if depth == Depth::Payloads {
            WINDOW_WHOLE
        } else {
            WINDOW_TABLES
        };
        let to = to.min(segment.readable_len()?);
        Ok(Walk {
            // Not a byte further: one that cannot be read behind the end of a sealed segment is nobody's trouble.
            window: Window::new(&*segment.file, &segment.path, to, ahead, tolerant),
            identity: Identity::of(opening),
            depth,
            to,
            at: BATCHES_AT,
            sequence: opening.sequence,
            chain: Some(opening.chain()),
            carries: opening.carry_len != 0,
            segment: segment.id,
        })
    }

    /// Judges the next batch. Behind a bad one the walk stands still, until [`Walk::skip`] or [`Walk::resume`].
    pub(crate) fn step(&mut self) -> Result<Step> {
        if self.to.saturating_sub(self.at) < BATCH_HEADER_LEN as u64 {
            return Ok(Step::Full);
        }
        let header = match self.header()? {
            Ok(header) => header,
            Err(what) => return Ok(Step::Bad(self.bad(what, None))),
        };
        let tables = self
            .window
            .get(self.at + BATCH_HEADER_LEN as u64, header.tables_len() as u64)?;
        let frames = match decode_tables(&header, tables) {
            Ok(frames) => frames,
            Err(bad) => {
                let alone = decode_each(&header, tables).unwrap_or_default();
                return self.rest(header, alone, bad);
            }
        };
        if self.depth == Depth::Payloads {
            let sound = self.check_payloads(&header, &frames)?;
            if sound.contains(&false) {
                return Ok(Step::Bad(self.bad_payloads(header, frames, &sound)));
            }
        }
        self.skip(&header);
        Ok(Step::Batch(Batch { header, frames }))
    }

    /// Goes on behind the batch of `header`.
    pub(crate) fn skip(&mut self, header: &BatchHeader) {
        self.at = header.end();
        self.sequence = header.sequence;
        self.chain = Some(header.crc);
    }

    /// Goes on at the batch of `header`, behind bytes of which nothing is known.
    pub(crate) fn resume(&mut self, header: &BatchHeader) {
        self.at = header.offset;
        self.sequence = header.sequence.saturating_sub(1);
        self.chain = None;
    }

    /// The payload of a frame whose header stands at `header_at`; `None` if it does not verify.
    pub(crate) fn payload(&mut self, frame: &Frame, header_at: u64) -> Result<Option<&[u8]>> {
        let bytes = self
            .window
            .get(frame.payload_offset(header_at), u64::from(frame.len))?;
        Ok(frame.check_payload(bytes).is_ok().then_some(bytes))
    }

    /// Looks for headers of this segment from `from` on; see [`scan`].
    pub(crate) fn scan(&mut self, from: u64, until: Option<u64>) -> Result<Scanned> {
        let from = from.next_multiple_of(self.identity.align());
        let to = self.to;
        scan(&mut self.window, self.identity, from..to.max(from), until)
    }

    /// Where the walk stands: behind the last batch.
    pub(crate) fn end(&self) -> End {
        End {
            segment: self.segment,
            offset: self.at,
            sequence: self.sequence,
            chain: self.chain.unwrap_or(0),
        }
    }

    /// The bytes under the walk.
    pub(crate) fn window(&mut self) -> &mut Window<'a> {
        &mut self.window
    }

    /// The header of the batch that should stand here, or why it does not.
    fn header(&mut self) -> Result<std::result::Result<BatchHeader, String>> {
        let bytes = self.window.get(self.at, BATCH_HEADER_LEN as u64)?;
        let header = match BatchHeader::decode(bytes) {
            Ok(header) => header,
            Err(bad) => return Ok(Err(format!("no batch header: {bad}"))),
        };
        let expected = self.sequence + 1;
        let why = if !self.identity.accepts(&header, self.at) {
            format!(
                "the batch header belongs to offset {} of segment {:016x}",
                header.offset, header.segment
            )
        } else if header.sequence != expected && !removed(Rule::HeaderSequence) {
            format!(
                "the batch has sequence {} where {expected} belongs",
                header.sequence
            )
        } else if !self.follows(&header) && !removed(Rule::HeaderChain) {
            "the batch does not follow the one before it".to_owned()
        } else if header.end() > self.to {
            format!(
                "the batch ends at {}, behind the end of its segment",
                header.end()
            )
        } else {
            return Ok(Ok(header));
        };
        Ok(Err(why))
    }

    /// Whether `header` names the one before it.
    fn follows(&self, header: &BatchHeader) -> bool {
        let chain = if self.carries && self.at == BATCHES_AT {
            Some(0)
        } else {
            self.chain
        };
        chain.is_none_or(|chain| chain == header.chain)
    }

    fn check_payloads(&mut self, header: &BatchHeader, frames: &[Frame]) -> Result<Vec<bool>> {
        let mut sound = Vec::with_capacity(frames.len());
        for (i, frame) in frames.iter().enumerate() {
            let at = header_at(header.offset, i);
            sound.push(frame.len == 0 || self.payload(frame, at)?.is_some());
        }
        Ok(sound)
    }

    fn bad(&self, what: String, rest: Option<Rest>) -> BadPlace {
        BadPlace {
            at: self.at,
            sequence: self.sequence + 1,
            what,
            rest,
        }
    }

    fn bad_payloads(&self, header: BatchHeader, frames: Vec<Frame>, sound: &[bool]) -> BadPlace {
        let count = sound.iter().filter(|sound| !**sound).count();
        let what = format!(
            "{count} of the batch's {} payloads do not match their checksum",
            frames.len()
        );
        let frames = (0..)
            .zip(frames)
            .zip(sound)
            .map(|((i, frame), sound)| (i, frame, *sound))
            .collect();
        self.bad(
            what,
            Some(Rest {
                header,
                frames,
                unknown: false,
            }),
        )
    }

    /// The batch whose tables are bad as a whole: what is left of it, frame by frame.
    fn rest(
        &mut self,
        header: BatchHeader,
        alone: Vec<std::result::Result<Frame, Bad>>,
        bad: Bad,
    ) -> Result<Step> {
        let mut frames = Vec::new();
        let mut unknown = u64::from(header.frames) != alone.len() as u64;
        for (i, frame) in (0..).zip(alone) {
            let Ok(frame) = frame else {
                unknown = true;
                continue;
            };
            let at = header_at(header.offset, i);
            let sound = self.payload(&frame, at)?.is_some();
            frames.push((u32::try_from(i).unwrap_or(u32::MAX), frame, sound));
        }
        let what = format!("the frame headers of the batch are bad: {bad}");
        Ok(Step::Bad(self.bad(
            what,
            Some(Rest {
                header,
                frames,
                unknown,
            }),
        )))
    }
}
