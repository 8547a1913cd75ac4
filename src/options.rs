//! Options for creating and opening a pipe.

use crate::error::{SetupError, Shortage};
use crate::protocol::layout::{MAX_CAPACITY, MIN_CAPACITY};
use crate::protocol::wakeup::WakeMode;
use std::fmt;

/// How a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Poll without pause: the lowest latency, at the cost of a whole core.
    Spin,
    /// Poll for a moment, then yield the core between polls.
    Yield,
    /// Poll for a moment, yield for a moment, then sleep until the peer wakes this side.
    Block,
}

/// An option that differs from the property of an existing segment, which does not change. See
/// [`Pipe::differences`](crate::Pipe::differences).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// Bytes of the ring.
    Capacity {
        /// The capacity requested, rounded up to a power of two.
        requested: u64,
        /// The capacity of the segment.
        actual: u64,
    },
    /// Permission bits.
    Mode {
        /// The mode requested.
        requested: u32,
        /// The mode of the segment.
        actual: u32,
    },
    /// The user who owns the segment.
    Uid {
        /// The user requested.
        requested: u32,
        /// The owner of the segment.
        actual: u32,
    },
    /// The group that owns the segment.
    Gid {
        /// The group requested.
        requested: u32,
        /// The group of the segment.
        actual: u32,
    },
    /// How sleepers are woken.
    WakeMode {
        /// The wake mode requested.
        requested: WakeMode,
        /// The wake mode of the segment.
        actual: WakeMode,
    },
    /// Whether the segment is removed when both sides have closed.
    RemoveOnClose {
        /// Whether removal was requested.
        requested: bool,
        /// Whether the segment is removed.
        actual: bool,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Capacity { requested, actual } => {
                write!(f, "requested a capacity of {requested} bytes, the segment has {actual}")
            }
            Difference::Mode { requested, actual } => {
                write!(f, "requested mode {requested:04o}, the segment has {actual:04o}")
            }
            Difference::Uid { requested, actual } => {
                write!(f, "requested owner {requested}, the segment has {actual}")
            }
            Difference::Gid { requested, actual } => {
                write!(f, "requested group {requested}, the segment has {actual}")
            }
            Difference::WakeMode { requested, actual } => {
                write!(f, "requested wake mode {requested}, the segment has {actual}")
            }
            Difference::RemoveOnClose { requested, actual } => {
                write!(f, "requested removal on close: {requested}, the segment has {actual}")
            }
        }
    }
}

/// How to create or open a pipe.
///
/// ```
/// use shmpipe::{Options, Wait};
///
/// let pipe = Options::new().capacity(64 << 10).wait(Wait::Spin).create("sysv:private")?;
/// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(b"first light")?;
/// assert_eq!(consumer.recv()?.to_vec(), b"first light");
/// # shmpipe::unlink_force(pipe.address())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) capacity: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) schema: u64,
    pub(crate) wake_mode: Option<WakeMode>,
    pub(crate) wait: Option<Wait>,
    pub(crate) remove_on_close: Option<bool>,
    pub(crate) trusted: Vec<u32>,
    pub(crate) recreate_stale: bool,
    pub(crate) huge_pages: bool,
    pub(crate) lock_memory: bool,
    pub(crate) prefault: Option<bool>,
    pub(crate) assume_exclusive: bool,
}

/// Whether a call accepts an existing segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Refused,
    Required,
    Welcome,
}

impl Options {
    /// The defaults: 1 MiB, mode 0600, schema 0, [`Wait::Block`], and a segment that stays when both sides have closed.
    #[must_use]
    pub fn new() -> Self {
        Options::default()
    }

    /// Bytes of ring data, rounded up to a power of two and to at least 4096. The longest message has half of that, less 8
    /// bytes. Default: 1 MiB.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// The caller's version number for the format of its messages. Opening a segment with another schema id fails with an error
    /// that has both. Default: 0.
    #[must_use]
    pub fn schema(mut self, id: u64) -> Self {
        self.schema = id;
        self
    }

