//! Views, verification and dumps of journals that are closed, killed, in use, torn, damaged.

use std::fs;

use super::*;
use crate::ErrorKind;
use crate::config::{Background, Config};
use crate::format::{BATCHES_AT, COPY_AT};
use crate::fs::{Profile, SimFs};
use crate::journal::Journal;
use crate::segment::Segment;
use crate::segment::made::{self, Made, create, entry, set};
use crate::types::{EntryId, LogKey};

fn config() -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(16 << 10)
        .background(Background::Caller)
}

fn view(disk: &SimFs) -> View {
    View::open_on(Arc::new(disk.clone()), config()).unwrap()
}

fn verified(disk: &SimFs) -> Verification {
    let before = disk.dump();
    let found = verify_on(Arc::new(disk.clone()), config(), &mut |_| {}).unwrap();
    assert!(before == disk.dump(), "verifying changed something");
    found
}

fn dumped(disk: &SimFs) -> Vec<DumpItem> {
    let mut items = Vec::new();
    let mut keep = |item| {
        items.push(item);
        Ok(())
    };
    dump_on(Arc::new(disk.clone()), None, &mut keep).unwrap();
    items
}

fn payload(log: u64, index: u64) -> Vec<u8> {
    format!("entry {index} of log {log} ").repeat(20).into_bytes()
}

/// A journal of several segments with two logs, cells, a purge and a truncate.
fn filled(disk: &SimFs) -> Journal {
    let journal = Journal::create_on(Arc::new(disk.clone()), config()).unwrap();
    for key in 1..3 {
        let log = journal.create_log(LogKey(key), 0).unwrap();
        for index in 0..60 {
            log.append_at(EntryId::new(u128::from(index / 10), index), payload(key, index))
                .unwrap();
        }
        log.set(3, payload(key, 999)).unwrap();
    }
    journal.log(LogKey(1)).unwrap().truncate_from(50).unwrap();
    journal.log(LogKey(2)).unwrap().purge_to(20).unwrap();
    journal
}

