//! Memory that outlives the processes that write it: what a test knows of a killed process.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 64;

/// Words in a file without a name, mapped by every process that is told its path.
#[derive(Debug)]
pub struct Journal {
    words: NonNull<[AtomicU64; WORDS]>,
    file: File,
}

// SAFETY: all of the mapping is atomic, and it is of no thread in particular.
unsafe impl Send for Journal {}
// SAFETY: as above.
unsafe impl Sync for Journal {}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal {
    pub fn new() -> Self {
        let name = CString::new("journal").unwrap();
        // SAFETY: the name is a string with a terminator; the descriptor is owned by the file from here on.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(8 * WORDS as u64).unwrap();
        Self::map(file)
    }

    /// The path by which another process opens it while we have it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    pub fn open(path: &str) -> Self {
        Self::map(File::options().read(true).write(true).open(path).unwrap())
    }

    fn map(file: File) -> Self {
        // SAFETY: a shared mapping of the whole file, where the kernel likes.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                8 * WORDS,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        Journal { words: NonNull::new(base.cast()).unwrap(), file }
    }

    pub fn word(&self, number: usize) -> &AtomicU64 {
        // SAFETY: the mapping lives as long as we do, and all of it is atomic.
        let words = unsafe { self.words.as_ref() };
        &words[number]
    }

    pub fn get(&self, number: usize) -> u64 {
        self.word(number).load(Ordering::SeqCst)
    }

    pub fn set(&self, number: usize, value: u64) {
        self.word(number).store(value, Ordering::SeqCst);
    }

    /// Several words that were set together: see [`enter`](Self::enter).
    pub fn entry<const N: usize>(&self, first: usize) -> [u64; N] {
        let which = self.get(first) % 2;
        std::array::from_fn(|i| self.get(first + 1 + N * which as usize + i))
    }

    /// Sets several words at once, whenever the process is killed: they are written where the last ones are not, and
    /// the word `first` then says where. Takes `1 + 2 * N` words.
    pub fn enter<const N: usize>(&self, first: usize, words: [u64; N]) {
        let next = self.get(first) + 1;
        for (i, word) in words.into_iter().enumerate() {
            self.set(first + 1 + N * (next % 2) as usize + i, word);
        }
        self.set(first, next);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // SAFETY: nobody uses the mapping after this.
        unsafe { libc::munmap(self.words.as_ptr().cast(), 8 * WORDS) };
    }
}
