//! The cost of each kind of shared memory: create, open, claim and remove; a message, which must cost the same in each kind; the
//! first lap with and without prefault; large rings with and without huge pages.
//!
//! `cargo bench --bench backends` prints the section of `docs/benchmarks.md`, and `-- --help` lists the options. As root it
//! adds huge pages to the system's pool for the last part, and removes them afterwards, so that part cannot be interrupted.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use shmpipe::{Options, Pipe, unlink_force};
use shmpipe_measure::transports::{BACKENDS, CLASSIC, FIRST_LAPS, Kind, LARGE, LargeRing, Transport};
use shmpipe_measure::{
    Collected, Config, Experiment, HugePages, Machine, Placement, Session, Settings, SignalsHeld, Spread,
    collect_in_sessions, first_lap, serve_if_partner,
};

const USAGE: &str = "\
options after `cargo bench --bench backends --`:
  --seconds N   how long to measure (default 90)
  --part NAME   one of the parts: costs, messages, first-laps, large";

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Bytes of a huge page on x86-64. On other processors it requests more pages than needed.
const HUGE_PAGE: u64 = 2 * MIB;
/// Bytes of most messages, and of their records.
const MESSAGE: usize = 64;
const RECORD: u64 = 72;

/// The size of the measurement.
struct Extent {
    /// For everything.
    time: Duration,
    /// The pipes whose creation is timed.
    capacity: u64,
    /// The rings that are used for a lap.
    lap: u64,
    large: &'static [u64],
}

impl Extent {
    const FULL: Extent = Extent {
        time: Duration::from_secs(90),
        capacity: MIB,
        lap: 256 * KIB,
        large: &[256 * MIB, 1024 * MIB],
    };

    /// The smoke run without `--bench` (`cargo test --benches`): a little of everything.
    const SMOKE: Extent =
        Extent { time: Duration::ZERO, capacity: 64 * KIB, lap: 16 * KIB, large: &[4 * MIB] };
}

type Part = fn(&Extent, Duration) -> Result<String, Box<dyn Error>>;

/// The parts, each with its share of the time in percent.
const PARTS: [(&str, Part, u32); 4] =
    [("costs", costs, 10), ("messages", messages, 30), ("first-laps", first_laps, 30), ("large", large, 30)];

fn main() -> ExitCode {
    let large = LARGE.iter().flat_map(|ring| [Some(ring.steady), ring.untouched]).flatten();
    let known: Vec<&dyn Transport> =
        [CLASSIC].iter().chain(BACKENDS).chain(FIRST_LAPS).copied().chain(large).collect();
    serve_if_partner(&known);
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let measure = env::args().any(|word| word == "--bench");
    let mut extent = if measure { Extent::FULL } else { Extent::SMOKE };
    let mut only = None;
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {}
            "--list" => return Ok(()), // no tests with names of their own
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            "--seconds" => {
                let seconds = words.next().and_then(|word| word.parse().ok()).ok_or(USAGE)?;
                extent.time =
                    Duration::try_from_secs_f64(seconds).map_err(|error| format!("--seconds: {error}"))?;
            }
            "--part" => {
                let name = words.next().ok_or(USAGE)?;
                only = Some(PARTS.iter().position(|part| part.0 == name).ok_or(USAGE)?);
            }
            _ if measure => return Err(format!("{word}: not an option of this bench\n{USAGE}").into()),
            _ => {} // what a test harness knows
        }
    }
    let mut report = String::new();
    if only.is_none() {
        let session = Session::start(&Settings::default(), &[CLASSIC])?;
        let machine = Machine::of(&session);
        writeln!(
            report,
            "## Kinds of shared memory\n\n`cargo bench --bench backends`, which prints this section.\n\n```text"
        )?;
        for (what, how) in machine.lines().iter().filter(|(what, _)| *what != "ring") {
            writeln!(report, "{what:11}{how}")?;
        }
        writeln!(report, "```")?;
    }
    if measure {
        println!("{report}");
    }
    for (i, (_, part, share)) in PARTS.iter().enumerate() {
        if only.is_none_or(|only| only == i) {
            let share = if only.is_some() { 100 } else { *share };
            let report = part(&extent, extent.time * share / 100)?;
            if measure {
                println!("{report}");
            }
        }
    }
    if !measure {
        println!("smoke run, backends: every message as sent over each kind of shared memory");
    }
    Ok(())
}

