//! A model: made-up machines, whose readings are learnt from, and what the choices cost, beside those of one who always knows.
//! `cargo test --lib distance -- --nocapture` shows the table.

use super::*;
use shmpipe_testing::rng::Rng;

const MESSAGES: u32 = 200_000;

/// What something takes near and far, in nanoseconds.
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
    /// A message of 8 KiB by plain stores, written and read.
    plain: Cost,
    /// The same by non-temporal stores.
    streaming: Cost,
    /// To read the clock, more or less.
    clock: u64,
    noise: u64,
    /// Bytes of a message.
    length: u64,
    /// Of 1000 readings: far ones that find the new line in our own cache, those that an interrupt prolongs, and those before
    /// which the other side has not moved on.
    own_cache: u64,
    interrupted: u64,
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

/// With all that disturbs readings.
fn disturbed(machine: Machine) -> Machine {
    Machine { own_cache: 20, interrupted: 10, stale: 100, ..machine }
}

/// Where the other side is.
#[derive(Clone, Copy)]
enum Placement {
    Near,
    Far,
    /// Somewhere else after so many messages.
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

/// What came of many messages.
struct Outcome {
    /// Percent more than the best choices would have cost; and so for plain stores alone, and non-temporal ones alone.
    regret: f64,
    plain: f64,
    streaming: f64,
    /// Percent of the messages that were written the dearer way.
    wrong: f64,
    readings: u32,
    /// Messages by non-temporal stores.
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

/// Has `distance` learn from one reading. What that takes.
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
        // It would have come anyway, and is not a cost of the reading.
        let prolonged = if rng.below(2) == 0 { &mut between } else { &mut load };
        *prolonged += 10_000;
    }
    distance.learn(Duration::from_nanos(between), Duration::from_nanos(second + load), !is_stale);
    takes
}

/// Each of the machines with messages of each length.
fn each(machines: &[Machine]) -> impl Iterator<Item = (Machine, u64)> {
    machines.iter().flat_map(|machine| [4096, 8192, 65536].map(|length| (*machine, length)))
}

#[test]
fn steady_machines_are_found_out() {
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

/// Who flips every 50 messages of 4 KiB flips every 10 us: there learning is worse than non-temporal stores alone, and on a Zen 3 worse than
/// plain ones.
#[test]
fn flips_are_followed_if_they_are_not_too_many() {
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
fn where_it_does_not_matter_nothing_is_read() {
    headings("disturbed");
    for placement in [Placement::Near, Placement::Far, Placement::Flips(50)] {
        let Outcome { readings, streamed, .. } = run(disturbed(INTEL), placement);
        assert_eq!((readings, streamed), (0, 0));
    }
}

#[test]
fn a_slow_clock_is_given_up() {
    headings("disturbed");
    for placement in [Placement::Near, Placement::Far, Placement::Flips(50)] {
        let Outcome { readings, streamed, .. } = run(disturbed(SLOW), placement);
        assert_eq!((readings, streamed), (GIVEN_UP, 0));
    }
}

/// A clock that becomes slow when all was known.
#[test]
fn a_clock_that_becomes_slow_makes_all_near_again() {
    let mut distance = Distance::new(true);
    let mut rng = Rng(4);
    (0..100).for_each(|_| _ = reading(&ZEN_3, true, &mut rng, &mut distance));
    assert!(distance.is_far());
    (0..100).for_each(|_| _ = reading(&SLOW, true, &mut rng, &mut distance));
    assert!(!distance.is_far() && !distance.is_due(1 << 30));
}

/// However long the load took, here as long as it takes to be far with any clock.
#[test]
fn what_has_not_changed_says_nothing() {
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
    // The first of these is a new one.
    for _ in 0..10 {
        distance.read(8, || load(9));
    }
    assert!(!distance.is_far());
}
