//! The simulated disk keeps its promises: for each rule of what a power cut may leave, all outcomes of a small history
//! are enumerated and compared with the exact set that the rule allows.

use everlog::fs::{Access, Atom, File, Fs, Kept, Profile, SimFs};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
const ALL: [Profile; 3] = [Profile::Ext4, Profile::PosixWeak, Profile::Hostile];

fn disk(profile: Profile) -> SimFs {
    SimFs::new(7, profile)
}

/// A file whose name and content are durable.
fn durable_file(fs: &SimFs, path: &str, content: &[u8]) -> Arc<dyn File> {
    let file = fs.create(path).unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir("").unwrap();
    file
}

/// Every outcome of a power cut, as `look` sees it.
fn outcomes<T: Ord>(fs: &SimFs, look: impl Fn(&SimFs) -> T) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    let (count, all) = fs.each_crash(100_000, &mut |after| _ = seen.insert(look(&after)));
    assert!(all, "more than {count} outcomes");
    seen
}

/// A file as the first byte of each sector: `a` durable, `b` new, `.` zero.
fn sectors(fs: &SimFs, path: &str) -> String {
    match fs.read_raw(path) {
        Ok(bytes) => bytes
            .chunks(SECTOR)
            .map(|s| if s[0] == 0 { '.' } else { char::from(s[0]) })
            .collect(),
        Err(_) => "absent".to_string(),
    }
}

fn names(fs: &SimFs) -> String {
    let files = fs.dump().into_iter();
    files
        .map(|(path, content)| format!("{path}={} ", String::from_utf8_lossy(&content)))
        .collect()
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|s| s.to_string()).collect()
}

// Data and sizes

#[test]
fn synced_data_survives_every_crash() {
    for profile in ALL {
        let fs = disk(profile);
        durable_file(&fs, "f", b"kept");
        assert_eq!(outcomes(&fs, names), set(&["f=kept "]), "{profile:?}");
    }
}

#[test]
fn each_overwritten_sector_is_old_or_new_on_its_own() {
    for profile in [Profile::Ext4, Profile::PosixWeak] {
        let fs = disk(profile);
        let file = durable_file(&fs, "f", &[b'a'; 3 * SECTOR]);
        file.write_all_at(&[b'b'; 3 * SECTOR], 0).unwrap();
        let all = ["aaa", "aab", "aba", "abb", "baa", "bab", "bba", "bbb"];
        assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&all), "{profile:?}");
    }
}

#[test]
fn a_sector_may_hold_any_version_since_the_last_sync() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
    for version in [b'b', b'c', b'b'] {
        file.write_all_at(&[version; SECTOR], 0).unwrap();
    }
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&["a", "b", "c"]));
}

#[test]
fn a_small_write_changes_its_sector_as_a_whole() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", b"0000");
    file.write_all_at(b"1", 1).unwrap();
    file.write_all_at(b"1", 2).unwrap();
    assert_eq!(outcomes(&fs, names), set(&["f=0000 ", "f=0100 ", "f=0110 "]));
}

#[test]
fn with_large_sectors_a_block_is_one_atom() {
    let fs = SimFs::with_sector_bytes(7, Profile::PosixWeak, 4096);
    let file = durable_file(&fs, "f", &[b'a'; BLOCK]);
    file.write_all_at(&[b'b'; BLOCK], 0).unwrap();
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&["aaaaaaaa", "bbbbbbbb"]));
}

#[test]
fn size_and_data_are_independent_unless_ordered() {
    let append = |profile| {
        let fs = disk(profile);
        let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
        file.write_all_at(&[b'b'; 2 * SECTOR], SECTOR as u64).unwrap();
        outcomes(&fs, |f| sectors(f, "f"))
    };
    assert_eq!(
        append(Profile::PosixWeak),
        set(&["a", "a..", "ab.", "a.b", "abb"])
    );
    assert_eq!(append(Profile::Ext4), set(&["a", "abb"]));
}

#[test]
fn a_hole_behind_a_synced_size_reads_zero() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", b"");
    file.set_len(4 * SECTOR as u64).unwrap();
    file.write_all_at(&[b'b'; SECTOR], SECTOR as u64).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&[".b.."]));
}

#[test]
fn a_cut_and_regrown_file_reads_zero_except_on_a_hostile_disk() {
    let regrow = |profile| {
        let fs = disk(profile);
        let file = durable_file(&fs, "f", &[b'a'; 2 * SECTOR]);
        file.set_len(0).unwrap();
        file.set_len(2 * SECTOR as u64).unwrap();
        let first_and_last = |f: &SimFs| {
            let bytes = f.read_raw("f").unwrap();
            (f.ops(), bytes.len(), bytes.contains(&b'a'), bytes.contains(&0))
        };
        let seen = outcomes(&fs, first_and_last);
        seen.into_iter()
            .map(|(_, len, old, zero)| (len, old, zero))
            .collect::<BTreeSet<_>>()
    };
    let len = 2 * SECTOR;
    // The cut never happened; it did; it was undone with zeros.
    let legal = BTreeSet::from([(len, true, false), (0, false, false), (len, false, true)]);
    assert_eq!(regrow(Profile::PosixWeak), legal);
    assert_eq!(regrow(Profile::Ext4), legal);
    assert!(regrow(Profile::Hostile).is_superset(&legal));
}

