//! What to measure, on which CPUs and for how long.

use std::time::Duration;

use shmpipe_measure::{Mode, Settings, Transport, allowed_cpus, transports};

use crate::args;
use crate::exit::{Code, Failure};

/// Sizes where something changes: a word, a cache line, several lines, more than a page, more than the L1 cache holds.
const SIZES: [usize; 6] = [8, 64, 256, 1024, 8192, 65536];
/// The sizes of `--quick`.
const QUICK_SIZES: [usize; 4] = [8, 64, 1024, 65536];

/// The size of single round trips, if it is among the sizes.
const TYPICAL: usize = 64;

/// Scheduled messages per second: a load under which receivers mostly wait.
pub const RATE: f64 = 100_000.0;

/// The default duration: with the overhead, below a minute.
const USUAL: Duration = Duration::from_secs(55);
const QUICK: Duration = Duration::from_millis(8500);
const FULL: Duration = Duration::from_secs(300);

/// The longest message: some transports take a millisecond for it, and a slice has several.
const LONGEST: usize = 1 << 20;

/// Our transports: the default, and the one that never sleeps.
pub const OURS: [&str; 2] = ["shmpipe", "shmpipe-spin"];

/// Whether a transport is a variant of our ring.
pub fn is_ours(transport: &str) -> bool {
    transport.starts_with(OURS[0])
}

/// One run of the bench.
pub struct Plan {
    pub settings: Settings,
    pub transports: Vec<&'static dyn Transport>,
    /// Both processes share one CPU.
    pub only_one_cpu: bool,
    pub sizes: Vec<usize>,
    /// The sizes of single round trips.
    pub timed_singly: Vec<usize>,
    /// The size of scheduled messages.
    pub paced: usize,
    pub time: Duration,
    /// Remarks on the figures.
    pub notes: Vec<String>,
}

impl Plan {
    pub fn new(arguments: &args::Bench) -> Result<Plan, Failure> {
        let mut transports = chosen(&arguments.transports)?;
        let allowed = allowed_cpus().map_err(|error| Failure::io("sched_getaffinity", &error))?;
        let mut notes = Vec::new();
        let only_one_cpu = arguments.pin.is_none() && allowed.len() < 2;
        if let Some((a, b)) = arguments.pin {
            if let Some(cpu) = [a, b].into_iter().find(|cpu| !allowed.contains(cpu)) {
                let allowed = listed(&allowed);
                return Err(usage(format_args!("--pin: CPU {cpu} is not among those allowed: {allowed}")));
            }
        }
        if only_one_cpu {
            transports.retain(|transport| transport.mode() != Mode::Polls);
            notes.push(
                "only one CPU is allowed: both processes share it and every transfer is a context switch; transports that \
                 only poll are left out because they keep the other side from running, and so are scheduled messages, \
                 whose sender polls the clock"
                    .to_owned(),
            );
        }
        if transports.is_empty() {
            let why = "nothing to measure: only one CPU is allowed, and transports that poll need two";
            return Err(Failure::new(Code::Failure, why));
        }
        let sizes = sizes(arguments)?;
        let timed_singly = match (arguments.full, sizes.contains(&TYPICAL)) {
            (true, _) => sizes.clone(),
            (false, true) => vec![TYPICAL],
            (false, false) => vec![sizes[0]],
        };
        let paced = timed_singly.iter().copied().find(|&size| size >= TYPICAL).unwrap_or(TYPICAL);
        let settings = Settings {
            cpus: arguments.pin,
            capacity: Settings::default().capacity.max((4 * sizes[sizes.len() - 1]).next_power_of_two()),
            near_below_ns: arguments.near_below,
            ..Settings::default()
        };
        let time = match (arguments.quick, arguments.full) {
            (true, _) => QUICK,
            (_, true) => FULL,
            _ => arguments.time.unwrap_or(USUAL),
        };
        Ok(Plan { settings, transports, only_one_cpu, sizes, timed_singly, paced, time, notes })
    }
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Usage, message)
}

fn listed(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The transports of those names, ours first. Without names all but further variants of ours.
fn chosen(names: &[String]) -> Result<Vec<&'static dyn Transport>, Failure> {
    let known: Vec<_> = transports::ALL.iter().map(|transport| transport.name()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(usage(format_args!("--transports: there is no {name}; there are {}", listed(&known))));
    }
    let wanted = |name: &str| match names {
        [] => OURS.contains(&name) || !is_ours(name),
        names => names.iter().any(|wanted| wanted == name),
    };
    let mut found: Vec<_> = transports::ALL.iter().copied().filter(|each| wanted(each.name())).collect();
    found.sort_by_key(|transport| !is_ours(transport.name()));
    Ok(found)
}

fn sizes(arguments: &args::Bench) -> Result<Vec<usize>, Failure> {
    if arguments.sizes.is_empty() {
        return Ok(if arguments.quick { QUICK_SIZES.to_vec() } else { SIZES.to_vec() });
    }
    let mut sizes = Vec::new();
    for &size in &arguments.sizes {
        match usize::try_from(size) {
            Ok(size) if size <= LONGEST => sizes.push(size),
            _ => return Err(usage(format_args!("--sizes: {size} bytes are more than {LONGEST}"))),
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}
