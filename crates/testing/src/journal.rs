//! Memory that survives a kill of the processes that write it.

use super::raw::{Attached, make_memfd};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 64;

/// Words in a memfd. Every process that has its path can map it.
#[derive(Debug)]
pub struct Journal {
    words: Attached,
    file: File,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal {
    pub fn new() -> Self {
        Self::map(make_memfd(8 * WORDS, 0))
    }

    /// The path under which another process can open it as long as this value exists.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    pub fn open(path: &str) -> Self {
        Self::map(File::options().read(true).write(true).open(path).unwrap())
    }

    fn map(file: File) -> Self {
        Journal { words: Attached::map(&file), file }
    }

    pub fn word(&self, number: usize) -> &AtomicU64 {
        self.words.word(8 * number)
    }

    pub fn get(&self, number: usize) -> u64 {
        self.word(number).load(Ordering::SeqCst)
    }

    pub fn set(&self, number: usize, value: u64) {
        self.word(number).store(value, Ordering::SeqCst);
    }

    /// Reads an entry: words that [`set_entry`](Self::set_entry) wrote together.
    pub fn entry<const N: usize>(&self, first: usize) -> [u64; N] {
        let which = self.get(first) % 2;
        std::array::from_fn(|i| self.get(first + 1 + N * which as usize + i))
    }

    /// Writes several words atomically with respect to a kill. It writes the copy that is not current, and then the word `first`,
    /// which selects the copy. An entry takes `1 + 2 * N` words.
    pub fn set_entry<const N: usize>(&self, first: usize, words: [u64; N]) {
        let next = self.get(first) + 1;
        for (i, word) in words.into_iter().enumerate() {
            self.set(first + 1 + N * (next % 2) as usize + i, word);
        }
        self.set(first, next);
    }
}
