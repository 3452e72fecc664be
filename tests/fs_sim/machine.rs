//! Damage at rest, processes that are killed, power that goes off inside a call, and how outcomes are chosen.

use super::*;
use everlog::fs::{Access, Atom, Kept};
use std::io;

// Other damage

#[test]
fn a_hostile_disk_shows_garbage_torn_sectors_and_old_bytes() {
    let fs = disk(Profile::Hostile);
    durable_file(&fs, "secret", &[b's'; BLOCK]);
    let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
    fs.remove("secret").unwrap();
    file.write_all_at(&[b'b'; 2 * SECTOR], 0).unwrap();
    let seen = outcomes(&fs, |f| f.read_raw("f").unwrap());
    let any = |test: &dyn Fn(&[u8]) -> bool| seen.iter().any(|bytes| test(bytes));
    assert!(
        any(&|b| b[..SECTOR].contains(&b'a') && b[..SECTOR].contains(&b'b')),
        "torn"
    );
    assert!(
        any(&|b| b[..SECTOR].iter().any(|x| !b"ab".contains(x))),
        "garbage"
    );
    assert!(
        any(&|b| b.len() > SECTOR && b[SECTOR..].iter().all(|x| *x == b's')),
        "stale"
    );
    assert!(any(&|b| b == [b'b'; 2 * SECTOR]) && any(&|b| b == [b'a'; SECTOR]));
}

#[test]
fn unreadable_sectors_fail_and_reads_stop_before_them() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; 3 * SECTOR]);
    fs.set_unreadable("f", 1..2, true).unwrap();
    let mut buffer = [0; 3 * SECTOR];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), SECTOR);
    assert_eq!(
        file.read_at(&mut buffer, SECTOR as u64)
            .unwrap_err()
            .raw_os_error(),
        Some(5)
    );
    assert!(file.read_exact_at(&mut buffer, 0).is_err());
    let after = fs.crash(0);
    assert!(
        after
            .open("f", Access::Read)
            .unwrap()
            .read_exact_at(&mut buffer, 0)
            .is_err(),
        "a crash heals nothing"
    );
    fs.set_unreadable("f", 0..9, false).unwrap();
    file.read_exact_at(&mut buffer, 0).unwrap();
}

#[test]
fn a_full_disk_takes_what_fits_and_then_nothing() {
    let fs = disk(Profile::PosixWeak);
    fs.set_capacity(3 * BLOCK as u64);
    let file = durable_file(&fs, "f", &[b'a'; BLOCK]);
    assert_eq!(fs.space().unwrap().free, 2 * BLOCK as u64);
    assert_eq!(
        file.write_at(&[b'b'; 3 * BLOCK], BLOCK as u64).unwrap(),
        2 * BLOCK
    );
    assert_eq!(
        file.write_at(b"x", 3 * BLOCK as u64).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(
        file.write_at(&[b'c'; 3 * BLOCK], 0).unwrap(),
        3 * BLOCK,
        "overwriting takes no space"
    );
    fs.remove("f").unwrap();
    assert_eq!(fs.space().unwrap().free, 0, "an open handle keeps it");
    drop(file);
    assert_eq!(fs.space().unwrap().free, 3 * BLOCK as u64);
    fs.set_capacity(BLOCK as u64);
    assert_eq!(fs.space().unwrap().total, BLOCK as u64);
}

#[test]
fn damage_at_rest_is_seen_and_survives() {
    let fs = disk(Profile::PosixWeak);
    durable_file(&fs, "f", &[0; SECTOR]);
    fs.flip_bit("f", 3, 7).unwrap();
    fs.corrupt("f", 100..200, 1).unwrap();
    fs.write_raw("f", 300, b"raw").unwrap();
    for fs in [fs.clone(), fs.crash(3), fs.kill()] {
        let bytes = fs.read_raw("f").unwrap();
        assert_eq!((bytes[2], bytes[3], bytes[4]), (0, 0x80, 0));
        assert!(bytes[100..200].iter().any(|b| *b != 0) && bytes[200..300] == [0; 100]);
        assert_eq!(&bytes[300..303], b"raw");
    }
    assert!(fs.flip_bit("f", SECTOR as u64, 0).is_err());
}

// Processes, power and choices

#[test]
fn a_kill_keeps_everything_visible_and_nothing_durable() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
    file.write_all_at(&[b'b'; SECTOR], 0).unwrap();
    let _lock = fs.lock("lock", "first").unwrap();
    let next = fs.kill();
    assert!(file.write_at(b"ghost", 0).is_err() && file.sync_data().is_err());
    assert!(fs.create("ghost").is_err() && fs.list("").is_err());
    assert_eq!(sectors(&next, "f"), "b");
    assert_eq!(outcomes(&next, |f| sectors(f, "f")), set(&["a", "b"]));
    next.lock("lock", "second").unwrap();
    next.open("f", Access::Write).unwrap().sync_data().unwrap();
    assert_eq!(outcomes(&next, |f| sectors(f, "f")), set(&["b"]));
}

