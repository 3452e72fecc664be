//! The committer alone, at moments that the test chooses: what is due, and what is told.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Wake, Waker};

use super::*;
use crate::fs::{Fault, FaultFs, Op, Profile, Rule, SimFs};
use crate::types::LogKey;
use crate::{Config, Journal, Ticket, WriteBatch, Written};

/// Nothing is ever due again, or the committer would try once more, say so, and find the same due, without end.
#[test]
fn a_journal_that_failed_twice_has_nothing_to_tend() {
    let faults = FaultFs::new(Arc::new(SimFs::new(1, Profile::PosixWeak)));
    let config = Config::new()
        .segment_bytes(16 << 10)
        .background(Background::Caller);
    let journal = Journal::create_on(Arc::new(faults.clone()), config).unwrap();
    let log = journal.create_log(LogKey(1), 0).unwrap();
    log.append_relaxed(b"is never synced").unwrap();
    faults.add(Rule::on(Op::SyncData, Fault::io_error()).forever());
    assert_eq!(journal.sync().unwrap_err().kind(), ErrorKind::Unknown);
    let mut now = Instant::now();
    for _ in 0..4 {
        now += Duration::from_secs(60);
        let _looked = journal.shared.tend(now);
    }
    assert_eq!(journal.shared.tend(now), None);
    while journal.work().unwrap() {}
}
/// A journal with the empty log 1, and nothing to do.
fn idle(config: Config) -> Journal {
    let disk = Arc::new(SimFs::new(1, Profile::PosixWeak));
    let journal = Journal::create_on(disk, config.background(Background::Caller)).unwrap();
    journal.create_log(LogKey(1), 0).unwrap();
    while journal.work().unwrap() {}
    journal
}

const MILLI: Duration = Duration::from_millis(1);

/// Each thing is done when it is due and not a moment before, and whoever asks is told when the next one will be.
#[test]
fn marks_come_after_their_delays() {
    let config = Config::new().mark_delays(20 * MILLI, 1000 * MILLI);
    let journal = idle(config);
    let log = journal.log(LogKey(1)).unwrap();
    let shared = &journal.shared;
    let marks = || (journal.metrics().marks, journal.metrics().syncs);
    log.append(b"x").unwrap();
    let last = shared.backstage.activity.lock().last;
    let (mark, sync) = (last + 20 * MILLI, last + 1000 * MILLI);
    let before = marks();
    assert_eq!(shared.tend(last), Some(mark));
    assert_eq!(shared.tend(mark - MILLI), Some(mark));
    assert_eq!(marks(), before);
    assert_eq!(shared.tend(mark), Some(mark), "done, and there may be more");
    assert_eq!(marks(), (before.0 + 1, before.1));
    assert_eq!(shared.tend(mark), Some(sync));
    assert_eq!(shared.tend(sync - MILLI), Some(sync));
    assert_eq!(marks(), (before.0 + 1, before.1));
    assert_eq!(shared.tend(sync), Some(sync));
    assert_eq!(marks(), (before.0 + 2, before.1 + 1));
    assert_eq!(shared.tend(sync + 1000 * MILLI), None);
    // A sync of nothing leaves nothing without its witness.
    let before = marks();
    journal.sync().unwrap();
    let later = shared.backstage.activity.lock().last + 2000 * MILLI;
    while shared.tend(later).is_some() {}
    assert_eq!(marks(), before);
}

#[test]
fn relaxed_writes_are_synced_after_their_delay_or_when_somebody_wants_room() {
    let config = Config::new()
        .relaxed_delay(100 * MILLI)
        .mark_delays(Duration::MAX, Duration::MAX);
    let journal = idle(config);
    let log = journal.log(LogKey(1)).unwrap();
    let shared = &journal.shared;
    let syncs = || journal.metrics().relaxed_syncs;
    log.append_relaxed(b"x").unwrap();
    let since = shared.backstage.activity.lock().unsynced_since.unwrap();
    log.append_relaxed(b"y").unwrap();
    let due = since + 100 * MILLI;
    assert_eq!(shared.tend(since), Some(due), "the first of them counts");
    assert_eq!((shared.tend(due - MILLI), syncs()), (Some(due), 0));
    assert_eq!((shared.tend(due), syncs()), (Some(due), 1));
    assert_eq!((shared.tend(due), syncs()), (None, 1));
    // A wish that comes before what it is about is kept for it.
    shared.backstage.sync_wanted.store(true, Ordering::Release);
    assert_eq!((shared.tend(due), syncs()), (None, 1));
    log.append_relaxed(b"z").unwrap();
    let since = shared.backstage.activity.lock().unsynced_since.unwrap();
    assert_eq!((shared.tend(since), syncs()), (Some(since), 2));
    assert_eq!((shared.tend(since), syncs()), (None, 2));
}

#[test]
fn a_sync_that_hangs_is_told_once() {
    let journal = idle(Config::new());
    let shared = &journal.shared;
    let started = Instant::now();
    shared.backstage.activity.lock().syncing = Some((started, false));
    let hung = || journal.metrics().syncs_hung;
    let soon = started + SYNC_HANGS - MILLI;
    assert_eq!((shared.tend(soon), hung()), (Some(soon + SYNC_WATCH), 0));
    for later in [started + SYNC_HANGS, started + SYNC_HANGS * 2] {
        assert_eq!((shared.tend(later), hung()), (Some(later + SYNC_WATCH), 1));
    }
    shared.backstage.activity.lock().syncing = None;
}

