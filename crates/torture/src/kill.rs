//! Both ends of a pipe are killed at random instants, again and again, and a successor goes on each time: nothing that was
//! committed is lost, nothing is torn, nothing comes twice but what was taken and not released, no role has two holders, nobody is
//! stuck, and nothing is left.

mod pair;

use crate::fork_server::{self, Child, ForkServer};
use crate::objects;
use crate::run::{Harness, Run};
use crate::traffic::words::{DOUBTS, DUPLICATES, RELEASED, SENT, TAKEN};
use crate::traffic::{consume, produce};
use crate::verdict::{Failure, Outcome};
use crate::workers;
use clap::Args;
use pair::{CONSUMER, PRODUCER, Pair};
use shmpipe::{Options, Wait, WakeMode, unlink};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::process::{Line, Part};
use shmpipe_testing::rng::Rng;

/// Kills both ends of pipes, at random instants
#[derive(Debug, Args)]
pub struct Kill {
    /// How often one or both are killed
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    rounds: u64,
    /// Only over this kind of shared memory [default: all, System V most]
    #[arg(long, value_parser = crate::backend)]
    backend: Option<Backend>,
    /// So many pairs of processes at the same time [default: three for each processor]
    #[arg(long, value_name = "N", default_value_t = 3 * workers::processors(), hide_default_value = true)]
    pairs: usize,
}

impl Harness for Kill {
    const PARTS: &'static [(&'static str, Part)] = &[("kill", spawn)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(self.rounds, "rounds");
        objects::keep_apart(run);
        workers::run(run, self.pairs, LAP, |mut pieces| {
            let mut lap = Lap { run, backend: self.backend, fork_server: ForkServer::start("kill") };
            pieces.try_for_each(|piece| lap.run(run.rng(piece.first), piece.count))
        })?;
        objects::must_be_none()
    }
}

fn spawn(line: Line) {
    fork_server::play(line, &[(PRODUCER, produce as Child), (CONSUMER, consume)]);
}

/// Rounds with one pipe.
const LAP: u64 = 100;

/// What of ten laps is over System V, and so on.
const BACKENDS: [(Backend, u64); 4] =
    [(Backend::SysV, 7), (Backend::Posix, 1), (Backend::File, 1), (Backend::Memfd, 1)];

/// The pipe of a lap.
struct Kind {
    capacity: u64,
    mode: WakeMode,
    /// By which strategies both sides may wait.
    waits: &'static [Wait],
}

/// Who waits by spinning keeps a processor from all others, of which there are many here.
const WAITS: &[Wait] = {
    use Wait::{Block, Spin, Yield};
    &[Block, Block, Block, Block, Block, Block, Block, Block, Block, Block, Spin, Yield]
};

/// Each with its share of ten laps.
const KINDS: [(Kind, u64); 5] = [
    (Kind { capacity: 4096, mode: WakeMode::Membarrier, waits: WAITS }, 3),
    (Kind { capacity: 4096, mode: WakeMode::Fence, waits: WAITS }, 2),
    (Kind { capacity: 16_384, mode: WakeMode::Never, waits: &[Wait::Spin, Wait::Yield, Wait::Yield] }, 1),
    (Kind { capacity: 65_536, mode: WakeMode::Membarrier, waits: WAITS }, 2),
    (Kind { capacity: 65_536, mode: WakeMode::Fence, waits: WAITS }, 2),
];

/// One of several, by their shares of ten.
fn one_of_ten<'a, T>(rng: &mut Rng, choices: &'a [(T, u64)]) -> &'a T {
    let mut number = rng.below(10);
    let chosen = choices.iter().find(|(_, share)| {
        let is_it = number < *share;
        number = number.saturating_sub(*share);
        is_it
    });
    &chosen.expect("shares that add up to ten").0
}

struct Lap<'a> {
    run: &'a Run,
    backend: Option<Backend>,
    fork_server: ForkServer,
}

impl Lap<'_> {
    /// So many rounds with a pipe of their own.
    fn run(&mut self, mut rng: Rng, rounds: u64) -> Outcome {
        let Kind { capacity, mode, waits } = one_of_ten(&mut rng, &KINDS);
        let backend = self.backend.unwrap_or(*one_of_ten(&mut rng, &BACKENDS));
        let (place, journal) = (backend.place(), Journal::new());
        let options = Options::new().capacity(*capacity).wake_mode(*mode);
        drop(place.create(&options)?);
        let mut pair = Pair::new(&place, &journal, &mut self.fork_server, Rng(rng.word()), waits);
        for round in 1..=rounds {
            if self.run.is_over() {
                return Ok(());
            }
            pair.round();
            if round % 25 == 0 {
                pair.must_progress();
            }
        }
        pair.end();
        let [taken, _] = journal.entry(TAKEN);
        let totals = [("taken", taken), ("released", journal.get(RELEASED))];
        for (what, number) in totals {
            if number != journal.get(SENT) {
                return Err(Failure::Failed(format!("{} sent, {number} {what}", journal.get(SENT))));
            }
        }
        nothing_is_left(&place)?;
        self.run.count("messages", taken);
        self.run.count("came a second time", journal.get(DUPLICATES));
        self.run.count("rivals kept out", pair.rivals());
        self.run.count("told to try again", journal.get(DOUBTS));
        self.run.advance(rounds);
        Ok(())
    }
}

/// Nobody holds a role, so that the pipe can be removed, and then there is nothing.
fn nothing_is_left(place: &Place) -> Outcome {
    let seen = shmpipe::inspect(place)?;
    if seen.used != 0 {
        return Err(Failure::Failed(format!("{} bytes are left in the pipe: {seen:?}", seen.used)));
    }
    // A memfd is held by the thread that hands it out, and cannot be removed.
    if place.backend() != Backend::Memfd {
        unlink(place)?;
        if !place.is_unused() {
            return Err(Failure::Failed(format!("something is left at {place}")));
        }
    }
    Ok(())
}
