//! `shmpipe stat`: shows the state of one pipe.

mod watch;

use shmpipe::Location;

use crate::args;
use crate::exit::Outcome;
use crate::output::columns;
use crate::output::description::{self, Description};
use crate::output::report::{self, Report};

/// Shows one pipe in full, or in a line per interval.
pub fn run(arguments: &args::Stat, report: Report) -> Outcome {
    if let Some(interval) = arguments.watch {
        return watch::run(&arguments.address, interval, report);
    }
    let snapshot = shmpipe::inspect(&arguments.address)?;
    report::print_and_end(&match report {
        Report::Json => report::json(&Description::of(&snapshot)) + "\n",
        Report::Text => {
            columns::align(&description::details(&Location::Address(snapshot.address.clone()), &snapshot))
        }
    })
}
