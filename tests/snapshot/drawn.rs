//! Longer lives of a store, cut off at every call to the disk, with crash states that are drawn, and cut off once more while the
//! next life opens and collects. `EVERLOG_SEED=n` runs one of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use everlog::fs::SimFs;
use everlog::snapshot::{Creation, Retention, Store};

use super::random::Random;
use super::small::{config, disk, draft, open};
use super::story::{Held, Life, held};

/// What may be on the disk: snapshots that must be there, and those that may be.
#[derive(Clone, Debug, Default)]
struct Allowed {
    must: Held,
    may: Held,
}

impl Allowed {
    fn check(&self, found: &Held) -> Result<(), String> {
        let lost = self
            .must
            .iter()
            .find(|(index, state)| found.get(index) != Some(state));
        if let Some((index, _)) = lost {
            return Err(format!("snapshot {index} is lost, or another one"));
        }
        let known = |index: &u64| self.must.get(index).or_else(|| self.may.get(index));
        match found.iter().find(|(index, state)| known(index) != Some(state)) {
            Some((index, _)) => Err(format!("snapshot {index} is there, and must not be")),
            None => Ok(()),
        }
    }

    /// About to be committed: it may be there from now on.
    fn issue(&mut self, index: u64, state: &[u8]) {
        self.may.insert(index, state.to_vec());
    }

    fn committed(&mut self, index: u64) {
        let state = self.may.remove(&index).expect("it was issued");
        self.must.insert(index, state);
    }

    /// About to be removed: it may be gone from now on.
    fn doubt(&mut self, index: u64) {
        if let Some(state) = self.must.remove(&index) {
            self.may.insert(index, state);
        }
    }
}

/// One life after the other, until the power goes.
struct Story {
    life: Life,
    allowed: Allowed,
    random: Random,
    /// A creation that others overtake, with its state.
    pending: Option<(Creation, u64, Vec<u8>)>,
}

