//! Changes random words of header and ring while both ends use the pipe, in processes of their own. Neither end may crash, panic,
//! access other memory, or loop without end.
//!
//! Guard pages surround each end's mapping and the buffers that it sends from and receives into. If an end copies more than it has
//! checked, SIGSEGV kills it. An end gets plausible messages, or the error that the pipe is corrupt, and then always the same error.
//! It then closes, the harness restores the pipe, and the end starts again.

mod end;
mod words;

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use clap::Args;
use end::{CALLS, MESSAGES, PARKED, POISONS, ROUND, consume, produce};
use shmpipe::{Options, Role, WakeMode};
use shmpipe_testing::LONG;
use shmpipe_testing::backend::Backend;
use shmpipe_testing::journal::Journal;
use shmpipe_testing::process::{Part, Process};
use shmpipe_testing::raw::Attached;
use shmpipe_testing::rng::Rng;
use std::thread;
use std::time::{Duration, Instant};
use words::{Spot, lay_trap, restore};

/// Changes words of a pipe while both ends use it
#[derive(Debug, Args)]
pub struct Mutator {
    /// Duration in seconds
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u64,
}

impl Harness for Mutator {
    const PARTS: &'static [(&'static str, Part)] =
        &[("mutator: producer", produce), ("mutator: consumer", consume)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(self.seconds, "seconds");
        while run.done() < self.seconds && !run.is_over() {
            bout(run, &mut run.rng(run.done()))?;
            run.advance(1);
        }
        Ok(())
    }
}

/// Time with one pipe and two processes.
const BOUT: Duration = Duration::from_secs(1);

/// Within this every call returns. Waits have a deadline of 10 ms.
const SOON: Duration = Duration::from_secs(5);

/// The kinds of shared memory. Those that defend against hostile users occur twice.
const BACKENDS: [Backend; 6] =
    [Backend::SysV, Backend::Memfd, Backend::Posix, Backend::SysV, Backend::Memfd, Backend::File];

fn bout(run: &Run, rng: &mut Rng) -> Outcome {
    let number = run.done();
    let backend = BACKENDS[number as usize % BACKENDS.len()];
    // Attacks each role in turn with every kind.
    let victim = if number / BACKENDS.len() as u64 % 2 == 0 { Role::Consumer } else { Role::Producer };
    let capacity = [4096, 4096, 8192, 1 << 16][rng.below(4) as usize];
    let wake_mode = [WakeMode::Membarrier, WakeMode::Fence, WakeMode::Never][rng.below(3) as usize];
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(capacity).wake_mode(wake_mode))?;
    let segment = place.segment();
    let fresh = segment.bytes();
    let journal = Journal::new();
    let seeds = [rng.word().to_string(), rng.word().to_string()];
    let start = |role: Role| {
        let part = format!("mutator: {role}");
        Process::start(
            &part,
            &[place.as_str(), &journal.path(), &capacity.to_string(), &seeds[role as usize]],
        )
    };
    let mut ends = [Role::Producer, Role::Consumer].map(|role| (role, start(role)));
    for (_, process) in &mut ends {
        assert_eq!(process.hear(), "ready");
    }
    drop(pipe);
    let deadline = Instant::now() + BOUT;
    let mut watch = Watch::new();
    while Instant::now() < deadline && !run.is_over() {
        // No end is attached: restores the pipe, then starts both.
        restore(&segment, &fresh, rng);
        journal.set(ROUND, journal.get(ROUND) + 1);
        let flips = disturb(&segment, &journal, victim, rng, &mut ends, &mut watch)?;
        run.count("changes", flips);
        journal.set(ROUND, journal.get(ROUND) + 1);
        while !ends.iter().all(|(role, _)| journal.get(PARKED[*role as usize]) == journal.get(ROUND)) {
            watch.check(&journal, &mut ends)?;
            thread::sleep(Duration::from_micros(50));
        }
    }
    for (role, process) in ends {
        process.end();
        for (what, word) in [("calls", CALLS), ("messages", MESSAGES)] {
            run.count(what, journal.get(word[role as usize]));
        }
        run.count(&format!("times a {role} found corruption"), journal.get(POISONS[role as usize]));
    }
    Ok(())
}

/// Changes words until an end gives up, or for a while. Returns the number of changes.
fn disturb(
    segment: &Attached,
    journal: &Journal,
    victim: Role,
    rng: &mut Rng,
    ends: &mut [(Role, Process); 2],
    watch: &mut Watch,
) -> Result<u64, Failure> {
    let round = journal.get(ROUND);
    let has_given_up = || PARKED.iter().any(|&word| journal.get(word) == round);
    let until = Instant::now() + Duration::from_micros(rng.below(20_000));
    // Lets some messages through first.
    (0..rng.below(50_000)).for_each(|_| std::hint::spin_loop());
    let mut flips = 0;
    while Instant::now() < until && !has_given_up() {
        for _ in 0..16 {
            let Spot { offset, word } = Spot::choose(segment, victim, rng);
            let before = segment.get(offset);
            segment.set(offset, word);
            // Mostly for a moment, so that two loads of the word differ.
            if rng.below(4) != 0 {
                (0..rng.below(40)).for_each(|_| std::hint::spin_loop());
                segment.set(offset, before);
            }
            flips += 1;
            (0..rng.below(400)).for_each(|_| std::hint::spin_loop());
        }
        if rng.below(16) == 0 {
            lay_trap(segment, rng);
        }
        watch.check(journal, ends)?;
    }
    Ok(flips)
}

/// Checks that the ends live, and that their calls return.
struct Watch {
    calls: [u64; 2],
    since: [Instant; 2],
    /// The CPU time of each end soon after that.
    used: [Option<Duration>; 2],
}

impl Watch {
    fn new() -> Self {
        Watch { calls: [0; 2], since: [Instant::now(); 2], used: [None; 2] }
    }

    fn check(&mut self, journal: &Journal, ends: &mut [(Role, Process); 2]) -> Outcome {
        for (i, (role, process)) in ends.iter_mut().enumerate() {
            let calls = journal.get(CALLS[i]);
            if calls != self.calls[i] {
                (self.calls[i], self.since[i], self.used[i]) = (calls, Instant::now(), None);
            } else if self.since[i].elapsed() > SOON && journal.get(PARKED[i]) != journal.get(ROUND) {
                // A busy end must use the CPU for this long, so that waiting for a processor does not count; a sleeping one gets
                // the longer timeout.
                let now = process.processor_time();
                if now - *self.used[i].get_or_insert(now) > SOON || self.since[i].elapsed() > LONG {
                    return Err(Failure::Failed(format!("a call of the {role} takes longer than {SOON:?}")));
                }
            }
            // These are system calls, so only now and then.
            if self.since[i].elapsed() > Duration::from_millis(20) {
                self.used[i].get_or_insert_with(|| process.processor_time());
                if let Some(status) = process.has_ended() {
                    return Err(Failure::Failed(format!("the {role} ended: {status}")));
                }
            }
        }
        Ok(())
    }
}
