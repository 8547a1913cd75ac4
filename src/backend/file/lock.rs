//! Locks on bytes of a file that live as long as a mapping.
//!
//! An open-file-description lock belongs to whoever refers to the description. A descriptor would be a bad owner: a
//! forked child inherits it, and the lock would outlive us. A mapping refers to the description too, and
//! `MADV_DONTFORK` keeps it from children. So: open the file once more, map a page of that, lock, close.
//!
//! From the opening to the closing no other thread forks. A program that is spawned (`posix_spawn`) in that moment has the
//! descriptor until its `exec`.

use super::descriptor::reopen;
use crate::os::fork::NoFork;
use crate::protocol::peer::Role;
use crate::segment::{Access, Mapping};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The bytes that are locked. Where they stand in the file does not matter, what they hold neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Byte {
    /// Every open handle holds it for reading; who removes a pipe because nobody is left, for writing.
    Guests = 1,
    /// The producer holds it for writing.
    Producer = 2,
    /// The consumer holds it for writing.
    Consumer = 3,
    /// Whoever removes the file holds it for writing: what it has seen at the path is then still there.
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
pub(super) enum Mode {
    /// Any number may hold it.
    Shared,
    /// One may hold it, and nobody holds it shared.
    Exclusive,
}

fn range(byte: Byte, mode: Mode) -> libc::flock {
    let kind = match mode {
        Mode::Shared => libc::F_RDLCK,
        Mode::Exclusive => libc::F_WRLCK,
    };
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte as i64,
        l_len: 1,
        // Open-file-description locks demand it.
        l_pid: 0,
    }
}

/// Locks a byte for as long as the file's open description lives. Whether it could be had.
pub(super) fn lock(file: &File, byte: Byte, mode: Mode) -> io::Result<bool> {
    // SAFETY: the pointer is to a lock that lives until the call returns.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range(byte, mode)) } {
        -1 => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            error => Err(error),
        },
        _ => Ok(true),
    }
}

/// Gives a lock of the file's open description back.
pub(super) fn unlock(file: &File, byte: Byte) -> io::Result<()> {
    let mut range = range(byte, Mode::Shared);
    range.l_type = libc::F_UNLCK as i16;
    // SAFETY: the pointer is to a lock that lives until the call returns.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether other open descriptions than this file's keep it from locking a byte so. Asked for [`Mode::Shared`], only those who may
/// write to the file can make it say so.
pub(super) fn is_kept(file: &File, byte: Byte, mode: Mode) -> io::Result<bool> {
    let mut found = range(byte, mode);
    // SAFETY: the pointer is to a lock that lives until the call returns.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut found) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(found.l_type != libc::F_UNLCK as i16),
    }
}

/// A lock of this process: given back when dropped, or by the kernel when the process ends or becomes another program.
#[derive(Debug)]
pub(super) struct Held {
    _page: Mapping,
}

impl Held {
    /// Locks a byte of a file that is made of pages of `page` bytes. `None` if somebody else has it.
    pub(super) fn take(file: &File, page: u64, byte: Byte, mode: Mode) -> io::Result<Option<Self>> {
        let _no_fork = NoFork::now();
        let own = reopen(file, Access::ReadWrite)?;
        let held = Held { _page: Mapping::of_file(own.as_fd(), page, Access::None, None)? };
        if !lock(&own, byte, mode)? {
            return Ok(None);
        }
        drop(own);
        if is_kept(file, byte, Mode::Exclusive)? {
            return Ok(Some(held));
        }
        let error = "the file system gives a lock up though its file is mapped";
        Err(io::Error::new(io::ErrorKind::Unsupported, error))
    }
}
