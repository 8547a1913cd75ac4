//! The clock that all processes of a machine share.

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock behind [`Instant`](std::time::Instant), as a number that can be sent.
///
/// All processes of a time namespace read the same clock, and a partner is always in that of its parent. On two CPUs it can
/// differ by what the kernel, or the host of a virtual machine, cannot correct.
#[inline(always)]
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is live. It cannot fail: every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_clock_of_instants() {
        let (before, start) = (now(), std::time::Instant::now());
        std::thread::sleep(std::time::Duration::from_millis(2));
        let (inner, outer) = (start.elapsed().as_nanos() as u64, now() - before);
        assert!(inner >= 2_000_000 && inner <= outer, "{inner} of {outer}");
    }
}
