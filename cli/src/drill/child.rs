//! The process that is killed: opens the journal and appends from every writer until it dies.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::panic;
use std::path::Path;
use std::process;
use std::thread;

use everlog::{Journal, Log, LogKey};

use super::entries::Entries;
use super::protocol::{Opened, RECORD_BYTES, RECORDS_MAX, Record, Start};
use crate::exit::{Exit, Failure, Outcome};
use crate::journal;

/// Runs the child of a drill in `dir`; returns only when it cannot go on.
pub(crate) fn run(dir: &Path) -> Outcome {
    let lost = |e: io::Error| Failure::io("talk to the drill", &e);
    die_of_panics();
    let mut input = BufReader::new(io::stdin());
    let start = Start::read(&mut input).map_err(lost)?;
    let entries = Entries::read(&mut input).map_err(lost)?;
    let reports = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(lost)?);
    thread::spawn(move || {
        // The end of the input is the end of the drill, and so is an error.
        let _ = input.read(&mut [0]);
        process::exit(0);
    });
    let journal = Journal::open(dir, super::config()).map_err(|e| journal::refused(dir, e))?;
    let mut writers = Vec::new();
    for (writer, next) in (0..).zip(&start.next) {
        writers.push(Writer {
            writer,
            writers: start.next.len() as u64,
            next: *next,
            log: journal
                .log(LogKey(u64::from(writer) % start.logs))
                .map_err(|e| journal::refused(dir, e))?,
            entries: &entries,
            reports: &reports,
        });
    }
    report(&reports, &[opened(&journal)]);
    thread::scope(|scope| {
        for mut writer in writers {
            scope.spawn(move || {
                let failure = journal::refused(dir, writer.run());
                process::exit(i32::from(failure.tell().code()));
            });
        }
    });
    Ok(Exit::Fine)
}

/// Which entry a writer's `number` is: together the writers go over all entries, and start over.
pub(crate) fn position(writer: u32, writers: u64, number: u64, entries: usize) -> usize {
    let at = (number * writers + u64::from(writer)) % entries as u64;
    usize::try_from(at).unwrap_or(0)
}

struct Writer<'a> {
    writer: u32,
    writers: u64,
    next: u64,
    log: Log,
    entries: &'a Entries,
    reports: &'a File,
}

impl Writer<'_> {
    /// Appends until an append fails.
    fn run(&mut self) -> everlog::Error {
        report(self.reports, &[self.issue()]);
        loop {
            let position = position(self.writer, self.writers, self.next, self.entries.len());
            let index = match self.log.append(self.entries.get(position)) {
                Ok(id) => id.index,
                Err(e) => return e,
            };
            let ack = Record::Ack {
                writer: self.writer,
                number: self.next,
                index,
            };
            self.next += 1;
            report(self.reports, &[ack, self.issue()]);
        }
    }

    fn issue(&self) -> Record {
        Record::Issue {
            writer: self.writer,
            number: self.next,
        }
    }
}

/// A thread that panics must not leave the others behind as if nothing had happened.
pub(super) fn die_of_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        process::exit(PANICKED);
    }));
}

pub(super) fn opened(journal: &Journal) -> Record {
    let report = journal.report();
    let cut = report.cut.iter().map(|cut| cut.bytes).sum();
    Record::Opened(Opened {
        cut: (!report.cut.is_empty()).then_some(cut),
        carried_bytes: report.carried_bytes,
        micros: u64::try_from(report.total.as_micros()).unwrap_or(u64::MAX),
    })
}

/// Writes `records`, at most [`RECORDS_MAX`], by one call that a pipe keeps whole. Without a reader the drill is over.
pub(super) fn report(mut reports: &File, records: &[Record]) {
    let mut bytes = [0; RECORDS_MAX * RECORD_BYTES];
    for (at, record) in bytes.as_chunks_mut::<RECORD_BYTES>().0.iter_mut().zip(records) {
        *at = record.encode();
    }
    if reports.write_all(&bytes[..records.len() * RECORD_BYTES]).is_err() {
        process::exit(0);
    }
}

/// What Rust's own panics end with; no row of the table of exit codes.
const PANICKED: i32 = 101;
