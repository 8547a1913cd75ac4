//! Non-temporal stores, on x86-64.

use super::bytes::copy;
use crate::sync::AtomicU64;
use core::arch::asm;
use core::arch::x86_64::__cpuid;

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
/// As [`to_shared`](super::to_shared); `length` is 64 or more.
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
