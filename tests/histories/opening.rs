//! Openings: rot in one copy, in both, with and without a witness; files that belong elsewhere; newer versions.

use everlog::fs::{Fs, SimFs};
use everlog::{ErrorKind, Verdict};

use super::support::{
    A, batches_of, disk, entry, keep_all, last_segment, one_log, open, payloads, rewrite_opening, segments,
    try_open,
};

/// A disk with segments full of acknowledged entries; the last one holds some batches, none of them behind a mark.
fn unclosed(seed: u64) -> (SimFs, u64) {
    let disk = disk(seed);
    let (journal, log) = one_log(&disk);
    let mut count = 0;
    while segments(&disk).len() < 3 || batches_of(&disk, &last_segment(&disk)).len() < 4 {
        log.append(entry(count, 500)).unwrap();
        count += 1;
    }
    let after = keep_all(&disk);
    drop((log, journal));
    (after, count)
}

fn refused(disk: &SimFs, kind: ErrorKind, story: &str) -> everlog::Error {
    let before = disk.dump();
    let error = try_open(disk).expect_err(story);
    assert_eq!(error.kind(), kind, "{story}: {error}");
    let mut after = disk.dump();
    after.retain(|path, _| path != "lock");
    let mut before = before;
    before.retain(|path, _| path != "lock");
    assert!(after == before, "{story}: a refused open changed the disk");
    error
}

/// Table: "one bit of the newest segment's opening rots, 1,000 acknowledged batches behind it - read by the second copy, or
/// damaged; never void". Every bit of either copy.
#[test]
fn a_rotten_bit_in_one_copy_of_the_newest_opening_is_read_by_the_other() {
    let disk = disk(1);
    let config = super::support::small().segment_bytes(256 << 10);
    let journal = everlog::Journal::create_on(super::support::dynamic(&disk), config.clone()).unwrap();
    let log = journal.create_log(A, 0).unwrap();
    for i in 0..1000 {
        log.append(entry(i, 20)).unwrap();
    }
    let path = last_segment(&disk);
    let whole = keep_all(&disk);
    drop((log, journal));
    for at in 0..256 {
        let copy = if at % 2 == 0 { 0 } else { 4096 };
        let rotten = keep_all(&whole);
        rotten.flip_bit(&path, copy + at, (at % 8) as u32).unwrap();
        let again = everlog::Journal::open_on(super::support::dynamic(&rotten), config.clone());
        let again = again.unwrap_or_else(|e| panic!("byte {at}: {e}"));
        assert_eq!(again.log(A).unwrap().bounds().unwrap(), 0..1000, "byte {at}");
        assert!(
            !again.report().warnings.is_empty(),
            "byte {at}: the bad copy is told"
        );
    }
}

/// The same row: both copies rotten and batches behind them with a durable-through: damaged, never void; in every segment.
#[test]
fn both_copies_rotten_with_a_witness_is_damaged() {
    let (disk, _) = unclosed(2);
    for path in segments(&disk) {
        for at in [0, 9, 13, 40, 57, 70, 90, 250] {
            let rotten = keep_all(&disk);
            rotten.flip_bit(&path, at, 1).unwrap();
            rotten.flip_bit(&path, 4096 + at, 2).unwrap();
            let error = refused(&rotten, ErrorKind::Damaged, &format!("{path} byte {at}"));
            assert!(error.path().unwrap().ends_with(&path), "{error}");
        }
    }
}

/// Two copies that verify and say different things come from no crash and no rot: refused, whatever they say.
#[test]
fn two_copies_that_differ_are_damaged() {
    let (disk, _) = unclosed(13);
    for path in segments(&disk) {
        let odd = keep_all(&disk);
        rewrite_opening(&odd, &path, &|opening| opening[72] ^= 1);
        let changed = odd.read_raw(&path).unwrap()[..4096].to_vec();
        for at in [0, 4096] {
            let odd = keep_all(&disk);
            odd.write_raw(&path, at, &changed).unwrap();
            refused(&odd, ErrorKind::Damaged, &format!("{path}, the copy at {at}"));
        }
    }
}

