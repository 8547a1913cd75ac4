//! Limits of hardware and kernel: round trips of one and of two cache lines and of a futex, and the bandwidth between two cores,
//! beside the ring.
//!
//! `cargo bench --bench limits -- --help` lists the options.
use std::process::ExitCode;

use shmpipe_measure::bench::{self, Bench};
use shmpipe_measure::transports::{CLASSIC, SHMPIPE, SHMPIPE_SPIN, SHMPIPE_TRUSTED};

fn main() -> ExitCode {
    bench::main(Bench::Limits, &[CLASSIC, SHMPIPE, SHMPIPE_SPIN, SHMPIPE_TRUSTED])
}
