//! Directories made by hand, as a writer, a crash, rot or a careless person may leave them, and what recovery says.

mod chains;
mod damage;
mod forged;
mod misnamed;
mod rot;
mod views;

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::format::{BATCHES_AT, COPY_AT, header_at};
use crate::fs::SimFs;
use crate::journal::read::{fetch, locate};
use crate::journal::state::LogState;
use crate::segment::cache::BlockCache;
use crate::segment::made::{self, FILE_LEN, Made, create, entry, facts, floor, set};
use crate::types::{EntryId, LogKey};

fn try_mode(disk: &SimFs, mode: Mode) -> Result<Recovered> {
    let before = disk.dump();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let found = recover(&fs, &Config::new(), mode);
    assert!(disk.dump() == before, "recovery wrote something");
    found
}

fn try_open(disk: &SimFs) -> Result<Recovered> {
    try_mode(disk, Mode::Writer)
}

fn open(disk: &SimFs) -> Recovered {
    try_open(disk).unwrap()
}

fn refused(disk: &SimFs) -> Error {
    match try_open(disk) {
        Ok(_) => panic!("it opened"),
        Err(e) => e,
    }
}

fn view(disk: &SimFs) -> Recovered {
    try_mode(disk, Mode::View { live: false }).unwrap()
}

fn log(found: &Recovered, key: u64) -> &LogState {
    found.logs.get(LogKey(key)).unwrap()
}

/// Every entry of a log, read from disk.
fn read(found: &Recovered, key: u64) -> Vec<Result<Bytes>> {
    let state = log(found, key);
    let cache = BlockCache::new(1 << 20);
    let one = |index| {
        let located = locate(state, LogKey(key), index)?;
        Ok(fetch(located, LogKey(key), state.incarnation, &cache, None)?.payload)
    };
    (state.start..state.end).map(one).collect()
}

fn entries(found: &Recovered, key: u64) -> Vec<Bytes> {
    read(found, key).into_iter().collect::<Result<_>>().unwrap()
}

fn tail(found: &Recovered) -> Vec<(Kind, u64, Bytes)> {
    found
        .tail
        .iter()
        .map(|item| (item.frame.kind, item.frame.index, item.payload.clone()))
        .collect()
}

fn segment_ids(found: &Recovered) -> Vec<u64> {
    found.chain.iter().map(|segment| segment.id).collect()
}

fn name(id: u64) -> String {
    Segment::name(id)
}

/// Opening 1, batches 2 (create, entry 0), 3 (entry 1), 4 (entry 2); proven up to 3.
fn one_segment() -> Made {
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, b"zero")]);
    made.batch(2, &[entry(1, 1, b"one")]);
    made.batch(3, &[entry(1, 2, b"two")]);
    made
}

#[test]
fn without_a_journal_it_is_not_found() {
    assert_eq!(
        refused(&SimFs::new(1, crate::fs::Profile::PosixWeak)).kind(),
        ErrorKind::NotFound
    );
    assert_eq!(refused(&made::disk()).kind(), ErrorKind::NotFound);
}

#[test]
fn a_journal_that_was_only_created_is_there_and_empty() {
    let disk = made::disk();
    Made::new(1, 5, None).save(&disk);
    let found = open(&disk);
    assert_eq!(
        (found.pred, found.report.carried_batches > 0, found.clean),
        (None, false, false)
    );
    assert_eq!(
        (found.next_sequence, found.next_segment, found.incarnation_next),
        (6, 2, 2)
    );
    assert_eq!(found.report.verdict, Verdict::Unclean);
    assert!(found.chain.is_empty() && found.logs.len() == 0);
}

#[test]
fn the_proven_part_is_replayed_and_the_rest_is_the_tail() {
    let (disk, made) = (made::disk(), one_segment());
    made.save(&disk);
    let found = open(&disk);
    let third = made.headers[1];
    let end = End {
        segment: 1,
        offset: third.end(),
        sequence: 3,
        chain: third.crc,
    };
    assert_eq!(found.pred, Some(end));
    assert_eq!(entries(&found, 1), ["zero", "one"]);
    assert_eq!(tail(&found), [(Kind::Append, 2, Bytes::from("two"))]);
    assert_eq!(
        (
            found.next_sequence,
            found.report.carried_batches > 0,
            found.report.verdict
        ),
        (5, true, Verdict::Unclean)
    );
    assert_eq!((found.report.carried_batches, found.report.carried_bytes), (1, 3));
    assert_eq!(found.missing_indexes.len(), 1);
    assert!(found.discard.is_empty());
    assert!(found.findings.is_empty() && found.report.cut.is_empty());
}

