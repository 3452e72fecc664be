//! Corners of the public interface that no proof has a reason to visit: limits, refusals, what is printed, what is left over.

use std::fs;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use everlog::fs::{Fault, FaultFs, Fs, Gate, Op, Profile, Rule, SimFs};
use everlog::inspect::{View, verify_on};
use everlog::{
    Background, Config, EntryId, ErrorKind, Journal, Log, LogKey, Permit, Term, Ticket, WriteBatch, Written,
};

const A: LogKey = LogKey(1);

fn small() -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(8 << 10)
        .background(Background::Caller)
}

fn disk() -> SimFs {
    SimFs::new(1, Profile::PosixWeak)
}

fn on(disk: &SimFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}

fn one_log(disk: &SimFs) -> (Journal, Log) {
    let journal = Journal::create_on(on(disk), small()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    (journal, log)
}

fn batch(payloads: &[usize]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for len in payloads {
        batch.append(A, vec![7; *len]);
    }
    batch
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn room(journal: &Journal, bytes: u64) -> Permit {
    match poll(&mut journal.room(bytes)) {
        Poll::Ready(permit) => permit.unwrap(),
        Poll::Pending => panic!("there is room"),
    }
}

#[test]
fn handles_and_reports_can_be_printed() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    log.append(b"x").unwrap();
    let ticket = log.submit(b"y").unwrap();
    let room_to_come = journal.room(10);
    let permit = room(&journal, 10);
    let uuid = format!("{:?}", journal.uuid());
    assert_eq!(uuid, journal.uuid().to_string());
    for (printed, part) in [
        (format!("{journal:?}"), "Journal"),
        (format!("{log:?}"), "LogKey(1)"),
        (format!("{:?}", log.journal()), "Journal"),
        (format!("{ticket:?}"), "done: false"),
        (format!("{room_to_come:?}"), "bytes: 10"),
        (format!("{permit:?}"), "Permit"),
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    let killed = disk.kill();
    let view = View::open_on(on(&killed), small()).unwrap();
    assert_eq!(view.report().verdict.to_string(), "unclean");
    assert_eq!(everlog::Verdict::Clean.to_string(), "clean");
    assert_eq!(everlog::Verdict::Torn.to_string(), "torn");
}

/// What is wrong is told with its file, its place, its kind, and the log and entries where they are known.
#[test]
fn findings_say_where_and_what() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    for _ in 0..40 {
        log.append([0x5a; 300]).unwrap();
    }
    journal.close().unwrap();
    let first = segments(&disk).remove(0);
    let bytes = disk.read_raw(&first).unwrap();
    let payload = bytes
        .windows(300)
        .position(|window| window == [0x5a; 300])
        .unwrap();
    disk.flip_bit(&first, payload as u64, 0).unwrap();
    let found = verify_on(on(&disk), small(), &mut |_| {}).unwrap().findings;
    let [finding] = &found[..] else {
        panic!("one finding, not {found:#?}");
    };
    let text = finding.to_string();
    assert!(text.contains(&format!("{first} at ")), "{text}");
    assert!(text.contains(": damaged: "), "{text}");
    assert!(text.ends_with("(log 1, entries 0..1)"), "{text}");
    disk.remove(&segments(&disk)[1]).unwrap();
    let found = verify_on(on(&disk), small(), &mut |_| {}).unwrap().findings;
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        texts.iter().any(|text| text.contains(": missing: ")),
        "{texts:#?}"
    );
}

/// What `verify` prints of `disk`.
fn told(disk: &SimFs) -> String {
    let found = verify_on(on(disk), small(), &mut |_| {}).unwrap().findings;
    found.iter().map(|finding| format!("{finding}\n")).collect()
}

#[test]
fn every_kind_of_finding_has_its_word() {
    let disk = several_segments();
    let names = segments(&disk);
    disk.set_unreadable(&names[1], 18..20, true).unwrap();
    let text = told(&disk);
    assert!(text.contains(": unreadable: "), "{text}");

    let disk = self::disk();
    let (_journal, log) = one_log(&disk);
    log.set(1, [0x5a; 300]).unwrap();
    log.append(b"entry").unwrap();
    let killed = disk.kill();
    let segment = segments(&killed).remove(0);
    let bytes = killed.read_raw(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    killed.write_raw(&segment, end + 64, b"half a batch").unwrap();
    let text = told(&killed);
    assert!(text.contains(": torn: "), "{text}");
    let value = bytes
        .windows(300)
        .position(|window| window == [0x5a; 300])
        .unwrap();
    killed.flip_bit(&segment, value as u64, 0).unwrap();
    let text = told(&killed);
    assert!(text.contains("(log 1)\n"), "{text}");
}

#[test]
fn what_is_too_large_to_be_atomic_is_refused() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    let error = journal.write(batch(&vec![0; 16_001])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("too large to be atomic"), "{error}");
    let error = log.set(1, vec![0; (64 << 10) + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(log.bounds().unwrap(), 0..0);
}

#[test]
fn indexes_end_where_numbers_end() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    let invalid = |result: everlog::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    };
    invalid(log.reset(EntryId::new(1, u64::MAX)));
    invalid(log.purge_through(EntryId::new(1, u64::MAX)));
    log.reset(EntryId::new(1, u64::MAX - 2)).unwrap();
    assert_eq!(log.append(b"the last").unwrap(), EntryId::new(1, u64::MAX - 1));
    invalid(log.append(b"one more").map(drop));
    invalid(log.append_at(EntryId::new(1, u64::MAX), b"one more").map(drop));
    journal.close().unwrap();
    let journal = Journal::open_on(on(&disk), small()).unwrap();
    let log = journal.log(A).unwrap();
    assert_eq!(log.get(u64::MAX - 1).unwrap(), "the last");
    assert_eq!(log.bounds().unwrap(), u64::MAX - 1..u64::MAX);
}

