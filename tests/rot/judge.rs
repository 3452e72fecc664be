//! Opens, reads, views and verifies a damaged disk, and judges what each of them said.

use std::cell::OnceCell;
use std::path::Path;

use everlog::fs::SimFs;
use everlog::inspect::{Finding, FindingKind, Verification, View, verify_on};
use everlog::{Error, ErrorKind, Journal, OpenReport, Verdict};

use super::damage::{Damage, Touched};
use super::found::{self, Found};
use super::loss::{self, Undecidable};
use super::raw::{self, BLOCK, COPY_AT, Dump};
use super::served;
use super::subject::{Position, Subject};
use super::support::dynamic;

/// What came of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It changed nothing.
    Same,
    /// Open said so, with this kind of error.
    Refused(ErrorKind),
    /// All that open found is right, and a read said so.
    Read,
    /// A loss that cannot be told from a legal crash.
    Lost(Undecidable),
    /// Nothing is lost and nothing wrong; bytes that counted for nothing were cut.
    Noise,
    /// Nothing is lost and nothing wrong.
    Harmless,
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Open, and for a flip read the bounds, cells and ends of each log and the entries in the same file; all of it if that shows
    /// anything.
    Open,
    /// Read everything; also a view, `verify` and a second opening.
    Whole,
    /// Also a digest of the disk; otherwise the disk's count of calls says that nothing was written.
    Digest,
}

pub(crate) type Judged<T> = Result<T, String>;

/// A failed expectation.
macro_rules! ensure {
    ($that:expr, $($story:tt)+) => {
        if !$that {
            return Err(format!($($story)+));
        }
    };
}
pub(crate) use ensure;

/// The damages, done to a copy of the subject, and what comes of them.
pub(crate) fn judge(subject: &Subject, damages: &[Damage], depth: Depth) -> Judged<Outcome> {
    let disk = subject.disk.fork();
    for damage in damages {
        damage.apply(subject, &disk);
    }
    let touched = match damages {
        [Damage::Flip(path, bit)] => Touched::byte(path, bit / 8),
        _ => Touched::find(subject, &disk, damages),
    };
    if touched.is_empty() {
        return Ok(Outcome::Same);
    }
    let trial = Trial {
        subject,
        damages,
        disk,
        touched,
        now: OnceCell::new(),
    };
    trial.run(depth)
}

struct Trial<'a> {
    subject: &'a Subject,
    damages: &'a [Damage],
    disk: SimFs,
    touched: Touched,
    now: OnceCell<Dump>,
}

/// What those who only look said.
struct Looked {
    view: everlog::Result<(View, Found)>,
    verified: everlog::Result<Verification>,
}

impl Depth {
    /// What is done to the case of this number when everybody looks.
    pub(crate) fn of_case(n: u64) -> Depth {
        if n.is_multiple_of(8) {
            Depth::Digest
        } else {
            Depth::Whole
        }
    }
}