#[test]
fn the_power_goes_off_inside_any_call() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
    let before = fs.ops();
    fs.stop_after(2);
    file.write_all_at(&[b'b'; SECTOR], 0).unwrap();
    file.len().unwrap();
    file.sync_data().unwrap();
    assert!(!fs.is_off());
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    assert!(fs.is_off() && file.len().is_err() && fs.list("").is_err());
    assert_eq!(fs.ops() - before, 2);
    let after = fs.crash(1);
    assert_eq!(sectors(&after, "f"), "b");
    after.create("g").unwrap();
}

#[test]
fn a_write_cut_off_leaves_whole_pages_from_its_beginning() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let fs = SimFs::new(seed, Profile::PosixWeak);
        let file = durable_file(&fs, "f", &[b'a'; 3 * BLOCK]);
        fs.stop_after(0);
        file.write_at(&[b'b'; 3 * BLOCK], 0).unwrap_err();
        let next = fs.kill();
        seen.insert(sectors(&next, "f"));
    }
    let pages = |text: &str| text.chars().map(|c| c.to_string().repeat(8)).collect::<String>();
    assert_eq!(
        seen,
        ["aaa", "baa", "bba"].iter().map(|text| pages(text)).collect()
    );
}

#[test]
fn a_crashed_disk_can_crash_again_and_the_first_one_is_unchanged() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
    file.write_all_at(&[b'b'; SECTOR], 0).unwrap();
    let first = fs.crash_with(&mut |_| 0);
    assert_eq!(sectors(&first, "f"), "a");
    first
        .open("f", Access::Write)
        .unwrap()
        .write_all_at(&[b'c'; SECTOR], 0)
        .unwrap();
    assert_eq!(outcomes(&first, |f| sectors(f, "f")), set(&["a", "c"]));
    assert_eq!(sectors(&fs, "f"), "b");
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&["a", "b"]));
}

#[test]
fn what_is_invisible_is_not_asked_for() {
    let fs = disk(Profile::PosixWeak);
    let file = fs.create("f").unwrap();
    file.write_all_at(&[b'b'; 2 * SECTOR], 0).unwrap();
    let mut asked = Vec::new();
    let _ = fs.crash_with(&mut |choice| {
        asked.push(choice.atom.to_string());
        0
    });
    assert_eq!(asked, ["change of a directory by call 1"]);
    let mut atoms = Vec::new();
    let _ = fs.crash_with(&mut |choice| {
        atoms.push(choice.atom.clone());
        choice.newest()
    });
    assert!(matches!(
        atoms[..],
        [
            Atom::Entry { .. },
            Atom::Size { .. },
            Atom::Sector { .. },
            Atom::Sector { .. }
        ]
    ));
    // Gone; or empty; or both sectors, each zero or written.
    assert_eq!(fs.each_crash(1000, &mut |_| {}), (6, true));
    assert_eq!(fs.each_crash(5, &mut |_| {}), (5, false));
}

/// A history with a bit of everything, the same for the same seed.
fn history(fs: &SimFs, mut seed: u64) {
    let mut draw = |limit: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    for _ in 0..6 {
        let path = if draw(2) == 0 { "a" } else { "b" };
        let file = fs.open(path, Access::Write).or_else(|_| fs.create(path)).unwrap();
        match draw(7) {
            0 | 1 => file
                .write_all_at(&[draw(9).to_le_bytes()[0] + b'0'; 700], draw(2) * 512)
                .unwrap(),
            2 => file.set_len(draw(3) * 300).unwrap(),
            3 => file.sync_data().unwrap(),
            4 => fs.rename("a", "b").or_else(|_| fs.rename("b", "a")).unwrap(),
            5 => fs.remove(path).unwrap(),
            _ => fs.sync_dir("").unwrap(),
        }
    }
}

#[test]
fn each_profile_allows_what_the_milder_one_allows() {
    let mut compared = 0;
    for seed in 0..300 {
        let [ext4, weak, hostile] = ALL.map(|profile| {
            let fs = disk(profile);
            history(&fs, seed);
            let mut seen = BTreeSet::new();
            let (_, all) = fs.each_crash(20_000, &mut |after| _ = seen.insert(after.dump()));
            (seen, all)
        });
        assert!(
            !weak.1 || ext4.0.is_subset(&weak.0),
            "ext4 beyond posix, seed {seed}"
        );
        assert!(
            !hostile.1 || weak.0.is_subset(&hostile.0),
            "posix beyond hostile, seed {seed}"
        );
        compared += u32::from(weak.1) + u32::from(hostile.1);
    }
    assert!(
        compared > 500,
        "only {compared} of 600 were small enough to compare"
    );
}

