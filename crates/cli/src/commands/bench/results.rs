//! The measurements as objects: one source for the tables, the page and the JSON.

use std::time::SystemTime;

use hdrhistogram::Histogram;
use serde::Serialize;
use shmpipe_measure::latency::{self, Latency};
use shmpipe_measure::paced::{self, Paced};
use shmpipe_measure::sleeping::WakeUps;
use shmpipe_measure::{Collected, Experiment, FEWEST, Mode, Placement, Series, Spread, Transport};

use super::measured::{Measured, Waiting};
use super::plan::{self, Plan, RATE};
use crate::output::report::{self, SCHEMA};

/// Points of a percentile curve per factor of ten in rarity.
const POINTS: u32 = 8;

/// A run that takes longer than planned by this factor gets a note.
const LATE: f64 = 1.5;

/// Transports that are compared with each other: those that wait in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    Polling,
    Sleeping,
}

impl Group {
    pub const ALL: [Group; 2] = [Group::Sleeping, Group::Polling];

    pub fn of(mode: Mode) -> Group {
        match mode {
            Mode::Polls => Group::Polling,
            Mode::PollsThenSleeps | Mode::Sleeps => Group::Sleeping,
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Group::Polling => "Receivers that poll",
            Group::Sleeping => "Receivers that sleep",
        }
    }

    pub fn explained(self) -> &'static str {
        match self {
            Group::Polling => {
                "A waiting receiver polls and never yields its CPU: no system calls, and a whole CPU for each side."
            }
            Group::Sleeping => {
                "A waiting receiver sleeps in the kernel until it is woken. shmpipe polls briefly first, and sleeps only if \
                 no message comes; the others sleep at once."
            }
        }
    }
}

/// The subject of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    pub group: Group,
    pub transport: &'static str,
    pub waits: String,
    #[serde(skip)]
    pub place: Placement,
    pub placement: String,
    pub message_bytes: usize,
}

impl Subject {
    fn new(transport: &'static str, mode: Mode, place: Placement, message_bytes: usize) -> Subject {
        let (group, waits, placement) = (Group::of(mode), mode.to_string(), place.to_string());
        Subject { group, transport, waits, place, placement, message_bytes }
    }

    pub fn is_ours(&self) -> bool {
        plan::is_ours(self.transport)
    }
}

/// The time of a message or a round trip, by slices. Of too few slices only their number.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub slices: usize,
    pub nanoseconds: Option<f64>,
    pub lower_quartile_nanoseconds: Option<f64>,
    pub upper_quartile_nanoseconds: Option<f64>,
    /// As a multiple of the floor around the same slices.
    pub times_floor: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RoundTrip {
    #[serde(flatten)]
    pub subject: Subject,
    #[serde(flatten)]
    pub cost: Cost,
}

#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    #[serde(flatten)]
    pub subject: Subject,
    #[serde(flatten)]
    pub cost: Cost,
    pub messages_per_second: Option<f64>,
    pub gigabytes_per_second: Option<f64>,
}

/// The distribution of a time. A percentile that fewer than ten samples exceed is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Percentiles {
    #[serde(flatten)]
    pub subject: Subject,
    pub p50_nanoseconds: Option<u64>,
    pub p90_nanoseconds: Option<u64>,
    pub p99_nanoseconds: Option<u64>,
    pub p99_9_nanoseconds: Option<u64>,
    pub p99_99_nanoseconds: Option<u64>,
    pub max_nanoseconds: Option<u64>,
    /// The number of samples; JSON has it under a key of its own.
    #[serde(skip)]
    pub count: u64,
    /// JSON has an object for each point.
    #[serde(skip)]
    pub curve: Vec<Point>,
}

