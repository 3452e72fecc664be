//! The workloads: short ones, that together make every call of the journal to the disk.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use everlog::{Alignment, Background, Config, EntryId};

use super::model::Step;
use super::random;
use super::workloads::{Act, Manner, Spoil, Start, Workload};

pub(crate) fn all() -> Vec<Workload> {
    vec![
        create(),
        create_again(),
        append(),
        batch(),
        relaxed(),
        tickets(),
        truncate(),
        logs(),
        rotation(),
        marks(),
        purge(),
        reclaim(),
        restate(),
        remove(),
        full(),
        full_lives(),
        open_closed(),
        open_killed(),
        open_idle(),
        open_torn(),
        open_large(),
        open_indexes(),
        open_resized(),
        lives(),
        view(),
        view_live(),
    ]
}

/// The smallest segments: a few writes each.
fn small() -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .max_entry_bytes(256 << 10)
        .mark_delays(Duration::from_millis(20), Duration::from_secs(1))
        .background(Background::Caller)
}

/// One write a segment.
fn blocks() -> Config {
    small().alignment(Alignment::Bytes4096)
}

fn workload(name: &'static str, config: Config, prelude: Vec<Act>, acts: Vec<Act>) -> Workload {
    Workload {
        name,
        config,
        prelude,
        acts,
    }
}

fn payload(tag: u64, len: u64) -> Bytes {
    random::bytes(tag, len)
}

fn one(step: Step) -> Act {
    Act::Write(vec![step], Manner::Durable)
}

fn add(log: u64, tag: u64, len: u64) -> Act {
    one(Step::Append(log, payload(tag, len)))
}

fn adds(log: u64, tags: Range<u64>, len: u64) -> Vec<Act> {
    tags.map(|tag| add(log, tag, len)).collect()
}

fn via(manner: Manner, log: u64, tag: u64, len: u64) -> Act {
    Act::Write(vec![Step::Append(log, payload(tag, len))], manner)
}

fn set(log: u64, cell: u8, tag: u64, len: u64) -> Act {
    one(Step::Set(log, cell, payload(tag, len)))
}

/// A new journal with the log 1, and what follows.
fn start(more: impl IntoIterator<Item = Act>) -> Vec<Act> {
    then(vec![Act::Open(Start::Create), one(Step::Create(1, 0))], more)
}

/// The same with entries in sealed segments.
fn some(more: impl IntoIterator<Item = Act>) -> Vec<Act> {
    then(then(start(adds(1, 0..5, 2500)), [set(1, 0, 900, 30)]), more)
}

fn then(mut acts: Vec<Act>, more: impl IntoIterator<Item = Act>) -> Vec<Act> {
    acts.extend(more);
    acts
}

fn create() -> Workload {
    let acts = start([add(1, 1, 100), Act::Read, Act::Close]);
    workload("create", small(), vec![], acts)
}

fn create_again() -> Workload {
    let acts = vec![
        Act::Open(Start::Either),
        one(Step::Create(1, 7)),
        add(1, 1, 100),
        Act::Close,
    ];
    workload(
        "create-again",
        small(),
        vec![Act::Spoil(Spoil::HalfCreated)],
        acts,
    )
}

fn append() -> Workload {
    let acts = start([
        add(1, 1, 1),
        add(1, 2, 3000),
        add(1, 3, 20_000),
        Act::Read,
        add(1, 4, 70_000),
        add(1, 5, 10),
        Act::Work,
        Act::Read,
    ]);
    workload("append", small(), vec![], acts)
}

fn batch() -> Workload {
    let across = vec![
        Step::Append(1, payload(1, 700)),
        Step::Append(2, payload(2, 10)),
        Step::Set(1, 0, payload(3, 16)),
        Step::Append(1, payload(4, 0)),
    ];
    let more = vec![
        Step::Append(2, payload(6, 1500)),
        Step::Set(2, 255, payload(7, 1)),
    ];
    let acts = start([
        one(Step::Create(2, 100)),
        Act::Write(across, Manner::Durable),
        set(2, 255, 5, 3000),
        Act::Write(more, Manner::Submit),
        add(1, 8, 2000),
        Act::Wait,
    ]);
    workload("batch", small(), vec![], acts)
}

fn relaxed() -> Workload {
    let acts = start([
        via(Manner::Relaxed, 1, 1, 50),
        via(Manner::Relaxed, 1, 2, 900),
        Act::Sync,
        via(Manner::Relaxed, 1, 3, 900),
        via(Manner::SubmitRelaxed, 1, 4, 500),
        Act::Work,
        via(Manner::Relaxed, 1, 5, 2900),
        via(Manner::Relaxed, 1, 6, 2900),
        via(Manner::Relaxed, 1, 7, 2900),
        Act::Wait,
        add(1, 8, 10),
        via(Manner::Relaxed, 1, 9, 300),
        Act::Close,
    ]);
    workload("relaxed", small(), vec![], acts)
}

