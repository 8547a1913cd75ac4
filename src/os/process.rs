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
        let Wiped { number, wiped, .. } = wiped_on_fork();
        if !wiped {
            return Process(std::process::id().into());
        }
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

/// Whether the process in a hint was seen to be gone.
pub(crate) fn is_gone(hint: u64) -> bool {
    pid_of(hint).is_some_and(|pid| {
        // SAFETY: no pointers; the signal 0 is not sent.
        let known = unsafe { libc::kill(pid as i32, 0) } == 0;
        !known && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
    })
}

/// The number of our pid namespace, 0 if it cannot be told.
fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino() & u64::from(u32::MAX))
}

/// Words that are zero, and zero again in every child, however it is made.
#[derive(Debug)]
pub(crate) struct Wiped {
    number: &'static AtomicU64,
    /// Of `fork.rs`.
    pub(crate) forks: &'static AtomicU64,
    /// Unless the kernel cannot do it: one before 4.14, which is before membarrier too.
    wiped: bool,
}

pub(crate) fn wiped_on_fork() -> &'static Wiped {
    static WIPED: OnceLock<Wiped> = OnceLock::new();
    static INSTEAD: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    WIPED.get_or_init(|| {
        let (words, wiped) = page().map_or((&INSTEAD, false), |words| (words, true));
        Wiped { number: &words[0], forks: &words[1], wiped }
    })
}

/// Two words in a page of their own that the kernel wipes in children.
fn page() -> io::Result<&'static [AtomicU64; 2]> {
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
    // SAFETY: a page is large enough and aligned for the words, is never unmapped, and is used as these words alone.
    Ok(unsafe { &*page.cast() })
}
