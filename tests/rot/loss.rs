//! A loss that nobody called damage: is it one of those that cannot be decided? They are listed in DESIGN.md, section 6, and this
//! is that list as code. What bears witness is worked out from the bytes that the damage left.

use everlog::{Cut, OpenReport, Verdict};

use super::damage::Touched;
use super::raw::{self, BATCHES_AT, Dump, Link, RawBatch};
use super::subject::{Position, Subject};

/// A row of DESIGN.md, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Undecidable {
    /// The last acknowledged batches while no later header bears witness to them; something is left of them, and cut.
    Unwitnessed,
    /// The same, and the damage left nothing but zeros.
    UnwitnessedZeros,
    /// A batch and every witness of it.
    Witness,
    /// The last file is missing.
    LastFile,
    /// The directory was put back as it was earlier.
    Directory,
    /// Both copies of an opening, before any header with a durable-through.
    Opening,
}

pub(crate) const ALL: [Undecidable; 6] = [
    Undecidable::Unwitnessed,
    Undecidable::UnwitnessedZeros,
    Undecidable::Witness,
    Undecidable::LastFile,
    Undecidable::Directory,
    Undecidable::Opening,
];

impl Undecidable {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Undecidable::Unwitnessed => "unwitnessed",
            Undecidable::UnwitnessedZeros => "unwitnessed and zeroed",
            Undecidable::Witness => "with every witness",
            Undecidable::LastFile => "last file missing",
            Undecidable::Directory => "directory put back",
            Undecidable::Opening => "both openings before a witness",
        }
    }
}

/// Whether the segment is part of the journal for whoever reads what is left: its opening verifies, and what that carries; or a
/// header in it shows that its sync returned.
pub(crate) fn counts(now: &Dump, link: &Link) -> bool {
    let Some(bytes) = now.get(&link.path) else {
        return false;
    };
    let same = raw::opening(bytes, link.id).is_some_and(|opening| opening == link.opening);
    (same && raw::unit_is_whole(bytes, link.id)) || durable_through(now, link) != 0
}

/// The highest durable-through in what is left of a segment.
pub(crate) fn durable_through(now: &Dump, link: &Link) -> u64 {
    let bytes = now.get(&link.path).map_or(&[][..], |bytes| bytes);
    let headers = raw::headers(bytes, link.id, link.opening.salt);
    headers.map(|header| header.durable_through).max().unwrap_or(0)
}

/// Whether anything in what is left shows that a sync covered the batch.
pub(crate) fn is_witnessed(subject: &Subject, now: &Dump, link: &Link, batch: &RawBatch) -> bool {
    let later = subject.chain.iter().filter(|later| later.id > link.id);
    durable_through(now, link) >= batch.header.sequence || later.into_iter().any(|later| counts(now, later))
}

/// Everything behind `from` is gone, and neither open nor a read called it damage. Says which row it is, or why it is none.
pub(crate) fn classify(
    subject: &Subject,
    touched: &Touched,
    now: &Dump,
    from: Position,
    report: &OpenReport,
) -> Result<Undecidable, String> {
    let behind = |(link, batch): &(&Link, &RawBatch)| (link.id, batch.header.offset) >= from;
    let gone = || subject.batches().filter(behind);
    let with_frames = || gone().filter(|(_, batch)| !batch.frames.is_empty());
    if let Some((link, batch)) = with_frames().find(|(link, batch)| is_witnessed(subject, now, link, batch)) {
        return Err(format!(
            "a silent cut: batch {} at {} of {} is gone and still has a witness",
            batch.header.sequence, batch.header.offset, link.path
        ));
    }
    let last = subject.last();
    if touched.put_back {
        return Ok(Undecidable::Directory);
    }
    let Some(bytes) = now.get(&last.path) else {
        return Ok(Undecidable::LastFile);
    };
    let cut = told(bytes, counts(now, last), last, report)?;
    if raw::opening(bytes, last.id) != Some(last.opening) {
        return Ok(Undecidable::Opening);
    }
    let was_witnessed = with_frames().any(|(link, batch)| is_witnessed(subject, &subject.dump, link, batch));
    match (was_witnessed, cut) {
        (false, true) => Ok(Undecidable::Unwitnessed),
        (false, false) => Ok(Undecidable::UnwitnessedZeros),
        (true, _) if !counts(now, last) || with_frames().all(|(link, _)| link.id == last.id) => {
            Ok(Undecidable::Witness)
        }
        (true, _) => Err("it fits no row of DESIGN.md, section 6".to_owned()),
    }
}

/// Whether the report says that what is left of the last segment behind its valid batches was cut; an error if something is left
/// and the report does not say just that.
fn told(bytes: &[u8], counts: bool, last: &Link, report: &OpenReport) -> Result<bool, String> {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at as u64 + 1);
    let begins = if counts { valid_end(bytes, last) } else { 0 };
    if end <= begins {
        return Ok(false);
    }
    let headers = raw::headers(bytes, last.id, last.opening.salt);
    let end = headers.map(|header| header.end()).fold(end, u64::max);
    // Of a unit that is void the opening counts as a whole.
    let ends = [end, if counts { end } else { end.max(BATCHES_AT) }];
    let right = |cut: &Cut| {
        let (from, to) = (cut.offset, cut.offset + cut.bytes);
        cut.path.ends_with(&last.path) && from == begins && ends.contains(&to)
    };
    if report.verdict == Verdict::Torn && report.cut.iter().any(right) {
        return Ok(true);
    }
    Err(format!(
        "{} holds bytes from {begins} to {end} that are cut, and the report says {:?}, {:?}",
        last.path, report.verdict, report.cut
    ))
}

/// Where the batches of the last segment cease to verify.
fn valid_end(bytes: &[u8], last: &Link) -> u64 {
    let mut at = BATCHES_AT;
    let sound = |at| {
        raw::header_at(bytes, at)
            .filter(|header| (header.segment, header.salt) == (last.id, last.opening.salt))
            .filter(|header| raw::is_whole(bytes, header))
    };
    while let Some(header) = sound(at) {
        at = header.end();
    }
    at
}
