//! One log alone, in memory: what is kept of it, where it is, and what a replay makes of items in an order that only damage or a floor
//! brings about.

use super::*;
use crate::format::Facts;
use crate::fs::{Access, Fs};
use crate::segment::BlockRef;
use crate::segment::made::{self, Made};

const KEY: LogKey = LogKey(1);

fn segment(id: u64) -> Arc<Segment> {
    let disk = made::disk();
    let made = Made::new(id, 1, None);
    made.save(&disk);
    let name = Segment::name(id);
    let file = disk.open(&name, Access::Read).unwrap();
    Arc::new(Segment::new(id, file, disk.display(&name), made.opening))
}

/// A log that begins at `first`, with an entry in memory for each of these terms; their serials are their indexes.
fn pending(first: u64, terms: &[u128]) -> LogState {
    let mut log = LogState::new(1, first);
    for (index, term) in (first..).zip(terms) {
        log.append(Term(*term), Bytes::from(index.to_string()), index);
    }
    log
}

/// Where the frame header of an entry stands in these tests.
fn header_at(index: u64) -> u64 {
    8192 + 48 * index
}

fn settle(log: &mut LogState, segment: &Arc<Segment>, indexes: Range<u64>) {
    for index in indexes {
        log.settle(index, index, segment, header_at(index));
    }
}

fn shape(log: &LogState) -> Vec<(u64, Range<u64>, Option<BlockRef>)> {
    let one = |piece: &Piece| {
        let block = match piece.slots {
            Slots::Block(block) => Some(block),
            Slots::Memory { .. } => None,
        };
        (piece.segment.id, piece.range.clone(), block)
    };
    log.pieces.iter().map(one).collect()
}

fn lost(log: &LogState) -> Vec<(u64, u64)> {
    log.lost.iter().map(|range| (range.start, range.end)).collect()
}

fn in_memory(log: &LogState, index: u64) -> Option<Bytes> {
    match log.place(index) {
        Some(Place::Memory(payload)) => Some(payload),
        _ => None,
    }
}

fn frame(kind: Kind, incarnation: u64, index: u64) -> Frame {
    Frame {
        kind,
        cell: 0,
        log: KEY,
        incarnation,
        index,
        term: Term(7),
        len: 0,
        payload_crc: 0,
        payload_at: 48,
    }
}

fn replay_frame(logs: &mut Logs, segment: &Arc<Segment>, frame: &Frame) {
    let item = Replayed::Frame {
        frame,
        header_at: 8192,
        payload: None,
    };
    logs.replay(item, segment).unwrap();
}

fn replay_run(logs: &mut Logs, segment: &Arc<Segment>, incarnation: u64, range: Range<u64>, term: u128) {
    let mut slots = Slots::one(range.start, header_at(range.start));
    for index in range.start + 1..range.end {
        assert!(slots.try_join(&Slots::one(index, header_at(index))));
    }
    let terms = [TermRun {
        first: range.start,
        term: Term(term),
    }];
    let run = Replayed::Run {
        log: KEY,
        incarnation,
        range,
        terms: &terms,
        slots,
    };
    logs.replay(run, segment).unwrap();
}

fn block(base: u64, count: u32) -> BlockRef {
    BlockRef {
        base,
        at: 100,
        count,
        crc: 0,
    }
}

#[test]
fn blocks_take_the_place_of_what_they_cover_wholly() {
    let (first, second) = (segment(1), segment(2));
    let covered = [(0..7, block(0, 7)), (7..12, block(7, 5))];
    let settled = |segment| {
        let mut log = pending(3, &[7; 6]);
        settle(&mut log, segment, 3..9);
        log
    };
    let mut log = settled(&first);
    log.adopt_blocks(1, &covered);
    let adopted = [(1, 3..7, Some(block(0, 7))), (1, 7..9, Some(block(7, 5)))];
    assert_eq!(shape(&log), adopted);
    log.adopt_blocks(1, &[(0..20, block(0, 20))]);
    assert_eq!(shape(&log), adopted, "blocks stay as they are");

    let mut log = settled(&first);
    log.adopt_blocks(1, &covered[..1]);
    assert_eq!(shape(&log), [(1, 3..9, None)], "two entries would be nowhere");
    let mut log = settled(&second);
    log.adopt_blocks(1, &covered);
    assert_eq!(shape(&log), [(2, 3..9, None)], "they stand in another segment");
}

