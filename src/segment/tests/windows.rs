//! Payloads that come through windows of the file.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

use super::edges::{LEN, saved};
use super::*;
use crate::format::FrameDecoder;
use crate::segment::ahead::ReadAhead;
use crate::segment::scan::WINDOW_WHOLE;

/// An entry whose payload keeps its window.
fn lent(ahead: &mut ReadAhead, segment: &Segment, header_at: u64, index: u64) -> Bytes {
    let wanted = wanted(1, index);
    let decoder = FrameDecoder::new(segment.opening.salt, wanted.term);
    let whole = |window: &Bytes, part: &Range<usize>| window.slice(part.clone());
    ahead
        .read_with(&decoder, segment, header_at, &wanted, whole)
        .unwrap()
}

/// A window may be older than an entry that stands where it saw none.
#[test]
fn an_entry_that_was_written_behind_a_window_is_read() {
    let made = three_batches();
    let third = made.headers[2].offset;
    let mut bytes = made.bytes();
    let later = bytes.split_off(usize::try_from(third).unwrap());
    bytes.resize(usize::try_from(LEN).unwrap(), 0);
    let disk = made::disk();
    made::save(&disk, &Segment::name(1), &bytes);
    let segment = open(&disk, &made);
    let mut ahead = ReadAhead::new();
    let first = header_at(BATCHES_AT, 1);
    assert_eq!(
        ahead.read_payload(&segment, first, &wanted(1, 0)).unwrap(),
        "zero"
    );
    disk.write_raw(&Segment::name(1), third, &later).unwrap();
    let read = ahead.read_payload(&segment, header_at(third, 0), &wanted(1, 3));
    assert_eq!(read.unwrap(), vec![3; 9000]);
}

/// Memory is used again for the next window; not while somebody holds a payload that is a part of it.
#[test]
fn what_a_window_lent_stays_as_it_was() {
    let mut made = Made::new(1, 10, None);
    for index in 0..if cfg!(miri) { 20 } else { 40 } {
        made.batch(0, &[entry(1, index, &[u8::try_from(index).unwrap(); 900])]);
    }
    let (_, segment) = saved(&made);
    for lends in [false, true] {
        let mut ahead = ReadAhead::of(1024, 1024);
        let mut held = VecDeque::new();
        for (index, header) in (0..).zip(&made.headers) {
            let at = header_at(header.offset, 0);
            let read = match lends {
                true => lent(&mut ahead, &segment, at, index),
                false => ahead.read_payload(&segment, at, &wanted(1, index)).unwrap(),
            };
            held.push_back((index, read));
            for (index, payload) in &held {
                assert!(
                    payload.iter().all(|byte| u64::from(*byte) == *index),
                    "entry {index}"
                );
            }
            if held.len() > 5 {
                held.pop_front();
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "megabytes, byte by byte")]
fn a_scan_ends_behind_the_last_byte_that_is_not_zero_however_many_windows_are() {
    let mut bytes = vec![0; 5 * WINDOW_WHOLE / 2];
    bytes[100] = 7;
    let disk = made::disk();
    made::save(&disk, &Segment::name(1), &bytes);
    let file = disk.open(&Segment::name(1), Access::Read).unwrap();
    let len = bytes.len() as u64;
    let mut window = Window::new(&*file, Path::new("it"), len, 4096, false);
    let seen = scan(&mut window, Identity::unknown(1), 0..len, None).unwrap();
    assert_eq!((seen.headers, seen.end), (0, 101));
}

/// Whoever reads on while it holds the last few payloads needs a few windows, and none as large as the largest entry for ever.
#[test]
fn windows_that_nobody_holds_are_used_again_and_large_ones_are_not_kept() {
    let mut made = Made::new(1, 10, None);
    for index in 0..if cfg!(miri) { 15 } else { 25 } {
        let len = if index % 10 == 5 { 9000 } else { 900 };
        made.batch(0, &[entry(1, index, &vec![1; len])]);
    }
    let (_, segment) = saved(&made);
    let mut ahead = ReadAhead::of(1024, 1024);
    let mut held = VecDeque::new();
    for (index, header) in (0..).zip(&made.headers) {
        held.push_back(lent(&mut ahead, &segment, header_at(header.offset, 0), index));
        if held.len() > 2 {
            held.pop_front();
        }
        let (lent, bytes) = ahead.kept();
        assert!(
            lent <= 6 && bytes <= 9 * 1024 + 9000,
            "{lent} windows, {bytes} bytes at {index}"
        );
    }
}

/// Whoever reads on needs few reads; whoever reads here and there gets little that it did not ask for.
#[test]
fn a_window_that_goes_on_where_another_ends_is_larger() {
    let mut made = Made::new(1, 10, None);
    for index in 0..24 {
        made.batch(0, &[entry(1, index, &[1; 800])]);
    }
    let (disk, segment) = saved(&made);
    let copy = disk.open(&Segment::name(1), Access::Read).unwrap();
    let other = Segment::new(2, copy, "the same bytes".into(), segment.opening.clone());
    let read = |ahead: &mut ReadAhead, segment: &Segment, index: usize| {
        let at = header_at(made.headers[index].offset, 0);
        let read = ahead.read_payload(segment, at, &wanted(1, index as u64));
        assert_eq!(read.unwrap(), vec![1; 800]);
        ahead.window()
    };
    let mut ahead = ReadAhead::of(1024, 1024);
    assert_eq!(read(&mut ahead, &segment, 0), 1024);
    let grown: Vec<_> = (1..20).map(|index| read(&mut ahead, &segment, index)).collect();
    assert!(grown.contains(&2048), "{grown:?}");
    assert_eq!(grown.iter().max(), Some(&4096), "{grown:?}");
    let mut ahead = ReadAhead::of(1024, 1024);
    for index in [0, 5, 10, 15] {
        assert_eq!(read(&mut ahead, &segment, index), 1024, "here and there");
    }
    // What ends there is a window of another file.
    let mut ahead = ReadAhead::of(1024, 1024);
    for index in 0..4 {
        let of = if index % 2 == 0 { &segment } else { &other };
        assert_eq!(read(&mut ahead, of, index), 1024, "in turns");
    }
}
