//! Copies of blocks on x86-64.

use crate::protocol::processor::Processor;
use core::arch::asm;

macro_rules! ends {
    ($name:ident, $bytes:literal, $class:ident, $($register:ident)+, $($code:literal)+) => {
        #[doc = concat!("Copies the first and the last ", $bytes, " bytes of `length`, the first ones last.")]
        ///
        /// # Safety
        #[doc = concat!("`from` is readable and `to` writable for `length` bytes, at least ", $bytes, ", at any alignment.")]
        #[inline(always)]
        pub(super) unsafe fn $name(from: *const u8, to: *mut u8, length: usize) {
            // SAFETY: loads and stores exactly these bytes; no stack, no flags, no other effect.
            unsafe {
                asm!($($code,)+ $($register = out($class) _,)+ from = in(reg) from, to = in(reg) to, length = in(reg) length,
                     options(nostack, preserves_flags));
            }
        }
    };
}

ends!(ends_1, "1", reg_byte, a b,
    "mov {a}, [{from}]" "mov {b}, [{from} + {length} - 1]" "mov [{to} + {length} - 1], {b}" "mov [{to}], {a}");
ends!(ends_4, "4", reg, a b,
    "mov {a:e}, [{from}]" "mov {b:e}, [{from} + {length} - 4]"
    "mov [{to} + {length} - 4], {b:e}" "mov [{to}], {a:e}");
ends!(ends_8, "8", reg, a b,
    "mov {a}, [{from}]" "mov {b}, [{from} + {length} - 8]" "mov [{to} + {length} - 8], {b}" "mov [{to}], {a}");
ends!(ends_16, "16", xmm_reg, a b,
    "movups {a}, [{from}]" "movups {b}, [{from} + {length} - 16]"
    "movups [{to} + {length} - 16], {b}" "movups [{to}], {a}");
ends!(ends_32, "32", xmm_reg, a b c d,
    "movups {a}, [{from}]" "movups {b}, [{from} + 16]"
    "movups {c}, [{from} + {length} - 32]" "movups {d}, [{from} + {length} - 16]"
    "movups [{to} + {length} - 16], {d}" "movups [{to} + {length} - 32], {c}"
    "movups [{to} + 16], {b}" "movups [{to}], {a}");

/// Copies `length` bytes by the C library's `memcpy`, called where the compiler does not see it.
///
/// # Safety
/// `from` is readable and `to` writable for `length` bytes, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn memcpy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: a call by the C ABI with the arguments that `memcpy` takes; the caller makes the promises that `memcpy` needs.
    unsafe {
        asm!("call {memcpy}", memcpy = sym libc::memcpy, inout("rdi") to => _, inout("rsi") from => _,
             inout("rdx") length => _, clobber_abi("C"));
    }
}

/// Copies out of the ring.
///
/// AMD's Zen 3 to Zen 5 use AVX and not `memcpy`, which uses `rep movsb` for these lengths. On Zen 3, that takes up to fifteen times as
/// long if the destination's offset in its page is slightly above the source's. A payload starts 8 bytes after a line does.
///
/// # Safety
/// As [`memcpy`], and `length` is at least 256.
#[inline(never)]
pub(super) unsafe extern "C" fn read_long(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's promises.
    unsafe { if prefers_avx() { copy_by_avx(from, to, length) } else { memcpy(from, to, length) } }
}

#[inline(never)]
fn prefers_avx() -> bool {
    Processor::this() == Processor::Zen && std::is_x86_feature_detected!("avx")
}

/// Copies by AVX.
///
/// # Safety
/// As [`memcpy`], the processor has AVX, and `length` is at least 256.
#[inline(always)]
pub(in crate::protocol::copy) unsafe fn copy_by_avx(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the first 64 bytes; whole blocks of 128 bytes from where `to` is aligned, at most 63 bytes after the start; and the
    // last 128 bytes, which overlap those: all within `length`.
    unsafe {
        ends_32(from, to, 64);
        let before = to.align_offset(64);
        copy_128s(from.add(before), to.add(before), (length - before) / 128 * 128);
        ends_32(from.add(length - 128), to.add(length - 128), 64);
        ends_32(from.add(length - 64), to.add(length - 64), 64);
    }
}

/// Copies whole blocks by AVX.
///
/// # Safety
/// As [`memcpy`], and the processor has AVX; `length` is a multiple of 128, and more than 0.
#[inline(always)]
unsafe fn copy_128s(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: accesses exactly the `length` bytes that the caller promises. The ABI lets a call clear the registers that
    // vzeroupper clears.
    unsafe {
        asm!(
            "2:",
            "vmovups ymm0, [rsi]",
            "vmovups ymm1, [rsi + 32]",
            "vmovups ymm2, [rsi + 64]",
            "vmovups ymm3, [rsi + 96]",
            "vmovups [rdi], ymm0",
            "vmovups [rdi + 32], ymm1",
            "vmovups [rdi + 64], ymm2",
            "vmovups [rdi + 96], ymm3",
            "add rsi, 128",
            "add rdi, 128",
            "sub rdx, 128",
            "jnz 2b",
            "vzeroupper",
            inout("rsi") from => _, inout("rdi") to => _, inout("rdx") length => _,
            clobber_abi("C"), options(nostack));
    }
}
