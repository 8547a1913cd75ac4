//! Opening a pipe and taking one of its roles.

use shmpipe::{Address, Pipe, SetupError};

use crate::args::PipeArgs;
use crate::exit::Failure;
use crate::output::report::Report;

/// How often to start again because the pipe was removed between our opening it and our taking the role.
const ATTEMPTS: u32 = 20;

/// Opens the pipe, or makes it, and takes a role. Tells which wishes an existing pipe does not fulfil.
pub fn take_role<E>(
    arguments: &PipeArgs,
    report: Report,
    claim: impl Fn(&Pipe) -> Result<E, SetupError>,
) -> Result<E, Failure> {
    let options = arguments.options();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let pipe = options.open_or_create(&arguments.address)?;
        match claim(&pipe) {
            Ok(endpoint) => {
                tell(&pipe, &arguments.address, report);
                return Ok(endpoint);
            }
            Err(SetupError::Removed { .. } | SetupError::Replaced { .. }) if attempts < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn tell(pipe: &Pipe, asked: &Address, report: Report) {
    for kept in pipe.kept() {
        report.note(format_args!("the pipe at {asked} existed already: {kept}"));
    }
    let (asked, found) = (asked.to_string(), pipe.address().to_string());
    if asked == "memfd" {
        let number = found.trim_start_matches("fd:");
        report.note(format_args!(
            "nobody finds this pipe but as /proc/{}/fd/{number}; \"shmpipe serve PATH\" makes one for memfd:PATH",
            std::process::id()
        ));
    } else if asked != found && !asked.starts_with("fd:") {
        report.note(format_args!("the other side finds this pipe at {found}"));
    }
}
