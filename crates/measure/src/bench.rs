//! Shared by the benches: options, smoke run and report.

pub mod against;
mod hardware;
mod options;
mod sleeping;
mod slow;

use std::env;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

pub use self::options::SIZES;
use self::options::{Options, usage};
use crate::collected::Collected;
use crate::errors::{about, unfit};
use crate::latency::{self, Latency};
use crate::machine::Machine;
use crate::paced::{self, Paced};
use crate::partner;
use crate::session::{Experiment, Session};
use crate::slices::{self, Plan, Until, collect_in_sessions};
use crate::transports::{self, Mode, Transport};

/// The kinds of benches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// [`Experiment::RoundTrip`], in slices or one by one.
    RoundTrip,
    /// [`Experiment::Streaming`].
    Streaming,
    /// One-way delays at given rates: see [`paced`].
    Paced,
    /// Limits of the hardware: see [`limits`](crate::limits).
    Limits,
    /// Sleeping consumers: see [`sleeping`](crate::sleeping).
    Sleeping,
    /// Slow partners: see [`slow`](crate::slow).
    Slow,
}

/// The main function of a bench over the given transports. The command line can name others of this crate.
///
/// `cargo bench` passes `--bench`, and the bench measures. Without it (`cargo test --benches`), a short smoke run checks that
/// every transport delivers every byte both ways at every size, and that slices work. It reports no figures.
pub fn main(bench: Bench, transports: &[&'static dyn Transport]) -> ExitCode {
    let known = with_all(transports);
    partner::serve_if_partner(&known);
    let options = Options::parse(bench, env::args().skip(1));
    match options.and_then(|options| run(bench, transports, &known, &options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The transports, and all others of this crate.
fn with_all(transports: &[&'static dyn Transport]) -> Vec<&'static dyn Transport> {
    let mut known = transports.to_vec();
    for other in transports::ALL {
        if !is_known(&known, other.name()) {
            known.push(*other);
        }
    }
    known
}

fn is_known(transports: &[&dyn Transport], name: &str) -> bool {
    transports.iter().any(|transport| transport.name() == name)
}

fn run(
    bench: Bench,
    transports: &[&'static dyn Transport],
    known: &[&'static dyn Transport],
    options: &Options,
) -> io::Result<()> {
    if options.help {
        println!("{}\ntransports: {}", usage(bench), names(known));
        return Ok(());
    }
    if options.list {
        return Ok(()); // no tests with names of their own
    }
    if options.measure && !options.against.is_empty() {
        return against::run(bench, options);
    }
    let chosen = choose(transports, known, &options.transports)?;
    if let Some(baseline) = &options.baseline {
        choose(&[], &chosen, std::slice::from_ref(baseline))?;
    }
    let mut session = Session::start(&options.settings, &chosen)?;
    check(&mut session, &options.sizes)?;
    if !options.measure {
        return smoke(&mut session, bench, options);
    }
    println!("{}\n", Machine::of(&session));
    drop(session); // there can be only one
    match bench {
        Bench::RoundTrip if options.latency => measure_latency(&chosen, options)?,
        Bench::RoundTrip => measure(Experiment::RoundTrip, &chosen, options)?,
        Bench::Streaming => measure(Experiment::Streaming, &chosen, options)?,
        Bench::Paced => measure_paced(&chosen, options)?,
        Bench::Limits => hardware::measure(&chosen, options)?,
        Bench::Sleeping => sleeping::measure(&chosen, options)?,
        Bench::Slow => slow::measure(&chosen, options)?,
    }
    for transport in chosen {
        println!("{}: {}.", transport.name(), transport.about());
    }
    Ok(())
}

/// The transports on the command line, in that order, or the default ones.
fn choose(
    default: &[&'static dyn Transport],
    known: &[&'static dyn Transport],
    wanted: &[String],
) -> io::Result<Vec<&'static dyn Transport>> {
    match wanted {
        [] => Ok(default.to_vec()),
        [all] if all == "all" => Ok(known.to_vec()),
        _ => {
            let find = |name: &String| {
                let found = known.iter().find(|transport| transport.name() == name).copied();
                found.ok_or_else(|| unfit(format!("no transport {name}; there are {}", names(known))))
            };
            wanted.iter().map(find).collect()
        }
    }
}

/// The default baseline.
const BASELINE: &str = "classic";

fn measure(experiment: Experiment, chosen: &[&'static dyn Transport], options: &Options) -> io::Result<()> {
    let baseline = options.baseline.as_deref().unwrap_or(BASELINE);
    let experiments = [(experiment, &options.sizes[..])];
    let collected = collect_in_sessions(&options.settings, chosen, &experiments, options.duration()?)?;
    report(experiment, &collected, baseline, options);
    Ok(())
}

fn report(experiment: Experiment, collected: &Collected, baseline: &str, options: &Options) {
    let what = match experiment {
        Experiment::RoundTrip => "one round trip: a message there and one of the same size back",
        Experiment::Streaming => "one message of many sent in a row, timed where they are received",
    };
    println!("{}\n\n{}\n", collected.table(experiment, baseline), collected.floor_report());
    println!(
        "ns: median over n slices of {what}.\n\
         q1..q3: half of the slices lie between, over sessions whose memory lay in different places.\n\
         /floor: in units of the floor around the same slice. /{baseline}: ratio of the medians, smaller is faster;\n\
         ~ marks a ratio of two that wait in different ways. Every message is copied in and copied out.\n\
         {}: to yield and then to sleep in the kernel only when a short wait has not helped.",
        Mode::PollsThenSleeps
    );
    if options.settings.cold {
        println!(
            "cold: each slice began with its ring out of the level 1 and 2 caches (not of the last level) and did not lap it.\n\
             To see what that costs, compare with --burst of as many messages as fit the ring."
        );
    }
}

fn measure_latency(chosen: &[&'static dyn Transport], options: &Options) -> io::Result<()> {
    let (settings, sizes) = (&options.settings, &options.sizes[..]);
    report_latency(&latency::collect_in_sessions(settings, chosen, sizes, options.duration()?)?, options)
}

fn report_latency(latencies: &[Latency], options: &Options) -> io::Result<()> {
    if let Some(directory) = &options.hgrm {
        latency::save(latencies, directory)?;
    }
    println!("{}\n", latency::table(latencies));
    println!(
        "Each round trip is timed by itself and starts when the one before has ended. The clock's reading is included\n\
         and delays the next: compare within this table. A percentile that fewer than {} exceed is not shown.",
        latency::BEYOND
    );
    Ok(())
}

fn measure_paced(chosen: &[&'static dyn Transport], options: &Options) -> io::Result<()> {
    let Options { settings, sizes, rates, .. } = options;
    report_paced(&paced::collect_in_sessions(settings, chosen, sizes, rates, options.duration()?)?, options)
}

fn report_paced(paced: &[Paced], options: &Options) -> io::Result<()> {
    if let Some(directory) = &options.hgrm {
        paced::save(paced, directory)?;
    }
    println!("{}\n", paced::table(paced));
    println!(
        "rate: messages a second. Each carries the time at which it should be sent, and its delay counts from then, also if\n\
         the sender came late. kept up: the part of the slices whose last message arrived about when it should; in the\n\
         others the delays say how long a slice is ({} ms). What delays the floor too is the machine, which runs\n\
         something else now and then. A percentile that fewer than {} exceed is not shown.",
        paced::SLICE.as_millis(),
        latency::BEYOND
    );
    if paced::disturbed(paced) {
        println!(
            "Not even the floor kept up: something else ran on the two CPUs, and these delays are the scheduler's."
        );
    }
    let early: u64 = paced.iter().map(|paced| paced.early).sum();
    if early > 0 {
        let all: u64 = paced.iter().map(|paced| paced.histogram.len()).sum();
        println!(
            "{early} of {all} messages were there before they were sent: the clocks of the two CPUs differ."
        );
    }
    Ok(())
}

fn names(transports: &[&'static dyn Transport]) -> String {
    transports.iter().map(|transport| transport.name()).collect::<Vec<_>>().join(", ")
}

/// Checks, before anything is timed, that every transport delivers every byte both ways at every size.
fn check(session: &mut Session, sizes: &[usize]) -> io::Result<()> {
    for transport in 0..session.transports().len() {
        let name = session.transports()[transport].name();
        for &size in sizes {
            if session.fits(transport, size) {
                let checked = session.check_both_ways(transport, size, 24);
                checked.map_err(|error| about(format_args!("{name}, messages of {size} bytes"), error))?;
            }
        }
    }
    Ok(())
}

/// One slice of everything.
fn smoke(session: &mut Session, bench: Bench, options: &Options) -> io::Result<()> {
    let sizes = &options.sizes[..];
    let experiment = match bench {
        Bench::RoundTrip => Experiment::RoundTrip,
        Bench::Streaming => Experiment::Streaming,
        Bench::Limits => return hardware::smoke(session, options),
        Bench::Sleeping => return sleeping::smoke(session, options),
        Bench::Slow => return slow::smoke(session, options),
        Bench::Paced => {
            let paced = paced::collect(session, sizes, &options.rates[..1], Duration::ZERO)?;
            let messages: u64 = paced.iter().map(|paced| paced.histogram.len()).sum();
            println!(
                "smoke run, paced: {messages} messages; every byte intact over {}",
                names(session.transports())
            );
            return Ok(());
        }
    };
    let mut plan = Plan::new(Until::Rounds(1)).with(session, experiment, sizes);
    plan.slice = Duration::from_micros(50);
    let collected = slices::collect(session, &plan)?;
    for series in &collected.series {
        assert!(series.slices.len() as u64 + series.discarded > 0, "no slice of {:?}", series.config);
        assert!(series.slices.iter().all(|slice| slice.cost_ns > 0.0), "{:?} costs nothing", series.config);
    }
    let (_, all) = collected.discarded();
    println!("smoke run, {experiment}: {all} slices; every byte intact over {}", names(session.transports()));
    Ok(())
}

/// The transports that the benches of this project compare.
pub const TRANSPORTS: &[&dyn Transport] = transports::DEFAULT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_transports_can_be_named() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| name.to_string()).collect();
            let chosen = choose(&[transports::CLASSIC], transports::ALL, &wanted)?;
            io::Result::Ok(chosen.iter().map(|transport| transport.name()).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["classic"]);
        assert_eq!(names(&["pipe", "classic"]).unwrap(), ["pipe", "classic"]);
        assert_eq!(names(&["all"]).unwrap().len(), transports::ALL.len());
        assert!(names(&["carrier-pigeon"]).unwrap_err().to_string().contains("there are classic"));
    }
}
