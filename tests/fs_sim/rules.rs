//! What a power cut may leave of data, sizes and names, and what a failed sync does.

use super::*;
use everlog::fs::Kept;

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

/// On ext4, too: seen there as "a.." with `dioread_nolock`, its default.
#[test]
fn size_and_data_are_independent() {
    for profile in [Profile::Ext4, Profile::PosixWeak] {
        let fs = disk(profile);
        let file = durable_file(&fs, "f", &[b'a'; SECTOR]);
        file.write_all_at(&[b'b'; 2 * SECTOR], SECTOR as u64).unwrap();
        let all = ["a", "a..", "ab.", "a.b", "abb"];
        assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&all), "{profile:?}");
    }
}

/// A file system zeroes the rest of the last block as data, and drops the blocks behind it with the size.
#[test]
fn the_zeroed_rest_of_a_cut_block_may_come_before_the_size() {
    for profile in [Profile::Ext4, Profile::PosixWeak] {
        let fs = disk(profile);
        let file = durable_file(&fs, "f", &[b'a'; BLOCK + SECTOR]);
        file.set_len(BLOCK as u64 - 2 * SECTOR as u64).unwrap();
        let all = ["aaaaaaaaa", "aaaaaa.aa", "aaaaaaa.a", "aaaaaa..a", "aaaaaa"];
        assert_eq!(outcomes(&fs, |f| sectors(f, "f")), set(&all), "{profile:?}");
        file.sync_data().unwrap();
        assert_eq!(
            outcomes(&fs, |f| sectors(f, "f")),
            set(&["aaaaaa"]),
            "{profile:?}"
        );
    }
}

#[test]
fn two_files_are_independent() {
    for profile in [Profile::Ext4, Profile::PosixWeak] {
        let fs = disk(profile);
        for path in ["one", "two"] {
            let file = durable_file(&fs, path, b"0");
            file.write_all_at(b"1", 0).unwrap();
        }
        let all = ["one=0 two=0 ", "one=0 two=1 ", "one=1 two=0 ", "one=1 two=1 "];
        assert_eq!(outcomes(&fs, names), set(&all), "{profile:?}");
    }
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
