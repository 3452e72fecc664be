//! `dump`: the bytes of a journal, structure by structure, for people debugging.
//!
//! A line per opening, batch and frame, each with its segment and offset, in the order of the files; what does not decode
//! is a line as well, and the dump goes on behind it. What that means for the journal says `verify`: behind the end of a
//! segment there may be bytes that count for nothing.

use std::process;

use everlog::inspect::{self, DumpItem};
use serde::Serialize;

use crate::args::DumpArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::journal;
use crate::output::{Output, word};

/// Runs the command.
pub(crate) fn run(args: &DumpArgs) -> Outcome {
    let mut out = Output::new();
    let dumped = inspect::dump(&args.dir, args.segment, &mut |item| {
        if let Err(failure) = print(args, &mut out, item) {
            // A reader who has seen enough must not wait until the rest of the journal was read.
            process::exit(i32::from(failure.tell().code()));
        }
        Ok(())
    });
    out.flush()?;
    dumped.map_err(|e| journal::refused(&args.dir, e))?;
    Ok(Exit::Fine)
}

fn print(args: &DumpArgs, out: &mut Output, item: DumpItem) -> Result<(), Failure> {
    let next = || format!("everlog verify {}", word(&args.dir));
    match (args.format.json, Printed::of(item, next)) {
        (_, None) => Ok(()),
        (true, Some(printed)) => out.json(&printed),
        (false, Some(printed)) => out.line(printed.line()),
    }
}

/// An item for a program; a line of it is for a person.
#[derive(Serialize)]
#[serde(tag = "item", rename_all = "lowercase")]
enum Printed {
    Opening {
        segment: u64,
        offset: u64,
        uuid: String,
        sequence: u64,
        time: u64,
        align: u64,
        predecessor: Option<u64>,
        predecessor_end: Option<u64>,
        carry_bytes: u64,
        floor: u64,
        file_bytes: u64,
    },
    Batch {
        segment: u64,
        offset: u64,
        bytes: u64,
        sequence: u64,
        durable_through: u64,
        time: u64,
        kind: String,
        frames: u32,
        payload_bytes: u64,
    },
    Frame {
        segment: u64,
        offset: u64,
        kind: &'static str,
        log: u64,
        incarnation: u64,
        index: u64,
        /// Decimal, since it has 128 bits.
        term: String,
        cell: Option<u8>,
        payload_offset: u64,
        payload_bytes: u64,
        sound: bool,
    },
    Bad {
        segment: u64,
        offset: u64,
        bytes: u64,
        what: String,
        next: String,
    },
}

impl Printed {
    /// `None` for an item that this version does not know.
    fn of(item: DumpItem, next: impl Fn() -> String) -> Option<Printed> {
        Some(match item {
            DumpItem::Opening {
                segment,
                offset,
                uuid,
                sequence,
                time,
                align,
                pred,
                carry_bytes,
                floor,
                file_bytes,
                ..
            } => Printed::Opening {
                segment,
                offset,
                uuid: uuid.to_string(),
                sequence,
                time,
                align,
                predecessor: pred.map(|(segment, _)| segment),
                predecessor_end: pred.map(|(_, end)| end),
                carry_bytes,
                floor,
                file_bytes,
            },
            DumpItem::Bad {
                segment,
                offset,
                bytes,
                what,
                ..
            } => Printed::Bad {
                segment,
                offset,
                bytes,
                what,
                next: next(),
            },
            content => return Printed::of_content(content),
        })
    }

    fn of_content(item: DumpItem) -> Option<Printed> {
        Some(match item {
            DumpItem::Batch {
                segment,
                offset,
                bytes,
                sequence,
                durable_through,
                time,
                kind,
                frames,
                payload_bytes,
                ..
            } => Printed::Batch {
                segment,
                offset,
                bytes,
                sequence,
                durable_through,
                time,
                kind: kind.to_string(),
                frames,
                payload_bytes,
            },
            DumpItem::Frame {
                segment,
                offset,
                kind,
                log,
                incarnation,
                index,
                term,
                cell,
                payload_offset,
                payload_bytes,
                sound,
                ..
            } => Printed::Frame {
                segment,
                offset,
                kind,
                log: log.0,
                incarnation,
                index,
                term: term.to_string(),
                cell,
                payload_offset,
                payload_bytes,
                sound,
            },
            _ => return None,
        })
    }

    fn line(&self) -> String {
        match self {
            Printed::Opening {
                segment,
                offset,
                uuid,
                sequence,
                align,
                carry_bytes,
                floor,
                file_bytes,
                ..
            } => format!(
                "{segment} {offset:>10}  opening sequence {sequence}, {}, floor {floor}, aligned to {align}, carries {carry_bytes} bytes, file of {file_bytes}, journal {uuid}",
                self.predecessor()
            ),
            Printed::Batch {
                segment,
                offset,
                bytes,
                sequence,
                durable_through,
                kind,
                frames,
                payload_bytes,
                ..
            } => format!(
                "{segment} {offset:>10}  batch   sequence {sequence}, {kind}, {bytes} bytes, {frames} frames, payloads of {payload_bytes}, durable through {durable_through}"
            ),
            Printed::Frame {
                segment,
                offset,
                kind,
                log,
                incarnation,
                index,
                term,
                cell,
                payload_offset,
                payload_bytes,
                sound,
            } => {
                let what = match cell {
                    Some(cell) => format!("cell {cell}"),
                    None => format!("{kind} {term}.{index}"),
                };
                let payload = match (payload_bytes, sound) {
                    (0, true) => String::new(),
                    (bytes, true) => format!(", {bytes} bytes at {payload_offset}"),
                    (bytes, false) => format!(", {bytes} bytes at {payload_offset} that do not verify"),
                };
                format!(
                    "{segment} {offset:>10}  frame   {what} of log {log}, incarnation {incarnation}{payload}"
                )
            }
            Printed::Bad {
                segment,
                offset,
                bytes,
                what,
                next,
            } => {
                format!("{segment} {offset:>10}  bad     {bytes} bytes: {what}; next: {next}")
            }
        }
    }

    fn predecessor(&self) -> String {
        match self {
            Printed::Opening {
                predecessor: Some(id),
                predecessor_end: Some(end),
                ..
            } => format!("follows segment {id} up to {end}"),
            _ => "the first".into(),
        }
    }
}
