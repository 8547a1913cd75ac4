//! Round trips: the time of a message and its answer, for each size and transport, beside the floor of this machine.
//!
//! `cargo bench --bench ping_pong -- --help` lists the options.
use std::process::ExitCode;

use shmpipe_measure::bench::{self, Bench};

fn main() -> ExitCode {
    bench::main(Bench::RoundTrip, bench::TRANSPORTS)
}