// Names

#[test]
fn a_synced_file_is_gone_without_a_sync_of_its_directory() {
    let created = |profile| {
        let fs = disk(profile);
        let file = fs.create("f").unwrap();
        file.write_all_at(b"data", 0).unwrap();
        file.sync_data().unwrap();
        outcomes(&fs, names)
    };
    assert_eq!(created(Profile::PosixWeak), set(&["", "f=data "]));
    assert_eq!(created(Profile::Ext4), set(&["f=data "]), "ext4 does it a favour");
}

#[test]
fn a_new_name_may_come_without_the_data() {
    let fs = disk(Profile::PosixWeak);
    let file = fs.create("f").unwrap();
    fs.sync_dir("").unwrap();
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(outcomes(&fs, names), set(&["f= ", "f=\0 ", "f=x "]));
}

#[test]
fn a_rename_target_is_old_or_new_and_never_missing() {
    for profile in [Profile::Ext4, Profile::PosixWeak] {
        let fs = disk(profile);
        durable_file(&fs, "target", b"old");
        let tmp = fs.create("tmp").unwrap();
        tmp.write_all_at(b"new", 0).unwrap();
        tmp.sync_data().unwrap();
        fs.rename("tmp", "target").unwrap();
        let mut legal = set(&["target=old tmp=new ", "target=new "]);
        if profile == Profile::PosixWeak {
            legal.insert("target=old ".to_string());
        }
        assert_eq!(outcomes(&fs, names), legal, "{profile:?}");
        fs.sync_dir("").unwrap();
        assert_eq!(outcomes(&fs, names), set(&["target=new "]), "{profile:?}");
    }
}

#[test]
fn acknowledged_data_may_stand_under_the_old_name() {
    for profile in ALL {
        let fs = disk(profile);
        let file = durable_file(&fs, "spare", b"0000");
        fs.rename("spare", "segment").unwrap();
        file.write_all_at(b"data", 0).unwrap();
        file.sync_data().unwrap();
        assert!(
            outcomes(&fs, names).is_superset(&set(&["spare=data ", "segment=data "])),
            "{profile:?}"
        );
    }
}

#[test]
fn a_removed_file_may_come_back() {
    let fs = disk(Profile::PosixWeak);
    durable_file(&fs, "f", b"data");
    fs.remove("f").unwrap();
    assert_eq!(outcomes(&fs, names), set(&["", "f=data "]));
    fs.sync_dir("").unwrap();
    assert_eq!(outcomes(&fs, names), set(&[""]));
}

#[test]
fn changes_of_one_name_stay_in_order() {
    let fs = disk(Profile::PosixWeak);
    durable_file(&fs, "f", b"1");
    fs.remove("f").unwrap();
    let file = fs.create("f").unwrap();
    file.write_all_at(b"2", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, names), set(&["f=1 ", "", "f=2 "]));
}

#[test]
fn changes_of_different_names_are_independent_unless_ordered() {
    let two = |profile| {
        let fs = disk(profile);
        fs.create("a").unwrap();
        fs.create("b").unwrap();
        outcomes(&fs, names)
    };
    assert_eq!(two(Profile::PosixWeak), set(&["", "a= ", "b= ", "a= b= "]));
    assert_eq!(two(Profile::Ext4), set(&["", "a= ", "a= b= "]));
}

#[test]
fn a_new_directory_needs_a_sync_of_its_parent() {
    let fs = disk(Profile::PosixWeak);
    fs.create_dir("d").unwrap();
    fs.create("d/f").unwrap();
    fs.sync_dir("d").unwrap();
    assert_eq!(outcomes(&fs, names), set(&["", "d/f= "]));
    fs.sync_dir("").unwrap();
    assert_eq!(outcomes(&fs, names), set(&["d/f= "]));
}

#[test]
fn a_move_between_directories_never_loses_the_file() {
    let fs = disk(Profile::PosixWeak);
    fs.create_dir("d").unwrap();
    durable_file(&fs, "f", b"x");
    fs.rename("f", "d/f").unwrap();
    assert_eq!(outcomes(&fs, names), set(&["f=x ", "d/f=x f=x ", "d/f=x "]));
    fs.sync_dir("").unwrap();
    assert_eq!(
        outcomes(&fs, names),
        set(&["d/f=x "]),
        "the removal takes the addition along"
    );
}

#[test]
fn a_hostile_disk_takes_every_name_on_its_own() {
    let fs = disk(Profile::Hostile);
    durable_file(&fs, "old", b"x");
    fs.rename("old", "new").unwrap();
    assert_eq!(
        outcomes(&fs, names),
        set(&["", "old=x ", "new=x ", "new=x old=x "])
    );
}