    /// How sleepers are woken. Default: [`WakeMode::Membarrier`] where the kernel has it, else [`WakeMode::Fence`].
    #[must_use]
    pub fn wake_mode(mut self, mode: WakeMode) -> Self {
        self.wake_mode = Some(mode);
        self
    }

    /// How producers and consumers claimed through this pipe wait. Each side chooses for itself. Default: [`Wait::Block`], or
    /// [`Wait::Yield`] on a segment whose wake mode is [`WakeMode::Never`].
    #[must_use]
    pub fn wait(mut self, strategy: Wait) -> Self {
        self.wait = Some(strategy);
        self
    }

    /// Whether the segment is removed when both sides have closed, together with messages that were not received. Default: it
    /// stays, as System V segments do.
    #[must_use]
    pub fn remove_on_close(mut self, remove: bool) -> Self {
        self.remove_on_close = Some(remove);
        self
    }

    /// Puts the segment on huge pages, which saves large rings TLB misses, or fails. A new System V segment and a new memfd take
    /// pages from the pool that the administrator reserves (`nr_hugepages`). For a file on tmpfs, and for an existing segment,
    /// the kernel collapses small pages. The segment occupies whole huge pages.
    #[must_use]
    pub fn huge_pages(mut self, huge: bool) -> Self {
        self.huge_pages = huge;
        self
    }

    /// Locks the segment in memory, so that it is never swapped out, or fails with the limit in the way. A new System V segment
    /// stays locked until it is removed (`SHM_LOCK`). Any other stays locked while this process has it mapped (`mlock`), so both
    /// ends may want to set this.
    #[must_use]
    pub fn lock_memory(mut self, lock: bool) -> Self {
        self.lock_memory = lock;
        self
    }

    /// Allows System V pipes on a kernel that does not undo the claims of a killed process, such as gVisor. Without this option
    /// they fail there with [`MissingFeature::Undo`](crate::error::MissingFeature::Undo).
    ///
    /// The caller guarantees that there is at most one producer and one consumer at a time. So a claim of a role that is held
    /// takes it over, since the holder must have died. On such a kernel the death of the peer goes unnoticed: no call returns
    /// `PeerDied`, and a wait for a dead peer ends only at its deadline. On every other kernel this option changes nothing: a
    /// claim of a role that is held fails.
    #[must_use]
    pub fn assume_exclusive(mut self, assume: bool) -> Self {
        self.assume_exclusive = assume;
        self
    }

    /// Whether to fault in every page when the pipe is created or opened, so that the first lap through the ring causes no page
    /// faults. The slowest 1 % of round trips in that lap then take 0.3 us, as later, instead of 4.1 us, or 2.2 us if only the
    /// creator did so. It costs 1 to 3 us per page.
    ///
    /// Default: when the pipe is created, and when a file on a disk is opened, where pages that were not written through this
    /// mapping are slower (by 14 % of a round trip between near cores); but not if the pipe takes more than half of the available
    /// memory.
    #[must_use]
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = Some(prefault);
        self
    }

    /// Recreates a pipe whose file dates from before the last boot, instead of failing: the file system may have kept an
    /// inconsistent state of it. Messages that were not received are lost.
    #[must_use]
    pub fn recreate_stale(mut self, recreate: bool) -> Self {
        self.recreate_stale = recreate;
        self
    }

    /// The capacity requested, rounded as for a ring; `None` without a request.
    pub(crate) fn rounded_capacity(&self) -> Option<Result<u64, SetupError>> {
        self.capacity.map(|bytes| {
            if bytes > MAX_CAPACITY {
                return Err(SetupError::Limit(Shortage::Capacity {
                    requested: bytes,
                    largest: MAX_CAPACITY,
                }));
            }
            Ok(bytes.next_power_of_two().max(MIN_CAPACITY))
        })
    }
}
