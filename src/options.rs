//! How a pipe is made and opened.

use crate::error::SetupError;
use crate::protocol::bell::WakeMode;
use crate::protocol::layout::{MAX_CAPACITY, MIN_CAPACITY};
use std::fmt;

/// How a call waits, named by what the processor does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Poll without pause: the lowest latency, a whole core.
    Spin,
    /// Poll for a moment, then offer the core to others between two looks.
    Yield,
    /// Poll for a moment, offer the core for a moment, then sleep until the other side wakes this one.
    Block,
}

/// A wish that an existing segment does not fulfil; it keeps what it has. See [`Pipe::kept`](crate::Pipe::kept).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// Bytes of the ring.
    Capacity {
        /// The wish, rounded up to a power of two.
        asked: u64,
        /// What the segment has.
        found: u64,
    },
    /// Permission bits.
    Mode {
        /// The wish.
        asked: u32,
        /// What the segment has.
        found: u32,
    },
    /// The user who owns the segment.
    Uid {
        /// The wish.
        asked: u32,
        /// What the segment has.
        found: u32,
    },
    /// The group that owns the segment.
    Gid {
        /// The wish.
        asked: u32,
        /// What the segment has.
        found: u32,
    },
    /// How sleepers are woken.
    WakeMode {
        /// The wish.
        asked: WakeMode,
        /// What the segment has.
        found: WakeMode,
    },
    /// Whether the segment is removed when both sides have closed.
    RemoveOnClose {
        /// The wish.
        asked: bool,
        /// What the segment has.
        found: bool,
    },
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::Capacity { asked, found } => {
                write!(f, "asked for a capacity of {asked} bytes, kept {found}")
            }
            Kept::Mode { asked, found } => write!(f, "asked for mode {asked:04o}, kept {found:04o}"),
            Kept::Uid { asked, found } => write!(f, "asked for owner {asked}, kept {found}"),
            Kept::Gid { asked, found } => write!(f, "asked for group {asked}, kept {found}"),
            Kept::WakeMode { asked, found } => write!(f, "asked for wake mode {asked}, kept {found}"),
            Kept::RemoveOnClose { asked, found } => {
                write!(f, "asked for removal on close: {asked}, kept {found}")
            }
        }
    }
}

/// How to make or open a pipe.
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
    pub(crate) remake_stale: bool,
    pub(crate) huge_pages: bool,
    pub(crate) lock_memory: bool,
    pub(crate) prefault: Option<bool>,
    pub(crate) assume_exclusive: bool,
}

/// Which segments a call accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Refused,
    Required,
    Welcome,
}

impl Options {
    /// The defaults: 1 MiB, mode 0600, schema 0, wait by [`Wait::Block`], the segment stays when both sides have closed.
    #[must_use]
    pub fn new() -> Self {
        Options::default()
    }

    /// Bytes of ring data, rounded up to a power of two and to 4096 at least. The longest message has half of it
    /// less 8 bytes. Default: 1 MiB.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Permission bits of the segment, or file, and of the semaphore set beside it, as for `chmod`. Default: 0600.
    /// Both ends need read and write permission; a watcher needs read permission.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o777);
        self
    }

    /// Gives a new segment to this user (needs privilege).
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Gives a new segment to this group.
    #[must_use]
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// The caller's own version of what the messages mean. A segment with another schema id is refused with both
    /// values. Default: 0.
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

    /// How the endpoints claimed through this pipe wait; each side chooses for itself. Default: [`Wait::Block`], or
    /// [`Wait::Yield`] on a segment whose wake mode is [`WakeMode::Never`].
    #[must_use]
    pub fn wait(mut self, strategy: Wait) -> Self {
        self.wait = Some(strategy);
        self
    }

    /// Whether the segment is removed when both sides have closed, together with what was not received. Default: it
    /// stays, as System V segments do.
    #[must_use]
    pub fn remove_on_close(mut self, remove: bool) -> Self {
        self.remove_on_close = Some(remove);
        self
    }

    /// Also accepts segments that this user has made or owns. Without it, only root and our own user are trusted.
    #[must_use]
    pub fn trust_uid(mut self, uid: u32) -> Self {
        self.trusted.push(uid);
        self
    }

    /// Asks for huge pages, which spare large rings misses of the address translation; done or refused. A new System V segment
    /// and a new memfd take theirs from the pool that the administrator sets aside (`nr_hugepages`); a file on tmpfs has
    /// small ones put together, and so has an existing segment. The segment takes up whole huge pages.
    #[must_use]
    pub fn huge_pages(mut self, huge: bool) -> Self {
        self.huge_pages = huge;
        self
    }

    /// Keeps the segment from being swapped out; done, or refused with the limit that stands in the way. A new System V
    /// segment stays locked until it is removed (`SHM_LOCK`); everything else as long as this process has it mapped
    /// (`mlock`), so that both ends may want to ask for it.
    #[must_use]
    pub fn lock_memory(mut self, lock: bool) -> Self {
        self.lock_memory = lock;
        self
    }

    /// Uses System V pipes also where the kernel does not give back what a killed process held, as gVisor does not:
    /// without this they are refused there ([`SetupError::NoUndo`]). The caller vouches that there is one producer at a time and
    /// one consumer; so a role that seems to be held is taken over from a predecessor that must have died. That the peer has died
    /// cannot be told there: `Abandoned` is never said, and waits for it end by their deadlines. On every other kernel this changes
    /// nothing: a role that is held is refused.
    #[must_use]
    pub fn assume_exclusive(mut self, assume: bool) -> Self {
        self.assume_exclusive = assume;
        self
    }

    /// Touches every page when the pipe is made or opened, so that the first lap through the ring costs no page faults: of
    /// round trips, the slowest in a hundred take 0.3 us then, as later, instead of 4.1, or 2.2 if only the creator has done
    /// so; and it takes 1 to 3 us a page.
    /// Default: when it is made, and when a file on a disk is opened, where pages that were not written to through this
    /// mapping are slower (14 % of a near round trip); but not if it takes more than half of the memory that is available.
    #[must_use]
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = Some(prefault);
        self
    }

    /// Makes a pipe anew whose file was made before the machine was last started, instead of refusing it: what the file
    /// system has kept of it need not fit together. What was not received is lost.
    #[must_use]
    pub fn remake_stale(mut self, remake: bool) -> Self {
        self.remake_stale = remake;
        self
    }

    /// The capacity asked for as a ring has it.
    pub(crate) fn rounded_capacity(&self) -> Option<Result<u64, SetupError>> {
        self.capacity.map(|bytes| {
            if bytes > MAX_CAPACITY {
                return Err(SetupError::CapacityTooLarge { asked: bytes, largest: MAX_CAPACITY });
            }
            Ok(bytes.next_power_of_two().max(MIN_CAPACITY))
        })
    }
}
