//! Blocks of bytes on AArch64.

use core::arch::asm;

macro_rules! ends {
    ($name:ident, $bytes:literal, $class:ident, $($register:ident)+, $($code:literal)+) => {
        #[doc = concat!("Copies the first and the last ", $bytes, " bytes of `length`, the first ones last.")]
        ///
        /// # Safety
        #[doc = concat!("`from` is readable and `to` writable for `length` bytes, ", $bytes, " at least, wherever they lie.")]
        #[inline(always)]
        pub(super) unsafe fn $name(from: *const u8, to: *mut u8, length: usize) {
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
/// `from` is readable and `to` writable for `length` bytes, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn memcpy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: a call by the C ABI with the arguments that it asks for; the caller's promises are memcpy's.
    unsafe {
        asm!("bl {memcpy}", memcpy = sym libc::memcpy, inout("x0") to => _, inout("x1") from => _,
             inout("x2") length => _, clobber_abi("C"));
    }
}

/// Copies out of the ring: nothing is known to be faster than `memcpy` here.
///
/// # Safety
/// As [`memcpy`].
#[inline(always)]
pub(super) unsafe fn read_long(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's promises.
    unsafe { memcpy(from, to, length) }
}
