//! `verify`: reads everything and says what is wrong with it, place by place.

use std::path::Path;

use everlog::inspect::{self, Finding, Verification};
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::findings;
use crate::journal;
use crate::output::{self, Output};
use crate::progress::Progress;

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let progress = Progress::bytes("verify", Some(0));
    let verified = inspect::verify(&args.dir, journal::config(), &mut |at| {
        progress.total(at.total_bytes);
        progress.set(at.done_bytes);
    });
    progress.clear();
    let verified = verified.map_err(|e| journal::refused(&args.dir, e))?;
    let exit = match verified.findings.iter().any(Finding::is_damage) {
        true => Exit::Finding,
        false => Exit::Fine,
    };
    match print(args, &verified) {
        Err(failure) if !failure.is_quiet() => Err(failure),
        _ => Ok(exit),
    }
}

#[derive(Serialize)]
struct Summary {
    verdict: &'static str,
    clean: bool,
    findings: usize,
    segments: u64,
    batches: u64,
    entries: u64,
    bytes: u64,
}

fn print(args: &VerifyArgs, verified: &Verification) -> Result<(), Failure> {
    let mut out = Output::new();
    let summary = Summary {
        verdict: verdict(verified),
        clean: verified.clean,
        findings: verified.findings.len(),
        segments: verified.segments,
        batches: verified.batches,
        entries: verified.entries,
        bytes: verified.bytes,
    };
    for finding in &verified.findings {
        if args.format.json {
            out.json(&findings::object(&args.dir, finding))?;
        } else {
            out.line(findings::line(&args.dir, finding))?;
        }
    }
    if args.format.json {
        out.json(&summary)?;
    } else {
        out.line(sentence(&args.dir, &summary))?;
    }
    out.flush()
}

fn verdict(verified: &Verification) -> &'static str {
    match (verified.findings.iter().any(Finding::is_damage), verified.torn) {
        (true, _) => "damaged",
        (false, true) => "torn",
        (false, false) => "clean",
    }
}

fn sentence(dir: &Path, summary: &Summary) -> String {
    let meaning = match (summary.verdict, summary.clean) {
        ("damaged", _) => "damaged: acknowledged bytes are gone or changed",
        ("torn", _) => "torn: an end that nobody was told is durable, the next open cuts it",
        (_, true) => "clean: everything verifies, and it was closed",
        (_, false) => "clean: everything verifies, though it was not closed",
    };
    format!(
        "{}: {meaning} ({}, {}, {}, {})",
        dir.display(),
        output::counted(summary.segments, "segment", "segments"),
        output::counted(summary.batches, "batch", "batches"),
        output::counted(summary.entries, "entry", "entries"),
        output::bytes(summary.bytes),
    )
}
