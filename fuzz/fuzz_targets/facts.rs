//! The decoder of the payload of facts that restate a log: any bytes must be decoded or refused, never panic, and what was decoded must be
//! told by exactly these bytes.

#![no_main]

use everlog::inspect::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::facts(bytes);
});
