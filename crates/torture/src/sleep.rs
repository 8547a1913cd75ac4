//! Sleeping and waking: one side is about to sleep just when the other one publishes what it waits for. No wake-up may be lost.
//!
//! # How
//! Over and over, one side (the sleeper) says that it begins to wait, and waits. The other one (the waker) publishes after a
//! delay that is led to where the sleeper is just about to sleep: a little shorter after each wait that slept, longer after each
//! that did not, and always a little at random. The consumer sleeps on an empty ring, or the producer on a full one; both sides
//! are threads of one process, or two processes; the wake-ups go by `membarrier` or by fences.
//!
//! # What is a lost wake-up
//! A call that sleeps looks around every 100 ms, so that a lost wake-up is not a wait without end but one that is too long, which
//! on a busy machine proves nothing. So of every wait of more than 50 ms three things are taken together: when the waker had
//! published *and* done all it does to wake (its call had returned), when the sleeper's call returned, and how long in between
//! the sleeper stood in the queue for a processor (`/proc/thread-self/schedstat`), ready to run. What is left is the time for
//! which it was asleep with everything done to wake it: some microseconds when it was woken, the rest of the slice, close
//! to 100 ms, when it was not. More than 50 ms are a lost wake-up.
//!
//! That a wait did sleep is known from the count of the times that its thread has left the processor of its own accord
//! (`getrusage`): to yield is not counted there.

mod clock;
mod sides;

use crate::fork_server::{self, Child, ForkServer};
use crate::objects;
use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use crate::workers;
use clap::Args;
use shmpipe::{Options, SetupError, WakeMode};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::journal::Journal;
use shmpipe_testing::process::{Line, Part};
use shmpipe_testing::rng::Rng;
use sides::{Order, RACES, SLEEPS, STOP, Side, WAITS};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

/// Puts one side to sleep just when the other one wakes it
#[derive(Debug, Args)]
pub struct Sleep {
    /// How often one side is to sleep
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    sleeps: u64,
    /// So many pairs at the same time [default: one for two processors]
    #[arg(long, value_name = "N", default_value_t = workers::processors().div_ceil(2), hide_default_value = true)]
    pairs: usize,
}

impl Harness for Sleep {
    const PARTS: &'static [(&'static str, Part)] = &[("sleep", spawn)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(self.sleeps, "sleeps");
        objects::keep_apart(run);
        workers::run(run, self.pairs, LAP, |mut pieces| {
            let mut fork_server = ForkServer::start("sleep");
            pieces.try_for_each(|piece| lap(run, &mut fork_server, piece))
        })?;
        objects::must_be_none()
    }
}

const CHILD: &str = "side";

fn spawn(line: Line) {
    fork_server::play(line, &[(CHILD, sides::play as Child)]);
}

/// Sleeps with one pipe.
const LAP: u64 = 250;

/// So many sleeps with a pipe of their own, each kind of pair in its turn.
fn lap(run: &Run, fork_server: &mut ForkServer, piece: workers::Piece) -> Outcome {
    let number = piece.first / LAP;
    let kind = |one_in: u64| number / one_in % 2 == 0;
    let (consumer_sleeps, processes) = (kind(1), kind(2));
    let mode = if kind(4) { WakeMode::Membarrier } else { WakeMode::Fence };
    let mut rng = run.rng(number);
    let (place, journal) = (Backend::SysV.place(), Journal::new());
    match place.create(&Options::new().capacity(sides::CAPACITY).wake_mode(mode)) {
        Err(error @ SetupError::CannotWake { .. }) => return Err(Failure::CannotRunHere(error.to_string())),
        made => drop(made?),
    }
    let mut order = |side| Order {
        address: place.as_str().to_owned(),
        journal: journal.path(),
        side,
        is_consumer: (side == Side::Sleeper) == consumer_sleeps,
        sleeps: piece.count,
        seed: rng.word(),
    };
    let orders = [Side::Sleeper, Side::Waker].map(&mut order);
    let who = if consumer_sleeps { "consumer" } else { "producer" };
    let what = format!("a {who} that sleeps, {mode}, {}", if processes { "processes" } else { "threads" });
    let outcome = match processes {
        true => in_processes(fork_server, &orders),
        false => in_threads(&journal, &orders),
    };
    outcome.map_err(|why| Failure::Failed(format!("{what}: {why}")))?;
    run.count("waits", journal.get(WAITS));
    run.count("that were woken on the way to sleep", journal.get(RACES));
    run.keep_largest("us from publication to return at most", journal.get(sides::LATEST) / 1000);
    run.advance(journal.get(SLEEPS));
    Ok(())
}

fn in_processes(fork_server: &mut ForkServer, orders: &[Order; 2]) -> Result<(), String> {
    let mut sides = orders.each_ref().map(|order| {
        let words = order.to_words();
        fork_server.spawn(CHILD, &words.each_ref().map(String::as_str))
    });
    for which in [0, 1] {
        let status = loop {
            // The other one waits for it if one has failed.
            if let Some(failed) = sides[1 - which].has_ended().filter(|status| !status.success()) {
                return Err(fork_server.why(failed));
            }
            if let Some(status) = sides[which].has_ended() {
                break status;
            }
            thread::sleep(std::time::Duration::from_millis(1));
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
            // The other one would wait for us.
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

/// How long the waker waits, counted from when the sleeper begins to wait.
#[derive(Debug)]
struct Delay {
    nanos: u64,
    rng: Rng,
}

impl Delay {
    fn new(seed: u64) -> Self {
        Delay { nanos: 120_000, rng: Rng(seed) }
    }

    /// The next one: close to where the last ones led, or anywhere on the way.
    fn next(&mut self) -> u64 {
        let jitter = self.nanos / 16;
        match self.rng.below(16) {
            0 => self.rng.below(2 * self.nanos),
            _ => self.nanos - jitter / 2 + self.rng.below(jitter),
        }
    }

    /// Whether the last wait slept. Sleeping three times in four leaves the delay where it is, and so it is led to where that is
    /// so; on a busy machine, where whoever yields on his way to sleep is away for long, that is far out.
    fn learn(&mut self, slept: bool) {
        let next = if slept { self.nanos - self.nanos / 256 } else { self.nanos + 3 * self.nanos / 256 };
        self.nanos = next.clamp(20_000, 20_000_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_finds_where_a_wait_begins_to_sleep() {
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
