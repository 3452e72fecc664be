//! What is let in: each operation is checked against the log as those before it in its batch leave it.

use super::*;

const KEY: LogKey = LogKey(1);
const NONE: LogKey = LogKey(9);

/// One log with three entries, of terms 1, 2 and 5.
fn logs() -> Logs {
    let mut log = LogState::new(1, 0);
    for (serial, term) in (0..).zip([1, 2, 5]) {
        log.append(Term(term), Bytes::from_static(b"x"), serial);
    }
    let mut logs = Logs::default();
    logs.insert(KEY, log);
    logs.incarnation_next = 2;
    logs
}

fn id(term: u128, index: u64) -> EntryId {
    EntryId::new(term, index)
}

fn batch(of: &[What]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for what in of {
        batch.push(KEY, *what, b"");
    }
    batch
}

fn accepts(of: &[What]) -> bool {
    match check(&logs(), &batch(of)) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{of:?}: {error}");
            false
        }
    }
}

#[test]
fn a_truncate_goes_back_to_the_beginning_and_no_further() {
    for (from, good) in [(0, false), (1, true), (2, true), (3, true), (4, true)] {
        assert_eq!(
            accepts(&[What::PurgeTo(1), What::TruncateFrom(from)]),
            good,
            "{from}"
        );
    }
}

#[test]
fn a_purge_through_an_id_finds_it_or_may_come_to_it() {
    for (last, good) in [
        (id(1, 0), true),
        (id(2, 0), false),
        (id(2, 1), true),
        (id(1, 1), false),
        (id(5, 2), true),
        (id(4, 7), false),
        (id(5, 7), true),
        (id(6, 7), true),
    ] {
        assert_eq!(accepts(&[What::PurgeThrough(last)]), good, "{last}");
    }
    // Nothing is left to do, whatever the term.
    assert!(accepts(&[What::PurgeTo(2), What::PurgeThrough(id(4, 1))]));
}

#[test]
fn an_append_follows_what_the_batch_left() {
    let next = |of: &[What], last| {
        let mut all = of.to_vec();
        all.push(What::AppendAt(last));
        accepts(&all)
    };
    for (of, index, lowest) in [
        (&[][..], 3, 5),
        (&[What::TruncateFrom(9)][..], 3, 5),
        (&[What::TruncateFrom(2)][..], 2, 2),
        (&[What::PurgeTo(3)][..], 3, 5),
        (&[What::PurgeTo(7)][..], 7, 5),
        (&[What::PurgeTo(1), What::TruncateFrom(1)][..], 1, 1),
        (&[What::PurgeTo(2), What::TruncateFrom(2)][..], 2, 2),
        (&[What::PurgeThrough(id(8, 6))][..], 7, 8),
        (&[What::Reset(id(3, 9))][..], 10, 3),
        (&[What::AppendAt(id(6, 3)), What::Append][..], 5, 6),
    ] {
        assert!(next(of, id(lowest, index)), "{of:?}");
        assert!(next(of, id(lowest + 1, index)), "{of:?}");
        assert!(!next(of, id(lowest - 1, index)), "{of:?}");
        assert!(!next(of, id(lowest, index + 1)), "{of:?}");
        assert!(!next(of, id(lowest, index - 1)), "{of:?}");
    }
}

#[test]
fn entries_of_the_batch_itself_can_be_purged_by_their_ids() {
    let added = [
        What::AppendAt(id(7, 3)),
        What::AppendAt(id(7, 4)),
        What::AppendAt(id(9, 5)),
    ];
    let again = [What::TruncateFrom(5), What::AppendAt(id(8, 5))];
    let through = |of: &[What], last| accepts(&[of, &[What::PurgeThrough(last)]].concat());
    for (last, good) in [
        (id(5, 3), false),
        (id(7, 3), true),
        (id(7, 4), true),
        (id(9, 4), false),
    ] {
        assert_eq!(through(&added, last), good, "{last}");
    }
    let all = [&added[..], &again].concat();
    assert!(through(&added, id(9, 5)) && !through(&added, id(8, 5)));
    assert!(through(&all, id(8, 5)) && !through(&all, id(9, 5)));
    assert!(through(&all, id(7, 4)) && through(&all, id(2, 1)));
}

