//! `snapshot export` and `import`: a snapshot carried elsewhere in one file.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use everlog::inspect;
use everlog::snapshot::{Committed, Import, Origin, Snapshot, Store, StoreConfig};
use everlog::{Error, ErrorKind};
use serde::Serialize;

use super::args::{ExportArgs, ImportArgs};
use super::{Printed, choose, described, refused, view};
use crate::exit::{Exit, Failure, Outcome};
use crate::journal;
use crate::output::{Output, word};
use crate::progress::Progress;

/// Runs `export`.
pub(super) fn export(args: &ExportArgs) -> Outcome {
    let store = view(&args.dir)?;
    let snapshot = choose(&args.dir, &store, &args.id)?;
    if args.file == Path::new("-") {
        if io::stdout().is_terminal() {
            let text = "standard output is a terminal, and an export is no text; name a file, or pipe it";
            return Err(Failure::usage(text));
        }
        write(args, &store, &snapshot, &mut io::stdout().lock())?;
        return Ok(Exit::Fine);
    }
    let file = NewFile::make(&args.file)?;
    let mut into = BufWriter::with_capacity(BUFFER_BYTES, &file.file);
    write(args, &store, &snapshot, &mut into)?;
    drop(into);
    file.finish()?;
    let mut out = Output::new();
    if args.format.json {
        out.json(&Printed::of(&snapshot))?;
    } else {
        let what = if args.state { "the state of " } else { "" };
        let next = match args.state {
            true => String::new(),
            false => format!("; next: everlog snapshot import OTHER {}", word(&args.file)),
        };
        out.line(format!(
            "exported {what}{} to {}{next}",
            described(&snapshot),
            args.file.display()
        ))?;
    }
    out.flush()?;
    Ok(Exit::Fine)
}

fn write(args: &ExportArgs, store: &Store, snapshot: &Snapshot, into: &mut dyn Write) -> Result<(), Failure> {
    let progress = Progress::bytes("export", Some(snapshot.bytes));
    if !args.state {
        let done = store.export(snapshot.id, into, &mut |done, of| {
            progress.total(of);
            progress.set(done);
        });
        return done.map(drop).map_err(|e| refused(&args.file, e));
    }
    let mut reader = store.reader(snapshot.id).map_err(|e| refused(&args.dir, e))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut done = 0;
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|e| match e.downcast::<Error>() {
                Ok(error) => refused(&args.dir, error),
                Err(e) => Failure::io("read the snapshot", &e),
            })?;
        if count == 0 {
            break;
        }
        let written = into.write_all(&buffer[..count]);
        written.map_err(|e| unwritten(&args.file, &e))?;
        done += count as u64;
        progress.set(done);
    }
    into.flush().map_err(|e| unwritten(&args.file, &e))
}

fn unwritten(file: &Path, e: &io::Error) -> Failure {
    Failure::io(&format!("write {}", file.display()), e)
}

/// A file that has another name until it is whole. Dropped before that, it goes.
struct NewFile {
    file: File,
    path: PathBuf,
    unfinished: PathBuf,
    finished: bool,
}

impl NewFile {
    fn make(path: &Path) -> Result<NewFile, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!(
                "{}: is there already, and is not replaced",
                path.display()
            )));
        }
        let mut unfinished = path.to_path_buf().into_os_string();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let file = File::create(&unfinished)
            .map_err(|e| Failure::io(&format!("make {}", unfinished.display()), &e))?;
        Ok(NewFile {
            file,
            path: path.to_path_buf(),
            unfinished,
            finished: false,
        })
    }

    fn finish(mut self) -> Result<(), Failure> {
        let parent = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let named = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.unfinished, &self.path))
            .and_then(|()| File::open(parent)?.sync_all());
        named.map_err(|e| unwritten(&self.path, &e))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

#[derive(Serialize)]
struct Imported {
    #[serde(flatten)]
    snapshot: Printed,
    shared_chunks: u64,
    healed_chunks: u64,
}

