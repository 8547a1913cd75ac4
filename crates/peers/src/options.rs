//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use shmpipe_measure::{NEAR_BELOW_NS, bench};

use crate::peers::Company;

/// Compares shmpipe with other ways to send messages through shared memory: all in one run, in slices that alternate.
#[derive(Debug, Parser)]
#[command(name = "shmpipe-peers", about)]
pub struct Options {
    /// What is measured [default: round-trip and streaming]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "A,B")]
    pub experiment: Vec<What>,
    /// Who is compared with whom [default: all, one after another]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "A,B")]
    pub company: Vec<Company>,
    /// How long to measure each experiment in each company
    #[arg(long, default_value_t = 60.0, value_name = "N")]
    pub seconds: f64,
    /// Bytes of a message
    #[arg(long, value_delimiter = ',', default_values_t = bench::SIZES, value_name = "A,B")]
    pub sizes: Vec<usize>,
    /// Messages a second that are sent in the paced experiment
    #[arg(long, value_delimiter = ',', default_value = "100000", value_name = "A,B")]
    pub rates: Vec<f64>,
    /// Which to compare, by name; see --list [default: all]
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub peers: Vec<String>,
    /// On which two CPUs [default: the first two allowed]
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub cpus: Vec<usize>,
    /// Bytes of ring data each way, a power of two
    #[arg(long, default_value_t = 1 << 20, value_name = "N")]
    pub capacity: usize,
    /// Floors below so many nanoseconds count as near
    #[arg(long, default_value_t = NEAR_BELOW_NS, value_name = "NS")]
    pub near_below: f64,
    /// Also write the round trips and streams of one company to that file, as rows for the archive in benches/results
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Only check that every byte arrives, at every size and both ways
    #[arg(long)]
    pub check: bool,
    /// Only list the peers and how they are set
    #[arg(long)]
    pub list: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// A message there and one of the same size back: the mean of many in a row
    RoundTrip,
    /// The same, each timed by itself: percentiles
    Latency,
    /// Messages one after another, as fast as they are taken
    Streaming,
    /// The delay of messages that are sent at a given rate, from when they should have been sent: percentiles
    Paced,
}
