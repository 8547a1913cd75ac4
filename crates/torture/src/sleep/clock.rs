//! What the kernel knows of a thread's time.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;

/// The monotonic clock, which all processes share, in nanoseconds.
pub fn now() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes one timespec, and cannot fail with this clock.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How often this thread has left the processor of its own accord: to sleep, not to yield.
pub fn sleeps() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the call writes one rusage, and cannot fail with this thread.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nvcsw as u64
}

/// How long this thread has waited for a processor.
pub struct Queue(Option<File>);

impl Queue {
    /// Of the thread that calls this. Zero throughout where the kernel does not say.
    pub fn new() -> Self {
        Queue(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Nanoseconds so far.
    pub fn waited(&self) -> io::Result<u64> {
        let Some(file) = &self.0 else { return Ok(0) };
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0)?;
        // Time on the processor, time in the queue, slices.
        let words = String::from_utf8_lossy(&text[..length]);
        let waited = words.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        waited.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "schedstat is not as it was"))
    }
}
