//! `shmpipe metrics`: the counters of pipes as text for Prometheus, on standard output or by HTTP.

mod families;
mod http;

use std::collections::HashSet;

use shmpipe::{Address, Location, SetupError, Snapshot};

use crate::args;
use crate::exit::Outcome;
use crate::output::description;
use crate::output::report::{self, Report};
use crate::system::pipes;

/// A pipe that was named or found.
#[derive(Debug)]
struct Pipe {
    /// The value of the label `pipe`, which no other pipe has.
    name: String,
    /// Its kind of shared memory.
    kind: &'static str,
    /// `None` if it cannot be read.
    snapshot: Option<Snapshot>,
}

pub fn run(arguments: &args::Metrics, report: Report) -> Outcome {
    if let Some(address) = arguments.listen {
        return http::serve(address, &arguments.addresses, report);
    }
    let (pipes, trouble) = look(&arguments.addresses);
    trouble.iter().for_each(|trouble| report.note(trouble));
    report::print_and_end(&families::encode(pipes, arguments.format))
}

/// Looks at the named pipes, or at all pipes of this machine. Also returns what could not be read.
fn look(addresses: &[Address]) -> (Vec<Pipe>, Vec<String>) {
    let mut trouble = Vec::new();
    let looked: Vec<(Location, Result<Snapshot, SetupError>)> = if addresses.is_empty() {
        let (found, error) = pipes::all();
        trouble.extend(error.map(|error| error.to_string()));
        found.into_iter().map(|pipe| (pipe.location, pipe.snapshot)).collect()
    } else {
        let mut seen = HashSet::new();
        let named = addresses.iter().filter(|address| seen.insert(*address));
        named.map(|address| (Location::Address(address.clone()), shmpipe::inspect(address))).collect()
    };
    let mut names = HashSet::new();
    let mut pipes = Vec::new();
    for (location, snapshot) in looked {
        let mut name = location.to_string();
        // Two removed files can have had the same path, and bytes that are not UTF-8 are shown as text that another path may have.
        if !names.insert(name.clone()) {
            let Ok(snapshot) = &snapshot else { continue };
            name += &format!(" {}", snapshot.segment_id);
            if !names.insert(name.clone()) {
                continue;
            }
        }
        if let Err(error) = &snapshot {
            trouble.push(format!("{name}: {error}"));
        }
        let kind = description::kind(&location);
        pipes.push(Pipe { name, kind, snapshot: snapshot.ok() });
    }
    (pipes, trouble)
}
