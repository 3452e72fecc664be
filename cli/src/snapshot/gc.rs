//! `snapshot gc`: old snapshots go, if that is wanted, and the space of what nothing needs.

use everlog::snapshot::{Collected, Retention, Snapshot};
use serde::Serialize;

use super::args::GcArgs;
use super::list::PrintedPin;
use super::{Printed, described, open, refused, short, view};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Output, word};
use crate::progress::Progress;

/// Runs the command.
pub(super) fn run(args: &GcArgs) -> Outcome {
    let dir = &args.dir;
    let retention = retention(args);
    if args.dry_run {
        let removed = view(dir)?.would_remove(&retention).map_err(|e| refused(dir, e))?;
        let mut out = Output::new();
        for snapshot in &removed {
            match args.format.json {
                true => out.json(&Printed::of(snapshot))?,
                false => out.line(format!("would remove {}", described(snapshot)))?,
            }
        }
        if removed.is_empty() && !args.format.json {
            out.line(format!("{}: no snapshot would be removed", dir.display()))?;
        }
        out.flush()?;
        return Ok(Exit::Fine);
    }
    let store = open(dir)?;
    let given_up = match args.give_up_unreadable {
        true => store.remove_unreadable().map_err(|e| refused(dir, e))?,
        false => 0,
    };
    let list = store.list().map_err(|e| refused(dir, e))?;
    let progress = Progress::bytes("rewrite packs", Some(0));
    let collected = store.collect_watched(&retention, &mut |done, of| {
        progress.total(of);
        progress.set(done);
    });
    progress.clear();
    let collected = collected.map_err(|e| refused(dir, e))?;
    print(args, &list, &collected, given_up)?;
    match collected.kept_because {
        Some(error) => Err(refused(dir, error).after("packs that could go stay")),
        None => Ok(Exit::Fine),
    }
}

/// Without a number to keep, all snapshots stay.
fn retention(args: &GcArgs) -> Retention {
    let keep = args
        .keep
        .map_or(usize::MAX, |keep| usize::try_from(keep).unwrap_or(usize::MAX));
    let mut retention = Retention::new().newest(keep);
    if let Some(age) = args.max_age {
        retention = retention.max_age(age);
    }
    if let Some(bytes) = args.max_bytes {
        retention = retention.max_bytes(bytes);
    }
    retention
}

#[derive(Serialize)]
struct Summary {
    removed: Vec<String>,
    expired_pins: Vec<Expired>,
    given_up: usize,
    packs_removed: u64,
    packs_rewritten: u64,
    freed_bytes: u64,
    kept_because: Option<String>,
}

#[derive(Serialize)]
struct Expired {
    snapshot: String,
    #[serde(flatten)]
    pin: PrintedPin,
}

fn print(args: &GcArgs, list: &[Snapshot], collected: &Collected, given_up: usize) -> Result<(), Failure> {
    let mut out = Output::new();
    if args.format.json {
        out.json(&Summary {
            removed: collected.removed.iter().map(ToString::to_string).collect(),
            expired_pins: collected
                .expired
                .iter()
                .map(|pin| Expired {
                    snapshot: pin.snapshot.to_string(),
                    pin: PrintedPin::of(pin),
                })
                .collect(),
            given_up,
            packs_removed: collected.packs_removed,
            packs_rewritten: collected.packs_rewritten,
            freed_bytes: collected.freed_bytes,
            kept_because: collected.kept_because.as_ref().map(ToString::to_string),
        })?;
        return out.flush();
    }
    for snapshot in list
        .iter()
        .filter(|snapshot| collected.removed.contains(&snapshot.id))
    {
        out.line(format!("removed {}", described(snapshot)))?;
    }
    for pin in &collected.expired {
        let words = PrintedPin::of(pin).words();
        out.line(format!("removed the pin on {} of {words}", short(pin.snapshot)))?;
    }
    if given_up > 0 {
        let count = output::counted(given_up as u64, "index", "indexes");
        out.line(format!("gave up {count} that could not be read"))?;
    }
    out.line(format!(
        "{}: {} freed; {} left; next: everlog snapshot list {}",
        args.dir.display(),
        output::bytes(collected.freed_bytes),
        output::counted(
            (list.len() - collected.removed.len()) as u64,
            "snapshot",
            "snapshots"
        ),
        word(&args.dir)
    ))?;
    out.flush()
}
