//! The first lap of a new ring, message by message: what it costs that pages are touched for the first time, and what is left
//! of it where they were faulted in before.
//!
//! Round trips through two new rings, each timed by itself as in [`latency`]: a message and its answer stand at the
//! same place in their rings, so a round trip that comes to a new page does so in both, and has the page faults of both sides
//! in it, twice. Each ring is used for two laps, the second to compare with, and for nothing else; then come a new session and new
//! rings.

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
/// The percentiles that a table shows.
const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

/// The messages of all rings of one transport, in one placement.
#[derive(Clone, Debug)]
pub struct FirstLap {
    /// The transport's name.
    pub transport: &'static str,
    /// Where the two sides ran.
    pub placement: Placement,
    /// Rings, and the same for the second lap: the machine may move between the two.
    pub rings: [u64; LAPS],
    /// Of the first and of the second lap, nanoseconds of a round trip, the reading of the clock included.
    pub laps: [Histogram<u64>; LAPS],
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct FirstLaps {
    /// A row for each transport and placement.
    pub rows: Vec<FirstLap>,
    /// All laps.
    pub laps: u64,
    /// Laps that do not count, since the machine moved.
    pub left_out: u64,
}

/// Sends messages of `size` bytes and gets them back, through pair after pair of new rings of each of the `transports`, whose
/// sessions must not [use](Transport::warm_up_bytes) their rings before. `warm` is a transport that has been used: its messages
/// warm up the code, and the memory in which times are noted.
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

/// Messages that go once around a ring: a record has a header of 8 bytes and is padded to 8.
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

/// The percentiles of both laps in nanoseconds, a line for each transport and placement that has both. One that fewer than
/// [`BEYOND`](latency::BEYOND) messages exceed is a dash.
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
    // A placement in which one of the laps did not occur compares nothing.
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
