//! Alternating slices of many configurations, so that changes of the machine affect all of them.

use std::io;
use std::time::{Duration, Instant};

use crate::collected::{Collected, Series};
use crate::errors::unfit;
use crate::session::{Config, Experiment, Session};
use crate::settings::Settings;
use crate::splitmix::SplitMix64;
use crate::transports::Transport;

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this many slices of each configuration.
    Rounds(u32),
    /// After this time, and at least one slice of each configuration.
    Elapsed(Duration),
}

/// What to measure, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to measure in each round. The order varies from round to round.
    pub configs: Vec<Config>,
    /// When to stop.
    pub until: Until,
    /// The intended duration of a slice, which determines the number of its messages.
    pub slice: Duration,
    /// The seed of the order.
    pub seed: u64,
}

impl Plan {
    /// An empty plan, with slices of half a millisecond.
    pub fn new(until: Until) -> Plan {
        Plan { configs: Vec::new(), until, slice: Duration::from_micros(500), seed: 1 }
    }

    /// Adds an experiment with every size over every transport of the session that the size fits.
    pub fn with(mut self, session: &Session, experiment: Experiment, sizes: &[usize]) -> Plan {
        for &size in sizes {
            let fitting = (0..session.transports().len()).filter(|&transport| session.fits(transport, size));
            self.configs.extend(fitting.map(|transport| Config { experiment, transport, size }));
        }
        self
    }
}

/// The duration of one of several sessions.
const SESSION: Duration = Duration::from_secs(2);

/// Calls `measure` in successive sessions, for `duration` in all. Its argument is its own duration.
pub(crate) fn in_sessions(
    settings: &Settings,
    transports: &[&'static dyn Transport],
    duration: Duration,
    mut measure: impl FnMut(&mut Session, Duration) -> io::Result<()>,
) -> io::Result<()> {
    let sessions = duration.div_duration_f64(SESSION).round().max(1.0) as u32;
    for _ in 0..sessions {
        measure(&mut Session::start(settings, transports)?, duration / sessions)?;
    }
    Ok(())
}

/// Measures the experiments with these sizes over every transport, for `duration`, in several sessions of about two seconds.
///
/// The kernel's choice of memory for two processes decides which part of the last-level cache holds it. That changes figures
/// by tens of percent, for the whole session. More slices in one session do not help: reliable figures need several sessions.
///
/// # Errors
/// As [`Session::start`] and [`Session::slice`].
pub fn collect_in_sessions(
    settings: &Settings,
    transports: &[&'static dyn Transport],
    experiments: &[(Experiment, &[usize])],
    duration: Duration,
) -> io::Result<Collected> {
    let mut all = Collected { series: Vec::new(), placements: Vec::new(), near_below_ns: 0.0, sessions: 0 };
    in_sessions(settings, transports, duration, |session, time| {
        let mut plan = Plan::new(Until::Elapsed(time));
        plan.seed += u64::from(all.sessions);
        for (experiment, sizes) in experiments {
            plan = plan.with(session, *experiment, sizes);
        }
        all.append(collect(session, &plan)?);
        Ok(())
    })?;
    Ok(all)
}

/// The number of messages in a slice. Adapts to their cost, which changes when the machine moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) count: u64,
}

impl Pace {
    const FEWEST: u64 = 8;
    const MOST: u64 = 1 << 16;

    pub(crate) const fn new() -> Pace {
        Pace { count: 16 }
    }

    /// Adapts to the cost of the last messages, so that the next slice takes `slice`. Changes in steps, so that one disturbed
    /// slice has little effect.
    pub(crate) fn learn(&mut self, cost_ns: f64, slice: Duration) {
        let wanted = (slice.as_nanos() as f64 / cost_ns.max(0.1)) as u64;
        self.count = wanted.clamp(self.count / 4, self.count * 4).clamp(Self::FEWEST, Self::MOST);
    }
}

/// Measures a plan.
///
/// # Errors
/// As [`Session::slice`].
pub fn collect(session: &mut Session, plan: &Plan) -> io::Result<Collected> {
    let mut series: Vec<Series> = plan
        .configs
        .iter()
        .map(|&config| {
            let transport = session.transports().get(config.transport);
            let transport = transport.ok_or_else(|| unfit("a transport that the session has not"))?;
            let (transport, mode) = (transport.name(), transport.mode());
            Ok(Series { config, transport, mode, slices: Vec::new(), discarded: 0 })
        })
        .collect::<io::Result<_>>()?;
    let mut paces = vec![Pace::new(); series.len()];
    warm_up(session, plan, &mut paces)?;
    let mut order: Vec<usize> = (0..series.len()).collect();
    let mut words = SplitMix64::new(plan.seed);
    let start = Instant::now();
    let mut round = 0;
    'rounds: loop {
        words.shuffle(&mut order);
        for &i in &order {
            let enough = match plan.until {
                Until::Rounds(rounds) => round >= rounds,
                Until::Elapsed(time) => round > 0 && start.elapsed() >= time,
            };
            if enough {
                break 'rounds;
            }
            let Series { config, slices, discarded, .. } = &mut series[i];
            let count = session.settings().burst.unwrap_or(paces[i].count);
            match session.slice(*config, count)? {
                Some(slice) => {
                    slices.push(slice);
                    paces[i].learn(slice.cost_ns, plan.slice);
                }
                None => *discarded += 1,
            }
        }
        if order.is_empty() {
            break;
        }
        round += 1;
    }
    let placements = session.placements().to_vec();
    Ok(Collected { series, placements, near_below_ns: session.settings().near_below_ns, sessions: 1 })
}

/// Determines the number of messages in a slice. Discards the results.
fn warm_up(session: &mut Session, plan: &Plan, paces: &mut [Pace]) -> io::Result<()> {
    for (&config, pace) in plan.configs.iter().zip(paces) {
        for _ in 0..8 {
            let before = pace.count;
            if let Some(slice) = session.slice(config, before)? {
                pace.learn(slice.cost_ns, plan.slice);
                if pace.count < 2 * before {
                    break;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_settles_at_the_intended_duration() {
        let mut pace = Pace::new();
        for _ in 0..10 {
            pace.learn(50.0, Duration::from_micros(500));
        }
        assert_eq!(pace.count, 10_000);
        pace.learn(1e9, Duration::from_micros(500));
        assert_eq!(pace.count, 2500);
        for _ in 0..10 {
            pace.learn(1e9, Duration::from_micros(500));
        }
        assert_eq!(pace.count, Pace::FEWEST);
    }
}