/// Rule 2: an opening that nothing witnesses is void when both copies are bad, and is reported as a cut.
#[test]
fn both_copies_rotten_without_a_witness_is_void() {
    let disk = disk(3);
    let (journal, log) = one_log(&disk);
    let mut count = 0;
    while segments(&disk).len() < 2 {
        log.append(entry(count, 500)).unwrap();
        count += 1;
    }
    let path = last_segment(&disk);
    let rotten = keep_all(&disk);
    drop((log, journal));
    assert!(
        batches_of(&rotten, &path)
            .iter()
            .all(|batch| batch.durable_through == 0)
    );
    rotten.corrupt(&path, 0..8192, 7).unwrap();
    let again = open(&rotten, "void");
    // What is lost here is on the list of what cannot be decided: the last batch with all its witnesses.
    assert_eq!(payloads(&again.log(A).unwrap()).len() as u64, count - 1);
    assert_eq!(again.report().verdict, Verdict::Torn);
    assert!(again.report().cut[0].path.ends_with(&path));
}

/// Rule 18: "A directory with `.seg` files and no verifying opening is damaged"; without any, `NotFound`.
#[test]
fn segments_without_any_opening_are_damaged_and_none_is_not_found() {
    let (disk, _) = unclosed(4);
    let bare = keep_all(&disk);
    for path in segments(&bare) {
        bare.corrupt(&path, 0..8192, 1).unwrap();
    }
    refused(&bare, ErrorKind::Damaged, "no opening");
    for path in bare.files().into_keys().filter(|path| path.ends_with(".seg")) {
        bare.remove(&path).unwrap();
    }
    refused(&bare, ErrorKind::NotFound, "no segment");
    refused(
        &SimFs::new(0, everlog::fs::Profile::PosixWeak),
        ErrorKind::NotFound,
        "an empty disk",
    );
}

/// Rule 2: "A verifying opening of another id or journal is neither: refused, never deleted." A segment of another journal,
/// in each place where it can lie: below, between, above.
#[test]
fn a_foreign_segment_is_refused_and_never_deleted() {
    let (disk, _) = unclosed(5);
    let (other, _) = unclosed(6);
    let last = last_segment(&disk);
    for path in segments(&disk) {
        for name in [path.clone(), "journal/00000000000000ff.seg".to_owned()] {
            let mixed = keep_all(&disk);
            let bytes = other.read_raw(&path).unwrap();
            drop(mixed.create(&name));
            mixed.write_raw(&name, 0, &bytes).unwrap();
            let error = refused(&mixed, ErrorKind::Invalid, &format!("{path} as {name}"));
            assert!(error.path().is_some(), "{error}");
        }
    }
    assert!(segments(&disk).contains(&last));
}

/// A segment under another's name, moved or copied.
#[test]
fn a_renamed_or_duplicated_segment_is_refused_and_never_deleted() {
    let (disk, _) = unclosed(7);
    for path in segments(&disk) {
        let moved = keep_all(&disk);
        moved.rename(&path, "journal/0000000000000fff.seg").unwrap();
        refused(&moved, ErrorKind::Invalid, &format!("{path} moved"));
        let copied = keep_all(&disk);
        copied.create("journal/0000000000000fff.seg").unwrap();
        copied
            .write_raw("journal/0000000000000fff.seg", 0, &disk.read_raw(&path).unwrap())
            .unwrap();
        refused(&copied, ErrorKind::Invalid, &format!("{path} copied"));
    }
}

/// A newer version, or a feature that this build does not know, in any segment: `Unsupported`, and nothing is touched.
#[test]
fn a_newer_format_is_unsupported_and_untouched() {
    let (disk, _) = unclosed(8);
    for path in segments(&disk) {
        let newer = keep_all(&disk);
        rewrite_opening(&newer, &path, &|opening| opening[12] = 2);
        refused(&newer, ErrorKind::Unsupported, &format!("{path} of version 2"));
        let featured = keep_all(&disk);
        rewrite_opening(&featured, &path, &|opening| opening[23] = 0x80);
        refused(
            &featured,
            ErrorKind::Unsupported,
            &format!("{path} with an unknown feature"),
        );
        // One copy of a newer version is enough: it cannot come from rot, since its checksum holds.
        let half = keep_all(&newer);
        half.write_raw(&path, 0, &disk.read_raw(&path).unwrap()[..4096])
            .unwrap();
        refused(
            &half,
            ErrorKind::Unsupported,
            &format!("{path} with one copy of version 2"),
        );
    }
}