#[test]
fn a_closing_mark_makes_it_clean_and_a_torn_one_does_not() {
    let (disk, mut made) = (made::disk(), one_segment());
    let mark = made.mark(4, true);
    made.save(&disk);
    let found = open(&disk);
    assert!(found.clean && found.report.carried_batches == 0);
    assert_eq!(found.report.verdict, Verdict::Clean);
    assert_eq!(entries(&found, 1), ["zero", "one", "two"]);
    assert_eq!(found.pred.unwrap().sequence, 4);
    disk.flip_bit(&name(1), mark.offset + 20, 1).unwrap();
    let found = open(&disk);
    assert_eq!((found.clean, found.report.verdict), (false, Verdict::Torn));
    assert_eq!(tail(&found), [(Kind::Append, 2, Bytes::from("two"))]);
}

/// Nobody writes one before all is synced; what is not proven is carried, and then the journal was not clean.
#[test]
fn a_closing_mark_in_front_of_which_something_is_not_proven_makes_nothing_clean() {
    let (disk, mut made) = (made::disk(), one_segment());
    made.mark(3, true);
    made.save(&disk);
    let found = open(&disk);
    assert_eq!((found.clean, found.report.verdict), (false, Verdict::Unclean));
    assert_eq!(tail(&found), [(Kind::Append, 2, Bytes::from("two"))]);
}

/// The next log must not have it, or entries of the one could be taken for those of the other.
#[test]
fn the_incarnation_of_a_log_that_only_the_tail_creates_is_taken() {
    let (disk, mut made) = (made::disk(), one_segment());
    made.batch(
        3,
        &[made::Item {
            incarnation: 5,
            ..create(2)
        }],
    );
    made.save(&disk);
    let found = open(&disk);
    assert!(found.logs.get(LogKey(2)).is_none());
    assert_eq!(found.incarnation_next, 6);
}

#[test]
fn a_mark_alone_is_never_carried() {
    let (disk, mut made) = (made::disk(), one_segment());
    made.mark(4, false);
    made.save(&disk);
    let found = open(&disk);
    assert_eq!(
        (found.report.carried_batches > 0, found.clean, found.tail.len()),
        (false, false, 0)
    );
}

#[test]
fn a_torn_last_batch_is_cut_and_reported() {
    let (disk, made) = (made::disk(), one_segment());
    made.save(&disk);
    let last = made.headers[2];
    disk.flip_bit(&name(1), last.payloads_at(), 0).unwrap();
    let found = open(&disk);
    assert_eq!(found.report.verdict, Verdict::Torn);
    let cut = &found.report.cut[0];
    assert_eq!((cut.offset, cut.batches), (last.offset, 1));
    assert_eq!(cut.bytes, u64::from(last.len));
    assert!(found.tail.is_empty());
    assert_eq!(entries(&found, 1), ["zero", "one"]);
    assert_eq!(
        found.next_sequence, 5,
        "the sequence of a cut batch is not used again"
    );
    let torn = &view(&disk).findings[0];
    assert_eq!(
        (torn.kind, torn.offset, torn.bytes),
        (FindingKind::Torn, cut.offset, cut.bytes)
    );
}

/// Of two unwitnessed batches the first is torn: both go, the valid one behind it as well.
#[test]
fn a_valid_batch_behind_a_torn_one_is_cut_with_it() {
    let (disk, mut made) = (made::disk(), one_segment());
    let last = made.batch(3, &[entry(1, 3, b"three")]);
    made.save(&disk);
    disk.flip_bit(&name(1), made.headers[2].offset + 3, 0).unwrap();
    let found = open(&disk);
    let cut = &found.report.cut[0];
    assert_eq!((cut.offset, cut.batches), (made.headers[2].offset, 2));
    assert_eq!(cut.bytes, last.end() - made.headers[2].offset);
    assert_eq!((found.tail.len(), found.next_sequence), (0, 6));
}

