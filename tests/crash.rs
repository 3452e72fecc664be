//! A crash at any point of a small life, on the simulated disk.

use std::sync::Arc;

use everlog::fs::{Fs, Profile, SimFs};
use everlog::{Background, Config, Journal, LogKey};

#[test]
fn first_try() {
    for seed in 0..300 {
        let disk = SimFs::new(seed, Profile::PosixWeak);
        let config = Config::new()
            .segment_bytes(16 << 10)
            .in_flight_bytes(4 << 10)
            .background(Background::Caller);
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let mut acked = 0;
        let mut issued = 0;
        {
            let journal = Journal::create_on(fs, config.clone()).unwrap();
            let log = journal.create_log(LogKey(1), 0).unwrap();
            disk.stop_after(seed * 3 + 5);
            for i in 0..100 {
                issued = i + 1;
                if log.append(format!("{i}").repeat(50)).is_err() {
                    break;
                }
                acked = i + 1;
            }
        }
        let mut disk = disk.crash(seed);
        for life in 0..4 {
            let fs: Arc<dyn Fs> = Arc::new(disk.clone());
            let journal = Journal::open_on(fs, config.clone())
                .unwrap_or_else(|e| panic!("seed {seed} life {life}: {e}"));
            let log = journal.log(LogKey(1)).unwrap();
            let end = log.bounds().unwrap().end;
            assert!(
                (acked..=issued).contains(&end),
                "seed {seed} life {life}: {acked} {end} {issued}"
            );
            for (i, entry) in log.read(0..end).enumerate() {
                assert_eq!(&entry.unwrap().payload[..], format!("{i}").repeat(50).as_bytes());
            }
            acked = end;
            issued = end;
            drop((log, journal));
            disk = disk.crash(seed + life);
        }
    }
}
