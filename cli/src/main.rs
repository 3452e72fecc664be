//! The `everlog` command: a journal looked into, verified, filled and drilled from a shell. It uses only what the
//! library offers to everybody.
//!
//! Every command ends with a row of one table of exit codes ([`exit::TABLE`]), says what stopped it in one sentence on
//! standard error, and prints either for people or, with `--json`, one object a line.

mod append;
mod args;
mod cat;
mod drill;
mod dump;
mod exit;
mod findings;
mod journal;
mod output;
mod progress;
mod restore;
mod snapshot;
mod stat;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Append(args) => append::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Stat(args) => stat::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Snapshot { command } => snapshot::run(&command),
        Command::Restore(args) => restore::run(&args),
        Command::Drill(args) => drill::run(&args),
        Command::DrillChild { dir, mix, machine } => drill::run_child(&dir, mix, machine),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => failure.tell().into(),
    }
}