#[test]
fn the_cells_of_a_log_hold_so_much_and_no_more() {
    let fits = |len: usize| {
        let mut batch = WriteBatch::new();
        batch.set(KEY, 0, vec![0_u8; CELL_BYTES_MAX - 10]);
        batch.set(KEY, 1, vec![0_u8; len]);
        check(&logs(), &batch).is_ok()
    };
    assert!(fits(9) && fits(10) && !fits(11));
}

/// Somebody saw that its facts are to be said again, and then it was deleted.
#[test]
fn nothing_is_restated_of_a_log_that_is_gone() {
    let mut batch = WriteBatch::new();
    batch.push(NONE, What::RestateFacts, b"");
    batch.push(NONE, What::RestateCell(0), b"");
    let mut logs = logs();
    check(&logs, &batch).unwrap();
    assert!(apply(&mut logs, batch, &mut 0).0.is_empty());
    let mut batch = WriteBatch::new();
    batch.set(NONE, 0, b"");
    assert_eq!(check(&logs, &batch).unwrap_err().kind(), ErrorKind::NotFound);
}

/// A purge names the term of the last entry that it takes; what comes before it in its log may depend on it for ever.
#[test]
fn a_purge_has_the_term_of_the_last_entry_it_takes() {
    for (to, term) in [(1, 1), (2, 2), (3, 5), (8, 5)] {
        let mut logs = logs();
        let (ops, ids) = apply(&mut logs, batch(&[What::PurgeTo(to)]), &mut 0);
        assert!(ids.is_empty());
        assert_eq!(
            (ops[0].kind, ops[0].index, ops[0].term),
            (Kind::Purge, to, Term(term))
        );
        assert_eq!(logs.get(KEY).unwrap().purged, Some(id(term, to - 1)));
        // Once more it takes nothing, and says nothing.
        assert!(apply(&mut logs, batch(&[What::PurgeTo(to)]), &mut 0).0.is_empty());
    }
}

#[test]
fn what_names_an_id_goes_by_that_id() {
    let mut logs = logs();
    let given = [
        What::AppendAt(id(7, 3)),
        What::PurgeThrough(id(2, 1)),
        What::Reset(id(9, 9)),
        What::Delete,
    ];
    let (ops, ids) = apply(&mut logs, batch(&given[..3]), &mut 0);
    let said: Vec<_> = ops.iter().map(|op| (op.kind, op.index, op.term.0)).collect();
    assert_eq!(
        said,
        [(Kind::Append, 3, 7), (Kind::Purge, 2, 2), (Kind::Reset, 10, 9)]
    );
    assert_eq!(ids, [id(7, 3)]);
    let log = logs.get(KEY).unwrap();
    assert_eq!((log.start, log.end, log.purged), (10, 10, Some(id(9, 9))));
    apply(&mut logs, batch(&given[3..]), &mut 0);
    assert!(logs.get(KEY).is_none());
}

#[test]
fn each_operation_has_a_serial_of_its_own_and_each_log_an_incarnation() {
    let (mut logs, mut serial) = (logs(), 4);
    let many = batch(&[What::Append, What::Set(0), What::TruncateFrom(9), What::Append]);
    let (ops, ids) = apply(&mut logs, many, &mut serial);
    let serials: Vec<_> = ops.iter().map(|op| op.serial).collect();
    assert_eq!((serials, serial), (vec![5, 6, 8], 8));
    assert_eq!(ids, [id(5, 3), id(5, 4)]);
    let again = batch(&[What::Delete, What::Create(3), What::Delete, What::Create(4)]);
    let (ops, _) = apply(&mut logs, again, &mut serial);
    let incarnations: Vec<_> = ops.iter().map(|op| op.incarnation).collect();
    assert_eq!(incarnations, [1, 2, 2, 3]);
    assert_eq!((logs.incarnation_next, logs.get(KEY).unwrap().start), (4, 4));
}
