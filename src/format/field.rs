//! Fields of fixed-size structures: one chain of offsets, read and written by name, little-endian.
//!
//! The structures are arrays of a length known to the compiler and the fields are constants, so no access can be out
//! of bounds for an input that arrives at run time.

use core::ops::Range;

/// The bytes of a field: `size` bytes from `at`.
pub(super) const fn field(at: usize, size: usize) -> Range<usize> {
    at..at + size
}

/// The bytes of `field` as an array, ready for `from_le_bytes`.
pub(super) fn array<const N: usize>(bytes: &[u8], field: Range<usize>) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[field]);
    out
}

pub(super) fn get_u16(bytes: &[u8], field: Range<usize>) -> u16 {
    u16::from_le_bytes(array(bytes, field))
}

pub(super) fn get_u32(bytes: &[u8], field: Range<usize>) -> u32 {
    u32::from_le_bytes(array(bytes, field))
}

pub(super) fn get_u64(bytes: &[u8], field: Range<usize>) -> u64 {
    u64::from_le_bytes(array(bytes, field))
}

pub(super) fn get_u128(bytes: &[u8], field: Range<usize>) -> u128 {
    u128::from_le_bytes(array(bytes, field))
}

/// Writes `value` into `field`, which has exactly its size.
pub(super) fn put<const N: usize>(bytes: &mut [u8], field: Range<usize>, value: [u8; N]) {
    bytes[field].copy_from_slice(&value);
}

/// Whether every byte is zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
