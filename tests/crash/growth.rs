//! Nothing grows without end: how large the directory of a journal may be that holds next to nothing.

use std::collections::BTreeMap;

use super::choose::{IN_FLIGHT_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENTS_AHEAD_MAX};
use super::model::Model;

/// Panics unless `files`, those of a journal that holds `now`, whose logs are all empty, and in which nothing is pending, are few
/// and small.
pub(crate) fn check_small(files: &BTreeMap<String, u64>, now: &Model) {
    let count = |end: &str| files.keys().filter(|path| path.ends_with(end)).count() as u64;
    // The segment that was newest when the floor rose, the next one by name, one across the edge, and what the restatements took:
    // at worst each fact fills a small segment.
    let facts = now.0.values().map(|log| 1 + log.cells.len() as u64);
    let segments_max = 4 + facts.sum::<u64>();
    // Those ahead, the reserve, one for a tail to be carried, and those that were spoken for by writes of a block each.
    let spares_max = SEGMENTS_AHEAD_MAX + 2 + IN_FLIGHT_BYTES_MAX / 4096;
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
    let most = (segments_max + spares_max) * SEGMENT_BYTES_MAX + 6 * LARGE;
    assert!(bytes <= most, "{bytes} bytes, at most {most}: {files:#?}");
}

/// The largest entry, with room around it.
const LARGE: u64 = 200 << 10;
