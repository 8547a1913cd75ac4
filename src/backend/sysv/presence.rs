//! What the kernel knows about the memory of a process: a segment without a name that lives exactly as long as that memory.
//!
//! A process creates one, attaches it and removes it at once. The kernel then keeps it until the last process detaches, and only
//! this one is attached. It is gone, for everyone to see, when the process ends for any reason or calls `exec`: together with the
//! ring's mapping, after the last instruction that could use it. A forked child does not inherit it, leaving the IPC namespace does
//! not take it away, and no other process needs to attach it. It is a page that is never accessed, so it has no memory.
//!
//! A process has one for all its System V pipes.

use super::limits;
use super::semaphores::InitLock;
use super::sysv_segment::{Status, SysvSegment};
use crate::error::{MissingFeature, SetupError, failed, os};
use crate::segment::identity::random;
use crate::segment::{Access, Mapping};
use crate::sys::fork::NoFork;
use crate::sys::sysvipc::segments;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The mode of a presence: only its own process has to attach it.
const MODE: u32 = 0o400;

/// Bytes of the largest presence: a page.
const MAX_SIZE: u32 = 4096;

/// How often to create a presence. A process that clears up after a dead one may remove ours before we attach it.
const ATTEMPTS: u32 = 8;

/// The name of a presence, which fits one word beside the number of a claim.
///
/// The kernel gives an identifier again one day. The size, a random number, tells a presence from a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PresenceId {
    /// The segment's identifier.
    pub(super) id: i32,
    /// The segment's size in bytes, from 1 to 4096.
    pub(super) size: u32,
}

impl PresenceId {
    /// The status of the presence, if it exists: if its process still has its memory.
    pub(super) fn status(self) -> io::Result<Option<Status>> {
        match SysvSegment::from_id(self.id).public_status() {
            Ok(status) => Ok(Some(status).filter(|status| {
                status.key == libc::IPC_PRIVATE && status.is_removed() && status.size == u64::from(self.size)
            })),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIDRM)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn exists(self) -> io::Result<bool> {
        Ok(self.status()?.is_some())
    }
}

/// The presence of this process.
#[derive(Debug)]
pub(super) struct Presence {
    id: PresenceId,
    mapping: Mapping,
    claims: AtomicU32,
}

impl Presence {
    /// The presence of this process in the IPC namespace of this thread; created if there is none yet. The caller holds the lock
    /// of a pipe, if the pipe has one.
    pub(super) fn of_this_process(lock: Option<&InitLock>) -> Result<Arc<Self>, SetupError> {
        static CURRENT: Mutex<Weak<Presence>> = Mutex::new(Weak::new());
        // A child that is forked meanwhile would find the mutex locked forever.
        let _no_fork = NoFork::now();
        // Every change under the lock is a single assignment, so a panic cannot leave it half done.
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(presence) = current.upgrade().filter(|presence| presence.is_visible().unwrap_or(false)) {
            return Ok(presence);
        }
        let presence = Arc::new(Self::create(lock)?);
        *current = Arc::downgrade(&presence);
        Ok(presence)
    }

    /// Creates a presence. If we are killed between the calls, the segment stays; so the lock's set says that we are about to,
    /// and the next process that takes the lock [clears up](clear_up).
    fn create(lock: Option<&InitLock>) -> Result<Self, SetupError> {
        if let Some(lock) = lock {
            // Fails only if the set was removed. Then a kill in the next microseconds leaves a segment behind.
            let _ = lock.announce_presence(true);
        }
        let created = Self::create_announced();
        // After a failure something may be left to clear up, as after a kill.
        if let (Ok(_), Some(lock)) = (&created, lock) {
            let _ = lock.announce_presence(false);
        }
        created
    }

    fn create_announced() -> Result<Self, SetupError> {
        let mut attempt = 0;
        let presence = loop {
            let size = random().map_err(failed("getrandom"))? as u32 % MAX_SIZE + 1;
            let segment = SysvSegment::create(None, size.into(), MODE, false)
                .map_err(|source| limits::of_segments(source, size.into()))?;
            let mapping = Mapping::of_segment(segment.id(), size.into(), Access::Read, None);
            let removed = segment.remove();
            attempt += 1;
            match mapping {
                Ok(mapping) => {
                    removed.map_err(failed("shmctl(IPC_RMID)"))?;
                    let id = PresenceId { id: segment.id(), size };
                    break Presence { id, mapping, claims: AtomicU32::new(0) };
                }
                Err(source)
                    if attempt < ATTEMPTS
                        && matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EIDRM)) => {}
                Err(source) => return Err(os("shmat", source)),
            }
        };
        match presence.is_visible() {
            Ok(true) => Ok(presence),
            Ok(false) => Err(SetupError::Kernel(MissingFeature::RemovedSegments)),
            Err(source) => Err(os("shmctl(IPC_STAT)", source)),
        }
    }

    pub(super) fn id(&self) -> PresenceId {
        self.id
    }

    /// Whether this thread sees the presence, so that what it sees of others is true. It does not after it has left the IPC
    /// namespace, nor in a forked child.
    pub(super) fn is_visible(&self) -> io::Result<bool> {
        Ok(self.mapping.is_ours() && self.id.exists()?)
    }

    /// A number for the next claim of this process.
    pub(super) fn next_claim(&self) -> u32 {
        // Relaxed: the numbers only have to differ.
        self.claims.fetch_add(1, Ordering::Relaxed)
    }
}

/// Removes what a process left that died while it created its presence. It may still be attached, if another process reads the
/// memory of the dead one. A living process that is just creating its own, and has the same process id by now, loses it and tries
/// again, or has it removed as it was about to.
pub(super) fn clear_up(lock: &InitLock) {
    let Ok(Some(pid)) = lock.died_creating_presence() else { return };
    for row in segments().into_iter().flatten() {
        let is_presence =
            row.key == libc::IPC_PRIVATE && row.permissions.mode == MODE && row.size <= u64::from(MAX_SIZE);
        if is_presence && row.creator_pid == pid {
            // Fails if it belongs to another user, or is gone.
            let _ = SysvSegment::from_id(row.id).remove();
        }
    }
    // Fails only if the set was removed.
    let _ = lock.announce_presence(false);
}
