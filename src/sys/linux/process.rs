//! Distinguishing this process from its forked children.
//!
//! Process ids cannot: in a new pid namespace the child may have the same one. A page that the kernel wipes in every child
//! (`MADV_WIPEONFORK`) can, and reading it is one load.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// A process, distinct from all of its children.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    number: u64,
    /// Holds the number while this process runs, where the kernel wipes it on fork.
    word: &'static AtomicU64,
}

impl Process {
    pub(crate) fn current() -> Self {
        let Wiped { number: word, wiped, .. } = wiped_on_fork();
        if !wiped {
            return Process { number: std::process::id().into(), word };
        }
        // Relaxed, here and below: only this process uses the number, and nothing is read through it.
        let number = match word.load(Ordering::Relaxed) {
            0 => {
                // The time alone would be enough: a child is created after its parent's first call.
                let since = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
                let new = since ^ u64::from(std::process::id()).rotate_left(40) | 1;
                word.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(new)
            }
            number => number,
        };
        Process { number, word }
    }

    /// Whether it is this process.
    pub(crate) fn is_current(&self) -> bool {
        self.is_surely_current() || self.number == Self::current().number
    }

    /// The same process, for which the quick answer is never yes.
    pub(crate) fn never_surely_current(self) -> Self {
        static ZERO: AtomicU64 = AtomicU64::new(0);
        // No process has the number 0.
        Process { word: &ZERO, ..self }
    }

    /// A quick answer for the hot path: `false` also where the kernel does not wipe the word.
    #[inline(always)]
    pub(crate) fn is_surely_current(&self) -> bool {
        // Relaxed: as in `current`.
        self.word.load(Ordering::Relaxed) == self.number
    }

    /// What the quick answer compares.
    pub(crate) fn word_and_number(&self) -> (&'static AtomicU64, u64) {
        (self.word, self.number)
    }
}

/// A hint that identifies this process to others: its process id, and in the upper half the pid namespace in which that id is
/// valid.
pub(crate) fn hint() -> u64 {
    u64::from(std::process::id()) | namespace() << 32
}

/// The process id in a hint, if it is from our pid namespace.
pub(crate) fn pid_of(hint: u64) -> Option<u32> {
    let pid = hint as u32;
    (pid != 0 && hint >> 32 == namespace()).then_some(pid)
}

/// Whether the process in a hint is known to be gone: it does not exist, or its parent has not waited for its end yet. A process
/// whose first thread has ended before the others looks like the latter.
pub(crate) fn is_gone(hint: u64) -> bool {
    pid_of(hint).is_some_and(|pid| {
        // SAFETY: the call takes no pointers, and signal 0 only checks whether the process exists.
        let exists = unsafe { libc::kill(pid as i32, 0) } == 0;
        match exists || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH) {
            true => is_zombie(pid),
            false => true,
        }
    })
}

fn is_zombie(pid: u32) -> bool {
    // The state follows the name, which is in parentheses and may contain some.
    let status = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let end_of_name = status.iter().rposition(|&byte| byte == b')');
    end_of_name.is_some_and(|end| status[end..].starts_with(b") Z "))
}

/// The number of our pid namespace; 0 if unknown.
fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino() & u64::from(u32::MAX))
}

/// Words that start as zero, and are zero again in every child, however it is created.
#[derive(Debug)]
pub(crate) struct Wiped {
    number: &'static AtomicU64,
    /// The lock word of `fork.rs`.
    pub(crate) forks: &'static AtomicU64,
    /// Whether the kernel wipes them. Kernels before 4.14 do not, and lack the membarrier commands too.
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

/// Two words in their own page, which the kernel wipes in children.
fn page() -> io::Result<&'static [AtomicU64; 2]> {
    const PAGE: usize = 4096;
    // SAFETY: an anonymous mapping at an address that the kernel chooses, so over nothing that exists.
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
    // SAFETY: the page is the new mapping.
    if unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } == -1 {
        let error = io::Error::last_os_error();
        // SAFETY: as above, and nothing else refers to it yet.
        unsafe { libc::munmap(page, PAGE) };
        return Err(error);
    }
    // SAFETY: a page is large enough and aligned for the words, is never unmapped, and is used only as these words.
    Ok(unsafe { &*page.cast() })
}
