//! Locks on bytes of a file that last as long as a mapping.
//!
//! An open-file-description lock lasts while anything refers to the description. A descriptor would be a bad reference: a forked
//! child inherits it, and the lock would outlive us. A mapping is a reference too, and `MADV_DONTFORK` keeps children from
//! inheriting it. So: reopen the file, map a page of the new description, lock a byte, close the descriptor.
//!
//! From opening to closing, no other thread forks. A child that is spawned (`posix_spawn`) in that moment has the descriptor
//! until its `exec`.

use super::descriptor::reopen;
use crate::protocol::liveness::Role;
use crate::segment::{Access, Mapping};
use crate::sys::fork::NoFork;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The bytes that are locked. Their offsets and contents have no other meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Byte {
    /// Every open handle holds it shared. The last handle locks it exclusively to remove the pipe.
    Attachments = 1,
    /// The producer holds it exclusively.
    Producer = 2,
    /// The consumer holds it exclusively.
    Consumer = 3,
    /// A process that removes the file holds it exclusively, so that no other process replaces the file at the path meanwhile.
    Remover = 4,
}

impl From<Role> for Byte {
    fn from(role: Role) -> Self {
        match role {
            Role::Producer => Byte::Producer,
            Role::Consumer => Byte::Consumer,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockMode {
    /// Any number of descriptions hold it.
    Shared,
    /// One description holds it, and no other holds it shared.
    Exclusive,
}

fn range(byte: Byte, mode: LockMode) -> libc::flock {
    let kind = match mode {
        LockMode::Shared => libc::F_RDLCK,
        LockMode::Exclusive => libc::F_WRLCK,
    };
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte as i64,
        l_len: 1,
        // Open-file-description locks require 0.
        l_pid: 0,
    }
}

/// Locks a byte for as long as the file's open description lives. Returns false if another description holds a conflicting lock.
pub(super) fn lock(file: &File, byte: Byte, mode: LockMode) -> io::Result<bool> {
    // SAFETY: the pointer is to a flock that lives until the call returns.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range(byte, mode)) } {
        -1 => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            error => Err(error),
        },
        _ => Ok(true),
    }
}

/// Releases a lock of the file's open description.
pub(super) fn unlock(file: &File, byte: Byte) -> io::Result<()> {
    let mut range = range(byte, LockMode::Shared);
    range.l_type = libc::F_UNLCK as i16;
    // SAFETY: the pointer is to a flock that lives until the call returns.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether another open description holds a lock that conflicts with `mode`. With [`LockMode::Shared`], only a process that may
/// write to the file can cause that.
pub(super) fn is_locked_by_other(file: &File, byte: Byte, mode: LockMode) -> io::Result<bool> {
    let mut found = range(byte, mode);
    // SAFETY: the pointer is to a flock that lives until the call returns.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut found) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(found.l_type != libc::F_UNLCK as i16),
    }
}

/// A lock of this process: released when dropped, or by the kernel when the process ends or calls `exec`.
#[derive(Debug)]
pub(super) struct Held {
    _page: Mapping,
}

impl Held {
    /// Locks a byte of a file with pages of `page` bytes. `None` if another description holds a conflicting lock.
    pub(super) fn take(file: &File, page: u64, byte: Byte, mode: LockMode) -> io::Result<Option<Self>> {
        let _no_fork = NoFork::now();
        let own = reopen(file, Access::ReadWrite)?;
        let held = Held { _page: Mapping::of_file(own.as_fd(), page, Access::None, None)? };
        if !lock(&own, byte, mode)? {
            return Ok(None);
        }
        drop(own);
        if is_locked_by_other(file, byte, LockMode::Exclusive)? {
            return Ok(Some(held));
        }
        let error = "the file system released a lock while its file was mapped, expected to keep it; use tmpfs, ext4 or xfs";
        Err(io::Error::new(io::ErrorKind::Unsupported, error))
    }
}
