//! The System V objects of this IPC namespace, whether they belong to pipes or not.
//!
//! For tools that look for what stands in the way of pipes, as `shmpipe doctor` does. Programs that send and receive do not need
//! it. [`objects`] returns all [`Segment`]s and semaphore [`Set`]s; a set that guards a pipe says so in a [`PipeSet`].
//! [`SEMAPHORES`], [`OPERATIONS`] and [`SEGMENTS`] are what a pipe needs of the kernel's limits.
//!
//! ```
//! let objects = shmpipe::sysvipc::objects()?;
//! for set in &objects.sets {
//!     if set.pipe.is_some_and(|pipe| objects.segment(pipe.segment).is_none()) {
//!         println!("semaphore set {} belongs to a pipe whose segment is gone", set.id);
//!     }
//! }
//! # Ok::<(), shmpipe::SetupError>(())
//! ```

use crate::backend::sysv::{self, SetState};
use crate::error::SetupError;
use crate::error::failed;
use crate::permissions::Permissions;
use crate::protocol::layout::{HEADER, MAX_CAPACITY, MIN_CAPACITY};
use crate::segment::identity;
use crate::segment::pages;
use crate::sys::maps::SharedMappings;
use crate::sys::sysvipc::{self, Row};

/// The number of semaphores in the set of a pipe: the kernel's limits SEMMSL and SEMMNS must allow it.
pub const SEMAPHORES: u64 = sysv::COUNT;

/// The most operations that one call makes on the set of a pipe: the kernel's limit SEMOPM must allow it.
pub const OPERATIONS: u64 = sysv::OPERATIONS;

/// The number of segments that a pipe and its first user need: the pipe's, and one that shows that the process lives.
pub const SEGMENTS: u64 = 2;

/// The segments and the semaphore sets of this IPC namespace at one moment, from [`objects`].
///
/// ```
/// let objects = shmpipe::sysvipc::objects()?;
/// println!("{} segments, {} semaphore sets", objects.segments.len(), objects.sets.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Objects {
    /// The segments.
    pub segments: Vec<Segment>,
    /// The semaphore sets.
    pub sets: Vec<Set>,
}

/// A System V segment, of a pipe or not.
///
/// ```
/// for segment in shmpipe::sysvipc::objects()?.segments {
///     if segment.is_removed {
///         println!("segment {} lives on in {:?}", segment.id, segment.pids);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Segment {
    /// The key; 0 for a segment without one, and for one that was removed.
    pub key: i32,
    /// The identifier (`shmid`).
    pub id: i32,
    /// Owner, group and mode.
    pub permissions: Permissions,
    /// Bytes.
    pub size: u64,
    /// How often it is attached.
    pub attached: u64,
    /// Whether it was removed, and lives on for the processes that have it attached.
    pub is_removed: bool,
    /// The processes that have it attached, as far as they are visible from here.
    pub pids: Vec<u32>,
    /// The key under which it was created, which a removed segment has no more. `None` if no visible process has it attached.
    pub created_under: Option<i32>,
}

/// A System V semaphore set, of a pipe or not.
///
/// ```
/// for set in shmpipe::sysvipc::objects()?.sets {
///     println!("set {} with {} semaphores: {}", set.id, set.semaphores, set.permissions);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Set {
    /// The key; 0 for a set without one.
    pub key: i32,
    /// The identifier (`semid`).
    pub id: i32,
    /// Owner, group and mode.
    pub permissions: Permissions,
    /// How many semaphores it has.
    pub semaphores: u64,
    /// What it says as the set of a pipe. `None` if it is not a pipe's, or may not be read.
    pub pipe: Option<PipeSet>,
}

/// What the semaphore set of a pipe says about it.
///
/// ```
/// for pipe in shmpipe::sysvipc::objects()?.sets.iter().filter_map(|set| set.pipe) {
///     if !pipe.is_complete && !pipe.is_locked {
///         println!("the creator of segment {} died halfway", pipe.segment);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PipeSet {
    /// The identifier of the segment that it guards.
    pub segment: i32,
    /// Whether that segment is complete. If not, and the set is not locked, its creator died.
    pub is_complete: bool,
    /// Whether a process creates, opens or removes the pipe at this moment.
    pub is_locked: bool,
}

