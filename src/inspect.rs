//! Watches pipes without taking part: reads only, takes no role, and does not disturb the two sides.

mod latency;
mod list;
pub mod sysvipc;
mod tap;

pub use crate::address::Location;
pub use latency::Latency;
pub use list::{Listed, Listing, inspect_at, list, list_unguarded};
pub use tap::{Passed, Tap};

use crate::address::Address;
use crate::backend;
use crate::backend::sysv;
use crate::error::SetupError;
use crate::permissions::Permissions;
use crate::position::SegmentId;
use crate::protocol::layout::Header;
use crate::protocol::liveness::{Peer, Role, State};
use crate::protocol::record;
use crate::protocol::recovery;
use crate::protocol::sleep;
use crate::protocol::sync::{AtomicU64, Ordering};
use crate::protocol::wakeup::WakeMode;
use crate::segment::identity::{Identity, Way};
use crate::segment::pages::{self, Memory};
use crate::segment::{self, Object, View};
use std::time::{Duration, SystemTime};

/// The state of a pipe at one moment, from [`inspect`].
///
/// The two sides run meanwhile, so that the numbers need not agree to the byte.
///
/// ```
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let snapshot = shmpipe::inspect(pipe.address())?;
/// println!("{} of {} bytes used, producer: {:?}", snapshot.used, snapshot.capacity, snapshot.producer.peer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// An address that leads to the pipe.
    pub address: Address,
    /// The name under which it was created, if it has one.
    pub name: Option<String>,
    /// The random number of the segment.
    pub segment_id: SegmentId,
    /// What the kernel knows the segment as.
    pub object: Object,
    /// Bytes of ring data, in each direction.
    pub capacity: u64,
    /// Bytes of the segment.
    pub size: u64,
    /// The user's schema id.
    pub schema: u64,
    /// Owner, group and mode.
    pub permissions: Permissions,
    /// The user who created it.
    pub creator: u32,
    /// When it was created.
    pub created: SystemTime,
    /// How sleepers are woken.
    pub wake_mode: WakeMode,
    /// Whether it is removed once both sides have closed.
    pub remove_on_close: bool,
    /// Whether the next process that looks for it removes it once it is left over: [`Options::remove_leftover`](crate::Options::remove_leftover).
    pub remove_leftover: bool,
    /// Whether it is from before the last boot: then its contents may be incomplete.
    pub stale: bool,
    /// How often a System V segment is attached, without this call. The kernel does not count the mappings of a file.
    pub attached: Option<u64>,
    /// Whether any process has it open, visible from here or not. Watchers do not count, except on a System V pipe that has lost
    /// its semaphore set: only its attach count is left.
    pub is_open: bool,
    /// The pages of the segment. `None` if `/proc` does not show them, and of a file of another user, who could truncate it
    /// meanwhile.
    pub memory: Option<Memory>,
    /// Bytes of the ring between the read and the write position; in a duplex pipe of the ring from side A to side B.
    pub used: u64,
    /// Bytes of payload that the longest message may have.
    pub max_len: u64,
    /// Messages that producers did not send and [counted as dropped](crate::Producer::count_dropped), since the pipe was created.
    pub dropped: u64,
    /// The latency of messages, if the pipe [measures it](crate::Options::measure_latency).
    pub latency: Option<Latency>,
    /// The producer's side; in a duplex pipe side A, as it sends.
    pub producer: Side,
    /// The consumer's side; in a duplex pipe side B, as it receives.
    pub consumer: Side,
    /// The direction from side B to side A of a duplex pipe. `None` if the pipe has one direction, and of a file of another user.
    pub back: Option<Direction>,
    /// Whether the pipe has two directions.
    pub duplex: bool,
}

