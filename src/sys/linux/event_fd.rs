//! A descriptor that is readable from a write to the next clear.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An eventfd.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers. The descriptor is new, and nothing else owns it.
        unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                descriptor => Ok(EventFd(OwnedFd::from_raw_fd(descriptor))),
            }
        }
    }

    /// Makes it readable.
    pub(crate) fn write(&self) {
        let one = 1u64;
        // SAFETY: the pointer is to 8 bytes. It fails only if the counter is full, and then the descriptor is readable.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Makes it unreadable.
    pub(crate) fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: the pointer is to 8 bytes. It fails only if the descriptor is not readable.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
