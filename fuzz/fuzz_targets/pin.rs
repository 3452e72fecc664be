//! The decoder of pins: any bytes, as they are and with checksums that agree, must be decoded or refused, never panic.

#![no_main]

use everlog::inspect::decode;
use everlog_fuzz::checksum;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::pin(bytes);
    let _ = decode::pin(&checksum::snapshot_index(bytes));
});