/// A direction of a pipe at one moment, in a [`Snapshot`].
///
/// ```
/// let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
/// let (mut a, mut b) = (pipe.duplex()?, pipe.duplex()?);
/// a.send(b"from A to B")?;
/// b.send(b"from B to A")?;
/// let snapshot = shmpipe::inspect(pipe.address())?;
/// let back = snapshot.back.as_ref().expect("a duplex pipe");
/// assert_eq!((snapshot.producer.messages, back.producer.messages), (1, 1));
/// assert_eq!((back.unread(), snapshot.unread()), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Direction {
    /// Bytes of its ring between the read and the write position.
    pub used: u64,
    /// Messages that were not sent and [counted as dropped](crate::Producer::count_dropped).
    pub dropped: u64,
    /// The latency of messages, if the pipe [measures it](crate::Options::measure_latency).
    pub latency: Option<Latency>,
    /// The side that sends.
    pub producer: Side,
    /// The side that receives.
    pub consumer: Side,
}

impl Direction {
    /// Returns the number of messages that were sent and not yet released.
    ///
    /// Counted as [`Snapshot::unread`] counts.
    #[must_use]
    pub fn unread(&self) -> u64 {
        unread(self.used, &self.producer, &self.consumer)
    }
}

fn unread(used: u64, producer: &Side, consumer: &Side) -> u64 {
    match used {
        0 => 0,
        _ => producer.messages.saturating_sub(consumer.messages).max(1),
    }
}

/// One side of a pipe at one moment, in a [`Snapshot`].
///
/// ```
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut producer = pipe.producer()?;
/// producer.send(b"hello")?;
/// let side = shmpipe::inspect(pipe.address())?.producer;
/// assert_eq!((side.pid, side.messages, side.bytes), (Some(std::process::id()), 1, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Side {
    /// Whether the side is attached.
    pub peer: Peer,
    /// A hint at the process, while it is attached and visible from here.
    pub pid: Option<u32>,
    /// How often the role was claimed.
    pub epoch: u64,
    /// The write position, or the read position.
    pub position: u64,
    /// Messages sent, or released.
    pub messages: u64,
    /// Payload bytes of those.
    pub bytes: u64,
    /// Calls that had to wait, for space or for data.
    pub waits: u64,
    /// Wake-ups of the other side.
    pub wakeups: u64,
    /// Whether it may be asleep until the other side moves: its last wait was a sleep, and what it would wait for, a message or
    /// space, is not there. A side that has come back and does something else looks the same until it waits again.
    pub may_be_asleep: bool,
}

impl Snapshot {
    /// Returns the number of messages that were sent and not yet released, in both directions of a duplex pipe together.
    ///
    /// The two sides count separately, so that after a crash the number may be off by the messages of one call.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let mut producer = pipe.producer()?;
    /// producer.send(b"one")?;
    /// producer.send(b"two")?;
    /// assert_eq!(shmpipe::inspect(pipe.address())?.unread(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn unread(&self) -> u64 {
        let forth = unread(self.used, &self.producer, &self.consumer);
        forth + self.back.as_ref().map_or(0, Direction::unread)
    }
}

/// Returns the state of a pipe, without taking part.
///
/// Needs read permission; maps the segment read-only and claims nothing. Costs some system calls. Waits up to a second for a
/// System V pipe that is being created.
///
/// ```
/// let pipe = shmpipe::Options::new().schema(7).create("memfd")?;
/// let snapshot = shmpipe::inspect(pipe.address())?;
/// assert_eq!((snapshot.schema, snapshot.unread()), (7, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// * [`SetupError::Address`] if the address does not parse.
/// * [`SetupError::NotFound`] if there is no pipe.
/// * [`Unsupported::Open`](crate::error::Unsupported::Open) if the address always creates a pipe.
/// * [`Untrusted`](SetupError::Untrusted) if what arrives at `fd:N` or `memfd:PATH` is not a sealed memfd, or not from a trusted
///   user.
/// * [`Foreign`](SetupError::Foreign), [`Incompatible`](SetupError::Incompatible) or [`Damaged`](SetupError::Damaged) if the
///   object there is not a pipe that this version can read.
/// * [`PermissionDenied`](SetupError::PermissionDenied), [`File`](SetupError::File), [`Busy`](SetupError::Busy) or
///   [`Os`](SetupError::Os).
pub fn inspect<A>(address: A) -> Result<Snapshot, SetupError>
where
    A: TryInto<Address>,
    SetupError: From<A::Error>,
{
    let address = address.try_into()?;
    Ok(snapshot(&backend::view(&address, sysv::INSPECTION_TIME)?, address))
}