fn check(view: &View, ends: [u64; 2]) {
    for (key, range) in [(1, 0..ends[0]), (2, 20..ends[1])] {
        let log = view.log(LogKey(key)).unwrap();
        assert_eq!(log.bounds().unwrap(), range);
        for (index, entry) in range.clone().zip(log.read(range.clone())) {
            let entry = entry.unwrap();
            assert_eq!(entry.id, EntryId::new(u128::from(index / 10), index));
            assert_eq!(entry.payload, payload(key, index));
        }
        assert_eq!(log.cell(3).unwrap().unwrap(), payload(key, 999));
        assert_eq!((log.cell(4).unwrap(), log.cells().unwrap()), (None, vec![3]));
        assert_eq!(
            log.last().unwrap(),
            Some(EntryId::new(u128::from((range.end - 1) / 10), range.end - 1))
        );
        assert_eq!(log.get(range.end).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            log.term_at(range.start).unwrap(),
            log.terms(0..u64::MAX).unwrap()[0].term
        );
    }
    assert_eq!(
        view.log(LogKey(2)).unwrap().get(19).unwrap_err().kind(),
        ErrorKind::Purged
    );
    assert_eq!(view.log(LogKey(7)).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(view.logs(), [LogKey(1), LogKey(2)]);
}

#[test]
fn a_closed_journal_is_clean_and_all_of_it_is_there() {
    let disk = SimFs::new(1, Profile::PosixWeak);
    let uuid = {
        let journal = filled(&disk);
        let uuid = journal.uuid();
        journal.close().unwrap();
        uuid
    };
    let view = view(&disk);
    assert!(
        view.clean() && !view.live() && view.findings().is_empty(),
        "{:?}",
        view.findings()
    );
    assert_eq!((view.uuid(), view.format()), (uuid, 1));
    let segments = view.segments();
    assert!(segments.len() > 2 && segments.is_sorted_by_key(|segment| segment.id));
    assert_eq!(segments.iter().filter(|segment| !segment.sealed).count(), 1);
    check(&view, [50, 60]);
    let limited = view.log(LogKey(1)).unwrap().read_limited(0..50, 1000).unwrap();
    assert!(!limited.is_empty() && limited.len() < 10);

    let verified = verified(&disk);
    assert!(verified.clean && !verified.torn);
    assert_eq!(
        (verified.entries, verified.segments),
        (120, segments.len() as u64)
    );
    assert!(verified.batches > 120);
    let items = dumped(&disk);
    assert!(!items.iter().any(|item| matches!(item, DumpItem::Bad { .. })));
    let openings = items
        .iter()
        .filter(|item| matches!(item, DumpItem::Opening { .. }))
        .count();
    assert_eq!(openings, 2 * segments.len());
}

#[test]
fn beside_its_writer_a_journal_is_neither_torn_nor_damaged() {
    let disk = SimFs::new(2, Profile::PosixWeak);
    let journal = filled(&disk);
    // What was written last has no witness yet.
    journal.create_log(LogKey(3), 0).unwrap();
    let view = view(&disk);
    assert!(view.live() && !view.clean());
    assert!(view.findings().is_empty(), "{:?}", view.findings());
    assert!(view.holder().is_some());
    assert_eq!(view.report().cut, []);
    check(&view, [50, 60]);
    assert!(!verified(&disk).torn);
    journal.close().unwrap();
}

#[test]
fn after_a_kill_the_view_shows_what_an_open_would_find() {
    let disk = SimFs::new(3, Profile::PosixWeak);
    let journal = filled(&disk);
    let after = disk.kill();
    drop(journal);
    let view = view(&after);
    assert!(!view.live() && !view.clean());
    check(&view, [50, 60]);
    let before = after.dump();
    Journal::open_on(Arc::new(after.clone()), config())
        .unwrap()
        .close()
        .unwrap();
    assert!(after.dump() != before);
    check(&self::view(&after), [50, 60]);
    assert!(verified(&after).clean);
}

/// One bit of every byte of every segment: what is not told does not matter.
#[test]
fn no_flipped_bit_of_a_closed_journal_goes_untold() {
    let disk = SimFs::new(4, Profile::PosixWeak);
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, b"zero"), set(1, 0, b"vote")]);
    made.batch(2, &[entry(1, 1, b"one")]);
    disk.create_dir("journal").unwrap();
    made.save(&disk);
    let mut last = Made::new(2, 4, Some(made.end()));
    last.batch(0, &[entry(1, 2, b"two"), set(1, 1, b"other")]);
    last.mark(5, true);
    last.save(&disk);
    assert!(verified(&disk).clean);
    for made in [&made, &last] {
        let used: Vec<bool> = made.bytes().iter().map(|byte| *byte != 0).collect();
        let structures = |offset: u64| {
            let opening = offset % COPY_AT < 256 && offset < BATCHES_AT;
            let inside = |h: &crate::format::BatchHeader| {
                (h.offset..h.payloads_at() + u64::from(h.payload_len)).contains(&offset)
            };
            opening || made.headers.iter().any(inside)
        };
        let name = Segment::name(made.opening.segment);
        for offset in (0..made.end().offset + 64)
            .filter(|offset| structures(*offset) || used[usize::try_from(*offset).unwrap()])
        {
            let bit = u32::try_from(offset % 8).unwrap();
            disk.flip_bit(&name, offset, bit).unwrap();
            let verified = verified(&disk);
            assert!(!verified.clean, "{name} at {offset}");
            assert!(!verified.findings.is_empty(), "{name} at {offset}");
            disk.flip_bit(&name, offset, bit).unwrap();
        }
    }
}