fn tickets() -> Workload {
    let acts = start([
        via(Manner::Submit, 1, 1, 900),
        via(Manner::Submit, 1, 2, 900),
        via(Manner::Try, 1, 3, 900),
        Act::Work,
        Act::Wait,
        via(Manner::Submit, 1, 4, 2000),
        via(Manner::Submit, 1, 5, 2000),
        via(Manner::Submit, 1, 6, 2000),
        via(Manner::Submit, 1, 7, 2000),
        Act::Sync,
        Act::Wait,
    ]);
    workload("tickets", small(), vec![], acts)
}

fn truncate() -> Workload {
    let id = |term, index| EntryId::new(term, index);
    let at = |term, index, tag| Step::AppendAt(1, id(term, index), payload(tag, 600));
    let acts = start([
        one(at(1, 0, 1)),
        one(at(1, 1, 2)),
        one(at(2, 2, 3)),
        Act::Write(vec![Step::Truncate(1, 1), at(3, 1, 4)], Manner::Durable),
        Act::Read,
        via(Manner::Submit, 1, 5, 100),
        Act::Write(vec![Step::Truncate(1, 1)], Manner::Submit),
        Act::Write(vec![at(4, 1, 6)], Manner::Relaxed),
        Act::Wait,
        one(Step::Reset(1, id(9, 50))),
        add(1, 7, 2000),
        one(Step::PurgeThrough(1, id(11, 80))),
        add(1, 8, 100),
        Act::Read,
    ]);
    workload("truncate", small(), vec![], acts)
}

fn logs() -> Workload {
    let acts = start([
        add(1, 1, 100),
        set(1, 3, 2, 100),
        one(Step::Delete(1)),
        one(Step::Create(1, 5)),
        add(1, 3, 100),
        one(Step::Create(2, 0)),
        one(Step::Delete(1)),
        add(2, 4, 100),
        Act::Read,
    ]);
    workload("logs", blocks(), vec![], acts)
}

fn rotation() -> Workload {
    let acts = then(start(adds(1, 0..3, 200)), [Act::Work]);
    let acts = then(
        then(acts, adds(1, 3..9, 300)),
        [Act::Work, add(1, 9, 1), Act::Read],
    );
    workload("rotation", blocks().segments_ahead(2), vec![], acts)
}

fn marks() -> Workload {
    let acts = start([
        add(1, 1, 100),
        Act::Work,
        add(1, 2, 2000),
        Act::Work,
        add(1, 3, 2000),
        Act::Work,
        add(1, 4, 10),
        Act::Work,
        Act::Close,
        Act::Open(Start::AfterKill),
        Act::Read,
    ]);
    workload("marks", small(), vec![], acts)
}

fn purge() -> Workload {
    let acts = then(start([set(1, 0, 900, 20)]), adds(1, 0..5, 100));
    let acts = then(
        acts,
        [one(Step::PurgeTo(1, 4)), Act::Reclaim, add(1, 6, 100), Act::Work],
    );
    workload("purge", blocks(), vec![], acts)
}

/// Two logs, one purged, with cells that a floor must say again.
fn many(more: impl IntoIterator<Item = Act>) -> Vec<Act> {
    let acts = start([
        one(Step::Create(2, 0)),
        set(2, 0, 700, 900),
        set(1, 1, 701, 20),
        add(2, 702, 30),
        one(Step::PurgeTo(2, 1)),
    ]);
    then(then(acts, adds(1, 0..9, 1500)), more)
}

fn reclaim() -> Workload {
    let acts = vec![
        Act::Open(Start::AfterKill),
        one(Step::PurgeTo(1, 8)),
        Act::Work,
        add(1, 20, 1000),
        Act::Reclaim,
        Act::Work,
        one(Step::Delete(1)),
        Act::Reclaim,
        Act::Read,
        Act::Close,
    ];
    workload("reclaim", blocks(), many([Act::Close]), acts)
}

/// Facts that take several batches to say again.
fn restate() -> Workload {
    let cells = (0..6).map(|cell| set(2, cell, 800 + u64::from(cell), 1800));
    let prelude = then(
        then(start([one(Step::Create(2, 0))]), cells),
        adds(1, 0..12, 2600),
    );
    let acts = vec![
        Act::Open(Start::AfterKill),
        one(Step::PurgeTo(1, 12)),
        Act::Reclaim,
        Act::Read,
        Act::Kill,
        Act::Open(Start::AfterKill),
        Act::Read,
    ];
    workload("restate", small(), then(prelude, [Act::Kill]), acts)
}

fn remove() -> Workload {
    let prelude = many([
        Act::Close,
        Act::Open(Start::AfterKill),
        one(Step::Delete(1)),
        Act::Kill,
    ]);
    let acts = vec![
        Act::Open(Start::AfterKill),
        Act::Work,
        Act::Kill,
        Act::Open(Start::AfterKill),
        one(Step::Create(1, 0)),
        Act::Work,
        Act::Read,
    ];
    workload("remove", blocks(), prelude, acts)
}

