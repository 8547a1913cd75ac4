//! The time of every single round trip, for the tail of the distribution.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::hgrm;
use crate::placement::Placement;
use crate::session::Session;
use crate::settings::Settings;
use crate::slices::{Pace, in_sessions};
use crate::splitmix::SplitMix64;
use crate::table::Table;
use crate::transports::{Mode, Transport};

/// The percentiles in a table.
pub const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];
/// A table shows a percentile only if this many round trips exceed it. With fewer it is mostly chance.
pub const BEYOND: f64 = 10.0;

/// The name of the floor in tables.
pub const FLOOR: &str = "floor";

/// The duration of a slice, as in [`Plan`](crate::Plan), so that slices of all transports alternate.
const SLICE: Duration = Duration::from_micros(500);
/// The largest recorded round trip. Longer ones count as this.
const LONGEST_NS: u64 = 60_000_000_000;
/// Significant digits of each round trip.
const FIGURES: u8 = 3;

/// The round trips of one transport and size, in one placement.
#[derive(Clone, Debug)]
pub struct Latency {
    /// The transport's name, or [`FLOOR`].
    pub transport: &'static str,
    /// How it waits.
    pub mode: Mode,
    /// Bytes of each message; 0 for the floor.
    pub size: usize,
    /// Where the processes ran.
    pub placement: Placement,
    /// Nanoseconds of each round trip, including one reading of the clock.
    pub histogram: Histogram<u64>,
    /// Slices.
    pub slices: usize,
}

impl Latency {
    fn is_of(&self, other: &Latency) -> bool {
        (self.transport, self.size, self.placement) == (other.transport, other.size, other.placement)
    }
}

/// An empty histogram of nanoseconds.
pub(crate) fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_NS, FIGURES).map_err(io::Error::other)
}

/// Times each round trip of every size over every transport of the session, and of the floor, in alternating slices.
///
/// The loop is closed: a round trip starts when the one before has ended. So nothing waits in a queue, and an interruption of
/// the machine delays a single round trip, not all that an open load would have started meanwhile.
///
/// # Errors
/// As [`Session::each_round_trip`].
pub fn collect(session: &mut Session, sizes: &[usize], duration: Duration) -> io::Result<Vec<Latency>> {
    let mut rows = vec![(None, FLOOR, Mode::Polls, 0)];
    for &size in sizes {
        for (i, transport) in session.transports().iter().enumerate() {
            if session.fits(i, size) {
                rows.push((Some(i), transport.name(), transport.mode(), size));
            }
        }
    }
    let placements = session.placements();
    let mut latencies = Vec::new();
    for &(_, transport, mode, size) in &rows {
        for &placement in placements {
            let histogram = histogram()?;
            latencies.push(Latency { transport, mode, size, placement, histogram, slices: 0 });
        }
    }
    let mut paces = vec![Pace::new(); rows.len()];
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut words = SplitMix64::new(1);
    let mut took = Vec::new();
    let start = Instant::now();
    let mut round = 0;
    'rounds: loop {
        words.shuffle(&mut order);
        for &i in &order {
            // rounds do not count until the pace has settled
            let counts = round >= 4;
            if round > 4 && start.elapsed() >= duration {
                break 'rounds;
            }
            let (transport, _, _, size) = rows[i];
            took.clear();
            let placement = session.each_round_trip(transport, size, paces[i].count, &mut took)?;
            let Some(placement) = placement else { continue };
            let mean = took.iter().sum::<u64>() as f64 / took.len().max(1) as f64;
            paces[i].learn(mean, SLICE);
            let kind = placements.iter().position(|its| *its == placement);
            let latency = &mut latencies[i * placements.len() + kind.expect("a placement of this machine")];
            if counts {
                for &ns in &took {
                    latency.histogram.saturating_record(ns);
                }
                latency.slices += 1;
            }
        }
        round += 1;
    }
    Ok(latencies)
}

