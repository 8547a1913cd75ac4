//! How a call waits: polling, offering the core, sleeping, and how often it asks the kernel about its peer.

use crate::endpoint::stop::Stopper;
use crate::error::{RecvError, SendError};
use crate::options::Wait;
use crate::protocol::sync::spin_loop;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The longest sleep, and the pace at which every waiting call asks the kernel whether the peer still holds its role.
const SLICE: Duration = Duration::from_millis(100);

/// Looks at the ring before the clock is read for the first time, and between two readings, and so before each yield:
/// most messages then arrive while we look, and not inside a `sched_yield` that finds no other thread to run.
pub(crate) const LOOKS: u32 = 64;

/// How long [`Wait::Yield`] and [`Wait::Block`] poll before they offer the core.
const POLLING: Duration = Duration::from_micros(20);

/// How long [`Wait::Block`] goes on before it sleeps.
const AWAKE: Duration = Duration::from_micros(100);

/// Until when a call waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Not at all: a `try_` call.
    None,
    Until(Instant),
    Forever,
}

impl Patience {
    pub(crate) fn within(timeout: Duration) -> Self {
        // Later than the clock can say is never.
        Instant::now().checked_add(timeout).map_or(Patience::Forever, Patience::Until)
    }
}

/// What a waiting call does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Look,
    /// Offer the core, then look.
    Yield,
    /// Sleep for this long at most, then look.
    Sleep(Duration),
    /// Ask the kernel about the peer, then look.
    Check,
}

/// Why a wait ended without result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    TimedOut,
    Stopped,
}

/// The course of one wait.
#[derive(Debug)]
struct Waiting<'a> {
    strategy: Wait,
    deadline: Option<Instant>,
    stopper: &'a Stopper,
    looks: u32,
    /// When the clock was first read.
    since: Option<Instant>,
    /// When the kernel is to be asked again; at once before the first sleep.
    check: Option<Instant>,
}

impl<'a> Waiting<'a> {
    fn new(strategy: Wait, patience: Patience, stopper: &'a Stopper) -> Self {
        let deadline = match patience {
            Patience::Until(deadline) => Some(deadline),
            Patience::None | Patience::Forever => None,
        };
        Waiting { strategy, deadline, stopper, looks: 0, since: None, check: None }
    }

    /// What to do after a look that found nothing.
    #[inline]
    fn next(&mut self) -> Result<Step, Ended> {
        self.looks = self.looks.wrapping_add(1);
        if self.looks % LOOKS != 0 {
            return Ok(Step::Look);
        }
        self.read_the_clock()
    }

    #[cold]
    fn read_the_clock(&mut self) -> Result<Step, Ended> {
        if self.stopper.is_stopped() {
            return Err(Ended::Stopped);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            // However short the wait, the peer is asked about once.
            if self.check.is_none() {
                self.check = Some(now + SLICE);
                return Ok(Step::Check);
            }
            return Err(Ended::TimedOut);
        }
        let waited = now - *self.since.get_or_insert(now);
        if waited >= AWAKE && self.check.is_none_or(|check| now >= check) {
            self.check = Some(now + SLICE);
            return Ok(Step::Check);
        }
        Ok(match self.strategy {
            Wait::Spin => Step::Look,
            _ if waited < POLLING => Step::Look,
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
    type Found;
    type Error: From<Ended>;

    /// What is waited for, if it is there.
    fn look(&mut self) -> Result<Option<Self::Found>, Self::Error>;

    /// Sleeps until it may be there, for so long at most.
    fn sleep(&mut self, slice: Duration);

    /// Asks the kernel whether our role still stands and whether the peer lives. What a dead one has left may be it.
    fn check(&mut self) -> Result<Option<Self::Found>, Self::Error>;
}

/// Waits: the loop of every call that does.
pub(crate) fn wait_for<A: Awaited>(
    mut awaited: A,
    strategy: Wait,
    patience: Patience,
    stopper: &Stopper,
) -> Result<A::Found, A::Error> {
    let mut waiting = Waiting::new(strategy, patience, stopper);
    loop {
        if let Some(found) = awaited.look()? {
            return Ok(found);
        }
        match waiting.next()? {
            Step::Look => spin_loop(),
            Step::Yield => thread::yield_now(),
            Step::Sleep(slice) => awaited.sleep(slice),
            Step::Check => {
                if let Some(found) = awaited.check()? {
                    return Ok(found);
                }
            }
        }
    }
}

impl From<Ended> for SendError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::TimedOut => SendError::TimedOut,
            Ended::Stopped => SendError::Stopped,
        }
    }
}

impl From<Ended> for RecvError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::TimedOut => RecvError::TimedOut,
            Ended::Stopped => RecvError::Stopped,
        }
    }
}

/// Messages of so many bytes on average are long: measured on Zen 3 and Zen 5, where streams of 2 KiB need the rest and those of 8 KiB
/// lose by it.
const LONG_MESSAGE: u64 = 4096;

