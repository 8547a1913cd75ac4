//! Messages of all sizes for a long time, every one checked, while every second one end of each pipe is killed, and the other one
//! closes and comes back ten times: what was to hold after one kill holds after thousands, and nothing grows.
//!
//! # What must not grow
//! One end of each pipe is killed again and again; the process at the other end lives from begin to end, and opens the pipe and
//! claims its role some ten times a second. Its descriptors, mappings and own memory are looked at four times a second, and those
//! of this process, and the System V objects in our IPC namespace, one of our own where that is allowed. The most of each in the last
//! fifth of the time is compared with the most in the second fifth: in the first one caches and heaps fill up. See
//! [`ALLOWED`] for how much more may be.

mod couple;
mod usage;

use crate::fork_server::{self, Child};
use crate::objects;
use crate::run::{Harness, Run};
use crate::traffic::{consume, produce};
use crate::verdict::Outcome;
use clap::Args;
use couple::Couple;
use shmpipe::WakeMode;
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::{Line, Part};
use std::thread;
use std::time::{Duration, Instant};
use usage::{ALLOWED, Usage};

/// Sends for a long time, and sees whether anything grows
#[derive(Debug, Args)]
pub struct Soak {
    /// How long
    #[arg(long, value_name = "M", default_value_t = 0.5)]
    minutes: f64,
}

impl Harness for Soak {
    const PARTS: &'static [(&'static str, Part)] = &[("soak", spawn)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(((self.minutes * 60.0).ceil() as u64).max(5), "seconds");
        objects::keep_apart(run);
        soak(run)?;
        objects::must_be_none()
    }
}

fn spawn(line: Line) {
    fork_server::play(line, &[(couple::NAMES[0], produce as Child), (couple::NAMES[1], consume)]);
}

/// The kind of memory, and which end is killed: the first is the producer.
const COUPLES: [(Backend, WakeMode, usize); 5] = [
    (Backend::SysV, WakeMode::Membarrier, 0),
    (Backend::SysV, WakeMode::Fence, 1),
    (Backend::Posix, WakeMode::Membarrier, 0),
    (Backend::File, WakeMode::Fence, 1),
    (Backend::Memfd, WakeMode::Membarrier, 1),
];

/// Between two looks at what is used.
const LOOK: Duration = Duration::from_millis(250);

fn soak(run: &Run) -> Outcome {
    let seconds = run.to_do();
    let mut couples: Vec<Couple> = Vec::new();
    for (number, (backend, mode, mortal)) in COUPLES.into_iter().enumerate() {
        couples.push(Couple::new(backend, mode, mortal, run.rng(seconds.start + number as u64))?);
    }
    let (start, length) = (Instant::now(), Duration::from_secs(seconds.end - seconds.start));
    let mut usages = vec![Usage::new(std::process::id() as i32, "harness")];
    usages.extend(couples.iter().map(|couple| Usage::new(couple.survivor(), couple.name())));
    let mut next = start;
    while start.elapsed() < length && !run.is_over() {
        couples.iter_mut().for_each(Couple::kill_if_due);
        if Instant::now() >= next {
            next += LOOK;
            let part = start.elapsed().as_secs_f64() / length.as_secs_f64();
            for usage in &mut usages {
                usage.look(part)?;
            }
            run.advance(start.elapsed().as_secs().saturating_sub(run.done() - seconds.start));
        }
        thread::sleep(Duration::from_millis(5));
    }
    for usage in &mut usages {
        usage.look(1.0)?;
    }
    for couple in couples {
        let done = couple.end()?;
        run.count("messages", done.messages);
        run.count("kills", done.kills);
        run.count("came a second time", done.duplicates);
        run.count("claims by those who stayed", done.claims);
        run.count("told to try again", done.doubts);
    }
    if !run.is_over() {
        for usage in &usages {
            usage.must_be_flat(&ALLOWED)?;
        }
        run.count("descriptors at most", usages.iter().map(Usage::descriptors).max().unwrap_or(0));
        run.count("KiB grown at most", usages.iter().map(Usage::grown_kib).max().unwrap_or(0));
        run.advance(seconds.end - run.done());
    }
    Ok(())
}