/// The same in several sessions of about two seconds, for `duration` in all; see
/// [`collect_in_sessions`](crate::collect_in_sessions).
///
/// # Errors
/// As [`Session::start`] and [`Session::each_round_trip`].
pub fn collect_in_sessions(
    settings: &Settings,
    transports: &[&'static dyn Transport],
    sizes: &[usize],
    duration: Duration,
) -> io::Result<Vec<Latency>> {
    let mut all: Vec<Latency> = Vec::new();
    in_sessions(settings, transports, duration, |session, time| {
        append(&mut all, collect(session, sizes, time)?)
    })?;
    Ok(all)
}

/// Adds the results of another session.
///
/// # Errors
/// None, since all histograms of this crate have the same layout.
pub fn append(all: &mut Vec<Latency>, later: Vec<Latency>) -> io::Result<()> {
    for later in later {
        match all.iter_mut().find(|mine| mine.is_of(&later)) {
            Some(mine) => {
                mine.histogram.add(&later.histogram).map_err(io::Error::other)?;
                mine.slices += later.slices;
            }
            None => all.push(later),
        }
    }
    Ok(())
}

/// The percentiles in nanoseconds, with a line for each transport, size and placement. A percentile that fewer than
/// [`BEYOND`] round trips exceed is a dash.
pub fn table(latencies: &[Latency]) -> String {
    let mut table = Table::new();
    table.groups(&[
        (String::new(), 4),
        ("nanoseconds of a round trip".to_owned(), PERCENTILES.len() + 1),
        (String::new(), 1),
    ]);
    let mut head: Vec<String> = ["bytes", "transport", "waits", "where"].map(str::to_owned).to_vec();
    head.extend(heads());
    head.push("n".to_owned());
    table.row(head);
    for latency in latencies {
        let Latency { transport, mode, size, placement, histogram, .. } = latency;
        let bytes = if *transport == FLOOR { String::new() } else { size.to_string() };
        let mut row = vec![bytes, (*transport).to_owned(), mode.to_string(), placement.to_string()];
        row.extend(cells(histogram));
        row.push(histogram.len().to_string());
        table.row(row);
    }
    table.to_string()
}

/// The names of the percentiles, and the maximum.
pub(crate) fn heads() -> impl Iterator<Item = String> {
    PERCENTILES.iter().map(|percentile| format!("p{percentile}")).chain(["max".to_owned()])
}

/// A percentile, if [`BEYOND`] values exceed it.
pub(crate) fn percentile(histogram: &Histogram<u64>, percent: f64) -> Option<u64> {
    let beyond = histogram.len() as f64 * (100.0 - percent) / 100.0;
    (beyond >= BEYOND).then(|| histogram.value_at_quantile(percent / 100.0))
}

/// The percentiles that [`BEYOND`] values exceed, and the maximum.
pub(crate) fn cells(histogram: &Histogram<u64>) -> impl Iterator<Item = String> + '_ {
    let max = (!histogram.is_empty()).then(|| histogram.max());
    let cells = PERCENTILES.into_iter().map(|percent| percentile(histogram, percent)).chain([max]);
    cells.map(|ns| ns.map_or("-".to_owned(), |ns| ns.to_string()))
}

/// Writes each non-empty histogram to `directory`, in the text format of the HdrHistogram plotters:
/// `TRANSPORT-BYTES-bytes-PLACEMENT.hgrm`.
///
/// # Errors
/// Those of the system, prefixed with the file's name.
pub fn save(latencies: &[Latency], directory: &Path) -> io::Result<()> {
    for Latency { transport, size, placement, histogram, .. } in latencies {
        hgrm::save(histogram, directory, &format!("{transport}-{size}-bytes-{placement}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_need_enough_values_beyond() {
        let mut histogram = Histogram::new_with_bounds(1, LONGEST_NS, FIGURES).unwrap();
        for ns in 1..=1000 {
            histogram.saturating_record(ns);
        }
        let placement = Placement::Near;
        let latency =
            Latency { transport: "classic", mode: Mode::Polls, size: 8, placement, histogram, slices: 9 };
        let text = table(&[latency]);
        let row: Vec<_> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(
            row,
            ["8", "classic", "polls", "near", "|", "500", "900", "990", "-", "-", "1000", "|", "1000"]
        );
    }
}
