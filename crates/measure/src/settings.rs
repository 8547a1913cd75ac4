//! Settings of a session.

use crate::placement::NEAR_BELOW_NS;

/// The two sides of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Between {
    /// This process and another one, which runs the same program.
    #[default]
    Processes,
    /// Two threads of this process, pinned to CPUs as the processes would be. A second process exists too. It sleeps, and
    /// cleans up if this one is killed.
    ///
    /// A transport for two processes works between threads too, and attaches its memory twice. A transport that only works
    /// between threads [hands over its other end](crate::Invitation::hand_over). A thread cannot be killed, so a failed session
    /// waits two seconds for its partner to notice. If the partner is blocked in a call that does not end when the session
    /// drops its end, the thread stays, and this process can have no further session.
    Threads,
}

/// What a session is made with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Processes or threads.
    pub between: Between,
    /// The CPUs of this process and the partner. By default, the first two that this process may run on.
    pub cpus: Option<(usize, usize)>,
    /// Bytes of ring data for each direction of each transport in memory, a power of two.
    pub capacity: usize,
    /// Floors below this count as near; see [`NEAR_BELOW_NS`].
    pub near_below_ns: f64,
    /// Messages per slice. By default, as many as take the time in the [`Plan`](crate::Plan). A slice that fits the ring
    /// measures a burst, in which the consumer follows close behind the producer. A slice that laps the ring often measures a
    /// steady stream, in which the slower side sets the pace, and the ring is mostly full or mostly empty.
    pub burst: Option<u64>,
    /// Each slice starts with its ring outside the level 1 and level 2 caches of both processors: before the floor, both read
    /// several times as much other memory. A slice then has at most one lap of messages. A pipe among many, or one with
    /// infrequent messages, finds its memory like this. A single busy pipe that fits the caches does not. The last-level cache
    /// may still hold the ring. To see the cost, compare with a [`burst`](Settings::burst) of as many messages, not with
    /// slices that lap the ring.
    pub cold: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            between: Between::Processes,
            cpus: None,
            capacity: 1 << 20,
            near_below_ns: NEAR_BELOW_NS,
            burst: None,
            cold: false,
        }
    }
}
