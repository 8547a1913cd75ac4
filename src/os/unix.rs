//! What only Unix systems have: owners and permission bits, file descriptors, and passing these between processes.

pub mod fd_passing;

use crate::options::Options;
use crate::pipe::Pipe;
use std::os::fd::BorrowedFd;

/// Options that only Unix systems have.
///
/// ```
/// use shmpipe::{Options, os::unix::OptionsExt};
///
/// let pipe = Options::new().mode(0o660).create("memfd")?;
/// # Ok::<(), shmpipe::SetupError>(())
/// ```
pub trait OptionsExt: sealed::Sealed {
    /// Permission bits of the segment or file, and of its semaphore set, as for `chmod`. Default: 0600. Both ends need
    /// read and write permission, inspecting needs read permission.
    #[must_use]
    fn mode(self, mode: u32) -> Self;

    /// The user who owns a new segment. Needs privilege.
    #[must_use]
    fn uid(self, uid: u32) -> Self;

    /// The group that owns a new segment.
    #[must_use]
    fn gid(self, gid: u32) -> Self;

    /// Also accepts segments that this user created or owns. By default, only root and our own user are trusted.
    #[must_use]
    fn trust_uid(self, uid: u32) -> Self;
}

impl OptionsExt for Options {
    fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o777);
        self
    }

    fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    fn trust_uid(mut self, uid: u32) -> Self {
        self.trusted.push(uid);
        self
    }
}

/// What a [`Pipe`] has on Unix systems only.
pub trait PipeExt: sealed::Sealed {
    /// A descriptor of the pipe's file; `None` for a System V segment. It holds no locks and is closed on `exec`. A memfd
    /// is passed on by it: to a child, which inherits it, as the address `fd:N` (after clearing `FD_CLOEXEC`), or through
    /// a Unix socket with [`fd_passing`].
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Permission bits of the segment when it was opened.
    fn mode(&self) -> u32;
}

impl PipeExt for Pipe {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.segment().descriptor()
    }

    fn mode(&self) -> u32 {
        self.segment().permissions.mode
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::options::Options {}
    impl Sealed for crate::pipe::Pipe {}
}
