//! What only Unix systems have: owners and permission bits, file descriptors, and passing these between processes.
//!
//! * [`OptionsExt`] sets the mode, the owner and the trusted users of a pipe.
//! * [`PipeExt`] returns the mode and the file descriptor of an open one.
//! * [`fd_passing`] passes a pipe in a memfd to other processes.

pub mod fd_passing;

use crate::options::Options;
use crate::pipe::Pipe;
use crate::sys::futex;
use std::io;
use std::os::fd::BorrowedFd;

/// Returns whether this process can sleep on many pipes at once, or else why not.
///
/// A [`WaitSet`](crate::WaitSet) does, where it can, with `futex_waitv`: Linux has it since 5.16, and a seccomp filter may refuse it
/// (`ENOSYS`, `EPERM`). Otherwise the set looks at its members every millisecond. Asks by a call that does not sleep.
///
/// ```
/// match shmpipe::os::unix::can_sleep_on_many() {
///     Ok(()) => {}
///     Err(error) => eprintln!("sets of pipes wait by a timer: futex_waitv: {error}"),
/// }
/// ```
///
/// # Errors
/// The error of the call.
pub fn can_sleep_on_many() -> io::Result<()> {
    futex::can_wait_for_any()
}

/// Options that only Unix systems have.
///
/// ```
/// use shmpipe::{Options, os::unix::OptionsExt};
///
/// // For a producer and a consumer of the same group.
/// let pipe = Options::new().mode(0o660).create("memfd")?;
/// # Ok::<(), shmpipe::SetupError>(())
/// ```
pub trait OptionsExt: sealed::Sealed {
    /// Sets the permission bits of the segment or file, and of its semaphore set, as for `chmod`.
    ///
    /// Default: 0600. Both ends need read and write permission, inspecting needs read permission. Bits beyond 0777 are ignored. A
    /// mode that lets every user write also accepts existing pipes of such a mode, which otherwise fail with
    /// [`Distrust::WorldWritable`](crate::error::Distrust::WorldWritable).
    #[must_use]
    fn mode(self, mode: u32) -> Self;

    /// Sets the user who owns a new segment.
    ///
    /// Needs privilege. Creating the pipe fails with [`SetupError::Os`](crate::SetupError::Os) or
    /// [`PermissionDenied`](crate::SetupError::PermissionDenied) without it.
    #[must_use]
    fn uid(self, uid: u32) -> Self;

    /// Sets the group that owns a new segment.
    #[must_use]
    fn gid(self, gid: u32) -> Self;

    /// Also accepts segments that this user created or owns.
    ///
    /// By default, only root and our own user are trusted; others fail with [`Distrust::Owner`](crate::error::Distrust::Owner)
    /// or, at the other end of a socket, [`Distrust::Peer`](crate::error::Distrust::Peer).
    ///
    /// ```
    /// use shmpipe::{Options, os::unix::OptionsExt};
    ///
    /// # let creator = Options::new().create("memfd")?;
    /// # let (address, user_of_the_service) = (creator.address(), 1000);
    /// let pipe = Options::new().trust_uid(user_of_the_service).open(address)?;
    /// # Ok::<(), shmpipe::SetupError>(())
    /// ```
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
///
/// ```
/// use shmpipe::{Options, os::unix::PipeExt};
///
/// let pipe = Options::new().create("memfd")?;
/// assert!(pipe.fd().is_some());
/// assert_eq!(pipe.mode(), 0o600);
/// # Ok::<(), shmpipe::SetupError>(())
/// ```
pub trait PipeExt: sealed::Sealed {
    /// Returns a descriptor of the pipe's file; `None` for a System V segment.
    ///
    /// It holds no locks and is closed on `exec`. A memfd is passed on by it: to a child, which inherits it, as the address
    /// `fd:N` (after clearing `FD_CLOEXEC`), or through a Unix socket with [`fd_passing`].
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Returns the permission bits of the segment when it was opened.
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
