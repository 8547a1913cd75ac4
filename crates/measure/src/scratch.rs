//! Files named by numbers, so that a process can remove them by number, even in a signal handler.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A directory for files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// The directory of POSIX shared memory.
    Shm,
    /// A directory whose files survive a reboot: on a disk, if the system has one.
    Disk,
}

impl Directory {
    /// Its path, with a slash at the end.
    pub fn path(self) -> &'static str {
        match self {
            Directory::Shm => "/dev/shm/",
            Directory::Disk => "/var/tmp/",
        }
    }
}

/// The prefix of names. A number of eight hexadecimal digits follows.
const PREFIX: &str = "shmpipe-measure.";
/// Bytes for the longest path and a terminator.
const LONGEST: usize = 48;

/// A file by its directory and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Its directory.
    pub directory: Directory,
    pub(crate) number: u32,
}

impl Scratch {
    /// A name that no other process uses. This process repeats it after 1024 others.
    pub fn new(directory: Directory) -> Scratch {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let last = LAST.fetch_add(1, Relaxed); // only the number matters
        Scratch { directory, number: process::id() << 10 | last & 0x3ff }
    }

    /// Its name in the directory.
    pub fn name(&self) -> String {
        format!("{PREFIX}{:08x}", self.number)
    }

    /// Its path.
    pub fn path(&self) -> String {
        format!("{}{}", self.directory.path(), self.name())
    }

    /// Removes the file if it exists, and returns the result of `unlink`. Async-signal-safe.
    pub(crate) fn remove(self) -> i32 {
        let mut path = [0_u8; LONGEST];
        let digits =
            (0..8).rev().map(|place| b"0123456789abcdef"[(self.number >> (4 * place) & 0xf) as usize]);
        let text = self.directory.path().bytes().chain(PREFIX.bytes()).chain(digits);
        path[..LONGEST - 1].iter_mut().zip(text).for_each(|(to, byte)| *to = byte);
        // SAFETY: a string with a terminator, since no path fills the buffer.
        unsafe { libc::unlink(path.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn remove_unlinks_the_path() {
        for directory in [Directory::Shm, Directory::Disk] {
            let (one, other) = (Scratch::new(directory), Scratch::new(directory));
            assert!(one.path().len() < LONGEST);
            fs::write(one.path(), "").unwrap();
            fs::write(other.path(), "").unwrap();
            assert_eq!((one.remove(), one.remove()), (0, -1));
            assert!(!Path::new(&one.path()).exists() && Path::new(&other.path()).exists());
            assert_eq!(other.remove(), 0);
            assert!(!Path::new(&other.path()).exists());
        }
    }
}
