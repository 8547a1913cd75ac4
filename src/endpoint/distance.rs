//! How far the other processor is, as far as that decides how long messages are written.
//!
//! Near, with a cache between the two, a plain store takes a line from the other core in less time than memory needs, and
//! what was stored is found in the cache. Far, it takes longer than memory: then long messages are written past the caches
//! ([`to_shared_streaming`](crate::protocol::copy::to_shared_streaming)), and read from memory. A virtual processor may be near at one
//! moment and far at the next, so the question is asked again and again: how long does the load of a line take that the other
//! side has just written? The line of `head` is one.

use std::time::{Duration, Instant};

/// A line that takes as long as this comes from farther away than memory. Half a round trip of one line takes 15 to 60 ns near and
/// 165 to 215 ns far on the processors of the archive (`benches/results`).
const FAR: Duration = Duration::from_nanos(100);

/// A clock that takes as long as this to be read is a system call, and says nothing.
const SLOW_CLOCK: Duration = Duration::from_nanos(200);

/// Bytes of long messages between two readings: a reading takes as long as 2 % of them at most.
const EVERY: usize = 256 << 10;

/// So many readings in a row that say otherwise change our mind: an interrupt makes a line come late, and now and then one has come
/// before it is asked for.
const IN_A_ROW: u32 = 2;

/// After so many readings in a row by a slow clock there are no more. So many interrupts in a row there are not.
const GIVEN_UP: u32 = 8;

/// How far the other side is.
#[derive(Debug)]
pub(crate) struct Distance {
    /// Whether it matters here, and can be known.
    matters: bool,
    is_far: bool,
    /// Readings in a row that say otherwise.
    doubts: u32,
    /// Readings in a row by a slow clock.
    slow: u32,
    /// Bytes of long messages until the next reading.
    due: usize,
    /// What was loaded last.
    seen: u64,
}

impl Distance {
    /// Not known: near, so that plain stores are used, from which no processor suffers much.
    pub(crate) fn new(matters: bool) -> Self {
        Distance { matters, is_far: false, doubts: 0, slow: 0, due: 0, seen: 0 }
    }

    /// Whether the other side is far.
    pub(crate) fn is_far(&self) -> bool {
        self.is_far
    }

    /// Before a long message of so many bytes: whether a reading is due.
    pub(crate) fn is_due(&mut self, length: usize) -> bool {
        if !self.matters {
            return false;
        }
        let due = self.due == 0;
        self.due = if due { EVERY } else { self.due }.saturating_sub(length);
        due
    }

    /// Times the load of a word that the other side writes, and that was `last` where it was loaded elsewhere.
    pub(crate) fn read(&mut self, last: u64, load: impl FnOnce() -> u64) {
        let start = Instant::now();
        let between = Instant::now();
        let loaded = load();
        let end = Instant::now();
        // What has not changed comes from our own cache.
        let is_fresh = loaded != last && loaded != self.seen;
        self.seen = loaded;
        self.learn(between - start, end - between, is_fresh);
    }

    /// Learns from a reading: what the clock itself takes, what clock and load take together, and whether the line came from the
    /// other side.
    fn learn(&mut self, clock: Duration, both: Duration, is_fresh: bool) {
        let is_slow = clock >= SLOW_CLOCK;
        self.slow = if is_slow { self.slow + 1 } else { 0 };
        if self.slow == GIVEN_UP {
            *self = Distance::new(false);
        }
        if is_slow || !is_fresh {
            return;
        }
        let says_far = both.saturating_sub(clock) >= FAR;
        if says_far == self.is_far {
            self.doubts = 0;
        } else {
            self.doubts += 1;
            // The next message decides.
            self.due = 0;
        }
        if self.doubts == IN_A_ROW {
            *self = Distance { is_far: says_far, doubts: 0, due: EVERY, ..*self };
        }
    }
}

#[cfg(test)]
mod tests;
