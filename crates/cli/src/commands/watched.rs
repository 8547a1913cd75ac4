//! A pipe that is looked at again and again: its rates, its highest fill, and the deaths and takeovers of its sides since the first look.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use shmpipe::{Address, Latency, Location, Peer, SegmentId, SetupError, Side, Snapshot};

use crate::exit;
use crate::output::description::{self, LatencyObject, Way};
use crate::output::units;
use crate::system::processes::{self, ProcessInfo};
use crate::system::{signals, stdio};

/// How often to look at least: between two looks the fill may have been higher.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Intervals of which the rate is kept.
const HISTORY: usize = 240;

/// A pipe under watch.
pub struct Watched {
    pub location: Location,
    /// The latest look.
    pub latest: Result<Box<Snapshot>, SetupError>,
    /// One for each direction.
    pub flows: Vec<Flow>,
    /// Its segment, once it was seen.
    id: Option<SegmentId>,
    /// The look at the last tick, and when it was.
    before: Option<(Box<Snapshot>, Instant)>,
}

/// A direction under watch: what happened between the last two ticks, and since the first look.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    pub sent_per_second: f64,
    pub bytes_per_second: f64,
    pub released_per_second: f64,
    /// The most bytes used in any look.
    pub highest: u64,
    /// What its producer and its consumer do.
    pub doing: [Doing; 2],
    /// Holders of a role that were seen dead.
    pub deaths: u64,
    /// Claims of a role.
    pub takeovers: u64,
    /// Messages counted as dropped.
    pub dropped: u64,
    /// The latency of the messages sampled in the interval, if the pipe measures it.
    pub latency: Option<Latency>,
    /// Messages sent per second in the latest intervals, the newest last.
    pub history: VecDeque<f64>,
    /// The epochs and the count of drops at the first look.
    start: Option<([u64; 2], u64)>,
    /// The epochs of the latest deaths seen.
    dead: [Option<u64>; 2],
}

/// What a side does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doing {
    /// It is not attached, for the reason that the state gives.
    #[default]
    Away,
    /// A signal or a debugger stopped it.
    Stopped,
    /// It sleeps until the other side moves.
    Sleeping,
    /// It cannot go on, and its process runs: it polls.
    Polling,
    /// It has moved messages since the last tick.
    Working,
    /// None of these: it is attached and does something else.
    Idle,
}

impl Doing {
    pub fn name(self) -> &'static str {
        match self {
            Doing::Away => "away",
            Doing::Stopped => "stopped",
            Doing::Sleeping => "sleeping",
            Doing::Polling => "polling",
            Doing::Working => "working",
            Doing::Idle => "idle",
        }
    }

    fn of(side: &Side, before: Option<&Side>, is_blocked: bool) -> Self {
        if side.peer != Peer::Open {
            return Doing::Away;
        }
        let process = side.pid.and_then(ProcessInfo::of);
        if process.as_ref().is_some_and(|process| process.stopped) {
            return Doing::Stopped;
        }
        // A side that came back from its sleep is in no futex.
        if side.may_be_asleep && side.pid.and_then(processes::sleeps_on_futex).unwrap_or(true) {
            return Doing::Sleeping;
        }
        match before {
            Some(before) if before.messages != side.messages => Doing::Working,
            _ if is_blocked && process.is_some_and(|process| process.running) => Doing::Polling,
            _ => Doing::Idle,
        }
    }
}

impl Watched {
    /// Begins to watch a pipe.
    pub fn new(location: Location, latest: Result<Snapshot, SetupError>) -> Self {
        let latest = latest.map(Box::new);
        let mut watched = Watched { location, latest, flows: Vec::new(), id: None, before: None };
        watched.take_in();
        watched
    }

    /// Whether this is the pipe that is watched, or was before it could no longer be read.
    pub fn is(&self, id: SegmentId) -> bool {
        self.id == Some(id)
    }

    /// Looks at the pipe. Returns whether another one is in its place, which is watched from now on.
    pub fn look(&mut self) -> bool {
        self.latest = shmpipe::inspect_at(&self.location).map(Box::new);
        self.take_in()
    }