#[test]
fn losing_nothing_is_what_everybody_saw_and_syncing_all_leaves_nothing_open() {
    for profile in ALL {
        for seed in 0..200 {
            let fs = disk(profile);
            history(&fs, seed);
            let kept = fs.crash_with(&mut |choice| choice.newest());
            assert_eq!(kept.dump(), fs.dump(), "{profile:?}, seed {seed}");
            for path in fs.files().keys() {
                fs.open(path, Access::Read).unwrap().sync_data().unwrap();
            }
            fs.sync_dir("").unwrap();
            assert_eq!(
                outcomes(&fs, SimFs::dump),
                BTreeSet::from([fs.dump()]),
                "{profile:?}, seed {seed}"
            );
            assert_eq!(
                fs.each_crash(2, &mut |_| {}),
                (1, true),
                "{profile:?}, seed {seed}"
            );
        }
    }
}

#[test]
fn a_failed_sync_never_makes_more_possible_than_a_crash_before_it() {
    for seed in 0..200 {
        let fs = disk(Profile::PosixWeak);
        history(&fs, seed);
        let before = outcomes(&fs, SimFs::dump);
        for path in fs.files().keys() {
            fs.begin_sync(path).unwrap().fail(Kept::Undecided);
        }
        let after = outcomes(&fs, SimFs::dump);
        assert!(
            after.is_subset(&before) && after.contains(&fs.dump()),
            "seed {seed}"
        );
    }
}

#[test]
fn a_seeded_crash_is_one_of_the_legal_outcomes_and_reproducible() {
    for seed in 0..100 {
        let fs = disk(Profile::PosixWeak);
        history(&fs, seed);
        let (mut legal, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let (_, all) = fs.each_crash(50_000, &mut |after| _ = legal.insert(after.dump()));
        assert!(all, "seed {seed}");
        for cut in 0..400 {
            let after = fs.crash(cut).dump();
            assert!(legal.contains(&after), "seed {seed}, crash {cut}");
            assert_eq!(after, fs.crash(cut).dump(), "seed {seed}, crash {cut}");
            seen.insert(after);
        }
        assert!(
            legal.len() > 8 || seen.len() == legal.len(),
            "seed {seed}: {} of {}",
            seen.len(),
            legal.len()
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_numbers_and_a_crash_gives_new_ones() {
    let draw = |fs: &SimFs| (fs.random(), fs.now_micros());
    assert_eq!(draw(&disk(Profile::Ext4)), draw(&disk(Profile::Ext4)));
    let fs = disk(Profile::PosixWeak);
    let numbers: BTreeSet<u64> = [&fs, &fs.crash(1), &fs.crash(2), &fs.crash(1).crash(1)]
        .map(Fs::random)
        .into();
    assert_eq!(numbers.len(), 4);
    assert!(fs.crash(1).now_micros() > fs.now_micros());
}

#[test]
fn equal_images_have_equal_digests_and_others_do_not() {
    let fs = disk(Profile::PosixWeak);
    history(&fs, 5);
    let mut images = BTreeSet::new();
    let mut digests = BTreeSet::new();
    fs.each_crash(1000, &mut |after| {
        images.insert(after.dump());
        digests.insert(after.digest());
    });
    assert!(images.len() > 4);
    assert_eq!(images.len(), digests.len());
    let zeros = disk(Profile::PosixWeak);
    zeros.create("f").unwrap().write_all_at(&[0; BLOCK], 0).unwrap();
    let hole = disk(Profile::PosixWeak);
    hole.create("f").unwrap().set_len(BLOCK as u64).unwrap();
    assert_eq!(zeros.digest(), hole.digest());
}

/// Prints what crashes of a few MiB cost; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn crashes_of_large_files_are_cheap() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &vec![1; 8 << 20]);
    let time = |what: &str| {
        let start = std::time::Instant::now();
        (0..100).for_each(|seed| drop(fs.crash(seed)));
        println!("{what}: {:?} a crash", start.elapsed() / 100);
    };
    time("nothing pending");
    file.write_all_at(&[2; 64 << 10], 4096).unwrap();
    time("64 KiB pending");
    file.write_all_at(&vec![3; 4 << 20], 4096).unwrap();
    time("4 MiB pending");
    let start = std::time::Instant::now();
    for i in 0..10_000 {
        file.write_all_at(&[5; 300], i * 300).unwrap();
        file.sync_data().unwrap();
    }
    println!("write of 300 bytes and sync: {:?}", start.elapsed() / 10_000);
}
