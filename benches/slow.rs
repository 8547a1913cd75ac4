//! The processor time of a side whose partner is slow: a producer before a full ring, and a consumer before an empty one, beside a Unix
//! pipe.
//!
//! `cargo bench --bench slow -- --help` lists the options.
use std::process::ExitCode;

use shmpipe_measure::bench::{self, Bench};
use shmpipe_measure::transports::{PIPE, SHMPIPE, SHMPIPE_NAP};

fn main() -> ExitCode {
    bench::main(Bench::Slow, &[SHMPIPE, SHMPIPE_NAP, PIPE])
}
