//! The real machine.

pub(crate) use crate::sys::futex::{Futex, wake_at};
pub(crate) use crate::sys::membarrier::everywhere as fence_everywhere;
pub(crate) use core::hint::spin_loop;
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

pub(crate) const IS_MODEL: bool = false;
