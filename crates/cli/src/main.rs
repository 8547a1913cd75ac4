//! The command line of shmpipe: `send` and `recv` move data, `create`, `serve`, `ls`, `stat` and `rm` deal with pipes, `doctor`
//! looks for what is in their way, `demo` and `bench` show what the machine can do, `completions` and `man` write what the
//! shell and `man` know of all these.

mod args;
mod commands;
mod exit;
mod output;
mod system;

use std::env;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use shmpipe_measure::{serve_if_partner, transports};

use args::Arguments;
use exit::{Code, End, Failure, Outcome};
use output::report::Report;

fn main() -> ExitCode {
    serve_if_partner(transports::ALL);
    let (report, outcome) = match Arguments::try_parse() {
        Ok(arguments) => {
            let report = if arguments.json { Report::Programs } else { Report::People };
            (report, commands::run(&arguments.command, report))
        }
        Err(error) => misused(&error),
    };
    if let Err(failure) = &outcome {
        report.failure(failure);
    }
    exit::code(&outcome)
}

/// The arguments were not understood, or ask for help.
fn misused(error: &clap::Error) -> (Report, Outcome) {
    let is_usage = error.exit_code() != 0;
    if is_usage && env::args_os().any(|word| word == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        return (Report::Programs, Err(Failure::new(Code::Usage, message)));
    }
    // Whoever closed the output does not want to know.
    let _ = error.print();
    if is_usage {
        std::process::exit(Code::Usage as i32);
    }
    debug_assert!(matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion));
    (Report::People, Ok(End::Done))
}
