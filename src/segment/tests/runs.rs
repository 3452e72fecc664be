//! Entries that are read in a row.

use std::ops::Range;

use super::edges::saved;
use super::*;
use crate::segment::ahead::ReadAhead;
use crate::segment::run::{EntryRun, Limit};
use crate::types::EntryId;

const ALL: Limit = Limit {
    entries: usize::MAX,
    taken: u64::MAX,
    left: u64::MAX,
};

/// A segment with one entry of log 1 in each batch, of these lengths, and where their headers stand.
fn entries(lens: &[usize]) -> (Made, Vec<u32>) {
    let mut made = Made::new(1, 10, None);
    for (index, len) in (0..).zip(lens) {
        made.batch(0, &[entry(1, index, &payload(index, *len))]);
    }
    let eighth = |header: &BatchHeader| u32::try_from(header_at(header.offset, 0) / 8).unwrap();
    let eighths = made.headers.iter().map(eighth).collect();
    (made, eighths)
}

fn payload(index: u64, len: usize) -> Vec<u8> {
    vec![u8::try_from(index).unwrap(); len]
}

struct Reader {
    ahead: ReadAhead,
    cache: BlockCache,
    segment: Arc<Segment>,
    slots: SlotRun,
    wanted: Wanted,
    run: EntryRun,
}

impl Reader {
    fn new(segment: &Arc<Segment>, eighths: &[u32]) -> Reader {
        Reader {
            ahead: ReadAhead::of(1024, 1024),
            cache: BlockCache::new(1 << 20),
            segment: Arc::clone(segment),
            slots: SlotRun::At(Vec::from(eighths).into_iter()),
            wanted: wanted(1, 0),
            run: EntryRun::default(),
        }
    }

    fn read(&mut self, limit: Limit) -> Result<()> {
        let run = &mut self.run;
        let mut take = |id, window: &Bytes, part: &Range<usize>| run.push(id, window, part);
        let (ahead, slots) = (&mut self.ahead, &mut self.slots);
        ahead.read_run(
            &self.cache,
            &self.segment,
            slots,
            &mut self.wanted,
            limit,
            &mut take,
        )
    }

    /// What was read so far is `0..count`, just as it was written.
    fn assert_read(&self, lens: &[usize], count: u64) {
        let read: Vec<_> = self
            .run
            .iter()
            .map(|lent| (lent.id, lent.payload().to_vec()))
            .collect();
        let written = (0..count).zip(lens).map(|(index, len)| {
            let term = Term(7);
            (EntryId { term, index }, payload(index, *len))
        });
        assert_eq!(read, written.collect::<Vec<_>>());
        let lens: usize = read.iter().map(|(_, payload)| payload.len()).sum();
        assert_eq!((self.run.len(), self.run.payload_bytes()), (count, lens as u64));
        assert_eq!(self.wanted.index, count);
    }
}

#[test]
fn a_run_gives_the_entries_as_they_were_written_through_windows_of_any_length() {
    let lens = [10, 900, 0, 3000, 5, 5000, 1, 700, 700, 700];
    let (made, eighths) = entries(&lens);
    let (_, segment) = saved(&made);
    let mut reader = Reader::new(&segment, &eighths);
    reader.read(ALL).unwrap();
    reader.assert_read(&lens, 10);
    assert_eq!(reader.slots.len(), 0);
}

#[test]
fn a_run_ends_at_its_limits_and_goes_on_behind_them() {
    let lens = [600; 20];
    let (made, eighths) = entries(&lens);
    let (_, segment) = saved(&made);
    let mut reader = Reader::new(&segment, &eighths);
    reader.read(Limit { entries: 3, ..ALL }).unwrap();
    reader.assert_read(&lens, 3);
    // At least one, however little memory there is.
    reader.read(Limit { taken: 0, ..ALL }).unwrap();
    reader.assert_read(&lens, 4);
    let taken = reader.ahead.taken() + 1;
    reader.read(Limit { taken, ..ALL }).unwrap();
    assert!(reader.ahead.taken() >= taken && reader.run.len() < 20);
    reader.assert_read(&lens, reader.run.len());
    reader.read(ALL).unwrap();
    reader.assert_read(&lens, 20);
}

