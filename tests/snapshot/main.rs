//! The snapshot store: what it keeps, shares, refuses and frees; on a simulated disk, in memory, and on a real one.

mod basics;
mod drawn;
mod enumerated;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../support/random.rs"]
mod random;
mod small;
mod story;
