//! Atomics and the futex, from the standard library or from loom.
//!
//! This file and its rooms are the only ones that know that loom exists: built with
//! `--cfg shmpipe_loom`, the protocol runs on loom's atomics and on a futex modelled with loom's mutex.

#[cfg(not(shmpipe_loom))]
mod futex;
#[cfg(shmpipe_loom)]
#[path = "sync/loom.rs"]
mod futex;

#[cfg(shmpipe_loom)]
mod mortal;

#[cfg(shmpipe_loom)]
pub(crate) use ::loom::sync::atomic::Ordering;
pub(crate) use core::sync::atomic::compiler_fence;
#[cfg(not(shmpipe_loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use futex::Futex;
#[cfg(not(shmpipe_loom))]
pub(crate) use futex::wake_at;
#[cfg(shmpipe_loom)]
pub(crate) use mortal::{AtomicU32, AtomicU64, fence, killed_after};

/// Tells the processor that this is a polling loop; lets another thread run under loom.
#[inline(always)]
pub(crate) fn spin_loop() {
    #[cfg(not(shmpipe_loom))]
    core::hint::spin_loop();
    #[cfg(shmpipe_loom)]
    ::loom::thread::yield_now();
}
