//! Costs besides those of a message, and factors that must not affect these: capacity, lap, number of pipes, creating and opening
//! a pipe, and its memory.
//!
//! Run `cargo bench --bench costs`; `-- --help` lists the options. One core sends and receives in turn, except where the text
//! mentions two processes. So no line moves between cores, and only the code and the cache remain.
//!
//! # Capacity and cache
//! A stream uses every line of its ring in each lap. So the ring is the working set of its messages, and the capacity decides
//! which cache holds it. To isolate the capacity, the second table divides a fixed working set, [`TOGETHER`], among more and more
//! smaller rings. Messages go through all of them, in a burst through each in turn. Their costs may differ by the lines of a pipe
//! besides its ring, about twenty in the header and the two ends, which a burst fetches when it starts.

use shmpipe::error::Shortage;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use shmpipe::{Consumer, Options, Pipe, Producer, SetupError, unlink_force};
use shmpipe_measure::{
    Config, Experiment, Machine, Placement, Session, Settings, SignalsHeld, Spread, both_ends,
    serve_if_partner, transports,
};

const USAGE: &str = "\
options after `cargo bench --bench costs --`:
  --seconds N   how long to measure (default 20)";

/// Bytes of each message, and of its record.
const MESSAGE: usize = 64;
const RECORD: u64 = 72;

/// Messages through one pipe before the next pipe's turn.
const BURST: u64 = 32;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Bytes of all rings together that messages go through in turn.
const TOGETHER: u64 = 4 * MIB;

/// The size of the measurement.
struct Extent {
    /// Capacities from the first to the last, each four times the one before.
    capacities: (u64, u64),
    most_pipes: u64,
    laps: usize,
    /// In one session.
    slices: usize,
    pipes_made: usize,
    /// For each of the tables.
    time: Duration,
}

impl Extent {
    fn of_seconds(seconds: f64) -> Result<Extent, Box<dyn Error>> {
        let time =
            Duration::try_from_secs_f64(seconds / 5.0).map_err(|error| format!("--seconds: {error}"))?;
        Ok(Extent {
            capacities: (4 * KIB, 16 * MIB),
            most_pipes: 1024,
            laps: 4,
            slices: 32,
            pipes_made: 200,
            time,
        })
    }

    /// The smoke run without `--bench` (`cargo test --benches`): a little of everything.
    const SMOKE: Extent = Extent {
        capacities: (4 * KIB, 16 * KIB),
        most_pipes: 4,
        laps: 2,
        slices: 2,
        pipes_made: 2,
        time: Duration::ZERO,
    };
}

fn main() -> ExitCode {
    serve_if_partner(&[transports::SHMPIPE]);
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("costs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut measure = false;
    let mut seconds = 20.0;
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => measure = true,
            "--list" => return Ok(()), // no tests with names of their own
            "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            "--seconds" => seconds = words.next().and_then(|word| word.parse().ok()).ok_or(USAGE)?,
            _ if measure => return Err(format!("{word}: not an option of this bench\n{USAGE}").into()),
            _ => {} // what a test harness knows
        }
    }
    let extent = if measure { Extent::of_seconds(seconds)? } else { Extent::SMOKE };
    let show = |report: String| {
        if measure {
            println!("{report}");
        }
    };
    let session = Session::start(&Settings::default(), &[transports::SHMPIPE])?;
    let machine = Machine::of(&session);
    drop(session); // there can be only one, and it keeps this thread on one core
    let lines = machine.lines().iter().filter(|(what, _)| *what != "ring");
    show(lines.map(|(what, how)| format!("{what:11}{how}\n")).collect());
    show(by_capacity(&extent)?);
    show(by_division(&extent)?);
    show(by_bystanders(&extent)?);
    show(by_lap(&extent)?);
    show(between_processes(&extent)?);
    show(making(&extent)?);
    show(memory(&extent)?);
    if !measure {
        println!("smoke run, costs: every message as sent, every pipe as small as it should be");
    }
    Ok(())
}

/// Both ends of a pipe in one thread.
struct Loop {
    producer: Producer,
    consumer: Consumer,
}

impl Loop {
    fn new(capacity: u64) -> Result<Loop, SetupError> {
        both_ends(capacity).map(|(producer, consumer)| Loop { producer, consumer })
    }

