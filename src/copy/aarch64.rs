//! Copies on AArch64.

use crate::sync::AtomicU64;
use core::arch::asm;

/// Copies `length` bytes out of the ring, from `offset` bytes after `words`.
///
/// # Safety
/// * `length` bytes from there are readable; they may change meanwhile.
/// * `to` is writable for `length` bytes and is not shared memory.
#[inline(always)]
pub(crate) unsafe fn from_shared(words: *const AtomicU64, offset: usize, to: *mut u8, length: usize) {
    // SAFETY: the caller's promises.
    unsafe { copy(words.cast::<u8>().add(offset), to, length) }
}

/// Copies `length` bytes into the ring, to `offset` bytes after `words`; never a byte further.
///
/// # Safety
/// * `from` is readable for `length` bytes and is not shared memory.
/// * `length` bytes from there on are writable.
#[inline(always)]
pub(crate) unsafe fn to_shared(from: *const u8, words: *const AtomicU64, offset: usize, length: usize) {
    // SAFETY: the caller's promises.
    unsafe { copy(from, words.cast_mut().cast::<u8>().add(offset), length) }
}

/// Copies `length` bytes. Up to 64, the block at the end is written before the one at the start.
///
/// # Safety
/// `from` is readable and `to` writable for `length` bytes, and they do not overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: each pair of blocks is of n bytes for a length of n to 2 n.
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

macro_rules! ends {
    ($name:ident, $bytes:literal, $class:ident, $($register:ident)+, $($code:literal)+) => {
        #[doc = concat!("Copies the first and the last ", $bytes, " bytes of `length`, the first ones last.")]
        ///
        /// # Safety
        #[doc = concat!("`from` is readable and `to` writable for `length` bytes, ", $bytes, " at least, wherever they lie.")]
        #[inline(always)]
        unsafe fn $name(from: *const u8, to: *mut u8, length: usize) {
            // SAFETY: the last block starts at the first byte or later. Loads and stores of just these bytes; no stack, no
            // flags, no other effect. Memory that is no device's takes any alignment.
            unsafe {
                let (from_last, to_last) = (from.add(length - $bytes), to.add(length - $bytes));
                asm!($($code,)+ $($register = out($class) _,)+ from = in(reg) from, to = in(reg) to,
                     from_last = in(reg) from_last, to_last = in(reg) to_last, options(nostack, preserves_flags));
            }
        }
    };
}

ends!(ends_1, 1, reg, a b,
    "ldrb {a:w}, [{from}]" "ldrb {b:w}, [{from_last}]" "strb {b:w}, [{to_last}]" "strb {a:w}, [{to}]");
ends!(ends_4, 4, reg, a b,
    "ldr {a:w}, [{from}]" "ldr {b:w}, [{from_last}]" "str {b:w}, [{to_last}]" "str {a:w}, [{to}]");
ends!(ends_8, 8, reg, a b,
    "ldr {a}, [{from}]" "ldr {b}, [{from_last}]" "str {b}, [{to_last}]" "str {a}, [{to}]");
ends!(ends_16, 16, vreg, a b,
    "ldr {a:q}, [{from}]" "ldr {b:q}, [{from_last}]" "str {b:q}, [{to_last}]" "str {a:q}, [{to}]");
ends!(ends_32, 32, vreg, a b c d,
    "ldp {a:q}, {b:q}, [{from}]" "ldp {c:q}, {d:q}, [{from_last}]"
    "stp {c:q}, {d:q}, [{to_last}]" "stp {a:q}, {b:q}, [{to}]");

/// Copies `length` bytes by the C library, whose code the compiler does not see either.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
unsafe fn memcpy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: a call by the C ABI with the arguments that it asks for; the caller's promises are memcpy's.
    unsafe {
        asm!("bl {memcpy}", memcpy = sym libc::memcpy, inout("x0") to => _, inout("x1") from => _,
             inout("x2") length => _, clobber_abi("C"));
    }
}

/// Whether [`to_shared_streaming`] is of use: not measured.
pub(crate) fn has_streaming_stores() -> bool {
    false
}

/// [`to_shared`]: there are no other stores here.
///
/// # Safety
/// As [`to_shared`].
pub(crate) unsafe fn to_shared_streaming(
    from: *const u8,
    words: *const AtomicU64,
    offset: usize,
    length: usize,
) {
    // SAFETY: the caller's promises.
    unsafe { to_shared(from, words, offset, length) }
}
