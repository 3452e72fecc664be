//! `snapshot pin` and `unpin`: pins are files of the store, and hold in every process.

use everlog::snapshot::{PinInfo, SnapshotId, Store};
use serde::Serialize;

use super::args::{PinArgs, UnpinArgs};
use super::list::PrintedPin;
use super::{choose, choose_id, described, open, refused, short};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

#[derive(Serialize)]
struct Printed {
    snapshot: String,
    #[serde(flatten)]
    pin: PrintedPin,
}

/// Runs `pin`.
pub(super) fn pin(args: &PinArgs) -> Outcome {
    let store = open(&args.dir)?;
    let snapshot = choose(&args.dir, &store, &args.id)?;
    let time = (!args.forever).then_some(args.time);
    let pinned = store.pin_durably(snapshot.id, &args.owner, time);
    let pin = PrintedPin::of(&pinned.map_err(|e| refused(&args.dir, e))?);
    let mut out = Output::new();
    if args.format.json {
        out.json(&Printed {
            snapshot: snapshot.id.to_string(),
            pin,
        })?;
    } else {
        out.line(format!("{} is pinned by {}", described(&snapshot), pin.words()))?;
    }
    out.flush()?;
    Ok(Exit::Fine)
}

#[derive(Serialize)]
struct Unpinned {
    snapshot: String,
    removed: usize,
}

/// Runs `unpin`.
pub(super) fn unpin(args: &UnpinArgs) -> Outcome {
    let store = open(&args.dir)?;
    let pins = store.pins().map_err(|e| refused(&args.dir, e))?;
    let id = pinned(args, &store, &pins)?;
    let removed = match &args.owner {
        Some(owner) => store.unpin(id, owner).map(usize::from),
        None => store.unpin_unreadable(id),
    };
    let removed = removed.map_err(|e| refused(&args.dir, e))?;
    if removed == 0 {
        let of = pins.iter().filter(|pin| pin.snapshot == id);
        let words: Vec<String> = of.map(|pin| PrintedPin::of(pin).words()).collect();
        let by = match words.is_empty() {
            true => "it is not pinned at all".to_owned(),
            false => format!("it is pinned by {}", words.join(", ")),
        };
        let what = format!(
            "{}: there is no such pin on snapshot {}: {by}",
            args.dir.display(),
            short(id)
        );
        return Err(Failure::usage(what));
    }
    let mut out = Output::new();
    if args.format.json {
        out.json(&Unpinned {
            snapshot: id.to_string(),
            removed,
        })?;
    } else {
        let whose = args
            .owner
            .as_deref()
            .unwrap_or("anybody whose pin cannot be read");
        out.line(format!("snapshot {} is no longer pinned by {whose}", short(id)))?;
    }
    out.flush()?;
    Ok(Exit::Fine)
}

/// The snapshot that is meant, which may be there by its pins alone.
fn pinned(args: &UnpinArgs, store: &Store, pins: &[PinInfo]) -> Result<SnapshotId, Failure> {
    let list = store.list().map_err(|e| refused(&args.dir, e))?;
    let ids = list.iter().map(|snapshot| snapshot.id);
    let ids: Vec<SnapshotId> = ids.chain(pins.iter().map(|pin| pin.snapshot)).collect();
    choose_id(&args.dir, &ids, &args.id)
}