    /// Sends and receives messages in turn.
    fn pass(&mut self, messages: u64) {
        let message = std::hint::black_box([7; MESSAGE]);
        let mut to = [0; MESSAGE];
        for _ in 0..messages {
            self.producer.try_send(&message).expect("the ring is empty");
            let received = self.consumer.try_recv().expect("a message was sent").copy_to(&mut to);
            assert_eq!(received, Ok(MESSAGE));
        }
        assert_eq!(to, message);
    }

    /// The number of messages in a lap.
    fn lap(&self) -> u64 {
        self.producer.capacity() / RECORD
    }
}

/// Nanoseconds of one message. `pass` sends that many.
fn timed(messages: u64, pass: impl FnOnce()) -> f64 {
    let start = Instant::now();
    pass();
    start.elapsed().as_nanos() as f64 / messages as f64
}

/// Alternates slices of everything, in both orders, for that long and at least twice. Returns the costs of each.
fn in_turn<T>(
    all: &mut [T],
    time: Duration,
    mut slice: impl FnMut(&mut T) -> Result<f64, Box<dyn Error>>,
) -> Result<Vec<Vec<f64>>, Box<dyn Error>> {
    let mut costs = vec![Vec::new(); all.len()];
    let start = Instant::now();
    while costs.iter().any(|costs| costs.len() < 2) || start.elapsed() < time {
        let (there, back) = (0..all.len(), (0..all.len()).rev());
        for i in there.chain(back) {
            costs[i].push(slice(&mut all[i])?);
        }
    }
    Ok(costs)
}

fn columns(costs: &[f64]) -> String {
    let (median, range) = match Spread::of(costs.iter().copied()) {
        Some(Spread { lower, median, upper }) => (format!("{median:.1}"), format!("{lower:.1}..{upper:.1}")),
        None => ("-".to_owned(), "-".to_owned()),
    };
    format!("{median:>8} {range:>15} {:>6}", costs.len())
}

const HEADS: &str = "      ns          q1..q3      n";

fn capacities(extent: &Extent) -> impl Iterator<Item = u64> {
    let (first, last) = extent.capacities;
    std::iter::successors(Some(first), |capacity| Some(capacity * 4))
        .take_while(move |&capacity| capacity <= last)
}

fn bytes(bytes: u64) -> String {
    if bytes >= MIB { format!("{} MiB", bytes / MIB) } else { format!("{} KiB", bytes / KIB) }
}

/// Sizes of this machine's data caches, smallest first, with their levels. Empty if the kernel does not provide them.
fn caches() -> Vec<(u64, String)> {
    let mut caches: Vec<(u64, String)> = (0..8)
        .filter_map(|index| {
            let read =
                |file| fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}"));
            if read("type").ok()?.trim() == "Instruction" {
                return None;
            }
            let kib: u64 = read("size").ok()?.trim().strip_suffix('K')?.parse().ok()?;
            Some((kib * KIB, format!("level {}", read("level").ok()?.trim())))
        })
        .collect();
    caches.sort();
    caches
}

/// A message through one ring, which is the working set.
fn by_capacity(extent: &Extent) -> Result<String, Box<dyn Error>> {
    let mut report = String::new();
    let caches = caches();
    let mut pipes = capacities(extent).map(Loop::new).collect::<Result<Vec<_>, _>>()?;
    let costs = in_turn(&mut pipes, extent.time, |pipe| {
        pipe.pass(pipe.lap()); // what the others have driven out of the cache comes back
        let messages = pipe.lap().max(2048);
        Ok(timed(messages, || pipe.pass(messages)))
    })?;
    writeln!(report, "{MESSAGE} B sent and received, by capacity\n  capacity  fits      {HEADS}")?;
    for (pipe, costs) in pipes.iter().zip(&costs) {
        let capacity = pipe.producer.capacity();
        let cache = caches.iter().find(|(size, _)| capacity < *size).map_or("-", |(_, level)| level);
        writeln!(report, "{:>10}  {cache:<8}  {}", bytes(capacity), columns(costs))?;
    }
    Ok(report)
}

