//! Copies by `asm!` blocks, a set for each architecture, and by the C library.

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod blocks;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod blocks;

#[cfg(all(test, target_arch = "x86_64"))]
pub(super) use self::blocks::copy_by_avx;
use self::blocks::{ends_1, ends_4, ends_8, ends_16, ends_32, memcpy, read_long};
use super::LONG;
use crate::protocol::sync::AtomicU64;

/// Copies `length` bytes out of the ring, from `offset` bytes after `words`.
///
/// # Safety
/// * `length` bytes from there are readable; they may change meanwhile.
/// * `to` is writable for `length` bytes and is not shared memory.
#[inline(always)]
pub(crate) unsafe fn from_shared(words: *const AtomicU64, offset: usize, to: *mut u8, length: usize) {
    // SAFETY: the caller's promises.
    unsafe {
        let from = words.cast::<u8>().add(offset);
        if length < LONG { copy(from, to, length) } else { read_long(from, to, length) }
    }
}

/// Copies `length` bytes into the ring, to `offset` bytes after `words`. Writes no other byte.
///
/// # Safety
/// * `from` is readable for `length` bytes and is not shared memory.
/// * `length` bytes from there are writable.
#[inline(always)]
pub(crate) unsafe fn to_shared(from: *const u8, words: *const AtomicU64, offset: usize, length: usize) {
    // SAFETY: the caller's promises.
    unsafe { copy(from, words.cast_mut().cast::<u8>().add(offset), length) }
}

/// Copies `length` bytes. Up to 64 bytes, writes the block at the end before the one at the start.
///
/// # Safety
/// `from` is readable and `to` writable for `length` bytes, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: each branch copies two blocks of n bytes for a length of n to 2 n.
    unsafe {
        if length.wrapping_sub(8) <= 8 {
            ends_8(from, to, length);
        } else if length > 16 {
            if length > 64 {
                memcpy(from, to, length);
            } else if length >= 32 {
                ends_32(from, to, length);
            } else {
                ends_16(from, to, length);
            }
        } else if length >= 4 {
            ends_4(from, to, length);
        } else if length > 0 {
            let middle = length / 2;
            ends_1(from, to, length);
            ends_1(from.add(middle), to.add(middle), 1);
        }
    }
}