/// Another log may have had the key in the same segment, and entries of the same indexes.
#[test]
fn blocks_of_another_incarnation_are_not_adopted() {
    let segment = segment(1);
    let mut log = pending(0, &[7; 4]);
    settle(&mut log, &segment, 0..4);
    let mut logs = Logs::default();
    logs.insert(KEY, log);
    let covers = |incarnation| Coverage::from([((KEY, incarnation), vec![(0..4, block(0, 4))])]);
    logs.adopt_blocks(1, &covers(2));
    assert_eq!(shape(logs.get(KEY).unwrap()), [(1, 0..4, None)]);
    logs.adopt_blocks(1, &covers(1));
    assert_eq!(shape(logs.get(KEY).unwrap()), [(1, 0..4, Some(block(0, 4)))]);
}

/// Entries are settled in their order, each by its own write.
#[test]
fn only_the_first_pending_entry_is_settled_and_by_its_own_write() {
    let segment = segment(1);
    let mut log = pending(0, &[7; 3]);
    log.settle(1, 1, &segment, header_at(1));
    log.settle(1, 0, &segment, header_at(1));
    log.settle(0, 9, &segment, header_at(0));
    assert_eq!((log.pending.len(), log.durable_end, shape(&log)), (3, 0, vec![]));
    settle(&mut log, &segment, 0..2);
    assert_eq!((log.pending.len(), log.durable_end), (1, 2));
    assert_eq!(shape(&log), [(1, 0..2, None)]);
}

#[test]
fn a_purge_lets_go_of_what_is_in_memory_below_it() {
    let segment = segment(1);
    let mut log = pending(0, &[7; 5]);
    settle(&mut log, &segment, 0..2);
    log.purge(3, Term(7));
    assert_eq!((log.pending.len(), log.durable_end), (2, 3));
    assert!(log.pieces.is_empty());
    assert_eq!(in_memory(&log, 3).unwrap(), "3");
    settle(&mut log, &segment, 2..5);
    assert_eq!(shape(&log), [(1, 3..5, None)]);
}

#[test]
fn a_truncate_lets_go_of_what_is_in_memory_above_it() {
    let segment = segment(1);
    let mut log = pending(0, &[7; 5]);
    settle(&mut log, &segment, 0..2);
    log.truncate(4);
    assert_eq!((log.pending.len(), log.end, log.durable_end), (2, 4, 2));
    assert_eq!(in_memory(&log, 3).unwrap(), "3");
    assert_eq!(log.term_at(3), Some(Term(7)));
    log.truncate(1);
    assert_eq!((log.pending.len(), log.end, log.durable_end), (0, 1, 1));
    assert_eq!(shape(&log), [(1, 0..1, None)]);
}

/// What is above the floor begins with a later entry than the truncate goes back to.
#[test]
fn a_truncate_may_go_back_below_what_a_replay_has_seen() {
    let segment = segment(3);
    let mut logs = Logs::default();
    replay_run(&mut logs, &segment, 1, 10..12, 7);
    replay_frame(&mut logs, &segment, &frame(Kind::Truncate, 1, 5));
    let log = logs.get(KEY).unwrap();
    assert_eq!((log.start, log.end, log.durable_end), (5, 5, 5));
    replay_run(&mut logs, &segment, 1, 5..6, 8);
    let log = logs.get(KEY).unwrap();
    assert_eq!((log.start, log.end), (5, 6));
    assert_eq!(log.term_at(5), Some(Term(8)));
    assert_eq!(shape(log), [(3, 5..6, None)]);
    assert!(log.lost.is_empty());
}

