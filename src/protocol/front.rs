//! The front: where the next record goes, what is known about the bytes there, and the cache lines acquired ahead of use. Also
//! [`FastSlot`], half of the fast path of a send.
//!
//! The *runway* is the part of the ring after the front that the next records may take without another check. It is free, does not
//! reach past the end of the ring, and its cache lines are acquired. A record that fits on the runway takes the fast path:
//! `Writer::slot_fast` returns a [`FastSlot`], `FastSlot::fill` writes the record, `Writer::commit_fast` publishes it.

use crate::protocol::latency::Sampling;
use crate::protocol::record::{self, EMPTY, WORD};
use crate::protocol::ring::{Ring, SharedBytes, is_reached};
use crate::protocol::sync::{self, AtomicU64, Ordering};

/// Bytes of a cache line, or a divisor of it.
const LINE: u64 = sync::distance(64);

/// How far after the tail the lines are acquired at least, in bytes.
///
/// This and [`AT_ONCE`] were the fastest of several distances. Acquired later, a line does not arrive in time. Acquired earlier, the
/// hardware prefetcher of the consumer's core takes it back. Acquired one at a time, no two transfers overlap.
const NEAR: u64 = sync::distance(128);

/// Bytes of lines that are acquired at a time.
const AT_ONCE: u64 = sync::distance(448);

/// Where a record goes: from `start`, after any bytes skipped at the end of the ring, to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) start: u64,
    pub(super) end: u64,
}

/// Where the next record goes, and what is known about the bytes from there on.
///
/// Its fields are stored and loaded one by one, never copied together. A load that is wider than the stores before it cannot forward
/// from the store buffer: it waits until those stores are in the cache, and so for every line that was acquired before them.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) at: u64,
    /// Bytes from `at` on that records may take without another check. They are free, the ring does not end among them, and every word
    /// that starts a line is zero, up to and including the word after them. If 0, nothing is known, and `zeroed_up_to` means nothing
    /// either.
    pub(super) runway: u64,
    /// A position. Every word after `at` and before this position that starts a line is zero.
    pub(super) zeroed_up_to: u64,
}

impl Front {
    pub(super) fn unknown(at: u64) -> Self {
        Front { at, runway: 0, zeroed_up_to: at }
    }

    /// Takes the runway away. Call it before writing anything from `at` on, except a whole record that is committed at once. Committing
    /// what was written restores the runway.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> u64 {
        std::mem::replace(&mut self.runway, 0)
    }
}

/// How far the producer prepares the ring ahead of the front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Bytes of the longest record whose lines are all acquired.
    pub(super) longest: u64,
    /// Which messages are stamped.
    pub(super) sampling: Sampling,
}

/// Where a record of `size` bytes goes that fits on the runway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastSlot {
    /// A copy: the compiler cannot know that stores to the ring do not change the writer's.
    pub(super) ring: Ring,
    /// The record's first word.
    pub(super) first: *const AtomicU64,
    pub(crate) start: u64,
    pub(super) size: u64,
}

impl FastSlot {
    #[inline(always)]
    pub(super) fn end(&self) -> u64 {
        self.start.wrapping_add(self.size)
    }

    /// The word `bytes` bytes after the record's start: one of its own, or the one after it if that one does not start a line.
    #[inline(always)]
    fn word(&self, bytes: u64) -> &AtomicU64 {
        debug_assert!(bytes % WORD == 0 && bytes < self.ring.until_end(self.start));
        // SAFETY: the ring does not end within the runway, and a line starts where the ring ends, so the word is within the ring.
        // Loom's words are larger than 8 bytes.
        unsafe { &*self.first.add((bytes / WORD) as usize) }
    }

    /// Writes the record and its padding, but not its header word. Clears the header word after it.
    #[inline(always)]
    pub(crate) fn fill(&self, message: &[u8]) {
        self.clear_next();
        self.clear_padding();
        // SAFETY: the ring stays mapped while the writer exists (`Ring::new`); the payload has the message's length.
        unsafe { self.payload(message.len()).write(0, message, false) }
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot { start: self.start, end: self.end() }
    }

    #[inline(always)]
    pub(crate) fn payload(&self, length: usize) -> SharedBytes {
        debug_assert!(record::size(length as u64) <= self.size);
        // SAFETY: a record is at least one word long, and lies within the ring.
        SharedBytes { words: unsafe { self.first.add(1) }, length }
    }