impl Percentiles {
    /// No percentiles unless there were `enough` slices.
    fn new(subject: Subject, histogram: &Histogram<u64>, enough: bool) -> Percentiles {
        let value = |percentile: f64| {
            let beyond = histogram.len() as f64 * (100.0 - percentile) / 100.0;
            (enough && beyond >= latency::BEYOND).then(|| histogram.value_at_quantile(percentile / 100.0))
        };
        let curve = (0..).map_while(|step| {
            let one_in = 10_f64.powf(f64::from(step) / f64::from(POINTS));
            let percentile = 100.0 - 100.0 / one_in;
            Some(Point { one_in, percentile, nanoseconds: value(percentile)? })
        });
        Percentiles {
            subject,
            p50_nanoseconds: value(50.0),
            p90_nanoseconds: value(90.0),
            p99_nanoseconds: value(99.0),
            p99_9_nanoseconds: value(99.9),
            p99_99_nanoseconds: value(99.99),
            max_nanoseconds: (enough && !histogram.is_empty()).then(|| histogram.max()),
            count: histogram.len(),
            curve: curve.collect(),
        }
    }

    /// Whether this is the floor, which belongs to no group.
    pub fn is_floor(&self) -> bool {
        self.subject.transport == latency::FLOOR
    }

    /// The values that tables show, the maximum last.
    pub fn shown(&self) -> [Option<u64>; 6] {
        [
            self.p50_nanoseconds,
            self.p90_nanoseconds,
            self.p99_nanoseconds,
            self.p99_9_nanoseconds,
            self.p99_99_nanoseconds,
            self.max_nanoseconds,
        ]
    }
}

/// Single round trips.
#[derive(Clone, Debug, Serialize)]
pub struct RoundTrips {
    #[serde(flatten)]
    pub percentiles: Percentiles,
    pub round_trips: u64,
    pub slices: usize,
}

/// Delays of scheduled messages.
#[derive(Clone, Debug, Serialize)]
pub struct OneWay {
    #[serde(flatten)]
    pub percentiles: Percentiles,
    pub messages: u64,
    pub messages_per_second: f64,
    pub slices: u64,
    /// Slices whose last message came in time.
    pub kept_up_slices: u64,
    /// Messages that seemed to arrive before their time, since the clocks of the CPUs differ; they count as 0.
    pub early_messages: u64,
}

/// Delays of messages to a sleeping receiver.
#[derive(Clone, Debug, Serialize)]
pub struct WakeUp {
    #[serde(flatten)]
    pub percentiles: Percentiles,
    pub wake_ups: u64,
    /// Messages that found the receiver awake; they do not count.
    pub awake_messages: u64,
}

/// One point of a percentile curve: one round trip in `one_in` takes longer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    pub one_in: f64,
    pub percentile: f64,
    pub nanoseconds: u64,
}

/// A placement of the two processes, by its floor.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    #[serde(skip)]
    pub place: Placement,
    pub placement: String,
    pub slices: usize,
    pub nanoseconds: Option<f64>,
    pub lower_quartile_nanoseconds: Option<f64>,
    pub upper_quartile_nanoseconds: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct IdleCost {
    pub group: Group,
    pub transport: &'static str,
    pub waits: String,
    pub waited_seconds: f64,
    pub cpu_percent: f64,
}

/// The run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub version: &'static str,
    pub command: String,
    pub measured_at: String,
    pub took_seconds: f64,
    pub sessions: u32,
    pub slices: u64,
    pub discarded_slices: u64,
    pub near_below_nanoseconds: f64,
    pub near_and_far_are_the_same: bool,
    pub paced_messages_per_second: f64,
    pub ring_bytes: usize,
    pub message_bytes: Vec<usize>,
}

#[derive(Clone, Debug, Serialize)]
pub struct About {
    pub group: Group,
    pub transport: &'static str,
    pub waits: String,
    pub about: &'static str,
}