impl Trial<'_> {
    fn run(&self, depth: Depth) -> Judged<Outcome> {
        let digest = (depth == Depth::Digest).then(|| self.disk.digest());
        let looked = match depth {
            Depth::Open => None,
            Depth::Whole | Depth::Digest => Some(self.look()?),
        };
        let ops = self.disk.ops();
        match Journal::open_on(dynamic(&self.disk), self.subject.config.clone()) {
            Err(error) => {
                ensure!(self.disk.ops() == ops, "a refused open wrote something: {error}");
                ensure!(
                    digest.is_none_or(|digest| digest == self.disk.digest()),
                    "a refused open changed the disk: {error}"
                );
                self.refused(&error, looked.as_ref())
            }
            Ok(journal) => {
                let outcome = self.opened(&journal, looked.as_ref(), depth);
                // As if it were killed: nothing is written when it is dropped.
                self.disk.stop_now();
                drop(journal);
                outcome
            }
        }
    }

    fn look(&self) -> Judged<Looked> {
        let ops = self.disk.ops();
        let config = || self.subject.config.clone();
        let verified = verify_on(dynamic(&self.disk), config(), &mut |_| {});
        let view = View::open_on(dynamic(&self.disk), config()).and_then(|view| {
            let found = found::of_view(&view)?;
            Ok((view, found))
        });
        ensure!(self.disk.ops() == ops, "looking wrote something");
        Ok(Looked { view, verified })
    }

    fn refused(&self, error: &Error, looked: Option<&Looked>) -> Judged<Outcome> {
        let kind = error.kind();
        self.is_in_place(error)?;
        let right = match kind {
            ErrorKind::Damaged => true,
            ErrorKind::Io => self.touched.unreadable,
            ErrorKind::Invalid => {
                self.touched.new.iter().any(|path| path.ends_with(".seg")) || self.holds_others()
            }
            ErrorKind::NotFound => !self.disk.files().keys().any(|path| path.ends_with(".seg")),
            _ => false,
        };
        ensure!(right, "open says {kind:?}: {error}");
        let only_unreadable = self.touched.unreadable && self.touched.missing.is_empty();
        if only_unreadable && self.disk.dump() == self.subject.dump {
            ensure!(kind == ErrorKind::Io, "what cannot be read is {kind:?}: {error}");
        }
        if let Some(looked) = looked {
            self.others_refuse(error, looked)?;
        }
        Ok(Outcome::Refused(kind))
    }

    /// A view and `verify` say that there is damage, and where; and give out all that is not damaged.
    fn others_refuse(&self, error: &Error, looked: &Looked) -> Judged<()> {
        let kind = error.kind();
        match &looked.verified {
            Err(other) => self.is_the_same(error, other, "verify")?,
            Ok(verified) => {
                let findings = &verified.findings;
                ensure!(!verified.clean, "open says {error}, verify calls it clean");
                self.are_in_place(findings, &format!("open says {error}, verify"))?;
                let unreadable = findings.iter().any(|f| f.kind == FindingKind::Unreadable);
                ensure!(
                    kind != ErrorKind::Io || unreadable,
                    "open says {error}, verify {findings:?}"
                );
                served::all_damage_is_found(self.subject, &self.touched, self.now(), findings)?;
            }
        }
        match &looked.view {
            Err(other) => self.is_the_same(error, other, "a view")?,
            Ok((view, found)) => {
                self.are_in_place(view.findings(), &format!("open says {error}, a view"))?;
                served::what_is_sound(self.subject, &self.touched, self.now(), found)?;
            }
        }
        Ok(())
    }

    /// Of several damages each may name another one first.
    fn is_the_same(&self, error: &Error, other: &Error, whose: &str) -> Judged<()> {
        let same = other.kind() == error.kind();
        ensure!(
            same || self.damages.len() > 1,
            "open says {error}, {whose} {other}"
        );
        self.is_in_place(other)
    }

    fn opened(&self, journal: &Journal, looked: Option<&Looked>, depth: Depth) -> Judged<Outcome> {
        if self.touched.put_back && journal.uuid().0 != self.subject.last().opening.uuid.to_le_bytes() {
            // Another journal, and it says so itself.
            return Ok(Outcome::Lost(Undecidable::Directory));
        }
        let report = journal.report();
        if let (Depth::Open, [Damage::Flip(path, _)]) = (depth, self.damages) {
            let near = self.subject.near(path);
            let found = found::some_of_journal(journal, near).map_err(|e| format!("reading failed: {e}"))?;
            let outcome = self.weigh(&found, report)?;
            if matches!(outcome, Outcome::Harmless | Outcome::Noise) {
                return Ok(outcome);
            }
        }
        let found = found::of_journal(journal).map_err(|e| format!("reading failed: {e}"))?;
        let outcome = self.weigh(&found, report)?;
        for (_, _, error) in found::errors(&found) {
            let unreadable = error.kind() == ErrorKind::Io && self.touched.unreadable;
            ensure!(
                unreadable || error.kind() == ErrorKind::Damaged,
                "a read says {error}"
            );
            self.is_in_place(error)?;
        }
        if let Some(looked) = looked {
            self.others_agree(&found, report, looked)?;
        }
        if depth != Depth::Open || matches!(outcome, Outcome::Lost(_)) {
            self.again(&found)?;
        }
        Ok(outcome)
    }

    /// Compares what was read with what should be there.
    fn weigh(&self, found: &Found, report: &OpenReport) -> Judged<Outcome> {
        for (key, item, error) in found::errors(found) {
            ensure!(
                served::may_be_unread(self.subject, &self.touched, key, item),
                "{item:?} of log {key} is sound, and reading it says {error}"
            );
        }
        let Some(difference) = found::differs(found, self.subject.model()) else {
            return Ok(match (found::errors(found).next(), report.cut.is_empty()) {
                (Some(_), _) => Outcome::Read,
                (None, false) => Outcome::Noise,
                (None, true) => Outcome::Harmless,
            });
        };
        let timeline = &self.subject.timeline;
        let prefix = timeline
            .iter()
            .rposition(|moment| found::differs(found, &moment.model).is_none());
        let from: Position = match prefix {
            Some(n) => timeline[n].at,
            None if found.is_empty() => (0, 0),
            None => return Err(format!("no state that ever was: {difference}")),
        };
        let case = loss::classify(self.subject, &self.touched, self.now(), from, report);
        case.map(Outcome::Lost).map_err(|e| format!("{difference}; {e}"))
    }

    /// The damaged disk as it was before anything was opened, which may carry and remove.
    fn now(&self) -> &Dump {
        self.now.get_or_init(|| {
            let disk = self.subject.disk.fork();
            for damage in self.damages {
                damage.apply(self.subject, &disk);
            }
            disk.dump()
        })
    }

    fn others_agree(&self, found: &Found, report: &OpenReport, looked: &Looked) -> Judged<()> {
        let (view, seen) = match &looked.view {
            Ok(seen) => seen,
            Err(error) => return Err(format!("open opens, and a view says {error}")),
        };
        let verified = match &looked.verified {
            Ok(verified) => verified,
            Err(error) => return Err(format!("open opens, and verify says {error}")),
        };
        ensure!(found::same(found, seen), "open and a view differ");
        let said = view.report();
        ensure!(
            said.verdict == report.verdict && said.cut == report.cut,
            "open says {:?} {:?}, a view {:?} {:?}",
            report.verdict,
            report.cut,
            said.verdict,
            said.cut
        );
        ensure!(
            verified.torn == (report.verdict == Verdict::Torn),
            "open says {:?}, verify says torn: {}",
            report.verdict,
            verified.torn
        );
        let spare_copy = |finding: &&Finding| finding.is_damage() && !self.is_copy(finding);
        ensure!(
            view.findings().iter().find(spare_copy).is_none(),
            "open opens, and a view finds {:?}",
            view.findings()
        );
        let of_copies = verified.findings.iter().any(|finding| self.is_copy(finding));
        ensure!(
            !of_copies || !report.warnings.is_empty(),
            "a rotten copy of an opening, and no warning"
        );
        let damaged = verified.findings.iter().any(Finding::is_damage);
        let unread = found::errors(found).next().is_some();
        ensure!(damaged || !unread, "a read says damaged, and verify nothing");
        if damaged {
            self.are_in_place(&verified.findings, "verify")?;
        }
        served::all_damage_is_found(self.subject, &self.touched, self.now(), &verified.findings)
    }

    /// One copy of an opening that the other one makes good.
    fn is_copy(&self, finding: &Finding) -> bool {
        [0, COPY_AT].contains(&finding.offset) && finding.what.starts_with("one of the two copies")
    }

    /// After a kill the next life finds the same.
    fn again(&self, found: &Found) -> Judged<()> {
        let disk = self.disk.fork();
        let journal = Journal::open_on(dynamic(&disk), self.subject.config.clone())
            .map_err(|e| format!("it opened, and the next life says {e}"))?;
        let next = found::of_journal(&journal).map_err(|e| format!("reading failed: {e}"))?;
        disk.stop_now();
        ensure!(found::same(found, &next), "the next life finds something else");
        Ok(())
    }

    /// Whether some file holds a valid opening that is not its own.
    fn holds_others(&self) -> bool {
        let uuid = self.subject.last().opening.uuid;
        let dump = self.now();
        dump.iter().any(|(path, bytes)| {
            raw::id_of(path).is_some_and(|id| {
                let copies = [0, COPY_AT].map(|at| raw::opening_at(bytes, at));
                copies
                    .into_iter()
                    .flatten()
                    .any(|opening| opening.segment != id || opening.uuid != uuid)
            })
        })
    }

    /// "The right file and offset": the damage lies in what the error names.
    fn is_in_place(&self, error: &Error) -> Judged<()> {
        let path = error.path().unwrap_or(Path::new(""));
        let in_text = || {
            let text = error.to_string();
            let mut files = self.touched.files.keys().chain(&self.touched.new);
            files.any(|path| text.contains(path.as_str()))
        };
        let right = match error.kind() {
            ErrorKind::NotFound => true,
            // Which of two files is the foreign one cannot be said; both are named.
            ErrorKind::Invalid => in_text() || self.touched.put_back,
            _ => self.covers(path, error.offset().unwrap_or(u64::MAX), 0),
        };
        ensure!(
            right,
            "the error names another place than {:?}: {error}",
            self.touched
        );
        Ok(())
    }

    /// The same of findings: one of them is about the damage.
    fn are_in_place(&self, findings: &[Finding], whose: &str) -> Judged<()> {
        let damage = findings.iter().filter(|finding| finding.is_damage());
        let right = damage
            .clone()
            .any(|finding| self.covers(&finding.path, finding.offset, finding.bytes));
        ensure!(
            right,
            "{whose} names nothing of {:?}: {:?}",
            self.touched,
            damage.collect::<Vec<_>>()
        );
        Ok(())
    }

    /// Whether damage lies in `bytes` bytes at `offset`, or in the structure that begins there.
    fn covers(&self, path: &Path, offset: u64, bytes: u64) -> bool {
        let Ok(path) = path.strip_prefix("/simulated") else {
            return false;
        };
        let path = path.to_str().unwrap_or_default();
        if self.touched.missing.contains(path) || self.touched.new.contains(path) {
            return true;
        }
        if path == "journal" {
            // Nothing is left by which a segment could be named.
            let dump = self.now();
            let mut ids = dump
                .iter()
                .filter_map(|(path, bytes)| Some((raw::id_of(path)?, bytes)));
            return ids.all(|(id, bytes)| raw::opening(bytes, id).is_none());
        }
        let ranges = self.touched.files.get(path);
        ranges.into_iter().flatten().any(|range| {
            let begins = self.structure_at(path, range.start);
            let end = if self.touched.unreadable {
                range.end.next_multiple_of(BLOCK)
            } else {
                range.end
            };
            offset <= end && begins <= offset + bytes
        }) || self.is_below_a_lost_floor(path)
    }

    /// A cut that took a floor with it leaves a journal that needs files which are gone: a loss is noticed for this alone.
    fn is_below_a_lost_floor(&self, path: &str) -> bool {
        let lowest = self.subject.chain[0].id;
        let mut floors = self.subject.batches().filter(|(link, batch)| {
            let has_floor = batch.frames.iter().any(|frame| frame.kind == raw::FLOOR);
            has_floor && self.touched.hits(&link.path, &batch.header.used())
        });
        raw::id_of(path).is_some_and(|id| id < lowest) && floors.next().is_some()
    }

    /// Where the structure begins that holds the byte at `at`.
    fn structure_at(&self, path: &str, at: u64) -> u64 {
        let links = self.subject.chain.iter().filter(|link| link.path == path);
        let batches = links.flat_map(|link| &link.batches);
        let starts = batches.map(|batch| batch.header.offset);
        let starts = starts.chain([0, COPY_AT]).filter(|start| *start <= at);
        let start = starts.max().unwrap_or(0);
        // A read that fails is narrowed down to a block.
        if self.touched.unreadable {
            start.min(at / BLOCK * BLOCK)
        } else {
            start
        }
    }
}
