//! The futex: a 32-bit word in shared memory that the kernel lets a process sleep on.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A 32-bit event counter that its owner advances and its peer sleeps on.
///
/// The futex is a shared one: the private flag would confine wake-ups to one address space, and the two ends of
/// a pipe map the word at different addresses of different processes.
#[repr(transparent)]
pub(crate) struct Futex(AtomicU32);

impl Futex {
    pub(crate) const fn new() -> Self {
        Futex(AtomicU32::new(0))
    }

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

    /// Counts one event of a word that several threads advance.
    pub(crate) fn advance_shared(&self) {
        // ORDERING: Release, pairs with the Acquire load in `count`, as in `advance`.
        self.0.fetch_add(1, Ordering::Release);
    }

    /// Sleeps until the next [`wake`](Futex::wake), a signal or `timeout`, unless the count is no longer `seen`.
    pub(crate) fn wait(&self, seen: u32, timeout: Duration) {
        SeenWord::new(self, seen).wait(timeout);
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

/// The words that a thread can sleep on at once.
pub(crate) const MOST_WORDS: usize = 128;

/// An entry of the list that `futex_waitv` takes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl Waiter {
    /// A word of 32 bits that other processes may have mapped.
    const FLAGS: u32 = 2;

    const NONE: Waiter = Waiter { value: 0, address: 0, flags: Waiter::FLAGS, reserved: 0 };
}

/// A word to sleep on while its count is the one that was seen. It may be unmapped meanwhile: to the kernel it is an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenWord {
    address: *mut u32,
    count: u32,
}

// SAFETY: nothing is accessed through the address here, and the kernel looks it up for any thread of the process.
unsafe impl Send for SeenWord {}

impl SeenWord {
    pub(crate) fn new(word: &Futex, count: u32) -> Self {
        SeenWord { address: word.address(), count }
    }

    /// Sleeps until the next [`wake`](Futex::wake), a signal or `timeout`, unless the count is no longer the one that was seen.
    pub(crate) fn wait(&self, timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: FUTEX_WAIT reads the word behind the first pointer, or answers EFAULT if it is not mapped, and reads the timespec,
        // which lives until the call returns. Whatever it returns (woken, changed before, signal, timed out) means the same to
        // the caller: look again.
        unsafe {
            libc::syscall(libc::SYS_futex, self.address, libc::FUTEX_WAIT, self.count, &raw const timeout);
        }
    }
}

/// Sleeps until one of at most [`MOST_WORDS`] words is woken, a signal or `timeout`, unless one is no longer as seen.
pub(crate) fn wait_any(words: &[SeenWord], timeout: Duration) {
    let mut waiters = [Waiter::NONE; MOST_WORDS];
    for (waiter, word) in waiters.iter_mut().zip(words) {
        *waiter = Waiter { value: word.count.into(), address: word.address as u64, ..Waiter::NONE };
    }
    // Whatever it returns (woken, changed before, signal, timed out) means the same to the caller: look again.
    let _ = wait_for(&waiters[..words.len()], timeout);
}

/// Whether this process can sleep on several words: Linux has the call since 5.16, and a seccomp filter may refuse it.
pub(crate) fn can_wait_for_any() -> io::Result<()> {
    let word = Futex::new();
    let changed = Waiter { value: 1, address: word.address() as u64, ..Waiter::NONE };
    match wait_for(&[changed], Duration::ZERO) {
        Err(error) if error.raw_os_error() != Some(libc::EAGAIN) => Err(error),
        _ => Ok(()),
    }
}

fn wait_for(waiters: &[Waiter], timeout: Duration) -> io::Result<()> {
    let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the timespec. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut until) };
    let nanoseconds = until.tv_nsec + i64::from(timeout.subsec_nanos());
    until.tv_sec = until
        .tv_sec
        .saturating_add(timeout.as_secs().try_into().unwrap_or(i64::MAX))
        .saturating_add(nanoseconds / 1_000_000_000);
    until.tv_nsec = nanoseconds % 1_000_000_000;
    // SAFETY: the call reads the entries and the timespec, which live until it returns. An address is one for the kernel to look
    // up: it answers EFAULT for a page that is not mapped.
    let woken = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len(),
            0,
            &raw const until,
            libc::CLOCK_MONOTONIC,
        )
    };
    if woken == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
