//! What goes wrong with a call, from which call on, and for how long; as text, so that one case can be run again.

use std::fmt;
use std::io;
use std::str::FromStr;

use everlog::fs::{Kept, Op};

use super::saboteur::{EIO, ENOSPC, Site};

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// EIO, and nothing is done.
    Io,
    /// ENOSPC, and nothing is done.
    Full,
    /// EINTR, and nothing is done.
    Interrupted,
    /// A read or write of half as many bytes.
    Half,
    /// A read or write of one byte.
    One,
    /// It is done, and EIO all the same.
    After,
    /// Half of a write is taken, and then EIO.
    Torn,
    /// Half of a write is taken, and then ENOSPC.
    TornFull,
    /// The sync fails, what it covered is lost, and the next one says Ok.
    Lost,
    /// The same, but of each sector or name the old or the new is kept.
    Partly,
    /// The sync fails, and everything is durable all the same.
    Kept,
    /// The system fails to write back what was written to the file so far, and the next sync tells.
    Late,
    /// Two syncs of the file overlap: ours fails, what it covered is lost, and the other one says Ok.
    Overlap,
}

/// For how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Span {
    Once,
    /// Every later call of the same operation on the same sort of file.
    Site,
    /// Every later call that it can befall.
    All,
}

/// From the call `at` on, counted from 1, the first call that `harm` can befall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) at: u64,
    pub(crate) harm: Harm,
    pub(crate) span: Span,
}

/// What a path is to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    Root,
    Directory,
    Lock,
    Segment,
    Index,
    Spare,
    Temporary,
    TemporaryIndex,
    FirstSegment,
}

pub(crate) const HARMS: [Harm; 13] = [
    Harm::Io,
    Harm::Full,
    Harm::Interrupted,
    Harm::Half,
    Harm::One,
    Harm::After,
    Harm::Torn,
    Harm::TornFull,
    Harm::Lost,
    Harm::Partly,
    Harm::Kept,
    Harm::Late,
    Harm::Overlap,
];

pub(crate) const SPANS: [Span; 3] = [Span::Once, Span::Site, Span::All];

impl Sort {
    pub(crate) fn of(path: &str) -> Sort {
        match path {
            "" => Sort::Root,
            "journal" => Sort::Directory,
            "lock" => Sort::Lock,
            "journal/create.tmp" => Sort::FirstSegment,
            _ => match path.rsplit('.').next() {
                Some("seg") => Sort::Segment,
                Some("idx") => Sort::Index,
                Some("spare") => Sort::Spare,
                Some("tmp") => Sort::Temporary,
                Some("tmp-idx") => Sort::TemporaryIndex,
                _ => panic!("no file of a journal: {path:?}"),
            },
        }
    }
}

impl Harm {
    /// Whether it can befall a call at `site`.
    pub(crate) fn applies(self, site: Site) -> bool {
        let op = site.op;
        match self {
            Harm::Io | Harm::Interrupted => true,
            Harm::Full => matches!(
                op,
                Op::CreateDir
                    | Op::Create
                    | Op::Rename
                    | Op::SyncDir
                    | Op::Lock
                    | Op::Write
                    | Op::SyncData
                    | Op::SetLen
            ),
            Harm::Half | Harm::One => matches!(op, Op::Read | Op::Write),
            Harm::After => matches!(
                op,
                Op::CreateDir
                    | Op::Create
                    | Op::Open
                    | Op::Rename
                    | Op::Remove
                    | Op::RemoveDir
                    | Op::Lock
                    | Op::Write
                    | Op::SetLen
            ),
            Harm::Torn | Harm::TornFull | Harm::Late => op == Op::Write,
            Harm::Lost | Harm::Partly | Harm::Kept => matches!(op, Op::SyncData | Op::SyncDir),
            Harm::Overlap => op == Op::SyncData,
        }
    }

    /// Whether the journal is told of a failure, at this call or a later one.
    pub(crate) fn is_failure(self, op: Op) -> bool {
        match self {
            Harm::Half | Harm::One => false,
            Harm::Interrupted => !matches!(op, Op::Read | Op::Write),
            _ => true,
        }
    }

    pub(crate) fn is_full(self) -> bool {
        matches!(self, Harm::Full | Harm::TornFull)
    }

    /// What a failed sync keeps, if it does anything at all.
    pub(crate) fn kept(self) -> Option<Kept> {
        match self {
            Harm::Lost => Some(Kept::Nothing),
            Harm::Partly => Some(Kept::Undecided),
            Harm::Kept => Some(Kept::Everything),
            _ => None,
        }
    }

    pub(crate) fn error(self) -> io::Error {
        match self {
            Harm::Interrupted => io::ErrorKind::Interrupted.into(),
            Harm::Full | Harm::TornFull => io::Error::from_raw_os_error(ENOSPC),
            _ => io::Error::from_raw_os_error(EIO),
        }
    }

    /// "For ever" has an end where the call is to be repeated until it is done.
    pub(crate) fn times_max(self) -> u64 {
        match self {
            Harm::Interrupted | Harm::One => 200,
            _ => u64::MAX,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}:{:?}", self.at, self.harm, self.span)
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Plan, String> {
        let bad = || format!("{text:?} is no plan; one looks like 17:Lost:Once");
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or_else(bad);
        let at = next()?.parse().map_err(|_| bad())?;
        let named = next()?;
        let harm = HARMS.into_iter().find(|harm| format!("{harm:?}") == named);
        let named = next()?;
        let span = SPANS.into_iter().find(|span| format!("{span:?}") == named);
        Ok(Plan {
            at,
            harm: harm.ok_or_else(bad)?,
            span: span.ok_or_else(bad)?,
        })
    }
}
