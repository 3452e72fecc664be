//! `snapshot verify`: reads chunks to see what the medium still has of them.

use std::collections::BTreeSet;
use std::path::Path;

use everlog::snapshot::{Damage, Snapshot, SnapshotId, Verified};
use serde::Serialize;

use super::args::VerifyArgs;
use super::{choose, described, refused, short, view};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Output, word};
use crate::progress::Progress;

/// Runs the command.
pub(super) fn run(args: &VerifyArgs) -> Outcome {
    let dir = &args.dir;
    let store = view(dir)?;
    let chosen = args.id.as_ref().map(|id| choose(dir, &store, id)).transpose()?;
    let list = match &chosen {
        Some(snapshot) => vec![snapshot.clone()],
        None => store.list().map_err(|e| refused(dir, e))?,
    };
    let progress = Progress::bytes("verify", Some(0));
    let verified = store.verify_watched(chosen.map(|snapshot| snapshot.id), &mut |done, of| {
        progress.total(of);
        progress.set(done);
    });
    progress.clear();
    let verified = verified.map_err(|e| refused(dir, e))?;
    let exit = Exit::of_findings(verified.damage.iter().map(|damage| damage.error.kind()));
    match print(args, &list, &verified) {
        Err(failure) if !failure.is_quiet() => Err(failure),
        _ => Ok(exit),
    }
}

#[derive(Serialize)]
struct Finding {
    finding: &'static str,
    file: String,
    offset: u64,
    chunk: Option<String>,
    snapshots: Vec<String>,
    what: String,
    next: String,
}

#[derive(Serialize)]
struct Summary {
    verdict: &'static str,
    snapshots: usize,
    /// Of them, those that cannot be read to their end.
    damaged: Vec<String>,
    /// Of each log the newest that can.
    newest_whole: Vec<String>,
    chunks: u64,
    bytes: u64,
    past_cache: bool,
}

fn finding(dir: &Path, damage: &Damage) -> Finding {
    Finding {
        finding: if damage.chunk.is_some() { "chunk" } else { "index" },
        file: damage.path.display().to_string(),
        offset: damage.offset,
        chunk: damage.chunk.map(|chunk| chunk.to_string()),
        snapshots: damage.snapshots.iter().map(ToString::to_string).collect(),
        what: damage.error.to_string(),
        next: match damage.chunk {
            Some(_) => format!(
                "restore into another directory: everlog restore {} DIR2",
                word(dir)
            ),
            None => format!("everlog snapshot list {}", word(dir)),
        },
    }
}

fn print(args: &VerifyArgs, list: &[Snapshot], verified: &Verified) -> Result<(), Failure> {
    let mut out = Output::new();
    let damaged: BTreeSet<SnapshotId> = verified
        .damage
        .iter()
        .flat_map(|damage| damage.snapshots.clone())
        .collect();
    let mut logs = BTreeSet::new();
    // They are listed the newest first.
    let whole: Vec<&Snapshot> = list
        .iter()
        .filter(|snapshot| !damaged.contains(&snapshot.id))
        .collect();
    let newest: Vec<&Snapshot> = whole
        .iter()
        .copied()
        .filter(|snapshot| logs.insert(snapshot.log))
        .collect();
    for damage in &verified.damage {
        let finding = finding(&args.dir, damage);
        if args.format.json {
            out.json(&finding)?;
            continue;
        }
        let names: Vec<String> = damage.snapshots.iter().map(|id| short(*id)).collect();
        out.line(format!(
            "{}: {}; needed by {}; next: {}",
            finding.finding,
            finding.what,
            names.join(", "),
            finding.next
        ))?;
    }
    if args.format.json {
        out.json(&Summary {
            verdict: if verified.damage.is_empty() {
                "whole"
            } else {
                "damaged"
            },
            snapshots: list.len(),
            damaged: damaged.iter().map(ToString::to_string).collect(),
            newest_whole: newest.iter().map(|snapshot| snapshot.id.to_string()).collect(),
            chunks: verified.chunks,
            bytes: verified.bytes,
            past_cache: verified.past_cache,
        })?;
    } else {
        out.line(sentence(args, list, &damaged, &newest, verified))?;
    }
    out.flush()
}

fn sentence(
    args: &VerifyArgs,
    list: &[Snapshot],
    damaged: &BTreeSet<SnapshotId>,
    newest: &[&Snapshot],
    verified: &Verified,
) -> String {
    let dir = args.dir.display();
    let read = format!(
        "{}, {} read{}",
        output::counted(verified.chunks, "chunk", "chunks"),
        output::bytes(verified.bytes),
        if verified.past_cache {
            ""
        } else {
            ", perhaps from memory"
        }
    );
    let count = output::counted(list.len() as u64, "snapshot", "snapshots");
    if damaged.is_empty() {
        return format!("{dir}: whole: {count} can be read to the end ({read})");
    }
    let newest = match newest {
        [] => "none is whole".to_owned(),
        some => {
            let names: Vec<String> = some.iter().map(|snapshot| described(snapshot)).collect();
            format!("the newest that is whole: {}", names.join(", "))
        }
    };
    format!("{dir}: damaged: {} of {count}; {newest} ({read})", damaged.len())
}
