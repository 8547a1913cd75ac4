//! The first lap of a new ring, message by message: what it costs that pages are touched for the first time, and what is left
//! of it where they were faulted in before.
//!
//! Messages are sent at a given rate and carry their time, as in [`paced`], slowly enough that each finds the one
//! before received: so its delay has its own page faults in it, the sender's and the receiver's, and no other's.
//! Each ring is used for two laps, the second to compare with, and for nothing else; then come a new session and a new ring.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cold;
use crate::latency;
use crate::paced::{self, Arrivals};
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
    /// Of the first and of the second lap, nanoseconds from when a message should have been sent to when it was received.
    pub laps: [Histogram<u64>; LAPS],
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct FirstLaps {
    /// A row for each transport and placement.
    pub rows: Vec<FirstLap>,
    /// All laps.
    pub laps: u64,
    /// Laps that do not count: the machine moved, or the last message was late by a tenth of the lap, since something else ran
    /// on one of the two processors.
    pub left_out: u64,
}

/// Sends messages of `size` bytes at `rate` a second through ring after ring of each of the `transports`, whose sessions must
/// not [use](Transport::warm_up_bytes) their rings before. `warm` is a transport that has been used: its messages warm up the
/// code, and the memory in which delays are noted.
///
/// # Errors
/// `InvalidInput` for a size or a rate that [`paced`] does not take; as [`Session::start`] and [`Session::slice`].
pub fn collect(
    settings: &Settings,
    transports: &[&'static dyn Transport],
    warm: &'static dyn Transport,
    (size, rate): (usize, f64),
    duration: Duration,
) -> io::Result<FirstLaps> {
    let interval = paced::interval(rate)?;
    let count = cold::lap(settings.capacity, size);
    let mut all = FirstLaps::default();
    let mut order: Vec<usize> = (0..transports.len()).collect();
    let mut words = SplitMix64::new(1);
    let mut arrivals = Arrivals::default();
    let joined: Vec<_> = transports.iter().copied().chain([warm]).collect();
    let start = Instant::now();
    while all.laps == 0 || start.elapsed() < duration {
        let mut session = Session::start(settings, &joined)?;
        session.paced(Some(transports.len()), size, (count, interval), &mut arrivals)?;
        words.shuffle(&mut order);
        for &transport in &order {
            for lap in 0..LAPS {
                let placement = session.paced(Some(transport), size, (count, interval), &mut arrivals)?;
                all.laps += 1;
                let Some(placement) = placement.filter(|_| arrivals.kept_up(interval)) else {
                    all.left_out += 1;
                    continue;
                };
                let row = row(&mut all.rows, transports[transport].name(), placement)?;
                row.rings[lap] += 1;
                for &delay in arrivals.delays() {
                    row.laps[lap].saturating_record(delay);
                }
            }
        }
    }
    let place = |row: &FirstLap| transports.iter().position(|transport| transport.name() == row.transport);
    all.rows.sort_by_key(|row| (row.placement, place(row)));
    Ok(all)
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

/// The percentiles of both laps in nanoseconds, a line for each transport and placement. One that fewer than
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
    for FirstLap { transport, placement, rings, laps } in rows {
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
