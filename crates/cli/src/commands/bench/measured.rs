//! Takes the measurements of a plan, in several sessions.

use std::io;
use std::time::{Duration, Instant};

use shmpipe_measure::latency::{self, Latency};
use shmpipe_measure::paced::{self, Paced};
use shmpipe_measure::sleeping::{self, WakeUps};
use shmpipe_measure::{
    Collected, Experiment, Idle, Machine, Mode, Plan as Slices, Session, Transport, Until, collect,
};

use super::bar::Bar;
use super::plan::{Plan, RATE};

/// The approximate duration of one session. Where the kernel places shared memory changes figures by tens of percent for as long as
/// it is mapped, so reliable figures need several sessions.
const SESSION: Duration = Duration::from_secs(5);

/// The share of the time of each part: slices of every size, single round trips, scheduled messages. The rest is for waiting
/// receivers, half of it for wake-ups.
const SLICES: f64 = 0.35;
const SINGLY: f64 = 0.3;
const PACED: f64 = 0.15;

/// The longest single wait of a receiver, so that a signal is noticed soon.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// The shortest wait that gives a meaningful figure.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// The CPU use of a waiting receiver.
pub struct Waiting {
    pub transport: &'static str,
    pub mode: Mode,
    pub idle: Idle,
}

/// All measurements.
pub struct Measured {
    pub machine: Machine,
    /// Of every size, in slices.
    pub slices: Collected,
    /// Single round trips.
    pub singly: Vec<Latency>,
    /// Scheduled messages.
    pub paced: Vec<Paced>,
    /// Transports left out of `paced`, because they cannot carry that rate.
    pub too_slow: Vec<&'static str>,
    /// Messages to sleeping receivers.
    pub woken: Vec<WakeUps>,
    pub waiting: Vec<Waiting>,
    pub sessions: u32,
    pub took: Duration,
}

pub fn measure(plan: &Plan, bar: &Bar) -> io::Result<Measured> {
    let start = Instant::now();
    let mut sessions = 0;
    let first = plan.time.mul_f64(SLICES + SINGLY);
    let (machine, slices, singly) = alternate(plan, first, bar, &mut sessions)?;
    let (mut paced, mut too_slow, mut woken) = (Vec::new(), Vec::new(), Vec::new());
    if !plan.only_one_cpu {
        let (fast, slow): (Vec<_>, Vec<_>) =
            plan.transports.iter().partition(|transport| carries(&slices, transport.name()));
        let second = first + plan.time.mul_f64(PACED);
        paced = pace(plan, &fast, second.saturating_sub(start.elapsed()), bar, &mut sessions)?;
        too_slow = slow.iter().map(|transport| transport.name()).collect();
    }
    let mut session = begin(plan, &plan.transports, bar)?;
    let left = || plan.time.saturating_sub(start.elapsed());
    if !plan.only_one_cpu {
        bar.set_step("wake-ups of receivers");
        woken = sleeping::collect(&mut session, &[plan.paced], sleeping::PAUSE, left() / 2)?;
    }
    let waiting = wait(&mut session, left(), bar)?;
    Ok(Measured {
        machine,
        slices,
        singly,
        paced,
        too_slow,
        woken,
        waiting,
        sessions: sessions + 1,
        took: start.elapsed(),
    })
}

/// The number of sessions in that time.
fn parts(time: Duration) -> u32 {
    time.div_duration_f64(SESSION).round().max(1.0) as u32
}

/// Back-to-back messages, in sessions that take `time` in total.
fn alternate(
    plan: &Plan,
    time: Duration,
    bar: &Bar,
    sessions: &mut u32,
) -> io::Result<(Machine, Collected, Vec<Latency>)> {
    let (start, parts) = (Instant::now(), parts(time));
    let (mut machine, mut singly) = (None, Vec::new());
    let mut slices =
        Collected { series: Vec::new(), placements: Vec::new(), near_below_ns: 0.0, sessions: 0 };
    for part in 1..=parts {
        let mut session = begin(plan, &plan.transports, bar)?;
        *sessions += 1;
        machine.get_or_insert_with(|| Machine::of(&session));
        let left = || (time * part / parts).saturating_sub(start.elapsed());
        bar.set_step("round trips and throughput by size");
        let mut experiments = Slices::new(Until::Elapsed(left().mul_f64(SLICES / (SLICES + SINGLY))));
        experiments.seed = u64::from(part);
        for experiment in [Experiment::RoundTrip, Experiment::Streaming] {
            experiments = experiments.with(&session, experiment, &plan.sizes);
        }
        slices.append(collect(&mut session, &experiments)?);
        bar.set_step("single round trips");
        latency::append(&mut singly, latency::collect(&mut session, &plan.timed_singly, left())?)?;
    }
    let machine = machine.ok_or_else(|| io::Error::other("no session was held"))?;
    Ok((machine, slices, singly))
}

/// Whether the best slice of a transport carried at least the rate of scheduled messages. One that was not measured counts as fast
/// enough.
fn carries(slices: &Collected, transport: &str) -> bool {
    let streamed = slices
        .series
        .iter()
        .filter(|series| series.transport == transport && series.config.experiment == Experiment::Streaming);
    let costs = streamed.flat_map(|series| &series.slices).map(|slice| slice.cost_ns);
    costs.reduce(f64::min).is_none_or(|best| best < 1e9 / RATE)
}

/// Scheduled messages, in sessions that take `time` in total.
fn pace(
    plan: &Plan,
    transports: &[&'static dyn Transport],
    time: Duration,
    bar: &Bar,
    sessions: &mut u32,
) -> io::Result<Vec<Paced>> {
    let (start, parts, mut all) = (Instant::now(), parts(time), Vec::new());
    if transports.is_empty() {
        return Ok(all);
    }
    for part in 1..=parts {
        let mut session = begin(plan, transports, bar)?;
        *sessions += 1;
        bar.set_step("scheduled messages");
        let left = (time * part / parts).saturating_sub(start.elapsed());
        paced::append(&mut all, paced::collect(&mut session, &[plan.paced], &[RATE], left)?)?;
    }
    Ok(all)
}

/// A session that updates the bar.
fn begin(plan: &Plan, transports: &[&'static dyn Transport], bar: &Bar) -> io::Result<Session> {
    bar.set_step("starting two processes");
    bar.update()?;
    let mut session = Session::start(&plan.settings, transports)?;
    let bar = bar.clone();
    session.watch(move || bar.update());
    Ok(session)
}

/// Lets the partner wait on each transport in turn, for `time` in total.
fn wait(session: &mut Session, time: Duration, bar: &Bar) -> io::Result<Vec<Waiting>> {
    let transports = session.transports().to_vec();
    let each = (time / transports.len().max(1) as u32).max(SHORTEST_WAIT);
    let mut all = Vec::new();
    for (number, transport) in transports.iter().enumerate() {
        bar.set_step(format!("a waiting receiver: {}", transport.name()));
        let start = Instant::now();
        let mut idle = Idle { waited: Duration::ZERO, ran: Duration::ZERO };
        while idle.waited.is_zero() || start.elapsed() < each {
            let left = each.saturating_sub(start.elapsed());
            let Idle { waited, ran } = session.idle(number, 1, left.clamp(SHORTEST_WAIT, LONGEST_WAIT))?;
            idle = Idle { waited: idle.waited + waited, ran: idle.ran + ran };
        }
        all.push(Waiting { transport: transport.name(), mode: transport.mode(), idle });
    }
    Ok(all)
}