/// A pipe that is removed when this is dropped.
struct Made {
    pipe: Pipe,
    listed: bool,
}

impl Made {
    fn new(options: &Options, address: &str) -> Result<Made, Box<dyn Error>> {
        let pipe = options.create(address)?;
        Ok(Made { pipe, listed: address != "memfd" })
    }

    fn open(&self) -> Result<Pipe, Box<dyn Error>> {
        Ok(Pipe::open(self.pipe.address().clone())?)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.listed {
            // Fails only if another process has removed it.
            let _ = unlink_force(self.pipe.address().clone());
        }
    }
}

const CREATE: usize = 0;
const CREATE_UNTOUCHED: usize = 1;
const OPEN: usize = 2;
const CLAIM: usize = 3;
const PEER: usize = 4;
const TOUCH: usize = 5;
const CLOSE: usize = 6;
const DROP: usize = 7;
const UNLINK: usize = 8;
const STEPS: [&str; 9] = [
    "create",
    "create, no prefault",
    "open",
    "claim a role",
    "query the peer",
    "first touch of a page",
    "close a role",
    "drop a handle",
    "unlink",
];

/// Microseconds of each step.
type Took = [Vec<f64>; STEPS.len()];

/// The number of successive requests for the peer.
const ASKED: u32 = 64;

/// A pipe from its creation to its removal, and one with untouched pages.
fn lifetime(kind: Kind, capacity: u64, took: &mut Took) -> Result<(), Box<dyn Error>> {
    let _held = SignalsHeld::new()?;
    let mut since = Instant::now();
    let mut lap = |step: usize, took: &mut Took| {
        let now = Instant::now();
        took[step].push((now - since).as_nanos() as f64 / 1000.0);
        since = Instant::now();
    };
    let options = Options::new().capacity(capacity);
    let address = kind.fresh().0;
    lap(CREATE, &mut Took::default());
    let made = Made::new(&options, &address)?;
    lap(CREATE, took);
    let opened = made.open()?;
    lap(OPEN, took);
    let producer = made.pipe.producer()?;
    lap(CLAIM, took);
    let consumer = opened.consumer()?;
    lap(CLAIM, took);
    for _ in 0..ASKED {
        std::hint::black_box(producer.peer());
    }
    lap(PEER, took);
    if let Some(last) = took[PEER].last_mut() {
        *last /= f64::from(ASKED);
    }
    consumer.close()?;
    lap(CLOSE, took);
    producer.close()?;
    lap(CLOSE, took);
    drop(opened);
    lap(DROP, took);
    if made.listed {
        unlink_force(made.pipe.address().clone())?;
        lap(UNLINK, took);
    }
    drop(made);

    let address = kind.fresh().0;
    lap(CREATE, &mut Took::default());
    let made = Made::new(&options.prefault(false), &address)?;
    lap(CREATE_UNTOUCHED, took);
    took[TOUCH].push(touches(&made)?);
    Ok(())
}

/// Microseconds that the first use of a page costs both ends, each in its own mapping: the difference between the first and the
/// second lap for messages of one page.
fn touches(made: &Made) -> Result<f64, Box<dyn Error>> {
    const PAGE: usize = 4096;
    let opened = Options::new().prefault(false).open(made.pipe.address().clone())?;
    let (mut producer, mut consumer) = (made.pipe.producer()?, opened.consumer()?);
    let message = vec![7; PAGE - 8];
    let mut to = vec![0; PAGE - 8];
    let messages = producer.capacity() / PAGE as u64 - 1;
    let mut lap = || -> Result<Duration, Box<dyn Error>> {
        let start = Instant::now();
        for _ in 0..messages {
            producer.try_send(&message)?;
            consumer.try_recv()?.copy_to(&mut to)?;
        }
        Ok(start.elapsed())
    };
    let (first, second) = (lap()?, lap()?);
    assert_eq!(to, message);
    Ok((first.as_nanos() as f64 - second.as_nanos() as f64) / 1000.0 / messages as f64)
}

