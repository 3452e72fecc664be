//! Segment ids, sizes, and the beginning of a journal.

use everlog::fs::{Fs, Profile, SimFs};
use everlog::{Config, ErrorKind, Journal, LogKey, Verdict};

use super::support::{
    A, blocks, create, disk, dynamic, each_outcome, entry, keep_all, keep_synced, last_segment, one_log,
    open, payloads, segments, small, try_open, u64_at,
};

fn openings(disk: &SimFs) -> Vec<(u64, u64, u64)> {
    let raw = segments(disk)
        .into_iter()
        .map(|path| disk.read_raw(&path).unwrap());
    raw.map(|bytes| (u64_at(&bytes, 48), u64_at(&bytes, 80), u64_at(&bytes, 64)))
        .collect()
}

/// Rule 5: "Ids rise strictly along the chain: a prepared id that has been overtaken is never used." An entry larger than a
/// segment forces a file of its own while a spare has its name already; then the spare is needed.
#[test]
fn an_overtaken_id_is_never_used() {
    for large_at in [1, 2, 3, 6] {
        let disk = disk(1);
        let (journal, log) = one_log(&disk);
        let mut expected = Vec::new();
        for i in 0..14 {
            while journal.work().unwrap() {} // a spare is named ahead of need
            let len = if i == large_at || i == large_at + 4 {
                30_000
            } else {
                1800
            };
            log.append(entry(i, len)).unwrap();
            expected.push(entry(i, len));
        }
        let chain = openings(&disk);
        for pair in chain.windows(2) {
            assert!(
                pair[0].0 < pair[1].0 && pair[1].1 == pair[0].0,
                "ids rise along the chain: {chain:?}"
            );
            assert!(pair[0].2 < pair[1].2, "so do sequences: {chain:?}");
        }
        for seed in 0..15 {
            let again = open(
                &disk.crash(seed),
                &format!("large entry at {large_at}, seed {seed}"),
            );
            assert_eq!(
                payloads(&again.log(A).unwrap()),
                expected,
                "large entry at {large_at}, seed {seed}"
            );
        }
        drop((log, journal));
    }
}

/// The same cut at any call around the large entry.
#[test]
fn a_large_entry_cut_at_any_call_loses_nothing() {
    for stop in 0..45 {
        let disk = disk(stop);
        let (journal, log) = one_log(&disk);
        log.append(entry(0, 500)).unwrap();
        disk.stop_after(stop);
        let (mut acked, mut issued) = (1, 1);
        for (i, len) in [
            (1, 30_000),
            (2, 500),
            (3, 18_000),
            (4, 2000),
            (5, 2000),
            (6, 2000),
        ] {
            issued = i + 1;
            match log.append(entry(i, len)) {
                Ok(_) => acked = i + 1,
                Err(_) => break,
            }
        }
        drop((log, journal));
        for seed in 0..8 {
            let story = format!("stop {stop}, seed {seed}");
            let count = payloads(&open(&disk.crash(seed), &story).log(A).unwrap()).len() as u64;
            assert!(
                (acked..=issued).contains(&count),
                "{story}: {acked} {count} {issued}"
            );
        }
    }
}

/// Rule 17: the smallest segments, in both alignments, filled entry by entry of every length: everything is there, each segment
/// kept room for its closing mark.
#[test]
fn the_smallest_segments_work_in_both_alignments() {
    for config in [small(), blocks()] {
        for len in (0..4200).step_by(139).chain([3840, 3848, 3856, 3952, 3960, 4000]) {
            let disk = disk(len);
            let journal = Journal::create_on(dynamic(&disk), config.clone()).unwrap();
            let log = journal.create_log(A, 0).unwrap();
            let len = usize::try_from(len).unwrap();
            for i in 0..5 {
                log.append(entry(i, len)).unwrap();
            }
            drop(log);
            journal.close().unwrap();
            let story = format!("{config:?}, {len} bytes");
            let again = Journal::open_on(dynamic(&keep_synced(&disk)), config.clone())
                .unwrap_or_else(|e| panic!("{story}: {e}"));
            assert_eq!(again.report().verdict, Verdict::Clean, "{story}");
            assert_eq!(payloads(&again.log(A).unwrap()).len(), 5, "{story}");
        }
    }
}

