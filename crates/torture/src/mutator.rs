//! Somebody changes random words of a pipe, header and ring, while both ends use it, in processes of their own: neither may
//! crash, panic, touch what is not its own, or be kept busy for ever.
//!
//! Each end's mapping lies between two pages without access, and so do the bytes that it sends and receives: what is copied
//! is as long as what was checked, or the end is killed by SIGSEGV. What an end gets is either what looks right, or that the pipe
//! is corrupt, and then always the same; it gives up its role, the pipe is put right, and it comes again.

mod end;
mod words;

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use clap::Args;
use end::{End, consume, produce};
use shmpipe::{Options, WakeMode};
use shmpipe_testing::LONG;
use shmpipe_testing::backend::Backend;
use shmpipe_testing::journal::Journal;
use shmpipe_testing::process::{Part, Process};
use shmpipe_testing::raw::Attached;
use shmpipe_testing::rng::Rng;
use std::thread;
use std::time::{Duration, Instant};
use words::{Spot, lay_trap, put_right};

/// Changes words of a pipe while both ends use it
#[derive(Debug, Args)]
pub struct Mutator {
    /// For how long
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

/// With one pipe and two processes.
const BOUT: Duration = Duration::from_secs(1);

/// Within this every call returns: those that wait do so for a hundredth of a second.
const SOON: Duration = Duration::from_secs(5);

/// Kinds of shared memory: those against whose hostile users something is promised come twice as often.
const BACKENDS: [Backend; 6] =
    [Backend::SysV, Backend::Memfd, Backend::Posix, Backend::SysV, Backend::Memfd, Backend::File];

fn bout(run: &Run, rng: &mut Rng) -> Outcome {
    let number = run.done();
    let backend = BACKENDS[number as usize % BACKENDS.len()];
    // Each role is attacked in turn with every kind.
    let victim = if number / BACKENDS.len() as u64 % 2 == 0 { End::Consumer } else { End::Producer };
    let capacity = [4096, 4096, 8192, 1 << 16][rng.below(4) as usize];
    let wake_mode = [WakeMode::Membarrier, WakeMode::Fence, WakeMode::Never][rng.below(3) as usize];
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(capacity).wake_mode(wake_mode))?;
    let segment = place.segment();
    let fresh = segment.bytes();
    let journal = Journal::new();
    let seeds = [rng.word().to_string(), rng.word().to_string()];
    let start = |end: End| {
        let part = format!("mutator: {end}");
        Process::start(&part, &[place.as_str(), &journal.path(), &capacity.to_string(), &seeds[end as usize]])
    };
    let mut ends = [End::Producer, End::Consumer].map(|end| (end, start(end)));
    for (_, process) in &mut ends {
        assert_eq!(process.hear(), "ready");
    }
    drop(pipe);
    let deadline = Instant::now() + BOUT;
    let mut watch = Watch::new();
    while Instant::now() < deadline && !run.is_over() {
        // Nobody is there: the pipe is put right, and both come.
        put_right(&segment, &fresh, rng);
        journal.set(end::ROUND, journal.get(end::ROUND) + 1);
        let flips = disturb(&segment, &journal, victim, rng, &mut ends, &mut watch)?;
        run.count("changes", flips);
        journal.set(end::ROUND, journal.get(end::ROUND) + 1);
        while !ends.iter().all(|(end, _)| journal.get(end.parked()) == journal.get(end::ROUND)) {
            watch.look(&journal, &mut ends)?;
            thread::sleep(Duration::from_micros(50));
        }
    }
    for (end, process) in ends {
        process.end();
        for (what, word) in [("calls", end.calls()), ("messages", end.messages())] {
            run.count(what, journal.get(word));
        }
        run.count(&format!("times a {end} was poisoned"), journal.get(end.poisons()));
    }
    Ok(())
}

/// Changes words until one of the two has given up, or for a while. How many.
fn disturb(
    segment: &Attached,
    journal: &Journal,
    victim: End,
    rng: &mut Rng,
    ends: &mut [(End, Process); 2],
    watch: &mut Watch,
) -> Result<u64, Failure> {
    let round = journal.get(end::ROUND);
    let has_given_up = || [End::Producer, End::Consumer].iter().any(|end| journal.get(end.parked()) == round);
    let until = Instant::now() + Duration::from_micros(rng.below(20_000));
    // Traffic needs a moment without.
    (0..rng.below(50_000)).for_each(|_| std::hint::spin_loop());
    let mut flips = 0;
    while Instant::now() < until && !has_given_up() {
        for _ in 0..16 {
            let Spot { offset, word } = Spot::choose(segment, victim, rng);
            let before = segment.get(offset);
            segment.set(offset, word);
            // Mostly for a moment: what an end has seen in one look is not there in the next.
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
        watch.look(journal, ends)?;
    }
    Ok(flips)
}

/// Sees to it that the ends live, and that each of their calls comes to an end.
struct Watch {
    calls: [u64; 2],
    since: [Instant; 2],
    /// The processor time that each end had used soon after that.
    used: [Option<Duration>; 2],
}

impl Watch {
    fn new() -> Self {
        Watch { calls: [0; 2], since: [Instant::now(); 2], used: [None; 2] }
    }

    fn look(&mut self, journal: &Journal, ends: &mut [(End, Process); 2]) -> Outcome {
        for (i, (end, process)) in ends.iter_mut().enumerate() {
            let calls = journal.get(end.calls());
            if calls != self.calls[i] {
                (self.calls[i], self.since[i], self.used[i]) = (calls, Instant::now(), None);
            } else if self.since[i].elapsed() > SOON && journal.get(end.parked()) != journal.get(end::ROUND) {
                // One that works uses the processor, if it gets it; one that sleeps has to wake up.
                let now = process.processor_time();
                if now - *self.used[i].get_or_insert(now) > SOON || self.since[i].elapsed() > LONG {
                    return Err(Failure::Failed(format!("a call of the {end} takes longer than {SOON:?}")));
                }
            }
            // System calls, and only now and then.
            if self.since[i].elapsed() > Duration::from_millis(20) {
                self.used[i].get_or_insert_with(|| process.processor_time());
                if let Some(status) = process.has_ended() {
                    return Err(Failure::Failed(format!("the {end} has ended: {status}")));
                }
            }
        }
        Ok(())
    }
}