#[test]
fn a_purge_through_an_id_must_fit_what_is_there() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    for term in [1, 1, 4] {
        let index = log.bounds().unwrap().end;
        log.append_at(EntryId::new(term, index), b"entry").unwrap();
    }
    for (term, index) in [(2, 1), (3, 9)] {
        let error = log.purge_through(EntryId::new(term, index)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    log.purge_through(EntryId::new(1, 1)).unwrap();
    log.purge_through(EntryId::new(1, 0)).unwrap();
    assert_eq!(log.bounds().unwrap(), 2..3);
    assert_eq!(log.purged().unwrap(), Some(EntryId::new(1, 1)));
    journal.expect_at_least(A, EntryId::new(1, 0)).unwrap();
    journal.expect_at_least(A, EntryId::new(4, 2)).unwrap();
    assert_eq!(log.terms(2..2).unwrap(), []);
    assert_eq!(log.terms(0..9).unwrap()[0].term, Term(4));
}

#[test]
fn an_iterator_that_gave_all_has_ended_also_when_the_journal_closes_then() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    for _ in 0..3 {
        log.append(b"x").unwrap();
    }
    let mut entries = log.read(0..2);
    assert_eq!(entries.by_ref().take(2).filter(|entry| entry.is_ok()).count(), 2);
    journal.clone().close().unwrap();
    assert!(entries.next().is_none());
    let nothing = journal.write(WriteBatch::new());
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_segment_is_shorter_than_offsets_can_tell() {
    for bytes in [1 << 35, (1 << 35) + 4096, 4096] {
        let error = Journal::create_on(on(&disk()), small().segment_bytes(bytes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("a multiple of 4096 from"), "{error}");
    }
}

#[test]
fn a_log_is_opened_or_created() {
    let disk = disk();
    let (journal, _log) = one_log(&disk);
    let created = journal.open_or_create_log(LogKey(2), 5).unwrap();
    created.append(b"x").unwrap();
    let opened = journal.open_or_create_log(LogKey(2), 9).unwrap();
    assert_eq!(opened.bounds().unwrap(), 5..6);
}

#[test]
fn a_limited_read_returns_one_entry_at_least() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    for _ in 0..5 {
        log.append([1; 100]).unwrap();
    }
    let count = |range, bytes| log.read_limited(range, bytes).unwrap().len();
    assert_eq!((count(0..5, 0), count(0..5, 250), count(0..5, 1000)), (1, 2, 5));
    assert_eq!((count(0..5, 199), count(0..5, 200)), (1, 2));
    assert_eq!(count(3..3, 1000), 0);
    assert!(log.read_limited(4..9, 1000).is_err(), "the log ends before");
    drop(journal);
}

#[test]
fn a_permit_that_is_too_small_takes_the_rest_or_is_busy() {
    let disk = disk();
    let (journal, _log) = one_log(&disk);
    let taken = journal.submit_with(room(&journal, 100), batch(&[500])).unwrap();
    taken.wait().unwrap();
    let all = room(&journal, 7 << 10);
    let error = journal
        .submit_with(room(&journal, 100), batch(&[2000]))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    drop(all);
    let mut resolved = journal.room(10);
    assert!(poll(&mut resolved).is_ready());
    let Poll::Ready(Err(error)) = poll(&mut resolved) else {
        panic!("it was over");
    };
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

/// Fills the room from within the wake-up of a task, where nothing may wait.
struct Greedy {
    journal: Journal,
    told: Mutex<Vec<ErrorKind>>,
}

impl Wake for Greedy {
    fn wake(self: Arc<Self>) {
        for _ in 0..4 {
            if let Err(error) = self.journal.submit(batch(&[3000])).map(drop) {
                self.told.lock().unwrap().push(error.kind());
            }
        }
    }
}

#[test]
fn a_waker_that_finds_no_room_is_told_so() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    let greedy = Arc::new(Greedy {
        journal: journal.clone(),
        told: Mutex::default(),
    });
    let mut ticket = log.submit(b"x").unwrap();
    let waker = Waker::from(Arc::clone(&greedy));
    assert!(
        Pin::new(&mut ticket)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    journal.work().unwrap();
    assert!(greedy.told.lock().unwrap().contains(&ErrorKind::Busy));
}

#[test]
fn a_write_without_effect_gives_its_large_file_back() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    let mut nothing = WriteBatch::new();
    for _ in 0..400 {
        nothing.purge_to(A, 0);
    }
    for _ in 0..10 {
        journal.write(nothing.clone()).unwrap();
    }
    let files = disk.files().len();
    for _ in 0..10 {
        journal.write(nothing.clone()).unwrap();
    }
    assert_eq!(disk.files().len(), files, "files that nothing uses come together");
    log.append(b"x").unwrap();
}

#[test]
fn a_journal_is_closed_once_for_all_its_handles() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    let other = journal.clone();
    journal.close().unwrap();
    let error = log.append(b"late").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    other.close().unwrap();
    Journal::open_on(on(&disk), small()).unwrap().close().unwrap();
}