// Syncs: what they cover, and how they fail

#[test]
fn a_sync_covers_only_what_had_returned_before_it() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; 2 * SECTOR]);
    file.write_all_at(&[b'b'; SECTOR], 0).unwrap();
    let sync = fs.begin_sync("f").unwrap();
    assert_eq!(
        outcomes(&fs, |f| sectors(f, "f")),
        set(&["aa", "ba"]),
        "nothing is sure while it runs"
    );
    file.write_all_at(&[b'c'; SECTOR], 0).unwrap();
    file.write_all_at(&[b'c'; SECTOR], SECTOR as u64).unwrap();
    sync.finish().unwrap();
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&["ba", "ca", "bc", "cc"]));
}

#[test]
fn of_two_overlapping_syncs_only_one_may_see_the_error() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
    file.write_all_at(&[b'b'; SECTOR], 0).unwrap();
    let (one, two) = (fs.begin_sync("f").unwrap(), fs.begin_sync("f").unwrap());
    assert!(one.fail(Kept::Undecided).raw_os_error().is_some());
    two.finish().unwrap();
    assert_eq!(
        outcomes(&fs, |f| sectors(f, "f")),
        set(&["a", "b"]),
        "it said Ok, and the data may be lost"
    );
}

#[test]
fn a_failed_sync_is_told_once_and_marks_all_clean() {
    for profile in ALL {
        let fs = disk(profile);
        let file = durable_file(&fs, "f", &[b'a'; 2 * SECTOR]);
        fs.fail_sync("f", 0, Kept::Undecided);
        file.write_all_at(&[b'b'; 2 * SECTOR], 0).unwrap();
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        file.sync_data().unwrap();
        assert_eq!(sectors(&fs, "f"), "bb", "the cache still has it");
        let seen = outcomes(&fs, |f| sectors(f, "f"));
        assert!(
            seen.is_superset(&set(&["aa", "ab", "ba", "bb"])),
            "{profile:?}: {seen:?}"
        );
    }
}

#[test]
fn an_evict_shows_what_is_durable() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; 2 * SECTOR]);
    fs.fail_sync("f", 1, Kept::Nothing);
    file.write_all_at(&[b'b'; SECTOR], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[b'c'; 2 * SECTOR], 0).unwrap();
    file.sync_data().unwrap_err();
    assert_eq!(sectors(&fs, "f"), "cc");
    assert!(file.evict().unwrap());
    assert_eq!(sectors(&fs, "f"), "ba");
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&["ba"]));
}

#[test]
fn an_evict_decides_what_a_failed_sync_left_open() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let fs = SimFs::new(seed, Profile::PosixWeak);
        let file = durable_file(&fs, "f", &[b'a'; 2 * SECTOR]);
        file.write_all_at(&[b'b'; 2 * SECTOR], 0).unwrap();
        fs.begin_sync("f").unwrap().fail(Kept::Undecided);
        file.evict().unwrap();
        let shown = sectors(&fs, "f");
        assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&[&shown]), "seed {seed}");
        seen.insert(shown);
    }
    assert_eq!(seen, set(&["aa", "ab", "ba", "bb"]));
}

#[test]
fn rewriting_after_a_failed_sync_makes_durable() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; 2 * SECTOR]);
    file.write_all_at(&[b'b'; 2 * SECTOR], 0).unwrap();
    fs.begin_sync("f").unwrap().fail(Kept::Undecided);
    file.write_all_at(&[b'c'; SECTOR], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&["ca", "cb"]));
}

#[test]
fn a_failed_sync_of_grown_data_may_leave_the_old_size_for_good() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
    file.write_all_at(&[b'b'; SECTOR], SECTOR as u64).unwrap();
    fs.begin_sync("f").unwrap().fail(Kept::Undecided);
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&["a", "a.", "ab"]));
}

#[test]
fn a_late_write_back_error_is_told_by_the_next_sync_only() {
    let fs = disk(Profile::PosixWeak);
    let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
    file.write_all_at(&[b'b'; SECTOR], 0).unwrap();
    fs.fail_writeback("f", Kept::Nothing).unwrap();
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&["a"]));
}

#[test]
fn a_failed_directory_sync_forgets_what_it_did_not_keep() {
    let fs = disk(Profile::PosixWeak);
    fs.create("f").unwrap();
    fs.fail_sync_dir("", 0, Kept::Nothing);
    fs.sync_dir("").unwrap_err();
    fs.sync_dir("").unwrap();
    assert_eq!(names(&fs), "f= ");
    assert_eq!(outcomes(&fs, names), set(&[""]));
}

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
        let path = ["a", "b"][draw(2) as usize];
        let file = fs.open(path, Access::Write).or_else(|_| fs.create(path)).unwrap();
        match draw(7) {
            0 | 1 => file
                .write_all_at(&vec![b'0' + draw(9) as u8; 700], draw(2) * 512)
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
