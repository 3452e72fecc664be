//! What damage may take, and what it must leave.

use everlog::inspect::Finding;
use everlog::{EntryId, LogKey};

use super::damage::Touched;
use super::found::{Found, Item};
use super::judge::{Judged, ensure};
use super::loss;
use super::raw::{BLOCK, Dump};
use super::subject::{Place, Subject};

fn place(subject: &Subject, key: u64, item: Item) -> Option<&Place> {
    match item {
        Item::Entry(index) => subject.entries.get(&(key, index)),
        Item::Cell(cell) => subject.cells.get(&(key, cell)),
    }
}

/// Whether a journal that opened may say that reading this is not possible: its own bytes are touched; or those of the index
/// and of the segment, without which it is not found.
pub(crate) fn may_be_unread(subject: &Subject, touched: &Touched, key: u64, item: Item) -> bool {
    let Some(place) = place(subject, key, item) else {
        return false;
    };
    let index = place.path.replace(".seg", ".idx");
    let own = place.own();
    let own = own.iter().any(|range| touched.hits(&place.path, range));
    let no_index = touched.file(&index) || !subject.dump.contains_key(&index);
    own || (no_index && touched.file(&place.path))
}

/// Nothing that a view of a damaged journal gives out was never written, and everything that the damage did not touch is
/// there.
pub(crate) fn what_is_sound(subject: &Subject, touched: &Touched, now: &Dump, found: &Found) -> Judged<()> {
    nothing_is_made_up(subject, found)?;
    let reach = reach(subject, now);
    let torn_at = torn_at(subject, touched, now);
    let is_sound = |place: &Place| {
        let mut own = place.all().into_iter();
        let own = own.all(|range| !touched.hits(&place.path, &range));
        let block = || place.batch.start / BLOCK * BLOCK..place.batch.end.next_multiple_of(BLOCK);
        // Of a batch that reaches beyond the end of a file that was cut, nothing is served.
        let cut = now
            .get(&place.path)
            .is_none_or(|bytes| (bytes.len() as u64) < place.batch.end);
        let near = touched.unreadable && touched.hits(&place.path, &block());
        let torn = place.path == subject.last().path && place.batch.start >= torn_at;
        own && reach.contains(&place.path) && !cut && !near && !torn
    };
    for ((key, index), place) in subject.entries.iter().filter(|(_, place)| is_sound(place)) {
        let expected = subject.model().0[key].entry(*index);
        let entry = found.get(key).and_then(|log| log.entries.get(index));
        let served = entry.and_then(|entry| entry.as_ref().ok());
        ensure!(
            served == expected,
            "entry {index} of log {key}, at {} of {}, is sound, and a view says {entry:?}",
            place.frame.header.start,
            place.path
        );
    }
    for ((key, cell), place) in subject.cells.iter().filter(|(_, place)| is_sound(place)) {
        let expected = &subject.model().0[key].cells[cell];
        let value = found.get(key).and_then(|log| log.cells.get(cell));
        ensure!(
            value.is_some_and(|value| value.as_ref().is_ok_and(|value| value == expected)),
            "cell {cell} of log {key}, in {}, is sound, and a view says {value:?}",
            place.path
        );
    }
    Ok(())
}

/// Where the last segment is torn: what stands behind is cut, sound or not.
fn torn_at(subject: &Subject, touched: &Touched, now: &Dump) -> u64 {
    let last = subject.last();
    let mut torn = last.batches.iter().filter(|batch| {
        touched.hits(&last.path, &batch.header.used()) && !loss::is_witnessed(subject, now, last, batch)
    });
    torn.next().map_or(u64::MAX, |batch| batch.header.offset)
}

fn nothing_is_made_up(subject: &Subject, found: &Found) -> Judged<()> {
    for (key, log) in found {
        for (index, entry) in &log.entries {
            let Ok((term, payload)) = entry else { continue };
            let id = EntryId {
                term: *term,
                index: *index,
            };
            let known = subject.written.contains(&(*key, id, payload.clone()));
            ensure!(known, "entry {id} of log {} was never written", LogKey(*key));
        }
        for (cell, value) in &log.cells {
            let Ok(value) = value else { continue };
            let known = subject.set.contains(&(*key, *cell, value.clone()));
            ensure!(known, "cell {cell} of log {key} never had this value");
        }
    }
    Ok(())
}

/// The segments that can be walked to: those of which nothing is left end the walk, but for the last one.
fn reach(subject: &Subject, now: &Dump) -> Vec<String> {
    let mut reach = Vec::new();
    let mut begun = false;
    for link in subject.chain.iter().rev() {
        let opens = now
            .get(&link.path)
            .is_some_and(|bytes| super::raw::opening(bytes, link.id) == Some(link.opening));
        let counts = opens && loss::counts(now, link);
        if !counts && begun {
            break;
        }
        if counts {
            begun = true;
            reach.push(link.path.clone());
        }
    }
    reach
}

/// `verify` lists every batch that is touched and was acknowledged, whoever still reads it.
pub(crate) fn all_damage_is_found(
    subject: &Subject,
    touched: &Touched,
    now: &Dump,
    findings: &[Finding],
) -> Judged<()> {
    let hit: Vec<_> = subject
        .batches()
        .filter(|(link, batch)| touched.hits(&link.path, &batch.header.used()))
        .collect();
    if hit.is_empty() {
        return Ok(());
    }
    let reach = reach(subject, now);
    for (link, batch) in hit {
        let used = batch.header.used();
        if !reach.contains(&link.path) || !loss::is_witnessed(subject, now, link, batch) {
            continue;
        }
        let about = |finding: &&Finding| {
            finding.is_damage()
                && finding.path.ends_with(&link.path)
                && finding.offset < used.end
                && used.start <= finding.offset + finding.bytes
        };
        ensure!(
            findings.iter().any(|finding| about(&finding)),
            "batch {} at {} of {} is damaged, and verify finds {findings:?}",
            batch.header.sequence,
            used.start,
            link.path
        );
    }
    Ok(())
}
