//! The time to wake a sleeping consumer: from before the call of `send` to after the return of `recv`.
//!
//! The sender pauses before each message, and the consumer asks the kernel how often it has slept. A message counts if it was
//! sent long after the one before was received, and the consumer has slept in between, so that it was certainly asleep. All
//! transports have the same pauses, since a processor wakes more slowly the longer it was idle.
//!
//! [`FUTEX`](crate::transports::FUTEX) is closest to the kernel alone: one `FUTEX_WAKE`, one `FUTEX_WAIT`, one cache line.

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::control::{Order, Verb};
use crate::errors::unfit;
use crate::idle::Idle;
use crate::latency;
use crate::paced::{Arrivals, SHORTEST};
use crate::placement::Placement;
use crate::session::Session;
use crate::settings::Settings;
use crate::slices::in_sessions;
use crate::splitmix::SplitMix64;
use crate::table::{self, Table};
use crate::transports::{Mode, Transport};

/// The default pause before each message.
pub const PAUSE: Duration = Duration::from_micros(500);
/// The shortest pause, longer than any transport polls before it sleeps.
pub const SHORTEST_PAUSE: Duration = Duration::from_micros(300);
/// A consumer that has had less time than this since the last message may still poll.
const SETTLED: Duration = Duration::from_micros(200);
/// Messages of a slice. The first only starts the pauses.
const COUNT: u64 = 16;
/// The fewest wake-ups for a ratio.
const FEWEST: u64 = 100;

/// The wake-ups of one transport in one placement.
#[derive(Clone, Debug)]
pub struct WakeUps {
    /// The transport's name.
    pub transport: &'static str,
    /// How the consumer waits.
    pub mode: Mode,
    /// Bytes of each message.
    pub size: usize,
    /// Where the two sides ran.
    pub placement: Placement,
    /// Nanoseconds from before the message was sent to its receipt.
    pub histogram: Histogram<u64>,
    /// Messages that do not count, because the consumer was awake, or had just gone to sleep.
    pub awake: u64,
}

impl WakeUps {
    fn is_of(&self, other: &WakeUps) -> bool {
        (self.transport, self.size, self.placement) == (other.transport, other.size, other.placement)
    }

    fn median(&self) -> Option<f64> {
        (self.histogram.len() >= FEWEST).then(|| self.histogram.value_at_quantile(0.5) as f64)
    }
}

/// The number of sleeps of the calling thread.
pub(crate) fn sleeps() -> u64 {
    // SAFETY: rusage is plain numbers, for which all zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: `usage` is live. It cannot fail on Linux since 2.6.26.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    usage.ru_nvcsw as u64
}

impl Session {
    /// Makes the partner send messages with pauses. Returns the placement, or `None` if the machine moved meanwhile.
    fn wake_ups(
        &mut self,
        transport: usize,
        size: usize,
        pause: Duration,
        arrivals: &mut Arrivals,
    ) -> io::Result<Option<Placement>> {
        if size < SHORTEST {
            return Err(unfit(format!("a stamped message has {SHORTEST} bytes at least, not {size}")));
        }
        let interval = pause.as_nanos() as u64;
        let order = Order { interval, ..self.order(Verb::PaceOut, transport, size, COUNT)? };
        arrivals.begin(COUNT);
        let bracket = self.bracketed(order, |work| work.pace_in(size, COUNT, arrivals))?.1;
        Ok(self.placed(bracket).map(|(placement, _)| placement))
    }
}

impl WakeUps {
    /// Adds the messages of a slice that woke the consumer.
    fn record(&mut self, delays: &[u64], sleeps: &[u64], pause: Duration) {
        let settled = (pause - SETTLED).as_nanos() as u64;
        for i in 1..delays.len() {
            if delays[i - 1] <= settled && sleeps[i] > sleeps[i - 1] {
                self.histogram.saturating_record(delays[i]);
            } else {
                self.awake += 1;
            }
        }
    }
}

