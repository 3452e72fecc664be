//! Looking without holding: beside a live writer, after a kill, while files go.

use std::sync::Arc;
use std::thread;

use everlog::fs::{Fault, FaultFs, Fs, Gate, Op, Rule, SimFs};
use everlog::inspect::{FindingKind, View};
use everlog::{ErrorKind, LogKey};

use super::support::{A, disk, dynamic, entry, keep_all, one_log, segments, small, try_open};

fn view(disk: &SimFs, story: &str) -> View {
    View::open_on(dynamic(disk), small()).unwrap_or_else(|e| panic!("{story}: {e}"))
}

fn shown(view: &View) -> u64 {
    let log = view.log(A).unwrap();
    let bounds = log.bounds().unwrap();
    for (i, found) in (bounds.start..).zip(log.read(bounds.clone())) {
        assert_eq!(found.unwrap().payload[..], entry(i, 700));
    }
    bounds.end
}

/// Rule 30: "Bytes above DT are neither torn nor damaged, they are 'not yet'. A successor's opening counts as DT." After each of
/// many writes, through rotations, the view shows a prefix, at most one write behind the durable ones, and no finding.
#[test]
fn a_view_beside_a_writer_sees_what_is_proven_and_finds_nothing_wrong() {
    let disk = disk(1);
    let (journal, log) = one_log(&disk);
    for i in 0..40 {
        let relaxed = i % 5 == 4;
        let append = if relaxed {
            log.append_relaxed(entry(i, 700))
        } else {
            log.append(entry(i, 700))
        };
        append.unwrap();
        let story = format!("after entry {i}");
        let view = view(&disk, &story);
        assert!(view.live() && view.holder().is_some(), "{story}");
        assert!(view.findings().is_empty(), "{story}: {:?}", view.findings());
        let durable = log.durable_end().unwrap();
        if durable > 1 {
            let end = shown(&view);
            assert!(
                end <= durable && end + 2 >= durable,
                "{story}: {end} of {durable}"
            );
        }
        if i % 11 == 10 {
            while journal.work().unwrap() {}
        }
    }
    drop((log, journal));
}

/// "Lists S1..S9; the floor moves; S1 is ENOENT": views while segments are freed find no damage.
#[test]
fn a_view_while_segments_go_finds_no_damage() {
    let disk = disk(2);
    let (journal, log) = one_log(&disk);
    for round in 0..12_u64 {
        for i in 0..6 {
            log.append(entry(round * 6 + i, 700)).unwrap();
        }
        log.purge_to(round * 6 + 3).unwrap();
        let before = segments(&disk).len();
        journal.reclaim().unwrap();
        let view = view(&disk, &format!("round {round}"));
        assert!(
            view.findings().is_empty(),
            "round {round}, {before} segments before: {:?}",
            view.findings()
        );
        assert!(view.log(A).unwrap().bounds().unwrap().start <= round * 6 + 3);
    }
    drop((log, journal));
}

/// A view whose directory listing is old: the files it wants to open are gone. It lists again.
#[test]
fn a_view_with_an_old_listing_looks_again() {
    let disk = disk(3);
    let (journal, log) = one_log(&disk);
    for i in 0..20 {
        log.append(entry(i, 700)).unwrap();
    }
    log.purge_to(18).unwrap();
    journal.sync().unwrap();
    // Between the view's listing and its first open of a segment, the floor moves: as a fault that runs the reclaim.
    let gate = everlog::fs::Gate::default();
    let faults = FaultFs::new(Arc::new(disk.clone()));
    faults.add(everlog::fs::Rule::on(Op::Open, everlog::fs::Fault::Delay(gate.clone())).path(".seg"));
    let viewer = {
        let fs: Arc<dyn Fs> = Arc::new(faults);
        std::thread::spawn(move || View::open_on(fs, small()))
    };
    gate.wait_for_arrivals(1);
    assert!(journal.reclaim().unwrap().segments > 0);
    gate.release();
    let view = viewer.join().unwrap().unwrap();
    assert!(view.findings().is_empty(), "{:?}", view.findings());
    assert_eq!(view.log(A).unwrap().bounds().unwrap(), 18..20);
    drop((log, journal));
}

