//! A segment opened read-only, to inspect it.

use super::{Mapping, RoleLock, holder, ring};
use crate::permissions::Permissions;
use crate::protocol::layout::Header;
use crate::protocol::liveness::Role;
use crate::protocol::ring::Ring;
use crate::segment::identity::{Identity, Way};

/// The kernel object that a segment is.
///
/// ```
/// use shmpipe::Object;
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let object = shmpipe::inspect(pipe.address())?.object;
/// assert!(matches!(object, Object::File { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Object {
    /// A System V segment.
    SysV {
        /// The key; 0 for a segment without one.
        key: i32,
        /// The identifier of the segment (`shmid`).
        shm_id: i32,
        /// The identifier of the semaphore set (`semid`), unless the set was removed.
        sem_id: Option<i32>,
    },
    /// A named file or a memfd.
    File {
        /// The device that it is on (`st_dev`).
        device: u64,
        /// Its inode number on that device (`st_ino`).
        inode: u64,
    },
}

/// A segment mapped read-only, to inspect it.
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
    /// Whether the segment itself is locked in memory (`SHM_LOCK`).
    pub(crate) locked: bool,
    /// Whether it dates from before the last boot.
    pub(crate) stale: bool,
    /// The locks of its roles.
    pub(crate) roles: Box<dyn RoleLock>,
}

impl View {
    /// Whether all of it is mapped, rather than a copy of its header.
    pub(crate) fn is_whole(&self) -> bool {
        self.mapping.size() >= self.identity.size()
    }

    /// The header of a direction, if it is mapped.
    pub(crate) fn header(&self, way: Way) -> Option<&Header> {
        (way == Way::Forth || self.is_whole()).then(|| self.mapping.header_at(self.identity.start(way)))
    }

    /// The ring of a direction, to read.
    pub(crate) fn ring(&self, way: Way) -> Option<Ring> {
        // SAFETY: the caller, who borrows the view, keeps its mapping for as long as it uses the ring. Code that inspects a pipe never
        // stores to the ring, which is mapped read-only.
        self.is_whole().then(|| unsafe { ring(&self.mapping, &self.identity, way) })
    }

    pub(crate) fn holder(&self, role: Role) -> Option<u32> {
        holder(&*self.roles, self.mapping.header(), role)
    }
}
