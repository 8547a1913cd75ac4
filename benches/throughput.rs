//! Streaming: the time of one of many successive messages, for each size and transport, beside the floor of this machine.
//!
//! `cargo bench --bench throughput -- --help` lists the options.
use std::process::ExitCode;

use shmpipe_measure::bench::{self, Bench};

fn main() -> ExitCode {
    bench::main(Bench::Streaming, bench::TRANSPORTS)
}