/// "With no holder, the recovery view (read only, nothing carried)": after a kill it shows what an open would, and changes nothing.
#[test]
fn a_view_without_a_holder_shows_what_an_open_would() {
    for seed in 0..30 {
        let disk = disk(seed);
        let (journal, log) = one_log(&disk);
        for i in 0..10 {
            let append = if i < 7 {
                log.append(entry(i, 700))
            } else {
                log.append_relaxed(entry(i, 700))
            };
            append.unwrap();
        }
        let after = disk.crash(seed);
        let before = after.dump();
        let view = view(&after, &format!("seed {seed}"));
        let (end, live) = (shown(&view), view.live());
        assert!(after.dump() == before, "seed {seed}: a view changes nothing");
        assert!(!live, "seed {seed}");
        let opened = try_open(&after).unwrap();
        assert_eq!(opened.log(A).unwrap().bounds().unwrap().end, end, "seed {seed}");
        drop((log, journal));
    }
}

/// A view of a damaged journal goes as far as it goes, and names the place.
#[test]
fn a_view_of_a_damaged_journal_reads_what_is_left() {
    let disk = disk(4);
    let (journal, log) = one_log(&disk);
    for i in 0..20 {
        log.append(entry(i, 700)).unwrap();
    }
    drop(log);
    journal.close().unwrap();
    for path in segments(&disk) {
        let damaged = keep_all(&disk);
        let victim = super::support::batches_of(&damaged, &path)
            .into_iter()
            .find(|batch| batch.frames > 0)
            .unwrap();
        damaged.flip_bit(&path, victim.offset + 200, 3).unwrap();
        let view = view(&damaged, &path);
        let log = view.log(A);
        let good = log.map_or(0, |log| {
            log.read(0..20).filter(Result::is_ok).count() + (0..20).filter(|i| log.get(*i).is_ok()).count()
        });
        let named = view
            .findings()
            .iter()
            .any(|finding| finding.path.ends_with(&path));
        let refused = try_open(&damaged).err().map(|error| error.kind());
        let reads_damaged = view.log(A).is_ok_and(|log| {
            (0..20)
                .filter_map(|i| log.get(i).err())
                .all(|e| e.kind() == ErrorKind::Damaged)
        });
        assert!(named || reads_damaged, "{path}: {:?}", view.findings());
        assert!(good > 0 || refused == Some(ErrorKind::Damaged), "{path}");
    }
}

/// The floor has no witness yet, and what it freed is gone: a view beside the writer finds nothing wrong, and what it shows can be
/// read. Several logs, of which each purge leaves some entries, some cells, or nothing.
#[test]
fn a_view_beside_a_writer_whose_floor_has_no_witness_finds_nothing_damaged() {
    let mut frees = 0;
    for seed in 0..40_u64 {
        let disk = disk(seed);
        let journal = super::support::create(&disk);
        let logs: Vec<_> = (1..5)
            .map(|key| journal.create_log(LogKey(key), seed % 3).unwrap())
            .collect();
        for step in 0..60_u64 {
            let (n, draw) = (
                usize::try_from((step * 7 + seed) % 4).unwrap(),
                (step * 13 + seed * 5) % 23,
            );
            let (log, bounds) = (&logs[n], logs[n].bounds().unwrap());
            match draw {
                0..=13 => drop(log.append(entry(bounds.end, 300 + 40 * n)).unwrap()),
                14 | 15 => log.set(1, entry(step, 30)).unwrap(),
                16 | 17 => log
                    .truncate_from(bounds.end.saturating_sub(1).max(bounds.start))
                    .unwrap(),
                18 | 19 => log
                    .purge_to(bounds.start + (bounds.end - bounds.start) / 2)
                    .unwrap(),
                _ => log.purge_to(bounds.end).unwrap(),
            }
            let freed = draw > 16 && journal.reclaim().unwrap().segments > 0;
            let story = format!("seed {seed}, step {step}, freed {freed}");
            let view = view(&disk, &story);
            assert!(view.findings().is_empty(), "{story}: {:?}", view.findings());
            for key in view.logs() {
                let shown = view.log(key).unwrap();
                for index in shown.bounds().unwrap() {
                    shown
                        .get(index)
                        .unwrap_or_else(|e| panic!("{story}: {index} of {key}: {e}"));
                }
            }
            if !freed {
                continue;
            }
            // Files go only when everything up to the floor is synced.
            frees += 1;
            assert_eq!(view.logs(), journal.logs(), "{story}");
            for log in &logs {
                let shown = view.log(log.key()).unwrap();
                let story = format!("{story}, log {}", log.key());
                assert_eq!(shown.bounds().unwrap(), log.bounds().unwrap(), "{story}");
                assert_eq!(shown.purged().unwrap(), log.purged().unwrap(), "{story}");
                assert_eq!(shown.cell(1).unwrap(), log.cell(1).unwrap(), "{story}");
            }
        }
        drop((logs, journal));
    }
    assert!(frees > 40, "only {frees} times something was freed");
}