/// A journal written with one alignment goes on with the other, and with another size of segments.
#[test]
fn settings_may_change_from_life_to_life() {
    let mut disk = disk(2);
    drop(one_log(&disk));
    let sizes = [16, 64, 20, 256, 16].map(|kib| small().segment_bytes(kib << 10));
    let mut count = 0;
    for (life, config) in (0..15_u64).zip(sizes.iter().cycle().cloned()) {
        let config = if life % 2 == 0 {
            config.alignment(everlog::Alignment::Bytes4096)
        } else {
            config
        };
        let journal = Journal::open_on(dynamic(&disk), config).unwrap_or_else(|e| panic!("life {life}: {e}"));
        let log = journal.log(A).unwrap();
        assert_eq!(log.bounds().unwrap(), 0..count, "life {life}");
        for _ in 0..8 {
            log.append(entry(count, 1500)).unwrap();
            count += 1;
        }
        log.purge_to(0).unwrap();
        drop(log);
        if life % 3 == 0 {
            journal.close().unwrap()
        } else {
            drop(journal)
        }
        disk = disk.crash(life);
    }
    let spares = disk
        .files()
        .into_keys()
        .filter(|path| path.ends_with(".spare"))
        .count();
    assert!(
        spares < 8,
        "files of other sizes do not pile up: {:?}",
        disk.files()
    );
}

/// Settings out of range are `Invalid` before anything is created.
#[test]
fn settings_out_of_range_are_invalid_before_anything_is_created() {
    let bad: [Config; 5] = [
        small().segment_bytes(8 << 10),
        small().segment_bytes((16 << 10) + 512),
        small().max_entry_bytes(0),
        small().max_entry_bytes((256 << 20) + 1),
        small().in_flight_bytes(1),
    ];
    for config in bad {
        let disk = disk(3);
        assert_eq!(
            Journal::create_on(dynamic(&disk), config).unwrap_err().kind(),
            ErrorKind::Invalid
        );
        assert!(disk.files().is_empty(), "{:?}", disk.files());
    }
}

/// Rule 18: "`create` writes and syncs the first opening. The newest valid opening is never deleted." Whatever a power cut does
/// right after it, the journal is there, with its uuid, for any number of lives.
#[test]
fn create_then_nothing_written_is_a_journal_for_ever() {
    let disk = disk(4);
    let journal = create(&disk);
    let uuid = journal.uuid();
    each_outcome(&disk, 512, 60, &mut |mut after, outcome| {
        for life in 0..4 {
            let again = open(&after, outcome);
            assert_eq!(
                (again.uuid(), again.logs().len()),
                (uuid, 0),
                "{outcome}, life {life}"
            );
            if life == 2 {
                again.close().unwrap();
            }
            after = after.crash(life);
        }
        let again = Journal::create_on(dynamic(&after), small());
        assert_eq!(
            again.unwrap_err().kind(),
            ErrorKind::Invalid,
            "{outcome}: there is one already"
        );
    });
}

/// The same on a disk that has room for the first segment and nothing else: what `create` returned is durable without any of
/// what it prepares afterwards.
#[test]
fn create_on_a_nearly_full_disk_is_durable() {
    let disk = disk(8);
    disk.set_capacity(24 << 10);
    let journal = create(&disk);
    let after = keep_synced(&disk);
    assert_eq!(open(&after, "nearly full").uuid(), journal.uuid());
}