/// Runs `import`.
pub(super) fn import(args: &ImportArgs) -> Outcome {
    let from: Box<dyn Read> = match args.file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => {
            let file = File::open(&args.file);
            Box::new(file.map_err(|e| Failure::io(&format!("read {}", args.file.display()), &e))?)
        }
    };
    let import = Import::open(BufReader::with_capacity(BUFFER_BYTES, from), &args.file)
        .map_err(|e| not_taken(args, e))?;
    let snapshot = import.snapshot();
    is_place(&args.dir)?;
    let origin = origin(args, &snapshot)?;
    let store = Store::open(&args.dir, StoreConfig::new()).map_err(|e| refused(&args.dir, e))?;
    let progress = Progress::bytes("import", Some(import.total_bytes()));
    let committed = import.into_store(&store, origin, &mut |done, _| progress.set(done));
    progress.clear();
    print_import(args, &committed.map_err(|e| not_taken(args, e))?)
}

/// An error of the export, or of the store.
fn not_taken(args: &ImportArgs, error: Error) -> Failure {
    match error.path() == Some(&args.file) {
        true => Failure::from(error).after("nothing was taken in"),
        false => refused(&args.dir, error),
    }
}

fn print_import(args: &ImportArgs, committed: &Committed) -> Outcome {
    let mut out = Output::new();
    if args.format.json {
        out.json(&Imported {
            snapshot: Printed::of(&committed.snapshot),
            shared_chunks: committed.shared.chunks,
            healed_chunks: committed.healed.chunks,
        })?;
    } else {
        let healed = match committed.healed.chunks {
            0 => String::new(),
            n => format!(", and made good {n} damaged chunks"),
        };
        out.line(format!(
            "imported {}, verified{healed}",
            described(&committed.snapshot)
        ))?;
    }
    out.flush()?;
    Ok(Exit::Fine)
}

/// Whether snapshots belong there: beside a journal or other snapshots, or where nothing else is.
fn is_place(dir: &Path) -> Result<(), Failure> {
    if inspect::find(dir).is_ok() || Store::view(dir).is_ok() {
        return Ok(());
    }
    let mut names =
        fs::read_dir(dir).map_err(|e| Failure::io(&format!("read the directory {}", dir.display()), &e))?;
    match names.next() {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format!(
            "{}: is neither a journal nor a store of snapshots, and not empty",
            dir.display()
        ))),
    }
}

/// What the store is to believe of the snapshot. One that the log here has reached is as good as one of its own; one that is ahead
/// of a log with something in it would have the next engine drop that, and needs somebody's word.
fn origin(args: &ImportArgs, snapshot: &Snapshot) -> Result<Origin, Failure> {
    let dir = &args.dir;
    match inspect::find(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Origin::Installed),
        found => found.map_err(|e| journal::refused(dir, e))?,
    };
    let view = journal::view(dir)?;
    let log = match view.log(snapshot.log) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Origin::Installed),
        log => log.map_err(|e| journal::refused(dir, e))?,
    };
    let failed = |e| journal::refused(dir, e);
    let (bounds, last) = (log.bounds().map_err(failed)?, log.last().map_err(failed)?);
    let Some(last) = last else {
        return Ok(Origin::Installed);
    };
    let covers = snapshot.covers;
    let agrees = match log.term_at(covers.index) {
        Ok(term) => term == covers.term,
        // It went into a snapshot long ago, and can be compared with nothing.
        Err(e) => e.kind() == ErrorKind::Purged,
    };
    if agrees || args.install {
        return Ok(if agrees {
            snapshot.origin
        } else {
            Origin::Installed
        });
    }
    let text = format!(
        "{}: log {} holds {}..{}, its last entry is {last}, and the snapshot covers {covers}: an engine that opens would reset the log to the \
         snapshot and drop what the log holds; say --install if that is meant",
        dir.display(),
        snapshot.log,
        bounds.start,
        bounds.end
    );
    Err(Failure::usage(text))
}

const BUFFER_BYTES: usize = 1 << 20;
