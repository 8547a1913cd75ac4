//! Sampled latency: the producer stamps a few commits with the time, the consumer counts how long those messages were under way.
//!
//! Two kinds of messages are stamped, none of which takes a fast path anyway:
//!
//! * *Crossings*: a message that ends at or after the next multiple of a step, the sixteenth part of the ring. The runway of the producer
//!   and the limit of the consumer end before it, as they do before the end of the ring, so both come to their slow paths there. A lap
//!   has as many stamps as crossings: none is overwritten before its message is released.
//! * *Wake-ups*: the message for which the producer finds the consumer asleep.
//!
//! The histogram is log-linear, as Gil Tene's HdrHistogram is.

use crate::protocol::layout::{BUCKETS, Latencies, STAMPS, Stamp, Stamps, count};
use crate::protocol::record::WORD;
use crate::protocol::ring::is_reached;
use crate::protocol::sync::{self, IS_MODEL, Ordering};

/// Buckets for each power of two.
const PER_OCTAVE: u64 = 8;

/// Which messages are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    /// The bits of a position that count crossings: the lower ones count the bytes after the last one. The end of the ring is a
    /// crossing. If nothing is sampled, no other place is.
    count: u64,
    is_on: bool,
}

impl Sampling {
    /// For a ring of `capacity` bytes.
    pub(crate) fn new(capacity: u64, is_on: bool) -> Self {
        let step = if is_on { capacity / STAMPS as u64 } else { capacity };
        Sampling { count: !(step - 1), is_on }
    }

    #[inline(always)]
    pub(crate) fn is_on(self) -> bool {
        self.is_on
    }

    /// The longest record at `at` that is no crossing.
    #[inline(always)]
    pub(super) fn until_crossing(self, at: u64) -> u64 {
        !(at | self.count) + 1 - WORD
    }

    /// The last crossing after `at` and up to `end`.
    #[inline(always)]
    pub(super) fn crossed(self, at: u64, end: u64) -> Option<u64> {
        ((at ^ end) & self.count != 0).then_some(end & self.count)
    }

    /// Stamps all crossings after `at` and up to `last`, before they are committed.
    #[cold]
    pub(super) fn stamp_crossings(self, stamps: &Stamps, at: u64, last: u64) {
        if !self.is_on {
            return;
        }
        let now = sync::nanoseconds();
        let (step, mut crossing) = (self.count.wrapping_neg(), last);
        while is_reached(crossing, at.wrapping_add(WORD)) {
            self.stamp(stamps, crossing).store(crossing, now);
            crossing = crossing.wrapping_sub(step);
        }
    }

    fn stamp(self, stamps: &Stamps, crossing: u64) -> &Stamp {
        &stamps.crossings[(crossing >> self.count.trailing_zeros()) as usize % STAMPS]
    }

    /// When the record from `at` to `end` was committed, if it was stamped.
    pub(super) fn time_of(self, stamps: &Stamps, at: u64, end: u64) -> Option<u64> {
        let crossed = self.crossed(at, end);
        let crossing = crossed.and_then(|crossing| self.stamp(stamps, crossing).time_at(crossing));
        crossing.or_else(|| stamps.wake_up.time_at(at))
    }
}

impl Stamp {
    pub(super) fn store(&self, position: u64, time: u64) {
        // Relaxed: ordered by the store after it.
        self.time.store(time, Ordering::Relaxed);
        // ORDERING: Release, pairs with the Acquire load in `time_at`: the time is that of the position.
        self.position.store(position, Ordering::Release);
    }

    fn time_at(&self, position: u64) -> Option<u64> {
        // ORDERING: Acquire, pairs with the Release store in `store`.
        let found = self.position.load(Ordering::Acquire);
        // Relaxed: ordered by the load before it. The producer does not store the next one before the message is released, or the
        // consumer sleeps again.
        let time = self.time.load(Ordering::Relaxed);
        // Without a time it was never stored.
        (found == position && time != 0).then_some(time)
    }
}

impl Latencies {
    /// Counts a message that was committed at `time` and is found now. One from the future is not counted: a process in another time
    /// namespace has stamped it.
    pub(super) fn count_from(&self, time: u64) {
        let Some(elapsed) = sync::nanoseconds().checked_sub(time) else { return };
        count(&self.counts[bucket(elapsed)], 1);
        count(&self.sum, elapsed);
        // Relaxed: one writer, and watchers that read numbers.
        if elapsed > self.max.load(Ordering::Relaxed) {
            self.max.store(elapsed, Ordering::Relaxed);
        }
    }
}

/// The bucket of a latency in nanoseconds. The last one has everything from 64 seconds on.
fn bucket(nanoseconds: u64) -> usize {
    let bucket = match nanoseconds.checked_ilog2() {
        Some(octave @ 3..) => u64::from(octave - 2) * PER_OCTAVE + (nanoseconds >> (octave - 3)) % PER_OCTAVE,
        _ => nanoseconds,
    };
    if IS_MODEL { 0 } else { (bucket as usize).min(BUCKETS - 1) }
}

/// The longest latency in a bucket, in nanoseconds.
pub(crate) fn longest_in(bucket: usize) -> u64 {
    let (octave, part) = (bucket as u64 / PER_OCTAVE, bucket as u64 % PER_OCTAVE);
    match octave {
        0 => part,
        _ => ((PER_OCTAVE + part + 1) << (octave - 1)) - 1,
    }
}

#[cfg(all(test, not(shmpipe_loom)))]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_an_eighth_wide_at_most() {
        let mut before = None;
        for n in
            (0..4096).chain((12..36).flat_map(|octave| (0..64).map(move |part| (64 + part) << (octave - 6))))
        {
            let found = bucket(n);
            let shortest = if found == 0 { 0 } else { longest_in(found - 1) + 1 };
            assert!((shortest..=longest_in(found)).contains(&n), "{n} in bucket {found}");
            assert!((longest_in(found) - shortest) as f64 <= shortest as f64 / 8.0, "bucket {found}");
            assert!(before.is_none_or(|before| before <= found));
            before = Some(found);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(longest_in(BUCKETS - 1), (1 << 36) - 1);
    }

    #[test]
    fn a_crossing_is_found_by_both_sides() {
        for capacity in [4096, 1 << 16, 1 << 24] {
            let sampling = Sampling::new(capacity, true);
            let step = sampling.count.wrapping_neg();
            for at in [0, 8, step - 8, step, 5 * step - 64].into_iter().chain([u64::MAX - 8 * step - 7]) {
                let longest = sampling.until_crossing(at);
                assert_eq!(sampling.crossed(at, at + longest), None, "{at}");
                assert_eq!(
                    sampling.crossed(at, at + longest + 8),
                    Some((at + longest + 8) & !(step - 1)),
                    "{at}"
                );
            }
        }
        let off = Sampling::new(4096, false);
        assert_eq!(
            (off.crossed(4096, 8184), off.crossed(4096, 8192)),
            (None, Some(8192)),
            "the end of the ring"
        );
    }

    #[test]
    fn a_stamp_has_the_time_of_its_position_alone() {
        let stamp = Stamp { position: 0.into(), time: 0.into() };
        stamp.store(4096, 17);
        assert_eq!((stamp.time_at(4096), stamp.time_at(0)), (Some(17), None));
    }
}
