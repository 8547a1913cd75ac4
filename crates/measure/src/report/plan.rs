//! The fixed set of figures: groups of configurations, one session each, and the order of the sessions.

use std::io;
use std::time::Duration;

use super::gathered::Part;
use crate::errors::about;
use crate::limits;
use crate::paced;
use crate::session::{Experiment, Session};
use crate::settings::Settings;
use crate::sleeping;
use crate::slices::{Plan, Until, collect};
use crate::transports::{CLASSIC, FUTEX, SHMPIPE, SHMPIPE_BATCH, SHMPIPE_SPIN, SHMPIPE_TRUSTED, Transport};

/// The default bytes of the ring, each way.
pub const CAPACITY: usize = 1 << 20;

/// A word, half a line, a line with and without a record's header, one byte more, and larger sizes.
pub(super) const SIZES: &[usize] = &[8, 32, 56, 64, 65, 128, 256, 1024, 4096, 8192, 16384, 65536, 262_144];
/// The sizes for rings of other capacities.
const FEW_SIZES: &[usize] = &[64, 1024, 4096, 16384, 65536];
/// The sizes of paced messages and of wake-ups.
const SHORT: &[usize] = &[64];
/// Messages a second.
const RATES: &[f64] = &[10_000.0];

/// The duration of a session, as in [`collect_in_sessions`](crate::collect_in_sessions).
const SESSION: Duration = Duration::from_secs(2);

/// The measurement of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Slices(&'static [usize]),
    Limits,
    Paced,
    WakeUps,
}

/// The configurations of one session.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) capacity: usize,
    transports: &'static [&'static dyn Transport],
    what: What,
    /// The percentage of all sessions.
    share: u32,
}

/// The transports for round trips.
const RINGS: &[&dyn Transport] = &[CLASSIC, SHMPIPE, SHMPIPE_TRUSTED, SHMPIPE_BATCH];

const fn ring(name: &'static str, capacity: usize, share: u32) -> Group {
    Group { name, capacity, transports: RINGS, what: What::Slices(FEW_SIZES), share }
}

pub(super) const GROUPS: &[Group] = &[
    Group {
        name: "ring of 1 MiB",
        capacity: CAPACITY,
        transports: RINGS,
        what: What::Slices(SIZES),
        share: 55,
    },
    ring("ring of 64 KiB", 64 << 10, 8),
    ring("ring of 256 KiB", 256 << 10, 8),
    ring("ring of 16 MiB", 16 << 20, 8),
    Group { name: "limits", capacity: CAPACITY, transports: &[], what: What::Limits, share: 9 },
    Group {
        name: "paced",
        capacity: CAPACITY,
        transports: &[CLASSIC, SHMPIPE, SHMPIPE_SPIN],
        what: What::Paced,
        share: 6,
    },
    Group {
        name: "wake-ups",
        capacity: CAPACITY,
        transports: &[FUTEX, SHMPIPE],
        what: What::WakeUps,
        share: 6,
    },
];

impl Group {
    /// Starts a session for it.
    pub(super) fn start(&self, settings: &Settings) -> io::Result<Session> {
        Session::start(&Settings { capacity: self.capacity, ..settings.clone() }, self.transports)
    }

    /// Every transport delivers every byte, both ways, at every size.
    pub(super) fn check(&self, session: &mut Session) -> io::Result<()> {
        let sizes = if let What::Slices(sizes) = self.what { sizes } else { SHORT };
        for transport in 0..session.transports().len() {
            let name = session.transports()[transport].name();
            for &size in sizes.iter().filter(|&&size| session.fits(transport, size)).collect::<Vec<_>>() {
                let checked = session.check_both_ways(transport, size, 24);
                checked.map_err(|error| about(format_args!("{name}, messages of {size} bytes"), error))?;
            }
        }
        Ok(())
    }

    /// Measures for `duration`, and each configuration at least once.
    pub(super) fn measure(&self, session: &mut Session, time: Duration, seed: u64) -> io::Result<Part> {
        Ok(match self.what {
            What::Slices(sizes) => {
                let mut plan = Plan::new(Until::Elapsed(time));
                plan.seed = seed;
                for experiment in [Experiment::RoundTrip, Experiment::Streaming] {
                    plan = plan.with(session, experiment, sizes);
                }
                // single messages go without batches
                let batch = session.transport(SHMPIPE_BATCH.name())?;
                plan.configs
                    .retain(|config| config.experiment == Experiment::Streaming || config.transport != batch);
                Part::of_slices(&collect(session, &plan)?, self.capacity)
            }
            What::Limits => Part::of_limits(&limits::collect(session, &limits::SIZES, time)?),
            What::Paced => Part::of_paced(&paced::collect(session, SHORT, RATES, time)?, self.capacity),
            What::WakeUps => {
                let wake_ups = sleeping::collect(session, SHORT, sleeping::PAUSE, time)?;
                Part::of_wake_ups(&wake_ups, self.capacity)
            }
        })
    }
}

/// The groups in the order of the sessions. Each occurs by its share, at least once, and spread over the whole time.
pub(super) fn schedule(time: Duration) -> Vec<usize> {
    let sessions = (time.div_duration_f64(SESSION).round() as usize).max(GROUPS.len());
    let shares: u32 = GROUPS.iter().map(|group| group.share).sum();
    let mut done = vec![0u32; GROUPS.len()];
    let mut schedule = Vec::new();
    for session in 1..=sessions {
        // the most overdue group; at first each group once, so that a short run has all of them
        let due = |group: usize| {
            let due = session as f64 * f64::from(GROUPS[group].share) / f64::from(shares);
            let never = if done[group] == 0 { sessions as f64 } else { 0.0 };
            due - f64::from(done[group]) + never
        };
        let next = (0..GROUPS.len()).max_by(|&a, &b| due(a).total_cmp(&due(b)).then(b.cmp(&a)));
        let next = next.unwrap_or(0);
        done[next] += 1;
        schedule.push(next);
    }
    schedule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_a_hundred() {
        assert_eq!(GROUPS.iter().map(|group| group.share).sum::<u32>(), 100);
    }

    #[test]
    fn every_group_has_its_share_of_the_sessions() {
        let schedule = schedule(Duration::from_secs(400));
        assert_eq!(schedule.len(), 200);
        for (i, group) in GROUPS.iter().enumerate() {
            let count = schedule.iter().filter(|&&next| next == i).count() as f64;
            assert!((count - 2.0 * f64::from(group.share)).abs() <= 2.0, "{}: {count}", group.name);
            let second_half = schedule[100..].iter().filter(|&&next| next == i).count() as f64;
            assert!((second_half - count / 2.0).abs() <= 2.0, "{}: {second_half} of {count}", group.name);
        }
    }

    #[test]
    fn short_run_has_every_group() {
        let mut schedule = schedule(Duration::from_secs(1));
        schedule.sort_unstable();
        assert_eq!(schedule, (0..GROUPS.len()).collect::<Vec<_>>());
    }
}
