//! The command line.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::exit::TABLE;

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
    /// Kill a writing process again and again and check that nothing acknowledged is lost
    #[command(after_help = TABLE)]
    Drill(DrillArgs),
    /// The process that a drill kills.
    #[command(hide = true)]
    DrillChild {
        /// Directory of the journal.
        dir: PathBuf,
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
    /// How many times to kill
    #[arg(long, value_name = "N", default_value = "20")]
    pub(crate) cycles: NonZeroU32,
    /// How many threads append at once
    #[arg(long, value_name = "W", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) writers: u32,
    /// Seed of every choice the drill makes; a new one if not given
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Directory to work in, empty or absent; ./everlog-drill-PID if not given
    #[arg(long, value_name = "D")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}
