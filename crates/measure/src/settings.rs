//! What a session is made with.

use crate::placement::NEAR_BELOW_NS;

/// Between what messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Between {
    /// This process and another one, which runs the same program.
    #[default]
    Processes,
    /// Two threads of this process, each pinned to its CPU as the processes would be. The other process is there all the
    /// same, asleep, to clean up if this one is killed.
    ///
    /// A transport that needs two processes works between threads too, and attaches its memory twice; one that works
    /// between threads only [hands its other end over](crate::Invitation::hand_over). What one thread cannot do is kill another: a
    /// session that has failed waits two seconds for its partner to notice. If it does not, because it is blocked in
    /// something that does not end when the session's end of it is dropped, it stays, and this process has no
    /// further session.
    Threads,
}

/// What a session is made with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whether the partner is a process or a thread.
    pub between: Between,
    /// The CPU of this process and the partner's; by default the first two that this process may run on.
    pub cpus: Option<(usize, usize)>,
    /// Bytes of ring data, a power of two: of each direction of each transport that lies in memory.
    pub capacity: usize,
    /// Floors below this count as near; see [`NEAR_BELOW_NS`].
    pub near_below_ns: f64,
    /// Messages of a slice; by default as many as last for the time that a [`Plan`](crate::Plan) says. A slice that fits
    /// the ring measures a burst: the consumer follows close behind the producer all the way. One that laps it often
    /// measures a steady stream, in which the slower side sets the pace and the ring is mostly full, or mostly empty.
    pub burst: Option<u64>,
    /// Each slice begins with its ring out of the level 1 and level 2 caches of both processors: both read through several
    /// times as much other memory before the floor. A slice then has no more messages than go once through the ring. A
    /// pipe among many, or one whose messages are far apart, finds its memory like this; a single busy one of a size that
    /// the caches hold does not. Nothing is said of the last-level cache. What it costs is told by comparing with a
    /// [`burst`](Settings::burst) of as many messages, not with slices that lap the ring.
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