fn snapshot(view: &View, address: Address) -> Snapshot {
    let Identity { capacity, segment_id, schema, created_ns, .. } = view.identity;
    let Direction { used, dropped, latency, producer, consumer } =
        direction(view, Way::Forth).expect("the first header is always mapped");
    let back = if view.identity.is_duplex() { direction(view, Way::Back) } else { None };
    let ends: Vec<u32> = [&producer, &consumer].into_iter().filter_map(|side| side.pid).collect();
    let state = || pages::state(view.mapping.base(), view.mapping.size(), &ends).ok();
    let mut memory = view.is_whole().then(state).flatten();
    if let Some(memory) = &mut memory {
        memory.locked |= view.locked;
    }
    Snapshot {
        address,
        name: view.identity.name().filter(|name| !name.is_empty()).map(str::to_owned),
        segment_id: SegmentId(segment_id),
        object: view.object,
        capacity,
        size: view.size,
        schema,
        permissions: view.permissions,
        creator: view.creator,
        created: SystemTime::UNIX_EPOCH + Duration::from_nanos(created_ns),
        wake_mode: view.identity.wake_mode().expect("a known wake mode was checked for"),
        remove_on_close: view.identity.remove_on_close(),
        remove_leftover: view.identity.remove_leftover(),
        stale: view.stale,
        attached: view.attached,
        is_open: view.is_open,
        memory,
        used,
        max_len: record::max_length(capacity),
        dropped,
        latency,
        producer,
        consumer,
        back,
        duplex: view.identity.is_duplex(),
    }
}

/// A direction, unless its header is not mapped.
fn direction(view: &View, way: Way) -> Option<Direction> {
    let header = view.header(way)?;
    let producer = side(view, way, Role::Producer, &header.tail.0);
    let consumer = side(view, way, Role::Consumer, &header.head.0);
    // The write position may lag behind a commit in progress, and then even behind the read position.
    let lagging = producer.position.wrapping_sub(consumer.position);
    // It stays behind if the producer was killed at that moment; without a producer the records themselves can be read.
    let there = producer.peer == Peer::Open;
    let unread = || view.ring(way).and_then(|ring| recovery::unread(&ring).ok());
    let used = if there { None } else { unread() }.unwrap_or(lagging);
    let used = if used > view.identity.capacity { 0 } else { used };
    // Relaxed: a number to look at; nothing is read through it.
    let dropped =
        if view.identity.counts_dropped() { header.produced.0.dropped.load(Ordering::Relaxed) } else { 0 };
    let latency = view.identity.sampling().is_on().then(|| Latency::of(&header.latencies.0));
    Some(Direction { used, dropped, latency, producer, consumer })
}

fn side(view: &View, way: Way, role: Role, position: &AtomicU64) -> Side {
    // Relaxed: numbers to look at; nothing is read through them.
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let header: &Header = view.header(way).expect("the caller has read from it");
    let counters = segment::counters(header, role);
    let state = State::of(header.side(role));
    let is_free = role_is_free(view, way, role);
    let peer = Peer::of(header.side(role), state, is_free);
    Side {
        peer,
        pid: (is_free == Some(false)).then(|| view.holder(claimed_role(way, role))).flatten(),
        epoch: state.epoch(),
        position: load(position),
        messages: load(&counters.messages),
        bytes: load(&counters.bytes),
        waits: load(&counters.waits),
        wakeups: load(&counters.wakeups),
        may_be_asleep: peer == Peer::Open && sleep::may_be_asleep(header, role),
    }
}

/// The role whose claim stands for a role of a direction: that of the first direction.
fn claimed_role(way: Way, role: Role) -> Role {
    if way == Way::Forth { role } else { role.peer() }
}

/// The kernel's answer about a role of a direction, if it gives one.
fn role_is_free(view: &View, way: Way, role: Role) -> Option<bool> {
    view.roles.is_free(view.mapping.header(), claimed_role(way, role)).ok()
}
