//! Every file system that there is keeps the contract, and the wrapper that injects faults injects just those.

use everlog::fs::{
    Access, Failure, Fault, FaultFs, Fs, Gate, Kept, Op, Profile, RealFs, Rule, SimFs, contract,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

const ALL: [Profile; 3] = [Profile::Ext4, Profile::PosixWeak, Profile::Hostile];

/// Runs the suite over directories below a temporary one.
fn check_real(wrap: &dyn Fn(RealFs) -> Arc<dyn Fs>) {
    let parent = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    contract::check(&|| {
        count.set(count.get() + 1);
        wrap(RealFs::create(parent.path().join(format!("deep/er/{}", count.get()))).unwrap())
    });
}

fn simulated() -> (SimFs, FaultFs) {
    let sim = SimFs::new(3, Profile::PosixWeak);
    (sim.clone(), FaultFs::new(Arc::new(sim)))
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|e| e.kind())
}

#[test]
fn the_real_file_system_keeps_the_contract() {
    check_real(&|fs| Arc::new(fs));
}

#[test]
fn the_simulated_disk_keeps_the_contract_in_every_profile() {
    for profile in ALL {
        for sector in [512, 4096] {
            contract::check(&|| Arc::new(SimFs::with_sector_bytes(1, profile, sector)));
        }
    }
}

#[test]
fn the_simulated_disk_keeps_the_contract_after_a_crash_and_after_a_kill() {
    contract::check(&|| Arc::new(SimFs::new(1, Profile::PosixWeak).crash(1)));
    contract::check(&|| Arc::new(SimFs::new(1, Profile::PosixWeak).kill()));
}

#[test]
fn the_fault_wrapper_without_rules_keeps_the_contract() {
    check_real(&|fs| Arc::new(FaultFs::new(Arc::new(fs))));
    contract::check(&|| Arc::new(simulated().1));
}

#[test]
fn short_and_interrupted_calls_are_within_the_contract() {
    let shorten = |fs: Arc<dyn Fs>| {
        let fs = FaultFs::new(fs);
        for op in [Op::Read, Op::Write] {
            fs.add(Rule::on(op, Fault::Interrupted));
            fs.add(Rule::on(op, Fault::Short(3000)).forever());
        }
        let file = fs.create("f").unwrap();
        let bytes: Vec<u8> = (0..20_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        file.write_all_at(&bytes, 5).unwrap();
        let mut found = vec![0; bytes.len()];
        file.read_exact_at(&mut found, 5).unwrap();
        assert!(found == bytes);
        assert!(fs.count(Op::Read) >= 8 && fs.count(Op::Write) >= 8);
    };
    shorten(Arc::new(SimFs::new(1, Profile::PosixWeak)));
    let dir = tempfile::tempdir().unwrap();
    shorten(Arc::new(RealFs::open(dir.path()).unwrap()));
}

#[test]
fn open_needs_a_directory_and_create_makes_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        kind(RealFs::open(dir.path().join("none"))),
        Some(io::ErrorKind::NotFound)
    );
    std::fs::write(dir.path().join("file"), b"").unwrap();
    assert_eq!(
        kind(RealFs::open(dir.path().join("file"))),
        Some(io::ErrorKind::NotADirectory)
    );
    assert!(RealFs::create(dir.path().join("file")).is_err());
    assert!(RealFs::create(dir.path().join("file/below")).is_err());
    let path = dir.path().join("a/b/c");
    let fs = RealFs::create(&path).unwrap();
    assert_eq!((fs.root(), fs.display("x/y")), (path.as_path(), path.join("x/y")));
    drop(fs.create("f").unwrap());
    assert_eq!(
        RealFs::create(&path).unwrap().list("").unwrap(),
        ["f"],
        "an old directory stays as it is"
    );
}

#[test]
fn a_real_file_system_knows_its_medium_and_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let medium = RealFs::open(dir.path()).unwrap().medium();
    if Path::new("/proc/self/mountinfo").exists() {
        assert!(medium.kind != "unknown" && !medium.kind.is_empty(), "{medium:?}");
        assert!(
            dir.path().canonicalize().unwrap().starts_with(&medium.mount),
            "{medium:?}"
        );
    }
}

