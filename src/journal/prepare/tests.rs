//! The preparer alone: which file it gives out, how many it has, and what it leaves when the disk fails.

use super::*;
use crate::fs::{Access, Fault, FaultFs, Op, Profile, Rule as On, SimFs};

const USUAL: u64 = 32 << 10;
const CARRY: u64 = 64 << 10;

fn disk() -> SimFs {
    let disk = SimFs::new(1, Profile::PosixWeak);
    disk.create_dir(files::JOURNAL).unwrap();
    disk
}

fn pool_on(fs: Arc<dyn Fs>, found: Found) -> Pool {
    let sizes = Sizes {
        segment_bytes: USUAL,
        mark_room: MARK_ROOM,
        ahead: 1,
        carry_len: CARRY,
    };
    Pool::new(fs, sizes, found)
}

fn fresh() -> Found {
    Found {
        next_id: 7,
        next_number: 1,
        ..Found::default()
    }
}

/// A pool that has all that it should have: a named file, a spare, and one for a tail.
fn ready(fs: Arc<dyn Fs>) -> Pool {
    let pool = pool_on(fs, fresh());
    while pool.step().unwrap() {}
    pool
}

/// How many files there are for what must not be refused.
fn reserve(pool: &Pool) -> usize {
    let count = (0..9).take_while(|_| pool.claim(Need::Reserve)).count();
    (0..count).for_each(|_| pool.unclaim(Need::Reserve));
    count
}

fn names(disk: &SimFs) -> Vec<String> {
    disk.list(files::JOURNAL).unwrap()
}

#[test]
fn ids_rise_by_one() {
    let pool = ready(Arc::new(disk()));
    let first = pool.take(Need::Usual).unwrap();
    let carried = pool.take_for_carry(100).unwrap();
    let second = pool.take(Need::Reserve).unwrap();
    assert_eq!([first.0, carried.0, second.0], [7, 8, 9]);
    assert_eq!(first.1.path, Segment::name(7));
}

#[test]
fn a_tail_takes_the_smallest_file_that_will_do() {
    let disk = disk();
    let pool = ready(Arc::new(disk));
    let (_, small) = pool.take_for_carry(100).unwrap();
    assert_eq!(small.len, USUAL);
    assert!(pool.carry_stands());
    let (_, large) = pool.take_for_carry(40_000).unwrap();
    assert_eq!(large.len, CARRY);
    assert!(!pool.carry_stands());
    // Of two of the same length it is the one that is there for it.
    let pool = pool_on(Arc::new(self::disk()), fresh());
    pool.state.lock().carry_len = USUAL;
    while pool.step().unwrap() {}
    let before = reserve(&pool);
    assert_eq!(pool.take_for_carry(100).unwrap().1.len, USUAL);
    assert!(!pool.carry_stands());
    assert_eq!(reserve(&pool), before);
}

#[test]
fn appends_leave_the_reserve_and_a_claim_can_be_taken_back_or_settled() {
    let pool = ready(Arc::new(disk()));
    assert_eq!(reserve(&pool), 2);
    assert!(pool.claim(Need::Usual) && !pool.claim(Need::Usual));
    pool.unclaim(Need::Usual);
    assert!(pool.claim(Need::Usual) && !pool.claim(Need::Usual));
    pool.settle_claims();
    assert!(pool.claim(Need::Usual) && pool.claim(Need::Reserve) && !pool.claim(Need::Reserve));
    pool.settle_claims();
    pool.make_large(100_000).unwrap();
    pool.make_large(90_000).unwrap();
    for _ in 0..2 {
        assert!(pool.claim(Need::Large(100_000)) && !pool.claim(Need::Large(1)));
        pool.unclaim(Need::Large(100_000));
        assert!(pool.claim(Need::Large(90_000)) && !pool.claim(Need::Large(1)));
        pool.settle_claims();
    }
    pool.make_large(110_000).unwrap();
    assert!(pool.claim(Need::Large(100_001)) && pool.claim(Need::Large(1)));
}

#[test]
fn without_the_file_for_a_tail_appends_get_none() {
    let pool = ready(Arc::new(disk()));
    assert!(pool.reserve_stands());
    pool.take_for_carry(40_000).unwrap();
    assert!(!pool.reserve_stands() && !pool.claim(Need::Usual) && pool.claim(Need::Reserve));
}

#[test]
fn behind_a_close_nothing_is_made() {
    let pool = pool_on(Arc::new(disk()), fresh());
    assert!(pool.step().unwrap());
    pool.close();
    assert_eq!(pool.step().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pool.make_large(1).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pool.make_carry(1).unwrap_err().kind(), ErrorKind::Closed);
}

