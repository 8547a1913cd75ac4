//! The System V segment itself: shmget and shmctl.

use super::structs::{key_of, mode_of};
use crate::address::Key;
use crate::permissions::Permissions;
use crate::sys::sysvipc::{LOCKED, REMOVED};
use std::io;

/// `IPC_STAT` for any user, by the place in the kernel's table (linux/shm.h). The libc crate lacks it.
const SHM_STAT_ANY: i32 = 15;

/// A segment, by its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SysvSegment {
    id: i32,
}

/// The result of `IPC_STAT` for a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    pub(super) key: i32,
    pub(super) size: u64,
    pub(super) attached: u64,
    pub(super) creator_pid: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) creator: u32,
    pub(super) mode: u32,
}

impl Status {
    fn of(status: libc::shmid_ds) -> Self {
        Status {
            key: key_of(&status.shm_perm),
            size: status.shm_segsz as u64,
            attached: status.shm_nattch,
            creator_pid: status.shm_cpid as u32,
            uid: status.shm_perm.uid,
            gid: status.shm_perm.gid,
            creator: status.shm_perm.cuid,
            mode: mode_of(&status.shm_perm),
        }
    }

    /// Whether it was removed. It exists until the last attached process detaches.
    pub(super) fn is_removed(&self) -> bool {
        self.mode & REMOVED != 0
    }

    /// Whether both describe the same segment, with the same owner and mode.
    pub(super) fn is_of_same(&self, other: &Status) -> bool {
        (self.key, self.size, self.uid, self.creator, self.mode & 0o777)
            == (other.key, other.size, other.uid, other.creator, other.mode & 0o777)
    }

    /// Whether it is locked in memory.
    pub(super) fn is_locked(&self) -> bool {
        self.mode & LOCKED != 0
    }

    pub(super) fn permissions(&self) -> Permissions {
        Permissions { uid: self.uid, gid: self.gid, mode: self.mode & 0o777 }
    }
}

impl SysvSegment {
    pub(super) fn from_id(id: i32) -> Self {
        SysvSegment { id }
    }

    pub(super) fn id(self) -> i32 {
        self.id
    }

    pub(super) fn find(key: Key) -> io::Result<Option<Self>> {
        // SAFETY: the call takes no pointers.
        match unsafe { libc::shmget(key.get(), 0, 0) } {
            -1 => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() == Some(libc::ENOENT) { Ok(None) } else { Err(error) }
            }
            id => Ok(Some(SysvSegment { id })),
        }
    }

    /// Creates a zeroed segment, of huge pages if `huge`; fails with EEXIST if there is one under that key.
    pub(super) fn create(key: Option<Key>, size: u64, mode: u32, huge: bool) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | mode as i32 | if huge { libc::SHM_HUGETLB } else { 0 };
        // SAFETY: the call takes no pointers.
        match unsafe { libc::shmget(key.map_or(libc::IPC_PRIVATE, Key::get), size, flags) } {
            -1 => Err(io::Error::last_os_error()),
            id => Ok(SysvSegment { id }),
        }
    }

    fn read(self, command: i32) -> io::Result<libc::shmid_ds> {
        let mut status = core::mem::MaybeUninit::<libc::shmid_ds>::zeroed();
        // SAFETY: IPC_STAT and SHM_STAT_ANY write one shmid_ds to the pointer.
        match unsafe { libc::shmctl(self.id, command, status.as_mut_ptr()) } {
            -1 => return Err(io::Error::last_os_error()),
            // SHM_STAT_ANY takes the place in the kernel's table, which is the lower part of an identifier, and returns the whole
            // identifier of what is there.
            found if command == SHM_STAT_ANY && found != self.id => {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            _ => {}
        }
        // SAFETY: zeroed, and then written by the kernel; all fields are integers.
        Ok(unsafe { status.assume_init() })
    }

    /// The status; fails with EACCES without read permission.
    pub(super) fn status(self) -> io::Result<Status> {
        self.read(libc::IPC_STAT).map(Status::of)
    }

    /// The status, which every user may know, as in `/proc/sysvipc/shm`.
    pub(super) fn public_status(self) -> io::Result<Status> {
        match self.status() {
            // Linux 4.17.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                self.read(SHM_STAT_ANY).map(Status::of)
            }
            status => status,
        }
    }

    /// Changes the owner or group of the segment.
    pub(super) fn chown(self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let mut status = self.read(libc::IPC_STAT)?;
        status.shm_perm.uid = uid.unwrap_or(status.shm_perm.uid);
        status.shm_perm.gid = gid.unwrap_or(status.shm_perm.gid);
        // SAFETY: IPC_SET reads one shmid_ds from the pointer.
        match unsafe { libc::shmctl(self.id, libc::IPC_SET, &raw mut status) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    pub(super) fn remove(self) -> io::Result<()> {
        // SAFETY: IPC_RMID takes no pointer.
        match unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