impl Objects {
    /// Returns the segment with that identifier.
    #[must_use]
    pub fn segment(&self, id: i32) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.id == id)
    }
}

/// Lists the System V objects of this IPC namespace, and attaches none of them.
///
/// The sets are read first. So a pipe that is created meanwhile may appear as a segment without a set, and one that is removed
/// meanwhile as a set without a segment.
///
/// Reads `/proc/PID/maps` of all processes, which takes some milliseconds.
///
/// ```
/// let objects = shmpipe::sysvipc::objects()?;
/// let pipes = objects.sets.iter().filter(|set| set.pipe.is_some());
/// println!("{} System V pipes", pipes.count());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`SetupError::Os`] if `/proc/sysvipc` cannot be read.
pub fn objects() -> Result<Objects, SetupError> {
    let sets = sets()?;
    let segments = segments()?;
    let mappings = SharedMappings::now();
    let segments = segments.into_iter().map(|row| {
        let (pids, created_under) = mappings.of_segment(row.id);
        Segment {
            key: row.key,
            id: row.id,
            permissions: row.permissions,
            size: row.size,
            attached: row.attached,
            is_removed: row.removed,
            pids,
            created_under,
        }
    });
    Ok(Objects { segments: segments.collect(), sets })
}

/// The segments of a pipe's size that no pipe's set guards.
pub(super) fn unguarded() -> Result<Vec<Row>, SetupError> {
    let sets = sets()?;
    let guards = |pipe: PipeSet, set: &Set, segment: &Row| {
        pipe.segment == segment.id || set.key == segment.key && segment.key != 0
    };
    let is_guarded =
        |segment: &Row| sets.iter().any(|set| set.pipe.is_some_and(|pipe| guards(pipe, set, segment)));
    let huge_page = pages::huge_page_size();
    let mut segments = segments()?;
    segments.retain(|segment| {
        !segment.removed && has_size_of_pipe(segment.size, huge_page) && !is_guarded(segment)
    });
    Ok(segments)
}

/// Whether a segment of `size` bytes may hold a pipe. In the pool of huge pages its size is a multiple of theirs.
fn has_size_of_pipe(size: u64, huge_page: Option<u64>) -> bool {
    [false, true].into_iter().any(|duplex| {
        let part = if duplex { size / 2 } else { size };
        let Some(capacity) = part.checked_sub(HEADER).and_then(u64::checked_ilog2).map(|log| 1 << log) else {
            return false;
        };
        let has_size = |page: u64| identity::size(capacity, duplex).next_multiple_of(page) == size;
        (MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) && (has_size(1) || huge_page.is_some_and(has_size))
    })
}

fn segments() -> Result<Vec<Row>, SetupError> {
    sysvipc::segments().map_err(failed("reading /proc/sysvipc/shm"))
}

fn sets() -> Result<Vec<Set>, SetupError> {
    let rows = sysvipc::sets().map_err(failed("reading /proc/sysvipc/sem"))?;
    let sets = rows.into_iter().map(|row| Set {
        key: row.key,
        id: row.id,
        permissions: row.permissions,
        semaphores: row.size,
        pipe: sysv::set_state(&row).map(|SetState { segment, is_complete, is_locked }| PipeSet {
            segment,
            is_complete,
            is_locked,
        }),
    });
    Ok(sets.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_has_a_power_of_two_and_a_header_or_both_twice_or_whole_huge_pages() {
        let huge = Some(2 << 20);
        let duplex = [2 * (HEADER + MIN_CAPACITY), 2 * (HEADER + (1 << 30))];
        for size in [HEADER + MIN_CAPACITY, HEADER + (1 << 30)].into_iter().chain(duplex) {
            assert!(has_size_of_pipe(size, huge) && has_size_of_pipe(size, None), "{size}");
        }
        for size in [2 << 20, 4 << 20, 6 << 20, 10 << 20, (1 << 30) + (2 << 20)] {
            assert!(has_size_of_pipe(size, huge) && !has_size_of_pipe(size, None), "{size}");
        }
        let others =
            [0, 1, HEADER, HEADER + 1, HEADER + MIN_CAPACITY / 2, HEADER + 7 * MIN_CAPACITY, u64::MAX];
        for size in others.into_iter().chain([8 << 20, 12 << 20]) {
            assert!(!has_size_of_pipe(size, huge), "{size}");
        }
    }
}