/// The purge that let the floor rise may have left entries below it: they stand as lost until another purge takes them.
#[test]
fn entries_between_a_purge_and_what_follows_it_are_lost_until_a_purge_takes_them() {
    let segment = segment(3);
    let mut logs = Logs::default();
    replay_frame(&mut logs, &segment, &frame(Kind::Purge, 1, 5));
    replay_run(&mut logs, &segment, 1, 8..9, 7);
    let log = logs.get(KEY).unwrap();
    assert_eq!((log.start, log.end, lost(log)), (5, 9, vec![(5, 8)]));
    replay_frame(&mut logs, &segment, &frame(Kind::Purge, 1, 8));
    let log = logs.get(KEY).unwrap();
    assert_eq!((log.start, log.end, log.lost.len()), (8, 9, 0));
}

/// With nothing but a cell in front of it the first entry is the first one that is kept.
#[test]
fn a_log_of_which_nothing_is_known_begins_with_its_first_entry() {
    let segment = segment(3);
    let mut logs = Logs::default();
    replay_frame(&mut logs, &segment, &frame(Kind::Cell, 1, 0));
    replay_run(&mut logs, &segment, 1, 8..9, 7);
    replay_run(&mut logs, &segment, 1, 9..11, 7);
    let log = logs.get(KEY).unwrap();
    assert_eq!((log.start, log.end, log.lost.len()), (8, 11, 0));
}

/// Entries that stood below the floor may be taken by what follows; once something has said where the log begins and ends, none may
/// be missing.
#[test]
fn entries_between_two_others_are_missing_where_the_log_is_known() {
    let segment = segment(3);
    let mut logs = Logs::default();
    replay_run(&mut logs, &segment, 1, 5..6, 7);
    replay_run(&mut logs, &segment, 1, 8..9, 7);
    let log = logs.get(KEY).unwrap();
    assert_eq!((log.start, log.end, lost(log)), (5, 9, vec![(6, 8)]));

    replay_frame(&mut logs, &segment, &frame(Kind::Create, 2, 5));
    replay_run(&mut logs, &segment, 2, 5..6, 7);
    let later = frame(Kind::Append, 2, 8);
    let item = Replayed::Frame {
        frame: &later,
        header_at: 8192,
        payload: None,
    };
    let bad = logs.replay(item, &segment).unwrap_err();
    assert_eq!((bad.log, bad.missing), (KEY, Some(6..8)));
}

#[test]
fn a_reset_leaves_nothing_but_where_the_log_goes_on() {
    let segment = segment(3);
    let mut logs = Logs::default();
    replay_run(&mut logs, &segment, 1, 5..6, 7);
    replay_run(&mut logs, &segment, 1, 8..9, 7);
    let seen = logs.get(KEY).unwrap().cuts.count();
    replay_frame(&mut logs, &segment, &frame(Kind::Reset, 1, 20));
    let log = logs.get(KEY).unwrap();
    assert_eq!((log.start, log.end, log.durable_end), (20, 20, 20));
    assert_eq!(log.purged, Some(EntryId::new(7, 19)));
    assert!(log.pieces.is_empty() && log.terms.is_empty() && log.lost.is_empty());
    assert!(log.cuts.took_below(6, seen) && !log.cuts.took_below(5, seen));
}

/// What damage took stays lost above the purge and below the truncate that come after it.
#[test]
fn lost_entries_are_forgotten_with_the_others_and_no_sooner() {
    let mut log = LogState::new(1, 3);
    log.lose(3..9, Term(7));
    log.truncate(9);
    assert_eq!(lost(&log), [(3, 9)]);
    log.truncate(7);
    assert_eq!(lost(&log), [(3, 7)]);
    log.purge(5, Term(7));
    assert_eq!(lost(&log), [(5, 7)]);
    log.truncate(5);
    assert!(lost(&log).is_empty());
}

