//! Kills both ends of pipes at random instants, again and again. Each time a successor takes over. No committed message is lost or
//! torn. Only messages that were taken and not released repeat. No role has two holders, no end hangs, and nothing is left over.
//! Some of the pipes are duplex: then all this holds in both directions, and a process has one thread for each.

mod pair;

use crate::fork_server::ForkServer;
use crate::objects;
use crate::run::{Harness, Run};
use crate::traffic::words::{DUPLICATES, RETRIES};
use crate::traffic::{self, all_taken, remove};
use crate::verdict::{Failure, Outcome};
use crate::workers;
use clap::Args;
use pair::Pair;
use shmpipe::{Options, Wait, WakeMode};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::process::Part;
use shmpipe_testing::rng::Rng;

/// Kills both ends of pipes, at random instants
#[derive(Debug, Args)]
pub struct Kill {
    /// How often to kill one or both ends
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    rounds: u64,
    /// Only this kind of shared memory [default: all, System V most]
    #[arg(long, value_parser = crate::backend)]
    backend: Option<Backend>,
    /// Only duplex pipes [default: three laps of ten]
    #[arg(long)]
    duplex: bool,
    /// Pairs of processes at the same time [default: three for each processor]
    #[arg(long, value_name = "N", default_value_t = 3 * workers::processors(), hide_default_value = true)]
    pairs: usize,
}

impl Harness for Kill {
    const PARTS: &'static [(&'static str, Part)] = &[("kill", traffic::serve_forks)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(self.rounds, "rounds");
        objects::isolate(run);
        workers::run(run, self.pairs, LAP, |mut pieces| {
            let Kill { backend, duplex, .. } = *self;
            let mut lap = Lap { run, backend, duplex, fork_server: ForkServer::start("kill") };
            pieces.try_for_each(|piece| lap.run(run.rng(piece.first), piece.count))
        })?;
        objects::must_be_none()
    }
}

/// Rounds with one pipe.
const LAP: u64 = 100;

/// Each kind with its share of ten laps.
const BACKENDS: [(Backend, u64); 4] =
    [(Backend::SysV, 7), (Backend::Posix, 1), (Backend::File, 1), (Backend::Memfd, 1)];

/// The pipe of a lap.
struct Kind {
    capacity: u64,
    mode: WakeMode,
    /// The wait strategies of both sides.
    waits: &'static [Wait],
}

/// Few spin: a spinning process takes a processor from the many others here.
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

/// Chooses by shares of ten.
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
    duplex: bool,
    fork_server: ForkServer,
}

impl Lap<'_> {
    /// Plays some rounds with a new pipe.
    fn run(&mut self, mut rng: Rng, rounds: u64) -> Outcome {
        let Kind { capacity, mode, waits } = one_of_ten(&mut rng, &KINDS);
        let backend = self.backend.unwrap_or(*one_of_ten(&mut rng, &BACKENDS));
        let duplex = *one_of_ten(&mut rng, &[(true, 3), (false, 7)]) || self.duplex;
        let place = backend.place();
        let journals: Vec<Journal> = (0..if duplex { 2 } else { 1 }).map(|_| Journal::new()).collect();
        let options = Options::new().capacity(*capacity).wake_mode(*mode).duplex(duplex);
        drop(place.create(&options)?);
        let mut pair = Pair::new(&place, &journals, &mut self.fork_server, Rng(rng.word()), waits);
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
        for journal in &journals {
            self.run.count("messages", all_taken(journal)?);
            self.run.count("repeated", journal.get(DUPLICATES));
            self.run.count("retries", journal.get(RETRIES));
        }
        must_be_empty(&place)?;
        remove(&place)?;
        self.run.count("rivals rejected", pair.rivals());
        self.run.count("rounds of duplex pipes", if duplex { rounds } else { 0 });
        self.run.advance(rounds);
        Ok(())
    }
}

fn must_be_empty(place: &Place) -> Outcome {
    let seen = shmpipe::inspect(place)?;
    match seen.used + seen.back.as_ref().map_or(0, |back| back.used) {
        0 => Ok(()),
        used => Err(Failure::Failed(format!("{used} bytes are left in the pipe: {seen:?}"))),
    }
}
