//! Looking on: beside a writer, and with none.

use super::*;

#[test]
fn with_no_writer_the_tail_is_shown_where_it_stands() {
    let disk = made::disk();
    for made in chains::three_segments() {
        made.save(&disk);
    }
    let found = view(&disk);
    assert_eq!(
        entries(&found, 1),
        ["zero", "one", "two", "three", "four", "five"]
    );
    assert!(found.tail.is_empty() && found.report.carried_batches > 0);
    assert_eq!(found.report.carried_batches, 1);
}

#[test]
fn beside_a_writer_only_what_is_proven_is_there() {
    let disk = made::disk();
    let made = chains::three_segments();
    for made in &made {
        made.save(&disk);
    }
    // The writer is in the middle of the last batch, whose header, which proves the one before, is still missing.
    let last = made[2].headers[1];
    disk.write_raw(&name(3), last.offset, &[0; 140]).unwrap();
    let found = try_mode(&disk, Mode::View { live: true }).unwrap();
    assert!(found.findings.is_empty() && found.report.cut.is_empty());
    assert_eq!(entries(&found, 1), ["zero", "one", "two", "three"]);
    let none = try_mode(&disk, Mode::View { live: false }).unwrap();
    assert_eq!(none.report.verdict, Verdict::Torn);
}

/// A file that goes, or gets these bytes.
type Change = (String, Option<Vec<u8>>);

/// A disk on which files go, and more is written, between one look and the next.
#[derive(Debug)]
struct Moving {
    disk: SimFs,
    /// What to do when the directory is listed for the n-th time, afterwards.
    after_list: Mutex<Vec<Vec<Change>>>,
}

impl Fs for Moving {
    fn list(&self, path: &str) -> std::io::Result<Vec<String>> {
        let names = self.disk.list(path);
        let mut steps = self.after_list.lock().unwrap();
        if !steps.is_empty() {
            for (path, bytes) in steps.remove(0) {
                match bytes {
                    None => self.disk.remove(&path).unwrap(),
                    Some(bytes) if self.disk.files().contains_key(&path) => {
                        self.disk.write_raw(&path, 0, &bytes).unwrap();
                    }
                    Some(bytes) => made::save(&self.disk, &path, &bytes),
                }
            }
        }
        names
    }

    fn open(&self, path: &str, access: crate::fs::Access) -> std::io::Result<Arc<dyn crate::fs::File>> {
        self.disk.open(path, access)
    }

    fn remove_dir(&self, path: &str) -> std::io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn create_dir(&self, path: &str) -> std::io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &str) -> std::io::Result<Arc<dyn crate::fs::File>> {
        self.disk.create(path)
    }

    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> std::io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &str) -> std::io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &str, holder: &str) -> std::io::Result<Box<dyn crate::fs::Lock>> {
        self.disk.lock(path, holder)
    }

    fn holder(&self, path: &str) -> std::io::Result<Option<String>> {
        self.disk.holder(path)
    }

    fn space(&self) -> std::io::Result<crate::fs::Space> {
        self.disk.space()
    }

    fn display(&self, path: &str) -> PathBuf {
        self.disk.display(path)
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }

    fn now_micros(&self) -> u64 {
        self.disk.now_micros()
    }
}

/// Rule 30: S1 to S3 are listed, the floor moves to S4 and S1 and S2 go.
#[test]
fn files_that_go_while_we_look_are_no_damage() {
    let disk = made::disk();
    let made = chains::three_segments();
    for made in &made {
        made.save(&disk);
    }
    let mut fourth = Made::new(4, 10, Some(made[2].end()));
    let first = crate::format::Facts {
        first: 6,
        purged: Some(EntryId::new(7, 5)),
        last: Some(crate::types::Term(7)),
    };
    let end = fourth.batch(0, &[facts(1, 6, first), floor(4)]);
    fourth.mark(end.sequence, false);
    let step = vec![(name(4), Some(fourth.bytes())), (name(1), None), (name(2), None)];
    let moving: Arc<dyn Fs> = Arc::new(Moving {
        disk,
        after_list: Mutex::new(vec![step]),
    });
    let found = recover(&moving, &Config::new(), Mode::View { live: true }).unwrap();
    assert_eq!((segment_ids(&found), found.findings.len()), (vec![4], 0));
}

/// The floor moves twice: what was wrong at first is not what is wrong then, and the third time nothing is.
#[test]
fn a_view_looks_until_it_sees_the_same_twice() {
    let disk = made::disk();
    let made = chains::three_segments();
    for made in &made {
        made.save(&disk);
    }
    let first = crate::format::Facts {
        first: 6,
        purged: Some(EntryId::new(7, 5)),
        last: Some(crate::types::Term(7)),
    };
    let above = |id, sequence, pred: &Made| {
        let mut made = Made::new(id, sequence, Some(pred.end()));
        let end = made.batch(0, &[facts(1, 6, first), floor(id)]);
        made.mark(end.sequence, false);
        made
    };
    let fourth = above(4, 10, &made[2]);
    let fifth = above(5, 20, &fourth);
    let steps = vec![
        vec![(name(4), Some(fourth.bytes())), (name(1), None), (name(2), None)],
        vec![(name(5), Some(fifth.bytes())), (name(3), None), (name(4), None)],
    ];
    let moving: Arc<dyn Fs> = Arc::new(Moving {
        disk,
        after_list: Mutex::new(steps),
    });
    let found = recover(&moving, &Config::new(), Mode::View { live: true }).unwrap();
    assert_eq!((segment_ids(&found), found.findings.len()), (vec![5], 0));
}

/// What is found twice is believed; where nothing is wrong there is nothing to find again, and reading a journal takes its time.
#[test]
fn a_sound_journal_is_looked_at_once() {
    use crate::fs::{FaultFs, Op};
    let disk = made::disk();
    for made in chains::three_segments() {
        made.save(&disk);
    }
    let counting = FaultFs::new(Arc::new(disk));
    let fs: Arc<dyn Fs> = Arc::new(counting.clone());
    let found = recover(&fs, &Config::new(), Mode::View { live: false }).unwrap();
    assert!(found.findings.is_empty());
    assert_eq!(counting.count(Op::List), 1);
}

#[test]
fn damage_that_is_seen_twice_is_damage_beside_a_writer_too() {
    let disk = made::disk();
    for made in chains::three_segments() {
        made.save(&disk);
    }
    disk.remove(&name(2)).unwrap();
    let found = try_mode(&disk, Mode::View { live: true }).unwrap();
    assert!(
        found
            .findings
            .iter()
            .any(|finding| finding.kind == FindingKind::Missing)
    );
}

/// Beside a writer files go; one that the system does not open has not gone.
#[test]
fn what_cannot_be_opened_beside_a_writer_has_not_gone() {
    use crate::fs::{Fault, FaultFs, Op, Rule};
    let disk = made::disk();
    for made in chains::three_segments() {
        made.save(&disk);
    }
    let faults = FaultFs::new(Arc::new(disk));
    faults.add(Rule::on(Op::Open, Fault::io_error()).path(&name(2)).forever());
    let fs: Arc<dyn Fs> = Arc::new(faults);
    for mode in [Mode::Writer, Mode::View { live: true }] {
        let Err(error) = recover(&fs, &Config::new(), mode) else {
            panic!("it opened")
        };
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