/// A name whose sync failed may come back: the file goes, under both names, and is counted no more.
#[test]
fn a_file_whose_naming_fails_is_given_up() {
    for (op, nth) in [(Op::SyncDir, 1), (Op::Rename, 1), (Op::Rename, 2)] {
        let disk = disk();
        let faults = Arc::new(FaultFs::new(Arc::new(disk.clone())));
        let pool = ready(faults.clone());
        // The one that has the next name is overtaken by the one that carries.
        faults.add(On::on(op, Fault::io_error()).nth(nth));
        let taken = pool.take_for_carry(40_000);
        faults.clear();
        let story = format!("{op:?} {nth}: {:?}", names(&disk));
        match (op, nth) {
            // The overtaken one keeps its name, and is not used.
            (Op::Rename, 1) => assert_eq!(taken.unwrap().0, 8, "{story}"),
            _ => assert_eq!(taken.unwrap_err().kind(), ErrorKind::Io, "{story}"),
        }
        assert_eq!(reserve(&pool), 1, "{story}");
        let left = if (op, nth) == (Op::Rename, 1) { 3 } else { 1 };
        assert_eq!(names(&disk).len(), left, "{story}");
        while pool.step().unwrap() {}
        assert_eq!(reserve(&pool), 2, "{story}");
        assert!(pool.reserve_stands(), "{story}");
    }
}

#[test]
fn a_spare_whose_name_is_not_sure_is_given_up() {
    let disk = disk();
    let faults = Arc::new(FaultFs::new(Arc::new(disk.clone())));
    let pool = pool_on(faults.clone(), fresh());
    faults.add(On::on(Op::SyncDir, Fault::io_error()));
    assert_eq!(pool.step().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!((names(&disk).len(), reserve(&pool)), (0, 0));
}

#[test]
fn a_full_disk_is_remembered_until_a_file_was_made() {
    let disk = disk();
    let pool = pool_on(Arc::new(disk.clone()), fresh());
    disk.set_capacity(USUAL - 1);
    assert_eq!(pool.step().unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(pool.is_full() && pool.has_no_room());
    assert!(names(&disk).is_empty());
    // There is room for a file of either size, which nobody has tried yet.
    disk.set_capacity(CARRY);
    assert!(pool.is_full() && !pool.has_no_room());
    disk.set_capacity(CARRY - 4096);
    assert!(pool.has_no_room());
    assert!(pool.step().unwrap());
    assert!(!pool.is_full() && !pool.has_no_room());
}

#[test]
fn what_an_earlier_life_prepared_is_used_as_far_as_it_can_be() {
    let disk = disk();
    let found = |len: u64, n: u64| {
        let path = format!("{}/{n}.spare", files::JOURNAL);
        let file = disk.create(&path).unwrap();
        write_zeros(&*file, 0..len).unwrap();
        Prepared { path, file, len }
    };
    let lens = [USUAL, 40 << 10, CARRY, USUAL, USUAL, 4096];
    let spares = lens.iter().zip(1..).map(|(len, n)| found(*len, n)).collect();
    let pool = pool_on(Arc::new(disk.clone()), Found { spares, ..fresh() });
    assert!(pool.reserve_stands());
    assert_eq!(reserve(&pool), 2);
    pool.remove_surplus();
    let left: Vec<String> = [1, 3, 4].iter().map(|n| format!("{n}.spare")).collect();
    assert_eq!(names(&disk), left);
    assert!(pool.step().unwrap(), "one gets the next name");
    assert!(!pool.step().unwrap(), "nothing is missing");
}

#[test]
fn a_larger_file_for_a_tail_replaces_the_smaller_one() {
    let disk = disk();
    let pool = ready(Arc::new(disk.clone()));
    let count = names(&disk).len();
    pool.make_carry(1000).unwrap();
    assert_eq!(names(&disk).len(), count, "what is there will do");
    pool.make_carry(100_000).unwrap();
    assert_eq!(names(&disk).len(), count);
    assert!(pool.carry_stands());
    let (_, file) = pool.take_for_carry(100_000).unwrap();
    assert_eq!(file.len, carry_file_len(100_000));
    // From now on it must be as large.
    while pool.step().unwrap() {}
    assert_eq!(
        pool.take_for_carry(40_000).unwrap().1.len,
        carry_file_len(100_000)
    );
}

#[test]
fn lengths_have_room_for_what_goes_in_and_the_marks_behind() {
    assert_eq!(carry_file_len(0), 20_480);
    assert_eq!(carry_file_len(3904), 20_480);
    assert_eq!(carry_file_len(3905), 24_576);
    let pool = pool_on(Arc::new(disk()), fresh());
    assert_eq!(pool.usual_room(), USUAL - 8192 - 4192);
}

#[test]
fn zeros_are_written_in_their_range_and_nowhere_else() {
    let disk = disk();
    let path = "journal/zeros";
    let file = disk.create(path).unwrap();
    file.write_all_at(&[1; 200_000], 0).unwrap();
    write_zeros(&*file, 5..150_000).unwrap();
    let bytes = disk.read_raw(path).unwrap();
    let ones = |range: Range<usize>| bytes[range].iter().all(|byte| *byte == 1);
    assert!(ones(0..5) && ones(150_000..200_000));
    assert!(bytes[5..150_000].iter().all(|byte| *byte == 0));
    assert!(disk.open(path, Access::Read).is_ok());
}
