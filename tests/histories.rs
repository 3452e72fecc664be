//! One test for each history that must come out right: those of the table, and those behind the rules of the
//! journal. On a simulated disk, with every outcome of a power cut where they can be enumerated and many seeds where not.
//! Each test says which history it is; every failure prints what a rerun needs.

#[path = "support/small.rs"]
mod support;

#[path = "histories/acks.rs"]
mod acks;
#[path = "histories/broken.rs"]
mod broken;
#[path = "histories/carry.rs"]
mod carry;
#[path = "histories/counts.rs"]
mod counts;
#[path = "histories/failure.rs"]
mod failure;
#[path = "histories/handles.rs"]
mod handles;
#[path = "histories/ids.rs"]
mod ids;
#[path = "histories/logs.rs"]
mod logs;
#[path = "histories/many.rs"]
mod many;
#[path = "histories/names.rs"]
mod names;
#[path = "histories/opening.rs"]
mod opening;
#[path = "histories/proof.rs"]
mod proof;
#[path = "histories/purge.rs"]
mod purge;
#[path = "histories/races.rs"]
mod races;
#[path = "histories/reads.rs"]
mod reads;
#[path = "histories/ready.rs"]
mod ready;
#[path = "histories/recorder.rs"]
mod recorder;
#[path = "histories/restarts.rs"]
mod restarts;
#[path = "histories/rotation.rs"]
mod rotation;
#[path = "histories/space.rs"]
mod space;
#[path = "histories/view.rs"]
mod view;
