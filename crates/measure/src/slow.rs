//! The processor time of a side whose partner is slow.
//!
//! This process is the slow side: it takes, or sends, a message at given times, and polls the clock between them. The partner sends, or
//! receives, as fast as that lets it, and mostly waits. Counted are the processor time of the partner's process, and the time that this
//! process spends in its calls of the transport, where it pays to wake the partner.
//!
//! A slow consumer starts with a full transport. The rest is received at once, after the count.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::control::Verb;
use crate::idle::processor_time;
use crate::paced::{self, SHORTEST, Schedule};
use crate::session::Session;
use crate::splitmix::SplitMix64;
use crate::statistics;
use crate::table::{self, Table};
use crate::transports::Mode;

/// The duration of a slice.
const SLICE: Duration = Duration::from_millis(400);
/// How long the partner has sent before the count begins.
const SETTLE: Duration = Duration::from_millis(30);

/// Which side is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// The transport is full.
    Consumer,
    /// The transport is empty.
    Producer,
}

/// The processor time for one transport, slow side and rate.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The transport's name.
    pub transport: &'static str,
    /// How it waits.
    pub mode: Mode,
    /// Which side is slow.
    pub slow: Slow,
    /// Messages per second.
    pub rate: f64,
    /// Seconds of processor time of the waiting side for a million messages, one figure for each slice.
    pub waiting: Vec<f64>,
    /// Seconds in the calls of the slow side for a million messages.
    pub calls: Vec<f64>,
}

impl Cost {
    /// Seconds for a million messages: both, for each slice.
    fn both(&self) -> Vec<f64> {
        self.waiting.iter().zip(&self.calls).map(|(waiting, calls)| waiting + calls).collect()
    }
}

impl Session {
    /// One slice. Returns the two figures.
    fn slow(&mut self, transport: usize, size: usize, slow: Slow, rate: f64) -> io::Result<(f64, f64)> {
        if size < SHORTEST {
            return Err(paced::too_short(size));
        }
        let interval = paced::interval(rate)?;
        let count = (SLICE.as_nanos() as u64 / interval).max(1);
        // More than any transport holds, so that it stays full to the end of the count.
        let more = match slow {
            Slow::Consumer => 2 * (self.settings().capacity.max(1 << 18) / size) as u64,
            Slow::Producer => 0,
        };
        let verb = match slow {
            Slow::Consumer => Verb::StreamOut,
            Slow::Producer => Verb::StreamIn,
        };
        let partner = self.partner_id();
        let order = self.order(verb, transport, size, count + more)?;
        let ((ran, calls), _) = self.bracketed(order, |work| {
            thread::sleep(SETTLE);
            let before = processor_time(partner)?;
            let calls = work.at_times(size, slow, Schedule::soon(count, interval))?;
            let ran = processor_time(partner)?.saturating_sub(before);
            work.stream_in(size, more)?;
            Ok((ran, calls))
        })?;
        let of = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        Ok((of(ran), of(calls)))
    }
}

/// Measures every transport of the session at every rate (messages per second), with either side slow, in alternating slices.
///
/// # Errors
/// `InvalidInput` for a size below [`paced::SHORTEST`] or an invalid rate; as [`Session::slice`].
pub fn collect(
    session: &mut Session,
    size: usize,
    rates: &[f64],
    duration: Duration,
) -> io::Result<Vec<Cost>> {
    let mut all = Vec::new();
    for slow in [Slow::Consumer, Slow::Producer] {
        for &rate in rates {
            for (i, its) in session.transports().iter().enumerate() {
                if session.fits(i, size) {
                    let (waiting, calls) = (Vec::new(), Vec::new());
                    let cost = Cost { transport: its.name(), mode: its.mode(), slow, rate, waiting, calls };
                    all.push((i, cost));
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..all.len()).collect();
    let mut words = SplitMix64::new(1);
    let start = Instant::now();
    loop {
        words.shuffle(&mut order);
        for &i in &order {
            let (transport, cost) = &mut all[i];
            let (waiting, calls) = session.slow(*transport, size, cost.slow, cost.rate)?;
            cost.waiting.push(waiting);
            cost.calls.push(calls);
        }
        if start.elapsed() >= duration {
            return Ok(all.into_iter().map(|(_, cost)| cost).collect());
        }
    }
}

/// Seconds of processor time for a million messages, with a line for each slow side, rate and transport, and the ratio of the medians to
/// that of `baseline`.
pub fn table(all: &[Cost], baseline: &str) -> String {
    let mut table = Table::new();
    table.groups(&[(String::new(), 4), ("seconds for a million messages".to_owned(), 5), (String::new(), 3)]);
    let head = ["slow", "rate", "transport", "waits", "waiting side", "its calls", "both", "min", "max"];
    let mut head: Vec<String> = head.map(str::to_owned).to_vec();
    head.extend(["% of a cpu".to_owned(), "n".to_owned(), format!("/{baseline}")]);
    table.row(head);
    for cost in all {
        let median = |figures: &[f64]| statistics::median(figures.iter().copied());
        let both = cost.both();
        let base = all
            .iter()
            .find(|base| (base.transport, base.slow, base.rate) == (baseline, cost.slow, cost.rate));
        let base = base.and_then(|base| median(&base.both()));
        let slow = if cost.slow == Slow::Consumer { "consumer" } else { "producer" };
        let mut row = vec![
            slow.to_owned(),
            format!("{:.0}", cost.rate),
            cost.transport.to_owned(),
            cost.mode.to_string(),
            table::figure(median(&cost.waiting)),
            table::figure(median(&cost.calls)),
            table::figure(median(&both)),
            table::figure(both.iter().copied().reduce(f64::min)),
            table::figure(both.iter().copied().reduce(f64::max)),
        ];
        // Seconds for a million messages, so many of which come each second.
        row.push(table::figure(median(&cost.waiting).map(|seconds| seconds * cost.rate / 1e4)));
        row.push(both.len().to_string());
        row.push(table::ratio(median(&both).zip(base).map(|(mine, base)| mine / base)));
        table.row(row);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(transport: &'static str, waiting: f64) -> Cost {
        Cost {
            transport,
            mode: Mode::Sleeps,
            slow: Slow::Consumer,
            rate: 1000.0,
            waiting: vec![waiting, waiting, 100.0],
            calls: vec![1.0, 1.0, 1.0],
        }
    }

    #[test]
    fn ratio_compares_the_medians_of_both_sides() {
        let text = table(&[cost("pipe", 3.0), cost("shmpipe", 7.0)], "pipe");
        let row: Vec<_> = text.lines().last().unwrap().split_whitespace().collect();
        let expected = [
            "consumer", "1000", "shmpipe", "sleeps", "|", "7.00", "1.00", "8.00", "8.00", "101.0", "|",
            "0.70", "3", "2.00",
        ];
        assert_eq!(row, expected, "{text}");
    }
}
