//! How a blocked call waits: it spins, yields, sleeps, and now and then asks the kernel whether its peer lives.

use crate::endpoint::cancel::CancelHandle;
use crate::endpoint::pace::{AWAKE, Pace};
use crate::error::{FlushError, RecvTimeoutError, SendTimeoutError, WaitError};
use crate::options::Wait;
use crate::protocol::sync::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

/// The longest sleep, and the interval at which every blocked call asks the kernel whether the peer still holds its role.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Polls between two readings of the clock, and so before each yield: most messages arrive while we poll, and not inside a
/// `sched_yield` that finds no other thread to run.
pub(crate) const SPINS_PER_CLOCK_READ: u32 = 64;

/// How long [`Wait::Yield`] and [`Wait::Block`] spin before they yield.
const SPINNING: Duration = Duration::from_micros(20);

/// A yield that took this long has let another thread run. One that finds no other thread returns within half a microsecond.
const SWITCHED: Duration = Duration::from_micros(2);

/// What a blocked call does before its next poll.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Spin,
    Yield,
    /// Sleep until woken, for this long at most.
    Sleep(Duration),
    /// Sleep for this long, unknown to the peer.
    Nap(Duration),
    /// Ask the kernel about the peer.
    Check,
}

/// Why a wait ends without what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    TimedOut,
    Cancelled,
}

macro_rules! from_stopped {
    ($($error:ident)*) => {$(
        impl From<Stopped> for $error {
            fn from(stopped: Stopped) -> Self {
                match stopped {
                    Stopped::TimedOut => $error::TimedOut,
                    Stopped::Cancelled => $error::Cancelled,
                }
            }
        }
    )*};
}

from_stopped!(FlushError WaitError RecvTimeoutError SendTimeoutError);

/// The state of one wait.
#[derive(Debug)]
struct Backoff<'a> {
    strategy: Wait,
    deadline: Option<Instant>,
    cancel: &'a CancelHandle,
    pace: &'a mut Pace,
    spins: u32,
    /// When the clock was first read.
    since: Option<Instant>,
    /// When the last step began, if it was a yield.
    yielded: Option<Instant>,
    slept: bool,
    /// Whether this wait has asked the kernel.
    checked: bool,
}

impl<'a> Backoff<'a> {
    fn new(strategy: Wait, deadline: Option<Instant>, cancel: &'a CancelHandle, pace: &'a mut Pace) -> Self {
        let sleeps_at_once = match strategy {
            Wait::Spin | Wait::Yield => false,
            Wait::Block => !pace.polls(),
            Wait::Sleep(_) => true,
        };
        Backoff {
            strategy,
            deadline,
            cancel,
            spins: if sleeps_at_once { SPINS_PER_CLOCK_READ - 1 } else { 0 },
            since: pace.has_long_runs().then(Instant::now),
            yielded: None,
            slept: false,
            checked: false,
            pace,
        }
    }

    /// The step after a poll that found nothing, and that cost as much as this many of one pipe.
    #[inline]
    fn next(&mut self, cost: u32) -> Result<Step, Stopped> {
        self.spins = self.spins.saturating_add(cost);
        if self.spins < SPINS_PER_CLOCK_READ {
            self.yielded = None;
            return Ok(Step::Spin);
        }
        self.spins = 0;
        self.read_the_clock()
    }

    #[cold]
    fn read_the_clock(&mut self) -> Result<Step, Stopped> {
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            // Even the shortest wait asks about the peer once.
            return if self.checked { Err(Stopped::TimedOut) } else { Ok(self.check(now)) };
        }
        let waited = now - *self.since.get_or_insert(now);
        let sleeps = match self.strategy {
            Wait::Spin | Wait::Yield => false,
            Wait::Block => self.slept || self.pace.is_over(waited),
            Wait::Sleep(_) => true,
        };
        if (sleeps || waited >= AWAKE) && self.pace.check.is_none_or(|check| now >= check) {
            return Ok(self.check(now));
        }
        self.yielded = None;
        Ok(match self.strategy {
            Wait::Sleep(nap) => Step::Nap(nap.min(self.left(now))),
            Wait::Block if sleeps => {
                self.slept = true;
                // After a sleep that ended for another reason, the next one follows at once.
                self.spins = SPINS_PER_CLOCK_READ - 1;
                Step::Sleep(self.left(now))
            }
            Wait::Yield | Wait::Block if waited >= SPINNING => {
                self.yielded = Some(now);
                Step::Yield
            }
            _ => Step::Spin,
        })
    }

    fn check(&mut self, now: Instant) -> Step {
        self.checked = true;
        self.pace.check = Some(now + SLICE);
        // The clock is read again at once.
        self.spins = SPINS_PER_CLOCK_READ - 1;
        Step::Check
    }

    /// How long a sleep may last: until the next check, or the deadline.
    fn left(&self, now: Instant) -> Duration {
        let until = self.pace.check.map_or(SLICE, |check| check - now);
        self.deadline.map_or(until, |deadline| until.min(deadline - now))
    }

    /// Learns from the wait, which has ended.
    fn end(self, found: bool) {
        let Backoff { strategy: Wait::Block, pace, slept, since: Some(since), yielded, .. } = self else {
            return;
        };
        let was_preempted = || found && yielded.is_some_and(|yielded| yielded.elapsed() >= SWITCHED);
        if slept || was_preempted() {
            pace.miss(since.elapsed());
        } else if pace.has_long_runs() {
            pace.hit(since.elapsed());
        }
    }
}

/// What a call waits for.
pub(crate) trait Awaited {
    type Output;
    type Error: From<Stopped>;

