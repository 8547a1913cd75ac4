//! How long one side of a stream leaves the shared cache lines to the other side.

use crate::protocol::sync::spin_loop;
use std::sync::OnceLock;
use std::time::Instant;

/// From this average length on, messages are long. Measured on Zen 3 and Zen 5: streams of 2 KiB gain from the backoff, those of
/// 8 KiB lose.
const LONG_MESSAGE: u64 = 4096;

/// The backoff of a side that has caught up with the other side of a stream.
///
/// Polling for the next message takes the cache line away from the producer that is just writing it, so that two sides that follow
/// each other closely are both slow. A pause lets the other side get ahead. It lasts as long as the bytes of the last run would
/// take at 1 GB/s: short after a few messages, long in a steady stream, whose runs grow with each pause. There is no pause after
/// a single message, and none after long ones: polling costs these little, and what arrives during the pause would leave the near
/// caches before it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamBackoff {
    /// Where the last run ended: messages and position.
    messages: u64,
    position: u64,
    /// Runs of this many bytes or more get the longest pause.
    longest: u64,
    spins_per_kib: u64,
}

impl StreamBackoff {
    /// Before the first run, through a ring of `capacity` bytes. The other side moves several gigabytes a second, and should not
    /// fill or empty the ring long before a pause ends.
    pub(crate) fn new(capacity: u64, messages: u64, position: u64) -> Self {
        StreamBackoff {
            messages,
            position,
            longest: (capacity / 16).min(4096),
            spins_per_kib: spins_per_kib(),
        }
    }

    /// Notes that a run ended at this number of messages and this position. Then pauses, for a side that is going to poll.
    pub(crate) fn end_run(&mut self, messages: u64, position: u64, polls: bool) {
        let spins = self.spins_after(messages, position);
        if polls {
            (0..spins).for_each(|_| spin_loop());
        }
    }

    /// The length of the pause after a run, in calls of `spin_loop`.
    fn spins_after(&mut self, messages: u64, position: u64) -> u64 {
        let count = messages.wrapping_sub(self.messages);
        let run = position.wrapping_sub(self.position);
        *self = StreamBackoff { messages, position, ..*self };
        if count <= 1 || run / LONG_MESSAGE >= count {
            0
        } else {
            run.min(self.longest) * self.spins_per_kib / 1024
        }
    }
}

/// Calls of `spin_loop` that take as long as 1 KiB at 1 GB/s. One call takes 10 to 150 cycles, depending on the processor.
/// Measured once per process, in a few microseconds.
fn spins_per_kib() -> u64 {
    static SPINS: OnceLock<u64> = OnceLock::new();
    *SPINS.get_or_init(|| {
        const SAMPLE: u32 = 64;
        let sample = || {
            let start = Instant::now();
            (0..SAMPLE).for_each(|_| spin_loop());
            start.elapsed().as_nanos()
        };
        let fastest = (0..5).map(|_| sample()).min().map_or(1, |nanoseconds| nanoseconds.max(1));
        (1024 * u128::from(SAMPLE) / fastest).clamp(1, 1024) as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_with_the_run_and_follows_neither_single_nor_long_messages() {
        let pauses = |count: u64, size: u64| {
            let mut backoff =
                StreamBackoff { messages: 7, position: 1000, longest: 4096, spins_per_kib: 1024 };
            let spins = backoff.spins_after(7 + count, 1000 + count * size);
            assert_eq!(backoff.spins_after(7 + count, 1000 + count * size), 0, "nothing arrived since");
            spins
        };
        assert_eq!([pauses(1, 64), pauses(1, 2048), pauses(1, 8192)], [0, 0, 0]);
        assert_eq!([pauses(2, 64), pauses(10, 64), pauses(64, 64), pauses(1000, 64)], [128, 640, 4096, 4096]);
        assert_eq!([pauses(2, 4088), pauses(2, 4096), pauses(100, 65536)], [4096, 0, 0]);
    }
}