    /// Clears the padding of a record that will fill its slot.
    #[inline(always)]
    pub(crate) fn clear_padding(&self) {
        // The padding is in the record's last word, which is the header word if the record is empty. Relaxed: the commit orders it.
        self.word(self.size - WORD).store(0, Ordering::Relaxed);
    }

    /// Clears the header word after the record.
    #[inline(always)]
    pub(super) fn clear_next(&self) {
        // On the runway, a word that starts a line is already zero.
        if self.end() % LINE != 0 {
            // Relaxed: the commit orders it, so a consumer that sees the record sees no older word after it.
            self.word(self.size).store(EMPTY, Ordering::Relaxed);
        }
    }
}

/// The records of a batch, from the tail on.
#[derive(Debug)]
pub(crate) struct Uncommitted {
    /// Where the next record goes.
    pub(crate) front: Front,
    /// The word that commits the batch: that of its first record.
    pub(super) first: u64,
    pub(crate) messages: u64,
    pub(super) bytes: u64,
}

impl Uncommitted {
    /// Adds a record that is written up to `end`, except for the word at the front, which becomes `word`.
    #[inline(always)]
    pub(super) fn add(&mut self, at_front: &AtomicU64, word: u64, end: u64, length: usize) {
        if self.messages == 0 {
            self.first = word;
        } else {
            // Relaxed: the commit of the batch orders it.
            at_front.store(word, Ordering::Relaxed);
        }
        self.front.at = end;
        self.messages += 1;
        self.bytes += length as u64;
    }
}

/// Extends the runway as far as possible, for another record of `size` bytes if there is space, and acquires enough lines for it. The
/// read position is at or after `head`. If `size` exceeds `ahead.longest`, acquires no lines and leaves no runway. The runway ends
/// before the next message that is sampled.
#[inline(never)]
pub(super) fn extend(ring: &Ring, head: u64, ahead: &Ahead, front: &mut Front, size: u64) {
    if size > ahead.longest {
        // The next record takes the slow path anyway.
        *front = Front::unknown(front.at);
        return;
    }
    // The runway ends before `zeroed_up_to`, so that the next lines are acquired in time.
    let margin = NEAR.saturating_sub(size).max(WORD);
    let zeroed = front.zeroed_up_to.wrapping_sub(front.at) as i64;
    if zeroed < (size + margin) as i64 {
        front.zeroed_up_to = acquire_ahead(ring, head, front, size);
    }
    let zeroed_up_to = front.zeroed_up_to.wrapping_sub(front.at).saturating_sub(margin);
    // None, with the head of a poisoned writer.
    let free = (ring.capacity() - WORD).saturating_sub(front.at.wrapping_sub(head));
    front.runway = zeroed_up_to.min(free).min(ahead.sampling.until_crossing(front.at));
}

/// Acquires cache lines in exclusive state ahead of use, by clearing the first word of each: the lines of another record of `size`
/// bytes after the front, and some more, as far as there is space. Returns the position up to which the lines are cleared.
///
/// The store matters for the line, not for the zero. One lap ago the consumer, or its core's prefetcher, read this line, so both caches
/// hold it in shared state. The first store to it waits until the other copy is invalidated (a read for ownership), and all later
/// stores wait too, since stores become visible in order. Here this happens after a commit, for several lines at once, while the
/// consumer is busy with the record, and not in the middle of the next message. A prefetch for writing does not help: some processors,
/// AMD's among them, then leave a line in shared state if it is already in the cache.
fn acquire_ahead(ring: &Ring, head: u64, front: &Front, size: u64) -> u64 {
    let Front { at, zeroed_up_to, .. } = *front;
    let distance = AT_ONCE + size.max(NEAR);
    // None, with the head of a poisoned writer.
    let free = ring.capacity().saturating_sub(at.wrapping_sub(head));
    let first = at.wrapping_add(LINE - 1) & !(LINE - 1);
    let end = at.wrapping_add(distance.min(free));
    // Neither the lines nor the runway before them go further.
    ring.announce_write(end, head);
    let end = end & !(LINE - 1);
    let mut line = if is_reached(zeroed_up_to, first) { zeroed_up_to } else { first };
    while !is_reached(line, end) {
        // Relaxed: a free word, like those of the next payload; the commits order it.
        ring.word(line).store(EMPTY, Ordering::Relaxed);
        line = line.wrapping_add(LINE);
    }
    line
}