    /// Goes on with a look at another location of the pipe.
    pub fn move_to(&mut self, location: Location, latest: Snapshot) {
        (self.location, self.latest) = (location, Ok(Box::new(latest)));
        self.take_in();
    }

    /// Takes in the latest look. Returns whether it is of another pipe than those before.
    fn take_in(&mut self) -> bool {
        let Ok(latest) = &self.latest else { return false };
        let is_new = self.id.replace(latest.segment_id).is_some_and(|known| known != latest.segment_id);
        if is_new {
            self.flows.clear();
            self.before = None;
        }
        let ways = description::ways(latest);
        self.flows.resize_with(ways.len(), Flow::default);
        for (flow, Way { used, dropped, producer, consumer, .. }) in self.flows.iter_mut().zip(ways) {
            let sides = [producer, consumer];
            flow.highest = flow.highest.max(used);
            let epochs = sides.map(|side| side.epoch);
            let (first, first_dropped) = *flow.start.get_or_insert((epochs, dropped));
            flow.takeovers = epochs.iter().zip(first).map(|(now, then)| now.saturating_sub(then)).sum();
            flow.dropped = dropped.saturating_sub(first_dropped);
            for (side, dead) in sides.iter().zip(&mut flow.dead) {
                if side.peer == Peer::Died && *dead != Some(side.epoch) {
                    *dead = Some(side.epoch);
                    flow.deaths += 1;
                }
            }
        }
        is_new
    }

    /// Ends an interval: computes the rates since the last tick.
    pub fn tick(&mut self, now: Instant) {
        let Ok(latest) = &self.latest else {
            self.before = None;
            self.flows.iter_mut().for_each(|flow| flow.rates([0.0; 3]));
            return;
        };
        let before = self.before.as_ref().map(|(before, moment)| (description::ways(before), now - *moment));
        for (index, (flow, way)) in self.flows.iter_mut().zip(description::ways(latest)).enumerate() {
            let earlier = before.as_ref().map(|(ways, elapsed)| (&ways[index], elapsed.as_secs_f64()));
            let rates = earlier.map_or([0.0; 3], |(earlier, seconds)| {
                let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds.max(1e-9);
                [
                    per_second(way.producer.messages, earlier.producer.messages),
                    per_second(way.producer.bytes, earlier.producer.bytes),
                    per_second(way.consumer.messages, earlier.consumer.messages),
                ]
            });
            flow.rates(rates);
            let earlier = earlier.map(|(earlier, _)| earlier);
            flow.latency = earlier.and_then(|earlier| Some(way.latency?.since(earlier.latency?)));
            flow.doing = [
                Doing::of(way.producer, earlier.map(|it| it.producer), way.used >= latest.capacity / 2),
                Doing::of(way.consumer, earlier.map(|it| it.consumer), way.used == 0),
            ];
        }
        self.before = Some((latest.clone(), now));
    }
}

impl Flow {
    fn rates(&mut self, [sent, bytes, released]: [f64; 3]) {
        (self.sent_per_second, self.bytes_per_second, self.released_per_second) = (sent, bytes, released);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(sent);
    }
}

/// Looks ten times a second until a moment. Returns the signal that ended it.
pub fn look_until(moment: Instant, mut look: impl FnMut()) -> Option<i32> {
    loop {
        if let Some(signal) = signals::received() {
            return Some(signal);
        }
        stdio::pause(moment.min(Instant::now() + LOOK_INTERVAL));
        look();
        if Instant::now() >= moment {
            return signals::received();
        }
    }
}

/// Who keeps whom waiting, in a few words: what is most wrong first.
pub fn who_waits(flow: &Flow, way: &Way<'_>) -> String {
    let roles = ["producer", "consumer"];
    let sides = [way.producer, way.consumer];
    let first = |is: &dyn Fn(usize) -> bool| [0, 1].into_iter().find(|&side| is(side));
    let is = |wanted: Doing| move |side: usize| flow.doing[side] == wanted;
    if let Some(side) = first(&is(Doing::Stopped)) {
        return format!("{} stopped", roles[side]);
    }
    if let Some(side) = first(&|side| matches!(sides[side].peer, Peer::Died | Peer::Aborted { .. })) {
        return format!("{} {}", roles[side], description::state(sides[side]));
    }
    if let Some(side) = first(&|side| sides[side].peer != Peer::Open) {
        return format!("no {}", roles[side]);
    }
    if let Some(side) = first(&is(Doing::Sleeping)) {
        return format!("{} sleeps", roles[side]);
    }
    if let Some(side) = first(&is(Doing::Polling)) {
        return format!("{} polls", roles[side]);
    }
    "-".to_owned()
}

