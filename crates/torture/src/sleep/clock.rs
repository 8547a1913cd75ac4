//! Clocks and scheduling statistics of a thread.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;

/// The monotonic clock in nanoseconds, the same in all processes.
pub fn now() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes one timespec, and cannot fail with this clock.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The number of voluntary context switches of this thread. Sleeps count, yields do not.
pub fn sleeps() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the call writes one rusage, and cannot fail with this thread.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nvcsw as u64
}

/// The time that a thread was ready to run and waited for a processor.
pub struct Queue(Option<File>);

impl Queue {
    /// For the calling thread. Always zero where the kernel does not provide it.
    pub fn new() -> Self {
        Queue(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Nanoseconds so far.
    pub fn waited(&self) -> io::Result<u64> {
        let Some(file) = &self.0 else { return Ok(0) };
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0)?;
        // Running time, waiting time, slices.
        let words = String::from_utf8_lossy(&text[..length]);
        let waited = words.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        waited.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "schedstat has an unknown format"))
    }
}