/// Submits a relaxed write inside each flush for the next one, until a sync has come.
struct Stream {
    journal: Journal,
    ticket: Mutex<Option<Ticket<Written>>>,
    /// How many, and how many syncs there were before.
    count: Mutex<(u64, Option<u64>)>,
    done: std::sync::mpsc::Sender<u64>,
}

const STREAM_MAX: u64 = 5000;

impl Stream {
    /// Whether it is woken by the flush.
    fn submit(self: &Arc<Stream>) -> bool {
        let mut batch = WriteBatch::new();
        batch.append(LogKey(1), b"x");
        let mut ticket = self.journal.submit_relaxed(batch).unwrap();
        let waker = Waker::from(Arc::clone(self));
        let polled = Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker));
        *self.ticket.lock() = Some(ticket);
        polled.is_pending()
    }
}

impl Wake for Stream {
    fn wake(self: Arc<Self>) {
        let syncs = self.journal.metrics().relaxed_syncs;
        let count = {
            let mut count = self.count.lock();
            count.0 += 1;
            let before = *count.1.get_or_insert(syncs);
            (count.0 == STREAM_MAX || syncs > before).then_some(count.0)
        };
        match count {
            Some(count) => self.done.send(count).unwrap(),
            None => assert!(self.submit(), "its flush comes after this one"),
        }
    }
}

/// Or the first of them would wait for its sync until the stream pauses.
#[test]
fn a_stream_of_relaxed_writes_without_a_pause_is_synced_when_that_is_due() {
    let disk = Arc::new(SimFs::new(1, Profile::PosixWeak));
    let config = Config::new().segment_bytes(4 << 20).relaxed_delay(Duration::ZERO);
    let journal = Journal::create_on(disk, config).unwrap();
    journal.create_log(LogKey(1), 0).unwrap();
    let (done, when_done) = std::sync::mpsc::channel();
    let stream = Arc::new(Stream {
        journal,
        ticket: Mutex::new(None),
        count: Mutex::new((0, None)),
        done,
    });
    while !stream.submit() {}
    let count = when_done.recv().unwrap();
    assert!(count < STREAM_MAX, "{count} writes, and no sync");
}

/// `work` says whether there was anything to do: each thing alone, and all of them together.
#[test]
fn work_tells_whether_there_was_any() {
    let journal = idle(Config::new().segment_bytes(64 << 10));
    let log = journal.log(LogKey(1)).unwrap();
    let no_more = || assert!(!journal.work().unwrap());
    no_more();
    log.append(b"wants a mark").unwrap();
    assert!(journal.work().unwrap());
    no_more();
    log.append_relaxed(b"wants a sync and a mark").unwrap();
    assert!(journal.work().unwrap());
    no_more();
    let ticket = log.submit(b"wants a flush and a mark").unwrap();
    assert!(journal.work().unwrap());
    assert!(ticket.is_done());
    no_more();
    ticket.on_done(|_| ());
    assert!(journal.work().unwrap(), "a callback");
    no_more();
    log.submit(b"all of it").unwrap().on_done(|_| ());
    assert!(journal.work().unwrap());
    no_more();
    journal.shared.reclaim_later();
    assert!(journal.work().unwrap(), "a look at the floor");
    no_more();
}

/// A mark in a block of its own takes none of the room that the closing mark needs, wherever the last batch ends.
#[test]
fn a_synced_mark_leaves_room_for_the_closing_one() {
    let at_block = [
        0, 96, 4000, 4096, 8000, 12_000, 16_000, 16_384, 16_392, 18_000, 19_000, 20_000,
    ];
    for offset in at_block {
        let disk = SimFs::new(1, Profile::PosixWeak);
        let config = Config::new()
            .segment_bytes(32 << 10)
            .background(Background::Caller);
        let journal = Journal::create_on(Arc::new(disk.clone()), config.clone()).unwrap();
        let log = journal.create_log(LogKey(1), 0).unwrap();
        if offset > 288 {
            log.append(vec![1; offset - 288]).unwrap();
        }
        let now = Instant::now() + Duration::from_secs(60);
        while journal.shared.tend(now).is_some() {}
        drop(log);
        journal.close().unwrap();
        let again = Journal::open_on(Arc::new(disk), config).unwrap();
        assert_eq!(again.report().verdict, crate::Verdict::Clean, "{offset} bytes");
    }
}

/// The thread of the callbacks cannot be waited for by a callback, and is told to end all the same.
#[test]
fn no_thread_is_left_of_a_journal_whose_last_handle_a_callback_dropped() {
    let disk = Arc::new(SimFs::new(1, Profile::PosixWeak));
    let journal = Journal::create_on(disk, Config::new().segment_bytes(16 << 10)).unwrap();
    let completions = journal.shared.completions.clone();
    let log = journal.create_log(LogKey(1), 0).unwrap();
    let ticket = log.submit(b"x").unwrap();
    drop(log);
    ticket.on_done(move |_| drop(journal));
    while completions.users() > 1 {
        std::thread::yield_now();
    }
}
