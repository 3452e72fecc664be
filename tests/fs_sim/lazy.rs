//! The enumerator reaches exactly the states that a power cut which decides everything at once reaches, whatever a recovery
//! looks at, writes and syncs before it is cut short itself; and it needs fewer of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use everlog::fs::sim::{Crashed, Enumerator, Ledger};
use everlog::fs::{Access, Fs, Profile, SimFs};

use super::random::{Random, bytes};
use super::{ALL, SECTOR, durable_file};

type Dump = BTreeMap<String, Vec<u8>>;

/// Does something small to the disk. Everything depends on `random` and on what the disk shows.
fn step(disk: &SimFs, random: &mut Random) -> std::io::Result<()> {
    let names = ["a", "b", "c"];
    let name = random.pick(&names);
    let sector = SECTOR as u64;
    match random.below(14) {
        0..=5 => {
            let file = match disk.open(name, Access::Write) {
                Ok(file) => file,
                Err(_) => disk.create(name)?,
            };
            let (at, len) = (random.below(3) * sector, 1 + random.below(2 * sector));
            let at = at + if random.one_in(3) { random.below(sector) } else { 0 };
            file.write_all_at(&bytes(random.next(), len), at)?;
        }
        6 => disk
            .open(name, Access::Write)?
            .set_len(random.below(4 * sector))?,
        7 => disk.rename(name, random.pick(&names))?,
        8 => disk.remove(name)?,
        9 => disk.sync_dir("")?,
        10 | 11 => disk.open(name, Access::Write)?.sync_data()?,
        12 => _ = disk.open(name, Access::Read)?.len()?,
        _ => {
            let file = disk.open(name, Access::Read)?;
            let mut buffer = vec![0; random.index(2 * SECTOR)];
            // What it reads decides what it does next.
            let read = file.read_at(&mut buffer, random.below(3) * sector)?;
            let odd = buffer[..read].first().is_some_and(|byte| byte % 2 == 1);
            if odd {
                random.next();
            }
        }
    }
    Ok(())
}

/// Two files at rest, and a few changes that nothing has covered.
fn history(disk: &SimFs, seed: u64) {
    durable_file(disk, "a", &bytes(seed, 900));
    durable_file(disk, "b", &bytes(seed + 1, 300));
    let mut random = Random::new(seed);
    for _ in 0..2 + random.below(3) {
        let _refused = step(disk, &mut random);
    }
}

/// Says that it was there, then does a few things.
fn recover(disk: &SimFs, seed: u64) {
    let mut random = Random::new(seed ^ 0xabc);
    if random.one_in(2) {
        let _refused = step(disk, &mut random);
    }
    let _there = disk.create("mark");
    let _cut = disk.sync_dir("");
    for _ in 0..4 {
        let _refused = step(disk, &mut random);
    }
}

fn disk(profile: Profile) -> SimFs {
    SimFs::new(1, profile)
}

const STATES_MAX: u64 = 1200;

/// What a power cut in the history may leave, and what a second one in the recovery from that; `None` if that is too much.
fn at_once(profile: Profile, seed: u64) -> Option<(BTreeSet<Dump>, BTreeSet<Dump>, u64)> {
    let before = disk(profile);
    history(&before, seed);
    let (mut first, mut second) = (BTreeSet::new(), BTreeSet::new());
    let mut whole = true;
    let (count, all) = before.each_crash(STATES_MAX / 10, &mut |after| {
        first.insert(after.dump());
        for calls in 0.. {
            let again = after.fork();
            again.stop_after(calls);
            recover(&again, seed);
            let (_, all) = again.each_crash(STATES_MAX, &mut |last| {
                let dump = last.dump();
                if dump.contains_key("mark") {
                    second.insert(dump);
                }
            });
            whole &= all;
            if !again.is_off() || !whole {
                break;
            }
        }
    });
    (all && whole).then_some((first, second, count))
}

#[test]
fn what_is_decided_late_is_what_is_decided_at_once() {
    let seeds = std::env::var("EVERLOG_SEEDS").map_or(16, |seeds| seeds.parse().expect("a number"));
    let (mut compared, mut at_once_total, mut late_total) = (0, 0, 0);
    for profile in ALL {
        for seed in 0..seeds {
            let Some((first, second, count)) = at_once(profile, seed) else {
                continue;
            };
            let workload = |disk: &SimFs, ledger: &Ledger<()>| {
                ledger.pause();
                history(disk, seed);
                ledger.resume();
            };
            let enumerator = Enumerator::new(profile)
                .every_call()
                .nested(2, u64::MAX, u64::MAX)
                .nested_every(1);
            let found = RefCell::new(BTreeSet::new());
            let all = |crashed: &Crashed<'_, ()>| {
                found.borrow_mut().insert(crashed.disk().dump());
                Ok(())
            };
            enumerator.run(workload, all).unwrap();
            assert_eq!(
                found.take(),
                first,
                "{profile:?}, seed {seed}: after one power cut"
            );
            let marked = |crashed: &Crashed<'_, ()>| {
                let disk = crashed.disk();
                if disk.open("mark", Access::Read).is_ok() {
                    found.borrow_mut().insert(disk.dump());
                } else {
                    recover(&disk, seed);
                }
                Ok(())
            };
            let coverage = enumerator.run(workload, marked).unwrap();
            assert_eq!(coverage.sampled, 0);
            let missing = second.difference(&found.borrow()).count();
            let phantom = found.borrow().difference(&second).count();
            assert!(
                missing + phantom == 0,
                "{profile:?}, seed {seed}: {missing} states are not reached, {phantom} should not be"
            );
            compared += second.len();
            at_once_total += count;
            late_total += coverage.canonical;
        }
    }
    println!(
        "figure: lazy enumeration: {compared} states compared, {late_total} canonical for {at_once_total} raw"
    );
    assert!(compared > 1_000 && late_total < at_once_total);
}
