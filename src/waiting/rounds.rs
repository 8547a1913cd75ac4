//! When to ask the kernel about which member of a set: each once in [`SLICE`], a few at a time.

use crate::endpoint::wait::SLICE;
use std::time::{Duration, Instant};

/// How many slots are taken at once. To ask about so many takes about half a millisecond.
const AT_ONCE: usize = 256;

/// Goes round the slots of a set, all of them in [`SLICE`].
#[derive(Debug)]
pub(super) struct Rounds {
    /// When slots were taken.
    since: Instant,
    /// The first of the next ones.
    next: usize,
}

impl Rounds {
    pub(super) fn new(now: Instant) -> Self {
        Rounds { since: now, next: 0 }
    }

    /// How long it is until slots are due. Zero if they are.
    pub(super) fn left(&self, now: Instant, slots: usize) -> Duration {
        let parts = slots.div_ceil(AT_ONCE).max(1);
        (self.since + SLICE / parts.try_into().unwrap_or(u32::MAX)).saturating_duration_since(now)
    }

    /// Takes as large a share of the slots as the time since the last call is of [`SLICE`], but no more than [`AT_ONCE`]: a caller that
    /// is late takes the rest in its next calls, and none twice.
    pub(super) fn take(&mut self, now: Instant, slots: usize) -> impl Iterator<Item = usize> + use<> {
        let since = now - (now - self.since).min(SLICE);
        let share = (now - since).div_duration_f64(SLICE);
        let (since, count) = match (share * slots as f64).ceil() as usize {
            count @ 0..=AT_ONCE => (now, count),
            _ => (since + SLICE.mul_f64(AT_ONCE as f64 / slots as f64), AT_ONCE),
        };
        let first = self.next;
        self.since = since;
        self.next = (first + count).checked_rem(slots).unwrap_or(0);
        (first..first + count).map(move |index| index % slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_keeps_time_takes_few_at_once_and_each_once_in_a_slice() {
        for slots in [1, 5, 256, 257, 1000, 10_000] {
            let start = Instant::now();
            let mut rounds = Rounds::new(start);
            let (mut now, mut taken) = (start, vec![0; slots]);
            while now < start + 3 * SLICE {
                now += rounds.left(now, slots);
                assert_eq!(rounds.left(now, slots), Duration::ZERO);
                let due: Vec<usize> = rounds.take(now, slots).collect();
                assert!(due.len() <= AT_ONCE, "{} of {slots} at once", due.len());
                due.into_iter().for_each(|index| taken[index] += 1);
            }
            assert!(taken.iter().all(|count| (3..=4).contains(count)), "{slots}: {taken:?}");
        }
    }

    #[test]
    fn a_caller_that_is_late_takes_what_it_has_missed_in_parts_and_none_twice() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        let late = start + 7 * SLICE;
        let mut taken = vec![];
        while rounds.left(late, 1000).is_zero() {
            let part: Vec<usize> = rounds.take(late, 1000).collect();
            assert!(part.len() <= AT_ONCE);
            taken.extend(part);
        }
        assert_eq!(taken, (0..taken.len()).collect::<Vec<_>>());
        // The rest is not due yet.
        assert!((1000 - AT_ONCE..=1000).contains(&taken.len()), "{}", taken.len());
    }

    #[test]
    fn slots_that_are_added_are_taken_within_a_slice() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        assert_eq!(rounds.take(start + SLICE, 0).count(), 0);
        assert_eq!(rounds.take(start + 2 * SLICE, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(rounds.take(start + 3 * SLICE, 4).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
