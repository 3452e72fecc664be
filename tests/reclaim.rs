//! Freed segments take what they stated with them: what was said again above them must be enough.

use everlog::{Config, Journal, LogKey};

/// Facts of a log are said again when the floor rises; then the log is purged further and the floor rises past entries
/// that those facts count. They are no damage: the purge behind them took those entries.
#[test]
fn facts_older_than_the_floor_are_no_damage() {
    for everything in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let config = Config::new().segment_bytes(16 << 10);
        let journal = Journal::create(root.path(), config.clone()).unwrap();
        let logs = [0, 1].map(|key| journal.create_log(LogKey(key), 0).unwrap());
        for _ in 0..100 {
            for log in &logs {
                log.append([7; 1000]).unwrap();
            }
        }
        logs[0].purge_to(100).unwrap();
        logs[1].purge_to(30).unwrap();
        journal.reclaim().unwrap();
        let keep = if everything { 100 } else { 99 };
        logs[1].purge_to(keep).unwrap();
        journal.reclaim().unwrap();
        journal.close().unwrap();

        let journal = Journal::open(root.path(), config).unwrap();
        assert_eq!(journal.log(LogKey(0)).unwrap().bounds().unwrap(), 100..100);
        assert_eq!(journal.log(LogKey(1)).unwrap().bounds().unwrap(), keep..100);
        assert_eq!(
            journal.log(LogKey(1)).unwrap().read(keep..100).count() as u64,
            100 - keep
        );
    }
}
