//! Keeping `fork` out for a moment.
//!
//! A mapping, or a descriptor, that a child must not inherit is inheritable between the call that makes it and the one that
//! says so. A thread of this process that forks just then waits, in a handler that the C library calls before
//! (`pthread_atfork`), until the moment is over. `posix_spawn` does not wait, but its child, which has a copy of the
//! descriptors, closes these at its `exec`.

use std::hint;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// The thread that keeps others out, 0 if none does; and how often it does so: a signal handler may fork in the very thread.
static OWNER: AtomicI32 = AtomicI32::new(0);
static DEPTH: AtomicU32 = AtomicU32::new(0);

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

fn thread_id() -> i32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

extern "C" fn enter() {
    let us = thread_id();
    let mut looks = 0;
    // Relaxed: our own id is there only if we have stored it.
    if OWNER.load(Ordering::Relaxed) != us {
        // ORDERING: Acquire, pairs with the Release store in `leave`: what the last owner mapped is settled.
        while OWNER.compare_exchange_weak(0, us, Ordering::Acquire, Ordering::Relaxed).is_err() {
            looks += 1;
            if looks < 100 { hint::spin_loop() } else { thread::sleep(Duration::from_micros(20)) }
        }
    }
    // Relaxed: only the owner counts.
    DEPTH.store(DEPTH.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

extern "C" fn leave() {
    // Relaxed: as above. Zero in a child that was forked by a signal handler in the middle of it.
    let depth = DEPTH.load(Ordering::Relaxed).saturating_sub(1);
    DEPTH.store(depth, Ordering::Relaxed);
    if depth == 0 {
        // ORDERING: Release, pairs with the Acquire exchange in `enter`.
        OWNER.store(0, Ordering::Release);
    }
}

/// In the child, whose only thread has another id than it had.
extern "C" fn start() {
    // Relaxed: there is one thread.
    DEPTH.store(0, Ordering::Relaxed);
    OWNER.store(0, Ordering::Relaxed);
}
