//! `shmpipe create`: creates a pipe and prints its address.

use crate::args;
use crate::exit::{Code, Failure, Outcome};
use crate::output::description::Description;
use crate::output::printable;
use crate::output::report::{self, Report};

/// Creates a pipe and prints its address.
pub fn run(arguments: &args::Create, report: Report) -> Outcome {
    if arguments.address.to_string() == "memfd" {
        let text = "a memfd lives only as long as a process has it open; use \"shmpipe serve PATH\"";
        return Err(Failure::new(Code::Usage, text));
    }
    let pipe = arguments.options().create(&arguments.address)?;
    let address = pipe.address().clone();
    // Closed first, so that the description shows what others find.
    drop(pipe);
    report::print_and_end(&match report {
        Report::Json => {
            report::json(&Description::of(&shmpipe::inspect(&address).map_err(Failure::from)?)) + "\n"
        }
        Report::Text => format!("{}\n", printable(&address.to_string())),
    })
}
