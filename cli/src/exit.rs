//! What the process tells its caller: one table of exit codes, and a failure that is one sentence.

use std::fmt;
use std::process::ExitCode;

use everlog::{Error, ErrorKind};

/// The table of exit codes, as `--help` prints it.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  fine
  1  a finding: damage or loss
  2  could not run, wrong usage included
  3  another process holds the journal, or its snapshots
  4  no space left
  5  written by a newer version";

/// A row of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done and nothing was found.
    Fine,
    /// Damage or loss was found.
    Finding,
    /// Nothing could be said: wrong usage, no such journal, a refused system call.
    CouldNotRun,
    /// Another process holds the journal, or its snapshots.
    Locked,
    /// The disk is full.
    NoSpace,
    /// Written by a newer version.
    Unsupported,
}

impl Exit {
    /// Reads a row back from a child's exit status; `None` for a number that is not in the table.
    pub(crate) fn from_code(code: i32) -> Option<Exit> {
        ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }

    /// The number the process ends with.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Fine => 0,
            Exit::Finding => 1,
            Exit::CouldNotRun => 2,
            Exit::Locked => 3,
            Exit::NoSpace => 4,
            Exit::Unsupported => 5,
        }
    }

    /// The row of findings of these kinds: damage, unless all that is wrong is that they are newer.
    pub(crate) fn of_findings(kinds: impl IntoIterator<Item = ErrorKind>) -> Exit {
        let mut exit = Exit::Fine;
        for kind in kinds {
            match kind {
                ErrorKind::Unsupported if exit != Exit::Finding => exit = Exit::Unsupported,
                _ => exit = Exit::Finding,
            }
        }
        exit
    }

    fn of(kind: ErrorKind) -> Exit {
        match kind {
            ErrorKind::Damaged => Exit::Finding,
            ErrorKind::Locked => Exit::Locked,
            ErrorKind::NoSpace => Exit::NoSpace,
            ErrorKind::Unsupported => Exit::Unsupported,
            _ => Exit::CouldNotRun,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command stopped: a row of the table and one sentence for standard error.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The row.
    pub(crate) exit: Exit,
    message: String,
    next: Option<String>,
}

/// What every command returns: the row it ended with, or why it stopped.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure of the row `exit`; `message` is one sentence without a full stop.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            next: None,
        }
    }

    /// A failure of the row that `kind` belongs to.
    pub(crate) fn of(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure::new(Exit::of(kind), message)
    }

    /// The command was called in a way it cannot follow.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::CouldNotRun, message)
    }

    /// A refused system call on something that is not the journal: `doing` is a verb phrase with the file.
    pub(crate) fn io(doing: &str, error: &std::io::Error) -> Failure {
        let exit = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Exit::NoSpace,
            _ => Exit::CouldNotRun,
        };
        Failure::new(exit, format!("cannot {doing}: {error}"))
    }

    /// The reader of standard output went away: nobody wants more, and that is fine.
    pub(crate) fn quiet() -> Failure {
        Failure::new(Exit::Fine, "")
    }

    /// Adds the command to run next.
    pub(crate) fn next(mut self, command: impl Into<String>) -> Failure {
        self.next = Some(command.into());
        self
    }

    /// Puts what was done so far before the reason.
    pub(crate) fn after(mut self, done: &str) -> Failure {
        self.message = format!("{} ({done})", self.message);
        self
    }

    /// Says it on standard error; returns what to end with.
    pub(crate) fn tell(&self) -> Exit {
        if !self.is_quiet() {
            eprintln!("everlog: {self}");
        }
        self.exit
    }

    /// Whether there is nothing to say.
    pub(crate) fn is_quiet(&self) -> bool {
        self.message.is_empty()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::of(error.kind(), error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.next {
            Some(next) => write!(f, "; next: {next}"),
            None => Ok(()),
        }
    }
}

const ALL: [Exit; 6] = [
    Exit::Fine,
    Exit::Finding,
    Exit::CouldNotRun,
    Exit::Locked,
    Exit::NoSpace,
    Exit::Unsupported,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The table is the documentation of the enum: a row for each, numbered as the enum numbers it.
    #[test]
    fn the_table_has_a_line_for_each_row() {
        let rows: Vec<&str> = TABLE.lines().skip(1).collect();
        assert_eq!(rows.len(), ALL.len());
        for (row, exit) in rows.iter().zip(ALL) {
            assert!(
                row.trim_start().starts_with(&exit.code().to_string()),
                "{row} is not {exit:?}"
            );
            assert_eq!(Exit::from_code(i32::from(exit.code())), Some(exit));
        }
    }
}
