//! The futex as loom can explore it: the compare and the enqueueing are one step under a mutex, as they are under
//! the kernel's bucket lock. Sleeps have no timeout here, so that a lost wake-up is a deadlock that loom reports.

use super::mortal::step;
use super::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};
use std::time::Duration;

pub(crate) struct Futex {
    count: AtomicU32,
    bucket: Mutex<()>,
    sleepers: Condvar,
}

impl Futex {
    pub(crate) fn new() -> Self {
        Futex { count: AtomicU32::new(0), bucket: Mutex::new(()), sleepers: Condvar::new() }
    }

    pub(crate) fn count(&self) -> u32 {
        // ORDERING: as in futex.rs.
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn advance(&self) {
        let next = self.count.load(Ordering::Relaxed).wrapping_add(1);
        // ORDERING: as in futex.rs.
        self.count.store(next, Ordering::Release);
    }

    pub(crate) fn wait(&self, seen: u32, _timeout: Duration) {
        if !step() {
            return;
        }
        let bucket = self.bucket.lock().expect("no model panics while it holds the bucket");
        if self.count.load(Ordering::Relaxed) == seen {
            drop(self.sleepers.wait(bucket));
        }
    }

    pub(crate) fn wake(&self) {
        if !step() {
            return;
        }
        let bucket = self.bucket.lock().expect("no model panics while it holds the bucket");
        self.sleepers.notify_all();
        drop(bucket);
    }
}