/// All results.
#[derive(Clone, Debug)]
pub struct Results {
    pub run: Run,
    pub machine: Vec<(&'static str, String)>,
    pub transports: Vec<About>,
    pub floors: Vec<Floor>,
    /// The floor first, in each placement; so below.
    pub singly: Vec<RoundTrips>,
    pub one_way: Vec<OneWay>,
    pub wake_ups: Vec<WakeUp>,
    /// Transports that cannot carry the rate of scheduled messages.
    pub too_slow: Vec<&'static str>,
    pub round_trips: Vec<RoundTrip>,
    pub throughputs: Vec<Throughput>,
    pub idle: Vec<IdleCost>,
    pub notes: Vec<String>,
}

impl Results {
    pub fn new(plan: &Plan, measured: &Measured, command: String, when: SystemTime) -> Results {
        let Measured { machine, slices, singly, paced, too_slow, woken, waiting, sessions, took } = measured;
        let (discarded_slices, all) = slices.discarded();
        let mut results = Results {
            run: Run {
                version: env!("CARGO_PKG_VERSION"),
                command,
                measured_at: humantime::format_rfc3339_seconds(when).to_string(),
                took_seconds: took.as_secs_f64(),
                sessions: *sessions,
                slices: all,
                discarded_slices,
                near_below_nanoseconds: plan.settings.near_below_ns,
                near_and_far_are_the_same: slices.border_is_misplaced(),
                paced_messages_per_second: RATE,
                ring_bytes: plan.settings.capacity,
                message_bytes: plan.sizes.clone(),
            },
            machine: machine.lines().to_vec(),
            transports: plan.transports.iter().map(|transport| about(*transport)).collect(),
            floors: slices.placements.iter().map(|&place| floor(slices, place)).collect(),
            singly: singly.iter().map(round_trips).collect(),
            one_way: paced.iter().map(one_way).collect(),
            wake_ups: woken.iter().map(wake_up).collect(),
            too_slow: too_slow.clone(),
            round_trips: costs(slices, Experiment::RoundTrip)
                .map(|(subject, cost)| RoundTrip { subject, cost })
                .collect(),
            throughputs: costs(slices, Experiment::Streaming)
                .map(|(subject, cost)| Throughput {
                    messages_per_second: cost.nanoseconds.map(|ns| 1e9 / ns),
                    gigabytes_per_second: cost.nanoseconds.map(|ns| subject.message_bytes as f64 / ns),
                    subject,
                    cost,
                })
                .collect(),
            idle: waiting.iter().map(idle).collect(),
            notes: plan.notes.clone(),
        };
        if results.seen().next().is_none() {
            let why = "too few slices count for tables: the machine is busy, or the time was short; try again, or longer";
            results.notes.push(why.to_owned());
        } else if *took > plan.time.mul_f64(LATE) {
            let (took, time) = (took.as_secs_f64(), plan.time.as_secs_f64());
            results
                .notes
                .push(format!("the run took {took:.0} s instead of {time:.0} s: the machine was busy"));
        }
        if paced::disturbed(paced) {
            let why = "not even one cache line kept up with the schedule: the machine was busy, which affects the delays";
            results.notes.push(why.to_owned());
        }
        results
    }

    /// The placements that occurred often enough for tables: with at least half of their figures.
    pub fn seen(&self) -> impl Iterator<Item = Placement> + '_ {
        let often = |place| {
            let trips = self.round_trips.iter().map(|row| (&row.subject, &row.cost));
            let both = trips.chain(self.throughputs.iter().map(|row| (&row.subject, &row.cost)));
            let here = both.filter(|(subject, _)| subject.place == place).map(|(_, cost)| cost);
            let (all, known) = here
                .fold((0, 0), |(all, known), cost| (all + 1, known + u32::from(cost.nanoseconds.is_some())));
            known > 0 && 2 * known >= all
        };
        self.floors.iter().map(|floor| floor.place).filter(move |&place| often(place))
    }

