//! Measures how far away the other side's processor is, which decides how long messages are written.
//!
//! If it is near, the two share a cache: a plain store gets a line from the other core faster than from memory, and the reader
//! finds the data in the cache. If it is far, that transfer takes longer than a memory access. Then long messages are written
//! with non-temporal stores ([`to_shared_streaming`](crate::protocol::copy::to_shared_streaming)) and read from memory. A virtual
//! processor may be near at one moment and far at the next, so the measurement repeats: it times the load of a line that the
//! other side has just written, that of `head`.

use std::time::{Duration, Instant};

/// The latency from which a line counts as far. Half a round trip of one line takes 15 to 60 ns near and 165 to 215 ns far on the
/// processors measured in `benches/results`.
const FAR_LATENCY: Duration = Duration::from_nanos(100);

/// A clock that takes this long to read is a system call, too slow to measure with.
const SLOW_CLOCK: Duration = Duration::from_nanos(200);

/// Bytes of long messages between two readings. A reading costs at most 2 % of the time that they take.
const BYTES_PER_READING: usize = 256 << 10;

/// How many contradicting readings in a row change the result. One is not enough: an interrupt delays a line, and sometimes a
/// line has arrived before the load.
const READINGS_TO_SWITCH: u32 = 2;

/// How many readings in a row by a slow clock end the measurement. Interrupts do not delay that many in a row.
const MAX_SLOW_READINGS: u32 = 8;

/// The distance of the other side, as measured.
#[derive(Debug)]
pub(crate) struct Distance {
    /// Whether it matters here, and can be known.
    enabled: bool,
    is_far: bool,
    /// Contradicting readings in a row.
    contradictions: u32,
    /// Readings in a row by a slow clock.
    slow: u32,
    /// Bytes of long messages until the next reading.
    until_reading: usize,
    /// The word loaded last.
    seen: u64,
}

impl Distance {
    /// Starts as near: plain stores are not much slower on any processor.
    pub(crate) fn new(enabled: bool) -> Self {
        Distance { enabled, is_far: false, contradictions: 0, slow: 0, until_reading: 0, seen: 0 }
    }

    /// Whether the other side is far.
    pub(crate) fn is_far(&self) -> bool {
        self.is_far
    }

    /// Whether a reading is due before a long message of `length` bytes.
    pub(crate) fn is_due(&mut self, length: usize) -> bool {
        if !self.enabled {
            return false;
        }
        let due = self.until_reading == 0;
        self.until_reading = if due { BYTES_PER_READING } else { self.until_reading }.saturating_sub(length);
        due
    }

    /// Times the load of a word that the other side writes. `last` is the value that other code loaded last.
    #[cold]
    #[inline(never)]
    pub(crate) fn read(&mut self, last: u64, load: impl FnOnce() -> u64) {
        let start = Instant::now();
        let between = Instant::now();
        let loaded = load();
        let end = Instant::now();
        // An unchanged word came from our own cache.
        let is_fresh = loaded != last && loaded != self.seen;
        self.seen = loaded;
        self.learn(between - start, end - between, is_fresh);
    }

    /// Evaluates a reading: the duration of the clock, that of clock and load together, and whether the line came from the other
    /// side.
    fn learn(&mut self, clock: Duration, both: Duration, is_fresh: bool) {
        let is_slow = clock >= SLOW_CLOCK;
        self.slow = if is_slow { self.slow + 1 } else { 0 };
        if self.slow == MAX_SLOW_READINGS {
            *self = Distance::new(false);
        }
        if is_slow || !is_fresh {
            return;
        }
        let says_far = both.saturating_sub(clock) >= FAR_LATENCY;
        if says_far == self.is_far {
            self.contradictions = 0;
        } else {
            self.contradictions += 1;
            // Measure again at the next message.
            self.until_reading = 0;
        }
        if self.contradictions == READINGS_TO_SWITCH {
            *self =
                Distance { is_far: says_far, contradictions: 0, until_reading: BYTES_PER_READING, ..*self };
        }
    }
}

#[cfg(test)]
mod tests;
