//! Compares shmpipe with its peers; see README.md.

#[cfg(feature = "aeron")]
mod affinity;
mod errors;
#[cfg(feature = "cpp")]
mod foreign;
mod late;
mod options;
mod peers;
mod report;
mod run;
mod scratch;
mod slots;

use std::process::ExitCode;

use clap::Parser;
use shmpipe_measure::serve_if_partner;

use crate::options::Options;
use crate::peers::Company;

fn main() -> ExitCode {
    serve_if_partner(&Company::joinable());
    match run::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