#[test]
fn after_damage_a_run_has_what_stands_before_it_and_says_where_it_is() {
    let lens = [600; 9];
    let (made, eighths) = entries(&lens);
    let (disk, segment) = saved(&made);
    // Behind the header and a term.
    let at = u64::from(eighths[5]) * 8 + 48 + 16;
    disk.flip_bit(&Segment::name(1), at + 100, 3).unwrap();
    let mut reader = Reader::new(&segment, &eighths);
    let error = reader.read(ALL).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Damaged, Some(at)));
    reader.assert_read(&lens, 5);
    assert_eq!(reader.slots.len(), 4);
}

/// The term is a part of what a header's checksum is of.
#[test]
fn entries_of_another_term_or_segment_are_not_taken_for_those_of_the_last_run() {
    let (made, eighths) = entries(&[600; 3]);
    let (disk, segment) = saved(&made);
    let mut reader = Reader::new(&segment, &eighths);
    reader.read(Limit { entries: 1, ..ALL }).unwrap();
    reader.wanted.term = Term(8);
    assert_eq!(
        reader.read(Limit { entries: 1, ..ALL }).unwrap_err().kind(),
        ErrorKind::Damaged
    );
    reader.wanted.term = Term(7);
    let mut opening = made.opening.clone();
    opening.salt += 1;
    let copy = disk.open(&Segment::name(1), Access::Read).unwrap();
    let other = Arc::new(Segment::new(2, copy, "another salt".into(), opening));
    let first = std::mem::replace(&mut reader.segment, other);
    assert_eq!(
        reader.read(Limit { entries: 1, ..ALL }).unwrap_err().kind(),
        ErrorKind::Damaged
    );
    reader.segment = first;
    reader.read(ALL).unwrap();
    reader.assert_read(&[600; 3], 3);
}

#[test]
fn a_run_through_a_block_that_is_too_short_is_damage() {
    let (made, _) = entries(&[600; 3]);
    let (_, segment) = saved(&made);
    let end = made.end();
    let built = index::build(&segment, end, Depth::Payloads, &mut |_| {}).unwrap();
    let Ok(built) = built else {
        panic!("the segment is sound")
    };
    let (_, block) = index::coverage(&built.bytes).unwrap()[&(LogKey(1), 1)][0].clone();
    segment.seal(end, IndexBytes::Memory(built.bytes));
    let mut reader = Reader::new(&segment, &[]);
    reader.slots = SlotRun::InBlock(block, 1..3);
    reader.wanted.index = 1;
    reader.read(ALL).unwrap();
    let read: Vec<u64> = reader.run.iter().map(|lent| lent.id.index).collect();
    assert_eq!(read, [1, 2]);
    for numbers in [3..4, 4..5] {
        reader.slots = SlotRun::InBlock(block, numbers);
        assert_eq!(reader.read(ALL).unwrap_err().kind(), ErrorKind::Damaged);
    }
}

/// What is read behind the last of them is read for nothing.
#[test]
#[cfg_attr(miri, ignore = "the file is too short there")]
fn windows_end_about_where_the_entries_do_that_are_asked_for() {
    let lens = [600; 70];
    let (made, eighths) = entries(&lens);
    let (_, segment) = saved(&made);
    let loaded = |left| {
        let mut reader = Reader::new(&segment, &eighths);
        reader.ahead = ReadAhead::of(8192, 8192);
        let entries = 40;
        reader
            .read(Limit {
                entries,
                left,
                taken: u64::MAX,
            })
            .unwrap();
        reader.ahead.loaded()
    };
    // 40 x 760 bytes with headers: 30 KiB. Behind windows of 8 and of 16 comes one of 16, and not one of 32.
    assert!(loaded(40) < loaded(1000), "{} and {}", loaded(40), loaded(1000));
}

