//! Delaying `fork` for a moment.
//!
//! A mapping or descriptor that a child must not inherit is still inheritable between the call that creates it and the one that
//! marks it. A thread of this process that forks in between waits in a handler that the C library calls before the fork
//! (`pthread_atfork`). `posix_spawn` does not wait. Its child has copies of the descriptors, but closes them at its `exec`.

use crate::sys::process::wiped_on_fork;
use std::hint;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// While this exists, no thread of this process forks, except by the bare system call.
#[derive(Debug)]
pub(crate) struct NoFork(());

impl NoFork {
    pub(crate) fn now() -> Self {
        static HANDLERS: Once = Once::new();
        // SAFETY: the handlers take no arguments, are never unloaded, and call nothing that a fork may have interrupted
        // half-way. If there is no memory to register them, forks are simply not delayed.
        HANDLERS.call_once(|| unsafe {
            libc::pthread_atfork(Some(lock), Some(unlock), Some(reset_in_child));
        });
        lock();
        NoFork(())
    }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        unlock();
    }
}

/// The lock: the id of the thread that holds it in the upper half, and how often that thread has locked it in the lower half,
/// since a signal handler may fork in the same thread. Zero if it is free, and in every child, however it was created.
fn owner() -> &'static AtomicU64 {
    wiped_on_fork().forks
}

fn this_thread() -> u64 {
    // SAFETY: the call has no arguments and cannot fail.
    (unsafe { libc::syscall(libc::SYS_gettid) as u64 }) << 32
}

const DEPTH: u64 = u32::MAX as u64;

extern "C" fn lock() {
    let (owner, thread) = (owner(), this_thread());
    let mut spins = 0;
    loop {
        // Relaxed: the word holds our own id only if this thread stored it.
        let now = owner.load(Ordering::Relaxed);
        if now & !DEPTH == thread {
            owner.store(now + 1, Ordering::Relaxed);
            return;
        }
        // ORDERING: Acquire, pairs with the Release store in `unlock`: the last owner has marked what it mapped.
        if owner.compare_exchange_weak(0, thread | 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return;
        }
        spins += 1;
        if spins < 100 { hint::spin_loop() } else { thread::sleep(Duration::from_micros(20)) }
    }
}

extern "C" fn unlock() {
    let (owner, thread) = (owner(), this_thread());
    // Relaxed: only the owner changes the word.
    let now = owner.load(Ordering::Relaxed);
    // Not ours in a child that was forked, by the bare system call, while another thread held the lock.
    if now & !DEPTH == thread {
        // ORDERING: Release, pairs with the Acquire exchange in `lock`.
        owner.store(if now & DEPTH == 1 { 0 } else { now - 1 }, Ordering::Release);
    }
}

/// Frees the lock in a child, for kernels that do not wipe the page.
extern "C" fn reset_in_child() {
    // Relaxed: a new child has one thread.
    owner().store(0, Ordering::Relaxed);
}
