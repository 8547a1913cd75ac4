//! Opens a pipe and claims one of its roles, for `send`, `recv` and `duplex`.

use shmpipe::{Address, Lost, Options, Pipe, SetupError};

use crate::exit::Failure;
use crate::output::report::Report;

/// How often to retry when the pipe is removed between opening it and claiming the role.
const ATTEMPTS: u32 = 20;

/// Opens or creates the pipe and claims a role. Reports the requested options that an existing pipe does not have.
pub fn claim<E>(
    address: &Address,
    options: &Options,
    report: Report,
    role: impl Fn(&Pipe) -> Result<E, SetupError>,
) -> Result<E, Failure> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let pipe = options.open_or_create(address)?;
        match role(&pipe) {
            Ok(endpoint) => {
                report_differences(&pipe, address, report);
                return Ok(endpoint);
            }
            Err(
                SetupError::Lost { lost: Lost::Removed, .. } | SetupError::Lost { lost: Lost::Replaced, .. },
            ) if attempts < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn report_differences(pipe: &Pipe, requested: &Address, report: Report) {
    for kept in pipe.differences() {
        report.note(format_args!("the pipe at {requested} already existed: {kept}"));
    }
    let (requested, actual) = (requested.to_string(), pipe.address().to_string());
    if requested == "memfd" {
        let number = actual.trim_start_matches("fd:");
        report.note(format_args!(
            "this pipe can be reached only as /proc/{}/fd/{number}; \"shmpipe serve PATH\" creates one for memfd:PATH",
            std::process::id()
        ));
    } else if requested != actual && !requested.starts_with("fd:") {
        report.note(format_args!("the address of this pipe for the other side is {actual}"));
    }
}
