//! Findings as they are printed. Each ends with the next command to run.

use std::path::Path;

use everlog::inspect::{Finding, FindingKind};
use serde::Serialize;

use crate::output::word;

/// A finding for a program.
#[derive(Serialize)]
pub(crate) struct Printed {
    finding: String,
    log: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    file: String,
    offset: u64,
    bytes: u64,
    what: String,
    next: String,
}

/// `finding` of the journal at `dir` for a program.
pub(crate) fn object(dir: &Path, finding: &Finding) -> Printed {
    Printed {
        finding: finding.kind.to_string(),
        log: finding.log.map(|log| log.0),
        from: finding.range.as_ref().map(|range| range.start),
        to: finding.range.as_ref().map(|range| range.end),
        file: finding.path.display().to_string(),
        offset: finding.offset,
        bytes: finding.bytes,
        what: finding.what.clone(),
        next: next(dir, finding),
    }
}

/// `finding` of the journal at `dir` for a person: one line.
pub(crate) fn line(dir: &Path, finding: &Finding) -> String {
    let mut text = format!("{}: ", finding.kind);
    if let Some(log) = finding.log {
        text += &format!("log {log}, ");
    }
    if let Some(range) = &finding.range {
        text += &format!("indexes {}..{}, ", range.start, range.end);
    }
    text += &format!(
        "{} at {}, {} bytes: {}; next: {}",
        finding.path.display(),
        finding.offset,
        finding.bytes,
        finding.what,
        next(dir, finding)
    );
    text
}

/// What helps most: to take out what is intact; where no log is named, to look at the bytes; where the disk refused a
/// read, to read again once it was looked after.
fn next(dir: &Path, finding: &Finding) -> String {
    let dir = word(dir);
    match (finding.kind, finding.log, segment_of(&finding.path)) {
        (FindingKind::Unreadable, _, _) => format!("everlog verify {dir}"),
        (FindingKind::Torn, _, Some(id)) => format!("everlog dump {dir} --segment {id}"),
        (FindingKind::Torn, _, None) => format!("everlog dump {dir}"),
        (_, Some(log), _) => format!("everlog cat {dir} --log {log} --json"),
        (_, None, Some(id)) => format!("everlog dump {dir} --segment {id}"),
        (_, None, None) => format!("everlog dump {dir}"),
    }
}

fn segment_of(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok())?
}
