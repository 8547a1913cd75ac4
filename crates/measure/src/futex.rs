//! The futex: a word in shared memory on which a thread sleeps in the kernel until another wakes it.

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU32;

use crate::watchdog;

/// Sleeps until a wake of the word, unless its value is not `seen`. May return spuriously, so the caller must check again.
///
/// # Errors
/// An error if the other side has ended; those of the system.
#[inline(always)]
pub(crate) fn wait(word: &AtomicU32, seen: u32) -> io::Result<()> {
    let forever: *const libc::timespec = ptr::null();
    // SAFETY: the kernel reads the word, which the reference keeps mapped, and there is no timeout. The futex is not
    // private, since the two sides map the word at different addresses.
    let slept = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, forever) };
    if slept == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(()), // it has changed already
        _ => watchdog::interrupted(error),
    }
}

/// Wakes the sleepers on the word.
#[inline(always)]
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: the kernel only uses the address as a key, and the reference keeps it mapped.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}
