//! `shmpipe rm`: removes pipes.

pub mod stale;

use serde::Serialize;
use shmpipe::{Address, Peer, SetupError};

use crate::exit::{Code, End, Failure, Outcome};
use crate::output::description::sides;
use crate::output::report::{self, Report, SCHEMA};

/// A removed pipe, as a JSON object.
#[derive(Serialize)]
pub struct Removed {
    schema: u32,
    removed: String,
}

impl Removed {
    pub fn new(address: &Address) -> Self {
        Removed { schema: SCHEMA, removed: address.to_string() }
    }
}

/// The failures of a command that continues after them and ends with the exit code of the first one.
#[derive(Default)]
pub struct Failures {
    first: Option<Code>,
    /// Reported at the end, by `main`.
    last: Option<Failure>,
}

impl Failures {
    pub fn add(&mut self, failure: Failure, report: Report) {
        self.first.get_or_insert(failure.code);
        if let Some(before) = self.last.replace(failure) {
            report.failure(&before);
        }
    }

    pub fn outcome(self) -> Outcome {
        match (self.first, self.last) {
            (Some(code), Some(failure)) => Err(Failure { code, ..failure }),
            _ => Ok(End::Done),
        }
    }
}

/// Removes pipes.
pub fn run(addresses: &[Address], force: bool, report: Report) -> Outcome {
    let mut failures = Failures::default();
    for address in addresses {
        match remove_one(address, force, report) {
            Ok(()) if report.is_json() => report::print(&(report::json(&Removed::new(address)) + "\n"))?,
            Ok(()) => {}
            Err(failure) => failures.add(failure, report),
        }
    }
    failures.outcome()
}

fn remove_one(address: &Address, force: bool, report: Report) -> Result<(), Failure> {
    if !force {
        return shmpipe::unlink(address).map_err(|error| {
            let held = matches!(error, SetupError::RoleTaken { .. } | SetupError::SideTaken { .. });
            let failure = Failure::from(error).about(address);
            match held {
                true => Failure { message: failure.message + " (--force removes it anyway)", ..failure },
                false => failure,
            }
        });
    }
    // A hint: they may change while we remove it.
    let holders = shmpipe::inspect(address).map(|snapshot| {
        sides(&snapshot).map(|(name, side)| match (side.peer, side.pid) {
            (Peer::Open, Some(pid)) if snapshot.duplex => Some(format!("process {pid} held {name}")),
            (Peer::Open, None) if snapshot.duplex => Some(format!("a process held {name}")),
            (Peer::Open, Some(pid)) => Some(format!("process {pid} was its {name}")),
            (Peer::Open, None) => Some(format!("it had a {name}")),
            _ => None,
        })
    });
    shmpipe::unlink_force(address).map_err(|error| Failure::from(error).about(address))?;
    let holders: Vec<String> = holders.into_iter().flatten().flatten().collect();
    if !holders.is_empty() {
        report.note(format_args!("{address}: removed while {}", holders.join(" and ")));
    }
    Ok(())
}