#[test]
fn a_copy_of_a_real_batch_in_a_payload_is_no_witness() {
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, b"zero")]);
    made.batch(2, &[entry(1, 1, b"one")]);
    let mut later = made.clone();
    let torn = later.batch(3, &[entry(1, 2, b"two")]);
    // What a later batch that proves `torn` would be, as the payload of an entry behind it.
    let mut witness = later.clone();
    let real = witness.batch(4, &[entry(1, 3, b"x")]);
    let from = usize::try_from(real.offset - BATCHES_AT).unwrap();
    let copy = witness.batches[from..].to_vec();
    later.batch(3, &[entry(1, 3, &copy)]);
    let disk = made::disk();
    later.save(&disk);
    disk.flip_bit(&name(1), torn.offset + 9, 2).unwrap();
    let found = open(&disk);
    assert_eq!(found.report.verdict, Verdict::Torn);
    assert_eq!(found.report.cut[0].offset, torn.offset);
}

/// What stood in the file's place before, in another life: the same id, offset and sequence, and another salt.
#[test]
fn a_header_with_another_salt_is_no_witness() {
    let disk = made::disk();
    let made = one_segment();
    let mut other = Made::new(1, 1, None);
    other.opening.salt ^= 1;
    other.batch(0, &[create(1), entry(1, 0, b"zero")]);
    other.batch(2, &[entry(1, 1, b"one")]);
    other.batch(3, &[entry(1, 2, b"two")]);
    other.mark(4, false);
    let (last, mark) = (made.headers[2], other.headers[3]);
    assert_eq!(last.end(), mark.offset, "it stands where the next batch would");
    made.save(&disk);
    disk.flip_bit(&name(1), last.payloads_at(), 0).unwrap();
    let from = usize::try_from(mark.offset - BATCHES_AT).unwrap();
    disk.write_raw(&name(1), mark.offset, &other.batches[from..])
        .unwrap();
    let found = open(&disk);
    assert_eq!(found.report.verdict, Verdict::Torn);
    assert_eq!(entries(&found, 1), ["zero", "one"]);
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_a_tear() {
    let (disk, made) = (made::disk(), one_segment());
    made.save(&disk);
    let sectors = FILE_LEN / disk.sector_bytes();
    for sector in BATCHES_AT / disk.sector_bytes()..sectors {
        disk.set_unreadable(&name(1), sector..sector + 1, true).unwrap();
        let error = refused(&disk);
        assert_eq!(error.kind(), ErrorKind::Io, "sector {sector}");
        assert!(error.path().is_some() && error.offset().is_some(), "{error}");
        disk.set_unreadable(&name(1), sector..sector + 1, false).unwrap();
    }
    assert_eq!(entries(&open(&disk), 1).len(), 2);
}

#[test]
fn one_copy_of_the_opening_is_enough() {
    for (lost, kept) in [(0, COPY_AT), (COPY_AT, 0)] {
        let disk = made::disk();
        one_segment().save(&disk);
        disk.corrupt(&name(1), lost..lost + 256, 3).unwrap();
        let found = open(&disk);
        assert_eq!(entries(&found, 1).len(), 2, "kept the copy at {kept}");
        assert_eq!(found.report.warnings.len(), 1);
        disk.corrupt(&name(1), lost..lost + 256, 4).unwrap();
        disk.set_unreadable(&name(1), lost / 512..lost / 512 + 1, true)
            .unwrap();
        assert_eq!(entries(&open(&disk), 1).len(), 2, "unreadable copy at {lost}");
        disk.set_unreadable(&name(1), kept / 512..kept / 512 + 1, true)
            .unwrap();
        assert_eq!(refused(&disk).kind(), ErrorKind::Io);
    }
}

#[test]
fn files_of_others_are_refused_and_named() {
    let disk = made::disk();
    one_segment().save(&disk);
    made::save(&disk, &name(2), &one_segment().bytes());
    let error = refused(&disk);
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Invalid, Some(disk.display(&name(2)).as_path()))
    );

    let disk = made::disk();
    one_segment().save(&disk);
    let mut foreign = Made::new(2, 9, None);
    foreign.opening.uuid = *b"another one's id";
    foreign.save(&disk);
    assert_eq!(refused(&disk).kind(), ErrorKind::Invalid);
    assert_eq!(
        try_mode(&disk, Mode::View { live: false }).err().unwrap().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn a_newer_version_is_not_touched() {
    let disk = made::disk();
    let mut bytes = one_segment().bytes();
    for at in [0, usize::try_from(COPY_AT).unwrap()] {
        bytes[at + 12] = 2;
        let crc = crc32fast::hash(&bytes[at + 12..at + 256]);
        bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    }
    made::save(&disk, &name(1), &bytes);
    assert_eq!(refused(&disk).kind(), ErrorKind::Unsupported);
}

#[test]
fn only_torn_openings_are_damage_since_create_syncs_the_first_one() {
    let disk = made::disk();
    one_segment().save(&disk);
    disk.corrupt(&name(1), 0..BATCHES_AT, 1).unwrap();
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
    let disk = made::disk();
    made::save(&disk, &name(1), &vec![0; usize::try_from(FILE_LEN).unwrap()]);
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
}

#[test]
fn a_shortened_file_is_damage_once_its_opening_is_proven() {
    let (disk, made) = (made::disk(), one_segment());
    let bytes = made.bytes();
    let end = usize::try_from(made.headers[2].offset).unwrap();
    made::save(&disk, &name(1), &bytes[..end]);
    let error = refused(&disk);
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Damaged, Some(end as u64))
    );
}

