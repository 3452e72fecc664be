//! The enumerator finds what is to be found, says how much it has looked at, and leads there again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use everlog::fs::sim::{Crashed, Enumerator, Ledger};
use everlog::fs::{Access, Fs, Profile, SimFs};

use super::random::{Random, bytes};
use super::{ALL, SECTOR, durable_file};

/// `count` sectors overwritten and not synced.
fn overwritten(count: usize) -> impl Fn(&SimFs, &Ledger<u8>) {
    move |disk, ledger| {
        ledger.pause();
        let file = durable_file(disk, "a", &vec![b'a'; count * SECTOR]);
        for sector in 0..count {
            file.write_all_at(&[b'b'; SECTOR], (sector * SECTOR) as u64)
                .unwrap();
        }
        ledger.resume();
    }
}

fn sectors(disk: &SimFs) -> Vec<bool> {
    let content = disk.read_raw("a").unwrap();
    content.chunks(SECTOR).map(|sector| sector[0] == b'b').collect()
}

#[test]
fn what_is_not_looked_at_is_not_multiplied_with() {
    // Reads front to back, and stops at the first sector that is old.
    let check = |crashed: &Crashed<'_, u8>| {
        let file = crashed.disk().open("a", Access::Read).unwrap();
        let mut sector = [0; SECTOR];
        for at in 0..60 {
            file.read_exact_at(&mut sector, at * SECTOR as u64).unwrap();
            if sector[0] == b'a' {
                break;
            }
        }
        Ok(())
    };
    let coverage = Enumerator::new(Profile::PosixWeak)
        .run(overwritten(60), check)
        .unwrap();
    assert_eq!(
        (coverage.moments, coverage.exhaustive, coverage.canonical),
        (1, 1, 61)
    );
    assert!(coverage.raw > 1e18 && coverage.deepest == 60);
}

/// Which sectors are new.
type Corner = fn(&[bool]) -> bool;

#[test]
fn a_moment_of_too_many_states_is_sampled_at_its_corners() {
    let enumerator = Enumerator::new(Profile::PosixWeak).limit(10, 40);
    let nothing = |crashed: &Crashed<'_, u8>| {
        sectors(&crashed.disk());
        Ok(())
    };
    let coverage = enumerator.run(overwritten(40), nothing).unwrap();
    assert_eq!((coverage.exhaustive, coverage.sampled), (0, 1));
    let corners: [(&str, Corner); 6] = [
        ("all are kept", |new| new.iter().all(|new| *new)),
        ("one alone is lost", |new| {
            new.iter().filter(|new| !**new).count() == 1 && !new[17]
        }),
        ("one alone is kept", |new| {
            new.iter().filter(|new| **new).count() == 1 && new[23]
        }),
        ("a prefix is kept", |new| {
            new.iter().position(|new| !new) == Some(9) && !new[9..].contains(&true)
        }),
        ("a suffix is kept", |new| {
            new.iter().position(|new| *new) == Some(31) && !new[31..].contains(&false)
        }),
        ("three meet in a certain way", |new| {
            !new[5] && new[19] && !new[38]
        }),
    ];
    for (what, is_there) in corners {
        let check = |crashed: &Crashed<'_, u8>| {
            let found = is_there(&sectors(&crashed.disk()));
            if found { Err(what.to_string()) } else { Ok(()) }
        };
        let violation = enumerator
            .run(overwritten(40), check)
            .expect_err("a corner was not visited");
        let again = enumerator.replay(&violation.script, overwritten(40), check);
        assert_eq!(again.expect_err("the script leads elsewhere").what, what);
    }
}

/// Two files that must agree; the recovery makes them agree, and marks that it did before that is durable.
fn recover(disk: &SimFs, syncs: bool) -> std::io::Result<()> {
    if disk.open("done", Access::Read).is_ok() {
        return Ok(());
    }
    let file = disk.open("a", Access::Write)?;
    file.write_all_at(b"fixed", 0)?;
    if syncs {
        file.sync_data()?;
    }
    disk.create("done")?;
    disk.sync_dir("")
}

