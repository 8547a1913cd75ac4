//! Lost wake-ups: one side publishes just when the other goes to sleep.
//!
//! # Method
//! Over and over, one side, the sleeper, announces that it starts to wait, and waits. The other, the waker, publishes after a delay.
//! The delay converges to the moment at which the sleeper goes to sleep: it shrinks a little after each wait that slept, grows after
//! each that did not, and always varies at random. Either the consumer sleeps on an empty ring, or the producer on a full one, in a
//! call that blocks, in a set of pipes, in one so large that another thread sleeps on its words, or in `poll`. The sides are two
//! threads or two processes, and use `membarrier` or fences.
//!
//! # Detection
//! A sleeping consumer looks again every 100 ms, and a producer that sleeps for a share of the ring after 20 ms. So a lost wake-up does
//! not hang, but takes too long, and on a busy machine a long wait alone proves nothing. For each wait of more than 50 ms, or 16 ms of
//! a producer, the harness combines three times: when the waker's call returned, after publishing *and* waking; when the sleeper's
//! call returned; and how long in between the sleeper was ready to run and waited for a processor (`/proc/thread-self/schedstat`).
//! The rest is the time asleep although the wake-up was complete: some microseconds if it arrived, close to 100 or 20 ms if not. More
//! than 50 or 16 ms are a lost wake-up. (A set checks at fixed times, and so hides half of those that it loses. A descriptor hides none: its
//! sleeper is stuck.)
//!
//! Voluntary context switches (`getrusage`) show whether a wait did sleep. They do not count yields.

mod clock;
mod sides;

use crate::fork_server::{self, ForkServer};
use crate::objects;
use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use crate::workers;
use clap::Args;
use shmpipe::error::MissingFeature;
use shmpipe::{Options, SetupError, WakeMode};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::journal::Journal;
use shmpipe_testing::process::{Line, Part};
use shmpipe_testing::rng::Rng;
use sides::{Order, RACES, SLEEPS, STOP, Side, WAITS, WAYS};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

/// Wakes one side just when it goes to sleep
#[derive(Debug, Args)]
pub struct Sleep {
    /// Number of sleeps
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    sleeps: u64,
    /// Pairs at the same time [default: one for two processors]
    #[arg(long, value_name = "N", default_value_t = workers::processors().div_ceil(2), hide_default_value = true)]
    pairs: usize,
}

impl Harness for Sleep {
    const PARTS: &'static [(&'static str, Part)] = &[("sleep", serve_forks)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(self.sleeps, "sleeps");
        objects::isolate(run);
        workers::run(run, self.pairs, LAP, |mut pieces| {
            let mut fork_server = ForkServer::start("sleep");
            pieces.try_for_each(|piece| lap(run, &mut fork_server, piece))
        })?;
        objects::must_be_none()
    }
}

const CHILD: &str = "side";

fn serve_forks(line: Line) {
    fork_server::play(line, &[(CHILD, sides::play)]);
}

/// Sleeps with one pipe.
const LAP: u64 = 250;

