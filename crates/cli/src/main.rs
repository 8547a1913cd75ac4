//! The command line of shmpipe: `send`, `recv` and `duplex` move data; `create`, `serve`, `keep`, `ls`, `stat` and `rm` manage pipes;
//! `doctor` finds problems; `demo` and `bench` measure; `completions` and `man` print shell completions and man pages.

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
            let report = if arguments.json { Report::Json } else { Report::Text };
            (report, commands::run(&arguments.command, report))
        }
        Err(error) => misused(&error),
    };
    if let Err(failure) = &outcome {
        report.failure(failure);
    }
    exit::code(&outcome)
}

/// The arguments are wrong, or ask for help.
fn misused(error: &clap::Error) -> (Report, Outcome) {
    let is_usage = error.exit_code() != 0;
    if is_usage && env::args_os().any(|word| word == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        return (Report::Json, Err(Failure::new(Code::Usage, message)));
    }
    // There is nowhere to report a closed output.
    let _ = error.print();
    if is_usage {
        std::process::exit(Code::Usage as i32);
    }
    debug_assert!(matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion));
    (Report::Text, Ok(End::Done))
}
