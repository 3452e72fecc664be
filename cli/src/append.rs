//! `append`: the lines of a file become the entries of a log.
//!
//! Every entry is durable before the command ends. Lines are submitted as they are read, many writes in flight, so the
//! disk is waited for once per flush and not once per line; what is read from a pipe is submitted before the next read
//! waits, so a slow producer's lines do not sit here.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use everlog::{Journal, LogKey, Ticket, WriteBatch, Written};
use serde::Serialize;

use crate::args::AppendArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::journal::{self, ENTRY_BYTES_MAX};
use crate::output::{self, Output};
use crate::progress::Progress;

/// Runs the command.
pub(crate) fn run(args: &AppendArgs) -> Outcome {
    let (input, progress) = open_input(&args.file)?;
    let journal = journal::open_or_create(&args.dir)?;
    let key = journal::choose(&args.dir, &journal.logs(), args.log)?.unwrap_or_default();
    let log = journal
        .open_or_create_log(key, 0)
        .map_err(|e| journal::refused(&args.dir, e))?;
    let end = log.bounds().map_err(|e| journal::refused(&args.dir, e))?.end;
    let mut appender = Appender {
        dir: &args.dir,
        journal: &journal,
        key,
        in_flight: VecDeque::new(),
        done: Done::at(end),
    };
    let start = Instant::now();
    let delimiter = if args.null { 0 } else { b'\n' };
    let fed = Lines::new(input, delimiter, &args.file).feed(&mut appender, &progress);
    let settled = appender.settle(0);
    let done = appender.done;
    progress.clear();
    fed.and(settled)
        .map_err(|failure| failure.after(&done.so_far()))?;
    let elapsed = start.elapsed();
    journal.close().map_err(|e| journal::refused(&args.dir, e))?;
    print(args, key, &done, elapsed)
}

/// What is durable.
struct Done {
    entries: u64,
    bytes: u64,
    first: u64,
    end: u64,
}

impl Done {
    fn at(end: u64) -> Done {
        Done {
            entries: 0,
            bytes: 0,
            first: end,
            end,
        }
    }

    fn so_far(&self) -> String {
        match self.entries {
            0 => "nothing was appended durably".into(),
            n => format!(
                "{} durable, indexes {}..{}",
                output::counted(n, "entry is", "entries are"),
                self.first,
                self.end
            ),
        }
    }
}

/// Submits and keeps the number of writes in flight bounded.
struct Appender<'a> {
    dir: &'a Path,
    journal: &'a Journal,
    key: LogKey,
    in_flight: VecDeque<(Ticket<Written>, u64)>,
    done: Done,
}

impl Appender<'_> {
    fn submit(&mut self, batch: WriteBatch, bytes: u64) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let ticket = self
            .journal
            .submit(batch)
            .map_err(|e| journal::refused(self.dir, e))?;
        self.in_flight.push_back((ticket, bytes));
        self.settle(WRITES_IN_FLIGHT_MAX)
    }

    /// Waits until at most `left` writes are in flight.
    fn settle(&mut self, left: usize) -> Result<(), Failure> {
        while self.in_flight.len() > left {
            let Some((ticket, bytes)) = self.in_flight.pop_front() else {
                break;
            };
            let written = ticket.wait().map_err(|e| journal::refused(self.dir, e))?;
            self.done.entries += written.ids.len() as u64;
            self.done.bytes += bytes;
            if let Some(last) = written.ids.last() {
                self.done.end = last.index + 1;
            }
        }
        Ok(())
    }
}

/// Cuts the input into entries.
struct Lines<'a> {
    input: Box<dyn Read>,
    delimiter: u8,
    file: &'a Path,
    /// Bytes read and not yet submitted are `buffer[..filled]`; none of `buffer[..scanned]` is a delimiter.
    buffer: Vec<u8>,
    filled: usize,
    scanned: usize,
}

impl<'a> Lines<'a> {
    fn new(input: Box<dyn Read>, delimiter: u8, file: &'a Path) -> Lines<'a> {
        Lines {
            input,
            delimiter,
            file,
            buffer: vec![0; READ_BYTES],
            filled: 0,
            scanned: 0,
        }
    }

    fn feed(mut self, appender: &mut Appender<'_>, progress: &Progress) -> Result<(), Failure> {
        let mut read = 0;
        while let Some(n) = self.fill()? {
            read += n;
            progress.set(read);
            let (batch, bytes) = self.take_lines(appender.key);
            appender.submit(batch, bytes)?;
        }
        let mut batch = WriteBatch::new();
        if self.filled > 0 {
            batch.append(appender.key, &self.buffer[..self.filled]);
        }
        appender.submit(batch, self.filled as u64)
    }

    /// Reads more; `None` at the end. A line may grow up to the largest entry there can be.
    fn fill(&mut self) -> Result<Option<u64>, Failure> {
        if self.filled == self.buffer.len() {
            if self.filled as u64 > ENTRY_BYTES_MAX {
                return Err(Failure::usage(format!(
                    "{}: a line is longer than {}, which is the largest entry",
                    self.file.display(),
                    output::bytes(ENTRY_BYTES_MAX)
                )));
            }
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Ok(None),
                Ok(n) => {
                    self.filled += n;
                    return Ok(Some(n as u64));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::io(&format!("read {}", self.file.display()), &e)),
            }
        }
    }

    /// Takes every whole line out of the buffer.
    fn take_lines(&mut self, key: LogKey) -> (WriteBatch, u64) {
        let mut batch = WriteBatch::new();
        let (mut start, mut bytes) = (0, 0);
        let unscanned = &self.buffer[self.scanned..self.filled];
        let ends = unscanned
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == self.delimiter);
        for (at, _) in ends {
            let end = self.scanned + at;
            batch.append(key, &self.buffer[start..end]);
            bytes += (end - start) as u64;
            start = end + 1;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        self.scanned = self.filled;
        (batch, bytes)
    }
}

fn open_input(file: &Path) -> Result<(Box<dyn Read>, Progress), Failure> {
    if file == Path::new("-") {
        let progress = match io::stdin().is_terminal() {
            true => Progress::none(),
            false => Progress::bytes("append", None),
        };
        return Ok((Box::new(io::stdin().lock()), progress));
    }
    let failed = |e| Failure::io(&format!("read {}", file.display()), &e);
    let input = File::open(file).map_err(failed)?;
    let metadata = input.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!(
            "{}: is a directory, not a file of lines",
            file.display()
        )));
    }
    let total = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(input), Progress::bytes("append", total)))
}

#[derive(Serialize)]
struct Summary {
    log: u64,
    entries: u64,
    bytes: u64,
    first: u64,
    end: u64,
    seconds: f64,
    entries_per_second: u64,
}

fn print(args: &AppendArgs, key: LogKey, done: &Done, elapsed: Duration) -> Outcome {
    let mut out = Output::new();
    let rate = output::rate(done.entries, elapsed);
    if args.format.json {
        out.json(&Summary {
            log: key.0,
            entries: done.entries,
            bytes: done.bytes,
            first: done.first,
            end: done.end,
            seconds: elapsed.as_secs_f64(),
            entries_per_second: rate,
        })?;
    } else {
        out.line(format!(
            "{}, {}, indexes {}..{} of log {key}, durable in {}, {} entries/s",
            output::counted(done.entries, "entry", "entries"),
            output::bytes(done.bytes),
            done.first,
            done.end,
            output::time(elapsed),
            output::grouped(rate),
        ))?;
    }
    out.flush()?;
    Ok(Exit::Fine)
}

const READ_BYTES: usize = 256 << 10;
const WRITES_IN_FLIGHT_MAX: usize = 64;