/// Plays some sleeps with a new pipe. The kinds of pairs take turns.
fn lap(run: &Run, fork_server: &mut ForkServer, piece: workers::Piece) -> Outcome {
    let number = piece.first / LAP;
    let kind = |one_in: u64| number / one_in % 2 == 0;
    let (consumer_sleeps, processes) = (kind(1), kind(2));
    let mode = if kind(4) { WakeMode::Membarrier } else { WakeMode::Fence };
    let way = WAYS[(number / 8) as usize % WAYS.len()];
    let mut rng = run.rng(number);
    let (place, journal) = (Backend::SysV.place(), Journal::new());
    match place.create(&Options::new().capacity(sides::CAPACITY).wake_mode(mode)) {
        Err(error @ SetupError::Kernel(MissingFeature::Wake { .. })) => {
            return Err(Failure::CannotRunHere(error.to_string()));
        }
        made => drop(made?),
    }
    let mut order = |side| Order {
        address: place.as_str().to_owned(),
        journal: journal.path(),
        side,
        is_consumer: (side == Side::Sleeper) == consumer_sleeps,
        way,
        sleeps: piece.count,
        seed: rng.word(),
    };
    let orders = [Side::Sleeper, Side::Waker].map(&mut order);
    let who = if consumer_sleeps { "consumer" } else { "producer" };
    let what =
        format!("a {who} that sleeps ({way:?}), {mode}, {}", if processes { "processes" } else { "threads" });
    let outcome = match processes {
        true => in_processes(fork_server, &orders),
        false => in_threads(&journal, &orders),
    };
    outcome.map_err(|why| Failure::Failed(format!("{what}: {why}")))?;
    run.count("waits", journal.get(WAITS));
    run.count("woken on the way to sleep", journal.get(RACES));
    run.keep_largest("us from publication to return at most", journal.get(sides::LATEST) / 1000);
    run.advance(journal.get(SLEEPS));
    Ok(())
}

fn in_processes(fork_server: &mut ForkServer, orders: &[Order; 2]) -> Result<(), String> {
    let mut sides = orders.each_ref().map(|order| {
        let words = order.to_words();
        fork_server.spawn(CHILD, &words)
    });
    for which in [0, 1] {
        let status = loop {
            // If one side has failed, the other waits for it.
            if let Some(failed) = sides[1 - which].has_ended().filter(|status| !status.success()) {
                return Err(fork_server.why(failed));
            }
            if let Some(status) = sides[which].has_ended() {
                break status;
            }
            thread::sleep(Duration::from_millis(1));
        };
        if !status.success() {
            return Err(fork_server.why(status));
        }
    }
    Ok(())
}

fn in_threads(journal: &Journal, orders: &[Order; 2]) -> Result<(), String> {
    let play = |order: &Order| {
        let played = catch_unwind(AssertUnwindSafe(|| order.play()));
        if played.is_err() {
            // The other side would wait for us.
            journal.set(STOP, 1);
        }
        played
    };
    thread::scope(|scope| {
        let waker = scope.spawn(|| play(&orders[1]));
        let sleeper = play(&orders[0]);
        sleeper.and(waker.join().unwrap_or_else(|payload| resume_unwind(payload)))
    })
    .map_err(|payload| crate::verdict::words_of_panic(payload.as_ref()))
}

/// The waker's delay, from the start of the sleeper's wait.
#[derive(Debug)]
struct Delay {
    nanos: u64,
    rng: Rng,
}

impl Delay {
    fn new(seed: u64) -> Self {
        Delay { nanos: 120_000, rng: Rng(seed) }
    }

    /// The next delay: close to the current value, now and then anywhere up to twice as much.
    fn next(&mut self) -> u64 {
        let jitter = self.nanos / 16;
        match self.rng.below(16) {
            0 => self.rng.below(2 * self.nanos),
            _ => self.nanos - jitter / 2 + self.rng.below(jitter),
        }
    }

    /// Adapts to whether the last wait slept. The delay is stable, and so converges, where three waits in four sleep. On a busy
    /// machine, where a yield before the sleep takes long, that delay is large.
    fn learn(&mut self, slept: bool) {
        let next = if slept { self.nanos - self.nanos / 256 } else { self.nanos + 3 * self.nanos / 256 };
        self.nanos = next.clamp(500, 20_000_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_converges_to_the_start_of_the_sleep() {
        let mut delay = Delay::new(1);
        let mut slept = 0;
        for wait in 0..4000 {
            let sleeps = delay.next() > 250_000;
            delay.learn(sleeps);
            slept += u64::from(wait >= 2000 && sleeps);
        }
        assert!((240_000..270_000).contains(&delay.nanos), "{delay:?}");
        assert!((1300..1700).contains(&slept), "{slept} of 2000");
    }
}
