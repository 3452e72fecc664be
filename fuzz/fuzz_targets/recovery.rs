//! Journals whose files were damaged in any way: opening and viewing never panic and never return what was not written.
//! See `everlog_fuzz::damage`.

#![no_main]

use everlog_fuzz::damage::{Input, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| run(&input));
