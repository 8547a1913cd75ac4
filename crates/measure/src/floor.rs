//! The floor: one cache line thrown to and fro. Nothing that two processes do through memory is faster.

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

/// One process's end of the ping-pong. Both ends count the throws, so that neither has to be reset.
pub(crate) struct Floor {
    control: Rc<Control>,
    thrown: u64,
}

impl Floor {
    /// An end of the game on the ball of `control`, which nobody has thrown yet.
    pub(crate) fn new(control: Rc<Control>) -> Floor {
        Floor::resume(control, 0)
    }

    /// An end of a game in which the ball has been thrown so often.
    pub(crate) fn resume(control: Rc<Control>, thrown: u64) -> Floor {
        Floor { control, thrown }
    }

    /// How often the ball has been thrown. Between two calls that are both done, the same at both ends.
    pub(crate) fn thrown(&self) -> u64 {
        self.thrown
    }

    /// Nanoseconds of a round trip, over `trips` of them. One more before them waits for the other process, untimed.
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

    /// The nanoseconds of each of `trips` round trips; the partner does `answer_untimed(trips)`.
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

    /// Throws and catches; the partner does `answer_untimed(trips)`.
    pub(crate) fn ask_untimed(&mut self, trips: u64) -> io::Result<()> {
        let ball = &self.control.words().ball.0;
        for _ in 0..trips {
            // ORDERING: Release, with the Acquire load in `catch` of the other process: who holds the ball sees all that
            // was done before it was thrown, the slice and the order before it among them.
            ball.store(self.thrown + 1, Release);
            catch(ball, self.thrown + 2)?;
            self.thrown += 2;
        }
        Ok(())
    }

    /// Throws at each of the times of `schedule`, whether the ball was caught or not; the parent does `catch_paced`.
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

    /// Catches `count` throws, of which one may stand for several: they have all arrived by then.
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
            // ORDERING: Acquire, with the Release store in `throw_paced`: the start is there.
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

    /// Catches and throws back; the parent does `ask_untimed(trips)`.
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

/// Waits for that throw. A later one will do as well: who throws at given times does not wait until the one before was seen.
#[inline(always)]
fn catch(ball: &AtomicU64, throw: u64) -> io::Result<()> {
    let mut patience = Patience::new();
    // ORDERING: Acquire, with the Release stores of the other process in `ask_untimed` and `answer_untimed`.
    while ball.load(Acquire) < throw {
        patience.pause()?;
    }
    Ok(())
}
