//! `shmpipe stat`: shows the state of one pipe.

use shmpipe::Address;

use crate::exit::Outcome;
use crate::output::columns;
use crate::output::description::{self, Description};
use crate::output::report::{self, Report};

/// Shows one pipe in full.
pub fn run(address: &Address, report: Report) -> Outcome {
    let snapshot = shmpipe::inspect(address)?;
    report::print_and_end(&match report {
        Report::Json => report::json(&Description::of(&snapshot)) + "\n",
        Report::Text => columns::align(&description::details(&snapshot)),
    })
}
