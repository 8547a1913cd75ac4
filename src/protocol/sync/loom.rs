//! The machine as loom models it.

#[cfg(not(shmpipe_portable))]
compile_error!(
    "loom does not see accesses in asm blocks: build with --cfg shmpipe_loom --cfg shmpipe_portable"
);

#[path = "mortal.rs"]
mod mortal;

pub(crate) use core::sync::atomic::compiler_fence;
pub(crate) use loom::sync::atomic::Ordering;
pub(crate) use loom::thread::yield_now as spin_loop;
pub(crate) use mortal::{AtomicU32, AtomicU64, fence, killed_after};

use loom::sync::{Condvar, Mutex};
use mortal::step;
use std::time::Duration;

pub(crate) const IS_MODEL: bool = true;

/// No model uses the wake mode that needs the kernel's barrier.
pub(crate) fn fence_everywhere() {
    unreachable!("a barrier of the kernel in a model");
}

/// No model cancels a sleep.
pub(crate) fn wake_at(_: *mut u32) {
    unreachable!("a sleep cancelled in a model");
}

/// A futex: compare and enqueue are one step under a mutex, as under the kernel's bucket lock. Sleeps have no timeout, so a lost
/// wake-up is a deadlock, which loom reports.
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
        // ORDERING: as in `sys/linux/futex.rs`.
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn advance(&self) {
        let next = self.count.load(Ordering::Relaxed).wrapping_add(1);
        // ORDERING: as in `sys/linux/futex.rs`.
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

    pub(crate) fn address(&self) -> *mut u32 {
        unreachable!("a sleep that can be cancelled, in a model")
    }
}