/// `create` interrupted at every call, then a power cut or a kill: there is a journal or none, never a damaged one, and
/// creating it again works.
#[test]
fn create_interrupted_at_every_call_leaves_a_journal_or_none() {
    let calls = {
        let disk = disk(5);
        drop(create(&disk));
        disk.ops()
    };
    for stop in 0..=calls {
        for seed in 0..10 {
            let disk = SimFs::new(seed, Profile::PosixWeak);
            disk.stop_after(stop);
            drop(Journal::create_on(dynamic(&disk), small()));
            disk.stop_now();
            let after = if seed == 0 { disk.kill() } else { disk.crash(seed) };
            let story = format!("stop {stop}, seed {seed}");
            let found = try_open(&after);
            let journal = match found {
                Ok(journal) => journal,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound, "{story}: {error}");
                    Journal::open_or_create_on(dynamic(&after), small())
                        .unwrap_or_else(|e| panic!("{story}: {e}"))
                }
            };
            let log = journal.create_log(LogKey(4), 0).unwrap();
            log.append(b"x").unwrap();
            drop((log, journal));
            let leftover = after
                .files()
                .into_keys()
                .filter(|path| path.ends_with("create.tmp"))
                .count();
            assert_eq!(leftover, 0, "{story}");
            open(&after.crash(seed), &story).log(LogKey(4)).unwrap();
        }
    }
}

/// Rule 30, first half: files that are none of the journal's are left alone.
#[test]
fn files_of_others_are_left_alone() {
    let disk = disk(6);
    let (journal, log) = one_log(&disk);
    drop((log, journal));
    let names = [
        "journal/notes.txt",
        "journal/x.seg",
        "journal/0000000000000001.seg.bak",
        "journal/999.spares",
        "readme",
    ];
    for name in names {
        disk.create(name).unwrap().write_all_at(b"mine", 0).unwrap();
    }
    for life in 0..3 {
        let journal = open(&disk, "with others' files");
        let log = journal.log(A).unwrap();
        for i in 0..8 {
            log.append(entry(i, 900)).unwrap();
        }
        log.purge_to(log.bounds().unwrap().end).unwrap();
        journal.close().unwrap();
        for name in names {
            assert_eq!(disk.read_raw(name).unwrap(), b"mine", "life {life}");
        }
    }
    drop(keep_all(&disk));
}

/// A spare with the highest number there is must not turn the next number around.
#[test]
fn a_spare_of_the_last_number_is_no_trouble() {
    let disk = disk(7);
    let (journal, log) = one_log(&disk);
    drop((log, journal));
    for extension in ["spare", "tmp"] {
        disk.create(&format!("journal/{}.{extension}", u64::MAX)).unwrap();
    }
    let journal = open(&disk, "odd spare");
    let log = journal.log(A).unwrap();
    for i in 0..40 {
        log.append(entry(i, 900)).unwrap();
    }
    drop((log, journal));
    assert_eq!(payloads(&open(&disk.crash(0), "again").log(A).unwrap()).len(), 40);
}

/// A stray index of the highest id that an opening accepts: the segments of this journal do not go on above it, where the next
/// opening would refuse them with all that was acknowledged in them.
#[test]
fn a_stray_index_does_not_push_the_ids() {
    for id in [0x3fff_ffff_ffff_ffff_u64, 0x3fff_ffff_ffff_fffe, 1 << 40] {
        let disk = disk(9);
        let (journal, log) = one_log(&disk);
        drop((log, journal));
        disk.create(&format!("journal/{id:016x}.idx")).unwrap();
        for life in 0..3 {
            let journal = open(&disk, &format!("{id:x}, life {life}"));
            let log = journal.log(A).unwrap();
            assert_eq!(log.bounds().unwrap(), 0..life * 8);
            for i in 0..8 {
                log.append(entry(i, 900)).unwrap();
            }
            drop((log, journal));
            assert!(last_segment(&disk).as_str() < "journal/0000000000001000.seg");
        }
    }
}

