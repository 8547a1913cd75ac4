//! The limits of hardware and kernel, measured by the same two sides, in the same slices as the transports.
//!
//! | limit | measurement |
//! |---|---|
//! | one line | the floor: a round trip of one cache line |
//! | two lines | a round trip in which each answer needs two lines: a position and the data there |
//! | bare futex | a round trip in which each side wakes the other and sleeps |
//! | read | one side reads all that the other has just written into its registers |
//! | write | one side writes all that the other has just read |
//! | write past caches, read what went past | the same by non-temporal stores, which do not fetch the lines first (x86-64) |
//! | hand-over | copies into one of two buffers while the other side copies out of the other |
//!
//! Blocks that go from core to core through the same memory repeatedly cannot be faster than the slower of *read* and *write*.
//! *Hand-over* is the share of that for a simple program. A ring larger than the near caches finds its lines elsewhere, and can
//! be faster or slower than either.

mod ground;

use std::io;
use std::time::{Duration, Instant};

pub(crate) use self::ground::Ground;
use crate::control::{Order, Verb};
use crate::errors::unfit;
use crate::placement::Placement;
use crate::session::{Config, Experiment, Session, Slice};
use crate::settings::Settings;
use crate::slices::{Pace, in_sessions};
use crate::splitmix::SplitMix64;
use crate::statistics::{Spread, median};
use crate::table::{self, Table};
use crate::transports::{Mode, Transport};

/// Bytes of the largest block.
pub const LONGEST: usize = 1 << 20;
/// Block sizes that fit the near caches, and some that do not.
pub const SIZES: [usize; 4] = [8192, 65536, 262_144, LONGEST];
/// Blocks are whole cache lines.
const LINE: usize = 64;

/// The duration of a slice, as in [`Plan`](crate::Plan).
const SLICE: Duration = Duration::from_micros(500);
/// The fewest slices for a figure in a table.
const FEWEST: usize = 5;
/// Bytes of the messages whose round trips the tables show beside the limits.
const SMALL: usize = 8;

/// How memory that the other side has read is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storing {
    /// By plain stores: each line is acquired in exclusive state first.
    Plain,
    /// By non-temporal stores: no line is fetched.
    #[cfg(target_arch = "x86_64")]
    Past,
}

/// How a block is copied in. It is copied out by `memcpy`, or by the string copy if that is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// By the C library's `memcpy`, which is tuned for the processor.
    Memcpy,
    /// By the processor's string copy.
    #[cfg(target_arch = "x86_64")]
    Movsb,
    /// As [`Storing::Past`].
    #[cfg(target_arch = "x86_64")]
    Past,
}

/// A measurement without a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A round trip of two cache lines.
    TwoLines,
    /// A round trip of two wake-ups and two sleeps.
    Futex,
    /// Reads what the other side has just written, in that way.
    Read(Storing),
    /// Writes what the other side has just read.
    Write(Storing),
    /// Blocks through two buffers.
    HandOver(Copying),
}

impl Limit {
    /// Each of them.
    pub const ALL: &[Limit] = &[
        Limit::TwoLines,
        Limit::Futex,
        Limit::Read(Storing::Plain),
        #[cfg(target_arch = "x86_64")]
        Limit::Read(Storing::Past),
        Limit::Write(Storing::Plain),
        #[cfg(target_arch = "x86_64")]
        Limit::Write(Storing::Past),
        Limit::HandOver(Copying::Memcpy),
        #[cfg(target_arch = "x86_64")]
        Limit::HandOver(Copying::Movsb),
        #[cfg(target_arch = "x86_64")]
        Limit::HandOver(Copying::Past),
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Limit::TwoLines => "two lines",
            Limit::Futex => "bare futex",
            Limit::Read(Storing::Plain) => "read",
            #[cfg(target_arch = "x86_64")]
            Limit::Read(Storing::Past) => "read what went past",
            Limit::Write(Storing::Plain) => "write",
            #[cfg(target_arch = "x86_64")]
            Limit::Write(Storing::Past) => "write past caches",
            Limit::HandOver(Copying::Memcpy) => "hand-over, memcpy",
            #[cfg(target_arch = "x86_64")]
            Limit::HandOver(Copying::Movsb) => "hand-over, rep movsb",
            #[cfg(target_arch = "x86_64")]
            Limit::HandOver(Copying::Past) => "hand-over past caches",
        }
    }

    /// Whether it measures blocks of a given size, not round trips.
    pub fn has_bytes(self) -> bool {
        !matches!(self, Limit::TwoLines | Limit::Futex)
    }

    fn mode(self) -> Mode {
        if self == Limit::Futex { Mode::Sleeps } else { Mode::Polls }
    }

    fn number(self) -> usize {
        Limit::ALL.iter().position(|limit| *limit == self).expect("every limit is listed")
    }
}

