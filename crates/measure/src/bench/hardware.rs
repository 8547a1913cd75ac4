//! The bench of hardware limits.

use std::io;

use super::Options;
use crate::limits;
use crate::placement::Placement;
use crate::transports::Transport;

pub(super) fn measure(chosen: &[&'static dyn Transport], options: &Options) -> io::Result<()> {
    let all = limits::collect_in_sessions(&options.settings, chosen, &options.sizes, options.duration()?)?;
    let mut placements: Vec<Placement> =
        all.iter().flat_map(|measured| &measured.slices).map(|slice| slice.placement).collect();
    if placements.iter().all(|placement| *placement != Placement::OneCpu) {
        placements.extend(Placement::OF_TWO_CPUS);
    }
    placements.sort();
    placements.dedup();
    println!("{}\n", limits::round_trips(&all, &placements));
    println!("{}\n", limits::bandwidths(&all, &placements));
    let discarded: u64 = all.iter().map(|measured| measured.discarded).sum();
    let kept: usize = all.iter().map(|measured| measured.slices.len()).sum();
    println!(
        "slices: {}, {discarded} of them discarded (their floors differed).\n\
         ns, GB/s: median over n slices. q1..q3: half of the slices lie between. /floor: in units of the floor around the\n\
         same slice. /read: times the bandwidth of *read* with blocks of that size.\n\
         two lines: each answer needs a second line besides the one that is polled. bare futex: each side wakes the other,\n\
         then sleeps. read: one side loads what the other has just stored. write: one side stores what the other has just\n\
         loaded, and waits until it is done. past caches: by non-temporal stores. hand-over: two buffers, one filled while the\n\
         other is emptied, each by a copy. The transports stream messages of that size.",
        discarded + kept as u64
    );
    Ok(())
}

/// One slice of everything.
pub(super) fn smoke(session: &mut crate::Session, options: &Options) -> io::Result<()> {
    let all = limits::collect(session, &options.sizes, std::time::Duration::ZERO)?;
    for measured in &all {
        assert!(measured.slices.len() as u64 + measured.discarded > 0, "no slice of {}", measured.name);
        assert!(measured.slices.iter().all(|slice| slice.cost_ns >= 0.0));
    }
    println!("smoke run, limits: {} of them, and transports beside them", limits::Limit::ALL.len());
    Ok(())
}
