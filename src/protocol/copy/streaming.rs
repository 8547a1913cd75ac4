//! Non-temporal stores, on x86-64.

use super::bytes::copy;
use crate::protocol::sync::AtomicU64;
use core::arch::asm;

/// Copies `length` bytes into the ring by non-temporal stores.
///
/// A plain store to a line that the consumer's cache holds must first acquire that line, one line after another. Non-temporal stores
/// of whole lines do not wait for that.
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
    // SAFETY: `before` is less than 64, the lines end at the last byte or earlier, and the rest is less than 64: all of it is
    // within the `length` bytes that the caller promises.
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
        // ORDERING: store fence. Nothing else orders non-temporal stores. The commit that follows is an ordinary store, which
        // publishes only what became visible before it.
        store_fence();
        // The line that the consumer polls comes last, right before the commit.
        copy(from, to, before);
    }
}

/// Makes the stores before it visible before those of a copy of [`LONG`](super::LONG) bytes or more after it, which may be
/// non-temporal, also in `memcpy`.
#[cold]
#[inline(never)]
pub(crate) fn order_long_copy() {
    store_fence();
}

#[inline(always)]
fn store_fence() {
    // SAFETY: it accesses nothing.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) }
}
