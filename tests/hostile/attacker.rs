//! The access of a hostile process: the segment, mapped for writing.

pub use shmpipe_testing::layout::side::{
    ABORT_CODE, EVENT_COUNT, REPORTED, STATE, WAITER_EPOCH, WAKE_THRESHOLD,
};
pub use shmpipe_testing::layout::{CONSUMED, CONSUMER, HEAD, PRODUCED, PRODUCER, RING, TAIL, WRAP};

use shmpipe::{Consumer, Listing, Options, Pipe, Producer};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::raw::Attached;
use shmpipe_testing::within;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub const CAPACITY: u64 = 4096;
/// The longest message.
pub const MAX: u64 = 2040;

/// A listing of all pipes, including those of other tests. A claim waits up to a second until no watcher has its pipe
/// attached. With one watcher at a time, a preempted watcher does not delay it longer.
pub fn list_alone() -> Listing {
    static LOOKING: Mutex<()> = Mutex::new(());
    let _alone = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    shmpipe::list()
}

pub fn small() -> Options {
    Options::new().capacity(CAPACITY)
}

/// Much later than a waiting call notices what happened.
pub fn soon() -> Instant {
    within(Duration::from_secs(5))
}

/// A pipe of the smallest capacity, and its segment as a hostile process has it.
pub struct Attacked {
    pub pipe: Pipe,
    pub hostile: Attached,
    pub place: Place,
}

impl Attacked {
    pub fn new(backend: Backend) -> Self {
        Self::with(backend, &Options::new())
    }

    pub fn with(backend: Backend, options: &Options) -> Self {
        let place = backend.place();
        let pipe = place.create(&options.clone().capacity(CAPACITY)).unwrap();
        Attacked { pipe, hostile: place.segment(), place }
    }

    pub fn ends(&self) -> (Producer, Consumer) {
        (self.pipe.producer().unwrap(), self.pipe.consumer().unwrap())
    }

    /// All bytes, which [`Attached::copy_from`] can restore.
    pub fn image(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.hostile.size()];
        self.hostile.copy_to(0, &mut bytes);
        bytes
    }
}

/// Values at which arithmetic overflows or wraps, and values near `now`.
pub fn edges(now: u64) -> Vec<u64> {
    let mut values = vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16];
    for power in [12, 13, 31, 32, 40, 61, 62, 63] {
        values.extend([
            (1u64 << power) - 8,
            (1 << power) - 1,
            1 << power,
            (1 << power) + 1,
            (1 << power) + 8,
        ]);
    }
    values.extend([u64::MAX, u64::MAX - 1, u64::MAX - 2, u64::MAX - 3, u64::MAX - 7]);
    for distance in [1, 4, 8, 16, CAPACITY - 8, CAPACITY, CAPACITY + 8, 2 * CAPACITY] {
        values.extend([now.wrapping_add(distance), now.wrapping_sub(distance)]);
    }
    values
}
