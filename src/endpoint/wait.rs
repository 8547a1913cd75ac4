//! How a blocked call waits: it spins, yields, sleeps, and now and then asks the kernel whether its peer lives.

use crate::endpoint::cancel::CancelHandle;
use crate::error::{RecvTimeoutError, SendTimeoutError, WaitError};
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

/// How long [`Wait::Block`] stays awake before it sleeps.
const AWAKE: Duration = Duration::from_micros(100);

/// What a blocked call does before its next poll.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Spin,
    Yield,
    /// Sleep, for this long at most.
    Sleep(Duration),
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

from_stopped!(WaitError RecvTimeoutError SendTimeoutError);

/// The state of one wait.
#[derive(Debug)]
struct Backoff<'a> {
    strategy: Wait,
    deadline: Option<Instant>,
    cancel: &'a CancelHandle,
    spins: u32,
    /// When the clock was first read.
    since: Option<Instant>,
    /// When to ask the kernel next. The first time is before the first sleep.
    check: Option<Instant>,
}

impl<'a> Backoff<'a> {
    fn new(strategy: Wait, deadline: Option<Instant>, cancel: &'a CancelHandle) -> Self {
        Backoff { strategy, deadline, cancel, spins: 0, since: None, check: None }
    }

    /// The step after a poll that found nothing, and that cost as much as this many of one pipe.
    #[inline]
    fn next(&mut self, cost: u32) -> Result<Step, Stopped> {
        self.spins = self.spins.saturating_add(cost);
        if self.spins < SPINS_PER_CLOCK_READ {
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
            if self.check.is_none() {
                self.check = Some(now + SLICE);
                return Ok(Step::Check);
            }
            return Err(Stopped::TimedOut);
        }
        let waited = now - *self.since.get_or_insert(now);
        if waited >= AWAKE && self.check.is_none_or(|check| now >= check) {
            self.check = Some(now + SLICE);
            return Ok(Step::Check);
        }
        Ok(match self.strategy {
            Wait::Spin => Step::Spin,
            _ if waited < SPINNING => Step::Spin,
            Wait::Block if waited >= AWAKE => {
                let until = self.check.map_or(SLICE, |check| check - now);
                Step::Sleep(self.deadline.map_or(until, |deadline| until.min(deadline - now)))
            }
            _ => Step::Yield,
        })
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

    /// Announces a sleep, polls once more, and sleeps for `slice` at most if there is still nothing.
    fn sleep(&mut self, slice: Duration, cancel: &CancelHandle);

    /// Asks the kernel whether our role still stands and whether the peer lives, then looks at what a dead peer left.
    fn check(&mut self) -> Result<Option<Self::Output>, Self::Error>;
}

/// Waits for something: the one loop behind every call that blocks.
pub(crate) fn wait_for<A: Awaited>(
    mut awaited: A,
    strategy: Wait,
    deadline: Option<Instant>,
    cancel: &CancelHandle,
) -> Result<A::Output, A::Error> {
    let mut backoff = Backoff::new(strategy, deadline, cancel);
    loop {
        if let Some(output) = awaited.poll()? {
            return Ok(output);
        }
        match backoff.next(awaited.cost())? {
            Step::Spin => spin_loop(),
            Step::Yield => thread::yield_now(),
            Step::Sleep(slice) => awaited.sleep(slice, cancel),
            Step::Check => {
                if let Some(output) = awaited.check()? {
                    return Ok(output);
                }
            }
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
    ) -> (Vec<&'static str>, Option<Stopped>) {
        let mut backoff = Backoff::new(strategy, deadline, cancel);
        let mut seen = vec![];
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            let step = match backoff.next(1) {
                Ok(Step::Spin) => "spin",
                Ok(Step::Yield) => "yield",
                Ok(Step::Check) => "check",
                Ok(Step::Sleep(slice)) => {
                    assert!(slice <= SLICE);
                    seen.push("sleep");
                    return (seen, None);
                }
                Err(ended) => return (seen, Some(ended)),
            };
            if seen.last() != Some(&step) {
                seen.push(step);
            }
        }
        (seen, None)
    }

    #[test]
    fn blocking_polls_then_yields_then_checks_then_sleeps() {
        let (seen, _) = course(Wait::Block, None, &CancelHandle::new());
        assert_eq!(seen[..3], ["spin", "yield", "spin"]);
        assert_eq!(seen[seen.len() - 3..], ["check", "spin", "sleep"]);
    }

    #[test]
    fn spinning_never_yields_nor_sleeps_and_checks() {
        let (seen, ended) = course(Wait::Spin, None, &CancelHandle::new());
        assert_eq!((seen, ended), (vec!["spin", "check", "spin"], None));
    }

    #[test]
    fn yielding_never_sleeps() {
        let (seen, ended) = course(Wait::Yield, None, &CancelHandle::new());
        assert!(!seen.contains(&"sleep") && seen.contains(&"yield") && ended.is_none());
    }

    #[test]
    fn a_passed_deadline_and_a_cancel_end_every_strategy() {
        for strategy in [Wait::Spin, Wait::Yield, Wait::Block] {
            let (_, ended) = course(strategy, Some(Instant::now()), &CancelHandle::new());
            assert_eq!(ended, Some(Stopped::TimedOut));
            let cancel = CancelHandle::new();
            cancel.cancel();
            assert_eq!(course(strategy, None, &cancel).1, Some(Stopped::Cancelled));
        }
    }
}