/// The partner's part of an order. Creates the partner's `ground` at the first use.
pub(crate) fn answer(ground: &mut Option<Ground>, order: &Order) -> io::Result<()> {
    let limit = *Limit::ALL.get(order.transport).ok_or_else(|| unfit("an unknown limit"))?;
    let ground = match ground {
        Some(ground) => ground,
        None => ground.insert(Ground::join(order.seed as i32)?),
    };
    ground.answer(limit, order.size, order.count)
}

impl Session {
    /// Measures one slice of `count` round trips, or of `count` blocks of `size` bytes. Returns `None` if the machine moved
    /// meanwhile.
    ///
    /// # Errors
    /// `InvalidInput` for a size that is not whole cache lines or exceeds [`LONGEST`]; as [`slice`](Session::slice).
    pub fn limit(&mut self, limit: Limit, size: usize, count: u64) -> io::Result<Option<Slice>> {
        if limit.has_bytes() && (size == 0 || size % LINE != 0 || size > LONGEST) {
            return Err(unfit(format!(
                "a block of {size} bytes: not whole lines of {LINE}, up to {LONGEST}"
            )));
        }
        let mut ground = match self.ground.take() {
            Some(ground) => ground,
            None => Ground::create()?,
        };
        let (transport, seed) = (limit.number(), ground.id() as u64);
        let order = Order { verb: Verb::Limit, transport, size, seed, ..self.floor_order(count) };
        let (took, bracket) = self.between_floors(order, |_| ground.ask(limit, size, count))?;
        self.ground = Some(ground);
        let cost_ns = took.as_nanos() as f64 / count.max(1) as f64;
        Ok(self.placed(bracket).map(|(placement, floor_ns)| Slice { cost_ns, floor_ns, placement }))
    }
}

/// A limit or, to compare with it, a transport.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Subject {
    Limit(Limit),
    Transport(Config),
}

/// The slices of one limit, or of a transport beside it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Its name.
    pub name: &'static str,
    /// How both sides wait.
    pub mode: Mode,
    /// Bytes of a block or a message; 0 for a round trip without data.
    pub size: usize,
    /// Whether it measures round trips, not successive blocks.
    pub round_trip: bool,
    /// The slices that count.
    pub slices: Vec<Slice>,
    /// Slices that do not count, because their floors differed.
    pub discarded: u64,
}

impl Measured {
    fn is_of(&self, other: &Measured) -> bool {
        (self.name, self.size, self.round_trip) == (other.name, other.size, other.round_trip)
    }

    /// Nanoseconds in that placement.
    fn costs(&self, placement: Placement) -> Vec<f64> {
        let there = self.slices.iter().filter(|slice| slice.placement == placement);
        there.map(|slice| slice.cost_ns).collect()
    }
}

fn subjects(session: &Session, sizes: &[usize]) -> Vec<(Subject, Measured)> {
    let mut subjects = Vec::new();
    let mut add = |subject, name, mode, size, round_trip| {
        let measured = Measured { name, mode, size, round_trip, slices: Vec::new(), discarded: 0 };
        subjects.push((subject, measured));
    };
    let transports: Vec<_> = session.transports().iter().enumerate().collect();
    for limit in Limit::ALL.iter().filter(|limit| !limit.has_bytes()) {
        add(Subject::Limit(*limit), limit.name(), limit.mode(), 0, true);
    }
    for &(transport, its) in transports.iter().filter(|(transport, _)| session.fits(*transport, SMALL)) {
        let config = Config { experiment: Experiment::RoundTrip, transport, size: SMALL };
        add(Subject::Transport(config), its.name(), its.mode(), SMALL, true);
    }
    for &size in sizes {
        for limit in Limit::ALL.iter().filter(|limit| limit.has_bytes()) {
            add(Subject::Limit(*limit), limit.name(), limit.mode(), size, false);
        }
        for &(transport, its) in transports.iter().filter(|(transport, _)| session.fits(*transport, size)) {
            let config = Config { experiment: Experiment::Streaming, transport, size };
            add(Subject::Transport(config), its.name(), its.mode(), size, false);
        }
    }
    subjects
}

