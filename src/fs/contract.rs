//! What every [`Fs`] promises, as a suite that any implementation can be run through. What survives a power cut is not
//! part of it: a test cannot pull the plug of a real disk.

use super::{Access, File, Fs};
use crate::sync::{Arc, thread};
use std::io::ErrorKind;

/// Runs the whole suite; each part gets a fresh, empty file system from `make`.
///
/// ```
/// use everlog::fs::{Profile, SimFs, contract};
/// use std::sync::Arc;
///
/// contract::check(&|| Arc::new(SimFs::new(1, Profile::PosixWeak)));
/// ```
///
/// # Panics
///
/// At the first promise that is not kept; the message names it.
pub fn check(make: &dyn Fn() -> Arc<dyn Fs>) {
    let parts: [fn(&Arc<dyn Fs>); 17] = [
        an_empty_root_lists_nothing,
        directories_nest_and_list_sorted,
        create_makes_an_empty_file_once,
        empty_directories_go,
        open_needs_a_file,
        writes_are_seen_at_once_by_every_handle,
        reads_end_with_the_file,
        holes_and_new_bytes_read_zero,
        a_reader_cannot_write,
        rename_replaces_in_one_step,
        a_file_keeps_its_identity,
        removed_files_stay_usable,
        syncs_and_evicts_change_no_byte,
        a_lock_has_one_owner,
        a_holder_is_told_and_nothing_is_changed,
        concurrent_calls_do_not_mix,
        the_world_around_makes_sense,
    ];
    for part in parts {
        part(&make());
    }
    paths_stay_below_the_root(&make());
}

fn an_empty_root_lists_nothing(fs: &Arc<dyn Fs>) {
    assert_eq!(list(fs, ""), Vec::<String>::new());
    ok("a sync of the empty root", fs.sync_dir(""));
    fails(
        "a list of what is not there",
        ErrorKind::NotFound,
        fs.list("none"),
    );
    fails(
        "a sync of a directory that is not there",
        ErrorKind::NotFound,
        fs.sync_dir("none"),
    );
}

fn directories_nest_and_list_sorted(fs: &Arc<dyn Fs>) {
    ok("create_dir", fs.create_dir("b"));
    ok("create_dir below", fs.create_dir("b/z"));
    ok("create below", fs.create("b/y"));
    ok("create", fs.create("c"));
    ok("create", fs.create("a"));
    assert_eq!(list(fs, ""), ["a", "b", "c"]);
    assert_eq!(list(fs, "b"), ["y", "z"]);
    assert_eq!(list(fs, "b/z"), Vec::<String>::new());
    ok("a sync of a directory", fs.sync_dir("b"));
    fails(
        "a second create_dir",
        ErrorKind::AlreadyExists,
        fs.create_dir("b"),
    );
    fails(
        "create_dir over a file",
        ErrorKind::AlreadyExists,
        fs.create_dir("a"),
    );
    fails(
        "create_dir in nothing",
        ErrorKind::NotFound,
        fs.create_dir("none/d"),
    );
    assert!(fs.list("a").is_err(), "a file was listed");
    assert!(fs.sync_dir("a").is_err(), "a file was synced as a directory");
    assert!(fs.remove("b").is_err(), "remove took a directory");
    assert!(fs.create("a/x").is_err(), "a file was made inside a file");
}

fn create_makes_an_empty_file_once(fs: &Arc<dyn Fs>) {
    let file = ok("create", fs.create("f"));
    assert_eq!(ok("len", file.len()), 0);
    ok("a write", file.write_all_at(b"content", 0));
    fails("a second create", ErrorKind::AlreadyExists, fs.create("f"));
    assert_eq!(content(&file), b"content", "a refused create changed the file");
    fails("create in nothing", ErrorKind::NotFound, fs.create("none/f"));
    ok("create_dir", fs.create_dir("d"));
    fails(
        "create over a directory",
        ErrorKind::AlreadyExists,
        fs.create("d"),
    );
}