/// A bit that readers may ignore is ignored.
#[test]
fn an_unknown_compatible_bit_is_ignored() {
    let disk = disk(9);
    let (journal, log) = one_log(&disk);
    log.append(b"x").unwrap();
    let copy = keep_all(&disk);
    drop((log, journal));
    let path = last_segment(&copy);
    // The chain over the first batch holds only for the old checksum, so only a segment without batches can be changed.
    let bytes = copy.read_raw(&path).unwrap();
    copy.write_raw(&path, 8192, &vec![0; bytes.len() - 8192]).unwrap();
    rewrite_opening(&copy, &path, &|opening| opening[24] = 1);
    drop(open(&copy, "compatible bit"));
}

/// A gap in the chain: a segment that a later one names is missing. Never taken for a torn end.
#[test]
fn a_missing_segment_is_damage() {
    let (disk, _) = unclosed(10);
    let all = segments(&disk);
    for path in &all[..all.len() - 1] {
        let gap = keep_all(&disk);
        gap.remove(path).unwrap();
        let error = refused(&gap, ErrorKind::Damaged, &format!("{path} missing"));
        assert!(error.path().unwrap().ends_with(path), "{error}");
    }
}

/// A segment cut short by somebody else: damaged where anything acknowledged was in it.
#[test]
fn a_shortened_segment_is_damaged() {
    let (disk, _) = unclosed(11);
    for path in segments(&disk) {
        for batch in batches_of(&disk, &path)
            .iter()
            .filter(|batch| batch.sequence % 2 == 0)
        {
            let short = keep_all(&disk);
            let file = short.open(&path, everlog::fs::Access::Write).unwrap();
            file.set_len(batch.offset + 10).unwrap();
            file.sync_data().unwrap();
            drop(file);
            match try_open(&short) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{path} {batch:?}: {error}"),
                Ok(_) => panic!("{path} cut at {} was opened", batch.offset + 10),
            }
        }
    }
}

/// The same of sealed segments with an index that is sound: it does not stand for bytes that are gone.
#[test]
fn a_shortened_segment_is_damaged_though_its_index_is_sound() {
    let disk = disk(14);
    let (journal, log) = one_log(&disk);
    for i in 0..20 {
        log.append(entry(i, 900)).unwrap();
    }
    while journal.work().unwrap() {}
    drop(log);
    journal.close().unwrap();
    let disk = keep_all(&disk);
    let mut all = segments(&disk);
    all.pop();
    for path in all {
        assert!(disk.files().contains_key(&path.replace(".seg", ".idx")), "{path}");
        for batch in batches_of(&disk, &path) {
            let short = keep_all(&disk);
            let file = short.open(&path, everlog::fs::Access::Write).unwrap();
            file.set_len(batch.offset + 10).unwrap();
            file.sync_data().unwrap();
            drop(file);
            let error = try_open(&short).expect_err(&path);
            assert_eq!(error.kind(), ErrorKind::Damaged, "{path} {batch:?}: {error}");
        }
    }
}

/// A file with an id at the end of all numbers must not turn the next id around.
#[test]
fn a_file_named_like_the_last_id_is_refused_or_passed_over() {
    let (disk, count) = unclosed(12);
    for id in ["ffffffffffffffff", "8000000000000000", "7fffffffffffffff"] {
        let odd = keep_all(&disk);
        let name = format!("journal/{id}.seg");
        odd.create(&name).unwrap();
        odd.write_raw(&name, 0, &[0xaa; 16384]).unwrap();
        match try_open(&odd) {
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Damaged),
                "{id}: {error}"
            ),
            Ok(journal) => {
                let log = journal.log(A).unwrap();
                for i in count..count + 60 {
                    log.append(entry(i, 500)).unwrap();
                }
                drop((log, journal));
                let again = open(&odd.crash(1), id);
                assert_eq!(again.log(A).unwrap().bounds().unwrap(), 0..count + 60, "{id}");
            }
        }
        let _ = odd.remove(&name);
    }
}
