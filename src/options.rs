//! Options for creating and opening a pipe.

use crate::error::{SetupError, Shortage};
use crate::protocol::layout::{MAX_CAPACITY, MIN_CAPACITY};
use crate::protocol::wakeup::WakeMode;
use std::fmt;
use std::time::Duration;

/// How a call waits.
///
/// The choice trades latency against processor time. Each side chooses for itself, with [`Options::wait`].
///
/// ```
/// use shmpipe::{Options, Wait};
///
/// // Spins: for a core that does nothing else.
/// let mut consumer = Options::new().wait(Wait::Spin).create("memfd")?.consumer()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Polls without pause: the lowest latency, at the cost of a whole core.
    Spin,
    /// Polls for 20 microseconds, then yields the core between polls.
    Yield,
    /// Polls for 20 microseconds, yields for 80 more, then sleeps until the peer wakes this side. Sleeps at once while polling does
    /// not pay: after three waits in a row that slept, or in which the peer needed this processor. Waking this side costs the peer
    /// a system call.
    Block,
    /// Looks at its own pace: sleeps for this long between two polls, and the peer never has to wake it.
    ///
    /// For the consumer of a logger, whose producer must not pay for a wake-up. A message is received up to this much later; the
    /// kernel adds some 50 microseconds. A deadline and a [`CancelHandle`](crate::CancelHandle) end the sleep, and a sleep of more
    /// than 100 ms is cut into such of 100 ms, so that a death is noticed as soon as otherwise. Needs no
    /// [`WakeMode`]: works with [`WakeMode::Never`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// use shmpipe::{Options, Wait};
    ///
    /// let pipe = Options::new().wait(Wait::Sleep(Duration::from_millis(1))).create("memfd")?;
    /// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// std::thread::spawn(move || producer.send(b"a line"));
    /// assert_eq!(consumer.recv()?.to_vec(), b"a line");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Sleep(Duration),
}

/// An option that differs from the property of an existing segment, which does not change.
///
/// [`Pipe::differences`](crate::Pipe::differences) returns them.
///
/// ```
/// use shmpipe::{Difference, Options};
///
/// let pipe = Options::new().capacity(4096).create("memfd")?;
/// let opened = Options::new().capacity(8192).open(pipe.address())?;
/// assert_eq!(opened.differences(), [Difference::Capacity { requested: 8192, actual: 4096 }]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// Whether the segment is removed once it is left over.
    RemoveLeftover {
        /// Whether removal was requested.
        requested: bool,
        /// Whether the segment is removed.
        actual: bool,
    },
    /// Whether latency is measured.
    MeasureLatency {
        /// Whether that was requested.
        requested: bool,
        /// Whether it is.
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
            Difference::RemoveLeftover { requested, actual } => {
                write!(f, "requested removal as a leftover: {requested}, the segment has {actual}")
            }
            Difference::MeasureLatency { requested, actual } => {
                write!(f, "requested the measuring of latency: {requested}, the segment has {actual}")
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
    pub(crate) duplex: bool,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) schema: u64,
    pub(crate) wake_mode: Option<WakeMode>,
    pub(crate) wait: Option<Wait>,
    pub(crate) remove_on_close: Option<bool>,
    pub(crate) remove_leftover: Option<bool>,
    pub(crate) measure_latency: Option<bool>,
    pub(crate) trusted: Vec<u32>,
    pub(crate) recreate_stale: bool,
    pub(crate) huge_pages: bool,
    pub(crate) lock_memory: bool,
    pub(crate) prefault: Option<bool>,
    pub(crate) allow_missing_undo: bool,
    pub(crate) allow_rmid_forced: bool,
    pub(crate) keep_unread_on_panic: bool,
}

/// Whether a call accepts an existing segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Refused,
    Required,
    Welcome,
}

impl Options {
    /// Returns the defaults: 1 MiB, mode 0600, schema 0, [`Wait::Block`], and a segment that stays when both sides have closed.
    #[must_use]
    pub fn new() -> Self {
        Options::default()
    }

