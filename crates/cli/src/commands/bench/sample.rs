//! Results of a made-up machine, for the tests of the reports.

use hdrhistogram::Histogram;
use shmpipe_measure::latency::{FLOOR, Latency};
use shmpipe_measure::paced::Paced;
use shmpipe_measure::sleeping::WakeUps;
use shmpipe_measure::{Mode, Placement};

use super::results::{
    self, About, Cost, Floor, Group, IdleCost, OneWay, Results, RoundTrip, Run, Subject, Throughput, WakeUp,
};

const SIZES: [usize; 4] = [8, 64, 1024, 65536];

/// Each with the nanoseconds of a round trip and of a back-to-back message of 64 bytes, far apart.
const TRANSPORTS: [(&str, Mode, f64, f64); 11] = [
    ("classic", Mode::Polls, 570.0, 9.0),
    ("shmpipe", Mode::PollsThenSleeps, 441.0, 6.2),
    ("shmpipe-spin", Mode::Polls, 440.0, 6.0),
    ("flag", Mode::Polls, 700.0, 350.0),
    ("pipe", Mode::Sleeps, 11_000.0, 800.0),
    ("fifo", Mode::Sleeps, 11_500.0, 810.0),
    ("unix", Mode::Sleeps, 12_000.0, 1200.0),
    ("unix-seqpacket", Mode::Sleeps, 12_500.0, 1300.0),
    ("tcp", Mode::Sleeps, 21_000.0, 1500.0),
    ("sysv-queue", Mode::Sleeps, 10_500.0, 700.0),
    ("posix-queue", Mode::Sleeps, 10_800.0, 750.0),
];

/// Machine data that must be escaped.
pub const HOSTILE: &str = "</style><script>alert('1')</script> & \"CPU\" <b>";

/// Results with slices in these placements only.
pub fn results(placements: &[Placement]) -> Results {
    let slices = |place: Placement| if placements.contains(&place) { 50 } else { 0 };
    let factor = |place| if place == Placement::Near { 0.2 } else { 1.0 };
    let cost = |place, ns: f64| {
        let slices = slices(place);
        let figure = |ns: f64| (slices > 0).then_some(ns * factor(place));
        Cost {
            slices,
            nanoseconds: figure(ns),
            lower_quartile_nanoseconds: figure(ns * 0.95),
            upper_quartile_nanoseconds: figure(ns * 1.08),
            times_floor: (slices > 0).then_some(ns / 333.0),
        }
    };
    let subject = |transport: &'static str, mode: Mode, place: Placement, message_bytes: usize| Subject {
        group: Group::of(mode),
        transport,
        waits: mode.to_string(),
        place,
        placement: place.to_string(),
        message_bytes,
    };
    let mut results = Results {
        run: Run {
            version: "0.1.0",
            command: format!("shmpipe bench --html '{HOSTILE}'"),
            measured_at: "2026-11-21T09:14:06Z".to_owned(),
            took_seconds: 55.0,
            sessions: 15,
            slices: 12_345,
            discarded_slices: 678,
            near_below_nanoseconds: 80.0,
            near_and_far_are_the_same: false,
            paced_messages_per_second: 1e5,
            ring_bytes: 1 << 20,
            message_bytes: SIZES.to_vec(),
        },
        machine: vec![("cpu", HOSTILE.to_owned()), ("kernel", "Linux 6.18".to_owned())],
        transports: Vec::new(),
        floors: Vec::new(),
        singly: Vec::new(),
        one_way: Vec::new(),
        wake_ups: Vec::new(),
        too_slow: vec!["flag-sleep"],
        round_trips: Vec::new(),
        throughputs: Vec::new(),
        idle: Vec::new(),
        notes: vec!["a note with <angles>".to_owned()],
    };
    for place in Placement::OF_TWO_CPUS {
        let Cost { slices, nanoseconds, lower_quartile_nanoseconds, upper_quartile_nanoseconds, .. } =
            cost(place, 333.0);
        results.floors.push(Floor {
            place,
            placement: place.to_string(),
            slices,
            nanoseconds,
            lower_quartile_nanoseconds,
            upper_quartile_nanoseconds,
        });
        let trips = if slices > 0 { 20_000 } else { 0 };
        let timed = |ns: f64| timed(FLOOR, Mode::Polls, place, 0, ns * factor(place), trips);
        results.singly.push(results::round_trips(&timed(333.0)));
        results.one_way.push(one_way(timed(190.0)));
    }
    for (transport, mode, trip, message) in TRANSPORTS {
        let group = Group::of(mode);
        results.transports.push(About { group, transport, waits: mode.to_string(), about: "a <way>" });
        results.idle.push(IdleCost {
            group,
            transport,
            waits: mode.to_string(),
            waited_seconds: 0.7,
            cpu_percent: if mode == Mode::Polls { 99.9 } else { 0.01 },
        });
        for place in Placement::OF_TWO_CPUS {
            let trips = if slices(place) > 0 { (3e7 / trip) as u64 } else { 0 };
            let timed = |ns: f64| timed(transport, mode, place, 64, ns * factor(place), trips);
            results.singly.push(results::round_trips(&timed(trip)));
            results.one_way.push(one_way(timed(0.6 * trip)));
            if group == Group::Sleeping {
                results.wake_ups.push(woken(timed(5000.0)));
            }
            for size in SIZES.into_iter().filter(|&size| !transport.contains("queue") || size <= 8192) {
                let ns = |base: f64| base + 0.1 * size as f64;
                let subject = subject(transport, mode, place, size);
                results.round_trips.push(RoundTrip { subject: subject.clone(), cost: cost(place, ns(trip)) });
                let cost = cost(place, ns(message));
                results.throughputs.push(Throughput {
                    subject,
                    messages_per_second: cost.nanoseconds.map(|ns| 1e9 / ns),
                    gigabytes_per_second: cost.nanoseconds.map(|ns| size as f64 / ns),
                    cost,
                });
            }
        }
    }
    results
}

/// Round trips, or delays, with a realistic tail.
fn timed(
    transport: &'static str,
    mode: Mode,
    placement: Placement,
    size: usize,
    ns: f64,
    times: u64,
) -> Latency {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    for time in 0..times {
        let rare = times as f64 / (time + 1) as f64;
        histogram.saturating_record((ns * (0.9 + 0.1 * rare.powf(0.4))) as u64);
    }
    Latency { transport, mode, size, placement, histogram, slices: times as usize / 100 }
}

fn one_way(Latency { transport, mode, size, placement, histogram, slices }: Latency) -> OneWay {
    results::one_way(&Paced {
        transport,
        mode,
        size,
        interval: 10_000,
        placement,
        histogram,
        early: 0,
        slices: slices as u64,
        kept_up: slices as u64,
    })
}

fn woken(Latency { transport, mode, size, placement, histogram, .. }: Latency) -> WakeUp {
    results::wake_up(&WakeUps { transport, mode, size, placement, histogram, awake: 3 })
}
