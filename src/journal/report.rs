//! What opening a journal found, told as values: a verdict, what was cut, what is damaged, and how long it took.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::LogKey;

/// What the bytes said about how the journal was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It was closed: the last thing in it is a closing mark.
    #[default]
    Clean,
    /// It was not closed. Nothing was lost or cut.
    Unclean,
    /// It was not closed, and bytes that no sync is known to have covered were cut; see [`OpenReport::cut`].
    Torn,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Clean => "clean",
            Verdict::Unclean => "unclean",
            Verdict::Torn => "torn",
        })
    }
}

/// Bytes that do not belong to the journal: written, not valid as a whole, and without anything that shows that a sync
/// covered them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment file.
    pub path: PathBuf,
    /// Where the cut begins.
    pub offset: u64,
    /// Bytes from there to the last one that is not zero, or to the end of the last batch whose header verifies.
    pub bytes: u64,
    /// Batches that were cut, as far as they can be counted.
    pub batches: u64,
    /// Why the bytes do not stand: what is wrong with the first of them.
    pub why: String,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut {
            path,
            offset,
            bytes,
            batches,
            why,
        } = self;
        write!(
            f,
            "{} at {offset}: cut {bytes} bytes, {batches} batches, unwitnessed ({why})",
            path.display()
        )
    }
}

/// What [`Journal::open`](crate::Journal::open) found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// How the journal was left.
    pub verdict: Verdict,
    /// What was cut, if the verdict is [`Verdict::Torn`].
    pub cut: Vec<Cut>,
    /// Bytes of payload that were on disk but not proven to be, and were written again into a segment of this life. In a
    /// read-only view: that would be.
    pub carried_bytes: u64,
    /// Batches that these bytes came from.
    pub carried_batches: u64,
    /// Segments of the journal.
    pub segments: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// Logs.
    pub logs: usize,
    /// Time to list the directory and read every opening.
    pub list: Duration,
    /// Time to prove the structure: indexes and chains, and the last segment in full.
    pub structure: Duration,
    /// Time to rebuild the logs in memory.
    pub replay: Duration,
    /// Time to carry what was not proven into a segment of this life.
    pub carry: Duration,
    /// All of it.
    pub total: Duration,
    /// What a person should know although nothing is lost.
    pub warnings: Vec<String>,
}

/// What is wrong with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Acknowledged bytes are not what they were.
    Damaged,
    /// A torn end: nothing shows that its sync returned.
    Torn,
    /// The system does not give us the bytes.
    Unreadable,
    /// A file that the journal needs is not there.
    Missing,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FindingKind::Damaged => "damaged",
            FindingKind::Torn => "torn",
            FindingKind::Unreadable => "unreadable",
            FindingKind::Missing => "missing",
        })
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The log that it is about; `None` if it may be any.
    pub log: Option<LogKey>,
    /// The indexes that are lost, where they are known.
    pub range: Option<Range<u64>>,
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// One sentence.
    pub what: String,
    /// What sort of thing.
    pub kind: FindingKind,
}

impl Finding {
    pub(crate) fn new(
        kind: FindingKind,
        path: PathBuf,
        bytes: Range<u64>,
        what: impl Into<String>,
    ) -> Finding {
        let (offset, bytes) = (bytes.start, bytes.end.saturating_sub(bytes.start));
        Finding {
            log: None,
            range: None,
            path,
            offset,
            bytes,
            what: what.into(),
            kind,
        }
    }

    pub(crate) fn about(mut self, log: LogKey, range: Option<Range<u64>>) -> Finding {
        self.log = Some(log);
        self.range = range;
        self
    }

    /// Whether acknowledged bytes are lost, or may be.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self.kind {
            FindingKind::Damaged | FindingKind::Unreadable | FindingKind::Missing => true,
            FindingKind::Torn => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}: {}: {}",
            self.path.display(),
            self.offset,
            self.kind,
            self.what
        )?;
        match (self.log, &self.range) {
            (Some(log), Some(range)) => write!(f, " (log {log}, entries {}..{})", range.start, range.end),
            (Some(log), None) => write!(f, " (log {log})"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_says_where_how_much_and_why() {
        let cut = Cut {
            path: "d/journal/1.seg".into(),
            offset: 8192,
            bytes: 100,
            batches: 2,
            why: "nobody was told of them".into(),
        };
        let text = "d/journal/1.seg at 8192: cut 100 bytes, 2 batches, unwitnessed (nobody was told of them)";
        assert_eq!(cut.to_string(), text);
    }
}