impl Story {
    fn run(&mut self, steps: u32) -> everlog::Result<()> {
        self.life.open(config())?;
        for _ in 0..steps {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> everlog::Result<()> {
        match self.random.below(9) {
            0 | 1 => self.begin(false),
            2..=4 => self.begin(true),
            5 => self.finish(),
            6 => self.collect(&Retention::new().newest(2)),
            7 => self.rewrite(),
            _ => {
                self.pending = None;
                self.life.disk = self.life.disk.kill();
                self.life.open(config())
            }
        }
    }

    /// Writes a snapshot; every other one is left for later.
    fn begin(&mut self, shares: bool) -> everlog::Result<()> {
        self.finish()?;
        let (index, bytes) = self.life.next_state(shares);
        let mut creation = self.life.store().create(draft(index))?;
        creation.write_all(&bytes).map_err(super::small::unwrapped)?;
        self.pending = Some((creation, index, bytes));
        match self.random.one_in(2) {
            true => self.finish(),
            false => Ok(()),
        }
    }

    fn finish(&mut self) -> everlog::Result<()> {
        let Some((creation, index, bytes)) = self.pending.take() else {
            return Ok(());
        };
        self.allowed.issue(index, &bytes);
        creation.commit()?;
        self.allowed.committed(index);
        self.life.now.insert(index, bytes);
        Ok(())
    }

    fn collect(&mut self, retention: &Retention) -> everlog::Result<()> {
        for snapshot in self.life.store().would_remove(retention)? {
            self.allowed.doubt(snapshot.covers.index);
            self.life.now.remove(&snapshot.covers.index);
        }
        let collected = self.life.store().collect(retention)?;
        // They are gone for good, whatever became of their space.
        self.allowed.may.clear();
        collected.kept_because.map_or(Ok(()), Err)
    }

    fn rewrite(&mut self) -> everlog::Result<()> {
        self.pending = None;
        let oldest = self.life.now.keys().next().copied();
        if let Some(index) = oldest.filter(|_| self.life.now.len() > 1) {
            self.allowed.doubt(index);
            self.life.remove(index)?;
            self.allowed.may.clear();
        }
        self.life.rewrite()
    }
}

fn story(seed: u64, disk: &SimFs) -> Story {
    Story {
        life: Life::new(disk),
        allowed: Allowed::default(),
        random: Random::new(seed),
        pending: None,
    }
}

/// Opens what a power cut left, collects, and looks.
fn recover(disk: &SimFs) -> everlog::Result<Store> {
    let store = Store::open_on(Arc::new(disk.clone()), config().rewrite_below_percent(100))?;
    store.collect(&Retention::new().newest(100))?;
    Ok(store)
}

fn check(disk: &SimFs, allowed: &Allowed) -> Result<(), String> {
    let store = recover(disk).map_err(|e| format!("opening and collecting fails: {e:?}"))?;
    let found = held(&store)?;
    allowed.check(&found)?;
    drop(store);
    match held(&open(disk))? == found {
        true => Ok(()),
        false => Err("the next opening finds something else".to_string()),
    }
}

/// Cuts the life of a seed off after each of its calls; returns how many states were looked at.
fn cut_everywhere(seed: u64, steps: u32, stride: usize) -> u64 {
    let whole = disk();
    story(seed, &whole).run(steps).expect("the disk is fine");
    let calls = whole.ops();
    let mut states = 0;
    for cut in (0..calls).step_by(stride) {
        let cut = cut + seed % stride as u64;
        let disk = disk();
        let mut story = story(seed, &disk);
        disk.stop_after(cut);
        // It may be cut in a call whose failure matters to nobody.
        let _ = story.run(steps);
        let allowed = story.allowed.clone();
        let disk = story.life.disk.clone();
        drop(story);
        for draw in 0..4 {
            let told = |what: String| panic!("EVERLOG_SEED={seed}: cut at call {cut}, drawn {draw}: {what}");
            let crashed = disk.crash(draw);
            check(&crashed.fork(), &allowed).unwrap_or_else(told);
            let nested = crashed.fork();
            nested.stop_after(1 + (cut + draw) % 12);
            let _ = recover(&nested);
            check(&nested.crash(draw), &allowed).unwrap_or_else(|what| told(format!("cut again: {what}")));
            states += 2;
        }
    }
    states
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_that_was_committed() {
    let one = std::env::var("EVERLOG_SEED")
        .ok()
        .map(|text| text.parse().expect("a seed"));
    let seeds: Vec<u64> = one.map_or_else(|| (0..24).collect(), |seed| vec![seed]);
    let states: u64 = seeds.iter().map(|seed| cut_everywhere(*seed, 14, 3)).sum();
    println!(
        "figure: snapshots drawn: {} lives, {states} crash states",
        seeds.len()
    );
}

/// A kill takes nothing that was written, and a second life goes on where the first one was.
#[test]
fn a_kill_at_any_call_loses_nothing_that_was_committed() {
    for seed in 100..104 {
        let whole = disk();
        story(seed, &whole).run(10).expect("the disk is fine");
        for cut in (0..whole.ops()).step_by(2) {
            let disk = disk();
            let mut story = story(seed, &disk);
            disk.stop_after(cut);
            let _ = story.run(10);
            let after = story.life.disk.kill();
            let told = |what: String| panic!("seed {seed}: killed at call {cut}: {what}");
            // What the next life lists no power cut takes away, although nothing is written since.
            let listed = held(&open(&after)).unwrap_or_else(|what| panic!("seed {seed}, {cut}: {what}"));
            let crashed = held(&open(&after.crash_with(&mut |_| 0)));
            assert!(
                crashed == Ok(listed),
                "seed {seed}: killed at call {cut}, then a power cut"
            );
            check(&after, &story.allowed).unwrap_or_else(told);
            // What the killed process had, and did not give back, is gone with it.
            let files = after.files();
            let unfinished = files.keys().find(|path| path.ends_with(".tmp"));
            assert_eq!(unfinished, None, "seed {seed}: killed at call {cut}");
        }
    }
}

/// What crashes leave does not add up: after a collection there is nothing but what the snapshots need.
#[test]
fn crashes_leave_nothing_behind_for_ever() {
    let mut disk = disk();
    for round in 0..200 {
        let mut story = story(round, &disk);
        disk.stop_after(3 + round % 17);
        let _ = story.run(8);
        disk = story.life.disk.crash(round);
    }
    let store = open(&disk);
    let list = store.list().unwrap();
    list.iter()
        .for_each(|snapshot| drop(store.remove(snapshot.id).unwrap()));
    store.collect(&Retention::new()).unwrap();
    let left: BTreeMap<_, _> = disk.files();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["snapshots.lock"], "{left:?}");
}
