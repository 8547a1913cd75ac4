//! The real machine.

pub(crate) use crate::sys::clock::nanoseconds;
pub(crate) use crate::sys::futex::{Futex, MOST_WORDS, SeenWord, can_wait_for_any, wait_any, wake_at};
pub(crate) use crate::sys::membarrier::everywhere as fence_everywhere;
pub(crate) use core::hint::spin_loop;
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
pub(crate) use std::sync::Mutex;

pub(crate) const IS_MODEL: bool = false;
