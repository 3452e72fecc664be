//! One life of the child, seen from outside: started, listened to, killed.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::protocol::{OPENING, Record};
use crate::exit::{Exit, Failure};

/// When a child is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KillAt {
    /// So long after it began to append.
    Working(Duration),
    /// So long after it was told what to do: mostly while it opens the journal.
    Opening(Duration),
}

/// How a life ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By SIGKILL.
    Killed,
    /// The child could not go on: its row of the table of exit codes (`None` for a panic) and what it said.
    Refused { exit: Option<Exit>, said: String },
}

/// A life that ended.
pub(crate) struct Lived {
    pub(crate) end: End,
    /// Everything the child reported, in order.
    pub(crate) records: Vec<Record>,
    /// How long it appended.
    pub(crate) working: Duration,
}

/// A child that lives.
pub(crate) struct Life {
    child: Leashed,
    /// Open for as long as the child is wanted.
    input: ChildStdin,
    /// When it had all it needs to open the journal.
    briefed: Instant,
    /// Hears once that the journal is open; gone when it cannot be opened, and when the child's reports end.
    opened: Receiver<Instant>,
    working_since: Option<Instant>,
    reports: JoinHandle<io::Result<Vec<Record>>>,
    errors: JoinHandle<String>,
}

impl Life {
    /// Starts a child on the journal in `dir`, with these `options`, and tells it what to do with `brief`.
    pub(crate) fn start(
        dir: &Path,
        options: &[&str],
        brief: impl FnOnce(&mut BufWriter<&mut ChildStdin>) -> io::Result<()>,
    ) -> Result<Life, Failure> {
        let failed = |e: io::Error| Failure::io("start the process to kill", &e);
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("drill-child")
            .args(options)
            .arg("--")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(mut input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three are piped");
        };
        let (tell, opened) = mpsc::channel();
        let reports = thread::spawn(move || {
            let mut output = BufReader::with_capacity(64 << 10, output);
            let mut records = Vec::new();
            let mut tell = Some(tell);
            while let Some(record) = Record::read(&mut output)? {
                match (&record, &tell) {
                    // Nobody listens any more when the child was killed while it opened.
                    (Record::Opened(_), Some(tell)) => drop(tell.send(Instant::now())),
                    // It waits for its end, and there is nothing else to wait for.
                    (Record::Failed { writer: OPENING }, _) => tell = None,
                    _ => {}
                }
                records.push(record);
            }
            Ok(records)
        });
        let errors = thread::spawn(move || {
            let mut said = String::new();
            let mut errors = errors;
            // What cannot be read is not shown; the exit status tells the rest.
            let _ = errors.read_to_string(&mut said);
            said
        });
        let mut writer = BufWriter::new(&mut input);
        // If the child is gone already, its exit status tells why.
        let _ = brief(&mut writer).and_then(|()| writer.flush());
        drop(writer);
        Ok(Life {
            child: Leashed(child),
            input,
            briefed: Instant::now(),
            opened,
            working_since: None,
            reports,
            errors,
        })
    }

    /// Waits until the child has opened the journal; false if it ended before, or does not get there.
    pub(crate) fn opens(&mut self) -> bool {
        self.working_since = self.opened.recv_timeout(OPENS_WITHIN).ok();
        self.working_since.is_some()
    }

    /// Lets the child live until `kill_at`, or until it ends by itself, or `interrupted`.
    pub(crate) fn until(mut self, kill_at: KillAt, interrupted: &AtomicBool) -> Result<Lived, Failure> {
        let mut working_since = self.working_since;
        let mut deadline = match kill_at {
            KillAt::Opening(delay) => Some(self.briefed + delay),
            KillAt::Working(delay) => working_since.map(|at| at + delay),
        };
        while !interrupted.load(Ordering::Relaxed) {
            let left = deadline.map_or(POLL, |at| at.saturating_duration_since(Instant::now()).min(POLL));
            if left.is_zero() {
                break;
            }
            match self.opened.recv_timeout(left) {
                Ok(at) => {
                    working_since = Some(at);
                    if let KillAt::Working(delay) = kill_at {
                        deadline = Some(at + delay);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let failed = |e: io::Error| Failure::io("kill the writing process", &e);
        self.child.0.kill().map_err(failed)?;
        let working = working_since.map_or(Duration::ZERO, |at| at.elapsed());
        let status = self.child.0.wait().map_err(failed)?;
        drop(self.input);
        let records = match self.reports.join() {
            Ok(records) => records.map_err(|e| Failure::io("read the reports of the writing process", &e))?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let said = self.errors.join().unwrap_or_default();
        Ok(Lived {
            end: end(status, &said),
            records,
            working,
        })
    }
}

/// No child outlives its drill, whatever made it end.
struct Leashed(Child);

impl Drop for Leashed {
    fn drop(&mut self) {
        // Both fail only where there is no child any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn end(status: ExitStatus, said: &str) -> End {
    if status.signal() == Some(SIGKILL) {
        return End::Killed;
    }
    End::Refused {
        exit: status.code().and_then(Exit::from_code),
        said: sentence(said),
    }
}

/// What the child said, without its name and without the command it would run next: that is for us to say.
fn sentence(said: &str) -> String {
    let said = said.trim().trim_start_matches("everlog: ");
    let end = said.rfind("; next: ").unwrap_or(said.len());
    said[..end].to_string()
}

/// What [`Child::kill`] sends.
const SIGKILL: i32 = 9;
/// A child that has not opened the journal by then is no worse for it; nobody waits any longer.
const OPENS_WITHIN: Duration = Duration::from_secs(5);
/// How often an interruption is looked for.
const POLL: Duration = Duration::from_millis(50);
