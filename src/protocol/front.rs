//! Where the next record goes, what is known of the bytes there, and the lines taken ahead of it.

use crate::protocol::record::{self, NOTHING, WORD};
use crate::protocol::ring::{Payload, Ring, is_reached};
use crate::protocol::sync::{self, AtomicU64, Ordering};

/// Bytes of a cache line, or a divisor of it.
const LINE: u64 = sync::distance(64);

/// How far behind the tail the lines are to be ours at least, and how many bytes of them we take at a time. Each
/// distance was the best of several: taken later, a line is not ours in time; taken earlier, the hardware prefetcher of
/// the consumer's core takes it away again; taken one by one, no two transfers overlap.
const NEAR: u64 = sync::distance(128);
const AT_ONCE: u64 = sync::distance(448);

/// Where a record goes: from `start`, behind what is skipped at the end of the ring, to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) start: u64,
    pub(super) end: u64,
}

/// Where the next record goes, and what is known of the bytes from there on.
///
/// Its words are stored and loaded one by one, never copied together: a load that is wider than the stores before it waits until
/// those are in the cache, and so for every line that was taken ahead of them.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) at: u64,
    /// Bytes from `at` on that records may take without a further look: they are free, the ring does not end among
    /// them, and every word that starts a line there, up to and including the one behind them, is zero. If 0, nothing is
    /// known, and `cleared` says nothing either.
    pub(super) runway: u64,
    /// A position: every word behind `at` and before it that starts a line is zero.
    pub(super) cleared: u64,
}

impl Front {
    pub(super) fn unknown(at: u64) -> Self {
        Front { at, runway: 0, cleared: at }
    }

    /// Takes what is known away, before anything but a whole record, committed at once, is written from `at` on. It comes back
    /// when that is committed, if it ever is.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> u64 {
        std::mem::replace(&mut self.runway, 0)
    }
}

/// Where a record of `size` bytes goes that lies on a runway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    /// A copy: the compiler cannot know that stores to the ring leave the writer's alone.
    pub(super) ring: Ring,
    /// The record's first word.
    pub(super) first: *const AtomicU64,
    pub(crate) start: u64,
    pub(super) size: u64,
}

impl Here {
    #[inline(always)]
    pub(super) fn end(&self) -> u64 {
        self.start.wrapping_add(self.size)
    }

    /// The word so many bytes from the record's start: one of its own, or the one behind it if that does not start a line.
    #[inline(always)]
    fn word(&self, bytes: u64) -> &AtomicU64 {
        debug_assert!(bytes % WORD == 0 && bytes < self.ring.until_end(self.start));
        // SAFETY: the ring does not end within the runway, and where it ends a line starts. Loom's words are larger than 8 bytes.
        unsafe { &*self.first.add((bytes / WORD) as usize) }
    }

    /// Writes the record, padding and all, but not its header word; and clears the one behind it.
    #[inline(always)]
    pub(crate) fn fill(&self, message: &[u8]) {
        self.clear_next();
        self.clear_padding();
        // SAFETY: the ring is mapped as long as the writer is there (`Ring::new`); the payload has the message's length.
        unsafe { self.payload(message.len()).write(0, message, false) }
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot { start: self.start, end: self.end() }
    }

    #[inline(always)]
    pub(crate) fn payload(&self, length: usize) -> Payload {
        debug_assert!(record::size(length as u64) <= self.size);
        // SAFETY: a record is a word long at least, and lies within the ring.
        Payload { words: unsafe { self.first.add(1) }, length }
    }

    /// Clears the padding of a record that is going to fill its place.
    #[inline(always)]
    pub(crate) fn clear_padding(&self) {
        // It is in the record's last word, the header word of an empty one. Relaxed: the commit orders it.
        self.word(self.size - WORD).store(0, Ordering::Relaxed);
    }

    /// Clears the header word behind the record.
    #[inline(always)]
    pub(super) fn clear_next(&self) {
        // One that starts a line is zero: that is what a runway is.
        if self.end() % LINE != 0 {
            // Relaxed: the commit orders it, so that who sees the record sees nothing behind it.
            self.word(self.size).store(NOTHING, Ordering::Relaxed);
        }
    }
}

/// The records of a batch, behind the tail.
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
    /// Adds a record that was written up to `end`, all but what is to stand in the word at the front.
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

/// Gives a front as much runway as there is, for another record of `size` bytes if possible, and clears enough lines for it.
/// The read position is `head` or further. The lines of records of more than `longest` bytes are not taken.
#[inline(never)]
pub(super) fn extend(ring: &Ring, head: u64, longest: u64, front: &mut Front, size: u64) {
    if size > longest {
        // The next one is looked at closely in any case.
        *front = Front::unknown(front.at);
        return;
    }
    // The runway ends short of what is cleared, so that more is cleared in time.
    let margin = NEAR.saturating_sub(size).max(WORD);
    let ahead = front.cleared.wrapping_sub(front.at) as i64;
    if ahead < (size + margin) as i64 {
        front.cleared = clear_ahead(ring, head, front, size);
    }
    let cleared = front.cleared.wrapping_sub(front.at).saturating_sub(margin);
    // None, with the head of a poisoned end.
    let free = (ring.capacity() - WORD).saturating_sub(front.at.wrapping_sub(head));
    front.runway = cleared.min(free).min(ring.until_end(front.at));
}

/// Clears the first word of some lines behind the front, as far as there is space: of all those for another record of `size`
/// bytes, and more. Returns how far.
///
/// What this is for is not the zero but the line. The consumer has read it, a lap ago, or its core's prefetcher has:
/// both caches share it, and the first store to it waits until the other one has let go of it, with all later
/// stores behind it, since stores become visible in order. Here this happens after a commit, for several lines at
/// once, while the consumer is busy with what it got, instead of in the middle of the next message. Prefetching for
/// writing does not do it: some processors (AMD's among them) leave a line shared that is in the cache already.
fn clear_ahead(ring: &Ring, head: u64, front: &Front, size: u64) -> u64 {
    let Front { at, cleared, .. } = *front;
    let distance = AT_ONCE + size.max(NEAR);
    // None, with the head of a poisoned end.
    let free = ring.capacity().saturating_sub(at.wrapping_sub(head));
    let first = at.wrapping_add(LINE - 1) & !(LINE - 1);
    let end = at.wrapping_add(distance.min(free)) & !(LINE - 1);
    let mut line = if is_reached(cleared, first) { cleared } else { first };
    while !is_reached(line, end) {
        // Relaxed: a free word, like those of the next payload; the commits order it.
        ring.word(line).store(NOTHING, Ordering::Relaxed);
        line = line.wrapping_add(LINE);
    }
    line
}
