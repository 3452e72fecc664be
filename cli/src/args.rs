//! The command line.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::drill::machine::args::MachineArgs;
use crate::exit::TABLE;
use crate::snapshot::args::{RestoreArgs, SnapshotCommand};

/// Look into, verify, fill and drill an everlog journal.
#[derive(Debug, Parser)]
#[command(name = "everlog", version, after_help = TABLE, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append one entry per line, durable before it exits; makes the journal if there is none
    #[command(after_help = TABLE)]
    Append(AppendArgs),
    /// Print the payloads of a log as they were appended
    #[command(after_help = TABLE)]
    Cat(CatArgs),
    /// Tell what a journal is: logs, segments, holder, space
    #[command(after_help = TABLE)]
    Stat(StatArgs),
    /// Read everything and name each place that is damaged
    #[command(after_help = TABLE)]
    Verify(VerifyArgs),
    /// Print openings, batches and frames with their offsets, for debugging
    #[command(after_help = TABLE)]
    Dump(DumpArgs),
    /// Look into, check, carry, pin and free the snapshots of a journal
    #[command(after_help = TABLE, arg_required_else_help = true)]
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Make a new journal, in another directory, of the snapshots of this one and the entries behind them
    #[command(after_help = TABLE)]
    Restore(RestoreArgs),
    /// Kill a writing process again and again and check that nothing acknowledged is lost
    #[command(after_help = TABLE)]
    Drill(DrillArgs),
    /// The process that a drill kills.
    #[command(hide = true)]
    DrillChild {
        /// Directory of the journal.
        dir: PathBuf,
        /// Everything at once, and not appends alone.
        #[arg(long)]
        mix: bool,
        /// A state machine, and not appends alone.
        #[arg(long)]
        machine: bool,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// Print JSON, one object a line, each with "schema": 1
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    /// Directory of the journal
    pub(crate) dir: PathBuf,
    /// File to read; - or nothing for standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// The log to append to, made if there is none; the only log (or 0 in a new journal) if not given
    #[arg(long, value_name = "K")]
    pub(crate) log: Option<u64>,
    /// Entries end with a NUL byte instead of a newline
    #[arg(short = '0', long = "null")]
    pub(crate) null: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// Directory of the journal
    pub(crate) dir: PathBuf,
    /// The log to print; the only log if not given
    #[arg(long, value_name = "K")]
    pub(crate) log: Option<u64>,
    /// Index of the first entry to print
    #[arg(long, value_name = "I")]
    pub(crate) from: Option<u64>,
    /// Index before which to stop: it is not printed itself
    #[arg(long, value_name = "I")]
    pub(crate) to: Option<u64>,
    /// End each entry with a NUL byte instead of a newline
    #[arg(short = '0', long = "null", conflicts_with = "json")]
    pub(crate) null: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// Directory of the journal
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Directory of the journal
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Directory of the journal
    pub(crate) dir: PathBuf,
    /// Only this segment: its number as `stat` prints it
    #[arg(long, value_name = "ID")]
    pub(crate) segment: Option<u64>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// File whose lines are appended, over and over; made-up entries if not given
    pub(crate) file: Option<PathBuf>,
    /// How many times to kill; 20 if nothing is given, and as many as --seconds allow with that
    #[arg(long, value_name = "N")]
    cycles: Option<NonZeroU32>,
    /// How many threads append at once
    #[arg(long, value_name = "W", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) writers: u32,
    /// Do everything and not appends alone: relaxed and submitted writes, batches across logs, cells, truncates, purges,
    /// resets, logs that come and go, in small segments
    #[arg(long, group = "stages", conflicts_with_all = ["file", "machine"])]
    pub(crate) mix: bool,
    /// How many logs there are; each belongs to one of the writers
    #[arg(long, value_name = "N", default_value = "8", requires = "mix", conflicts_with = "machine", value_parser = clap::value_parser!(u64).range(1..=1024))]
    logs: u64,
    /// Let system calls of the writing process fail, so that files are given up and their bytes saved into fresh ones
    #[arg(long, requires = "mix", conflicts_with = "machine")]
    pub(crate) faults: bool,
    /// Go on for so long
    #[arg(long, value_name = "S", requires = "stages")]
    pub(crate) seconds: Option<u64>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Seed of every choice the drill makes; a new one if not given
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Directory to work in, empty or absent; ./everlog-drill-PID if not given
    #[arg(long, value_name = "D")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

impl DrillArgs {
    /// How many times to kill.
    pub(crate) fn cycles(&self) -> u32 {
        self.cycles.map_or(CYCLES, NonZeroU32::get)
    }

    /// The same in a mixed drill, which may also end by the clock.
    pub(crate) fn cycles_at_most(&self) -> Option<u32> {
        match (self.cycles, self.seconds) {
            (None, Some(_)) => None,
            _ => Some(self.cycles()),
        }
    }

    /// Logs of a mixed drill, and its workers: each has two logs if there are that many, so that it can write across logs.
    pub(crate) fn logs_and_workers(&self) -> (u64, u32) {
        let most = u32::try_from(self.logs.div_ceil(2)).unwrap_or(u32::MAX);
        (self.logs, self.writers.min(most))
    }
}

const CYCLES: u32 = 20;
