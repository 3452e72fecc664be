//! `stat`: what a journal is, without reading its payloads.

use everlog::fs::{Fs, RealFs};
use everlog::inspect::{Finding, View};
use everlog::{EntryId, LogKey};
use serde::Serialize;

use crate::args::StatArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::findings::{self, Printed};
use crate::journal;
use crate::output::{self, Output};

/// Runs the command.
pub(crate) fn run(args: &StatArgs) -> Outcome {
    let view = journal::view(&args.dir)?;
    let stat = Stat::of(args, &view)?;
    let mut out = Output::new();
    if args.format.json {
        out.json(&stat)?;
    } else {
        stat.print(&mut out)?;
        for finding in view.findings() {
            out.line(findings::line(&args.dir, finding))?;
        }
    }
    out.flush()?;
    match view.findings().iter().any(Finding::is_damage) {
        true => Ok(Exit::Finding),
        false => Ok(Exit::Fine),
    }
}

#[derive(Serialize)]
struct Stat {
    dir: String,
    uuid: String,
    format: u16,
    holder: Option<String>,
    clean: bool,
    segments: Vec<Segment>,
    bytes: u64,
    reserve_bytes: u64,
    free_bytes: u64,
    total_bytes: u64,
    logs: Vec<Log>,
    findings: Vec<Printed>,
}

#[derive(Serialize)]
struct Segment {
    id: u64,
    bytes: u64,
    sealed: bool,
}

#[derive(Serialize)]
struct Log {
    log: u64,
    first: u64,
    end: u64,
    /// `term.index`
    last: Option<String>,
    /// `term.index`
    purged: Option<String>,
    cells: Vec<u8>,
}

impl Stat {
    fn of(args: &StatArgs, view: &View) -> Result<Stat, Failure> {
        let space = RealFs::open(&args.dir)
            .and_then(|fs| fs.space())
            .map_err(|e| Failure::io(&format!("ask for the free space at {}", args.dir.display()), &e))?;
        let segments: Vec<Segment> = view
            .segments()
            .iter()
            .map(|segment| Segment {
                id: segment.id,
                bytes: segment.bytes,
                sealed: segment.sealed,
            })
            .collect();
        let logs = view.logs().into_iter().map(|key| Log::of(view, key));
        Ok(Stat {
            dir: args.dir.display().to_string(),
            uuid: view.uuid().to_string(),
            format: view.format(),
            holder: view.holder().map(str::to_string),
            clean: view.clean(),
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments,
            reserve_bytes: view.reserve_bytes(),
            free_bytes: space.free,
            total_bytes: space.total,
            logs: logs
                .collect::<everlog::Result<_>>()
                .map_err(|e| journal::refused(&args.dir, e))?,
            findings: view
                .findings()
                .iter()
                .map(|f| findings::object(&args.dir, f))
                .collect(),
        })
    }

    fn state(&self) -> String {
        match (&self.holder, self.clean) {
            (Some(holder), _) => format!("in use by {holder}"),
            (None, true) => "closed cleanly".into(),
            (None, false) => "not closed cleanly, the next open recovers it".into(),
        }
    }

    fn print(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(format!("journal   {}", self.dir))?;
        out.line(format!("uuid      {}", self.uuid))?;
        out.line(format!("format    {}", self.format))?;
        out.line(format!("state     {}", self.state()))?;
        let count = self.segments.len() as u64;
        let ids = match (self.segments.first(), self.segments.last()) {
            (Some(first), Some(last)) => format!(", {} to {}", first.id, last.id),
            _ => String::new(),
        };
        out.line(format!("segments  {}{ids}", output::grouped(count)))?;
        out.line(format!("bytes     {}", output::bytes(self.bytes)))?;
        out.line(format!("reserve   {}", output::bytes(self.reserve_bytes)))?;
        out.line(format!(
            "free      {} of {}",
            output::bytes(self.free_bytes),
            output::bytes(self.total_bytes)
        ))?;
        out.line(format!("logs      {}", output::grouped(self.logs.len() as u64)))?;
        self.logs.iter().try_for_each(|log| out.line(log.line()))
    }
}

impl Log {
    fn of(view: &View, key: LogKey) -> everlog::Result<Log> {
        let log = view.log(key)?;
        let bounds = log.bounds()?;
        Ok(Log {
            log: key.0,
            first: bounds.start,
            end: bounds.end,
            last: log.last()?.as_ref().map(EntryId::to_string),
            purged: log.purged()?.as_ref().map(EntryId::to_string),
            cells: log.cells()?,
        })
    }

    fn line(&self) -> String {
        let count = output::counted(self.end - self.first, "entry", "entries");
        let mut text = format!("log {}: {count}, indexes {}..{}", self.log, self.first, self.end);
        if let Some(last) = &self.last {
            text += &format!(", last {last}");
        }
        if let Some(purged) = &self.purged {
            text += &format!(", purged through {purged}");
        }
        if !self.cells.is_empty() {
            let cells: Vec<String> = self.cells.iter().map(u8::to_string).collect();
            text += &format!(", cells {}", cells.join(" "));
        }
        text
    }
}
