//! The futex: a 32-bit word in shared memory that the kernel lets a process sleep on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A 32-bit event counter that its owner advances and its peer sleeps on.
///
/// The futex is a shared one: the private flag would confine wake-ups to one address space, and the two ends of
/// a pipe map the word at different addresses of different processes.
#[repr(transparent)]
pub(crate) struct Futex(AtomicU32);

impl Futex {
    /// The count, to be passed to [`wait`](Futex::wait).
    pub(crate) fn count(&self) -> u32 {
        // ORDERING: Acquire, pairs with the Release store in `advance` here. A sleeper that reads the count after
        // an event also sees what was published before it, so its last poll before sleeping cannot miss that; and
        // the sleeper's epoch, stored after this load, cannot be seen before it.
        self.0.load(Ordering::Acquire)
    }

    /// Counts one event. Only the owner of the word calls this, so that a load and a store do.
    pub(crate) fn advance(&self) {
        // Relaxed: only this side writes the word.
        let next = self.0.load(Ordering::Relaxed).wrapping_add(1);
        // ORDERING: Release, pairs with the Acquire load in `count` here: what was published before the event is
        // visible to all who see the event.
        self.0.store(next, Ordering::Release);
    }

    /// Sleeps until the next [`wake`](Futex::wake), a signal or `timeout`, unless the count is no longer `seen`.
    pub(crate) fn wait(&self, seen: u32, timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: FUTEX_WAIT reads the word behind the first pointer, which `self` keeps valid, and the timespec,
        // which lives until the call returns. Whatever it returns (woken, changed before, signal, timed out) means
        // the same to the caller: look again.
        unsafe {
            libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAIT, seen, &raw const timeout);
        }
    }

    /// Wakes the thread that sleeps on the word.
    pub(crate) fn wake(&self) {
        wake_at(self.0.as_ptr());
    }

    /// The address of the word, for [`wake_at`].
    pub(crate) fn address(&self) -> *mut u32 {
        self.0.as_ptr()
    }
}

/// Wakes the thread that sleeps on the word at `word`; safe in a signal handler.
///
/// The word is an address for the kernel to look up and nothing more: one that is not mapped wakes no thread.
pub(crate) fn wake_at(word: *mut u32) {
    // SAFETY: FUTEX_WAKE uses the pointer as a key, never writes through it, and answers EFAULT for a page that is
    // not mapped.
    unsafe {
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX);
    }
}
