//! Copies of blocks on AArch64.

use core::arch::asm;

macro_rules! ends {
    ($name:ident, $bytes:literal, $class:ident, $($register:ident)+, $($code:literal)+) => {
        #[doc = concat!("Copies the first and the last ", $bytes, " bytes of `length`, the first ones last.")]
        ///
        /// # Safety
        #[doc = concat!("`from` is readable and `to` writable for `length` bytes, at least ", $bytes, ", at any alignment.")]
        #[inline(always)]
        pub(super) unsafe fn $name(from: *const u8, to: *mut u8, length: usize) {
            // SAFETY: the last block starts at the first byte or later. Loads and stores exactly these bytes; no stack, no
            // flags, no other effect. Normal (not device) memory allows any alignment.
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

/// Copies `length` bytes by the C library's `memcpy`, called where the compiler does not see it.
///
/// # Safety
/// `from` is readable and `to` writable for `length` bytes, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn memcpy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: a call by the C ABI with the arguments that `memcpy` takes; the caller makes the promises that `memcpy` needs.
    unsafe {
        asm!("bl {memcpy}", memcpy = sym libc::memcpy, inout("x0") to => _, inout("x1") from => _,
             inout("x2") length => _, clobber_abi("C"));
    }
}

/// Copies out of the ring by `memcpy`: nothing faster is known on AArch64.
///
/// # Safety
/// As [`memcpy`].
#[inline(always)]
pub(super) unsafe fn read_long(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's promises.
    unsafe { memcpy(from, to, length) }
}
