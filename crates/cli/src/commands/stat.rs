//! `shmpipe stat`: shows the state of one pipe.

use shmpipe::Address;

use crate::exit::Outcome;
use crate::output::columns;
use crate::output::description::{self, Description};
use crate::output::report::{self, Report};

/// One pipe in full.
pub fn run(address: &Address, report: Report) -> Outcome {
    let snapshot = shmpipe::inspect(address)?;
    report::answer_and_end(&match report {
        Report::Programs => report::json(&Description::of(&snapshot)) + "\n",
        Report::People => columns::align(&description::in_full(&snapshot)),
    })
}