#[test]
fn entries_that_do_not_follow_each_other_keep_their_ids() {
    let mut run = EntryRun::default();
    let window = Bytes::from_static(b"abcdef");
    let other = Bytes::from_static(b"xyz");
    let id = |term, index| EntryId {
        term: Term(term),
        index,
    };
    let pushed = [
        (id(1, 5), &window, 0..2),
        (id(1, 6), &window, 2..2),
        (id(2, 7), &other, 0..3),
        (id(2, 9), &other, 1..2),
        (id(2, 10), &window, 5..6),
        // What would follow if it were counted in another way.
        (id(2, 17), &window, 0..1),
        (id(2, 18), &window, 0..1),
        (id(2, 34), &window, 0..1),
    ];
    for (id, window, part) in &pushed {
        run.push(*id, window, part);
    }
    let read: Vec<_> = run.iter().map(|lent| lent.to_entry()).collect();
    let expected = pushed.map(|(id, window, part)| crate::types::Entry {
        id,
        payload: window.slice(part),
    });
    assert_eq!(read, expected);
}

#[test]
fn behind_an_entry_of_the_largest_index_no_other_is_looked_for() {
    let mut run = EntryRun::default();
    let id = EntryId::new(1, u64::MAX - 1);
    run.push(id, &Bytes::from_static(b"abc"), &(0..3));
    let read: Vec<EntryId> = run.iter().map(|lent| lent.id).collect();
    assert_eq!(read, [id]);
}

#[test]
fn slots_in_a_row_are_those_one_by_one() {
    let mut at: VecDeque<u32> = (10..20).collect();
    at.rotate_left(3);
    let memory = Slots::Memory { base: 5, at };
    let block = BlockRef {
        base: 5,
        at: 64,
        count: 10,
        crc: 1,
    };
    for slots in [memory, Slots::Block(block)] {
        for range in [5..15, 7..9, 14..15, 0..3, 3..7, 12..40, 15..20, 9..9] {
            let mut run = slots.run(range.clone());
            // Nothing is passed over: a range that begins elsewhere has none.
            let one_by_one: Vec<Slot> = range.map_while(|index| slots.slot(index)).collect();
            assert_eq!(run.len(), one_by_one.len());
            for slot in one_by_one {
                let first = match &run {
                    SlotRun::At(eighths) => Slot::At(u64::from(eighths.as_slice()[0]) * 8),
                    SlotRun::InBlock(block, numbers) => Slot::InBlock(*block, numbers.start),
                };
                assert_eq!(first, slot);
                run.advance(1);
            }
            assert_eq!(run.len(), 0);
            run.advance(1);
        }
    }
}

/// Memory is used again for the next window; not while somebody holds a run of entries that are parts of it.
#[test]
fn runs_that_are_held_stay_as_they_were_while_others_are_read() {
    let lens: Vec<usize> = (0..if cfg!(miri) { 20 } else { 40 })
        .map(|n| n * 397 % 1700)
        .collect();
    let (made, eighths) = entries(&lens);
    let (_, segment) = saved(&made);
    let mut reader = Reader::new(&segment, &eighths);
    let mut held = VecDeque::new();
    while reader.slots.len() > 0 {
        reader.read(Limit { entries: 3, ..ALL }).unwrap();
        held.push_back(std::mem::take(&mut reader.run));
        for lent in held.iter().flat_map(EntryRun::iter) {
            let len = lens[usize::try_from(lent.id.index).unwrap()];
            assert_eq!(lent.payload(), payload(lent.id.index, len), "entry {}", lent.id);
        }
        if held.len() > 4 {
            held.pop_front();
        }
    }
    assert_eq!(reader.wanted.index, lens.len() as u64);
}
