//! Streaming: how long one of many messages in a row takes, for each size and transport, beside the floor of this machine.
//!
//! `cargo bench --bench throughput -- --help` lists the options.
use std::process::ExitCode;

use shmpipe_measure::{Experiment, bench};

fn main() -> ExitCode {
    bench::main(Experiment::Streaming, bench::TRANSPORTS)
}
