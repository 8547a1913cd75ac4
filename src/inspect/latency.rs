//! The latencies that a pipe has measured.

use crate::protocol::latency::longest_in;
use crate::protocol::layout::Latencies;
use crate::protocol::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// How long sampled messages were under way, in a [`Snapshot`](crate::Snapshot): a histogram, since the pipe was created.
///
/// From the commit to the moment at which the consumer found the message: see
/// [`Options::measure_latency`](crate::Options::measure_latency).
///
/// ```
/// let pipe = shmpipe::Options::new().measure_latency(true).create("memfd")?;
/// let before = shmpipe::inspect(pipe.address())?.latency.expect("it is measured");
/// assert_eq!((before.samples(), before.quantile(0.99)), (0, None));
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// # for _ in 0..200 { producer.send(&[0; 10_000])?; consumer.recv()?.release(); }
/// // Later:
/// let now = shmpipe::inspect(pipe.address())?.latency.expect("it is measured");
/// let recent = now.since(&before);
/// println!("p99 {:?}, longest {:?}", recent.quantile(0.99), now.max());
/// # assert!(recent.quantile(0.99) >= recent.quantile(0.5) && now.mean() <= now.max());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    counts: Vec<u64>,
    max: u64,
    sum: u64,
}

impl Latency {
    pub(super) fn of(words: &Latencies) -> Self {
        // Relaxed: numbers to look at.
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Latency {
            counts: words.counts.iter().map(load).collect(),
            max: load(&words.max),
            sum: load(&words.sum),
        }
    }

    /// Returns the number of messages sampled.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Returns the latency that this part of the samples, from 0 to 1, did not exceed: 0.99 is the 99th percentile. `None` without
    /// samples.
    ///
    /// At most an eighth above the true one, and 68 seconds at most.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let samples = self.samples();
        let rank = ((quantile.clamp(0.0, 1.0) * samples as f64).ceil() as u64).clamp(1, samples.max(1));
        let mut below = 0u64;
        let bucket = self.counts.iter().position(|&count| {
            below = below.saturating_add(count);
            below >= rank
        })?;
        Some(Duration::from_nanos(longest_in(bucket).min(self.max)))
    }

    /// Returns the longest latency since the pipe was created.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns the sum of all latencies.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// Returns the mean; 0 without samples.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.samples()).unwrap_or(0))
    }

    /// Returns the samples that an earlier look at the same pipe did not have. Their [`max`](Self::max) is still that since the pipe
    /// was created.
    #[must_use]
    pub fn since(&self, earlier: &Latency) -> Latency {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then));
        Latency { counts: counts.collect(), max: self.max, sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// Returns the histogram: for each bucket that has samples, the longest latency in it and their number, in order.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let all = self.counts.iter().enumerate();
        all.filter(|(_, count)| **count > 0)
            .map(|(bucket, &count)| (Duration::from_nanos(longest_in(bucket)), count))
    }
}
