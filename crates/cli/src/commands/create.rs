//! `shmpipe create`: creates a pipe and prints its address.

use crate::args;
use crate::exit::{Code, Failure, Outcome};
use crate::output::description::Description;
use crate::output::report::{self, Report};

/// Makes a pipe and says where it is.
pub fn run(arguments: &args::Create, report: Report) -> Outcome {
    if arguments.address.to_string() == "memfd" {
        let text =
            "a memfd goes with the process that makes it; \"shmpipe serve PATH\" makes one and keeps it";
        return Err(Failure::new(Code::Usage, text));
    }
    let pipe = arguments.options().create(&arguments.address)?;
    let address = pipe.address().clone();
    // What is described is what others find, without us.
    drop(pipe);
    report::answer_and_end(&match report {
        Report::Programs => {
            report::json(&Description::of(&shmpipe::inspect(&address).map_err(Failure::from)?)) + "\n"
        }
        Report::People => format!("{address}\n"),
    })
}