fn empty_directories_go(fs: &Arc<dyn Fs>) {
    ok("create_dir", fs.create_dir("d"));
    let removed = fs.remove_dir("d");
    if removed
        .as_ref()
        .is_err_and(|e| e.kind() == ErrorKind::Unsupported)
    {
        return;
    }
    ok("remove_dir", removed);
    fails("a list of what is gone", ErrorKind::NotFound, fs.list("d"));
    fails("a second remove_dir", ErrorKind::NotFound, fs.remove_dir("d"));
    ok("create_dir again", fs.create_dir("d"));
    ok("create", fs.create("d/f"));
    fails(
        "a remove_dir of a full one",
        ErrorKind::DirectoryNotEmpty,
        fs.remove_dir("d"),
    );
    assert_eq!(list(fs, "d"), ["f"]);
    assert!(fs.remove_dir("d/f").is_err(), "a file was removed as a directory");
    ok("remove", fs.remove("d/f"));
    ok("remove_dir", fs.remove_dir("d"));
    assert_eq!(list(fs, ""), Vec::<String>::new());
}

fn open_needs_a_file(fs: &Arc<dyn Fs>) {
    ok("create_dir", fs.create_dir("d"));
    for access in [Access::Read, Access::Write] {
        fails("open of nothing", ErrorKind::NotFound, fs.open("none", access));
        fails("open in nothing", ErrorKind::NotFound, fs.open("none/f", access));
        assert!(fs.open("d", access).is_err(), "a directory was opened");
    }
    assert_eq!(list(fs, ""), ["d"], "open created something");
}

fn writes_are_seen_at_once_by_every_handle(fs: &Arc<dyn Fs>) {
    let one = ok("create", fs.create("f"));
    let two = ok("open", fs.open("f", Access::Write));
    let reader = ok("open", fs.open("f", Access::Read));
    ok("a write", one.write_all_at(b"hello world", 0));
    ok("a write", two.write_all_at(b"W", 6));
    assert_eq!(content(&reader), b"hello World");
    ok("set_len", two.set_len(5));
    assert_eq!(content(&one), b"hello");
}

fn reads_end_with_the_file(fs: &Arc<dyn Fs>) {
    let file = ok("create", fs.create("f"));
    ok("a write", file.write_all_at(&[7; 5000], 0));
    let mut buffer = [0; 6000];
    assert_eq!(ok("a read at the end", file.read_at(&mut buffer, 5000)), 0);
    assert_eq!(
        ok("a read far behind the end", file.read_at(&mut buffer, 1 << 40)),
        0
    );
    assert_eq!(ok("an empty read", file.read_at(&mut [], 0)), 0);
    assert_eq!(ok("an empty write", file.write_at(&[], 9000)), 0);
    assert_eq!(ok("len", file.len()), 5000, "an empty write grew the file");
    let count = ok("a read over the end", file.read_at(&mut buffer, 4990));
    assert!((1..=10).contains(&count) && buffer[..count].iter().all(|b| *b == 7));
    ok("an exact read", file.read_exact_at(&mut buffer[..5000], 0));
    fails(
        "an exact read over the end",
        ErrorKind::UnexpectedEof,
        file.read_exact_at(&mut buffer[..11], 4990),
    );
}

fn holes_and_new_bytes_read_zero(fs: &Arc<dyn Fs>) {
    let file = ok("create", fs.create("f"));
    ok("a write beyond the end", file.write_all_at(b"x", 10_000));
    assert_eq!(content(&file), [vec![0; 10_000], b"x".to_vec()].concat());
    ok("a write", file.write_all_at(&[7; 6000], 0));
    ok("a shorter size", file.set_len(100));
    ok("a longer size", file.set_len(6000));
    assert_eq!(
        content(&file),
        [vec![7; 100], vec![0; 5900]].concat(),
        "a cut was undone"
    );
    ok("a shorter size", file.set_len(10));
    ok("a write beyond", file.write_all_at(b"y", 20));
    assert_eq!(content(&file), [&[7; 10][..], &[0; 10], b"y"].concat());
}

fn a_reader_cannot_write(fs: &Arc<dyn Fs>) {
    ok("a write", ok("create", fs.create("f")).write_all_at(b"abc", 0));
    let reader = ok("open", fs.open("f", Access::Read));
    assert!(reader.write_at(b"x", 0).is_err(), "a reader wrote");
    assert!(reader.set_len(0).is_err(), "a reader set the size");
    assert_eq!(content(&reader), b"abc");
}

