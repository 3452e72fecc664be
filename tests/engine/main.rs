//! The engine: what is replied to stands after every crash, in order and once; checkpoints, fallbacks and refusals; machines that fail.
//! On a simulated disk, but for threads.

mod crash;
mod ends;
mod enumerated;
mod failing;
mod faults;
mod held;
mod machine;
mod once;
mod received;
mod replay;
mod replicas;
mod rot;
mod snapshots;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../support/small.rs"]
mod support;
mod threads;