/// A percentile of sorted values, if at least ten values exceed it.
fn percentile(sorted: &[f64], percent: usize) -> String {
    let at = sorted.len() * percent / 100;
    let beyond = sorted.len().saturating_sub(at);
    let shown = percent == 50 && !sorted.is_empty() || beyond >= 10;
    if shown { figure(sorted[at.min(sorted.len() - 1)]) } else { "-".to_owned() }
}

fn figure(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// The cost of setup and teardown.
fn costs(extent: &Extent, time: Duration) -> Result<String, Box<dyn Error>> {
    let mut took: [Took; Kind::ALL.len()] = Default::default();
    let start = Instant::now();
    while took[0][CREATE].len() < 2 || start.elapsed() < time {
        for (kind, took) in Kind::ALL.into_iter().zip(&mut took) {
            lifetime(kind, extent.capacity, took)?;
        }
    }
    let mut report = format!(
        "### Creating, opening, removing\n\n\
         One process creates and removes pipes of {}, each kind in turn, with default options, so `create` allocates all pages and\n\
         faults them in. *Query the peer* is the check that a wait makes after 100 us and every 100 ms from then on. *First touch* is by\n\
         both ends, each in its own mapping. `file` is on {}. A dash stands for a percentile that fewer than ten values exceed.\n\n```text\n",
        bytes(extent.capacity),
        file_system("/var/tmp"),
    );
    writeln!(report, "microseconds           kind      p50      p90      p99      max      n")?;
    for (step, name) in STEPS.iter().enumerate() {
        for (kind, took) in Kind::ALL.into_iter().zip(&took) {
            let mut sorted = took[step].clone();
            sorted.sort_by(f64::total_cmp);
            let Some(&longest) = sorted.last() else { continue };
            write!(report, "{:22} {:6}", if kind == Kind::SysV { name } else { "" }, kind.name())?;
            for percent in [50, 90, 99] {
                write!(report, " {:>8}", percentile(&sorted, percent))?;
            }
            writeln!(report, " {:>8} {:>6}", figure(longest), sorted.len())?;
        }
    }
    writeln!(report, "```")?;
    Ok(report)
}

/// A message, which must cost the same in each kind.
fn messages(_: &Extent, time: Duration) -> Result<String, Box<dyn Error>> {
    const EXPERIMENTS: [Experiment; 2] = [Experiment::RoundTrip, Experiment::Streaming];
    let sizes = [MESSAGE];
    let transports: Vec<&'static dyn Transport> = [CLASSIC].iter().chain(BACKENDS).copied().collect();
    let experiments = EXPERIMENTS.map(|experiment| (experiment, &sizes[..]));
    let collected = collect_in_sessions(&Settings::default(), &transports, &experiments, time)?;
    let mut report = "### The message\n\n\
         Two processes, all kinds in one session, in alternating slices. No code above the mapping depends on the kind, so the\n\
         ratios to `sysv` are 1 except for noise.\n\n```text\n"
        .to_owned();
    for experiment in EXPERIMENTS {
        writeln!(report, "{experiment}\n{}\n", collected.table(experiment, Kind::SysV.name()))?;
    }
    writeln!(report, "{}\n", differences(&collected, &EXPERIMENTS))?;
    writeln!(report, "{}\n```", collected.floor_report())?;
    Ok(report)
}

/// The differences of the kinds from the first one, and the distance of its quartiles.
fn differences(collected: &Collected, experiments: &[Experiment]) -> String {
    let mut text = String::from("medians relative to the median of sysv, and the quartiles of sysv:");
    for &experiment in experiments {
        for &placement in &collected.placements {
            let cell = |kind: Kind| Some(collected.find(experiment, kind.name(), MESSAGE)?.cell(placement));
            let Some(Spread { lower, median, upper }) = cell(Kind::SysV).and_then(|cell| cell.cost_ns) else {
                continue;
            };
            let percent = |value: f64| 100.0 * (value / median - 1.0);
            let _ = write!(text, "\n  {experiment}, {placement}:");
            for kind in &Kind::ALL[1..] {
                if let Some(spread) = cell(*kind).and_then(|cell| cell.cost_ns) {
                    let _ = write!(text, " {} {:+.1} %,", kind.name(), percent(spread.median));
                }
            }
            let _ = write!(text, " quartiles {:+.1} and {:+.1} %", percent(lower), percent(upper));
        }
    }
    text
}

/// The first lap of new rings.
fn first_laps(extent: &Extent, time: Duration) -> Result<String, Box<dyn Error>> {
    let settings = Settings { capacity: extent.lap as usize, ..Settings::default() };
    let laps = first_lap::collect(&settings, FIRST_LAPS, BACKENDS[0], MESSAGE, time)?;
    Ok(format!(
        "### The first lap\n\n\
         Round trips of {MESSAGE} bytes through two new rings of {}, each timed; after two laps, two new rings follow. One round trip in\n\
         56 touches a new page in both rings: p99 shows those. *untouched*: no process has faulted the pages in; *creator*: the creator\n\
         of the rings has, which is the default; *both*: the opener has too. {} of {} laps are left out, because the virtual processors\n\
         moved.\n\n\
         ```text\n{}\n```\n",
        bytes(extent.lap),
        laps.left_out,
        laps.laps,
        first_lap::table(&laps.rows)
    ))
}

/// Rings larger than any cache, on small and on huge pages.
fn large(extent: &Extent, time: Duration) -> Result<String, Box<dyn Error>> {
    let mut report = "### Large rings, huge pages\n\n\
        Streams through rings larger than every cache, on pages of 4 KiB and on huge pages: from the pool (`sysv-huge`, `memfd-huge`),\n\
        or assembled by the kernel (`posix-huge`). Both sides have faulted them in. Then the first lap of rings that no process has\n\
        faulted in, in one pass, and the time to create one.\n"
        .to_owned();
    let share = time / (2 * extent.large.len() as u32);
    for &capacity in extent.large {
        write!(report, "\n{}:\n\n```text\n", bytes(capacity))?;
        // The pool serves one large ring at a time, a small one for the other direction, and some rounding.
        let pool = HugePages::add(capacity.div_ceil(HUGE_PAGE) + 4);
        if let Err(error) = &pool {
            writeln!(report, "no pages for the pool: {error}")?;
        }
        let mut usable = Vec::new();
        for ring in LARGE {
            match try_out(ring) {
                Ok(()) => usable.push(ring),
                Err(error) => writeln!(report, "{} is left out: {error}", ring.steady.name())?,
            }
        }
        let collected = in_pairs(capacity, &usable, share)?;
        writeln!(report, "{}\n", collected.table(Experiment::Streaming, LARGE[0].steady.name()))?;
        let untouched: Vec<_> = usable.iter().filter_map(|ring| ring.untouched).collect();
        writeln!(report, "{}", laps(capacity, &untouched, share)?)?;
        writeln!(report, "{}```", creations(capacity, &usable, share / 4)?)?;
    }
    Ok(report)
}

/// Streams through each ring beside the first, two at a time: all together need more memory than most machines have.
fn in_pairs(capacity: u64, rings: &[&LargeRing], time: Duration) -> Result<Collected, Box<dyn Error>> {
    let (first, others) = rings.split_first().ok_or("no kind of shared memory is available")?;
    let experiments = [(Experiment::Streaming, &[MESSAGE, 1024][..])];
    let mut all: Option<Collected> = None;
    for other in others {
        let pair = [first.steady, other.steady];
        let of_pair =
            collect_in_sessions(&settings(capacity), &pair, &experiments, time / others.len() as u32)?;
        match &mut all {
            Some(all) => all.append(of_pair),
            None => all = Some(of_pair),
        }
    }
    let mut all = all.ok_or("nothing to compare with")?;
    let place = |name| rings.iter().position(|ring| ring.steady.name() == name);
    all.series.sort_by_key(|series| (series.config.size, place(series.transport)));
    Ok(all)
}

/// Creates a small pipe of its kind.
fn try_out(ring: &LargeRing) -> Result<(), Box<dyn Error>> {
    let _held = SignalsHeld::new()?;
    let options = Options::new().capacity(2 * HUGE_PAGE).huge_pages(ring.huge_pages);
    Made::new(&options, &ring.kind.fresh().0).map(drop)
}

fn settings(capacity: u64) -> Settings {
    Settings { capacity: capacity as usize, ..Settings::default() }
}

/// The whole first lap of new rings, and the second lap.
fn laps(
    capacity: u64,
    transports: &[&'static dyn Transport],
    time: Duration,
) -> Result<String, Box<dyn Error>> {
    let mut costs = vec![[const { Vec::new() }; 2]; transports.len()];
    let start = Instant::now();
    // A lap during which the machine moves does not count. If it moves all the time, the table is incomplete.
    let enough = |costs: &[[Vec<_>; 2]]| costs.iter().flatten().all(|costs| !costs.is_empty());
    for round in 1.. {
        for (&transport, costs) in transports.iter().zip(&mut costs) {
            let mut session = Session::start(&settings(capacity), &[transport])?;
            for costs in costs {
                let config = Config { experiment: Experiment::Streaming, transport: 0, size: MESSAGE };
                let slice = session.slice(config, capacity / RECORD)?;
                costs.extend(slice.map(|slice| (slice.placement, slice.cost_ns)));
            }
        }
        if start.elapsed() >= time && (enough(&costs) || round >= 8) {
            break;
        }
    }
    let mut report = format!(
        "{MESSAGE} B in a row, one lap\nring                 where    first     q1..q3  second     q1..q3      n\n"
    );
    for (transport, costs) in transports.iter().zip(&costs) {
        for placement in [Placement::Near, Placement::Far, Placement::OneCpu] {
            let here = |costs: &[(Placement, f64)]| {
                let here: Vec<f64> =
                    costs.iter().filter(|cost| cost.0 == placement).map(|cost| cost.1).collect();
                (here.len(), Spread::of(here))
            };
            let ((n, first), (_, second)) = (here(&costs[0]), here(&costs[1]));
            if n == 0 {
                continue;
            }
            write!(report, "{:20} {:7}", transport.name(), placement.to_string())?;
            for spread in [first, second] {
                match spread {
                    Some(Spread { lower, median, upper }) => {
                        write!(report, " {median:>6.1} {:>10}", format!("{lower:.0}..{upper:.0}"))?;
                    }
                    None => write!(report, " {:>6} {:>10}", "-", "-")?,
                }
            }
            writeln!(report, " {n:>6}")?;
        }
    }
    Ok(report)
}

/// Milliseconds to create a large ring.
fn creations(capacity: u64, rings: &[&LargeRing], time: Duration) -> Result<String, Box<dyn Error>> {
    let mut report = "create, milliseconds  no prefault  prefault      n\n".to_owned();
    for ring in rings {
        let make = |prefault| -> Result<f64, Box<dyn Error>> {
            let _held = SignalsHeld::new()?;
            let options = Options::new().capacity(capacity).huge_pages(ring.huge_pages).prefault(prefault);
            let address = ring.kind.fresh().0;
            let start = Instant::now();
            let _made = Made::new(&options, &address)?;
            Ok(start.elapsed().as_nanos() as f64 / 1e6)
        };
        let mut took = [Vec::new(), Vec::new()];
        let start = Instant::now();
        while took[0].len() < 2 || start.elapsed() < time / rings.len() as u32 {
            took[0].push(make(false)?);
            took[1].push(make(true)?);
        }
        let n = took[0].len();
        let [no, yes] = took.map(|took| shmpipe_measure::median(took).unwrap_or_default());
        writeln!(report, "{:20} {no:>12.2} {yes:>9.2} {n:>6}", ring.steady.name())?;
    }
    Ok(report)
}

fn bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1024 * MIB => format!("{} GiB", bytes / (1024 * MIB)),
        bytes if bytes >= MIB => format!("{} MiB", bytes / MIB),
        bytes => format!("{} KiB", bytes / KIB),
    }
}

/// The system's name for the file system of a directory.
fn file_system(directory: &str) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let rows = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?, words.next()?))
    });
    let under = rows.filter(|(place, _)| std::path::Path::new(directory).starts_with(place));
    under
        .max_by_key(|(place, _)| place.len())
        .map_or("an unknown file system".to_owned(), |(_, kind)| kind.to_owned())
}
