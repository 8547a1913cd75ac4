//! The fixed set: groups of configurations, each of which a session can hold, and how the sessions alternate.

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

/// Bytes of the ring, each way, that most is measured in.
pub const CAPACITY: usize = 1 << 20;

/// A word, half a line, a line with a record's header and without, one byte more, and up from there.
pub(super) const SIZES: &[usize] = &[8, 32, 56, 64, 65, 128, 256, 1024, 4096, 8192, 16384, 65536, 262_144];
/// In rings of other sizes.
const FEW_SIZES: &[usize] = &[64, 1024, 4096, 16384, 65536];
/// Of paced messages and of wake-ups.
const SHORT: &[usize] = &[64];
/// Messages a second.
const RATES: &[f64] = &[10_000.0];

/// How long a session lasts: as in [`collect_in_sessions`](crate::collect_in_sessions).
const SESSION: Duration = Duration::from_secs(2);

/// What a session of a group measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Slices(&'static [usize]),
    Limits,
    Paced,
    WakeUps,
}

/// What one session can hold.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) capacity: usize,
    transports: &'static [&'static dyn Transport],
    what: What,
    /// The percentage of all sessions.
    share: u32,
}

/// Those that take part in round trips.
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
    /// A session that can measure it.
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

    /// Measures for so long, and each configuration once at least.
    pub(super) fn measure(&self, session: &mut Session, time: Duration, seed: u64) -> io::Result<Part> {
        Ok(match self.what {
            What::Slices(sizes) => {
                let mut plan = Plan::new(Until::Elapsed(time));
                plan.seed = seed;
                for experiment in [Experiment::RoundTrip, Experiment::Streaming] {
                    plan = plan.with(session, experiment, sizes);
                }
                // one by one a batch goes as it does without batches
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

/// The groups in the order in which sessions measure them, each as often as its share says, once at least, and spread over
/// all of the time.
pub(super) fn schedule(time: Duration) -> Vec<usize> {
    let sessions = (time.div_duration_f64(SESSION).round() as usize).max(GROUPS.len());
    let shares: u32 = GROUPS.iter().map(|group| group.share).sum();
    let mut done = vec![0u32; GROUPS.len()];
    let mut schedule = Vec::new();
    for session in 1..=sessions {
        // whose turn is most overdue; at first everyone's once, so that a short run has everything
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
    fn shares_are_of_a_hundred() {
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
    fn a_short_run_has_everything() {
        let mut schedule = schedule(Duration::from_secs(1));
        schedule.sort_unstable();
        assert_eq!(schedule, (0..GROUPS.len()).collect::<Vec<_>>());
    }
}
