//! The command line of `snapshot` and `restore`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::args::Format;
use crate::exit::TABLE;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List the snapshots, who has pinned them, and what is wrong with the store
    #[command(after_help = TABLE)]
    List(ListArgs),
    /// Read snapshots to their end, past the cache, and name each damaged chunk with the snapshots that need it
    #[command(after_help = TABLE)]
    Verify(VerifyArgs),
    /// Write a snapshot with its metadata into one file that `import` reads
    #[command(after_help = TABLE)]
    Export(ExportArgs),
    /// Take a snapshot in from a file that `export` wrote; each chunk is verified, and until all are nothing of it is there
    #[command(after_help = TABLE)]
    Import(ImportArgs),
    /// Keep a snapshot from being collected by any process, until a time or until `unpin`
    #[command(after_help = TABLE)]
    Pin(PinArgs),
    /// End a pin
    #[command(after_help = TABLE)]
    Unpin(UnpinArgs),
    /// Free the space of what no snapshot needs; with --keep, remove old snapshots first
    #[command(after_help = TABLE)]
    Gc(GcArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Directory of the journal; the snapshots are in DIR/snapshots
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Directory of the journal; the snapshots are in DIR/snapshots
    pub(crate) dir: PathBuf,
    /// Only this snapshot: the first digits of its name, at least 4; all if not given
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Directory of the journal; the snapshots are in DIR/snapshots
    pub(crate) dir: PathBuf,
    /// The snapshot: the first digits of its name, at least 4
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// File to make; - for standard output. It gets its name when it is whole and synced
    pub(crate) file: PathBuf,
    /// Write the bare state, as the machine wrote it: for other programs, `import` does not read it
    #[arg(long)]
    pub(crate) state: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Directory of a journal or of a store of snapshots, or an empty one
    pub(crate) dir: PathBuf,
    /// File that `export` wrote; - for standard input
    pub(crate) file: PathBuf,
    /// Take it in also if it is ahead of its log here: the next engine that opens will reset the log to it
    #[arg(long)]
    pub(crate) install: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// Directory of the journal; the snapshots are in DIR/snapshots
    pub(crate) dir: PathBuf,
    /// The snapshot: the first digits of its name, at least 4
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Who wants it to stay, for whoever finds the pin; an owner has one pin on a snapshot, and the last one counts
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: String,
    /// For how long, such as 12h or 30days
    #[arg(long = "for", value_name = "TIME", default_value = "7days", value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,
    /// Until `unpin`
    #[arg(long, conflicts_with = "time")]
    pub(crate) forever: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct UnpinArgs {
    /// Directory of the journal; the snapshots are in DIR/snapshots
    pub(crate) dir: PathBuf,
    /// The snapshot: the first digits of its name, at least 4
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Whose pin
    #[arg(long, value_name = "NAME", required_unless_present = "unreadable")]
    pub(crate) owner: Option<String>,
    /// The pins whose files cannot be read, and which hold the snapshot because nobody knows until when
    #[arg(long, conflicts_with = "owner")]
    pub(crate) unreadable: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Directory of the journal; the snapshots are in DIR/snapshots
    pub(crate) dir: PathBuf,
    /// Remove all but the newest N of each log, and but those that are pinned; without it no snapshot is removed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: Option<u32>,
    /// Of those beyond N remove only what is older, such as 30days
    #[arg(long, value_name = "TIME", requires = "keep", value_parser = humantime::parse_duration)]
    pub(crate) max_age: Option<Duration>,
    /// Of those beyond N remove only as many as it takes to come down to so many bytes on disk
    #[arg(long, value_name = "BYTES", requires = "keep")]
    pub(crate) max_bytes: Option<u64>,
    /// Give up indexes that cannot be read, which keep every pack from being freed; what they name is lost
    #[arg(long)]
    pub(crate) give_up_unreadable: bool,
    /// Only say which snapshots would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Directory of the journal, with its snapshots; only read, damaged or in use as it may be
    pub(crate) dir: PathBuf,
    /// Directory of the new journal, absent or empty
    #[arg(value_name = "DIR2")]
    pub(crate) target: PathBuf,
    /// Begin its log with this snapshot, the first digits of its name; the newest of each log that verifies if not given
    #[arg(long, value_name = "ID")]
    pub(crate) snapshot: Option<String>,
    /// Copy no entries: each log as its snapshot has it
    #[arg(long)]
    pub(crate) no_entries: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}
