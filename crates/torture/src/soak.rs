//! Streams messages of all sizes for a long time, and checks each. Every second it kills one end of each pipe. The other end closes
//! and comes back ten times a second. What holds after one kill holds after thousands, and nothing grows.
//!
//! # What must not grow
//! The process at the other end lives for the whole run, and opens the pipe and claims its role about ten times a second. Four times
//! a second the harness counts the descriptors, mappings and private memory of these processes and of itself, and the System V
//! objects in its IPC namespace, a new one where allowed. It compares the maximum of each in the last fifth of the time with the
//! maximum in the second fifth. During the first fifth, caches and heaps fill up. [`ALLOWED`] is the growth that passes.

mod couple;
mod usage;

use crate::objects;
use crate::run::{Harness, Run};
use crate::traffic;
use crate::verdict::Outcome;
use clap::Args;
use couple::Couple;
use shmpipe::WakeMode;
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::Part;
use std::thread;
use std::time::{Duration, Instant};
use usage::{ALLOWED, Usage};

/// Streams for a long time, and checks that nothing grows
#[derive(Debug, Args)]
pub struct Soak {
    /// Duration in minutes
    #[arg(long, value_name = "M", default_value_t = 0.5)]
    minutes: f64,
}

impl Harness for Soak {
    const PARTS: &'static [(&'static str, Part)] = &[("soak", traffic::serve_forks)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(((self.minutes * 60.0).ceil() as u64).max(5), "seconds");
        objects::isolate(run);
        soak(run)?;
        objects::must_be_none()
    }
}

/// The kind of memory, the wake mode, and the end to kill: 0 is the producer.
const COUPLES: [(Backend, WakeMode, usize); 5] = [
    (Backend::SysV, WakeMode::Membarrier, 0),
    (Backend::SysV, WakeMode::Fence, 1),
    (Backend::Posix, WakeMode::Membarrier, 0),
    (Backend::File, WakeMode::Fence, 1),
    (Backend::Memfd, WakeMode::Membarrier, 1),
];

/// The interval between two measurements.
const MEASURE: Duration = Duration::from_millis(250);

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
            next += MEASURE;
            let part = start.elapsed().as_secs_f64() / length.as_secs_f64();
            for usage in &mut usages {
                usage.measure(part)?;
            }
            run.advance(start.elapsed().as_secs().saturating_sub(run.done() - seconds.start));
        }
        thread::sleep(Duration::from_millis(5));
    }
    for usage in &mut usages {
        usage.measure(1.0)?;
    }
    for couple in couples {
        let done = couple.end()?;
        run.count("messages", done.messages);
        run.count("kills", done.kills);
        run.count("repeated", done.duplicates);
        run.count("claims by survivors", done.claims);
        run.count("retries", done.retries);
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