/// Measures wake-ups of every size over every sleeping transport of the session, in alternating slices.
///
/// # Errors
/// `InvalidInput` for a pause below [`SHORTEST_PAUSE`] or a size below [`paced::SHORTEST`](crate::paced::SHORTEST); as
/// [`Session::slice`].
pub fn collect(
    session: &mut Session,
    sizes: &[usize],
    pause: Duration,
    duration: Duration,
) -> io::Result<Vec<WakeUps>> {
    if pause < SHORTEST_PAUSE {
        return Err(unfit(format!("a pause of {pause:?}: below {SHORTEST_PAUSE:?} some do not sleep yet")));
    }
    let placements = session.placements();
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for &size in sizes {
        for (i, its) in session.transports().iter().enumerate() {
            if its.mode() == Mode::Polls || !session.fits(i, size) {
                continue;
            }
            rows.push((i, size));
            for &placement in placements {
                let (transport, mode, histogram) = (its.name(), its.mode(), latency::histogram()?);
                all.push(WakeUps { transport, mode, size, placement, histogram, awake: 0 });
            }
        }
    }
    if rows.is_empty() {
        return Ok(all);
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut words = SplitMix64::new(1);
    let mut arrivals = Arrivals::with_sleeps();
    let start = Instant::now();
    for round in 0.. {
        words.shuffle(&mut order);
        for &i in &order {
            // the first round warms up the code and does not count
            if round > 1 && start.elapsed() >= duration {
                return Ok(all);
            }
            let (transport, size) = rows[i];
            let placement = session.wake_ups(transport, size, pause, &mut arrivals)?;
            let Some(placement) = placement.filter(|_| round > 0) else { continue };
            let kind = placements.iter().position(|its| *its == placement);
            let wake_ups = &mut all[i * placements.len() + kind.expect("a placement of this machine")];
            wake_ups.record(arrivals.delays(), arrivals.sleeps(), pause);
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
    pause: Duration,
    duration: Duration,
) -> io::Result<Vec<WakeUps>> {
    let mut all: Vec<WakeUps> = Vec::new();
    in_sessions(settings, transports, duration, |session, time| {
        for later in collect(session, sizes, pause, time)? {
            match all.iter_mut().find(|mine| mine.is_of(&later)) {
                Some(mine) => {
                    mine.histogram.add(&later.histogram).map_err(io::Error::other)?;
                    mine.awake += later.awake;
                }
                None => all.push(later),
            }
        }
        Ok(())
    })?;
    Ok(all)
}

/// The time of the wake-ups relative to `baseline`: the ratio of the medians in one placement.
pub fn ratio(all: &[WakeUps], wake_ups: &WakeUps, baseline: &str) -> Option<f64> {
    let base = all.iter().find(|base| {
        (base.transport, base.size, base.placement) == (baseline, wake_ups.size, wake_ups.placement)
    })?;
    Some(wake_ups.median()? / base.median()?)
}

/// The percentiles in nanoseconds, with a line for each transport, size and placement, and the ratio of the median to that of
/// `baseline`. A percentile that fewer than [`BEYOND`](latency::BEYOND) wake-ups exceed is a dash.
pub fn table(all: &[WakeUps], baseline: &str) -> String {
    let mut table = Table::new();
    table.groups(&[
        (String::new(), 4),
        ("nanoseconds from before send to after recv".to_owned(), latency::PERCENTILES.len() + 1),
        (String::new(), 3),
    ]);
    let mut head: Vec<String> = ["bytes", "transport", "waits", "where"].map(str::to_owned).to_vec();
    head.extend(latency::heads());
    head.extend(["n".to_owned(), "awake".to_owned(), format!("p50 /{baseline}")]);
    table.row(head);
    for wake_ups in all {
        let WakeUps { transport, mode, size, placement, histogram, awake } = wake_ups;
        let mut row =
            vec![size.to_string(), (*transport).to_owned(), mode.to_string(), placement.to_string()];
        row.extend(latency::cells(histogram));
        row.extend([histogram.len().to_string(), awake.to_string()]);
        row.push(table::ratio(ratio(all, wake_ups, baseline)));
        table.row(row);
    }
    table.to_string()
}

/// The cost of an idle consumer over every sleeping transport of the session, for `duration` each.
///
/// # Errors
/// As [`Session::idle`].
pub fn idle(
    session: &mut Session,
    size: usize,
    duration: Duration,
) -> io::Result<Vec<(&'static str, Mode, Idle)>> {
    let transports: Vec<_> = session.transports().iter().map(|its| (its.name(), its.mode())).collect();
    let sleeping = transports.into_iter().enumerate().filter(|(_, (_, mode))| *mode != Mode::Polls);
    sleeping.map(|(i, (name, mode))| Ok((name, mode, session.idle(i, size, duration)?))).collect()
}

/// The shares of a processor in percent.
pub fn idle_table(all: &[(&'static str, Mode, Idle)]) -> String {
    let mut table = Table::new();
    table.groups(&[(String::new(), 4)]);
    table.row(["transport", "waits", "seconds", "% of a cpu"].map(str::to_owned).to_vec());
    for (name, mode, idle) in all {
        let seconds = format!("{:.1}", idle.waited.as_secs_f64());
        let share = format!("{:.4}", 100.0 * idle.share());
        table.row(vec![(*name).to_owned(), mode.to_string(), seconds, share]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn wake_ups(transport: &'static str, placement: Placement, ns: u64, n: u64) -> WakeUps {
        let mut histogram = latency::histogram().unwrap();
        histogram.record_n(ns, n).unwrap();
        WakeUps { transport, mode: Mode::Sleeps, size: 16, placement, histogram, awake: 2 }
    }

    #[test]
    fn ratio_compares_medians_within_one_placement() {
        let all = [
            wake_ups("futex", Placement::Near, 4000, 200),
            wake_ups("shmpipe", Placement::Near, 5000, 200),
            wake_ups("shmpipe", Placement::Far, 5000, 200),
            wake_ups("pipe", Placement::Near, 5000, 99),
        ];
        let ratios: Vec<_> = all.iter().map(|each| ratio(&all, each, "futex")).collect();
        assert_eq!((ratios[2], ratios[3]), (None, None));
        assert!((ratios[1].unwrap() - 1.25).abs() < 0.01, "{ratios:?}");
        let table = table(&all, "futex");
        let row: Vec<_> = table.lines().nth(3).unwrap().split_whitespace().collect();
        assert_eq!((row[1], &row[row.len() - 3..]), ("shmpipe", &["200", "2", "1.25"][..]), "{table}");
    }

    #[test]
    fn sleeps_count_and_loops_do_not() {
        let before = sleeps();
        thread::sleep(Duration::from_millis(1));
        assert!(sleeps() > before);
        let before = sleeps();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1) {}
        assert_eq!(sleeps(), before);
    }

    #[test]
    fn only_settled_sleepers_count() {
        let mut woken = wake_ups("pipe", Placement::Near, 1, 1);
        woken.histogram.reset();
        // the third came without a sleep, the fifth soon after a late one
        let (delays, sleeps) = ([10, 20_000, 20_000, 400_000, 20_000], [1, 2, 2, 3, 4]);
        woken.record(&delays, &sleeps, Duration::from_micros(500));
        assert_eq!((woken.histogram.len(), woken.awake), (2, 2 + 2));
        assert!(woken.histogram.max() >= 400_000);
    }
}
