//! `--against REV`: measures other revisions of the library as further transports of the same program.
//!
//! ```text
//! cargo bench --bench ping_pong -- --against HEAD
//! cargo bench --bench throughput -- --against old=HEAD~3,../copy --placements 5 --seconds 60 --transports shmpipe,shmpipe-batch
//! ```
//!
//! Two programs measured one after the other differ by more than most changes, because the machine moves and the memory has
//! another place. Here one program contains the library of this tree and those of the revisions, and their slices alternate.
//!
//! # How it works
//! 1. A revision is a commit, whose files are exported, or a directory (`revision`).
//! 2. A workspace in `target/against` has, for each tree, a package `shmpipe-against-N` around its `src/lib.rs` and an adapter
//!    around its `crates/measure/src/transports/shmpipe.rs` (`manifest`, `workspace`). The head of that file says which
//!    adapter a revision gets. Tree 0 is this one. It is built like the others, so equal sources give equal machine code.
//!    Compiler flags, profile and lock file are those of this tree.
//! 3. One program links all adapters. This process starts it for successive sessions of a second or two, and merges its
//!    output (`program`, `record`). Each session has its memory elsewhere and creates its rings in another order.
//! 4. The usual tables show all transports. The last one shows the ratio of this tree to each revision (`ratios`).
//!
//! # Code placement
//! The address of a function can change a small figure by a fifth, and a change to one function moves all functions behind it.
//! `--placements N` links the program N times: once as usual, and N - 1 times with its functions in a random order, with the
//! linker's option `--shuffle-sections`. The linker must be lld, rustc's default on x86-64 Linux. Nothing else differs. The
//! sessions of the N programs alternate.
//!
//! # Manual checks
//! The tests do not build the workspace, since that takes half a minute.
//!
//! - `--against HEAD --placements 5`, without changes: the range of each ratio includes 1.
//! - `--against slow=DIR`, where DIR is a copy of the repository with `std::hint::spin_loop()` added to `Writer::publish`: the
//!   ratios are below 1.
//! - `nm target/against/target/release/placement-*`: the functions have other addresses modulo 64 in each program.
//! - `--against DIR`, where DIR has an adapter that does not compile: the error names the file.

mod manifest;
mod program;
mod ratios;
mod record;
mod revision;
mod workspace;

use std::env;
use std::io;
use std::time::Duration;

pub use self::program::serve;

use self::ratios::{Ratios, Run};
use self::record::{Measured, Report};
use self::workspace::Workspace;
use super::{Bench, Options, report, report_latency, report_paced};
use crate::errors::unfit;
use crate::machine::Machine;
use crate::session::{Experiment, Session};

/// How long the program measures in one session. Shorter sessions give more places of the memory.
const SESSION: Duration = Duration::from_secs(1);
/// The same for slices of 10 ms.
const PACED_SESSION: Duration = Duration::from_secs(2);

/// The benches that can compare, with their names on the program's command line.
const BENCHES: [(&str, Bench); 3] =
    [("ping_pong", Bench::RoundTrip), ("throughput", Bench::Streaming), ("paced", Bench::Paced)];

/// The results of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Slices(Experiment),
    Latency,
    Paced,
}

impl What {
    fn of(bench: Bench, options: &Options) -> io::Result<What> {
        match bench {
            Bench::RoundTrip if options.latency => Ok(What::Latency),
            Bench::RoundTrip => Ok(What::Slices(Experiment::RoundTrip)),
            Bench::Streaming => Ok(What::Slices(Experiment::Streaming)),
            Bench::Paced => Ok(What::Paced),
            Bench::Limits | Bench::Sleeping | Bench::Slow => {
                Err(unfit("--against: this bench does not compare"))
            }
        }
    }
}

/// Builds the program, measures and reports.
pub(super) fn run(bench: Bench, options: &Options) -> io::Result<()> {
    let what = What::of(bench, options)?;
    let duration = options.duration()?;
    let revisions = revision::parse_all(&options.against)?;
    let workspace = Workspace::open()?;
    let trees = revisions.iter().map(|revision| workspace.tree(revision)).collect::<io::Result<Vec<_>>>()?;
    let programs = workspace.build(&revisions, &trees, options.placements)?;

    // shown first; this process's session ends before those of the program start
    println!("{}\n", Machine::of(&Session::start(&options.settings, &[])?));
    let length = if what == What::Paced { PACED_SESSION } else { SESSION };
    let rounds = duration.div_duration_f64(length * programs.len() as u32).round().max(1.0) as u32;
    let length = duration / (rounds * programs.len() as u32);
    let words = passed_on(env::args().skip(1));
    let mut runs = Vec::new();
    let mut all: Option<Report> = None;
    for round in 0..rounds {
        for (number, program) in programs.iter().enumerate() {
            let text = program::start(program, bench, round, &words, length)?;
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

/// The options that are passed to the program: all but those of this module.
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
    fn program_gets_the_other_options() {
        let words = ["--bench", "--against", "HEAD", "--sizes", "8", "--placements", "3", "--cold"];
        let passed = passed_on(words.iter().map(|word| word.to_string()));
        assert_eq!(passed, ["--bench", "--sizes", "8", "--cold"]);
    }
}
