//! What the benches have in common: their options, the smoke run, and the report.

use std::env;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use crate::errors::{about, unfit};
use crate::latency;
use crate::machine::Machine;
use crate::partner;
use crate::session::{Experiment, Session, Settings};
use crate::slices::{self, Plan, Until, collect_in_sessions};
use crate::transports::{self, Mode, Transport};

/// Message sizes where something changes: a word, half a line, a line with a record's header and without, and up from there.
pub const SIZES: [usize; 8] = [8, 32, 56, 64, 256, 1024, 8192, 65536];

const USAGE: &str = "\
options after `cargo bench --bench NAME --`:
  --seconds N          how long to measure (default 20)
  --sizes A,B          bytes of a message
  --transports A,B     which to compare
  --cpus A,B           on which CPUs (default: the first two allowed)
  --capacity N         bytes of ring data each way, a power of two (default 1048576)
  --burst N            messages of a slice (default: as many as last half a millisecond)
  --near-below N       floors below so many nanoseconds count as near (default 80)
  --latency            time each round trip and show percentiles (round trips only)";

/// The main function of a bench of one experiment over the given transports.
///
/// `cargo bench` passes `--bench`, and the bench measures. Without it (`cargo test --benches`) a smoke run takes a moment:
/// it checks that every transport delivers every byte both ways at every size, and that slices can be taken; it reports no
/// figures.
pub fn main(experiment: Experiment, transports: &[&'static dyn Transport]) -> ExitCode {
    partner::serve_if_partner(transports);
    match Options::parse(env::args().skip(1)).and_then(|options| run(experiment, transports, &options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq)]
struct Options {
    measure: bool,
    list: bool,
    latency: bool,
    help: bool,
    seconds: f64,
    sizes: Vec<usize>,
    transports: Vec<String>,
    cpus: Option<(usize, usize)>,
    capacity: usize,
    near_below_ns: f64,
    burst: Option<u64>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Options> {
        let settings = Settings::default();
        let mut options = Options {
            measure: false,
            list: false,
            latency: false,
            help: false,
            seconds: 20.0,
            sizes: SIZES.to_vec(),
            transports: Vec::new(),
            cpus: None,
            capacity: settings.capacity,
            near_below_ns: settings.near_below_ns,
            burst: None,
        };
        let mut unknown = None;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| unfit(format!("{word} needs a value\n{USAGE}")));
            match word.as_str() {
                "--bench" => options.measure = true,
                "--list" => options.list = true,
                "--latency" => options.latency = true,
                "--help" | "-h" => options.help = true,
                "--seconds" => options.seconds = number(&word, &value()?)?,
                "--sizes" => options.sizes = numbers(&word, &value()?)?,
                "--transports" => options.transports = value()?.split(',').map(str::to_owned).collect(),
                "--cpus" => match numbers(&word, &value()?)?[..] {
                    [a, b] => options.cpus = Some((a, b)),
                    _ => return Err(unfit(format!("--cpus needs two numbers\n{USAGE}"))),
                },
                "--capacity" => options.capacity = number(&word, &value()?)?,
                "--burst" => options.burst = Some(number(&word, &value()?)?),
                "--near-below" => options.near_below_ns = number(&word, &value()?)?,
                _ => unknown = Some(word),
            }
        }
        // `cargo test` hands the options of its own harness to every target: a smoke run is not the one to complain
        match unknown {
            Some(word) if options.measure => {
                Err(unfit(format!("{word}: not an option of this bench\n{USAGE}")))
            }
            _ => Ok(options),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            cpus: self.cpus,
            capacity: self.capacity,
            near_below_ns: self.near_below_ns,
            burst: self.burst,
        }
    }
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> io::Result<T> {
    text.parse().map_err(|_| unfit(format!("{option} {text}: not a number\n{USAGE}")))
}

fn numbers(option: &str, text: &str) -> io::Result<Vec<usize>> {
    text.split(',').map(|part| number(option, part)).collect()
}

fn run(experiment: Experiment, transports: &[&'static dyn Transport], options: &Options) -> io::Result<()> {
    if options.help {
        println!("{USAGE}");
        return Ok(());
    }
    if options.list {
        return Ok(()); // no tests with names of their own
    }
    let mut chosen = transports.to_vec();
    if !options.transports.is_empty() {
        chosen.retain(|transport| options.transports.iter().any(|name| name == transport.name()));
        for name in &options.transports {
            if !chosen.iter().any(|transport| transport.name() == name) {
                return Err(unfit(format!("no transport {name}; there are {}", names(transports))));
            }
        }
    }
    let mut session = Session::start(&options.settings(), &chosen)?;
    check(&mut session, &options.sizes)?;
    if !options.measure {
        return smoke(&mut session, experiment, &options.sizes);
    }
    println!("{}\n", Machine::of(&session));
    let duration = Duration::try_from_secs_f64(options.seconds)
        .map_err(|error| unfit(format!("--seconds {}: {error}", options.seconds)))?;
    drop(session); // there can be only one
    let sizes = &options.sizes[..];
    if options.latency {
        let latencies = latency::collect_in_sessions(&options.settings(), &chosen, sizes, duration)?;
        println!("{}\n", latency::table(&latencies));
        println!(
            "Each round trip is timed by itself and starts when the one before has ended. The clock's reading is included\n\
             and delays the next: compare within this table. A percentile that fewer than {} exceed is not shown.",
            latency::BEYOND
        );
    } else {
        let collected = collect_in_sessions(&options.settings(), &chosen, &[(experiment, sizes)], duration)?;
        println!("{}\n\n{}\n", collected.table(experiment, BASELINE), collected.floor_report());
        print_legend(experiment);
    }
    for transport in chosen {
        println!("{}: {}.", transport.name(), transport.about());
    }
    Ok(())
}

/// With which the others are compared.
const BASELINE: &str = "classic";

fn print_legend(experiment: Experiment) {
    let what = match experiment {
        Experiment::RoundTrip => "one round trip: a message there and one of the same size back",
        Experiment::Streaming => "one message of many sent in a row, timed where they are received",
    };
    println!(
        "ns: median over n slices of {what}.\n\
         q1..q3: half of the slices lie between, over sessions whose memory lay in different places.\n\
         /floor: in units of the floor around the same slice. /{BASELINE}: ratio of the medians, smaller is faster;\n\
         ~ marks a ratio of two that wait in different ways. Every message is copied in and copied out.\n\
         {}: to yield and then to sleep in the kernel only when a short wait has not helped.",
        Mode::PollsThenSleeps
    );
}

fn names(transports: &[&'static dyn Transport]) -> String {
    transports.iter().map(|transport| transport.name()).collect::<Vec<_>>().join(", ")
}

/// Before anything is timed: every transport delivers every byte, both ways, at every size.
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
fn smoke(session: &mut Session, experiment: Experiment, sizes: &[usize]) -> io::Result<()> {
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
pub const TRANSPORTS: &[&dyn Transport] = transports::ALL;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> io::Result<Options> {
        Options::parse(words.iter().map(|word| word.to_string()))
    }

    #[test]
    fn options_are_read() {
        let options =
            parse(&["--bench", "--seconds", "1.5", "--sizes", "8,64", "--cpus", "2,3", "--latency"]).unwrap();
        assert!(options.measure && options.latency);
        assert_eq!((options.seconds, options.sizes, options.cpus), (1.5, vec![8, 64], Some((2, 3))));
    }

    #[test]
    fn a_smoke_run_ignores_what_a_test_harness_knows() {
        assert!(!parse(&["--nocapture", "some_filter", "--test-threads=1"]).unwrap().measure);
    }

    #[test]
    fn a_measurement_refuses_what_it_does_not_know() {
        assert!(parse(&["--bench", "--second", "1"]).is_err());
        assert!(parse(&["--bench", "--seconds"]).is_err());
        assert!(parse(&["--bench", "--cpus", "1"]).is_err());
        assert!(parse(&["--bench", "--sizes", "8,x"]).is_err());
    }
}