/// The same of a stray segment file that holds no opening: no journal skips so many ids. It is refused by name, before anything
/// is acknowledged above it, and all is well when it is moved away.
#[test]
fn a_stray_file_far_above_the_last_segment_is_refused_at_once() {
    let ids = [
        0x3fff_ffff_ffff_ffff_u64,
        0x3fff_ffff_ffff_fff0,
        1 << 40,
        (1 << 32) + 9,
    ];
    for (id, bytes) in ids
        .into_iter()
        .flat_map(|id| [(id, &[0; 0][..]), (id, &[0; 16 << 10]), (id, b"mine")])
    {
        let disk = disk(10);
        let (journal, log) = one_log(&disk);
        log.append(entry(0, 900)).unwrap();
        drop((log, journal));
        let path = format!("journal/{id:016x}.seg");
        disk.create(&path).unwrap().write_all_at(bytes, 0).unwrap();
        let before = disk.dump();
        let error = try_open(&disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{id:x}: {error}");
        assert!(error.path().is_some_and(|at| at.ends_with(&path)), "{error}");
        assert!(
            before
                .iter()
                .all(|(path, bytes)| path == "lock" || disk.dump()[path] == *bytes)
        );
        disk.remove(&path).unwrap();
        assert_eq!(payloads(&open(&disk, "moved away").log(A).unwrap()).len(), 1);
    }
}

/// A file named a little above the last segment is what an earlier life named ahead of need, however many lives that were.
#[test]
fn blank_files_above_the_last_segment_are_used_again() {
    let disk = disk(11);
    let (journal, log) = one_log(&disk);
    log.append(entry(0, 900)).unwrap();
    drop((log, journal));
    let file = disk.create("journal/0000000000000400.seg").unwrap();
    file.write_all_at(&[0; 16 << 10], 0).unwrap();
    let journal = open(&disk, "a blank file");
    let log = journal.log(A).unwrap();
    for i in 1..8 {
        log.append(entry(i, 900)).unwrap();
    }
    assert!(last_segment(&disk).as_str() > "journal/0000000000000400.seg");
    drop((log, journal));
    assert_eq!(payloads(&open(&disk.crash(0), "again").log(A).unwrap()).len(), 8);
}

/// A journal's name for ever is drawn: all of its bits, and other ones for another journal.
#[test]
fn a_uuid_is_drawn_whole() {
    let bytes: [u8; 16] = std::array::from_fn(|n| u8::try_from(n * 16 + n).unwrap());
    assert_eq!(
        everlog::Uuid(bytes).to_string(),
        "00112233-4455-6677-8899-aabbccddeeff"
    );
    let uuids = [1, 2, 3].map(|seed| create(&disk(seed)).uuid().0);
    for half in [0..8, 8..16] {
        let halves = uuids.map(|uuid| uuid[half.clone()].to_vec());
        assert!(
            halves.iter().all(|half| half.iter().any(|byte| *byte != 0)),
            "{uuids:?}"
        );
        assert!(halves[0] != halves[1] && halves[1] != halves[2], "{uuids:?}");
    }
}

/// Files that an earlier life began and did not finish go; a spare that is not blank may be a segment, and stays.
#[test]
fn what_was_never_finished_goes_when_the_journal_is_opened() {
    let disk = disk(15);
    let (journal, log) = one_log(&disk);
    log.append(b"x").unwrap();
    drop(log);
    journal.close().unwrap();
    let unfinished = ["create.tmp", "900.tmp", "0000000000000001.tmp-idx", "700.spare"];
    for name in unfinished {
        disk.create(&format!("journal/{name}")).unwrap();
    }
    disk.write_raw("journal/700.spare", 0, &[0; 100]).unwrap();
    disk.create("journal/800.spare").unwrap();
    disk.write_raw("journal/800.spare", 0, &[7; 9000]).unwrap();
    let journal = open(&disk, "with what is left of others");
    let files = disk.files();
    for name in unfinished {
        assert!(!files.contains_key(&format!("journal/{name}")), "{name}");
    }
    assert!(files.contains_key("journal/800.spare"));
    drop(journal);
}
