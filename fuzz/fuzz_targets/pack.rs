//! The decoders of headers of packs and exports: any bytes, as they are and with checksums that agree, must be decoded or refused, never panic.

#![no_main]

use everlog::inspect::decode;
use everlog_fuzz::checksum;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::pack(bytes);
    let _ = decode::pack(&checksum::pack(bytes));
    let _ = decode::export(bytes);
    let _ = decode::export(&checksum::pack(bytes));
});