/// The second of two groups is told what became of the journal while it stood in line.
#[test]
fn a_group_that_waited_for_a_failing_one_is_told_the_same() {
    let fs = FaultFs::new(on(&disk()));
    let config = small().background(Background::Threads);
    let journal = Journal::create_on(Arc::new(fs.clone()), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    let gate = Gate::default();
    let syncs = fs.count(Op::SyncData);
    fs.add(Rule::on(Op::Write, Fault::DelayAfter(gate.clone())).forever());
    let first = log.submit(b"first").unwrap();
    gate.wait_for_arrivals(1);
    let first = first.wait_timeout(Duration::ZERO).unwrap_err();
    fs.add(Rule::on(Op::SyncData, Fault::io_error()).forever());
    let second = log.submit(b"second").unwrap();
    gate.release();
    for ticket in [first, second] {
        let error = ticket.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    }
    assert!(fs.count(Op::SyncData) > syncs);
    assert_eq!(log.append(b"late").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(journal.sync().unwrap_err().kind(), ErrorKind::Closed);
    journal.close().unwrap_err();
}

#[test]
fn a_failed_sync_of_relaxed_writes_closes_the_journal() {
    let fs = FaultFs::new(on(&disk()));
    let config = small()
        .background(Background::Threads)
        .relaxed_delay(Duration::ZERO);
    let journal = Journal::create_on(Arc::new(fs.clone()), config).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    fs.add(Rule::on(Op::SyncData, Fault::io_error()).forever());
    // Given to the system is all that was promised; who comes later hears that it is over.
    let error = (0..100_000).find_map(|_| log.append_relaxed(b"x").err());
    let kind = error.expect("it is over at some time").kind();
    assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Unknown), "{kind:?}");
}

#[test]
fn what_an_unfinished_creation_left_is_used_again() {
    let disk = disk();
    disk.create_dir("journal").unwrap();
    disk.create("journal/create.tmp").unwrap();
    disk.write_raw("journal/create.tmp", 0, &[7; 5000]).unwrap();
    // With a file of somebody else in it, the directory is not made anew.
    disk.create("journal/README").unwrap();
    let (journal, log) = one_log(&disk);
    log.append(b"x").unwrap();
    journal.close().unwrap();
    let journal = Journal::open_on(on(&disk), small()).unwrap();
    assert_eq!(journal.log(A).unwrap().get(0).unwrap(), "x");
    assert!(disk.files().contains_key("journal/README"));
}

/// Nothing that was met for another reason is taken for a left-over.
#[test]
fn a_creation_that_fails_says_what_it_was_doing() {
    for (op, path, doing) in [
        (Op::Create, "create.tmp", "create the first segment"),
        (Op::CreateDir, "journal", "create the directory"),
    ] {
        let faults = FaultFs::new(on(&disk()));
        faults.add(Rule::on(op, Fault::io_error()).path(path));
        let error = Journal::create_on(Arc::new(faults), small()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains(doing), "{error}");
    }
}

#[test]
fn a_second_name_of_a_segment_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("j");
    let journal = Journal::create(&dir, small()).unwrap();
    journal.create_log(A, 0).unwrap().append(b"x").unwrap();
    journal.close().unwrap();
    let segment = dir.join("journal/0000000000000001.seg");
    let second = dir.join("journal/0000000000000099.seg");
    fs::hard_link(&segment, &second).unwrap();
    let journal = Journal::open(&dir, small()).unwrap();
    let warnings = &journal.report().warnings;
    assert!(
        warnings.iter().any(|text| text.contains("second one")),
        "{warnings:?}"
    );
    assert_eq!(journal.log(A).unwrap().get(0).unwrap(), "x");
    assert!(second.exists());
}