    /// What is awaited, if it is there.
    fn poll(&mut self) -> Result<Option<Self::Output>, Self::Error>;

    /// How many polls of one pipe the latest [`poll`](Self::poll) cost as much as.
    fn cost(&self) -> u32 {
        1
    }

    /// Announces a sleep, polls once more, and sleeps if there is still nothing, for as long as is `left` at most.
    fn sleep(&mut self, left: Duration, cancel: &CancelHandle);

    /// Sleeps for this long, unknown to the peer.
    fn nap(&mut self, nap: Duration, cancel: &CancelHandle);

    /// Asks the kernel whether our role still stands and whether the peer lives, then looks at what a dead peer left.
    fn check(&mut self) -> Result<Option<Self::Output>, Self::Error>;
}

/// Waits for something: the one loop behind every call that blocks.
pub(crate) fn wait_for<A: Awaited>(
    mut awaited: A,
    strategy: Wait,
    deadline: Option<Instant>,
    cancel: &CancelHandle,
    pace: &mut Pace,
) -> Result<A::Output, A::Error> {
    if let Some(output) = awaited.poll()? {
        return Ok(output);
    }
    let mut backoff = Backoff::new(strategy, deadline, cancel, pace);
    let output = wait_on(&mut awaited, &mut backoff);
    backoff.end(output.is_ok());
    output
}

fn wait_on<A: Awaited>(awaited: &mut A, backoff: &mut Backoff<'_>) -> Result<A::Output, A::Error> {
    loop {
        match backoff.next(awaited.cost())? {
            Step::Spin => spin_loop(),
            Step::Yield => thread::yield_now(),
            Step::Sleep(left) => awaited.sleep(left, backoff.cancel),
            Step::Nap(nap) => awaited.nap(nap, backoff.cancel),
            Step::Check => {
                if let Some(output) = awaited.check()? {
                    return Ok(output);
                }
            }
        }
        if let Some(output) = awaited.poll()? {
            return Ok(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a wait in order, without repeats, up to its end or its first sleep.
    fn course(
        strategy: Wait,
        deadline: Option<Instant>,
        cancel: &CancelHandle,
        pace: &mut Pace,
    ) -> (Vec<&'static str>, Option<Stopped>) {
        let mut backoff = Backoff::new(strategy, deadline, cancel, pace);
        let mut seen = vec![];
        let start = Instant::now();
        let mut ended = None;
        while start.elapsed() < Duration::from_millis(20) && ended.is_none() {
            let step = match backoff.next(1) {
                Ok(Step::Spin) => "spin",
                Ok(Step::Yield) => "yield",
                Ok(Step::Check) => "check",
                Ok(Step::Sleep(left) | Step::Nap(left)) => {
                    assert!(left <= SLICE);
                    seen.push("sleep");
                    break;
                }
                Err(error) => {
                    ended = Some(error);
                    break;
                }
            };
            if seen.last() != Some(&step) {
                seen.push(step);
            }
        }
        backoff.end(false);
        (seen, ended)
    }

    /// The course of the first wait of an endpoint.
    fn first_course(
        strategy: Wait,
        deadline: Option<Instant>,
        cancel: &CancelHandle,
    ) -> (Vec<&'static str>, Option<Stopped>) {
        course(strategy, deadline, cancel, &mut Pace::of_waits())
    }

    #[test]
    fn blocking_polls_then_yields_then_checks_then_sleeps() {
        let (seen, _) = first_course(Wait::Block, None, &CancelHandle::new());
        assert_eq!(seen[..3], ["spin", "yield", "spin"]);
        assert_eq!(seen[seen.len() - 2..], ["check", "sleep"]);
    }

    #[test]
    fn waits_that_sleep_soon_do_so_at_once_and_check_no_more_often() {
        let (cancel, mut pace) = (CancelHandle::new(), Pace::of_waits());
        let mut course = || {
            pace.begin(true);
            course(Wait::Block, None, &cancel, &mut pace).0
        };
        for _ in 0..3 {
            assert_eq!(course()[0], "spin");
        }
        // It also checks if this machine took a slice for the first three.
        assert_eq!(course().iter().find(|&&step| step != "check"), Some(&"sleep"));
    }

    #[test]
    fn napping_checks_then_sleeps_without_a_poll_between() {
        let (seen, _) = first_course(Wait::Sleep(Duration::from_secs(1)), None, &CancelHandle::new());
        assert_eq!(seen, ["check", "sleep"]);
    }

    #[test]
    fn spinning_never_yields_nor_sleeps_and_checks() {
        let (seen, ended) = first_course(Wait::Spin, None, &CancelHandle::new());
        assert_eq!((seen, ended), (vec!["spin", "check", "spin"], None));
    }

    #[test]
    fn yielding_never_sleeps() {
        let (seen, ended) = first_course(Wait::Yield, None, &CancelHandle::new());
        assert!(!seen.contains(&"sleep") && seen.contains(&"yield") && ended.is_none());
    }

    #[test]
    fn a_passed_deadline_and_a_cancel_end_every_strategy() {
        for strategy in [Wait::Spin, Wait::Yield, Wait::Block, Wait::Sleep(Duration::from_secs(1))] {
            let (seen, ended) = first_course(strategy, Some(Instant::now()), &CancelHandle::new());
            assert_eq!((seen.last(), ended), (Some(&"check"), Some(Stopped::TimedOut)));
            let cancel = CancelHandle::new();
            cancel.cancel();
            assert_eq!(first_course(strategy, None, &cancel).1, Some(Stopped::Cancelled));
        }
    }
}
