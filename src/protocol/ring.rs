//! The ring: its words by position, and payload bytes that another process may change at any time.

use crate::protocol::copy;
use crate::protocol::layout::Header;
use crate::protocol::record::{self, WORD};
use crate::protocol::sync::{self, AtomicU64, Ordering, fence};
use core::ptr::NonNull;

/// Pointers to the shared words of a pipe, and a private copy of its geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    header: NonNull<Header>,
    words: NonNull<AtomicU64>,
    /// The capacity minus one.
    mask: u64,
}

// SAFETY: everything behind the pointers is atomic, except payload bytes, which only `copy` touches.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// # Safety
    /// * `header` points to a header, and `words` to `capacity / 8` words. Both stay mapped at the same address while any
    ///   copy of the ring is in use. The memory may change at any time.
    /// * Nothing in this process holds a reference to the words, except through a copy of this ring.
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
        // SAFETY: it points to a header that outlives us (`new`). Everything in a header is atomic, so other processes may
        // write it meanwhile.
        unsafe { self.header.as_ref() }
    }

    #[inline(always)]
    fn index(&self, position: u64) -> u64 {
        position & self.mask
    }

    #[inline(always)]
    pub(super) fn word_at(&self, position: u64) -> *const AtomicU64 {
        debug_assert!(position % WORD == 0);
        // SAFETY: every position passed here is a multiple of 8 (the endpoints check the positions they take over and
        // advance by whole records), and its index is below the capacity: it is one of the `capacity / 8` words (`new`).
        unsafe { sync::word_at(self.words.as_ptr(), self.index(position) as usize) }
    }

    #[inline(always)]
    pub(super) fn word(&self, position: u64) -> &AtomicU64 {
        // SAFETY: one of the words, see `word_at`. It is atomic, so another process may write it meanwhile.
        unsafe { &*self.word_at(position) }
    }

    /// Announces that the producer may write to the ring before `end`. The consumer has released everything before `head`, at most a
    /// capacity before `end`.
    ///
    /// Called before the first write of a lap to each place, so that a watcher knows afterwards whether what it copied was overwritten
    /// meanwhile. Announces an eighth of the ring more than is needed now, but not what the consumer has not released. So it costs one load
    /// and a comparison, except for eight times a lap; in a ring that is almost full, as often as the consumer makes room.
    #[inline(always)]
    pub(super) fn announce_write(&self, end: u64, head: u64) {
        if is_reached(self.reach(), end) {
            return;
        }
        let writable = head.wrapping_add(self.capacity());
        let further = end.wrapping_add(self.capacity() / 8);
        let reach = if is_reached(further, writable) { writable } else { further };
        // ORDERING: Release, pairs with the Acquire load in `Tap::is_intact`: a watcher that finds this `reach` finds the `head` that
        // permits it.
        self.header().produced.0.reach.store(reach, Ordering::Release);
        // ORDERING: Release fence, pairs with the Acquire fence in `Tap::is_intact`: a watcher that read a byte written after this
        // finds this `reach`. It does not order non-temporal stores: see `Writer::order_long_copy`.
        fence(Ordering::Release);
    }

    /// How far writes are announced.
    #[inline(always)]
    pub(super) fn reach(&self) -> u64 {
        // Relaxed: only producers write it, and the claim orders us after the last one.
        self.header().produced.0.reach.load(Ordering::Relaxed)
    }

    /// Bytes from `position` to the end of the ring.
    #[inline(always)]
    pub(super) fn until_end(&self, position: u64) -> u64 {
        self.capacity() - self.index(position)
    }

    /// The payload of the record at `position`.
    #[inline(always)]
    pub(crate) fn payload(&self, position: u64, length: usize) -> SharedBytes {
        debug_assert!(WORD + length as u64 <= self.until_end(position));
        // SAFETY: a record does not cross the end of the ring, so the word after its header word is within the ring, or one
        // past its end if the length is 0.
        SharedBytes { words: unsafe { self.word_at(position).add(1) }, length }
    }
}

/// A record's payload in the ring: bytes that the other process may write at any time, whatever the protocol says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedBytes {
    pub(super) words: *const AtomicU64,
    pub(super) length: usize,
}

impl SharedBytes {
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

    /// Copies the first `length` bytes out, for a length known at compile time.
    ///
    /// # Safety
    /// As [`read`](Self::read), and `length` is at most `length()`.
    #[inline(always)]
    pub(crate) unsafe fn read_start(&self, to: *mut u8, length: usize) {
        // SAFETY: as in `read`.
        unsafe { copy::from_shared(self.words, 0, to, length) }
    }

    /// Copies `bytes` into the payload, from `offset` on. `streaming` selects non-temporal stores.
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

    /// Clears the bytes between the end of the payload and the end of the record, so that they show no older data.
    ///
    /// # Safety
    /// The ring is still mapped.
    #[inline(always)]
    pub(super) unsafe fn clear_padding(&self) {
        let padding = record::size(self.length as u64) as usize - WORD as usize - self.length;
        if padding > 0 {
            // SAFETY: the padding is part of the record, which lies within the ring.
            unsafe { copy::to_shared([0; WORD as usize].as_ptr(), self.words, self.length, padding) }
        }
    }
}

/// Whether `position` is at or after `target`. Positions wrap around at 2^64.
pub(super) fn is_reached(position: u64, target: u64) -> bool {
    position.wrapping_sub(target) as i64 >= 0
}

/// Whether two positions are at most one capacity apart.
pub(super) fn is_near(a: u64, b: u64, capacity: u64) -> bool {
    a.wrapping_sub(b).wrapping_add(capacity) <= 2 * capacity
}