/// This many pipes, or a line with the limit of the system that prevents them.
fn many(number: u64, capacity: u64) -> Result<Option<Vec<Loop>>, SetupError> {
    match (0..number).map(|_| Loop::new(capacity)).collect() {
        Ok(pipes) => Ok(Some(pipes)),
        Err(limit @ SetupError::Limit(Shortage::System { .. })) => {
            println!("{number:>10}    not made: {limit}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A message through one of many rings with a fixed total size.
fn by_division(extent: &Extent) -> Result<String, Box<dyn Error>> {
    let mut report = String::new();
    let numbers = std::iter::successors(Some(1), |number| Some(number * 4));
    let numbers = numbers.take_while(|&number| number <= extent.most_pipes);
    writeln!(
        report,
        "{MESSAGE} B sent and received, rings of {} together, {BURST} messages in each in turn",
        bytes(TOGETHER)
    )?;
    writeln!(report, "     pipes  capacity  {HEADS}")?;
    let mut all = Vec::new();
    for number in numbers {
        all.extend(many(number, TOGETHER / number)?);
    }
    let once_around = |pipes: &mut Vec<Loop>| {
        let bursts = pipes[0].lap().div_ceil(BURST);
        for _ in 0..bursts {
            pipes.iter_mut().for_each(|pipe| pipe.pass(BURST));
        }
        bursts * BURST * pipes.len() as u64
    };
    let costs = in_turn(&mut all, extent.time, |pipes| {
        let messages = once_around(pipes);
        Ok(timed(messages, || {
            once_around(pipes);
        }))
    })?;
    for (pipes, costs) in all.iter().zip(&costs) {
        writeln!(
            report,
            "{:>10}  {:>8}  {}",
            pipes.len(),
            bytes(pipes[0].producer.capacity()),
            columns(costs)
        )?;
    }
    Ok(report)
}

/// A message through one pipe while others are open.
fn by_bystanders(extent: &Extent) -> Result<String, Box<dyn Error>> {
    let mut report = String::new();
    let mut pipe = Loop::new(64 * KIB)?;
    writeln!(report, "{MESSAGE} B sent and received through one pipe of 64 KiB\n    others    {HEADS}")?;
    let mut numbers = Vec::new();
    for others in [0, 10, 100, 1000].into_iter().filter(|&others| others < extent.most_pipes) {
        numbers.extend(many(others, 4 * KIB)?.map(|_| others));
    }
    let costs = in_turn(&mut numbers, extent.time, |&mut others| {
        let _others = many(others, 4 * KIB)?;
        pipe.pass(pipe.lap());
        Ok(timed(50_000, || pipe.pass(50_000)))
    })?;
    for (others, costs) in numbers.iter().zip(&costs) {
        writeln!(report, "{others:>10}    {}", columns(costs))?;
    }
    Ok(report)
}

/// A message in the first lap of a new ring, and in later laps.
fn by_lap(extent: &Extent) -> Result<String, Box<dyn Error>> {
    let mut report = String::new();
    let mut laps = vec![Vec::new(); extent.laps];
    let start = Instant::now();
    while laps[0].len() < 2 || start.elapsed() < extent.time / 4 {
        let mut pipe = Loop::new(MIB)?;
        for lap in &mut laps {
            lap.push(timed(pipe.lap(), || pipe.pass(pipe.lap())));
        }
    }
    writeln!(report, "{MESSAGE} B sent and received, in a new pipe of 1 MiB\n       lap    {HEADS}")?;
    for (number, costs) in laps.iter().enumerate() {
        writeln!(report, "{:>10}    {}", number + 1, columns(costs))?;
    }
    Ok(report)
}

/// A message from one process to another, one session for each capacity in turn.
fn between_processes(extent: &Extent) -> Result<String, Box<dyn Error>> {
    const EXPERIMENTS: [Experiment; 2] = [Experiment::RoundTrip, Experiment::Streaming];
    let mut report = String::new();
    let capacities: Vec<u64> = capacities(extent).collect();
    let mut slices: Vec<Vec<(Experiment, Placement, f64)>> = vec![Vec::new(); capacities.len()];
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < 1 || start.elapsed() < extent.time {
        rounds += 1;
        for (&capacity, slices) in capacities.iter().zip(&mut slices) {
            let settings = Settings { capacity: capacity as usize, ..Settings::default() };
            let mut session = Session::start(&settings, &[transports::SHMPIPE])?;
            // A stream that does not fill its ring is not comparable with one of many laps.
            let laps = (4 * capacity / RECORD).max(20_000);
            for (experiment, count) in EXPERIMENTS.into_iter().zip([2000, laps]).cycle().take(extent.slices) {
                let config = Config { experiment, transport: 0, size: MESSAGE };
                let slice = session.slice(config, count)?;
                slices.extend(slice.map(|slice| (experiment, slice.placement, slice.cost_ns)));
            }
        }
    }
    let on_one_cpu = slices.iter().flatten().any(|slice| slice.1 == Placement::OneCpu);
    let placements = if on_one_cpu { &[Placement::OneCpu][..] } else { &Placement::OF_TWO_CPUS };
    for experiment in EXPERIMENTS {
        for &placement in placements {
            let costs_of = |slices: &[(Experiment, Placement, f64)]| -> Vec<f64> {
                let these = slices.iter().filter(|slice| (slice.0, slice.1) == (experiment, placement));
                these.map(|slice| slice.2).collect()
            };
            write!(report, "{MESSAGE} B between two processes, {experiment}, {placement}")?;
            if slices.iter().all(|slices| costs_of(slices).is_empty()) {
                writeln!(report, ": did not occur, n = 0\n")?;
                continue;
            }
            writeln!(report, "\n  capacity    {HEADS}")?;
            for (&capacity, slices) in capacities.iter().zip(&slices) {
                writeln!(report, "{:>10}    {}", bytes(capacity), columns(&costs_of(slices)))?;
            }
            writeln!(report)?;
        }
    }
    Ok(report.trim_end().to_owned() + "\n")
}

/// The time to create a pipe of 1 MiB, to open it, to claim its roles, and to remove it.
fn making(extent: &Extent) -> Result<String, Box<dyn Error>> {
    const STEPS: [&str; 5] = ["create", "open", "claim both roles", "drop all", "unlink"];
    let mut report = String::new();
    let mut took = vec![Vec::new(); STEPS.len()];
    for _ in 0..extent.pipes_made {
        let _held = SignalsHeld::new()?;
        let mut since = Instant::now();
        let mut lap = |step: usize| {
            let now = Instant::now();
            took[step].push((now - std::mem::replace(&mut since, now)).as_nanos() as f64 / 1000.0);
        };
        let made = Options::new().capacity(MIB).create("sysv:private")?;
        lap(0);
        let address = made.address().clone();
        let used = (|| {
            let opened = Pipe::open(address.clone())?;
            lap(1);
            let ends = (opened.producer()?, made.consumer()?);
            lap(2);
            drop((ends, opened, made));
            lap(3);
            Ok::<_, SetupError>(())
        })();
        unlink_force(address)?;
        lap(4);
        used?;
    }
    writeln!(
        report,
        "microseconds of a pipe of 1 MiB (bar: create and open, 1000)\n{:20}  median  longest      n",
        ""
    )?;
    for (step, took) in STEPS.iter().zip(&took) {
        let longest = took.iter().copied().fold(0.0, f64::max);
        let median = shmpipe_measure::median(took.iter().copied()).unwrap_or_default();
        writeln!(report, "{step:20} {median:>7.1} {longest:>8.1} {:>6}", took.len())?;
    }
    Ok(report)
}

/// Bytes of a pipe besides its capacity, with all of its pages touched.
fn memory(extent: &Extent) -> Result<String, Box<dyn Error>> {
    const BAR: u64 = 16 * KIB;
    let mut report = String::new();
    writeln!(report, "bytes above the capacity (bar: {BAR})\n  capacity    mapped  resident")?;
    for capacity in capacities(extent) {
        let mut pipe = Loop::new(capacity)?;
        pipe.pass(2 * pipe.lap());
        let taken = segments()?;
        let above = taken.map(|bytes| bytes.saturating_sub(capacity));
        writeln!(report, "{:>10} {:>9} {:>9}", bytes(capacity), above[0], above[1])?;
        if above.iter().any(|&above| above > BAR) {
            let [mapped, resident] = taken;
            return Err(
                format!("{capacity} bytes of ring take {mapped} bytes, {resident} of them resident").into()
            );
        }
    }
    Ok(report)
}

/// Bytes of the segments that this process has mapped, which are those of one pipe, and how many of them are resident.
fn segments() -> Result<[u64; 2], Box<dyn Error>> {
    let maps = fs::read_to_string("/proc/self/smaps")?;
    let mut bytes = [0, 0];
    for segment in maps.split(" /SYSV").skip(1) {
        for (bytes, name) in bytes.iter_mut().zip(["Size:", "Rss:"]) {
            let figure = segment.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
            let figure = figure.ok_or_else(|| format!("smaps does not tell {name}"))?;
            *bytes += figure.trim().parse::<u64>()? * KIB;
        }
    }
    if bytes[0] == 0 { Err("no segment is mapped".into()) } else { Ok(bytes) }
}
