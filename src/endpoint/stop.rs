//! Ending a call that waits, from another thread or from a signal handler.

use crate::protocol::sync::Futex;
use crossbeam_utils::CachePadded;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Ends the waiting calls of one endpoint.
///
/// After [`stop`](Stopper::stop) each call of the endpoint that has to wait, now or later, returns `Stopped`; a call
/// that need not wait works as before. A thread that sleeps is woken. If it is just about to fall asleep it may
/// miss that, and then notices within a tenth of a second.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<CachePadded<Shared>>);

/// Process-private, on lines of its own: the waiting thread polls it.
#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    /// The word that the endpoint sleeps on, while it does.
    sleeping_on: AtomicPtr<u32>,
}

impl Stopper {
    pub(crate) fn new() -> Self {
        Stopper(Arc::default())
    }

    /// Ends the wait. Wait-free, makes at most one system call, allocates nothing: safe in a signal handler.
    pub fn stop(&self) {
        // ORDERING: SeqCst, with the load below the mirror image of `sleep`: of a stop and a sleep at the same time
        // at least one sees the other.
        self.0.stopped.store(true, Ordering::SeqCst);
        // ORDERING: SeqCst, as above.
        let word = self.0.sleeping_on.load(Ordering::SeqCst);
        if !word.is_null() {
            // SAFETY: the calls return the address of this thread's errno, which a signal handler must leave as it was.
            let errno = unsafe { *libc::__errno_location() };
            crate::protocol::sync::wake_at(word);
            // SAFETY: as above.
            unsafe { *libc::__errno_location() = errno };
        }
    }

    /// Whether [`stop`](Stopper::stop) was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        // Relaxed: it is polled, and nothing is read through it.
        self.0.stopped.load(Ordering::Relaxed)
    }

    /// Runs `sleep`, which sleeps on `bell`, so that [`stop`](Stopper::stop) can end it.
    pub(crate) fn sleep(&self, bell: &Futex, sleep: impl FnOnce()) {
        // ORDERING: SeqCst, partner of `stop`.
        self.0.sleeping_on.store(bell.address(), Ordering::SeqCst);
        // ORDERING: SeqCst, partner of `stop`.
        if !self.0.stopped.load(Ordering::SeqCst) {
            sleep();
        }
        // Relaxed: a stop that still sees the word wakes nobody.
        self.0.sleeping_on.store(null_mut(), Ordering::Relaxed);
    }
}
