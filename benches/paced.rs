//! One-way delays at given rates: from the time at which a message was due to its arrival, for each rate, size and transport,
//! beside the floor of this machine.
//!
//! `cargo bench --bench paced -- --help` lists the options.
use std::process::ExitCode;

use shmpipe_measure::bench::{self, Bench};

fn main() -> ExitCode {
    bench::main(Bench::Paced, bench::TRANSPORTS)
}
