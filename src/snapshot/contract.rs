//! What every place for objects promises, as a suite that any implementation of [`Objects`] can be run through. What
//! survives a power cut is not part of it.

use std::fmt::Debug;
use std::io::{self, ErrorKind};

use super::config::{Retention, StoreConfig};
use super::info::Draft;
use super::objects::Objects;
use super::store::Store;
use crate::sync::{Arc, thread};
use crate::types::{EntryId, LogKey};

/// Runs the whole suite; each part gets a fresh, empty place from `make`.
///
/// ```
/// use everlog::snapshot::{Memory, contract};
/// use std::sync::Arc;
///
/// contract::check(&|| Arc::new(Memory::new()));
/// ```
///
/// # Panics
///
/// At the first promise that is not kept; the message names it.
pub fn check(make: &dyn Fn() -> Arc<dyn Objects>) {
    let parts: [fn(&Arc<dyn Objects>); 9] = [
        a_ready_place_lists_nothing,
        an_object_is_seen_whole_or_not_at_all,
        a_dropped_upload_leaves_nothing,
        a_name_is_given_once,
        reads_end_with_the_object,
        deleted_objects_are_gone_and_can_be_read_to_their_end,
        one_process_has_the_lock,
        concurrent_uploads_do_not_mix,
        a_pin_outlives_its_store,
    ];
    for part in parts {
        let place = make();
        ok("making the place ready", place.settle());
        part(&place);
    }
}

fn a_ready_place_lists_nothing(place: &Arc<dyn Objects>) {
    assert_eq!(list(place), Vec::<String>::new());
    ok("making it ready again", place.settle());
    assert_eq!(list(place), Vec::<String>::new());
    fails(
        "an object that is not there",
        ErrorKind::NotFound,
        place.get("none"),
    );
    assert!(place.random() != place.random(), "random numbers repeat");
    assert!(place.now_micros() <= place.now_micros(), "the clock goes back");
}

fn an_object_is_seen_whole_or_not_at_all(place: &Arc<dyn Objects>) {
    let mut upload = ok("an upload", place.put("b"));
    ok("a write", upload.write_all(b"one "));
    ok("a write", upload.write_all(b"two"));
    ok("a sync", upload.sync());
    assert_eq!(
        list(place),
        Vec::<String>::new(),
        "what is not published is not listed"
    );
    fails("what is not published", ErrorKind::NotFound, place.get("b"));
    ok("publishing", upload.publish());
    put(place, "a", b"another");
    assert_eq!(list(place), ["a", "b"]);
    assert_eq!(read(place, "b"), b"one two");
    ok("making it ready again", place.settle());
    assert_eq!(list(place), ["a", "b"]);
}

fn a_dropped_upload_leaves_nothing(place: &Arc<dyn Objects>) {
    let mut upload = ok("an upload", place.put("a"));
    ok("a write", upload.write_all(b"never"));
    drop(upload);
    assert_eq!(list(place), Vec::<String>::new());
    put(place, "a", b"later");
    assert_eq!(read(place, "a"), b"later");
}

fn a_name_is_given_once(place: &Arc<dyn Objects>) {
    put(place, "a", b"first");
    let mut upload = ok("an upload", place.put("a"));
    ok("a write", upload.write_all(b"second"));
    ok("a sync", upload.sync());
    fails("a name that is taken", ErrorKind::AlreadyExists, upload.publish());
    assert_eq!(read(place, "a"), b"first");
    assert_eq!(list(place), ["a"]);
}

fn reads_end_with_the_object(place: &Arc<dyn Objects>) {
    put(place, "a", b"0123456789");
    let object = ok("an object", place.get("a"));
    let mut four = [0; 4];
    ok("a read inside", object.read_exact_at(&mut four, 6));
    assert_eq!(&four, b"6789");
    fails(
        "a read across the end",
        ErrorKind::UnexpectedEof,
        object.read_exact_at(&mut four, 7),
    );
    fails(
        "a read beyond the end",
        ErrorKind::UnexpectedEof,
        object.read_exact_at(&mut four, 1 << 40),
    );
    ok("an evict", object.evict());
    ok("a read after it", object.read_exact_at(&mut four, 0));
    assert_eq!(&four, b"0123");
}