#[test]
fn a_recovery_that_does_not_survive_a_power_cut_is_found() {
    let workload = |disk: &SimFs, _: &Ledger<u8>| drop(durable_file(disk, "a", b"wrong"));
    let check = |syncs| {
        move |crashed: &Crashed<'_, u8>| {
            let disk = crashed.disk();
            let Ok(file) = disk.open("a", Access::Read) else {
                return Ok(());
            };
            if file.len().unwrap() < 5 {
                return Ok(());
            }
            recover(&disk, syncs).unwrap();
            crashed.recovered();
            let found = disk.read_raw("a").unwrap();
            if found == b"fixed" {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&found).into_owned())
            }
        }
    };
    let enumerator = Enumerator::new(Profile::PosixWeak);
    enumerator
        .run(workload, check(false))
        .expect("one power cut is survived");
    let nested = enumerator.nested(2, 1000, 1000).nested_every(1);
    let coverage = nested.run(workload, check(true)).expect("this recovery is sound");
    assert!(coverage.nested_exhaustive > 0 && coverage.nested_visited == coverage.nested_exhaustive);
    let violation = nested
        .run(workload, check(false))
        .expect_err("the second one is not");
    assert_eq!(violation.moments.len(), 2, "{violation}");
    let again = nested.replay(
        &violation.script.to_string().parse().unwrap(),
        workload,
        check(false),
    );
    assert_eq!(
        again.unwrap_err().to_string().lines().next(),
        violation.to_string().lines().next()
    );
}

#[test]
fn a_check_that_panics_or_is_not_deterministic_is_told() {
    let enumerator = Enumerator::new(Profile::PosixWeak);
    let violation = enumerator
        .run(overwritten(3), |_: &Crashed<'_, u8>| panic!("of a defect"))
        .unwrap_err();
    assert_eq!(violation.what, "the check panicked: of a defect");
    let calls = Cell::new(0);
    let fickle = |crashed: &Crashed<'_, u8>| {
        calls.set(calls.get() + 1);
        let file = crashed.disk().open("a", Access::Read).unwrap();
        let mut sector = [0; SECTOR];
        // The first time a sector with two outcomes is looked at first, then one with three.
        let first = if calls.get() == 1 { 0 } else { SECTOR as u64 };
        for at in [first, 2 * SECTOR as u64] {
            file.read_exact_at(&mut sector, at).unwrap();
        }
        Ok(())
    };
    let workload = |disk: &SimFs, ledger: &Ledger<u8>| {
        overwritten(3)(disk, ledger);
        let file = disk.open("a", Access::Write).unwrap();
        file.write_all_at(&[b'c'; SECTOR], SECTOR as u64).unwrap();
    };
    let violation = enumerator.run(workload, fickle).unwrap_err();
    assert!(violation.what.contains("not deterministic"), "{violation}");
}

/// What a power cut before any call leaves, one before a sync or at the end leaves, too.
#[test]
fn power_cuts_before_syncs_leave_all_there_is() {
    for profile in ALL {
        for seed in 0..25 {
            let workload = |disk: &SimFs, ledger: &Ledger<u8>| {
                let file = durable_file(disk, "a", &bytes(seed, 700));
                let mut random = Random::new(seed);
                for n in 0..4_u64 {
                    ledger.issue(0);
                    let len = 1 + random.below(600);
                    file.write_all_at(&bytes(seed + n, len), random.below(900))
                        .unwrap();
                    match random.below(4) {
                        0 => file.sync_data().unwrap(),
                        1 => disk.sync_dir("").unwrap(),
                        2 => _ = disk.create(&format!("f{n}")).unwrap(),
                        _ => file.set_len(random.below(900)).unwrap(),
                    }
                }
            };
            let seen = |enumerator: Enumerator| {
                let seen = RefCell::new(BTreeSet::new());
                let check = |crashed: &Crashed<'_, u8>| {
                    seen.borrow_mut()
                        .insert(without_garbage(profile, &crashed.disk()));
                    Ok(())
                };
                let coverage = enumerator.run(workload, check).unwrap();
                assert_eq!(coverage.sampled, 0);
                seen.into_inner()
            };
            let enumerator = Enumerator::new(profile);
            let (few, all) = (seen(enumerator.clone()), seen(enumerator.every_call()));
            assert!(
                few == all,
                "{profile:?}, seed {seed}: {} of {} states",
                few.len(),
                all.len()
            );
        }
    }
}

/// The image; on a hostile disk, where the garbage depends on the moment, only names and sizes.
fn without_garbage(profile: Profile, disk: &SimFs) -> Vec<(String, u64, Vec<u8>)> {
    let hostile = profile == Profile::Hostile;
    let files = disk.files().into_iter();
    let content = |path: &str| {
        if hostile {
            Vec::new()
        } else {
            disk.read_raw(path).unwrap()
        }
    };
    files
        .map(|(path, len)| (path.clone(), len, content(&path)))
        .collect()
}