fn segments(disk: &SimFs) -> Vec<String> {
    let named = disk.files().into_keys().filter(|path| path.ends_with(".seg"));
    named
        .filter(|path| disk.read_raw(path).unwrap().iter().any(|byte| *byte != 0))
        .collect()
}

/// A journal of several segments, closed.
fn several_segments() -> SimFs {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    for _ in 0..60 {
        log.append([3; 400]).unwrap();
    }
    while journal.work().unwrap() {}
    journal.close().unwrap();
    assert!(segments(&disk).len() > 3);
    disk
}

#[test]
fn an_index_that_verifies_and_is_wrong_is_not_used() {
    let disk = several_segments();
    let index = disk
        .files()
        .into_keys()
        .find(|path| path.ends_with(".idx"))
        .unwrap();
    let mut bytes = disk.read_raw(&index).unwrap();
    // The digest of the first run; then the checksum, which covers header and summary, agrees again.
    let run = 64 + usize::from(bytes[64] == 2) * 72;
    assert_eq!(bytes[run], 1, "a run");
    bytes[run + 32] ^= 1;
    let len = u32::from_le_bytes(bytes[52..56].try_into().unwrap());
    let crc = crc32fast::hash(&bytes[12..64 + usize::try_from(len).unwrap()]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    disk.write_raw(&index, 0, &bytes).unwrap();
    let journal = Journal::open_on(on(&disk), small().verify_on_open(true)).unwrap();
    let warnings = &journal.report().warnings;
    assert!(
        warnings
            .iter()
            .any(|text| text.contains("differs from its segment")),
        "{warnings:?}"
    );
    assert_eq!(journal.log(A).unwrap().read(0..60).flatten().count(), 60);
}

#[test]
fn without_index_and_headers_a_read_is_damage() {
    let disk = several_segments();
    let journal = Journal::open_on(on(&disk), small()).unwrap();
    let log = journal.log(A).unwrap();
    let first = segments(&disk).remove(0);
    for index in disk.files().into_keys().filter(|path| path.ends_with(".idx")) {
        disk.write_raw(&index, 0, &[0; 4000]).unwrap();
    }
    disk.write_raw(&first, 8192, &[0x77; 2000]).unwrap();
    let error = log.get(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(log.get(59).unwrap().len(), 400);
}

#[test]
fn a_view_goes_on_without_the_openings_of_a_segment() {
    let disk = several_segments();
    let names = segments(&disk);
    for at in [0, 4096] {
        disk.write_raw(&names[1], at, &[0x77; 256]).unwrap();
    }
    let error = Journal::open_on(on(&disk), small()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    let view = View::open_on(on(&disk), small()).unwrap();
    assert!(view.findings().iter().any(everlog::inspect::Finding::is_damage));
    let log = view.log(A).unwrap();
    assert_eq!(log.get(59).unwrap().len(), 400);
    let last = &names[names.len() - 1];
    for at in [0, 4096] {
        disk.write_raw(last, at, &[0x77; 256]).unwrap();
    }
    let text = told(&disk);
    assert!(
        text.contains(&format!("{last} at 0: damaged: no copy of the opening verifies")),
        "{text}"
    );
}

#[test]
fn a_file_that_was_cut_while_it_is_open_is_damage() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("j");
    let journal = Journal::create(&dir, small()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    log.append([5; 3000]).unwrap();
    let segment = dir.join("journal/0000000000000001.seg");
    let bytes = fs::read(&segment).unwrap();
    let payload = bytes
        .windows(3000)
        .position(|window| window == [5; 3000])
        .unwrap();
    let file = fs::File::options().write(true).open(&segment).unwrap();
    for len in [payload + 1000, 8192] {
        file.set_len(len as u64).unwrap();
        let error = log.get(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
    file.set_len(bytes.len() as u64).unwrap();
    fs::write(&segment, &bytes).unwrap();
    journal.close().unwrap();
}

/// A ticket is told by a callback, also where it panics, and the next one is told all the same.
#[test]
fn a_callback_that_panics_keeps_nobody_from_being_told() {
    let disk = disk();
    let (journal, log) = one_log(&disk);
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let submit = || -> Ticket<Written> { journal.submit(batch(&[1])).unwrap() };
    submit().on_done(|_| panic!("{}", "a panic that a test is about".to_owned()));
    submit().on_done(move |_| tell.store(true, Ordering::Relaxed));
    while journal.work().unwrap() {}
    assert!(told.load(Ordering::Relaxed));
    assert_eq!(log.bounds().unwrap(), 0..2);
}
