//! The simulated disk keeps its promises. `rules`: for each rule of what a power cut may leave, all outcomes of a small
//! history are enumerated and compared with the exact set that the rule allows. `machine`: processes, power, damage, and
//! how profiles, seeds and enumerated outcomes agree. `lazy`, `enumerator`: what the enumerator visits is exactly that, and
//! it finds what is to be found.

mod enumerator;
mod lazy;
mod machine;
#[path = "../support/random.rs"]
mod random;
mod rules;

use everlog::fs::{File, Fs, Profile, SimFs};
use std::collections::BTreeSet;
use std::sync::Arc;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
const ALL: [Profile; 3] = [Profile::Ext4, Profile::PosixWeak, Profile::Hostile];

fn disk(profile: Profile) -> SimFs {
    SimFs::new(7, profile)
}

/// A file whose name and content are durable.
fn durable_file(fs: &SimFs, path: &str, content: &[u8]) -> Arc<dyn File> {
    let file = fs.create(path).unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir("").unwrap();
    file
}

/// Every outcome of a power cut, as `look` sees it.
fn outcomes<T: Ord>(fs: &SimFs, look: impl Fn(&SimFs) -> T) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    let (count, all) = fs.each_crash(100_000, &mut |after| _ = seen.insert(look(&after)));
    assert!(all, "more than {count} outcomes");
    seen
}

/// A file as the first byte of each sector: `a` durable, `b` new, `.` zero.
fn sectors(fs: &SimFs, path: &str) -> String {
    match fs.read_raw(path) {
        Ok(bytes) => bytes
            .chunks(SECTOR)
            .map(|s| if s[0] == 0 { '.' } else { char::from(s[0]) })
            .collect(),
        Err(_) => "absent".to_string(),
    }
}

fn names(fs: &SimFs) -> String {
    let files = fs.dump().into_iter();
    files
        .map(|(path, content)| format!("{path}={} ", String::from_utf8_lossy(&content)))
        .collect()
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|s| s.to_string()).collect()
}