#[test]
fn asking_for_the_holder_never_keeps_a_lock_from_being_taken() {
    let dir = tempfile::tempdir().unwrap();
    let fs = RealFs::open(dir.path()).unwrap();
    drop(fs.lock("lock", "first").unwrap());
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fs.holder("lock").unwrap();
            }
        });
        for round in 0..200 {
            assert!(fs.lock("lock", "again").is_ok(), "round {round}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_rule_befalls_the_nth_matching_call_only() {
    let (_, fs) = simulated();
    let watch = fs.add(Rule::on(Op::Write, Fault::io_error()).path("log").nth(2));
    let (log, other) = (fs.create("log-1").unwrap(), fs.create("other").unwrap());
    let mut results = Vec::new();
    for _ in 0..3 {
        other.write_at(b"x", 0).unwrap();
        results.push(log.write_at(b"x", 0).is_ok());
    }
    assert_eq!(results, [true, false, true]);
    assert_eq!((watch.matched(), watch.fired()), (3, 1));
    assert_eq!((fs.count(Op::Write), fs.count(Op::Create), fs.calls()), (6, 2, 8));
}

#[test]
fn rules_last_as_long_as_they_say_and_can_be_taken_out() {
    let (_, fs) = simulated();
    let file = fs.create("f").unwrap();
    let twice = fs.add(Rule::on(Op::SyncData, Fault::no_space()).times(2));
    let results: Vec<bool> = (0..4).map(|_| file.sync_data().is_ok()).collect();
    assert_eq!((results, twice.fired()), (vec![false, false, true, true], 2));
    let forever = fs.add(Rule::on(Op::SyncData, Fault::io_error()).nth(2).forever());
    let results: Vec<bool> = (0..4).map(|_| file.sync_data().is_ok()).collect();
    assert_eq!(results, [true, false, false, false]);
    forever.remove();
    file.sync_data().unwrap();
    fs.add(Rule::on_any(Fault::io_error()).forever());
    assert!(file.len().is_err() && fs.list("").is_err() && fs.space().is_err() && fs.holder("f").is_err());
    fs.clear();
    file.len().unwrap();
}

#[test]
fn every_operation_can_fail_and_then_has_done_nothing() {
    let (sim, fs) = simulated();
    let file = fs.create("f").unwrap();
    file.write_all_at(b"data", 0).unwrap();
    let before = sim.ops();
    fs.add(Rule::on_any(Fault::Error(Failure::Kind(io::ErrorKind::PermissionDenied))).forever());
    let all = [
        kind(fs.create_dir("d")),
        kind(fs.list("")),
        kind(fs.create("g")),
        kind(fs.open("f", Access::Read)),
        kind(fs.rename("f", "g")),
        kind(fs.remove("f")),
        kind(fs.sync_dir("")),
        kind(fs.lock("lock", "me")),
        kind(fs.holder("lock")),
        kind(fs.space()),
        kind(file.read_at(&mut [0], 0)),
        kind(file.write_at(b"x", 0)),
        kind(file.sync_data()),
        kind(file.len()),
        kind(file.set_len(0)),
        kind(file.evict()),
    ];
    assert_eq!(all, [Some(io::ErrorKind::PermissionDenied); 16]);
    assert_eq!((sim.ops(), sim.dump().len()), (before, 1));
}

#[test]
fn an_error_may_hide_a_success_and_a_success_nothing_at_all() {
    let (sim, fs) = simulated();
    let file = fs.create("f").unwrap();
    fs.add(Rule::on(Op::Write, Fault::ErrorAfter(Failure::Os(5))));
    assert_eq!(file.write_at(b"new", 0).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(sim.read_raw("f").unwrap(), b"new");
    fs.add(Rule::on_any(Fault::Skip).forever());
    assert_eq!(file.write_at(b"lost", 0).unwrap(), 4);
    file.set_len(0).unwrap();
    fs.remove("f").unwrap();
    file.sync_data().unwrap();
    fs.sync_dir("").unwrap();
    assert_eq!(sim.read_raw("f").unwrap(), b"new");
    assert!(
        sim.crash_with(&mut |_| 0).files().is_empty(),
        "the skipped syncs made nothing durable"
    );
    assert_eq!(
        fs.list("").unwrap(),
        ["f"],
        "what has no empty answer is done as usual"
    );
}

#[test]
fn bits_flip_and_calls_go_astray() {
    let (sim, fs) = simulated();
    let file = fs.create("f").unwrap();
    file.write_all_at(b"0123", 0).unwrap();
    fs.add(Rule::on(Op::Read, Fault::FlipBit { byte: 6, bit: 0 }));
    let mut buffer = [0; 4];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"0133");
    fs.add(Rule::on(Op::Read, Fault::Misdirect(2)));
    assert_eq!(
        file.read_at(&mut buffer[..1], 0).map(|_| buffer[0]).unwrap(),
        b'2'
    );
    fs.add(Rule::on(Op::Write, Fault::Misdirect(1)));
    file.write_all_at(b"x", 0).unwrap();
    fs.add(Rule::on(Op::Write, Fault::FlipBit { byte: 0, bit: 5 }));
    file.write_all_at(b"Y", 3).unwrap();
    assert_eq!(sim.read_raw("f").unwrap(), b"0x2y");
}

#[test]
fn a_gate_holds_a_call_back_until_it_is_released() {
    for after in [false, true] {
        let (sim, fs) = simulated();
        let gate = Gate::default();
        let fault = if after { Fault::DelayAfter } else { Fault::Delay };
        fs.add(Rule::on(Op::Write, fault(gate.clone())).forever());
        let file = fs.create("f").unwrap();
        let writer = thread::spawn(move || file.write_all_at(b"x", 0));
        gate.wait_for_arrivals(1);
        assert_eq!(sim.read_raw("f").unwrap().is_empty(), !after);
        gate.release();
        writer.join().unwrap().unwrap();
        assert_eq!(sim.read_raw("f").unwrap(), b"x");
        fs.open("f", Access::Write)
            .unwrap()
            .write_all_at(b"y", 0)
            .unwrap();
    }
}

#[test]
fn a_sync_that_fails_below_the_wrapper_drops_its_pages() {
    let (sim, fs) = simulated();
    let file = fs.create("f").unwrap();
    fs.sync_dir("").unwrap();
    file.write_all_at(b"old", 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"new", 0).unwrap();
    sim.fail_sync("f", 0, Kept::Nothing);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert!(file.evict().unwrap());
    assert_eq!(sim.read_raw("f").unwrap(), b"old");
}