/// The disk is full, too.
fn full() -> Workload {
    let acts = vec![Act::Open(Start::AfterKill), Act::Work, Act::Tight(20 << 10)];
    let acts = then(acts, adds(1, 10..18, 1500));
    let acts = then(
        acts,
        [
            via(Manner::Try, 1, 20, 500),
            set(1, 0, 21, 100),
            one(Step::Truncate(1, 4)),
            one(Step::PurgeTo(1, 3)),
            Act::Reclaim,
            set(1, 0, 22, 100),
            Act::Loose,
            add(1, 23, 3000),
            add(1, 24, 3000),
        ],
    );
    workload("full", blocks(), some([Act::Close]), acts)
}

/// It stays full over two lives. What the second one carries must fit into a segment: larger ones than the smallest.
fn full_lives() -> Workload {
    let prelude = some([via(Manner::Relaxed, 1, 50, 800), Act::Kill]);
    let acts = vec![
        Act::Tight(0),
        Act::Open(Start::AfterKill),
        set(1, 0, 21, 100),
        add(1, 22, 100),
        Act::Kill,
        Act::Open(Start::AfterKill),
        one(Step::PurgeTo(1, 6)),
        Act::Reclaim,
        Act::Loose,
        add(1, 23, 100),
    ];
    workload("full-lives", small().segment_bytes(32 << 10), prelude, acts)
}

fn unsynced() -> [Act; 2] {
    [
        via(Manner::Relaxed, 1, 50, 800),
        Act::Write(vec![Step::Set(1, 0, payload(51, 40))], Manner::Relaxed),
    ]
}

fn opened(start: Start, more: impl IntoIterator<Item = Act>) -> Vec<Act> {
    then(
        vec![Act::Open(start), Act::Read, add(1, 60, 500), Act::Work],
        more,
    )
}

fn open_closed() -> Workload {
    let acts = opened(Start::AfterKill, [Act::Close]);
    workload("open-closed", small(), some([Act::Close]), acts)
}

fn open_killed() -> Workload {
    let prelude = then(some(unsynced()), [Act::Kill]);
    workload("open-killed", small(), prelude, opened(Start::AfterKill, []))
}

fn open_idle() -> Workload {
    let acts = vec![
        Act::Open(Start::AfterKill),
        Act::Kill,
        Act::Open(Start::AfterKill),
        Act::Close,
        Act::Open(Start::AfterKill),
    ];
    workload("open-idle", small(), some([Act::Kill]), acts)
}

fn open_torn() -> Workload {
    let prelude = then(some(unsynced()), [via(Manner::Relaxed, 1, 52, 2000), Act::Cut(3)]);
    workload("open-torn", small(), prelude, opened(Start::AfterCut, []))
}

fn open_large() -> Workload {
    let prelude = some([add(1, 40, 60_000), via(Manner::Relaxed, 1, 41, 30_000), Act::Kill]);
    let acts = opened(Start::AfterKill, [add(1, 61, 9000), Act::Read]);
    workload("open-large", small(), prelude, acts)
}

fn open_indexes() -> Workload {
    let prelude = some([Act::Close, Act::Spoil(Spoil::NoIndexes)]);
    let acts = opened(Start::AfterKill, [Act::Close]);
    workload("open-indexes", small().verify_on_open(true), prelude, acts)
}

/// Other settings than those of the life before, so that what that prepared is of no use.
fn open_resized() -> Workload {
    let prelude = some([
        Act::Close,
        Act::Spoil(Spoil::OddSpares),
        Act::Open(Start::AfterKill),
        Act::Kill,
    ]);
    let config = small()
        .segment_bytes(32 << 10)
        .segments_ahead(2)
        .in_flight_bytes(16 << 10);
    let acts = opened(Start::AfterKill, [add(1, 61, 9000), add(1, 62, 9000), Act::Work]);
    workload("open-resized", config, prelude, then(acts, [Act::Close]))
}

fn lives() -> Workload {
    let acts = start([
        add(1, 1, 300),
        Act::Kill,
        Act::Open(Start::AfterKill),
        via(Manner::Relaxed, 1, 2, 300),
        Act::Cut(5),
        Act::Open(Start::AfterCut),
        add(1, 3, 300),
        one(Step::PurgeTo(1, 1)),
        Act::Kill,
        Act::Open(Start::AfterKill),
        Act::Reclaim,
        Act::Read,
    ]);
    workload("lives", blocks(), vec![], acts)
}

fn view() -> Workload {
    let prelude = some([via(Manner::Relaxed, 1, 50, 800), Act::Kill]);
    let acts = vec![Act::View, Act::Verify, Act::Open(Start::AfterKill), Act::Read];
    workload("view", small(), prelude, acts)
}

fn view_live() -> Workload {
    let acts = vec![
        Act::Open(Start::AfterKill),
        via(Manner::Relaxed, 1, 50, 800),
        Act::View,
        add(1, 51, 2900),
        Act::Verify,
        add(1, 52, 2900),
        add(1, 53, 2900),
        Act::Work,
        Act::View,
        Act::Read,
    ];
    workload("view-live", small(), some([Act::Close]), acts)
}
