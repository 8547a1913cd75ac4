//! One-way delay at a given rate: from the time at which a message was *due* to its arrival.
//!
//! The load is open: message `i` is due at `start + i * interval`, independent of the ones before, and carries that time. The
//! receiver reads the clock when its `recv` has returned, and records the difference. So a sender that is late, because it had
//! no space or was not running, lengthens the delay of all messages due meanwhile, as it would for their recipients. A stopped
//! sender leaves no gap in the record (no coordinated omission).
//!
//! * Both sides read `CLOCK_MONOTONIC`, the same clock for all processes of a machine. Where its readings on two CPUs disagree,
//!   some messages seem to arrive before they were sent. They are recorded as 0 and counted ([`Paced::early`]).
//! * The sender polls the clock until a message is due, so each message leaves 20 to 50 ns late, over any transport. The delay
//!   of the ball ([`FLOOR`]) includes the same. While it polls, it takes execution units from a receiver on the same core. The
//!   receiver waits in the way of its transport.
//! * A slice lasts about 10 ms: 1000 messages at 100,000 per second. It starts with an empty transport and ends when all of its
//!   messages have arrived. A transport that cannot keep up falls behind from the first message to the last, so its delays only
//!   reflect the length of a slice. [`Paced::kept_up`] shows this.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::clock;
use crate::control::{Order, Verb};
use crate::errors::unfit;
use crate::hgrm;
use crate::latency::{self, FLOOR};
use crate::placement::Placement;
use crate::session::Session;
use crate::settings::Settings;
use crate::sleeping;
use crate::slices::in_sessions;
use crate::splitmix::SplitMix64;
use crate::table::{self, Table};
use crate::transports::{Mode, Transport};

/// The duration of a slice.
pub const SLICE: Duration = Duration::from_millis(10);
/// The fewest messages of a slice.
const FEWEST: u64 = 16;
/// Bytes of the shortest message, which holds a time and a number.
pub const SHORTEST: usize = 16;
/// From the end of the floor to the first message, so that the receiver waits by then.
const LEAD_NS: u64 = 20_000;
/// If a slice takes this many times as long as its schedule, the transport did not keep up.
const BEHIND: f64 = 1.1;

/// The times at which messages are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// The time of the first.
    pub(crate) start: u64,
    pub(crate) count: u64,
    /// The interval between two.
    pub(crate) interval: u64,
}

impl Schedule {
    /// A schedule that starts soon.
    pub(crate) fn soon(count: u64, interval: u64) -> Schedule {
        Schedule { start: clock::now() + LEAD_NS, count, interval }
    }

    pub(crate) fn stamps(self) -> impl Iterator<Item = Stamp> {
        let Schedule { start, count, interval } = self;
        (0..count).map(move |sequence| Stamp { intended: start + sequence * interval, sequence })
    }
}

/// The content of a message: the time at which it was due, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) intended: u64,
    pub(crate) sequence: u64,
}

impl Stamp {
    #[inline(always)]
    pub(crate) fn write(self, message: &mut [u8]) {
        message[..8].copy_from_slice(&self.intended.to_le_bytes());
        message[8..16].copy_from_slice(&self.sequence.to_le_bytes());
    }

    #[inline(always)]
    pub(crate) fn read(message: &[u8]) -> Stamp {
        let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().expect("eight bytes"));
        Stamp { intended: word(0), sequence: word(8) }
    }

    /// Polls the clock until the message is due.
    #[inline(always)]
    pub(crate) fn wait(self) {
        while clock::now() < self.intended {
            std::hint::spin_loop();
        }
    }
}

/// The arrivals of a slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    /// Nanoseconds from the time of each to its arrival.
    delays: Vec<u64>,
    /// Messages that seemed to arrive early, because the clocks differ.
    early: u64,
    first_intended: u64,
    last: u64,
    /// How often the receiver had slept at each arrival, if requested.
    sleeps: Option<Vec<u64>>,
}

impl Arrivals {
    /// Arrivals that record how often the receiver had slept.
    pub(crate) fn with_sleeps() -> Arrivals {
        Arrivals { sleeps: Some(Vec::new()), ..Arrivals::default() }
    }

    /// Starts a new slice.
    pub(crate) fn begin(&mut self, count: u64) {
        self.delays.clear();
        self.delays.reserve(count as usize); // not while the clock runs
        self.early = 0;
        if let Some(sleeps) = &mut self.sleeps {
            sleeps.clear();
        }
    }

