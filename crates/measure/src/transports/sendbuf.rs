//! The send buffer of a Unix socket, which limits the bytes in flight.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::errors::failed;

/// The requested size. The kernel grants at most `/proc/sys/net/core/wmem_max`.
///
/// The default holds three messages of 64 KiB. With this size a stream of those is 20 % faster, and shorter ones are equal.
const WANTED: libc::c_int = 1 << 20;

/// Requests this size, and returns the size by the kernel's accounting.
pub(super) fn widen(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let (level, option) = (libc::SOL_SOCKET, libc::SO_SNDBUF);
    let mut room = WANTED;
    let mut len = mem::size_of_val(&room) as libc::socklen_t;
    // SAFETY: `room` is live, and `len` is its length.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(&room).cast(), len) };
    if set == -1 {
        return Err(failed(format_args!("setsockopt(SO_SNDBUF)")));
    }
    // SAFETY: `room` and `len` are live, and `len` is the length of `room`.
    let asked = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, ptr::from_mut(&mut room).cast(), &mut len)
    };
    if asked == -1 {
        return Err(failed(format_args!("getsockopt(SO_SNDBUF)")));
    }
    Ok(room as usize)
}
