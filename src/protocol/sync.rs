//! All that the protocol asks of the machine: atomics, a word to sleep on, the sleeper's memory barrier. From the standard
//! library and the kernel, or from loom.
//!
//! Built with `--cfg shmpipe_loom`, the protocol runs on loom's atomics and on a futex modelled with loom's mutex.

#[cfg(not(shmpipe_loom))]
mod futex;
#[cfg(shmpipe_loom)]
#[path = "sync/loom.rs"]
mod futex;

#[cfg(shmpipe_loom)]
mod mortal;

#[cfg(shmpipe_loom)]
pub(crate) use ::loom::sync::atomic::Ordering;
pub(crate) use core::sync::atomic::compiler_fence;
#[cfg(not(shmpipe_loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use futex::Futex;
#[cfg(shmpipe_loom)]
pub(crate) use mortal::{AtomicU32, AtomicU64, fence, killed_after};
#[cfg(not(shmpipe_loom))]
pub(crate) use {crate::os::membarrier::everywhere as fence_everywhere, futex::wake_at};

/// Tells the processor that this is a polling loop; lets another thread run under loom.
#[inline(always)]
pub(crate) fn spin_loop() {
    #[cfg(not(shmpipe_loom))]
    core::hint::spin_loop();
    #[cfg(shmpipe_loom)]
    ::loom::thread::yield_now();
}

/// No model sleeps in the way that needs the kernel's barrier.
#[cfg(shmpipe_loom)]
pub(crate) fn fence_everywhere() {
    unreachable!("a barrier of the kernel in a model");
}

/// The word at so many bytes behind `words`.
///
/// # Safety
/// There is one.
#[inline(always)]
pub(crate) unsafe fn word_at(words: *const AtomicU64, bytes: usize) -> *const AtomicU64 {
    // Loom's words are larger than 8 bytes.
    let bytes = if cfg!(shmpipe_loom) { bytes / 8 * size_of::<AtomicU64>() } else { bytes };
    // SAFETY: the caller's promise.
    unsafe { words.byte_add(bytes) }
}

/// A distance in the ring: under loom, where rings are small, that of two words.
pub(crate) const fn distance(bytes: u64) -> u64 {
    if cfg!(shmpipe_loom) { 16 } else { bytes }
}