fn deleted_objects_are_gone_and_can_be_read_to_their_end(place: &Arc<dyn Objects>) {
    put(place, "a", b"one");
    put(place, "b", b"two");
    let object = ok("an object", place.get("a"));
    ok("deleting", place.delete(&["a".to_owned(), "none".to_owned()]));
    assert_eq!(list(place), ["b"]);
    fails("what was deleted", ErrorKind::NotFound, place.get("a"));
    let mut three = [0; 3];
    ok("a read of what was deleted", object.read_exact_at(&mut three, 0));
    assert_eq!(&three, b"one");
    put(place, "a", b"anew");
    assert_eq!(read(place, "a"), b"anew");
}

fn one_process_has_the_lock(place: &Arc<dyn Objects>) {
    assert_eq!(ok("asking for the holder", place.holder()), None);
    let lock = ok("the lock", place.lock("me"));
    fails("a second lock", ErrorKind::WouldBlock, place.lock("you"));
    assert_eq!(ok("asking for the holder", place.holder()).as_deref(), Some("me"));
    drop(lock);
    drop(ok("the lock again", place.lock("you")));
}

fn concurrent_uploads_do_not_mix(place: &Arc<dyn Objects>) {
    let writers: Vec<_> = (0..4u8)
        .map(|number| {
            let place = Arc::clone(place);
            let write = move || {
                for round in 0..8u8 {
                    put(&place, &format!("{number}-{round}"), &[number * 16 + round; 1000]);
                }
            };
            thread::spawn("contract", write).expect("a thread")
        })
        .collect();
    for writer in writers {
        assert!(writer.join().is_ok(), "a writer failed");
    }
    assert_eq!(list(place).len(), 32);
    for name in list(place) {
        let bytes = read(place, &name);
        let (number, round) = name.split_once('-').expect("as it was named");
        let byte = number.parse::<u8>().expect("a number") * 16 + round.parse::<u8>().expect("a number");
        assert!(bytes == vec![byte; 1000], "{name} holds something else");
    }
}

/// What the names, the clock and the lock are good for: a snapshot that one process pinned stays in the next ones.
fn a_pin_outlives_its_store(place: &Arc<dyn Objects>) {
    let open = || {
        let store = Store::open_in(Arc::clone(place), StoreConfig::new());
        store.expect("a store opens here")
    };
    let ids = {
        let store = open();
        let ids = [1, 2].map(|index| {
            let draft = Draft::new(LogKey(1), EntryId::new(1, index));
            let committed = store.create(draft).and_then(super::Creation::commit);
            committed.expect("a snapshot is committed").snapshot.id
        });
        store.pin_durably(ids[0], "me", None).expect("it is pinned");
        ids
    };
    let collect = || {
        let store = open();
        let collected = store.collect(&Retention::new().newest(1));
        collected.expect("it is collected").removed
    };
    assert_eq!(collect(), [], "what the store before has pinned stays");
    let unpinned = open().unpin(ids[0], "me").expect("it is unpinned");
    assert!(unpinned, "the pin was found");
    assert_eq!(collect(), [ids[0]], "what nobody pins any more goes");
}

fn put(place: &Arc<dyn Objects>, name: &str, bytes: &[u8]) {
    let mut upload = ok("an upload", place.put(name));
    ok("a write", upload.write_all(bytes));
    ok("a sync", upload.sync());
    ok("publishing", upload.publish());
}

fn read(place: &Arc<dyn Objects>, name: &str) -> Vec<u8> {
    let object = ok("an object", place.get(name));
    let len = ok("its size", object.len());
    let mut bytes = vec![0; usize::try_from(len).expect("a small object")];
    ok("a read", object.read_exact_at(&mut bytes, 0));
    bytes
}

fn list(place: &Arc<dyn Objects>) -> Vec<String> {
    ok("a list", place.list())
}

fn ok<T>(what: &str, result: io::Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("{what} failed: {e}"))
}

fn fails<T: Debug>(what: &str, kind: ErrorKind, result: io::Result<T>) {
    match result {
        Ok(value) => panic!("{what} was granted: {value:?}"),
        Err(e) => assert_eq!(e.kind(), kind, "{what}"),
    }
}
