//! `cat`: the payloads of a log, as they were appended.
//!
//! It never prints a wrong byte: a damaged entry is left out, named on standard error, and makes the exit code 1. It
//! never prints entries that a reader could not tell apart: a payload that contains the delimiter is refused where no
//! person looks.

use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use everlog::inspect::{LogView, View};
use everlog::{Entry, Error, ErrorKind, LogKey};
use serde::Serialize;

use crate::args::CatArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::findings;
use crate::journal;
use crate::output::{self, Output, word};

/// Runs the command.
pub(crate) fn run(args: &CatArgs) -> Outcome {
    let view = journal::view(&args.dir)?;
    let key = journal::choose_existing(&args.dir, &view.logs(), args.log)?;
    let log = view.log(key).map_err(|e| journal::refused(&args.dir, e))?;
    let range = range(args, key, &log)?;
    let mut printer = Printer {
        args,
        key,
        out: Output::new(),
        exact: !output::is_terminal(),
    };
    let streamed = printer.stream(&view, &log, range.clone());
    printer.out.flush()?;
    let mut exit = streamed?;
    for finding in view.findings().iter().filter(|finding| finding.is_damage()) {
        let here = finding.log.is_none_or(|log| log == key);
        let inside = finding.range.as_ref().is_none_or(|r| overlap(r, &range));
        if here && inside {
            eprintln!("{}", findings::line(&args.dir, finding));
            exit = Exit::Finding;
        }
    }
    Ok(exit)
}

/// The indexes to print: those asked for, as far as the log goes.
fn range(args: &CatArgs, key: LogKey, log: &LogView) -> Result<Range<u64>, Failure> {
    let bounds = log.bounds().map_err(|e| journal::refused(&args.dir, e))?;
    let from = args.from.unwrap_or(bounds.start);
    let to = args.to.unwrap_or(bounds.end);
    let dir = args.dir.display();
    if from < bounds.start && from < to {
        return Err(Failure::usage(format!(
            "{dir}: log {key} begins at index {}, everything below is purged",
            bounds.start
        )));
    }
    if from > bounds.end {
        return Err(Failure::usage(format!(
            "{dir}: log {key} ends before index {}",
            bounds.end
        )));
    }
    if from > to && args.to.is_some() && args.from.is_some() {
        return Err(Failure::usage(format!("--from {from} is behind --to {to}")));
    }
    Ok(from..to.min(bounds.end).max(from))
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

struct Printer<'a> {
    args: &'a CatArgs,
    key: LogKey,
    out: Output,
    /// Whether a program reads, which must be able to tell entries apart.
    exact: bool,
}

impl Printer<'_> {
    /// Prints the entries of `range`; a damaged one is named and the next one tried.
    fn stream(&mut self, view: &View, log: &LogView, range: Range<u64>) -> Outcome {
        let mut exit = Exit::Fine;
        let mut next = range.start;
        let mut lost: Option<(Range<u64>, Error)> = None;
        while next < range.end {
            for entry in log.read(next..range.end) {
                match entry {
                    Ok(entry) => {
                        self.tell(view, lost.take());
                        next = entry.id.index + 1;
                        self.entry(&entry)?;
                    }
                    Err(e) if e.kind() == ErrorKind::Damaged => {
                        exit = Exit::Finding;
                        let (whole, _) = lost.get_or_insert((next..next, e));
                        next += 1;
                        whole.end = next;
                        break;
                    }
                    Err(e) => return Err(journal::refused(&self.args.dir, e)),
                }
            }
        }
        self.tell(view, lost);
        Ok(exit)
    }

    /// Names a lost range, unless a finding of the view will.
    fn tell(&self, view: &View, lost: Option<(Range<u64>, Error)>) {
        let Some((range, error)) = lost else { return };
        let known = view.findings().iter().any(|finding| {
            let here = finding.log.is_none_or(|log| log == self.key);
            here && finding.range.as_ref().is_some_and(|r| overlap(r, &range))
        });
        if !known {
            eprintln!(
                "damaged: log {}, indexes {}..{}, {error}; next: everlog verify {}",
                self.key,
                range.start,
                range.end,
                word(&self.args.dir)
            );
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        if self.args.format.json {
            return self.out.json(&Printed {
                log: self.key.0,
                index: entry.id.index,
                term: entry.id.term.to_string(),
                payload: BASE64_STANDARD.encode(&entry.payload),
            });
        }
        let (delimiter, name, instead) = match self.args.null {
            true => (0, "NUL byte", "--json"),
            false => (b'\n', "newline", "-0 or --json"),
        };
        if self.exact && entry.payload.contains(&delimiter) {
            return Err(self.ambiguous(entry, name, instead));
        }
        self.out.bytes(&entry.payload)?;
        self.out.bytes(&[delimiter])
    }

    fn ambiguous(&self, entry: &Entry, name: &str, instead: &str) -> Failure {
        let flag = if self.args.null { "--json" } else { "-0" };
        let message = format!(
            "{}: entry {} of log {} contains a {name}, which would read as two entries; use {instead}",
            self.args.dir.display(),
            entry.id.index,
            self.key
        );
        let command = format!(
            "everlog cat {} --log {} --from {} {flag}",
            word(&self.args.dir),
            self.key,
            entry.id.index
        );
        Failure::usage(message).next(command)
    }
}

#[derive(Serialize)]
struct Printed {
    log: u64,
    index: u64,
    /// Decimal: it has 128 bits, more than a number in JSON may be trusted with.
    term: String,
    payload: String,
}
