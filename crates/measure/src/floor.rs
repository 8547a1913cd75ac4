//! The floor: round trips of one cache line, the ball. No exchange of two processes through memory is faster.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Instant;

use crate::clock;
use crate::control::Control;
use crate::paced::{Arrivals, Schedule};
use crate::patience::Patience;

/// One process's end of the ping-pong. Both ends count the throws, so that neither needs a reset.
pub(crate) struct Floor {
    control: Rc<Control>,
    thrown: u64,
}

impl Floor {
    /// An end for the ball of `control`, before its first throw.
    pub(crate) fn new(control: Rc<Control>) -> Floor {
        Floor::resume(control, 0)
    }

    /// An end for a ball with this number of throws so far.
    pub(crate) fn resume(control: Rc<Control>, thrown: u64) -> Floor {
        Floor { control, thrown }
    }

    /// The number of throws so far. Between calls it is the same at both ends.
    pub(crate) fn thrown(&self) -> u64 {
        self.thrown
    }

    /// The nanoseconds of a round trip, over `trips` of them. One untimed trip first waits for the other process.
    pub(crate) fn ask(&mut self, trips: u64) -> io::Result<f64> {
        self.ask_untimed(1)?;
        let start = Instant::now();
        self.ask_untimed(trips)?;
        Ok(start.elapsed().as_nanos() as f64 / trips.max(1) as f64)
    }

    /// The partner's side of `ask(trips)`.
    pub(crate) fn answer(&mut self, trips: u64) -> io::Result<()> {
        self.answer_untimed(trips + 1)
    }

    /// The nanoseconds of each of `trips` round trips. The partner calls `answer_untimed(trips)`.
    pub(crate) fn ask_each(&mut self, trips: u64, took: &mut Vec<u64>) -> io::Result<()> {
        let mut start = Instant::now();
        for _ in 0..trips {
            self.ask_untimed(1)?;
            let end = Instant::now();
            took.push((end - start).as_nanos() as u64);
            start = end;
        }
        Ok(())
    }

    /// Throws and catches. The partner calls `answer_untimed(trips)`.
    pub(crate) fn ask_untimed(&mut self, trips: u64) -> io::Result<()> {
        let ball = &self.control.words().ball.0;
        for _ in 0..trips {
            // ORDERING: Release, with the Acquire load in `catch` of the other process: a process that has caught the ball
            // sees everything before the throw, including the slice and the order.
            ball.store(self.thrown + 1, Release);
            catch(ball, self.thrown + 2)?;
            self.thrown += 2;
        }
        Ok(())
    }

    /// Throws at each time of `schedule`, whether the ball was caught or not. The parent calls `catch_paced`.
    pub(crate) fn throw_paced(&mut self, schedule: Schedule) {
        let words = self.control.words();
        words.start.0.store(schedule.start, Relaxed); // the first throw publishes it
        for stamp in schedule.stamps() {
            stamp.wait();
            self.thrown += 2;
            // ORDERING: Release, as in `ask_untimed`; with the Acquire load in `catch_paced`.
            words.ball.0.store(self.thrown, Release);
        }
    }

    /// Catches `count` throws. One load may see several, which have then all arrived.
    pub(crate) fn catch_paced(
        &mut self,
        count: u64,
        interval: u64,
        arrivals: &mut Arrivals,
    ) -> io::Result<()> {
        let words = self.control.words();
        let mut caught = 0;
        while caught < count {
            let mut patience = Patience::new();
            // ORDERING: Acquire, with the Release store in `throw_paced`: the start is visible.
            let mut ball = words.ball.0.load(Acquire);
            while ball == self.thrown + 2 * caught {
                patience.pause()?;
                // ORDERING: Acquire, as above.
                ball = words.ball.0.load(Acquire);
            }
            let now = clock::now();
            let schedule = Schedule { start: words.start.0.load(Relaxed), count, interval };
            let thrown = (ball - self.thrown) / 2;
            for stamp in schedule.stamps().take(thrown as usize).skip(caught as usize) {
                arrivals.record(stamp.intended, now);
            }
            caught = thrown;
        }
        self.thrown += 2 * count;
        Ok(())
    }

    /// Catches and throws back. The parent calls `ask_untimed(trips)`.
    pub(crate) fn answer_untimed(&mut self, trips: u64) -> io::Result<()> {
        let ball = &self.control.words().ball.0;
        for _ in 0..trips {
            catch(ball, self.thrown + 1)?;
            // ORDERING: Release, as in `ask_untimed`.
            ball.store(self.thrown + 2, Release);
            self.thrown += 2;
        }
        Ok(())
    }
}

/// Waits for this throw or a later one: throws at given times do not wait for each other.
#[inline(always)]
fn catch(ball: &AtomicU64, throw: u64) -> io::Result<()> {
    let mut patience = Patience::new();
    // ORDERING: Acquire, with the Release stores of the other process in `ask_untimed` and `answer_untimed`.
    while ball.load(Acquire) < throw {
        patience.pause()?;
    }
    Ok(())
}
