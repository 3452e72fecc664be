//! What went wrong, told as what the caller can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a caller can do about an [`Error`]. Match on this, never on the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The arguments are wrong. Nothing was done, and the same call will be refused again.
    Invalid,
    /// There is no such journal, log or entry. Nothing was done.
    NotFound,
    /// The entry was there and has been purged; only a snapshot holds it now.
    Purged,
    /// Nothing was done; the same call may succeed later.
    Busy,
    /// The disk is full. Nothing was done; free space (or purge) and try again.
    NoSpace,
    /// The write may or may not be durable. Reopen to find out.
    Unknown,
    /// Nothing was done, and nothing will be until the journal is opened again.
    Closed,
    /// Acknowledged bytes are damaged, where exactly says the message. Restore, or catch up from a peer.
    Damaged,
    /// Another process holds the directory; the message names it.
    Locked,
    /// Written by a newer everlog, or asks for something this build does not have. Nothing was touched.
    Unsupported,
    /// The operating system refused a call. Nothing is known to be damaged; look at [`source`](std::error::Error::source).
    Io,
    /// A state machine could not apply an entry; [`entry`](Error::entry) says which. The entry is durable, its effect is not there. Open the
    /// engine again with a machine that can, or skip the entry explicitly.
    ApplyFailed,
}

/// The error of every fallible call: a [`kind`](Error::kind) to act on and one sentence to read, with the file
/// and the offset where there is one. Cheap to clone.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    source: Option<io::Error>,
    /// Term and index of the entry it is about. The type for that stands above this module.
    entry: Option<(u128, u64)>,
}

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Inner {
    fn new(kind: ErrorKind, message: String) -> Inner {
        Inner {
            kind,
            message,
            path: None,
            offset: None,
            source: None,
            entry: None,
        }
    }

    fn io(doing: &str, source: io::Error) -> Inner {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        let message = format!("cannot {doing}: {source}");
        Inner {
            source: Some(source),
            ..Inner::new(kind, message)
        }
    }
}

impl From<Inner> for Error {
    fn from(inner: Inner) -> Error {
        Error(Arc::new(inner))
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Inner::new(kind, message.into()).into()
    }

    /// An error of `kind` about the file at `path`.
    pub(crate) fn at(kind: ErrorKind, path: impl Into<PathBuf>, message: impl Into<String>) -> Error {
        let path = Some(path.into());
        Inner {
            path,
            ..Inner::new(kind, message.into())
        }
        .into()
    }

    /// An error of `kind` about the bytes of `path` at `offset`.
    pub(crate) fn at_offset(
        kind: ErrorKind,
        path: impl Into<PathBuf>,
        offset: u64,
        message: impl Into<String>,
    ) -> Error {
        Inner {
            path: Some(path.into()),
            offset: Some(offset),
            ..Inner::new(kind, message.into())
        }
        .into()
    }

    /// A refused system call: `doing` is a verb phrase ("write the opening").
    pub(crate) fn io(path: impl Into<PathBuf>, doing: &str, source: io::Error) -> Error {
        Inner {
            path: Some(path.into()),
            ..Inner::io(doing, source)
        }
        .into()
    }

    /// A refused system call about the bytes of `path` at `offset`.
    pub(crate) fn io_at(path: impl Into<PathBuf>, offset: u64, doing: &str, source: io::Error) -> Error {
        Inner {
            path: Some(path.into()),
            offset: Some(offset),
            ..Inner::io(doing, source)
        }
        .into()
    }

    /// The same story under another kind, with what it means for the caller put first.
    pub(crate) fn recast(&self, kind: ErrorKind, prefix: &str) -> Error {
        let inner = &self.0;
        Error(Arc::new(Inner {
            kind,
            message: format!("{prefix}: {}", inner.message),
            path: inner.path.clone(),
            offset: inner.offset,
            source: inner.source.as_ref().map(copy_io),
            entry: inner.entry,
        }))
    }

    /// An error of `kind` about the entry of this term and index.
    #[cfg(feature = "snapshot")]
    pub(crate) fn about_entry(kind: ErrorKind, entry: (u128, u64), message: impl Into<String>) -> Error {
        Inner {
            entry: Some(entry),
            ..Inner::new(kind, message.into())
        }
        .into()
    }

    /// Term and index of the entry it is about.
    pub(crate) fn entry_parts(&self) -> Option<(u128, u64)> {
        self.0.entry
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file or directory it is about, where there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The byte offset in [`path`](Error::path) it is about, where there is one.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
}

/// `io::Error` cannot be cloned; the code or the kind and text can.
fn copy_io(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        match (&inner.path, inner.offset) {
            (Some(path), Some(offset)) => write!(f, "{} at {offset}: {}", path.display(), inner.message),
            (Some(path), None) => write!(f, "{}: {}", path.display(), inner.message),
            _ => f.write_str(&inner.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|e| e as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::Invalid => io::ErrorKind::InvalidInput,
            ErrorKind::NotFound | ErrorKind::Purged => io::ErrorKind::NotFound,
            ErrorKind::Busy => io::ErrorKind::WouldBlock,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::Damaged => io::ErrorKind::InvalidData,
            ErrorKind::Locked => io::ErrorKind::ResourceBusy,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Closed => io::ErrorKind::BrokenPipe,
            ErrorKind::Unknown | ErrorKind::Io | ErrorKind::ApplyFailed => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
