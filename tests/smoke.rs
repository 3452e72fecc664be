//! The shortest way through everything.

use everlog::{Config, EntryId, Journal, LogKey};

#[test]
fn what_was_appended_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("j");
    let config = Config::new().segment_bytes(64 << 10);
    let journal = Journal::create(&dir, config.clone()).unwrap();
    let log = journal.create_log(LogKey(1), 0).unwrap();
    for i in 0..2000_u64 {
        assert_eq!(log.append(format!("entry {i}")).unwrap(), EntryId::new(0, i));
    }
    log.set(3, b"vote").unwrap();
    log.truncate_from(1990).unwrap();
    log.purge_to(500).unwrap();
    journal.close().unwrap();
    for _ in 0..3 {
        let journal = Journal::open(&dir, config.clone()).unwrap();
        let log = journal.log(LogKey(1)).unwrap();
        assert_eq!(log.bounds().unwrap(), 500..1990);
        for (i, entry) in log.read(500..1990).enumerate() {
            assert_eq!(
                &entry.unwrap().payload[..],
                format!("entry {}", i + 500).as_bytes()
            );
        }
        assert_eq!(log.cell(3).unwrap().as_deref(), Some(&b"vote"[..]));
        println!("{:?}", journal.report());
        journal.close().unwrap();
    }
}
