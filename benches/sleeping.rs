//! Sleeping consumers: the time to wake one, beside a bare futex, and the cost of an idle one.
//!
//! `cargo bench --bench sleeping -- --help` lists the options.
use std::process::ExitCode;

use shmpipe_measure::bench::{self, Bench};
use shmpipe_measure::transports::{EVENTFD, FLAG_SLEEP, FUTEX, PIPE, SHMPIPE, SHMPIPE_TRUSTED, UNIX};

fn main() -> ExitCode {
    bench::main(Bench::Sleeping, &[FUTEX, SHMPIPE, SHMPIPE_TRUSTED, PIPE, UNIX, EVENTFD, FLAG_SLEEP])
}
