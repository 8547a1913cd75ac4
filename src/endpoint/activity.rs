//! What an endpoint has counted.

use crate::protocol::layout::Counters;
use crate::protocol::sync::{AtomicU64, Ordering};

/// What the holders of a role have counted since the pipe was created: from [`Producer::activity`](crate::Producer::activity) and
/// [`Consumer::activity`](crate::Consumer::activity).
///
/// The counters lie in the segment, so they go on after a restart. Watchers read the same ones with [`inspect`](crate::inspect).
///
/// ```
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let (mut producer, consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(b"hello")?;
/// assert_eq!((producer.activity().messages, producer.activity().bytes), (1, 5));
/// assert_eq!(consumer.activity().messages, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// Messages sent, or released.
    pub messages: u64,
    /// Payload bytes of those.
    pub bytes: u64,
    /// Calls that had to wait, for space or for messages.
    pub waits: u64,
    /// Wake-ups of the other side.
    pub wakeups: u64,
    /// Messages that the producer [counted as dropped](crate::Producer::count_dropped); 0 for a consumer.
    pub dropped: u64,
}

impl Activity {
    pub(crate) fn of(counters: &Counters) -> Self {
        // Relaxed: numbers to look at; nothing is read through them. Only this side writes them.
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Activity {
            messages: load(&counters.messages),
            bytes: load(&counters.bytes),
            waits: load(&counters.waits),
            wakeups: load(&counters.wakeups),
            dropped: load(&counters.dropped),
        }
    }
}
