//! A model: `Distance` learns from the readings of simulated machines. Compares the cost of its choices with that of the best
//! ones. `cargo test --lib distance -- --nocapture` prints the table.

use super::*;
use shmpipe_testing::rng::Rng;

const MESSAGES: u32 = 200_000;

/// The cost of an operation near and far, in nanoseconds.
#[derive(Clone, Copy)]
struct Cost {
    near: u64,
    far: u64,
}

impl Cost {
    fn at(self, is_far: bool) -> u64 {
        if is_far { self.far } else { self.near }
    }
}

#[derive(Clone, Copy)]
struct Machine {
    name: &'static str,
    matters: bool,
    /// A line that the other side has just written.
    line: Cost,
    /// Writing and reading a message of 8 KiB with plain stores.
    plain: Cost,
    /// The same with non-temporal stores.
    streaming: Cost,
    /// Reading the clock, give or take `noise`.
    clock: u64,
    noise: u64,
    /// Bytes of a message.
    length: u64,
    /// Of 1000 far readings, those that find the new line in our own cache.
    own_cache: u64,
    /// Of 1000 readings, those that an interrupt prolongs.
    interrupted: u64,
    /// Of 1000 readings, those before which the other side has not changed the word.
    stale: u64,
}

const ZEN_4: Machine = Machine {
    name: "Zen 4",
    matters: true,
    line: Cost { near: 32, far: 165 },
    plain: Cost { near: 560, far: 2900 },
    streaming: Cost { near: 640, far: 800 },
    clock: 20,
    noise: 5,
    length: 8192,
    own_cache: 0,
    interrupted: 0,
    stale: 0,
};

const ZEN_3: Machine = Machine {
    name: "Zen 3",
    line: Cost { near: 36, far: 208 },
    plain: Cost { near: 520, far: 1770 },
    streaming: Cost { near: 1150, far: 1150 },
    ..ZEN_4
};

const ZEN_5: Machine = Machine {
    name: "Zen 5",
    line: Cost { near: 26, far: 185 },
    plain: Cost { near: 284, far: 1262 },
    streaming: Cost { near: 374, far: 390 },
    ..ZEN_4
};

const SIBLINGS: Machine = Machine {
    name: "one core's threads",
    line: Cost { near: 8, far: 8 },
    plain: Cost { near: 300, far: 300 },
    streaming: Cost { near: 900, far: 900 },
    ..ZEN_4
};

const INTEL: Machine = Machine { name: "Intel", matters: false, ..ZEN_3 };

const SLOW: Machine = Machine { name: "Zen 3, slow clock", clock: 1000, noise: 300, ..ZEN_3 };

/// The same machine with every disturbance of readings.
fn disturbed(machine: Machine) -> Machine {
    Machine { own_cache: 20, interrupted: 10, stale: 100, ..machine }
}

/// The distance of the other side.
#[derive(Clone, Copy)]
enum Placement {
    Near,
    Far,
    /// Changes each time after this many messages.
    Flips(u32),
}

impl Placement {
    fn is_far(self, message: u32) -> bool {
        match self {
            Placement::Near => false,
            Placement::Far => true,
            Placement::Flips(every) => message / every % 2 == 1,
        }
    }

    fn name(self) -> String {
        match self {
            Placement::Near => "near".into(),
            Placement::Far => "far".into(),
            Placement::Flips(every) => format!("flips every {every}"),
        }
    }
}

/// The result of sending all messages. Costs are in percent above those of the best choices.
struct Outcome {
    /// With the choices of `Distance`.
    regret: f64,
    /// With plain stores only.
    plain: f64,
    /// With non-temporal stores only.
    streaming: f64,
    /// Percent of the messages that were written in the more expensive way.
    wrong: f64,
    readings: u32,
    /// Messages written with non-temporal stores.
    streamed: u32,
}

fn run(machine: Machine, placement: Placement) -> Outcome {
    let mut rng = Rng(3);
    let mut distance = Distance::new(machine.matters);
    let (mut cost, mut best, mut plain, mut streaming) = (0, 0, 0, 0);
    let (mut wrong, mut readings, mut streamed) = (0, 0, 0);
    for message in 0..MESSAGES {
        let is_far = placement.is_far(message);
        if distance.is_due(machine.length as usize) {
            readings += 1;
            cost += reading(&machine, is_far, &mut rng, &mut distance);
        }
        let costs = [machine.plain, machine.streaming];
        let [by_plain, by_streaming] = costs.map(|cost| cost.at(is_far) * machine.length / 8192);
        let chosen = if distance.is_far() { by_streaming } else { by_plain };
        streamed += u32::from(distance.is_far());
        wrong += u32::from(chosen > by_plain.min(by_streaming));
        cost += chosen;
        best += by_plain.min(by_streaming);
        plain += by_plain;
        streaming += by_streaming;
    }
    let more = |cost: u64| 100.0 * (cost as f64 / best as f64 - 1.0);
    let wrong = 100.0 * f64::from(wrong) / f64::from(MESSAGES);
    let outcome = Outcome {
        regret: more(cost),
        plain: more(plain),
        streaming: more(streaming),
        wrong,
        readings,
        streamed,
    };
    println!(
        "{:20} {:6} {:17} {:7.2} {:7.2} {:9} {:7.1} {:9.1}",
        machine.name,
        machine.length,
        placement.name(),
        outcome.regret,
        outcome.wrong,
        outcome.readings,
        outcome.plain,
        outcome.streaming
    );
    outcome
}