/// How long one side of a stream leaves the other one alone when it has caught up with it.
///
/// To look for the next message in the very line that the producer is filling takes the line away from it, so that two
/// sides which follow each other closely are both slow. A rest lets the other side get ahead: as long as the bytes of
/// the run that has just ended would take at a gigabyte a second, so that a few messages are followed by a rest that
/// nobody notices and a steady stream, whose runs get longer with each rest, by the longest one. A single message is
/// followed by none, and neither are long ones: polling costs them little, and what was sent meanwhile would have left the near
/// caches when the rest is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// Where the last run ended: messages and position.
    messages: u64,
    position: u64,
    /// After a run of so many bytes or more, the rest is the longest.
    longest: u64,
    spins_per_kib: u64,
}

impl Rest {
    /// Before the first run, through a ring of `capacity` bytes: the other side, which moves several gigabytes a second,
    /// should not have filled or emptied it long before a rest is over.
    pub(crate) fn new(capacity: u64, messages: u64, position: u64) -> Self {
        Rest { messages, position, longest: (capacity / 16).min(4096), spins_per_kib: spins_per_kib() }
    }

    /// A run has ended where so many messages have passed in all: how often to call `spin_loop` for the rest.
    pub(crate) fn after(&mut self, messages: u64, position: u64) -> u64 {
        let count = messages.wrapping_sub(self.messages);
        let run = position.wrapping_sub(self.position);
        *self = Rest { messages, position, ..*self };
        if count <= 1 || run / LONG_MESSAGE >= count {
            0
        } else {
            run.min(self.longest) * self.spins_per_kib / 1024
        }
    }
}

/// Calls of `spin_loop` that take as long as 1 KiB at a gigabyte a second: one takes between 10 and 150 cycles,
/// depending on the processor. Measured once per process, which takes some microseconds.
fn spins_per_kib() -> u64 {
    static SPINS: OnceLock<u64> = OnceLock::new();
    *SPINS.get_or_init(|| {
        const SAMPLE: u32 = 64;
        let sample = || {
            let start = Instant::now();
            (0..SAMPLE).for_each(|_| spin_loop());
            start.elapsed().as_nanos()
        };
        let fastest = (0..5).map(|_| sample()).min().map_or(1, |nanoseconds| nanoseconds.max(1));
        (1024 * u128::from(SAMPLE) / fastest).clamp(1, 1024) as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a wait in order, each kind named once, until `end` or a sleep.
    fn course(strategy: Wait, patience: Patience, stopper: &Stopper) -> (Vec<&'static str>, Option<Ended>) {
        let mut waiting = Waiting::new(strategy, patience, stopper);
        let mut seen = vec![];
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            let step = match waiting.next() {
                Ok(Step::Look) => "look",
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
        let (seen, _) = course(Wait::Block, Patience::Forever, &Stopper::new());
        assert_eq!(seen[..3], ["look", "yield", "look"]);
        assert_eq!(seen[seen.len() - 3..], ["check", "look", "sleep"]);
    }

    #[test]
    fn spinning_never_yields_nor_sleeps_and_checks() {
        let (seen, ended) = course(Wait::Spin, Patience::Forever, &Stopper::new());
        assert_eq!((seen, ended), (vec!["look", "check", "look"], None));
    }

    #[test]
    fn a_rest_grows_with_the_run_and_follows_neither_single_nor_long_messages() {
        let rests = |count: u64, size: u64| {
            let mut rest = Rest { messages: 7, position: 1000, longest: 4096, spins_per_kib: 1024 };
            let spins = rest.after(7 + count, 1000 + count * size);
            assert_eq!(rest.after(7 + count, 1000 + count * size), 0, "nothing has come since");
            spins
        };
        assert_eq!([rests(1, 64), rests(1, 2048), rests(1, 8192)], [0, 0, 0]);
        assert_eq!([rests(2, 64), rests(10, 64), rests(64, 64), rests(1000, 64)], [128, 640, 4096, 4096]);
        assert_eq!([rests(2, 4088), rests(2, 4096), rests(100, 65536)], [4096, 0, 0]);
    }

    #[test]
    fn yielding_never_sleeps() {
        let (seen, ended) = course(Wait::Yield, Patience::Forever, &Stopper::new());
        assert!(!seen.contains(&"sleep") && seen.contains(&"yield") && ended.is_none());
    }

    #[test]
    fn a_passed_deadline_and_a_stop_end_every_strategy() {
        for strategy in [Wait::Spin, Wait::Yield, Wait::Block] {
            let (_, ended) = course(strategy, Patience::Until(Instant::now()), &Stopper::new());
            assert_eq!(ended, Some(Ended::TimedOut));
            let stopper = Stopper::new();
            stopper.stop();
            assert_eq!(course(strategy, Patience::Forever, &stopper).1, Some(Ended::Stopped));
        }
    }
}