/// Measures every limit with blocks of these sizes, and every transport of the session beside them, for `duration`, in
/// alternating slices.
///
/// # Errors
/// As [`Session::limit`] and [`Session::slice`].
pub fn collect(session: &mut Session, sizes: &[usize], duration: Duration) -> io::Result<Vec<Measured>> {
    let mut subjects = subjects(session, sizes);
    let mut paces = vec![Pace::new(); subjects.len()];
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    let mut words = SplitMix64::new(1);
    let mut start = Instant::now();
    for round in 0.. {
        words.shuffle(&mut order);
        // rounds do not count until the pace has settled
        let counts = round >= 4;
        if round == 4 {
            start = Instant::now();
        }
        for &i in &order {
            if round > 4 && start.elapsed() >= duration {
                return Ok(subjects.into_iter().map(|(_, measured)| measured).collect());
            }
            let (subject, measured) = &mut subjects[i];
            let slice = match *subject {
                Subject::Limit(limit) => session.limit(limit, measured.size, paces[i].count)?,
                Subject::Transport(config) => session.slice(config, paces[i].count)?,
            };
            if let Some(slice) = slice {
                paces[i].learn(slice.cost_ns, SLICE);
            }
            if counts {
                measured.discarded += u64::from(slice.is_none());
                measured.slices.extend(slice);
            }
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
    duration: Duration,
) -> io::Result<Vec<Measured>> {
    let mut all: Vec<Measured> = Vec::new();
    in_sessions(settings, transports, duration, |session, time| {
        for mut later in collect(session, sizes, time)? {
            match all.iter_mut().find(|mine| mine.is_of(&later)) {
                Some(mine) => {
                    mine.slices.append(&mut later.slices);
                    mine.discarded += later.discarded;
                }
                None => all.push(later),
            }
        }
        Ok(())
    })?;
    Ok(all)
}

/// The bandwidth of `measured` relative to *read* with blocks of the same size: the ratio of the medians in `placement`.
pub fn of_read(all: &[Measured], measured: &Measured, placement: Placement) -> Option<f64> {
    let is_read =
        |each: &&Measured| each.name == Limit::Read(Storing::Plain).name() && each.size == measured.size;
    let read = all.iter().find(is_read)?.costs(placement);
    let its = measured.costs(placement);
    if read.len() < FEWEST || its.len() < FEWEST {
        return None;
    }
    Some(median(read)? / median(its)?)
}

/// The round trips in nanoseconds and in units of the floor around the same slices, for each placement. Fewer than five
/// slices give no figures, only their number.
pub fn round_trips(all: &[Measured], placements: &[Placement]) -> String {
    let mut table = head(placements, &["round trip", "bytes", "waits"], &["n", "ns", "q1..q3", "/floor"]);
    let mut floor = vec!["one line".to_owned(), String::new(), Mode::Polls.to_string()];
    for placement in placements {
        let slices = all.iter().flat_map(|measured| &measured.slices);
        let floors = slices.filter(|slice| slice.placement == *placement).map(|slice| slice.floor_ns);
        let floors: Vec<f64> = floors.collect();
        let spread = Spread::of(floors.iter().copied()).filter(|_| floors.len() >= FEWEST);
        floor.extend([floors.len().to_string(), table::figure(spread.map(|spread| spread.median))]);
        floor.extend([table::range(spread), table::ratio(spread.map(|_| 1.0))]);
    }
    table.row(floor);
    for measured in all.iter().filter(|measured| measured.round_trip) {
        let bytes = if measured.size == 0 { String::new() } else { measured.size.to_string() };
        let mut row = vec![measured.name.to_owned(), bytes, measured.mode.to_string()];
        for placement in placements {
            let costs = measured.costs(*placement);
            let spread = Spread::of(costs.iter().copied()).filter(|_| costs.len() >= FEWEST);
            let there = measured.slices.iter().filter(|slice| slice.placement == *placement);
            let to_floor = median(there.map(|slice| slice.cost_ns / slice.floor_ns));
            row.extend([costs.len().to_string(), table::figure(spread.map(|spread| spread.median))]);
            row.extend([table::range(spread), table::ratio(to_floor.filter(|_| spread.is_some()))]);
        }
        table.row(row);
    }
    table.to_string()
}

/// The bandwidths in 10^9 bytes per second and relative to *read*, for each placement.
pub fn bandwidths(all: &[Measured], placements: &[Placement]) -> String {
    let mut table = head(placements, &["bytes", "blocks", "waits"], &["n", "GB/s", "q1..q3", "/read"]);
    for measured in all.iter().filter(|measured| !measured.round_trip) {
        let mut row = vec![measured.size.to_string(), measured.name.to_owned(), measured.mode.to_string()];
        for placement in placements {
            let rates: Vec<f64> =
                measured.costs(*placement).iter().map(|cost| measured.size as f64 / cost.max(0.1)).collect();
            let spread = Spread::of(rates.iter().copied()).filter(|_| rates.len() >= FEWEST);
            row.extend([rates.len().to_string(), table::figure(spread.map(|spread| spread.median))]);
            row.extend([table::range(spread), table::ratio(of_read(all, measured, *placement))]);
        }
        table.row(row);
    }
    table.to_string()
}

fn head(placements: &[Placement], words: &[&str], figures: &[&str]) -> Table {
    let mut table = Table::new();
    let mut groups = vec![(String::new(), words.len())];
    groups.extend(placements.iter().map(|placement| (placement.to_string(), figures.len())));
    table.groups(&groups);
    let mut head: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    for _ in placements {
        head.extend(figures.iter().map(|&figure| figure.to_owned()));
    }
    table.row(head);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, size: usize, costs: &[f64]) -> Measured {
        let slice = |&cost_ns: &f64| Slice { cost_ns, floor_ns: 50.0, placement: Placement::Near };
        let slices = costs.iter().map(slice).collect();
        Measured { name, mode: Mode::Polls, size, round_trip: size == 0, slices, discarded: 0 }
    }

    #[test]
    fn limits_have_unique_names_and_numbers() {
        for (number, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(limit.number(), number);
            assert!(Limit::ALL[..number].iter().all(|other| other.name() != limit.name()));
        }
    }

    #[test]
    fn bandwidth_ratios_stay_within_one_size_and_placement() {
        let all = [
            measured("read", 8192, &[100.0; 5]),
            measured("shmpipe", 8192, &[200.0; 5]),
            measured("shmpipe", 65536, &[200.0; 5]),
            measured("write", 8192, &[50.0; 4]),
        ];
        assert_eq!(of_read(&all, &all[1], Placement::Near), Some(0.5));
        assert_eq!(of_read(&all, &all[1], Placement::Far), None);
        assert_eq!(of_read(&all, &all[2], Placement::Near), None);
        assert_eq!(of_read(&all, &all[3], Placement::Near), None); // too few
        let table = bandwidths(&all, &Placement::OF_TWO_CPUS);
        let row = table.lines().find(|line| line.contains("8192 shmpipe")).unwrap();
        assert!(row.contains("41.0") && row.contains("0.50"), "{table}");
    }

    #[test]
    fn round_trips_are_shown_in_units_of_the_floor() {
        let all = [measured("two lines", 0, &[75.0; 5]), measured("read", 64, &[1.0; 5])];
        let table = round_trips(&all, &Placement::OF_TWO_CPUS);
        let row = |name| table.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(row("two lines").contains("1.50"), "{table}");
        assert!(row("one line").contains("10  50.0") || row("one line").contains("10 50.0"), "{table}");
        assert!(!table.contains("read"), "{table}");
    }
}