fn headings(what: &str) {
    println!("\n{what}: percent more than the best choices, by");
    println!("                      bytes                    learning   wrong  readings   plain streaming");
}

/// Makes `distance` learn from one reading. Returns what the reading costs.
fn reading(machine: &Machine, is_far: bool, rng: &mut Rng, distance: &mut Distance) -> u64 {
    let mut clock = || machine.clock - machine.noise + rng.below(2 * machine.noise + 1);
    let (first, second, third) = (clock(), clock(), clock());
    let line = machine.line.at(is_far);
    let is_stale = rng.below(1000) < machine.stale;
    let is_in_cache = is_stale || is_far && rng.below(1000) < machine.own_cache;
    let mut load = if is_in_cache { rng.below(21) } else { line * 4 / 5 + rng.below(line * 2 / 5 + 1) };
    let takes = first + second + load + third;
    let mut between = first;
    if rng.below(1000) < machine.interrupted {
        // The interrupt would have happened anyway and is not a cost of the reading.
        let prolonged = if rng.below(2) == 0 { &mut between } else { &mut load };
        *prolonged += 10_000;
    }
    distance.learn(Duration::from_nanos(between), Duration::from_nanos(second + load), !is_stale);
    takes
}

/// Every machine with every message length.
fn each(machines: &[Machine]) -> impl Iterator<Item = (Machine, u64)> {
    machines.iter().flat_map(|machine| [4096, 8192, 65536].map(|length| (*machine, length)))
}

#[test]
fn a_steady_distance_is_recognised() {
    for (what, is_disturbed) in [("quiet", false), ("disturbed", true)] {
        headings(what);
        for (machine, length) in each(&[ZEN_4, ZEN_3, ZEN_5, SIBLINGS]) {
            let machine = Machine { length, ..if is_disturbed { disturbed(machine) } else { machine } };
            for placement in [Placement::Near, Placement::Far] {
                let outcome = run(machine, placement);
                let which = (machine.name, length, placement.name());
                assert!(outcome.regret <= 2.5, "{which:?}: {:.2} % more than the best", outcome.regret);
                assert!(outcome.wrong <= 0.1, "{which:?}: {:.3} % of the choices", outcome.wrong);
            }
        }
    }
}

/// A flip every 50 messages of 4 KiB is one every 10 us. There learning costs more than non-temporal stores alone, and on a Zen 3
/// more than plain ones.
#[test]
fn infrequent_flips_are_followed() {
    headings("disturbed");
    for (machine, length) in each(&[ZEN_4, ZEN_3, ZEN_5]) {
        let machine = Machine { length, ..disturbed(machine) };
        for (every, most) in [(50, 90.0), (500, 17.0), (5000, 3.5)] {
            let Outcome { regret, .. } = run(machine, Placement::Flips(every));
            let which = (machine.name, length, every);
            assert!(regret <= most, "{which:?}: {regret:.2} % more than the best");
        }
    }
}

#[test]
fn a_machine_where_distance_does_not_matter_takes_no_readings() {
    headings("disturbed");
    for placement in [Placement::Near, Placement::Far, Placement::Flips(50)] {
        let Outcome { readings, streamed, .. } = run(disturbed(INTEL), placement);
        assert_eq!((readings, streamed), (0, 0));
    }
}

#[test]
fn a_slow_clock_ends_the_measurement() {
    headings("disturbed");
    for placement in [Placement::Near, Placement::Far, Placement::Flips(50)] {
        let Outcome { readings, streamed, .. } = run(disturbed(SLOW), placement);
        assert_eq!((readings, streamed), (MAX_SLOW_READINGS, 0));
    }
}

#[test]
fn a_clock_that_becomes_slow_resets_the_distance_to_near() {
    let mut distance = Distance::new(true);
    let mut rng = Rng(4);
    (0..100).for_each(|_| _ = reading(&ZEN_3, true, &mut rng, &mut distance));
    assert!(distance.is_far());
    (0..100).for_each(|_| _ = reading(&SLOW, true, &mut rng, &mut distance));
    assert!(!distance.is_far() && !distance.is_due(1 << 30));
}

/// Even if the load took so long that it counts as far with any clock.
#[test]
fn an_unchanged_word_is_ignored() {
    let mut distance = Distance::new(true);
    let load = |word| {
        std::thread::sleep(Duration::from_micros(50));
        word
    };
    for word in [7, 8] {
        for _ in 0..10 {
            distance.read(word, || load(word));
        }
    }
    assert!(!distance.is_far());
    // Only the first of these loads a changed word.
    for _ in 0..10 {
        distance.read(8, || load(9));
    }
    assert!(!distance.is_far());
}
