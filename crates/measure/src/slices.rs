//! Many slices of many configurations, taken in turn, so that whatever the machine does meanwhile happens to all of them.

use std::io;
use std::time::{Duration, Instant};

use crate::collected::{Collected, Series};
use crate::errors::unfit;
use crate::session::{Config, Experiment, Session};
use crate::settings::Settings;
use crate::splitmix::SplitMix64;
use crate::transports::Transport;

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So many slices of each configuration.
    Rounds(u32),
    /// So long, and one slice of each configuration at least.
    Elapsed(Duration),
}

/// What is measured, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is measured in each round, in an order that varies from round to round.
    pub configs: Vec<Config>,
    /// When to stop.
    pub until: Until,
    /// How long a slice should last; the number of its messages follows from it.
    pub slice: Duration,
    /// Determines the order.
    pub seed: u64,
}

impl Plan {
    /// Nothing yet, in slices of half a millisecond.
    pub fn new(until: Until) -> Plan {
        Plan { configs: Vec::new(), until, slice: Duration::from_micros(500), seed: 1 }
    }

    /// The same, and an experiment with every size over every transport of the session that takes it.
    pub fn with(mut self, session: &Session, experiment: Experiment, sizes: &[usize]) -> Plan {
        for &size in sizes {
            let fitting = (0..session.transports().len()).filter(|&transport| session.fits(transport, size));
            self.configs.extend(fitting.map(|transport| Config { experiment, transport, size }));
        }
        self
    }
}

/// How long one of several sessions measures.
const SESSION: Duration = Duration::from_secs(2);

/// Does something in one session after another, for `duration` together; `measure` is told how long it has.
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

/// Measures the experiments with those sizes over every transport, for `duration`, in several sessions of some two seconds.
///
/// Where the kernel puts the memory that two processes share decides which part of the last-level cache it lives in, and
/// that is worth tens of percent, for as long as the session lasts. No number of slices in one session tells: figures that
/// are to be believed come from several.
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

/// How many messages a slice should have. Adapts to what they cost, which changes when the machine moves.
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

    /// The last messages cost so much; the next slice should last `slice`. Grows and shrinks by steps, so that one
    /// disturbed slice does not matter much.
    pub(crate) fn learn(&mut self, cost_ns: f64, slice: Duration) {
        let wanted = (slice.as_nanos() as f64 / cost_ns.max(0.1)) as u64;
        self.count = wanted.clamp(self.count / 4, self.count * 4).clamp(Self::FEWEST, Self::MOST);
    }
}

/// Measures what the plan says.
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

/// Finds out how many messages make a slice; what it measures on the way is forgotten.
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
    fn a_pace_settles_where_a_slice_has_its_length() {
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
