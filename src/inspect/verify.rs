//! Reading everything, to say what is wrong.

use std::path::Path;

use crate::config::Config;
use crate::error::Result;
use crate::fs::{Access, Fs};
use crate::journal::{Finding, Verdict};
use crate::segment::{JOURNAL_DIR, Segment};
use crate::sync::Arc;

use super::view::look;

/// How far a [`verify`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes read so far.
    pub done_bytes: u64,
    /// Bytes of all segments.
    pub total_bytes: u64,
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// What is wrong, in the order of the files.
    pub findings: Vec<Finding>,
    /// There is a torn end, which the next open cuts.
    pub torn: bool,
    /// It was closed, and nothing is wrong.
    pub clean: bool,
    /// Segments of the journal.
    pub segments: u64,
    /// Batches in them.
    pub batches: u64,
    /// Entries in them, purged and truncated ones included.
    pub entries: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// Reads the whole journal in `dir`: every header, chain, frame and payload of every segment, and every live cell.
/// Changes nothing; works beside a live writer, up to what that has proven.
///
/// Errors: those of [`View::open`](super::View::open). Damage is not an error but a finding.
pub fn verify(dir: &Path, config: Config, progress: &mut dyn FnMut(Progress)) -> Result<Verification> {
    verify_on(super::real(dir)?, config, progress)
}

/// [`verify`] in a given file system.
pub fn verify_on(
    fs: Arc<dyn Fs>,
    config: Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verification> {
    let total_bytes = total_bytes(&fs);
    let mut done_bytes = 0;
    let (found, holder) = look(&fs, &config.verify_on_open(true), &mut |bytes| {
        done_bytes = (done_bytes + bytes).min(total_bytes);
        progress(Progress {
            done_bytes,
            total_bytes,
        });
    })?;
    progress(Progress {
        done_bytes: total_bytes,
        total_bytes,
    });
    let mut findings = found.findings;
    findings.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
    Ok(Verification {
        torn: found.report.verdict == Verdict::Torn,
        clean: found.clean && holder.is_none() && findings.is_empty(),
        segments: found.report.segments as u64,
        batches: found.counted.batches,
        entries: found.counted.entries,
        bytes: found.report.bytes,
        findings,
    })
}

fn total_bytes(fs: &Arc<dyn Fs>) -> u64 {
    let names = fs.list(JOURNAL_DIR).unwrap_or_default();
    let ids = names.iter().filter_map(|name| Segment::parse_name(name));
    ids.filter_map(|id| fs.open(&Segment::name(id), Access::Read).ok()?.len().ok())
        .sum()
}