#[test]
fn an_incarnation_that_was_seen_is_not_given_again() {
    let segment = segment(1);
    let mut logs = Logs::default();
    replay_frame(&mut logs, &segment, &frame(Kind::Create, 5, 0));
    assert_eq!(logs.incarnation_next, 6);
    replay_run(&mut logs, &segment, 7, 0..1, 7);
    assert_eq!(
        (logs.incarnation_next, logs.get(KEY).unwrap().incarnation),
        (8, 7)
    );
    replay_frame(&mut logs, &segment, &frame(Kind::Delete, 5, 0));
    assert_eq!(logs.get(KEY).unwrap().incarnation, 7, "another one was deleted");
    assert_eq!(logs.len(), 1);
    replay_frame(&mut logs, &segment, &frame(Kind::Delete, 7, 0));
    assert_eq!((logs.len(), logs.incarnation_next), (0, 8));
}

/// A restatement moves the beginning of a log whose entries it follows, in either direction.
#[test]
fn a_restatement_says_where_a_log_begins() {
    let segment = segment(1);
    let restated = |first, next, kept: Range<u64>| {
        let mut log = pending(kept.start, &vec![7; kept.clone().count()]);
        settle(&mut log, &segment, kept);
        let facts = Facts {
            first,
            purged: Some(EntryId::new(6, 2)),
            last: Some(Term(7)),
        };
        log.restate(&facts, next).unwrap();
        assert_eq!(log.purged, Some(EntryId::new(6, 2)));
        (log.start..log.end, lost(&log))
    };
    assert_eq!(restated(5, 9, 3..9), (5..9, vec![]));
    assert_eq!(restated(3, 9, 3..9), (3..9, vec![]));
    assert_eq!(restated(3, 9, 5..9), (3..9, vec![(3, 5)]));
    // Of an empty log it says all.
    assert_eq!(restated(3, 9, 0..0), (3..9, vec![(3, 9)]));
    assert_eq!(restated(9, 9, 0..0), (9..9, vec![]));
}

#[test]
fn a_restatement_of_another_end_is_refused() {
    let segment = segment(1);
    let mut log = pending(0, &[7; 3]);
    settle(&mut log, &segment, 0..3);
    log.purge(1, Term(6));
    let facts = log.facts();
    let said = (facts.first, facts.purged, facts.last);
    assert_eq!(said, (1, Some(EntryId::new(6, 0)), Some(Term(7))));
    log.restate(&facts, 3).unwrap();
    for next in [2, 4] {
        let error = log.restate(&facts, next).unwrap_err();
        assert!(error.contains(&format!("stated to end at {next}")), "{error}");
    }
}

#[test]
fn terms_are_those_of_the_entries_that_are_kept_and_of_the_last_one_that_is_not() {
    let mut log = pending(0, &[1, 1, 1, 2, 2, 2, 3]);
    let runs = |log: &LogState, range| {
        let runs = log.terms(range).into_iter();
        runs.map(|run| (run.first, run.term.0)).collect::<Vec<_>>()
    };
    assert_eq!(runs(&log, 1..6), [(1, 1), (3, 2)]);
    assert_eq!(runs(&log, 3..7), [(3, 2), (6, 3)]);
    assert!(runs(&log, 4..4).is_empty());
    log.purge(1, Term(1));
    assert_eq!(runs(&log, 1..4), [(1, 1), (3, 2)]);
    log.purge(5, Term(2));
    assert_eq!(runs(&log, 5..7), [(5, 2), (6, 3)]);
    let terms: Vec<_> = (3..8)
        .map(|index| log.term_at(index).map(|term| term.0))
        .collect();
    assert_eq!(terms, [None, Some(2), Some(2), Some(3), None]);
    assert_eq!(log.last(), Some(EntryId::new(3, 6)));
    log.truncate(5);
    assert_eq!(log.last(), Some(EntryId::new(2, 4)));
    log.append(Term(3), Bytes::new(), 9);
    assert_eq!(log.term_at(5), Some(Term(3)));
    log.purge(9, Term(3));
    assert!(log.pending.is_empty() && log.terms.is_empty());
    assert_eq!((log.start, log.end), (9, 9));
}
