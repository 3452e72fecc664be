//! Sequences of calls with kills, power cuts and failing syncs, against a model. See `everlog_fuzz::run`.

#![no_main]

use everlog_fuzz::run::{Input, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| run(&input));
