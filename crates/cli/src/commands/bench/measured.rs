//! Takes the measurements that the plan asks for, in several sessions.

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

/// About how long one session lasts. Where the kernel puts the memory that two processes share is worth tens of percent
/// for as long as they share it: figures that are to be believed come from several sessions.
const SESSION: Duration = Duration::from_secs(5);

/// What each part of the measuring has of the time: slices of every size, round trips one by one, messages at given times.
/// The rest is for receivers that wait: half of it for their being woken.
const SLICES: f64 = 0.35;
const SINGLY: f64 = 0.3;
const PACED: f64 = 0.15;

/// The longest that a receiver is left waiting at a time, so that a signal is heard soon.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// The shortest that tells anything.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// What a waiting receiver costs.
pub struct Waiting {
    pub transport: &'static str,
    pub mode: Mode,
    pub idle: Idle,
}

/// All that was measured.
pub struct Measured {
    pub machine: Machine,
    /// In slices, for every size.
    pub slices: Collected,
    /// One round trip after the other.
    pub singly: Vec<Latency>,
    /// Messages at given times.
    pub paced: Vec<Paced>,
    /// What was left out there, for it cannot carry so many.
    pub too_slow: Vec<&'static str>,
    /// Messages that found their receivers asleep.
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
        bar.says("receivers that are woken");
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

/// How many sessions go into that time.
fn parts(time: Duration) -> u32 {
    time.div_duration_f64(SESSION).round().max(1.0) as u32
}

/// Messages that follow one another, in sessions for `time` together.
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
        bar.says("round trips and throughput by size");
        let mut experiments = Slices::new(Until::Elapsed(left().mul_f64(SLICES / (SLICES + SINGLY))));
        experiments.seed = u64::from(part);
        for experiment in [Experiment::RoundTrip, Experiment::Streaming] {
            experiments = experiments.with(&session, experiment, &plan.sizes);
        }
        slices.append(collect(&mut session, &experiments)?);
        bar.says("round trips, one by one");
        latency::append(&mut singly, latency::collect(&mut session, &plan.timed_singly, left())?)?;
    }
    let machine = machine.ok_or_else(|| io::Error::other("no session was held"))?;
    Ok((machine, slices, singly))
}

/// Whether a transport has carried messages as fast as they are going to be sent, at its best; one that was never measured
/// is not held to be slow.
fn carries(slices: &Collected, transport: &str) -> bool {
    let streamed = slices
        .series
        .iter()
        .filter(|series| series.transport == transport && series.config.experiment == Experiment::Streaming);
    let costs = streamed.flat_map(|series| &series.slices).map(|slice| slice.cost_ns);
    costs.reduce(f64::min).is_none_or(|best| best < 1e9 / RATE)
}

/// Messages at given times, in sessions for `time` together.
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
        bar.says("messages at given times");
        let left = (time * part / parts).saturating_sub(start.elapsed());
        paced::append(&mut all, paced::collect(&mut session, &[plan.paced], &[RATE], left)?)?;
    }
    Ok(all)
}

/// A session in which the bar moves.
fn begin(plan: &Plan, transports: &[&'static dyn Transport], bar: &Bar) -> io::Result<Session> {
    bar.says("starting two processes");
    bar.look_around()?;
    let mut session = Session::start(&plan.settings, transports)?;
    let looks = bar.clone();
    session.watch(move || looks.look_around());
    Ok(session)
}

/// Has the partner wait on each transport in turn, for `time` together.
fn wait(session: &mut Session, time: Duration, bar: &Bar) -> io::Result<Vec<Waiting>> {
    let transports = session.transports().to_vec();
    let each = (time / transports.len().max(1) as u32).max(SHORTEST_WAIT);
    let mut all = Vec::new();
    for (number, transport) in transports.iter().enumerate() {
        bar.says(format!("a receiver that waits: {}", transport.name()));
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