/// The 99th percentile of the latency in the interval; `-` without samples.
pub fn p99(flow: &Flow) -> String {
    description::show_latency(flow.latency.as_ref().and_then(|latency| latency.quantile(0.99)))
}

/// Deaths, takeovers and drops since the first look: `2d 1t 17x`; nothing where there were none.
pub fn events(flow: &Flow) -> String {
    let counts = [(flow.deaths, "d"), (flow.takeovers, "t"), (flow.dropped, "x")];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    counts.map(|(count, what)| units::show_count(count as f64) + what).collect::<Vec<_>>().join(" ")
}

/// A direction of a pipe at a tick, as a JSON object.
#[derive(Debug, Serialize)]
pub struct FlowObject {
    pub name: Option<String>,
    /// As in the other descriptions of a pipe: where one without an address was found.
    pub address: Option<String>,
    pub address_base64: Option<String>,
    pub found_at: Option<String>,
    pub direction: Option<&'static str>,
    pub segment_id: String,
    pub sent_messages_per_second: f64,
    pub sent_bytes_per_second: f64,
    pub released_messages_per_second: f64,
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub highest_used_bytes: u64,
    pub unread_messages: u64,
    pub producer: &'static str,
    pub producer_doing: &'static str,
    pub producer_pid: Option<u32>,
    pub producer_messages: u64,
    pub consumer: &'static str,
    pub consumer_doing: &'static str,
    pub consumer_pid: Option<u32>,
    pub consumer_messages: u64,
    pub deaths: u64,
    pub takeovers: u64,
    pub dropped_messages: u64,
    /// Of the interval.
    #[serde(flatten)]
    pub latency: LatencyObject,
}

/// A pipe that cannot be read, as a JSON object.
#[derive(Debug, Serialize)]
pub struct UnreadableObject {
    pub address: Option<String>,
    pub address_base64: Option<String>,
    pub found_at: Option<String>,
    pub error: &'static str,
    pub message: String,
}

impl UnreadableObject {
    pub fn of(watched: &Watched) -> Option<Self> {
        let error = watched.latest.as_ref().err()?;
        Some(UnreadableObject {
            address: watched.location.address().map(Address::to_string),
            address_base64: watched.location.address().and_then(description::base64),
            found_at: description::found_at(&watched.location),
            error: exit::code_of(error).name(),
            message: error.to_string(),
        })
    }
}

/// The directions of a pipe as JSON objects; none if it cannot be read.
pub fn objects(watched: &Watched) -> Vec<FlowObject> {
    let Ok(latest) = &watched.latest else { return Vec::new() };
    let ways = description::ways(latest);
    let object = |(flow, way): (&Flow, &Way<'_>)| FlowObject {
        name: latest.name.clone(),
        address: watched.location.address().map(Address::to_string),
        address_base64: watched.location.address().and_then(description::base64),
        found_at: description::found_at(&watched.location),
        direction: way.name,
        segment_id: latest.segment_id.to_string(),
        sent_messages_per_second: flow.sent_per_second,
        sent_bytes_per_second: flow.bytes_per_second,
        released_messages_per_second: flow.released_per_second,
        capacity_bytes: latest.capacity,
        used_bytes: way.used,
        highest_used_bytes: flow.highest,
        unread_messages: way.unread,
        producer: description::state(way.producer),
        producer_doing: flow.doing[0].name(),
        producer_pid: way.producer.pid,
        producer_messages: way.producer.messages,
        consumer: description::state(way.consumer),
        consumer_doing: flow.doing[1].name(),
        consumer_pid: way.consumer.pid,
        consumer_messages: way.consumer.messages,
        deaths: flow.deaths,
        takeovers: flow.takeovers,
        dropped_messages: flow.dropped,
        latency: LatencyObject::of(flow.latency.as_ref()),
    };
    watched.flows.iter().zip(&ways).map(object).collect()
}
