//! `snapshot list`: what is there, who wants it to stay, and what is wrong.

use std::path::Path;

use everlog::ErrorKind;
use everlog::snapshot::{Damage, PinInfo, Snapshot};
use serde::Serialize;

use super::args::ListArgs;
use super::{Printed, ago, date, refused, short, view};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Output, word};

/// Runs the command.
pub(super) fn run(args: &ListArgs) -> Outcome {
    let dir = &args.dir;
    let store = view(dir)?;
    let list = store.list().map_err(|e| refused(dir, e))?;
    let pins = store.pins().map_err(|e| refused(dir, e))?;
    let damage = store.damage();
    let findings: Vec<Finding> = damage
        .iter()
        .map(|damage| Finding::of_index(dir, damage))
        .chain(pins.iter().filter_map(|pin| Finding::of_pin(dir, pin, &list)))
        .collect();
    let mut out = Output::new();
    if args.format.json {
        for snapshot in &list {
            out.json(&Listed::of(snapshot, &pins))?;
        }
        findings.iter().try_for_each(|finding| out.json(finding))?;
    } else {
        print(args, &mut out, &list, &pins)?;
        findings.iter().try_for_each(|finding| out.line(finding.line()))?;
    }
    out.flush()?;
    Ok(Exit::of_findings(findings.iter().map(|finding| finding.kind)))
}

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    snapshot: Printed,
    pins: Vec<PrintedPin>,
}

/// A pin for a program.
#[derive(Serialize)]
pub(super) struct PrintedPin {
    pub(super) owner: Option<String>,
    /// UTC, or `never`
    pub(super) expires: String,
    pub(super) expired: bool,
}

impl PrintedPin {
    pub(super) fn of(pin: &PinInfo) -> PrintedPin {
        PrintedPin {
            owner: pin.owner.clone(),
            expires: date(pin.expires_micros),
            expired: pin.expired,
        }
    }

    /// For a person.
    pub(super) fn words(&self) -> String {
        let owner = self
            .owner
            .as_deref()
            .unwrap_or("somebody whose pin cannot be read");
        match (self.expired, self.expires.as_str()) {
            (true, at) => format!("{owner} (expired {at})"),
            (false, "never") => format!("{owner} for ever"),
            (false, at) => format!("{owner} until {at}"),
        }
    }
}

impl Listed {
    fn of(snapshot: &Snapshot, pins: &[PinInfo]) -> Listed {
        let of = pins.iter().filter(|pin| pin.snapshot == snapshot.id);
        Listed {
            snapshot: Printed::of(snapshot),
            pins: of.map(PrintedPin::of).collect(),
        }
    }
}

/// Something wrong, with what to do.
#[derive(Serialize)]
struct Finding {
    #[serde(skip)]
    kind: ErrorKind,
    finding: &'static str,
    file: String,
    offset: u64,
    snapshots: Vec<String>,
    what: String,
    next: String,
}

impl Finding {
    fn of_index(dir: &Path, damage: &Damage) -> Finding {
        Finding {
            kind: damage.error.kind(),
            finding: "index",
            file: damage.path.display().to_string(),
            offset: damage.offset,
            snapshots: damage.snapshots.iter().map(ToString::to_string).collect(),
            what: format!(
                "{}; this snapshot cannot be read, and no pack is freed while its index is there",
                damage.error
            ),
            next: format!("everlog snapshot gc {} --give-up-unreadable", word(dir)),
        }
    }

    /// A pin that cannot be read, or whose snapshot is not there although it should be.
    fn of_pin(dir: &Path, pin: &PinInfo, list: &[Snapshot]) -> Option<Finding> {
        let is_there = list.iter().any(|snapshot| snapshot.id == pin.snapshot);
        let unpin = format!("everlog snapshot unpin {} {}", word(dir), short(pin.snapshot));
        let (what, next) = match (&pin.error, &pin.owner) {
            (Some(error), _) => (
                format!("{error}; it holds the snapshot, because nobody knows until when"),
                format!("{unpin} --unreadable"),
            ),
            (None, Some(owner)) if !is_there && !pin.expired => (
                format!("pinned by {owner:?}, and the snapshot is not there or cannot be read"),
                format!("{unpin} --owner {}", word(Path::new(owner))),
            ),
            _ => return None,
        };
        Some(Finding {
            kind: pin
                .error
                .as_ref()
                .map_or(ErrorKind::Damaged, everlog::Error::kind),
            finding: "pin",
            file: pin
                .path
                .as_ref()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            offset: 0,
            snapshots: vec![pin.snapshot.to_string()],
            what,
            next,
        })
    }

    fn line(&self) -> String {
        format!("{}: {}; next: {}", self.finding, self.what, self.next)
    }
}

fn print(args: &ListArgs, out: &mut Output, list: &[Snapshot], pins: &[PinInfo]) -> Result<(), Failure> {
    if list.is_empty() {
        return out.line(format!("{}: no snapshots", args.dir.display()));
    }
    let heads = [
        "snapshot", "log", "covers", "state", "stored", "taken", "ago", "pins",
    ]
    .map(str::to_owned);
    let rows = list.iter().map(|snapshot| {
        let held: Vec<String> = Listed::of(snapshot, pins)
            .pins
            .iter()
            .map(PrintedPin::words)
            .collect();
        [
            short(snapshot.id),
            snapshot.log.to_string(),
            snapshot.covers.to_string(),
            output::bytes(snapshot.bytes),
            output::bytes(snapshot.new_bytes),
            date(snapshot.created_micros),
            ago(snapshot.created_micros),
            if held.is_empty() {
                "-".into()
            } else {
                held.join(", ")
            },
        ]
    });
    let rows: Vec<[String; 8]> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        out.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
