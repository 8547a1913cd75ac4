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
use clap::error::{ContextKind, ContextValue, ErrorKind};
use shmpipe_measure::{serve_if_partner, transports};

use args::Arguments;
use commands::external;
use exit::{Code, Failure, Outcome};
use output::printable;
use output::report::{self, Report};

fn main() -> ExitCode {
    serve_if_partner(transports::ALL);
    let (report, outcome) = match Arguments::try_parse() {
        Ok(arguments) => {
            let report = if arguments.json { Report::Json } else { Report::Text };
            (report, commands::run(&arguments.command, report))
        }
        Err(error) => misused(error),
    };
    if let Err(failure) = &outcome {
        report.failure(failure);
    }
    exit::code(&outcome)
}

/// The arguments are wrong, ask for help, or are for another program.
fn misused(error: clap::Error) -> (Report, Outcome) {
    let is_json = env::args_os().any(|word| word == "--json");
    if error.kind() == ErrorKind::InvalidSubcommand {
        if let Some(failure) = external::run(env::args_os().skip(1)) {
            return (if is_json { Report::Json } else { Report::Text }, Err(failure));
        }
    }
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return (Report::Text, report::print_and_end(&error.render().to_string()));
    }
    let error = with_printable_words(error);
    if is_json {
        return (Report::Json, Err(Failure::new(Code::Usage, message(&error.to_string()))));
    }
    // There is nowhere to report a closed standard error.
    let _ = error.print();
    std::process::exit(Code::Usage as i32);
}

/// Escapes the user's words in an error: they may come from another user's names.
fn with_printable_words(mut error: clap::Error) -> clap::Error {
    let escaped = |value: &ContextValue| match value {
        ContextValue::String(text) => Some(ContextValue::String(printable(text))),
        ContextValue::Strings(texts) => {
            Some(ContextValue::Strings(texts.iter().map(|text| printable(text)).collect()))
        }
        _ => None,
    };
    let words: Vec<_> = error.context().filter_map(|(kind, value)| Some((kind, escaped(value)?))).collect();
    for (kind, value) in words {
        if error.insert(kind, value.clone()) != Some(value) {
            // It repeats the words.
            error.remove(ContextKind::Suggested);
        }
    }
    error
}

/// The whole message of an error, without the usage that follows it, on one line.
fn message(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let message =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    message.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}