    /// Sets the bytes of ring data, rounded up to a power of two and to at least 4096.
    ///
    /// The longest message has half of that, less 8 bytes. A duplex pipe has a ring of this size in each direction. Default: 1 MiB.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().capacity(5000).create("memfd")?;
    /// assert_eq!((pipe.capacity(), pipe.max_len()), (8192, 4088));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Sets whether the pipe has two directions: messages both ways through one address.
    ///
    /// Default: one direction. An existing pipe must match: one of the other kind fails with
    /// [`Mismatch::Directions`](crate::error::Mismatch::Directions). [`Pipe::duplex`](crate::Pipe::duplex) claims a side of a pipe
    /// with two directions. It takes twice the memory of a pipe with one.
    ///
    /// ```
    /// use shmpipe::{Options, SetupError, error::Mismatch};
    ///
    /// let pipe = Options::new().duplex(true).create("memfd")?;
    /// let opened = Options::new().open(pipe.address());
    /// assert!(matches!(opened, Err(SetupError::Incompatible(Mismatch::Directions { duplex: true }))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn duplex(mut self, duplex: bool) -> Self {
        self.duplex = duplex;
        self
    }

    /// Sets the caller's version number for the format of its messages.
    ///
    /// Default: 0.
    ///
    /// Opening a segment with another schema id fails with [`Mismatch::Schema`](crate::error::Mismatch::Schema), which has both.
    ///
    /// ```
    /// use shmpipe::{Options, SetupError, error::Mismatch};
    ///
    /// let pipe = Options::new().schema(1).create("memfd")?;
    /// let opened = Options::new().schema(2).open(pipe.address());
    /// assert!(matches!(opened, Err(SetupError::Incompatible(Mismatch::Schema { found: 1, expected: 2 }))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn schema(mut self, id: u64) -> Self {
        self.schema = id;
        self
    }

    /// Sets how sleepers are woken.
    ///
    /// Default: [`WakeMode::Membarrier`] where the kernel has it, else [`WakeMode::Fence`]. It applies to a new segment.
    #[must_use]
    pub fn wake_mode(mut self, mode: WakeMode) -> Self {
        self.wake_mode = Some(mode);
        self
    }

    /// Sets how producers and consumers claimed through this pipe wait.
    ///
    /// Each side chooses for itself. Default: [`Wait::Block`], or [`Wait::Yield`] on a segment whose wake mode is
    /// [`WakeMode::Never`]. [`Wait::Block`] on such a segment fails with
    /// [`Unsupported::Block`](crate::error::Unsupported::Block).
    #[must_use]
    pub fn wait(mut self, strategy: Wait) -> Self {
        self.wait = Some(strategy);
        self
    }

    /// Sets whether the segment is removed when both sides have closed, together with messages that were not received.
    ///
    /// Default: it stays, as System V segments do. It applies to a new segment.
    #[must_use]
    pub fn remove_on_close(mut self, remove: bool) -> Self {
        self.remove_on_close = Some(remove);
        self
    }

    /// Sets whether a pipe that is left over is removed by the next process that looks for it.
    ///
    /// A pipe is left over when it was used, no process has it open, all messages were received, and no end is left to hear of: both
    /// sides were killed, or both closed, or one heard of the other's close. Who looks is a process that opens it or
    /// creates a pipe at its address, with any options, or one that calls [`unlink_leftover`](crate::unlink_leftover), as `shmpipe ls`
    /// and `shmpipe doctor` do for all pipes. To a process that opens it, the pipe does not exist then;
    /// [`open_or_create`](Self::open_or_create) creates a new one, with another [`id`](crate::Pipe::id) and positions that start at 0.
    ///
    /// Default: it stays. Applies to a new segment. A memfd never stays.
    ///
    /// ```
    /// use shmpipe::Options;
    ///
    /// let options = Options::new().remove_leftover(true);
    /// # let address = format!("leftover-doc-{}", std::process::id());
    /// let pipe = options.create(&address)?;
    /// let id = pipe.id();
    /// let mut consumer = pipe.consumer()?;
    /// drop(pipe.producer()?);
    /// assert!(consumer.recv().is_err()); // hears that the producer closed
    /// drop((consumer, pipe));
    /// let pipe = options.open_or_create(&address)?;
    /// assert!(pipe.created() && pipe.id() != id);
    /// # shmpipe::unlink(&address)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn remove_leftover(mut self, remove: bool) -> Self {
        self.remove_leftover = Some(remove);
        self
    }

    /// Sets whether the pipe measures how long messages are under way.
    ///
    /// From the commit to the moment at which the consumer finds the message, for some messages: about sixteen in each lap of the ring,
    /// and each one that wakes the consumer from a sleep (of a batch, the first). [`Snapshot::latency`](crate::Snapshot::latency) has
    /// the result. The clock is `CLOCK_MONOTONIC`, which takes some 20 ns to read: two processes in different time namespaces measure
    /// nothing useful.
    ///
    /// Default: it does not. Applies to a new segment. A sampled message costs two readings of the clock and the slow path of both
    /// sides, every other message nothing; a message that the consumer waited for takes the slow path too.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pipe = shmpipe::Options::new().measure_latency(true).create("memfd")?;
    /// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// for _ in 0..1000 {
    ///     producer.send(&[7; 1000])?;
    ///     consumer.recv()?.release();
    /// }
    /// let latency = shmpipe::inspect(pipe.address())?.latency.expect("it is measured");
    /// assert_eq!(latency.samples(), 15);
    /// assert!(latency.quantile(0.5).unwrap() < Duration::from_millis(100));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn measure_latency(mut self, measure: bool) -> Self {
        self.measure_latency = Some(measure);
        self
    }

    /// Sets whether a message that a panic drops stays unread.
    ///
    /// Default: it does not. A [`Message`](crate::Message) or [`Drain`](crate::Drain) that is dropped while its thread unwinds from a
    /// panic releases its messages like any other, and no successor receives them. With this option it leaves them in the pipe: this
    /// consumer, if it survives the panic, or its successor receives them again, at the same positions. A message that always panics
    /// then comes again and again, and a destructor that receives during the unwinding must
    /// [`release`](crate::Message::release) what it is done with.
    ///
    /// Applies to consumers claimed through this handle. Costs a call per release.
    ///
    /// ```
    /// use std::panic::{AssertUnwindSafe, catch_unwind};
    ///
    /// let pipe = shmpipe::Options::new().keep_unread_on_panic(true).create("memfd")?;
    /// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"not a number")?;
    /// let parsed = catch_unwind(AssertUnwindSafe(|| {
    ///     let message = consumer.recv().unwrap();
    ///     String::from_utf8(message.to_vec()).unwrap().parse::<u32>().unwrap()
    /// }));
    /// assert!(parsed.is_err());
    /// assert_eq!(consumer.recv()?.to_vec(), b"not a number");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn keep_unread_on_panic(mut self, keep: bool) -> Self {
        self.keep_unread_on_panic = keep;
        self
    }

    /// Puts the segment on huge pages, which saves large rings TLB misses, or fails.
    ///
    /// A new System V segment and a new memfd take pages from the pool that the administrator reserves (`nr_hugepages`). For a
    /// file on tmpfs, and for an existing segment, the kernel collapses small pages. The segment occupies whole huge pages. A process
    /// that opens such a file on tmpfs later gets them too, without this option.
    /// Failure is [`Shortage::HugePages`](crate::error::Shortage::HugePages), or
    /// [`Shortage::System`](crate::error::Shortage::System) if the pool is too small.
    #[must_use]
    pub fn huge_pages(mut self, huge: bool) -> Self {
        self.huge_pages = huge;
        self
    }

    /// Locks the segment in memory, so that it is never swapped out, or fails.
    ///
    /// A new System V segment stays locked until it is removed (`SHM_LOCK`). Any other stays locked while this process has it
    /// mapped (`mlock`), so both ends may want to set this. A limit in the way is
    /// [`Shortage::System`](crate::error::Shortage::System).
    #[must_use]
    pub fn lock_memory(mut self, lock: bool) -> Self {
        self.lock_memory = lock;
        self
    }

    /// Allows System V pipes on a kernel that does not undo the semaphore operations of a killed process, such as gVisor.
    ///
    /// Without this option they fail there with [`MissingFeature::Undo`](crate::error::MissingFeature::Undo).
    ///
    /// Creating, opening and removing a pipe takes a lock for some microseconds. A process killed in between leaves it locked on
    /// such a kernel, and every later call fails with [`SetupError::Busy`](crate::SetupError::Busy), until the semaphore set is
    /// removed (`ipcrm -s`). Roles and messages are not affected.
    #[must_use]
    pub fn allow_missing_undo(mut self, allow: bool) -> Self {
        self.allow_missing_undo = allow;
        self
    }

    /// Allows System V pipes where the sysctl `kernel.shm_rmid_forced` is 1.
    ///
    /// There the kernel removes a segment as soon as no process has it attached, unread messages included: what a producer sends
    /// before it ends is lost if no consumer has come yet. So without this option, creating and opening fail with
    /// [`MissingFeature::LastingSegments`](crate::error::MissingFeature::LastingSegments).
    ///
    /// The caller guarantees that some process has the pipe open for as long as its messages matter: a parent, or a keeper, which
    /// is any process that holds a [`Pipe`](crate::Pipe) (the command line: `shmpipe keep`). The library does not look for one
    /// itself, since a keeper that is there now may be gone a moment later. Where the sysctl is 0, this option changes nothing.
    ///
    /// The check reads one small file in `/proc`, once per call that creates or opens; where `/proc` does not have it, 0 is assumed.
    ///
    /// ```
    /// use shmpipe::Options;
    ///
    /// // Parent and child have it open until both are done.
    /// let pipe = Options::new().allow_rmid_forced(true).create("sysv:private")?;
    /// # shmpipe::unlink(pipe.address())?;
    /// # Ok::<(), shmpipe::SetupError>(())
    /// ```
    #[must_use]
    pub fn allow_rmid_forced(mut self, allow: bool) -> Self {
        self.allow_rmid_forced = allow;
        self
    }

    /// Sets whether to fault in every page when the pipe is created or opened.
    ///
    /// Then the first lap through the ring causes no page faults. The slowest 1 % of round trips in that lap take 0.3 us, as
    /// later, instead of 4.1 us, or 2.2 us if only the creator did so. It costs 1 to 3 us per page.
    ///
    /// Default: when the pipe is created, and when a file on a disk is opened, where pages that were not written through this
    /// mapping are slower (by 14 % of a round trip between near cores); but not if the pipe takes more than half of the available
    /// memory.
    #[must_use]
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = Some(prefault);
        self
    }

    /// Recreates a pipe whose file dates from before the last boot, instead of failing with
    /// [`Damage::Stale`](crate::error::Damage::Stale).
    ///
    /// The file system may have kept an inconsistent state of such a file. Messages that were not received are lost. Fails with
    /// [`SetupError::RoleTaken`] if a process claims a role of the pipe at that moment.
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
