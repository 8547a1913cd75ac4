//! Watching a pipe without taking part.

use crate::border::without_handle;
use crate::end::{peer_code, shmpipe_peer};
use crate::pipe::{Growing, address_at, code_of, write_sized};
use shmpipe::{Direction, Latency, Side, inspect};
use std::ffi::{c_char, c_int};
use std::mem::offset_of;
use std::time::Duration;

/// A side of a pipe at one moment. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmpipe_side_stats {
    /// One of shmpipe_peer.
    pub peer: c_int,
    /// A hint at the process; 0 if it is not visible from here.
    pub pid: u32,
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
}

/// A direction of a pipe at one moment. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmpipe_direction_stats {
    /// Bytes of its ring between the read and the write position.
    pub used: u64,
    /// Messages sent and not yet released.
    pub unread: u64,
    /// Messages that producers counted as dropped.
    pub dropped: u64,
    /// The side that sends.
    pub producer: shmpipe_side_stats,
    /// The side that receives.
    pub consumer: shmpipe_side_stats,
}

/// How long sampled messages were under way since the pipe was created, from the commit to the receipt, in nanoseconds. A percentile is at
/// most an eighth above the true one. All 0 without samples, or if the pipe does not measure it. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmpipe_latency {
    /// Messages sampled.
    pub samples: u64,
    /// What half of them did not exceed.
    pub p50: u64,
    /// What 90 % of them did not exceed.
    pub p90: u64,
    /// What 99 % of them did not exceed.
    pub p99: u64,
    /// What 99.9 % of them did not exceed.
    pub p999: u64,
    /// What 99.99 % of them did not exceed.
    pub p9999: u64,
    /// The longest.
    pub max: u64,
}

/// The state of a pipe at one moment. The two sides run meanwhile, so the numbers need not agree to the byte.
/// Later versions may have more members, at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmpipe_stats {
    /// The random number of the segment.
    pub id: u64,
    /// Bytes of ring data, in each direction.
    pub capacity: u64,
    /// Bytes of the segment.
    pub size: u64,
    /// The number that the creator set.
    pub schema: u64,
    /// Bytes of the longest message.
    pub max_len: u64,
    /// The direction; in a pipe with two, from side A to side B.
    pub forth: shmpipe_direction_stats,
    /// The direction from side B to side A; all 0 if there is none.
    pub back: shmpipe_direction_stats,
    /// Owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// One of shmpipe_wake_mode.
    pub wake_mode: c_int,
    /// Whether the pipe has two directions.
    pub duplex: bool,
    /// Whether any process has it open.
    pub open: bool,
    /// Whether it is from before the last boot.
    pub stale: bool,
    /// Whether it is removed once both sides have closed.
    pub remove_on_close: bool,
    /// Whether the next process that looks for it removes it once it is left over.
    pub remove_leftover: bool,
    /// Whether it measures latency.
    pub measure_latency: bool,
    /// The latency of the direction; in a pipe with two, from side A to side B.
    pub forth_latency: shmpipe_latency,
    /// The latency of the direction from side B to side A.
    pub back_latency: shmpipe_latency,
}

impl Growing for shmpipe_stats {
    const END: usize = offset_of!(Self, back_latency) + size_of::<shmpipe_latency>();
}

const NO_SIDE: shmpipe_side_stats = shmpipe_side_stats {
    peer: shmpipe_peer::SHMPIPE_PEER_UNKNOWN as c_int,
    pid: 0,
    epoch: 0,
    position: 0,
    messages: 0,
    bytes: 0,
    waits: 0,
    wakeups: 0,
};

const NO_DIRECTION: shmpipe_direction_stats =
    shmpipe_direction_stats { used: 0, unread: 0, dropped: 0, producer: NO_SIDE, consumer: NO_SIDE };

fn side(side: &Side) -> shmpipe_side_stats {
    shmpipe_side_stats {
        peer: peer_code(side.peer) as c_int,
        pid: side.pid.unwrap_or(0),
        epoch: side.epoch,
        position: side.position,
        messages: side.messages,
        bytes: side.bytes,
        waits: side.waits,
        wakeups: side.wakeups,
    }
}

fn direction(direction: &Direction) -> shmpipe_direction_stats {
    shmpipe_direction_stats {
        used: direction.used,
        unread: direction.unread(),
        dropped: direction.dropped,
        producer: side(&direction.producer),
        consumer: side(&direction.consumer),
    }
}

fn latency(latency: Option<&Latency>) -> shmpipe_latency {
    let nanoseconds = |latency: Duration| latency.as_nanos().try_into().unwrap_or(u64::MAX);
    let quantile = |at| latency.and_then(|latency| latency.quantile(at)).map_or(0, nanoseconds);
    shmpipe_latency {
        samples: latency.map_or(0, Latency::samples),
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        p9999: quantile(0.9999),
        max: latency.map_or(0, |latency| nanoseconds(latency.max())),
    }
}

/// Reports the state of a pipe, without taking part. `size` is sizeof *stats.
///
/// Needs read permission; maps the segment read-only and claims nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_inspect(
    address: *const c_char,
    stats: *mut shmpipe_stats,
    size: usize,
) -> c_int {
    without_handle(|| {
        // SAFETY: the caller's promise.
        let found = inspect(unsafe { address_at(address) }?)?;
        let back = found.back.as_ref().map_or(NO_DIRECTION, direction);
        let forth = shmpipe_direction_stats {
            used: found.used,
            unread: found.unread() - back.unread,
            dropped: found.dropped,
            producer: side(&found.producer),
            consumer: side(&found.consumer),
        };
        let found = shmpipe_stats {
            id: found.segment_id.get(),
            capacity: found.capacity,
            size: found.size,
            schema: found.schema,
            max_len: found.max_len,
            forth,
            back,
            uid: found.permissions.uid,
            gid: found.permissions.gid,
            mode: found.permissions.mode,
            wake_mode: code_of(found.wake_mode),
            duplex: found.duplex,
            open: found.is_open,
            stale: found.stale,
            remove_on_close: found.remove_on_close,
            remove_leftover: found.remove_leftover,
            measure_latency: found.latency.is_some(),
            forth_latency: latency(found.latency.as_ref()),
            back_latency: latency(found.back.as_ref().and_then(|back| back.latency.as_ref())),
        };
        // SAFETY: the caller's promise.
        unsafe { write_sized(&found, stats, size) }
    })
}
