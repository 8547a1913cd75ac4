//! Copies by relaxed atomics: for processors without `asm!` blocks, for loom, and for sanitizers.

use crate::protocol::sync::{AtomicU64, Ordering};

/// Copies `length` bytes out of the ring, from `offset` bytes after `words`.
///
/// # Safety
/// * `length` bytes from there are readable; they may change meanwhile.
/// * `to` is writable for `length` bytes and is not shared memory.
pub(crate) unsafe fn from_shared(words: *const AtomicU64, offset: usize, to: *mut u8, length: usize) {
    let mut at = 0;
    while at < length {
        let byte = offset + at;
        let within = byte % 8;
        let count = (8 - within).min(length - at);
        // SAFETY: word number byte / 8 holds bytes that the caller promises, and `count` bytes at `at` lie within the `length`
        // bytes at `to`. Relaxed: the record's header word orders the payload.
        unsafe {
            let word = (*words.add(byte / 8)).load(Ordering::Relaxed).to_ne_bytes();
            to.add(at).copy_from_nonoverlapping(word.as_ptr().add(within), count);
        }
        at += count;
    }
}

/// Copies `length` bytes into the ring, to `offset` bytes after `words`. Writes no other byte.
///
/// # Safety
/// * `from` is readable for `length` bytes and is not shared memory.
/// * `length` bytes from there are writable.
pub(crate) unsafe fn to_shared(from: *const u8, words: *const AtomicU64, offset: usize, length: usize) {
    let mut at = 0;
    while at < length {
        let byte = offset + at;
        let within = byte % 8;
        let count = (8 - within).min(length - at);
        // SAFETY: as in `from_shared`, with source and destination swapped. A word that is only partly written keeps its other
        // bytes, which belong to the same record and have no other writer. Relaxed: as in `from_shared`.
        unsafe {
            let word = &*words.add(byte / 8);
            let mut bytes = if count == 8 { [0; 8] } else { word.load(Ordering::Relaxed).to_ne_bytes() };
            bytes.as_mut_ptr().add(within).copy_from_nonoverlapping(from.add(at), count);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        at += count;
    }
}