/// Openings that the system does not give are not damaged, for all that anybody knows: a view says `Io`.
#[test]
fn openings_that_cannot_be_read_are_no_damage() {
    let disk = disk(9);
    let (journal, log) = one_log(&disk);
    for i in 0..20 {
        log.append(entry(i, 700)).unwrap();
    }
    for path in segments(&disk) {
        disk.set_unreadable(&path, 0..32, true).unwrap();
    }
    let Err(error) = View::open_on(dynamic(&disk), small()) else {
        panic!("there is nothing to look at");
    };
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    for path in segments(&disk) {
        disk.set_unreadable(&path, 0..32, false).unwrap();
    }
    assert!(view(&disk, "readable again").findings().is_empty());
    // One of two copies is enough, and is not called damaged either.
    let path = &segments(&disk)[1];
    disk.set_unreadable(path, 8..9, true).unwrap();
    let view = view(&disk, "one copy");
    let kinds: Vec<FindingKind> = view.findings().iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::Unreadable], "{:?}", view.findings());
    drop((log, journal));
}

/// Nobody holds the journal when a view begins, and nobody when it ends: a whole life came between two of its calls, and freed what
/// the view had listed. Whichever calls those are, it finds no damage.
#[test]
fn a_view_that_a_whole_life_overtakes_finds_no_damage() {
    let disk = disk(11);
    let (journal, log) = one_log(&disk);
    for i in 0..30 {
        log.append(entry(i, 700)).unwrap();
    }
    while journal.work().unwrap() {}
    drop((log, journal));
    let calls = {
        let faults = FaultFs::new(Arc::new(disk.fork()));
        let all = faults.add(Rule::on_any(Fault::Skip).nth(u64::MAX));
        drop(View::open_on(Arc::new(faults), small()).unwrap());
        all.matched()
    };
    for call in 1..=calls {
        let disk = disk.fork();
        let faults = FaultFs::new(Arc::new(disk.clone()));
        let gate = Gate::default();
        faults.add(Rule::on_any(Fault::Delay(gate.clone())).nth(call));
        let looking = thread::spawn(move || View::open_on(Arc::new(faults), small()));
        gate.wait_for_arrivals(1);
        let journal = super::support::open(&disk, "the life between");
        let log = journal.log(A).unwrap();
        log.purge_to(28).unwrap();
        assert!(journal.reclaim().unwrap().segments > 0);
        drop((log, journal));
        gate.release();
        let view = looking.join().unwrap();
        let view = view.unwrap_or_else(|e| panic!("before call {call} of {calls}: {e}"));
        assert!(
            view.findings().is_empty(),
            "before call {call} of {calls}: {:?}",
            view.findings()
        );
    }
}
