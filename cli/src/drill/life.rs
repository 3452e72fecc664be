//! One life of the child, seen from outside: started, listened to, killed.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::protocol::{OPENING, Record, Stage};
use crate::exit::{Exit, Failure};

/// When a child is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KillAt {
    /// So long after it began to append.
    Working(Duration),
    /// So long after it was told what to do: mostly while it opens the journal.
    Opening(Duration),
    /// So long after it said for the `nth` time, counted from 1, that it enters a stage. If an opening has no such stage, so
    /// long after the opening.
    Entering { stage: Stage, nth: u32, delay: Duration },
}

/// What somebody who waits for the right moment hears of.
#[derive(Clone, Copy, Debug)]
enum Heard {
    Opened,
    Begins(Stage),
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
    /// Hears once that the journal is open, and what else may set the moment of the kill; gone when it cannot be opened, and
    /// when the child's reports end.
    heard: Receiver<(Heard, Instant)>,
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
        let (tell, heard) = mpsc::channel();
        let reports = thread::spawn(move || {
            let mut output = BufReader::with_capacity(64 << 10, output);
            let mut records = Vec::new();
            let mut tell = Some(tell);
            while let Some(record) = Record::read(&mut output)? {
                match (&record, &tell) {
                    // Nobody listens any more when the child was killed while it opened.
                    (Record::Opened(_), Some(tell)) => {
                        let _ = tell.send((Heard::Opened, Instant::now()));
                    }
                    (Record::Begins { stage }, Some(tell)) => {
                        let _ = tell.send((Heard::Begins(*stage), Instant::now()));
                    }
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
            heard,
            working_since: None,
            reports,
            errors,
        })
    }

    /// Waits until the child has opened the journal; false if it ended before, or does not get there.
    pub(crate) fn opens(&mut self) -> bool {
        while let Ok((heard, at)) = self.heard.recv_timeout(OPENS_WITHIN) {
            if matches!(heard, Heard::Opened) {
                self.working_since = Some(at);
                return true;
            }
        }
        false
    }

    /// Lets the child live until `kill_at`, or until it ends by itself, or `interrupted`.
    pub(crate) fn until(mut self, kill_at: KillAt, interrupted: &AtomicBool) -> Result<Lived, Failure> {
        let mut working_since = self.working_since;
        let mut moment = Moment::of(kill_at);
        let mut deadline = match kill_at {
            KillAt::Opening(delay) => Some(self.briefed + delay),
            KillAt::Working(delay) => working_since.map(|at| at + delay),
            KillAt::Entering { .. } => None,
        };
        while !interrupted.load(Ordering::Relaxed) {
            let left = deadline.map_or(POLL, |at| at.saturating_duration_since(Instant::now()).min(POLL));
            if left.is_zero() {
                break;
            }
            match self.heard.recv_timeout(left) {
                Ok((heard, at)) => {
                    if matches!(heard, Heard::Opened) {
                        working_since = Some(at);
                    }
                    deadline = moment.after(heard).map(|delay| at + delay).or(deadline);
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

/// Knows when to kill, while it hears what the child does.
struct Moment {
    kill_at: KillAt,
    /// How often the stage was entered.
    entered: u32,
}

impl Moment {
    fn of(kill_at: KillAt) -> Moment {
        Moment { kill_at, entered: 0 }
    }

    /// How long after this the child is killed, if this says it.
    fn after(&mut self, heard: Heard) -> Option<Duration> {
        match (self.kill_at, heard) {
            (KillAt::Working(delay), Heard::Opened) => Some(delay),
            (KillAt::Working(_) | KillAt::Opening(_), _) => None,
            (KillAt::Entering { stage, nth, delay }, Heard::Begins(begun)) => {
                self.entered += u32::from(begun == stage);
                (begun == stage && self.entered == nth).then_some(delay)
            }
            (KillAt::Entering { nth, .. }, Heard::Opened) if self.entered >= nth => None,
            (KillAt::Entering { stage, delay, .. }, Heard::Opened) => Some(match stage.is_opening() {
                true => delay,
                false => ENTERS_WITHIN,
            }),
        }
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
/// A child that works and has not come to the stage by then is killed all the same.
const ENTERS_WITHIN: Duration = Duration::from_secs(30);
/// How often an interruption is looked for.
const POLL: Duration = Duration::from_millis(50);
