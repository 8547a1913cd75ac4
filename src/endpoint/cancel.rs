//! Cancelling a blocked call, from another thread or from a signal handler; and the sleep of a blocked call, which a cancel ends.

use crate::protocol::sync::Futex;
use crossbeam_utils::CachePadded;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Duration;

/// Cancels the blocked calls of one endpoint, from another thread or from a signal handler. That of a
/// [`Duplex`](crate::Duplex) cancels both directions.
///
/// After [`cancel`](CancelHandle::cancel), every call of the endpoint that has to wait returns
/// [`Cancelled`](crate::WaitError::Cancelled), now and later; a call that need not wait works as before. A sleeping thread wakes
/// up. One that is just falling asleep may miss the wake-up, and then notices within 100 ms.
///
/// ```
/// use shmpipe::RecvError;
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut consumer = pipe.consumer()?;
/// let cancel = consumer.cancel_handle();
/// std::thread::spawn(move || cancel.cancel());
/// assert!(matches!(consumer.recv(), Err(RecvError::Cancelled)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CancelHandle {
    shared: Arc<CachePadded<Shared>>,
    /// The other half of a duplex endpoint.
    other: Option<Arc<CachePadded<Shared>>>,
}

/// Private to the process, on cache lines of its own: the blocked thread polls it.
#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    /// The word that the endpoint sleeps on, while it sleeps.
    sleeping_on: AtomicPtr<u32>,
}

impl CancelHandle {
    pub(crate) fn new() -> Self {
        CancelHandle { shared: Arc::default(), other: None }
    }

    /// A handle that cancels the calls of both.
    pub(crate) fn and(&self, other: &CancelHandle) -> Self {
        CancelHandle { shared: self.shared.clone(), other: Some(other.shared.clone()) }
    }

    /// Cancels the endpoint's blocked calls, now and later.
    ///
    /// Wait-free, at most one system call for each direction, no allocation: safe in a signal handler.
    pub fn cancel(&self) {
        self.shared.cancel();
        if let Some(other) = &self.other {
            other.cancel();
        }
    }

    /// Returns whether [`cancel`](CancelHandle::cancel) was called, on this handle or a clone.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled() && self.other.as_ref().is_none_or(|other| other.is_cancelled())
    }

    /// Sleeps on `event_count` while it is `seen`, for `timeout` at most, so that [`cancel`](CancelHandle::cancel) can end it.
    pub(crate) fn sleep(&self, event_count: &Futex, seen: u32, timeout: Duration) {
        self.sleep_on(event_count, || event_count.wait(seen, timeout));
    }

    /// Sleeps for this long. The peer does not know of it and leaves the event count alone; a cancel ends it.
    pub(crate) fn nap(&self, event_count: &Futex, nap: Duration) {
        self.sleep(event_count, event_count.count(), nap);
    }

    /// Runs `sleep`, which sleeps on `word`, perhaps among others, so that [`cancel`](CancelHandle::cancel) can end it.
    pub(crate) fn sleep_on(&self, word: &Futex, sleep: impl FnOnce()) {
        // ORDERING: SeqCst, partner of `cancel`.
        self.shared.sleeping_on.store(word.address(), Ordering::SeqCst);
        // ORDERING: SeqCst, partner of `cancel`.
        if !self.shared.cancelled.load(Ordering::SeqCst) {
            sleep();
        }
        // Relaxed: a cancel that still sees the word wakes a thread that does not sleep.
        self.shared.sleeping_on.store(null_mut(), Ordering::Relaxed);
    }
}

impl Shared {
    fn cancel(&self) {
        // ORDERING: SeqCst, with the load below the mirror image of `sleep`: if a cancel and a sleep meet, at least one sees
        // the other.
        self.cancelled.store(true, Ordering::SeqCst);
        // ORDERING: SeqCst, as above.
        let word = self.sleeping_on.load(Ordering::SeqCst);
        if !word.is_null() {
            // SAFETY: the call returns the address of this thread's errno, which a signal handler must preserve.
            let errno = unsafe { *libc::__errno_location() };
            crate::protocol::sync::wake_at(word);
            // SAFETY: as above.
            unsafe { *libc::__errno_location() = errno };
        }
    }

    fn is_cancelled(&self) -> bool {
        // Relaxed: it is polled, and nothing is read through it.
        self.cancelled.load(Ordering::Relaxed)
    }
}