fn rename_replaces_in_one_step(fs: &Arc<dyn Fs>) {
    let old = ok("create", fs.create("target"));
    ok("a write", old.write_all_at(b"old", 0));
    let new = ok("create", fs.create("tmp"));
    ok("a write", new.write_all_at(b"new", 0));
    ok("a rename", fs.rename("tmp", "target"));
    assert_eq!(list(fs, ""), ["target"]);
    assert_eq!(content(&ok("open", fs.open("target", Access::Read))), b"new");
    ok("a write after a rename", new.write_all_at(b"N", 0));
    assert_eq!(content(&ok("open", fs.open("target", Access::Read))), b"New");
    assert_eq!(content(&old), b"old", "a replaced file stays readable");
    ok("a rename onto itself", fs.rename("target", "target"));
    ok("create_dir", fs.create_dir("d"));
    ok("a move", fs.rename("target", "d/moved"));
    assert_eq!(
        (list(fs, ""), list(fs, "d")),
        (vec!["d".into()], vec!["moved".into()])
    );
    ok("a sync of both", fs.sync_dir("d").and(fs.sync_dir("")));
    fails("a rename of nothing", ErrorKind::NotFound, fs.rename("none", "x"));
    fails(
        "a rename into nothing",
        ErrorKind::NotFound,
        fs.rename("d/moved", "none/x"),
    );
    assert!(fs.rename("d/moved", "d").is_err(), "a file replaced a directory");
    assert_eq!(list(fs, "d"), ["moved"]);
}

fn a_file_keeps_its_identity(fs: &Arc<dyn Fs>) {
    let files = ["one", "other"].map(|name| ok("create", fs.create(name)));
    let [one, other] = files.each_ref().map(|file| ok("identity", file.identity()));
    assert!(one.is_none() || one != other, "two files have one identity");
    ok("a rename", fs.rename("one", "d"));
    let again = ok("open", fs.open("d", Access::Read));
    assert_eq!(
        ok("identity", again.identity()),
        one,
        "a renamed file is another one"
    );
    ok("a write", files[0].write_all_at(b"x", 0));
    ok("a sync", files[0].sync_data());
    assert_eq!(
        ok("identity", files[0].identity()),
        one,
        "a written file is another one"
    );
}

fn removed_files_stay_usable(fs: &Arc<dyn Fs>) {
    let file = ok("create", fs.create("f"));
    ok("a write", file.write_all_at(b"one", 0));
    ok("a remove", fs.remove("f"));
    assert_eq!(list(fs, ""), Vec::<String>::new());
    ok("a write after the remove", file.write_all_at(b"two", 3));
    ok("a sync after the remove", file.sync_data());
    ok("a sync of the directory", fs.sync_dir(""));
    assert_eq!(content(&file), b"onetwo");
    fails("a second remove", ErrorKind::NotFound, fs.remove("f"));
    let again = ok("the name again", fs.create("f"));
    assert_eq!(
        (content(&again), content(&file)),
        (Vec::new(), b"onetwo".to_vec())
    );
}

fn syncs_and_evicts_change_no_byte(fs: &Arc<dyn Fs>) {
    let file = ok("create", fs.create("f"));
    ok("an evict of nothing", file.evict());
    let bytes: Vec<u8> = (0..100_000_u32)
        .map(|i| i.to_le_bytes()[usize::from(i % 3 == 0)])
        .collect();
    ok("a write", file.write_all_at(&bytes, 0));
    ok("an evict before a sync", file.evict());
    assert!(content(&file) == bytes, "an evict lost unsynced bytes");
    ok("a sync", file.sync_data());
    ok(
        "a sync by a reader",
        fs.open("f", Access::Read).and_then(|reader| reader.sync_data()),
    );
    ok("an evict", file.evict());
    assert!(content(&file) == bytes, "an evict lost synced bytes");
}

fn a_lock_has_one_owner(fs: &Arc<dyn Fs>) {
    let lock = ok("a lock", fs.lock("lock", "the first, with a longer name"));
    assert_eq!(list(fs, ""), ["lock"]);
    fails("a second lock", ErrorKind::WouldBlock, fs.lock("lock", "second"));
    let other = ok("a lock of another file", fs.lock("other", "me"));
    drop(lock);
    let lock = ok("a lock that was released", fs.lock("lock", "third"));
    assert_eq!(ok("holder", fs.holder("lock")).as_deref(), Some("third"));
    drop((lock, other));
    assert_eq!(list(fs, ""), ["lock", "other"], "a lock file went away");
    fails(
        "a lock in nothing",
        ErrorKind::NotFound,
        fs.lock("none/lock", "me"),
    );
}

