//! Whether an endpoint polls before it sleeps: as long as polling has paid off lately.

use std::time::{Duration, Instant};

/// How long [`Wait::Block`](crate::Wait::Block) stays awake before it sleeps.
///
/// Enough for 10,000 messages a second, which an endpoint thus receives as fast as by spinning.
pub(crate) const AWAKE: Duration = Duration::from_micros(100);

/// The longest that a run polls.
const LONGEST: Duration = Duration::from_micros(250);

/// After this many runs in a row in which polling was no use, an endpoint sleeps at once.
const MISSES: u8 = 3;

/// A run that slept and still took no longer than this may have been one to poll through.
const SHORT: Duration = Duration::from_micros(200);

/// Short runs before an endpoint that sleeps at once polls again, to see whether that pays by now. Doubles with each failure.
const FEWEST: u16 = 4;
const MOST: u16 = 1024;

/// What an endpoint has learned from its waits.
///
/// It learns from one *run* after the other: a wait of a consumer, or the waits of a producer until it has sent a share of the ring.
/// Polling was of use if the run ended without a sleep. It was of none, too, if what it waited for came while
/// another thread had the processor: then the peer needs ours.
///
/// The number of processors that we may run on does not matter. It says nothing about the peer: two processes that are confined to
/// one processor each are the fastest pair if it is not the same one.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How long a run polls before it sleeps.
    budget: Duration,
    /// Whether a run consists of several waits, whose time adds up.
    has_long_runs: bool,
    /// Whether this run polls before it sleeps.
    polls: bool,
    /// How long this run has polled in its earlier waits.
    polled: Duration,
    /// How long the wait took in which polling was no use, if there was one in this run.
    missed: Option<Duration>,
    /// Runs in a row in which polling was no use, up to [`MISSES`].
    misses: u8,
    /// Short ones among the runs that slept at once.
    short: u16,
    /// How many of these lead to another try.
    until_next_try: u16,
    /// When to ask the kernel about the peer again.
    pub(crate) check: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace::of_waits()
    }
}

impl Pace {
    /// Of a side whose every wait is a run.
    pub(crate) fn of_waits() -> Self {
        Self::new(AWAKE, false)
    }

    /// Of a producer, whose run lasts until it has sent `share` bytes. It polls for as long as these take at 1 GB/s.
    pub(crate) fn of_shares(share: u64) -> Self {
        Self::new(Duration::from_nanos(share).clamp(AWAKE, LONGEST), true)
    }

    fn new(budget: Duration, has_long_runs: bool) -> Self {
        Pace {
            budget,
            has_long_runs,
            polls: true,
            polled: Duration::ZERO,
            missed: None,
            misses: 0,
            short: 0,
            until_next_try: FEWEST,
            check: None,
        }
    }

    /// Begins a wait, and a run if it is the first wait of one. Returns whether the wait polls before it sleeps.
    pub(crate) fn begin(&mut self, is_new_run: bool) -> bool {
        if is_new_run {
            self.learn();
            self.polls = self.misses < MISSES || self.short >= self.until_next_try;
            self.polled = Duration::ZERO;
        }
        self.polls
    }

    /// Learns from the run that has ended.
    fn learn(&mut self) {
        match self.missed.take() {
            Some(took) => {
                if self.polls && self.misses == MISSES {
                    self.until_next_try = (2 * self.until_next_try).min(MOST);
                    self.short = 0;
                }
                self.misses = (self.misses + 1).min(MISSES);
                self.short += u16::from(took <= SHORT && self.short < MOST);
            }
            None if self.polls => (self.misses, self.short, self.until_next_try) = (0, 0, FEWEST),
            // It slept at once, or had no need to: that says nothing about polling.
            None => {}
        }
    }

    pub(crate) fn polls(&self) -> bool {
        self.polls
    }

    pub(crate) fn has_long_runs(&self) -> bool {
        self.has_long_runs
    }

    /// Whether it is time to sleep, `waited` after the start of this wait.
    pub(crate) fn is_over(&self, waited: Duration) -> bool {
        !self.polls || self.polled + waited >= self.budget
    }

    /// This wait ended awake, after so long.
    pub(crate) fn hit(&mut self, polled: Duration) {
        self.polled += polled;
    }

    /// This wait took so long, and polling was no use.
    pub(crate) fn miss(&mut self, took: Duration) {
        self.missed = Some(took);
        // The rest of the run sleeps at once.
        self.polled = self.budget;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(1);
    const BRIEF: Duration = Duration::from_micros(7);

    /// Runs `count` waits that take so long: up to [`AWAKE`] they end awake if they poll. Returns how many polled.
    fn runs(pace: &mut Pace, count: usize, took: Duration) -> usize {
        let run = |pace: &mut Pace| {
            let polls = pace.begin(true);
            if !polls || took > AWAKE {
                pace.miss(took);
            }
            polls
        };
        (0..count).filter(|_| run(pace)).count()
    }

    #[test]
    fn long_waits_soon_sleep_at_once() {
        let mut pace = Pace::of_waits();
        assert_eq!(runs(&mut pace, 1000, LONG), usize::from(MISSES));
    }

    #[test]
    fn polling_resumes_soon_after_the_waits_are_brief() {
        let mut pace = Pace::of_waits();
        runs(&mut pace, 1000, LONG);
        assert_eq!(runs(&mut pace, 1000, BRIEF), 1000 - usize::from(FEWEST));
    }

    #[test]
    fn a_peer_on_the_same_processor_is_polled_for_ever_more_rarely() {
        let mut pace = Pace::of_waits();
        let mut polled = 0;
        for _ in 0..10_000 {
            polled += u32::from(pace.begin(true));
            pace.miss(BRIEF);
        }
        assert!((15..30).contains(&polled), "{polled}");
        // It moves to another processor.
        assert!(runs(&mut pace, 3000, BRIEF) > 1900);
    }

    #[test]
    fn a_producer_polls_for_its_budget_once_in_each_share() {
        let mut pace = Pace::of_shares(1 << 20);
        let tenth = LONGEST / 10;
        assert!(pace.begin(true) && !pace.is_over(9 * tenth));
        pace.hit(7 * tenth);
        assert!(pace.begin(false) && !pace.is_over(2 * tenth) && pace.is_over(3 * tenth));
        pace.miss(LONG);
        assert!(pace.begin(false) && pace.is_over(Duration::ZERO));
        assert!(pace.begin(true) && !pace.is_over(9 * tenth));
    }
}
