//! The first lap of a new ring, message by message: the cost of touching pages for the first time, with and without prefaulting.
//!
//! Each round trip through two new rings is timed on its own, as in [`latency`]. A message and its answer have the same index in
//! their rings, so a round trip that reaches a new page reaches it in both rings, and includes two page faults of both sides.
//! Each ring is used for two laps only, the second for comparison. Then come a new session and new rings.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::latency;
use crate::placement::Placement;
use crate::session::Session;
use crate::settings::Settings;
use crate::splitmix::SplitMix64;
use crate::table::{self, Table};
use crate::transports::Transport;

/// Laps of each ring.
const LAPS: usize = 2;
/// The percentiles in a table.
const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

/// The messages of all rings of one transport in one placement.
#[derive(Clone, Debug)]
pub struct FirstLap {
    /// The transport's name.
    pub transport: &'static str,
    /// Where the two sides ran.
    pub placement: Placement,
    /// The number of rings for each lap. They differ if the machine moved in between.
    pub rings: [u64; LAPS],
    /// Nanoseconds of a round trip in the first and in the second lap, including the reading of the clock.
    pub laps: [Histogram<u64>; LAPS],
}

/// The results.
#[derive(Clone, Debug, Default)]
pub struct FirstLaps {
    /// A row for each transport and placement.
    pub rows: Vec<FirstLap>,
    /// All laps.
    pub laps: u64,
    /// Laps that do not count, because the machine moved.
    pub left_out: u64,
}

/// Sends messages of `size` bytes and receives them back, through successive pairs of new rings of each of the `transports`.
/// Their sessions must not [use](Transport::warm_up_bytes) the rings before. `warm` is a used transport: its messages warm up
/// the code, and the memory for the times.
///
/// # Errors
/// As [`Session::start`] and [`Session::each_round_trip`].
pub fn collect(
    settings: &Settings,
    transports: &[&'static dyn Transport],
    warm: &'static dyn Transport,
    size: usize,
    duration: Duration,
) -> io::Result<FirstLaps> {
    let count = lap(settings.capacity, size);
    let mut all = FirstLaps::default();
    let mut order: Vec<usize> = (0..transports.len()).collect();
    let mut words = SplitMix64::new(1);
    let mut took = Vec::new();
    let joined: Vec<_> = transports.iter().copied().chain([warm]).collect();
    let start = Instant::now();
    while all.laps == 0 || start.elapsed() < duration {
        let mut session = Session::start(settings, &joined)?;
        session.each_round_trip(Some(transports.len()), size, count, &mut took)?;
        words.shuffle(&mut order);
        for &transport in &order {
            for lap in 0..LAPS {
                took.clear();
                let placement = session.each_round_trip(Some(transport), size, count, &mut took)?;
                all.laps += 1;
                let Some(placement) = placement else {
                    all.left_out += 1;
                    continue;
                };
                let row = row(&mut all.rows, transports[transport].name(), placement)?;
                row.rings[lap] += 1;
                for &ns in &took {
                    row.laps[lap].saturating_record(ns);
                }
            }
        }
    }
    let place = |row: &FirstLap| transports.iter().position(|transport| transport.name() == row.transport);
    all.rows.sort_by_key(|row| (row.placement, place(row)));
    Ok(all)
}

/// The number of messages in a lap. A record has a header of 8 bytes and is padded to 8.
fn lap(capacity: usize, size: usize) -> u64 {
    (capacity / (8 + size.next_multiple_of(8))) as u64
}

fn row<'a>(
    all: &'a mut Vec<FirstLap>,
    transport: &'static str,
    placement: Placement,
) -> io::Result<&'a mut FirstLap> {
    let found = all.iter().position(|row| (row.transport, row.placement) == (transport, placement));
    let at = match found {
        Some(at) => at,
        None => {
            let laps = [latency::histogram()?, latency::histogram()?];
            all.push(FirstLap { transport, placement, rings: [0; LAPS], laps });
            all.len() - 1
        }
    };
    Ok(&mut all[at])
}

/// The percentiles of both laps in nanoseconds, with a line for each transport and placement that has both. A percentile that
/// fewer than [`BEYOND`](latency::BEYOND) messages exceed is a dash.
pub fn table(rows: &[FirstLap]) -> String {
    let mut table = Table::new();
    let columns = PERCENTILES.len() + 2;
    table.groups(&[
        (String::new(), 3),
        ("first lap, ns".to_owned(), columns),
        ("second lap, ns".to_owned(), columns),
    ]);
    let mut head: Vec<String> = ["where", "ring", "rings"].map(str::to_owned).to_vec();
    for _ in 0..LAPS {
        head.extend(PERCENTILES.iter().map(|percentile| format!("p{percentile}")));
        head.extend(["max", "n"].map(str::to_owned));
    }
    table.row(head);
    // A placement without one of the laps has nothing to compare.
    for FirstLap { transport, placement, rings, laps } in rows.iter().filter(|row| !row.rings.contains(&0)) {
        let mut row = vec![placement.to_string(), (*transport).to_owned(), rings[0].to_string()];
        for lap in laps {
            row.extend(
                PERCENTILES.iter().map(|&percentile| {
                    table::figure(latency::percentile(lap, percentile).map(|ns| ns as f64))
                }),
            );
            row.extend([lap.max().to_string(), lap.len().to_string()]);
        }
        table.row(row);
    }
    table.to_string()
}
