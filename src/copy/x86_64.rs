//! Copies on x86-64.

use super::LONG;
use crate::sync::AtomicU64;
use core::arch::asm;
use core::arch::x86_64::__cpuid;

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

/// Copies out of the ring by AVX, where there is such.
///
/// Not by `memcpy`, which uses `rep movsb` for so much. That takes up to fifteen times as long on some processors where the
/// destination's offset in its page is a little above the source's, and a payload stands 8 bytes above a line.
///
/// # Safety
/// As [`copy`], and `length` is at least [`LONG`].
#[inline(never)]
unsafe extern "C" fn read_long(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: whole blocks of 128 bytes from where `to` is aligned, at most 63 bytes after the start; the last 128 bytes, over
    // those before; and the first 64: all within `length`.
    unsafe {
        if !has_avx() {
            return memcpy(from, to, length);
        }
        copy(from, to, 64);
        let before = to.align_offset(64);
        copy_128s(from.add(before), to.add(before), (length - before) / 128 * 128);
        copy(from.add(length - 128), to.add(length - 128), 64);
        copy(from.add(length - 64), to.add(length - 64), 64);
    }
}

#[inline(never)]
fn has_avx() -> bool {
    std::is_x86_feature_detected!("avx")
}

/// Copies by AVX.
///
/// # Safety
/// As [`copy`], and the processor has AVX; `length` is a multiple of 128, and more than 0.
#[inline(always)]
unsafe fn copy_128s(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: accesses just the `length` bytes of the caller's promise. What vzeroupper clears is among what the ABI lets a
    // call clear.
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
            // SAFETY: loads and stores of just these bytes; no stack, no flags, no other effect.
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

/// Copies `length` bytes by the C library, whose code the compiler does not see either.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
unsafe fn memcpy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: a call by the C ABI with the arguments that it asks for; the caller's promises are memcpy's.
    unsafe {
        asm!("call {memcpy}", memcpy = sym libc::memcpy, inout("rdi") to => _, inout("rsi") from => _,
             inout("rdx") length => _, clobber_abi("C"));
    }
}

/// Whether [`to_shared_streaming`] is of use on this processor: on those of AMD where it was measured, Zen 3 to Zen 5. An
/// unmeasured processor gets plain stores.
pub(crate) fn has_streaming_stores() -> bool {
    #[allow(unused_unsafe, reason = "unsafe in older versions of Rust")]
    // SAFETY: every x86-64 processor has the instruction, and leaves 0 and 1 of it.
    let (vendor, signature) = unsafe { (__cpuid(0), __cpuid(1).eax) };
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    let family = (signature >> 8 & 0xF) + (signature >> 20 & 0xFF);
    name == [*b"Auth", *b"enti", *b"cAMD"] && (family == 0x19 || family == 0x1A)
}

/// Copies `length` bytes into the ring by non-temporal stores.
///
/// A plain store to a line that the consumer's cache holds takes it away from there first, one line after the other; whole
/// lines that are written past the caches do not wait for that.
///
/// # Safety
/// As [`to_shared`]; `length` is 64 or more.
#[inline(never)]
pub(crate) unsafe extern "C" fn to_shared_streaming(
    from: *const u8,
    words: *const AtomicU64,
    offset: usize,
    length: usize,
) {
    // SAFETY: `before` is less than 64, the lines end at the last byte or earlier, and the rest is less than 64; all within
    // the `length` bytes of the caller's promise.
    unsafe {
        let to = words.cast_mut().cast::<u8>().add(offset);
        let before = to.align_offset(64);
        let lines = (length - before) / 64;
        for at in (0..lines).map(|line| before + 64 * line) {
            asm!(
                "movups {a}, [{from}]", "movups {b}, [{from} + 16]",
                "movups {c}, [{from} + 32]", "movups {d}, [{from} + 48]",
                "movntps [{to}], {a}", "movntps [{to} + 16], {b}",
                "movntps [{to} + 32], {c}", "movntps [{to} + 48], {d}",
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                from = in(reg) from.add(at), to = in(reg) to.add(at), options(nostack, preserves_flags));
        }
        let rest = before + 64 * lines;
        copy(from.add(rest), to.add(rest), length - rest);
        // ORDERING: non-temporal stores are ordered by this alone; the commit that follows is an ordinary store, which
        // publishes only what became visible before it.
        asm!("sfence", options(nostack, preserves_flags));
        // The line that the consumer polls, right before the commit.
        copy(from, to, before);
    }
}
