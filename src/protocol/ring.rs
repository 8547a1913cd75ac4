//! The ring and the payloads in it: words by their positions, and bytes that another process may change.

use crate::protocol::copy;
use crate::protocol::layout::Header;
use crate::protocol::record::{self, WORD};
use crate::protocol::sync::{self, AtomicU64};
use core::ptr::NonNull;

/// The shared words of a pipe, and the private copy of its geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    header: NonNull<Header>,
    words: NonNull<AtomicU64>,
    /// The capacity less one.
    mask: u64,
}

// SAFETY: all that is reached through the pointers is atomic, or payload bytes that `copy` alone touches.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// # Safety
    /// * `header` points to a header, `words` to `capacity / 8` words; both stay mapped and in place for as long as
    ///   any copy of the ring is used. The memory may change at any time.
    /// * Nothing in this process holds a reference to the words, other than through a copy of this ring.
    pub(crate) unsafe fn new(header: NonNull<Header>, words: NonNull<AtomicU64>, capacity: u64) -> Self {
        assert!(capacity.is_power_of_two() && capacity >= 4 * WORD);
        Ring { header, words, mask: capacity - 1 }
    }

    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    pub(crate) fn max_length(&self) -> u64 {
        record::max_length(self.capacity())
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: it points to a header that outlives us (`new`), and everything in a header is atomic, so that it
        // does not matter who writes it meanwhile.
        unsafe { self.header.as_ref() }
    }

    #[inline(always)]
    fn index(&self, position: u64) -> u64 {
        position & self.mask
    }

    #[inline(always)]
    pub(super) fn word_at(&self, position: u64) -> *const AtomicU64 {
        debug_assert!(position % WORD == 0);
        // SAFETY: every position that comes here is a multiple of 8 (the ends check what they take over, and go on in
        // whole records), and its index is below the capacity: one of the `capacity / 8` words (`new`).
        unsafe { sync::word_at(self.words.as_ptr(), self.index(position) as usize) }
    }

    #[inline(always)]
    pub(super) fn word(&self, position: u64) -> &AtomicU64 {
        // SAFETY: one of the words, see `word_at`; atomic, so that it does not matter who writes it meanwhile.
        unsafe { &*self.word_at(position) }
    }

    #[inline(always)]
    pub(super) fn until_end(&self, position: u64) -> u64 {
        self.capacity() - self.index(position)
    }

    /// The payload of the record at `position`.
    #[inline(always)]
    pub(crate) fn payload(&self, position: u64, length: usize) -> Payload {
        debug_assert!(WORD + length as u64 <= self.until_end(position));
        // SAFETY: the words after the record's first are within the ring, or one past its end if the length is 0,
        // since a record does not cross the end.
        Payload { words: unsafe { self.word_at(position).add(1) }, length }
    }
}

/// A record's payload in the ring: bytes that the other process may write, whatever the protocol says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload {
    pub(super) words: *const AtomicU64,
    pub(super) length: usize,
}

impl Payload {
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.words.cast_mut().cast()
    }

    /// Copies the bytes out.
    ///
    /// # Safety
    /// * The ring is still mapped.
    /// * `to` is writable for `length()` bytes.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, to: *mut u8) {
        // SAFETY: the payload lies within the ring (`Ring::payload`); the rest is the caller's promise.
        unsafe { copy::from_shared(self.words, 0, to, self.length) }
    }

    /// Copies the first `length` bytes out: for a length that the compiler knows.
    ///
    /// # Safety
    /// As [`read`](Self::read), and `length` is at most `length()`.
    #[inline(always)]
    pub(crate) unsafe fn read_start(&self, to: *mut u8, length: usize) {
        // SAFETY: as in `read`.
        unsafe { copy::from_shared(self.words, 0, to, length) }
    }

    /// Copies bytes in, from `offset` on: past the caches if `streaming`.
    ///
    /// # Safety
    /// * The ring is still mapped.
    /// * `offset + bytes.len()` is at most `length()`.
    /// * If `streaming`, there are at least [`copy::LONG`] bytes.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, offset: usize, bytes: &[u8], streaming: bool) {
        let (from, length) = (bytes.as_ptr(), bytes.len());
        // SAFETY: the payload lies within the ring (`Ring::payload`); the rest is the caller's promise.
        unsafe {
            if streaming {
                copy::to_shared_streaming(from, self.words, offset, length);
            } else {
                copy::to_shared(from, self.words, offset, length);
            }
        }
    }

    /// Clears the bytes between the end of the payload and the end of the record, so that nothing older is shown.
    ///
    /// # Safety
    /// The ring is still mapped.
    #[inline(always)]
    pub(super) unsafe fn clear_padding(&self) {
        let padding = record::size(self.length as u64) as usize - WORD as usize - self.length;
        if padding > 0 {
            // SAFETY: the padding belongs to the record, which lies within the ring.
            unsafe { copy::to_shared([0; WORD as usize].as_ptr(), self.words, self.length, padding) }
        }
    }
}

/// Whether `position` is at or behind `wanted`, in a stream whose positions may wrap around.
pub(super) fn is_reached(position: u64, wanted: u64) -> bool {
    position.wrapping_sub(wanted) as i64 >= 0
}

/// Whether two positions are no further apart than the ring is long.
pub(super) fn is_near(a: u64, b: u64, capacity: u64) -> bool {
    a.wrapping_sub(b).wrapping_add(capacity) <= 2 * capacity
}
