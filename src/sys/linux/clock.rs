//! The clock that all processes of the machine share.

use std::mem::MaybeUninit;

/// Nanoseconds of `CLOCK_MONOTONIC`: the same in all processes, but those in a time namespace of their own.
pub(crate) fn nanoseconds() -> u64 {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: writes the timespec; cannot fail with this clock.
    let now = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr());
        now.assume_init()
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