    #[inline(always)]
    pub(crate) fn record(&mut self, intended: u64, now: u64) {
        if self.delays.is_empty() {
            self.first_intended = intended;
        }
        self.early += u64::from(now < intended);
        self.delays.push(now.saturating_sub(intended));
        self.last = now;
        if let Some(sleeps) = &mut self.sleeps {
            sleeps.push(sleeping::sleeps());
        }
    }

    /// How often the receiver had slept at each arrival. Empty unless requested.
    pub(crate) fn sleeps(&self) -> &[u64] {
        self.sleeps.as_deref().unwrap_or_default()
    }

    /// Nanoseconds from the time of each to its arrival.
    pub(crate) fn delays(&self) -> &[u64] {
        &self.delays
    }

    /// Whether they arrived about as fast as they were due.
    fn kept_up(&self, interval: u64) -> bool {
        let took = self.last.saturating_sub(self.first_intended) as f64;
        took <= BEHIND * (self.delays.len() as u64 * interval) as f64
    }
}

/// The delays of one transport, size and rate, in one placement.
#[derive(Clone, Debug)]
pub struct Paced {
    /// The transport's name, or [`FLOOR`].
    pub transport: &'static str,
    /// How the receiver waits.
    pub mode: Mode,
    /// Bytes of each message; 0 for the floor.
    pub size: usize,
    /// Nanoseconds from one message to the next.
    pub interval: u64,
    /// Where the two sides ran.
    pub placement: Placement,
    /// Nanoseconds from the time at which a message was due to its arrival.
    pub histogram: Histogram<u64>,
    /// Messages that seemed to arrive early, recorded as 0.
    pub early: u64,
    /// Slices.
    pub slices: u64,
    /// Slices whose last message arrived less than a tenth of the slice late.
    pub kept_up: u64,
}

impl Paced {
    fn is_of(&self, other: &Paced) -> bool {
        (self.transport, self.size, self.interval, self.placement)
            == (other.transport, other.size, other.interval, other.placement)
    }

    /// Messages per second.
    pub fn rate(&self) -> f64 {
        1e9 / self.interval as f64
    }
}

/// Nanoseconds from one message to the next at `rate` messages per second.
///
/// # Errors
/// `InvalidInput` for a rate that is not between one per second and one per nanosecond.
pub fn interval(rate: f64) -> io::Result<u64> {
    if (1.0..=1e9).contains(&rate) {
        Ok((1e9 / rate).round() as u64)
    } else {
        Err(unfit(format!("{rate} messages a second: not between 1 and 1000000000")))
    }
}

#[cold]
pub(crate) fn too_short(size: usize) -> io::Error {
    unfit(format!("a stamped message has {SHORTEST} bytes at least, not {size}"))
}

impl Session {
    /// Makes the partner send `count` stamped messages, one every `interval` nanoseconds. Returns the placement, or `None` if the
    /// machine moved meanwhile. With `transport` `None` the partner throws the ball.
    fn paced(
        &mut self,
        transport: Option<usize>,
        size: usize,
        (count, interval): (u64, u64),
        arrivals: &mut Arrivals,
    ) -> io::Result<Option<Placement>> {
        arrivals.begin(count);
        let bracket = match transport {
            Some(_) if size < SHORTEST => {
                return Err(too_short(size));
            }
            Some(transport) => {
                let order = Order { interval, ..self.order(Verb::PaceOut, transport, size, count)? };
                self.bracketed(order, |work| work.pace_in(size, count, arrivals))?.1
            }
            None => {
                let order = Order { verb: Verb::PaceFloor, interval, ..self.floor_order(count) };
                self.between_floors(order, |session| session.floor.catch_paced(count, interval, arrivals))?.1
            }
        };
        Ok(self.placed(bracket).map(|(placement, _)| placement))
    }
}

