//! The bench of sleeping consumers.

use std::io;
use std::time::Duration;

use super::Options;
use crate::latency;
use crate::session::Session;
use crate::sleeping;
use crate::transports::{FUTEX, Transport};

pub(super) fn measure(chosen: &[&'static dyn Transport], options: &Options) -> io::Result<()> {
    let Options { settings, sizes, pause, .. } = options;
    let all = sleeping::collect_in_sessions(settings, chosen, sizes, *pause, options.duration()?)?;
    println!("{}\n", sleeping::table(&all, FUTEX.name()));
    println!(
        "A message is sent every {pause:?} and counts if the consumer has gone to sleep since the one before, which had come\n\
         long before; the others are listed as awake. p50 /{}: ratio of the medians to a bare futex in shared memory.\n\
         A percentile that fewer than {} exceed is not shown.\n",
        FUTEX.name(),
        latency::BEYOND
    );
    let mut session = Session::start(settings, chosen)?;
    let size = sizes.iter().copied().min().unwrap_or(crate::paced::SHORTEST);
    println!("{}\n", sleeping::idle_table(&sleeping::idle(&mut session, size, options.idle)?));
    println!("Processor time of a consumer to which nothing comes, all of its process.");
    Ok(())
}

/// One slice of everything.
pub(super) fn smoke(session: &mut Session, options: &Options) -> io::Result<()> {
    let all = sleeping::collect(session, &options.sizes, options.pause, Duration::ZERO)?;
    let idle = sleeping::idle(session, options.sizes[0], Duration::from_millis(10))?;
    for (name, _, idle) in &idle {
        assert!(idle.waited >= Duration::from_millis(10) && idle.share() >= 0.0, "{name}");
    }
    let wake_ups: u64 = all.iter().map(|each| each.histogram.len()).sum();
    println!("smoke run, sleeping: {wake_ups} wake-ups over {} transports", idle.len());
    Ok(())
}
