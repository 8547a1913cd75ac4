//! Everything that the protocol needs from the machine: atomics, fences, and a word to sleep on.
//!
//! They come from the standard library and the kernel. With `--cfg shmpipe_loom` they come from loom, which runs the protocol in
//! every interleaving, with a futex modelled by loom's mutex.

#[cfg(not(shmpipe_loom))]
#[path = "sync/machine.rs"]
mod machine;
#[cfg(shmpipe_loom)]
#[path = "sync/loom.rs"]
mod machine;

pub(crate) use machine::*;

/// The word `bytes` bytes after `words`.
///
/// # Safety
/// There is a word.
#[inline(always)]
pub(crate) unsafe fn word_at(words: *const AtomicU64, bytes: usize) -> *const AtomicU64 {
    // Loom's words are larger than 8 bytes.
    let bytes = if IS_MODEL { bytes / 8 * size_of::<AtomicU64>() } else { bytes };
    // SAFETY: the caller's promise.
    unsafe { words.byte_add(bytes) }
}

/// A distance in the ring. In models, whose rings are small, always two words.
pub(crate) const fn distance(bytes: u64) -> u64 {
    if IS_MODEL { 16 } else { bytes }
}