#[test]
fn a_dump_goes_on_behind_what_is_bad() {
    let disk = made::disk();
    let mut made = Made::new(1, 1, None);
    made.batch(0, &[create(1), entry(1, 0, b"zero")]);
    let hit = made.batch(2, &[entry(1, 1, b"one")]);
    made.batch(3, &[entry(1, 2, b"two")]);
    made.save(&disk);
    disk.flip_bit(&Segment::name(1), hit.offset + 30, 0).unwrap();
    disk.corrupt(&Segment::name(1), 0..100, 1).unwrap();
    let items = dumped(&disk);
    let bad: Vec<(u64, u64)> = items
        .iter()
        .filter_map(|item| match item {
            DumpItem::Bad { offset, bytes, .. } => Some((*offset, *bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(bad, [(0, 256), (hit.offset, u64::from(hit.len))]);
    let frames = items.iter().filter(|item| {
        matches!(
            item,
            DumpItem::Frame {
                kind: "append",
                sound: true,
                ..
            }
        )
    });
    assert_eq!(frames.count(), 2);
    let error = dump_on(Arc::new(disk.clone()), Some(77), &mut |_| Ok(())).unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains("77"),
        "{error}"
    );
    let stop = || Error::new(ErrorKind::Busy, "enough");
    assert_eq!(
        dump_on(Arc::new(disk), None, &mut |_| Err(stop()))
            .unwrap_err()
            .kind(),
        ErrorKind::Busy
    );
}

#[test]
fn progress_never_falls_and_ends_at_the_total() {
    let disk = SimFs::new(5, Profile::PosixWeak);
    filled(&disk).close().unwrap();
    let mut seen = Vec::new();
    verify_on(Arc::new(disk), config(), &mut |at| {
        seen.push((at.done_bytes, at.total_bytes))
    })
    .unwrap();
    assert!(seen.is_sorted() && seen.len() > 10);
    let (done, total) = seen[seen.len() - 1];
    assert!(done == total && total > 0);
}

#[test]
fn the_wrong_directory_is_told_with_the_right_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("j");
    assert_eq!(find(&dir).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(find(root.path()).unwrap_err().kind(), ErrorKind::NotFound);
    Journal::create(&dir, config()).unwrap().close().unwrap();
    let found = find(&dir).unwrap();
    assert!(found.dir == dir && found.segments > 0);
    let segment = dir.join("journal").join("0000000000000001.seg");
    for wrong in [dir.join("journal"), segment, dir.join("lock")] {
        let error = find(&wrong).unwrap_err();
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::Invalid, Some(wrong.as_path()))
        );
        let rest = error.to_string().replace(&wrong.display().to_string(), "");
        assert!(rest.contains(&dir.display().to_string()), "{error}");
        assert_eq!(
            View::open(&wrong, config()).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
    fs::write(root.path().join("file"), "text").unwrap();
    assert_eq!(
        find(&root.path().join("file")).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        find(&root.path().join("file/inside")).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn the_decoders_take_what_was_encoded_and_nothing_else() {
    let mut made = Made::new(1, 1, None);
    let first = made.batch(0, &[create(1), entry(1, 0, b"zero")]);
    let bytes = made.bytes();
    let batch = usize::try_from(BATCHES_AT).unwrap();
    decode::opening(&bytes).unwrap();
    decode::batch(&bytes[batch..]).unwrap();
    let mut frame = made.opening.salt.to_le_bytes().to_vec();
    frame.extend_from_slice(&7u128.to_le_bytes());
    frame.extend_from_slice(&bytes[batch + 96 + 48..][..48]);
    decode::frame(&frame).unwrap();
    for len in 0..96 {
        assert_eq!(
            decode::batch(&bytes[batch..batch + len]).unwrap_err().kind(),
            ErrorKind::Invalid
        );
        let len = len.min(71);
        assert_eq!(
            decode::frame(&frame[..len]).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
    let used = usize::try_from(first.payloads_at() + u64::from(first.payload_len)).unwrap();
    assert_eq!(
        decode::batch(&bytes[batch..used - 1]).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(decode::index(&bytes).unwrap_err().kind(), ErrorKind::Invalid);

    let disk = SimFs::new(6, Profile::PosixWeak);
    filled(&disk).close().unwrap();
    let index = disk
        .files()
        .into_keys()
        .find(|name| name.ends_with(".idx"))
        .unwrap();
    decode::index(&disk.read_raw(&index).unwrap()).unwrap();
}

/// The index that a writer leaves is the one that would be built from its segment: trusted by the next open, and not
/// found to differ by a verification. Also after a kill, when the tail was carried.
#[test]
fn the_indexes_of_a_writer_are_trusted() {
    let mut disk = SimFs::new(7, Profile::PosixWeak);
    let mut journal = filled(&disk);
    for _life in 0..3 {
        let killed = disk.kill();
        drop(journal);
        journal = Journal::open_on(Arc::new(killed.clone()), config()).unwrap();
        let log = journal.log(LogKey(1)).unwrap();
        for _ in 0..40 {
            log.append(payload(1, 0)).unwrap();
        }
        while journal.work().unwrap() {}
        disk = killed.clone();
        let after = killed.kill();
        let fs: Arc<dyn Fs> = Arc::new(after.clone());
        let found =
            crate::journal::recover::recover(&fs, &config(), crate::journal::recover::Mode::Writer).unwrap();
        let missing: Vec<u64> = found
            .missing_indexes
            .iter()
            .map(|missing| missing.segment.id)
            .collect();
        let last = found.chain[found.chain.len() - 1].id;
        assert!(missing.iter().all(|id| *id == last), "{missing:?} of {last}");
        let verified = verify_on(fs, config(), &mut |_| {}).unwrap();
        assert!(verified.findings.is_empty(), "{:?}", verified.findings);
        let view = View::open_on(Arc::new(after), config().verify_on_open(true)).unwrap();
        assert_eq!(view.report().warnings, Vec::<String>::new());
    }
}
