//! A segment as watchers see it.

use super::{Guard, Mapping, holder};
use crate::permissions::Permissions;
use crate::protocol::layout::HEADER;
use crate::protocol::peer::Role;
use crate::protocol::ring::Ring;
use crate::segment::identity::Identity;

/// What the kernel knows a segment as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Object {
    /// A System V segment.
    SysV {
        /// The key; 0 for a segment without one.
        key: i32,
        /// The identifier of the segment (`shmid`).
        shm_id: i32,
        /// The identifier of the semaphore set (`semid`), unless that is gone.
        sem_id: Option<i32>,
    },
    /// A file, be it a named one or a memfd.
    File {
        /// The device that it is on (`st_dev`).
        device: u64,
        /// Its number there (`st_ino`).
        inode: u64,
    },
}

/// A segment mapped for reading alone, for watchers.
pub(crate) struct View {
    pub(crate) mapping: Mapping,
    pub(crate) identity: Identity,
    pub(crate) object: Object,
    pub(crate) size: u64,
    pub(crate) attached: Option<u64>,
    /// Whether a process has the pipe open; watchers do not count.
    pub(crate) is_open: bool,
    pub(crate) permissions: Permissions,
    pub(crate) creator: u32,
    /// Whether the segment as such is locked in memory.
    pub(crate) locked: bool,
    /// Whether it is from before the machine was started.
    pub(crate) stale: bool,
    /// What guards its roles, unless that is gone.
    pub(crate) guard: Option<Box<dyn Guard>>,
}

impl View {
    /// Whether all of it is mapped, and not a copy of its header.
    pub(crate) fn is_whole(&self) -> bool {
        self.mapping.size() >= HEADER + self.identity.capacity
    }

    /// Its ring, for looking.
    pub(crate) fn ring(&self) -> Option<Ring> {
        if !self.is_whole() {
            return None;
        }
        let base = self.mapping.base();
        // SAFETY: the header is at the start of the mapping and the ring HEADER bytes on, mappings are aligned to pages, and
        // this one outlives the ring where it is used. A read-only mapping is never stored to.
        let ring = unsafe {
            let words = base.add(HEADER as usize).cast();
            Ring::new(base.cast(), words, self.identity.capacity)
        };
        Some(ring)
    }

    pub(crate) fn holder(&self, role: Role) -> Option<u32> {
        self.guard.as_ref().and_then(|guard| holder(&**guard, self.mapping.header(), role))
    }
}