fn a_holder_is_told_and_nothing_is_changed(fs: &Arc<dyn Fs>) {
    assert_eq!(ok("holder", fs.holder("lock")), None);
    assert_eq!(
        list(fs, ""),
        Vec::<String>::new(),
        "asking for the holder made a file"
    );
    let lock = ok("a lock", fs.lock("lock", "process 7 on host a"));
    for _ in 0..2 {
        assert_eq!(
            ok("holder", fs.holder("lock")).as_deref(),
            Some("process 7 on host a")
        );
    }
    fails(
        "a lock after asking",
        ErrorKind::WouldBlock,
        fs.lock("lock", "other"),
    );
    drop(lock);
    assert_eq!(ok("holder", fs.holder("lock")), None);
    ok("a lock after asking", fs.lock("lock", "next"));
}

fn concurrent_calls_do_not_mix(fs: &Arc<dyn Fs>) {
    let file = ok("create", fs.create("f"));
    let write = |byte: u8| {
        let (file, fs) = (file.clone(), fs.clone());
        move || {
            for round in 0..20 {
                let offset = (round * 4 + u64::from(byte)) * 1000;
                ok("a write", file.write_all_at(&[byte; 1000], offset));
                ok("a sync", file.sync_data());
                ok("create", fs.create(&format!("{byte}-{round}")));
            }
        }
    };
    let threads: Vec<_> = (0..4)
        .map(|byte| ok("a thread", thread::spawn("contract", write(byte))))
        .collect();
    for thread in threads {
        assert!(thread.join().is_ok(), "a writer failed");
    }
    let bytes = content(&file);
    let expected = (0..80_u8).flat_map(|chunk| [chunk % 4; 1000]);
    assert!(bytes.iter().copied().eq(expected), "concurrent writes got mixed");
    assert_eq!(list(fs, "").len(), 81);
}

fn the_world_around_makes_sense(fs: &Arc<dyn Fs>) {
    let space = ok("space", fs.space());
    assert!(space.free <= space.total && space.total > 0, "{space:?}");
    let mut numbers = [0; 8].map(|_: u64| fs.random()).to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 8, "random numbers repeat");
    let (first, second) = (fs.now_micros(), fs.now_micros());
    assert!(
        first > 1_600_000_000_000_000 && second + 60_000_000 > first,
        "clock: {first}, {second}"
    );
    assert!(fs.display("d/f").ends_with("d/f"));
    assert!(fs.display("d/f").starts_with(fs.display("")));
}

fn paths_stay_below_the_root(fs: &Arc<dyn Fs>) {
    ok("create_dir", fs.create_dir("d"));
    for path in ["/etc", "../x", "d/../x", "d//x", "d/", "./x", "d/.", "x\0y"] {
        assert!(fs.create(path).is_err(), "created {path:?}");
        assert!(fs.create_dir(path).is_err(), "created the directory {path:?}");
        assert!(fs.open(path, Access::Read).is_err(), "opened {path:?}");
        assert!(fs.list(path).is_err(), "listed {path:?}");
        assert!(fs.lock(path, "me").is_err(), "locked {path:?}");
    }
    assert!(fs.create("").is_err() && fs.remove("").is_err() && fs.rename("d", "").is_err());
    assert_eq!(list(fs, ""), ["d"]);
}

#[track_caller]
fn ok<T>(what: &str, result: std::io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => panic!("{what} failed: {e}"),
    }
}

#[track_caller]
fn fails<T>(what: &str, kind: ErrorKind, result: std::io::Result<T>) {
    match result {
        Ok(_) => panic!("{what} succeeded"),
        Err(e) => assert_eq!(e.kind(), kind, "{what}: {e}"),
    }
}

#[track_caller]
fn list(fs: &Arc<dyn Fs>, path: &str) -> Vec<String> {
    ok("list", fs.list(path))
}

#[track_caller]
fn content(file: &Arc<dyn File>) -> Vec<u8> {
    let len = usize::try_from(ok("len", file.len())).unwrap_or(0);
    let mut bytes = vec![0; len];
    ok("a read of everything", file.read_exact_at(&mut bytes, 0));
    bytes
}
