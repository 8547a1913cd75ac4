//! `--against REV`: other revisions of the library, measured as further transports of the same program.
//!
//! ```text
//! cargo bench --bench ping_pong -- --against HEAD
//! cargo bench --bench throughput -- --against old=v1,../copy --placements 5 --seconds 60 --transports shmpipe,shmpipe-batch
//! ```
//!
//! Two builds measured one after the other differ by more than most changes do: the machine moved, or the memory lies
//! elsewhere. So one program holds the library of this tree and those of the others, and their slices alternate.
//!
//! # How
//! 1. Each revision is a commit, whose files are exported, or a directory, which is used as it is ([`revision`]).
//! 2. `target/against` gets a small workspace ([`workspace`]): for each tree a package `shmpipe-against-N` around its
//!    `src/lib.rs`, for each an adapter around `crates/measure/src/transports/shmpipe.rs`, and one program that links them
//!    all. Tree 0 is this one. It is built like the others, so that equal sources make equal code.
//! 3. This process starts the program for one session after another, some seconds long, and puts together what the program
//!    writes to its standard output ([`session`], [`record`]). The memory lies elsewhere in each session.
//! 4. The tables show all transports; the last one shows the ratios of this tree to each revision ([`ratios`]).
//!
//! # Code placement
//! Where a function lies in memory is worth up to a fifth of a small figure, and any change to any function moves all those
//! behind it. With `--placements N` the program is linked N times: as usual, and N - 1 times with its functions in random
//! order (`--shuffle-sections` of lld, by which rustc links on x86-64 Linux). Nothing else differs, and only the link is done
//! anew. The sessions of the programs alternate. A ratio whose range over the placements includes 1 shows no difference.
//!
//! # To check by hand
//! - `--against HEAD` without changes: ratios of about 1.00.
//! - `--against` a copy with a `std::hint::spin_loop()` too many on its hot path: below 1.
//! - `nm target/against/target/release/placement-*`: the same functions at different addresses modulo 64.

mod manifest;
mod ratios;
mod record;
mod revision;
mod session;
mod workspace;

use std::env;
use std::io;
use std::time::Duration;

pub use self::session::serve;

use self::ratios::{Ratios, Run};
use self::record::{Measured, Report};
use self::workspace::Workspace;
use super::{Bench, Options, report, report_latency, report_paced};
use crate::errors::unfit;
use crate::machine::Machine;
use crate::session::{Experiment, Session};

/// How long the program measures in one session. Shorter ones lie in more places.
const SESSION: Duration = Duration::from_secs(1);
/// The same where a slice takes longer.
const PACED_SESSION: Duration = Duration::from_secs(2);

/// What the program is told to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Slices(Experiment),
    Latency,
    Paced,
}

impl What {
    fn of(bench: Bench, options: &Options) -> What {
        match bench {
            Bench::RoundTrip if options.latency => What::Latency,
            Bench::RoundTrip => What::Slices(Experiment::RoundTrip),
            Bench::Streaming => What::Slices(Experiment::Streaming),
            Bench::Paced | Bench::Limits | Bench::Sleeping => What::Paced,
        }
    }
}

/// The name of a bench on the program's command line.
fn bench_name(bench: Bench) -> &'static str {
    match bench {
        Bench::RoundTrip => "ping_pong",
        Bench::Streaming => "throughput",
        Bench::Paced => "paced",
        Bench::Limits => "limits",
        Bench::Sleeping => "sleeping",
    }
}

/// Builds the program, measures and reports.
pub(super) fn run(bench: Bench, options: &Options) -> io::Result<()> {
    let what = What::of(bench, options);
    let duration = options.duration()?;
    let revisions = revision::parse_all(&options.against)?;
    let workspace = Workspace::open()?;
    let trees = revisions.iter().map(|revision| workspace.tree(revision)).collect::<io::Result<Vec<_>>>()?;
    let programs = workspace.build(&revisions, &trees, options.placements)?;

    println!("{}\n", Machine::of(&Session::start(&options.settings, &[])?));
    let length = if what == What::Paced { PACED_SESSION } else { SESSION };
    let rounds = duration.div_duration_f64(length * programs.len() as u32).round().max(1.0) as u32;
    let length = duration / (rounds * programs.len() as u32);
    let words = passed_on(env::args().skip(1));
    let mut runs = Vec::new();
    let mut all: Option<Report> = None;
    for round in 0..rounds {
        for (number, program) in programs.iter().enumerate() {
            let text = session::start(program, bench, round, &words, length)?;
            let found = Report::read(&text, what, &options.settings, all.as_ref())?;
            runs.push(Run { program: number, points: found.measured.points() });
            match &mut all {
                Some(all) => all.append(found)?,
                None => all = Some(found),
            }
        }
    }
    let Some(all) = all else { return Err(unfit("nothing was measured")) };
    let baseline = match &options.baseline {
        Some(name) => name.clone(),
        None => all.default_baseline(),
    };
    match (&all.measured, what) {
        (Measured::Slices(collected), What::Slices(experiment)) => {
            report(experiment, collected, &baseline, options)
        }
        (Measured::Slices(_), _) => unreachable!("slices are measured for a table of slices"),
        (Measured::Latency(latencies), _) => report_latency(latencies, options)?,
        (Measured::Paced(paced), _) => report_paced(paced, options)?,
    }
    for transport in &all.transports {
        println!("{}: {}.", transport.name, transport.about);
    }
    for (revision, tree) in revisions.iter().zip(&trees) {
        println!("{revision}{}.", tree.adapter_note());
    }
    println!("\n{}", Ratios::new(&all, &runs, programs.len()));
    Ok(())
}

/// The options that the program gets, too: all but those of this module.
fn passed_on(mut words: impl Iterator<Item = String>) -> Vec<String> {
    let mut passed = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--against" | "--placements" => drop(words.next()),
            _ => passed.push(word),
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_gets_the_other_options() {
        let words = ["--bench", "--against", "HEAD", "--sizes", "8", "--placements", "3", "--cold"];
        let passed = passed_on(words.iter().map(|word| word.to_string()));
        assert_eq!(passed, ["--bench", "--sizes", "8", "--cold"]);
    }
}