    /// The groups that were measured.
    pub fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        Group::ALL.into_iter().filter(|group| self.transports.iter().any(|about| about.group == *group))
    }

    /// The sizes of single round trips.
    pub fn singly_timed(&self) -> Vec<usize> {
        let rows = self.singly.iter().map(|row| &row.percentiles).filter(|row| !row.is_floor());
        let mut sizes: Vec<usize> = rows.map(|row| row.subject.message_bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The size of scheduled messages, if there were any.
    pub fn paced_size(&self) -> Option<usize> {
        let rows = self.one_way.iter().map(|row| &row.percentiles);
        rows.filter(|row| !row.is_floor()).map(|row| row.subject.message_bytes).next()
    }

    /// One object per line.
    pub fn json(&self) -> String {
        let mut lines = vec![object(&Kind::Bench(&self.run))];
        let machine = |&(what, ref how): &(&'static str, String)| object(&Kind::Machine { what, how });
        lines.extend(self.machine.iter().map(machine));
        lines.extend(self.notes.iter().map(|note| object(&Kind::Note { note })));
        lines.extend(self.transports.iter().map(|about| object(&Kind::Transport(about))));
        lines.extend(self.floors.iter().map(|floor| object(&Kind::Floor(floor))));
        let curve = |of: &'static str, percentiles: &Percentiles| {
            let Percentiles { subject, curve, .. } = percentiles;
            curve.iter().map(|point| object(&Kind::Percentile { of, subject, point })).collect::<String>()
        };
        for trips in &self.singly {
            lines.push(object(&Kind::RoundTrip(trips)));
            lines.push(curve("round_trip", &trips.percentiles));
        }
        for delays in &self.one_way {
            lines.push(object(&Kind::OneWay(delays)));
            lines.push(curve("one_way", &delays.percentiles));
        }
        for delays in &self.wake_ups {
            lines.push(object(&Kind::WakeUp(delays)));
            lines.push(curve("wake_up", &delays.percentiles));
        }
        lines.extend(self.too_slow.iter().map(|transport| object(&Kind::TooSlow { transport })));
        lines.extend(self.round_trips.iter().map(|trips| object(&Kind::RoundTripBySize(trips))));
        lines.extend(self.throughputs.iter().map(|throughput| object(&Kind::Throughput(throughput))));
        lines.extend(self.idle.iter().map(|idle| object(&Kind::Idle(idle))));
        lines.concat()
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind<'a> {
    Bench(&'a Run),
    Machine {
        what: &'static str,
        how: &'a str,
    },
    Note {
        note: &'a str,
    },
    Transport(&'a About),
    Floor(&'a Floor),
    RoundTrip(&'a RoundTrips),
    OneWay(&'a OneWay),
    WakeUp(&'a WakeUp),
    TooSlow {
        transport: &'static str,
    },
    Percentile {
        of: &'static str,
        #[serde(flatten)]
        subject: &'a Subject,
        #[serde(flatten)]
        point: &'a Point,
    },
    RoundTripBySize(&'a RoundTrip),
    Throughput(&'a Throughput),
    Idle(&'a IdleCost),
}

#[derive(Serialize)]
struct Object<'a> {
    schema: u32,
    #[serde(flatten)]
    kind: &'a Kind<'a>,
}

fn object(kind: &Kind<'_>) -> String {
    report::json(&Object { schema: SCHEMA, kind }) + "\n"
}

fn about(transport: &dyn Transport) -> About {
    let mode = transport.mode();
    About {
        group: Group::of(mode),
        transport: transport.name(),
        waits: mode.to_string(),
        about: transport.about(),
    }
}

fn floor(slices: &Collected, place: Placement) -> Floor {
    let floors = slices.floors(place);
    let count = floors.len();
    let spread = Spread::of(floors).filter(|_| count >= FEWEST);
    Floor {
        place,
        placement: place.to_string(),
        slices: count,
        nanoseconds: spread.map(|spread| spread.median),
        lower_quartile_nanoseconds: spread.map(|spread| spread.lower),
        upper_quartile_nanoseconds: spread.map(|spread| spread.upper),
    }
}

/// The costs of one experiment, in each possible placement.
fn costs(slices: &Collected, experiment: Experiment) -> impl Iterator<Item = (Subject, Cost)> + '_ {
    let series = slices.series.iter().filter(move |series| series.config.experiment == experiment);
    series.flat_map(|series| slices.placements.iter().map(move |&place| cost(series, place)))
}

fn cost(series: &Series, place: Placement) -> (Subject, Cost) {
    let cell = series.cell(place);
    let spread = cell.cost_ns.filter(|_| cell.n >= FEWEST);
    let cost = Cost {
        slices: cell.n,
        nanoseconds: spread.map(|spread| spread.median),
        lower_quartile_nanoseconds: spread.map(|spread| spread.lower),
        upper_quartile_nanoseconds: spread.map(|spread| spread.upper),
        times_floor: cell.to_floor.filter(|_| spread.is_some()),
    };
    (Subject::new(series.transport, series.mode, place, series.config.size), cost)
}

pub fn round_trips(latency: &Latency) -> RoundTrips {
    let Latency { transport, mode, size, placement, histogram, slices } = latency;
    let subject = Subject::new(transport, *mode, *placement, *size);
    let percentiles = Percentiles::new(subject, histogram, *slices >= FEWEST);
    RoundTrips { round_trips: percentiles.count, percentiles, slices: *slices }
}

pub fn one_way(paced: &Paced) -> OneWay {
    let Paced { transport, mode, size, placement, histogram, slices, kept_up, early, .. } = paced;
    let subject = Subject::new(transport, *mode, *placement, *size);
    let percentiles = Percentiles::new(subject, histogram, *slices >= FEWEST as u64);
    OneWay {
        messages: percentiles.count,
        percentiles,
        messages_per_second: paced.rate(),
        slices: *slices,
        kept_up_slices: *kept_up,
        early_messages: *early,
    }
}

pub fn wake_up(wake_ups: &WakeUps) -> WakeUp {
    let WakeUps { transport, mode, size, placement, histogram, awake } = wake_ups;
    let subject = Subject::new(transport, *mode, *placement, *size);
    let percentiles = Percentiles::new(subject, histogram, true);
    WakeUp { wake_ups: percentiles.count, percentiles, awake_messages: *awake }
}

fn idle(waiting: &Waiting) -> IdleCost {
    let Waiting { transport, mode, idle } = *waiting;
    IdleCost {
        group: Group::of(mode),
        transport,
        waits: mode.to_string(),
        waited_seconds: idle.waited.as_secs_f64(),
        cpu_percent: 100.0 * idle.share(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles(times: u64, enough: bool) -> Percentiles {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        for time in 1..=times {
            histogram.record(time).unwrap();
        }
        let subject = Subject::new("pipe", Mode::Sleeps, Placement::Far, 8);
        Percentiles::new(subject, &histogram, enough)
    }

    #[test]
    fn percentiles_without_samples_beyond_are_left_out() {
        let percentiles = percentiles(1000, true);
        assert_eq!(percentiles.shown(), [Some(500), Some(900), Some(990), None, None, Some(1000)]);
        assert_eq!(percentiles.curve.last().unwrap().one_in, 100.0);
    }

    #[test]
    fn a_curve_goes_through_the_percentiles() {
        let percentiles = percentiles(1000, true);
        assert!(percentiles.curve.is_sorted_by_key(|point| point.nanoseconds));
        let height = |percentile| percentiles.curve.iter().find(|point| point.percentile == percentile);
        assert_eq!(height(0.0).unwrap().nanoseconds, 1);
        assert_eq!(height(90.0).map(|point| point.nanoseconds), percentiles.p90_nanoseconds);
        assert_eq!(height(99.0).map(|point| point.nanoseconds), percentiles.p99_nanoseconds);
    }

    #[test]
    fn too_few_slices_give_no_percentiles() {
        let percentiles = percentiles(1000, false);
        assert_eq!((percentiles.shown(), percentiles.curve.len(), percentiles.count), ([None; 6], 0, 1000));
    }

    #[test]
    fn a_placement_with_few_figures_has_no_tables() {
        let mut results = super::super::sample::results(&Placement::OF_TWO_CPUS);
        assert_eq!(results.seen().collect::<Vec<_>>(), Placement::OF_TWO_CPUS);
        let near = |subject: &Subject| subject.place == Placement::Near;
        for trip in results.round_trips.iter_mut().filter(|row| near(&row.subject)) {
            trip.cost.nanoseconds = None;
        }
        assert_eq!(results.seen().collect::<Vec<_>>(), Placement::OF_TWO_CPUS);
        results.throughputs.iter_mut().find(|row| near(&row.subject)).unwrap().cost.nanoseconds = None;
        assert_eq!(results.seen().collect::<Vec<_>>(), [Placement::Far]);
    }
}