/// Measures the one-way delay of every size at every rate (messages per second) over every transport of the session, and of
/// the floor, in alternating slices.
///
/// # Errors
/// `InvalidInput` for a size below [`SHORTEST`] or an invalid rate; as [`Session::slice`].
pub fn collect(
    session: &mut Session,
    sizes: &[usize],
    rates: &[f64],
    duration: Duration,
) -> io::Result<Vec<Paced>> {
    let mut rows = Vec::new();
    for &rate in rates {
        let interval = interval(rate)?;
        rows.push((None, FLOOR, Mode::Polls, 0, interval));
        for &size in sizes {
            for (i, transport) in session.transports().iter().enumerate() {
                if session.fits(i, size) {
                    rows.push((Some(i), transport.name(), transport.mode(), size, interval));
                }
            }
        }
    }
    let placements = session.placements();
    let mut all = Vec::new();
    for &(_, transport, mode, size, interval) in &rows {
        for &placement in placements {
            let histogram = latency::histogram()?;
            let (early, slices, kept_up) = (0, 0, 0);
            all.push(Paced { transport, mode, size, interval, placement, histogram, early, slices, kept_up });
        }
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut words = SplitMix64::new(1);
    let mut arrivals = Arrivals::default();
    let start = Instant::now();
    for round in 0.. {
        words.shuffle(&mut order);
        for &i in &order {
            // the first round warms up the code and does not count
            if round > 1 && start.elapsed() >= duration {
                return Ok(all);
            }
            let (transport, _, _, size, interval) = rows[i];
            let count = (SLICE.as_nanos() as u64 / interval).max(FEWEST);
            let placement = session.paced(transport, size, (count, interval), &mut arrivals)?;
            let Some(placement) = placement.filter(|_| round > 0) else { continue };
            let kind = placements.iter().position(|its| *its == placement);
            let paced = &mut all[i * placements.len() + kind.expect("a placement of this machine")];
            for &delay in &arrivals.delays {
                paced.histogram.saturating_record(delay);
            }
            paced.early += arrivals.early;
            paced.slices += 1;
            paced.kept_up += u64::from(arrivals.kept_up(interval));
        }
    }
    unreachable!("rounds do not end by themselves")
}

/// The same in several sessions of about two seconds, for `duration` in all; see
/// [`collect_in_sessions`](crate::collect_in_sessions).
///
/// # Errors
/// As [`Session::start`] and [`collect`].
pub fn collect_in_sessions(
    settings: &Settings,
    transports: &[&'static dyn Transport],
    sizes: &[usize],
    rates: &[f64],
    duration: Duration,
) -> io::Result<Vec<Paced>> {
    let mut all = Vec::new();
    in_sessions(settings, transports, duration, |session, time| {
        append(&mut all, collect(session, sizes, rates, time)?)
    })?;
    Ok(all)
}

/// Adds the results of another session.
///
/// # Errors
/// None, since all histograms of this crate have the same layout.
pub fn append(all: &mut Vec<Paced>, later: Vec<Paced>) -> io::Result<()> {
    for later in later {
        match all.iter_mut().find(|mine| mine.is_of(&later)) {
            Some(mine) => {
                mine.histogram.add(&later.histogram).map_err(io::Error::other)?;
                mine.early += later.early;
                mine.slices += later.slices;
                mine.kept_up += later.kept_up;
            }
            None => all.push(later),
        }
    }
    Ok(())
}

/// Whether the floor itself did not keep up in nine of ten slices. Then something else ran on the two CPUs, and the delays are
/// those of the scheduler.
pub fn disturbed(all: &[Paced]) -> bool {
    let floors = || all.iter().filter(|paced| paced.transport == FLOOR);
    let slices: u64 = floors().map(|floor| floor.slices).sum();
    let kept_up: u64 = floors().map(|floor| floor.kept_up).sum();
    10 * kept_up < 9 * slices
}

/// The percentiles in nanoseconds, with a line for each rate, transport, size and placement. A percentile that fewer than
/// [`BEYOND`](latency::BEYOND) messages exceed is a dash.
pub fn table(all: &[Paced]) -> String {
    let mut table = Table::new();
    table.groups(&[
        (String::new(), 5),
        ("nanoseconds from when it should have been sent".to_owned(), latency::PERCENTILES.len() + 1),
        (String::new(), 2),
    ]);
    let mut head: Vec<String> = ["rate", "bytes", "transport", "waits", "where"].map(str::to_owned).to_vec();
    head.extend(latency::heads());
    head.extend(["n", "kept up"].map(str::to_owned));
    table.row(head);
    for paced in all {
        let Paced { transport, mode, size, placement, histogram, slices, kept_up, .. } = paced;
        let bytes = if *transport == FLOOR { String::new() } else { size.to_string() };
        let rate = format!("{:.0}", paced.rate());
        let mut row = vec![rate, bytes, (*transport).to_owned(), mode.to_string(), placement.to_string()];
        row.extend(latency::cells(histogram));
        let share = (*slices > 0).then(|| *kept_up as f64 / *slices as f64);
        row.extend([histogram.len().to_string(), table::ratio(share)]);
        table.row(row);
    }
    table.to_string()
}

/// Writes each non-empty histogram to `directory`, in the text format of the HdrHistogram plotters:
/// `TRANSPORT-BYTES-bytes-RATE-a-second-PLACEMENT.hgrm`.
///
/// # Errors
/// Those of the system, prefixed with the file's name.
pub fn save(all: &[Paced], directory: &Path) -> io::Result<()> {
    for paced in all {
        let Paced { transport, size, placement, histogram, .. } = paced;
        let name = format!("{transport}-{size}-bytes-{:.0}-a-second-{placement}", paced.rate());
        hgrm::save(histogram, directory, &name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_round_trips_through_a_message() {
        let stamp = Stamp { intended: u64::MAX - 1, sequence: 7 };
        let mut message = [9; 20];
        stamp.write(&mut message);
        assert_eq!(Stamp::read(&message), stamp);
        assert_eq!(message[16..], [9; 4]);
    }

    #[test]
    fn schedule_does_not_drift() {
        let stamps: Vec<_> = Schedule { start: 1000, count: 3, interval: 333 }.stamps().collect();
        assert_eq!(stamps.iter().map(|stamp| stamp.intended).collect::<Vec<_>>(), [1000, 1333, 1666]);
        assert_eq!(stamps.iter().map(|stamp| stamp.sequence).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn stopped_sender_delays_all_messages_due() {
        let mut arrivals = Arrivals::default();
        arrivals.begin(10);
        // the sender was away from 200 to 700 and then sent what was due at once
        for stamp in (Schedule { start: 0, count: 10, interval: 100 }).stamps() {
            let left = if (200..700).contains(&stamp.intended) { 700 } else { stamp.intended };
            arrivals.record(stamp.intended, left + 5);
        }
        assert_eq!(arrivals.delays, [5, 5, 505, 405, 305, 205, 105, 5, 5, 5]);
        assert!(arrivals.kept_up(100));
    }

    #[test]
    fn falling_behind_is_not_keeping_up() {
        let mut arrivals = Arrivals::default();
        arrivals.begin(100);
        for stamp in (Schedule { start: 0, count: 100, interval: 100 }).stamps() {
            arrivals.record(stamp.intended, stamp.sequence * 150);
        }
        assert!(!arrivals.kept_up(100));
    }

    #[test]
    fn early_arrivals_are_counted() {
        let mut arrivals = Arrivals::default();
        arrivals.begin(1);
        arrivals.record(100, 90);
        assert_eq!((arrivals.early, &arrivals.delays[..]), (1, &[0][..]));
    }

    #[test]
    fn rate_is_a_whole_number_of_nanoseconds() {
        assert_eq!(interval(3e6).unwrap(), 333);
        assert!(interval(0.5).is_err() && interval(f64::NAN).is_err() && interval(2e9).is_err());
    }

    fn paced(transport: &'static str, kept_up: u64) -> Paced {
        let mut histogram = latency::histogram().unwrap();
        for ns in 1..=1000 {
            histogram.saturating_record(ns);
        }
        Paced {
            transport,
            mode: Mode::Polls,
            size: 64,
            interval: 10_000,
            placement: Placement::Far,
            histogram,
            early: 0,
            slices: 20,
            kept_up,
        }
    }

    #[test]
    fn slow_transport_is_not_a_busy_machine() {
        assert!(!disturbed(&[paced(FLOOR, 18), paced("classic", 0)]));
        assert!(disturbed(&[paced(FLOOR, 17), paced("classic", 20)]));
        assert!(!disturbed(&[]));
    }

    #[test]
    fn table_shows_what_kept_up() {
        let text = table(&[paced("classic", 15)]);
        let row: Vec<_> = text.lines().last().unwrap().split_whitespace().collect();
        let expected = [
            "100000", "64", "classic", "polls", "far", "|", "500", "900", "990", "-", "-", "1000", "|",
            "1000", "0.75",
        ];
        assert_eq!(row, expected);
    }
}
