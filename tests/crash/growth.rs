//! Nothing grows without end: how large the directory of a journal may be that holds next to nothing.

use std::collections::BTreeMap;

use super::choose::{SEGMENT_BYTES_MAX, SEGMENTS_AHEAD_MAX};

/// Panics unless `files`, those of a journal whose logs are all empty and in which nothing is pending, are few and small.
pub(crate) fn check_small(files: &BTreeMap<String, u64>) {
    let count = |end: &str| files.keys().filter(|path| path.ends_with(end)).count() as u64;
    // The segment that is written, the one before it (the floor may stand across the edge), and the next one by name.
    let segments_max = 6;
    // Those ahead, the reserve, and one for a tail to be carried.
    let spares_max = SEGMENTS_AHEAD_MAX + 2;
    let found = [
        count(".seg"),
        count(".idx"),
        count(".spare"),
        count(".tmp") + count(".tmp-idx"),
    ];
    let most = [segments_max, segments_max, spares_max, 1];
    let small = found.iter().zip(most).all(|(found, most)| *found <= most);
    assert!(
        small,
        "segments, indexes, spares, temporaries: {found:?}, at most {most:?}: {files:#?}"
    );
    // A large entry leaves one large segment and one large file to carry it.
    let bytes: u64 = files.values().sum();
    let most = 8 * SEGMENT_BYTES_MAX + 6 * LARGE;
    assert!(bytes <= most, "{bytes} bytes, at most {most}: {files:#?}");
}

/// The largest entry, with room around it.
const LARGE: u64 = 200 << 10;
