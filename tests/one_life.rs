//! A small life of a journal on the simulated disk, with and without threads: entries, a cell, a rotation, a callback, a purge, a power
//! cut, and the life after it. Small enough for Miri (scripts/miri), which then sees every module at work.

use std::sync::Arc;
use std::sync::mpsc::channel;

use everlog::fs::{Profile, SimFs};
use everlog::{Background, Config, Journal, LogKey};

fn config(background: Background) -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .background(background)
}

fn live(background: Background) {
    let disk = SimFs::new(1, Profile::PosixWeak);
    let journal = Journal::create_on(Arc::new(disk.clone()), config(background)).unwrap();
    let log = journal.create_log(LogKey(1), 0).unwrap();
    for index in 0..3_u8 {
        log.append([index; 1500]).unwrap();
    }
    log.set(0, b"vote").unwrap();
    log.append_relaxed(b"relaxed").unwrap();
    let (tell, told) = channel();
    log.submit(b"submitted").unwrap().on_done(move |id| {
        let _ = tell.send(id.map(|id| id.index));
    });
    while background == Background::Caller && journal.work().unwrap() {}
    assert_eq!(told.recv().unwrap().unwrap(), 4);
    log.truncate_from(4).unwrap();
    log.purge_to(2).unwrap();
    let after = disk.crash(7);
    journal.close().unwrap();

    let journal = Journal::open_on(Arc::new(after), config(background)).unwrap();
    let log = journal.log(LogKey(1)).unwrap();
    assert_eq!(log.bounds().unwrap(), 2..4);
    assert_eq!(log.get(2).unwrap()[..], [2; 1500]);
    assert_eq!(log.get(3).unwrap()[..], *b"relaxed");
    assert_eq!(log.cell(0).unwrap().unwrap()[..], *b"vote");
    journal.close().unwrap();
}

#[test]
fn a_small_life_without_threads() {
    live(Background::Caller);
}

#[test]
fn a_small_life_with_threads() {
    live(Background::Threads);
}
