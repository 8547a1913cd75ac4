//! Keeping `fork` out for a moment.
//!
//! A mapping, or a descriptor, that a child must not inherit is inheritable between the call that makes it and the one that
//! says so. A thread of this process that forks just then waits, in a handler that the C library calls before
//! (`pthread_atfork`), until the moment is over. `posix_spawn` does not wait, but its child, which has a copy of the
//! descriptors, closes these at its `exec`.

use crate::os::process::wiped_on_fork;
use std::hint;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// No thread of this process forks as long as this exists, unless by the bare system call.
#[derive(Debug)]
pub(crate) struct NoFork(());

impl NoFork {
    pub(crate) fn now() -> Self {
        static HANDLERS: Once = Once::new();
        // SAFETY: the handlers take no arguments, are of this program for good, and call nothing that a fork may have
        // left half done. If there is no memory for them, forks are not kept out, as before.
        HANDLERS.call_once(|| unsafe {
            libc::pthread_atfork(Some(enter), Some(leave), Some(start));
        });
        enter();
        NoFork(())
    }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        leave();
    }
}

/// The thread that keeps others out, in the upper half, and how often it does so, since a signal handler may fork in the very
/// thread. Zero if nobody does, and in every child, however it was made.
fn owner() -> &'static AtomicU64 {
    wiped_on_fork().forks
}

fn us() -> u64 {
    // SAFETY: the call has no arguments and cannot fail.
    (unsafe { libc::syscall(libc::SYS_gettid) as u64 }) << 32
}

const TIMES: u64 = u32::MAX as u64;

extern "C" fn enter() {
    let (owner, us) = (owner(), us());
    let mut looks = 0;
    loop {
        // Relaxed: our own id is there only if we have stored it.
        let now = owner.load(Ordering::Relaxed);
        if now & !TIMES == us {
            owner.store(now + 1, Ordering::Relaxed);
            return;
        }
        // ORDERING: Acquire, pairs with the Release store in `leave`: what the last owner mapped is settled.
        if owner.compare_exchange_weak(0, us | 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return;
        }
        looks += 1;
        if looks < 100 { hint::spin_loop() } else { thread::sleep(Duration::from_micros(20)) }
    }
}

extern "C" fn leave() {
    let (owner, us) = (owner(), us());
    // Relaxed: only the owner changes it.
    let now = owner.load(Ordering::Relaxed);
    // Another one's in a child that was made in the middle of it.
    if now & !TIMES == us {
        // ORDERING: Release, pairs with the Acquire exchange in `enter`.
        owner.store(if now & TIMES == 1 { 0 } else { now - 1 }, Ordering::Release);
    }
}

/// In a child, if the kernel has not seen to it.
extern "C" fn start() {
    // Relaxed: there is one thread.
    owner().store(0, Ordering::Relaxed);
}
