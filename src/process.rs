//! Telling this process from a child that fork made of it.
//!
//! Process ids do not tell: in a new pid namespace the child may have the same one. A page that the kernel wipes in
//! every child (`MADV_WIPEONFORK`) does, and reading it is one load.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// A number that this process has, and no child of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u64);

impl Process {
    pub(crate) fn current() -> Self {
        static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
        let Some(number) = PAGE.get_or_init(|| wiped_on_fork().ok()) else {
            // A kernel before 4.14, which is before membarrier too.
            return Process(std::process::id().into());
        };
        // Relaxed, here and below: a number for ourselves, and nothing is read through it.
        match number.load(Ordering::Relaxed) {
            0 => {
                // The time alone would do: a child comes later than its parent's first question.
                let since = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
                let new = since ^ u64::from(std::process::id()).rotate_left(40) | 1;
                match number.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => Process(new),
                    Err(other) => Process(other),
                }
            }
            number => Process(number),
        }
    }
}

/// This process for those who want to know who it is: its process id, and in the upper half the pid namespace that
/// this is good in.
pub(crate) fn hint() -> u64 {
    u64::from(std::process::id()) | namespace() << 32
}

/// The process id in a hint, if it means the same process here.
pub(crate) fn pid_of(hint: u64) -> Option<u32> {
    let pid = hint as u32;
    (pid != 0 && hint >> 32 == namespace()).then_some(pid)
}

/// The number of our pid namespace, 0 if it cannot be told.
fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino() & u64::from(u32::MAX))
}

/// A word in a page of its own, zero, and zero again in every child.
fn wiped_on_fork() -> io::Result<&'static AtomicU64> {
    const PAGE: usize = 4096;
    // SAFETY: an anonymous mapping at an address that the kernel chooses, over nothing that exists.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page is the mapping just made.
    if unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } == -1 {
        let error = io::Error::last_os_error();
        // SAFETY: as above, and nobody knows of it yet.
        unsafe { libc::munmap(page, PAGE) };
        return Err(error);
    }
    // SAFETY: a page is large enough and aligned for the word, is never unmapped, and is used as this word alone.
    Ok(unsafe { AtomicU64::from_ptr(page.cast()) })
}