#[test]
fn cells_are_read_at_open_wherever_they_stand() {
    let disk = made::disk();
    let mut first = Made::new(1, 1, None);
    first.batch(0, &[create(1), set(1, 0, b"vote 1"), set(1, 1, b"committed")]);
    first.batch(2, &[set(1, 0, b"vote 2")]);
    first.save(&disk);
    let mut second = Made::new(2, 4, Some(first.end()));
    second.batch(0, &[set(1, 0, b"vote 3"), entry(1, 0, b"a")]);
    second.batch(5, &[set(1, 2, b"unproven")]);
    second.save(&disk);
    let found = open(&disk);
    let cells = &log(&found, 1).cells;
    assert_eq!(cells[&0].value.as_deref(), Some(&b"vote 3"[..]));
    assert_eq!(cells[&1].value.as_deref(), Some(&b"committed"[..]));
    assert!(!cells.contains_key(&2));
    assert_eq!(tail(&found), [(Kind::Cell, 0, Bytes::from("unproven"))]);

    // A live cell that rotted is damage although nothing else of its segment is read.
    disk.flip_bit(&name(1), first.headers[0].payloads_at() + 8, 0)
        .unwrap();
    assert_eq!(refused(&disk).kind(), ErrorKind::Damaged);
    // One that was overwritten since is not missed.
    disk.flip_bit(&name(1), first.headers[0].payloads_at() + 8, 0)
        .unwrap();
    disk.flip_bit(&name(1), first.headers[0].payloads_at(), 0)
        .unwrap();
    open(&disk);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Garbage anywhere in a chain of three segments: recovery ends without a panic, changes nothing, and what it reads
    /// is what was written.
    #[test]
    fn garbled_directories_never_panic(
        hits in proptest::collection::vec((1u64..4, 0u64..16_000, any::<u64>(), 1u64..600), 0..8),
        writer in any::<bool>(),
        live in any::<bool>(),
    ) {
        let disk = made::disk();
        for made in chains::three_segments() {
            made.save(&disk);
        }
        for (id, at, seed, len) in hits {
            disk.corrupt(&name(id), at..at + len, seed).unwrap();
        }
        let mode = if writer { Mode::Writer } else { Mode::View { live } };
        if let Ok(found) = try_mode(&disk, mode)
            && found.logs.get(LogKey(1)).is_some()
        {
            let written = chains::written();
            let state = log(&found, 1);
            for (index, entry) in (state.start..state.end).zip(read(&found, 1)) {
                match entry {
                    Ok(payload) => prop_assert_eq!(&payload[..], written[usize::try_from(index).unwrap()]),
                    Err(e) => prop_assert!(matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Purged), "{}", e),
                }
            }
        }
    }

    /// Files of nothing but garbage.
    #[test]
    fn arbitrary_files_never_panic(
        files in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 1..3),
    ) {
        let disk = made::disk();
        for (id, bytes) in (1..).zip(&files) {
            made::save(&disk, &name(id), bytes);
        }
        prop_assert!(try_open(&disk).is_err());
        let live = Mode::View { live: true };
        prop_assert!(try_mode(&disk, live).is_err());
    }
}
