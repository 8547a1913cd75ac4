//! Streaming: how long one of many messages in a row takes, for each size and transport, beside the floor of this machine.
//!
//! `cargo bench --bench throughput -- --help` lists the options.
use std::process::ExitCode;

use shmpipe_measure::bench::{self, Bench};

fn main() -> ExitCode {
    bench::main(Bench::Streaming, bench::TRANSPORTS)
}
