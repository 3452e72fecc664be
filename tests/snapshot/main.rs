//! The snapshot store: what it keeps, shares, refuses and frees; on a simulated disk, in memory, and on a real one.

mod bad;
mod basics;
mod beside;
mod collecting;
#[cfg(feature = "zstd")]
mod compressed;
mod drawn;
mod enumerated;
mod exports;
mod faults;
mod healed;
mod pins;
mod places;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../support/random.rs"]
mod random;
mod rewriting;
mod sharing;
mod small;
mod story;
mod threads;
